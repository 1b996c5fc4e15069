/* SPDX-License-Identifier: MIT */
/*
 * named.h - probes that were asked for by a text (spec.h), under the names of their events.
 *
 * Any thread, no signal handlers. One lock, the outermost of all (of the agent's too), held
 * with signals held back; at the probes themselves there is none.
 */
#ifndef SHUNT_PROBE_NAMED_H
#define SHUNT_PROBE_NAMED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Sets all of them or none; with `later`, those whose object or function is not there wait
 * for an object that has it. 0; or an error with a sentence in `why`: -EINVAL, -EEXIST for
 * an event's name that is taken, or what shunt_probe_register() says.
 */
int shunt_named_add(const char *const *texts, size_t n, bool later, char *why, size_t why_size);

/*
 * Those that wait, after objects were loaded; `complain` (may be NULL) hears why one that is
 * there cannot be set. How many were.
 */
int shunt_named_retry(void (*complain)(const char *sentence));

/*
 * Those whose name, or "probe:" and name, matches. How many, or an error with a sentence in
 * `why`; some may have been done by then.
 */
int shunt_named_remove(const char *glob, char *why, size_t why_size);
int shunt_named_switch(const char *glob, bool on, char *why, size_t why_size);

/* One of them, as it is now. */
struct shunt_named_info {
	const char *event, *text;
	const char *form; /* "jump", "breakpoint" .., "waiting" */
	uintptr_t addr;	  /* 0: waiting */
	uint64_t hits;
	bool on;
};

/* Calls fn for each, in the order in which they were set, until it does not return 0. */
int shunt_named_each(int (*fn)(const struct shunt_named_info *info, void *arg), void *arg);

/* Has fork() wait for the lock. After whoever holds an inner lock has said the same. */
void shunt_named_at_fork(void);

#endif
