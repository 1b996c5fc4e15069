/* SPDX-License-Identifier: MIT */
/*
 * control.h - lets `shunt list`, `shunt set` and `shunt watch` into this program.
 *
 * Nothing listens unless asked for: by shunt_control_start(), by the variable
 * SHUNT_CONTROL=1 in the environment when the library is loaded, or by `shunt record`,
 * which brings all of this along. Then there is a thread named "shunt" and a file in
 * /dev/shm, of mode 0600, that is removed at exit: its user, and root, may change
 * what is not private (SHUNT_PRIVATE() of site.h). docs/control.md says more.
 *
 * Example:
 *
 *	int err = shunt_control_start();
 *
 *	if (err)
 *		fprintf(stderr, "not controllable: %s\n", strerror(-err));
 */
#ifndef SHUNT_CONTROL_H
#define SHUNT_CONTROL_H

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Starts listening; does nothing if that is done already. Any thread; not in signal
 * handlers. Blocks, allocates. A fork child does not listen until it calls this
 * itself. 0, or what open(2), mmap(2), pthread_create(3) say.
 */
SHUNT_API int shunt_control_start(void);

/* Stops it, and removes the file. Not in signal handlers. Blocks. */
SHUNT_API void shunt_control_stop(void);

#ifdef __cplusplus
}
#endif
#endif
