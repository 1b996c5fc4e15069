/* SPDX-License-Identifier: MIT */
/*
 * worker.h - a background thread of the library's own, started when it is first
 * needed. It holds back all signals but the synchronous ones, has a small stack, and is gone in a fork
 * child until somebody kicks it there.
 */
#ifndef SHUNT_BASE_WORKER_H
#define SHUNT_BASE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

struct shunt_worker {
	/* One round of work, no lock held: milliseconds until the next one, 0 for
	 * at once, negative for none before a kick. */
	int (*pass)(void);
	const char *name; /* of the thread, at most 15 characters */
	uint32_t kicks;	  /* futex: changes with each kick */
	int32_t process;  /* in which the thread runs; negative: is being started */
};

#define SHUNT_WORKER(pass_, name_) \
	{.pass = (pass_), .name = (name_)}

/*
 * A pass will begin after this call. Starts the thread where there is none. Not
 * from signal handlers, nor between fork's handlers. 0, or what pthread_create()
 * said: there will be no pass then.
 */
int shunt_worker_kick(struct shunt_worker *w);

/* The same for one that is known to run: starts nothing. Any context. */
void shunt_worker_wake(struct shunt_worker *w);

/* Whether the calling thread is this worker. */
bool shunt_worker_self(const struct shunt_worker *w);

#endif
