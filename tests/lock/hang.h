/* SPDX-License-Identifier: MIT */
/* hang.h - a missed wake hangs for ever: who waits for so long says so and ends. */
#ifndef TESTS_LOCK_HANG_H
#define TESTS_LOCK_HANG_H

#include <signal.h>
#include <unistd.h>

static void hung(int sig)
{
	static const char say[] = "not ok - somebody sleeps who should have been woken\n";

	(void)sig;
	_exit(write(1, say, sizeof say - 1) ? 1 : 2);
}

static inline void end_after(unsigned seconds)
{
	signal(SIGALRM, hung);
	alarm(seconds);
}

#endif
