/* SPDX-License-Identifier: MIT */
/*
 * guard.h - the one place where a callback is called: it sees an exception, or a thread's
 * end, that leaves it; and where a cancelled thread may end. Built with -fexceptions, unlike the rest.
 */
#ifndef SHUNT_MMU_GUARD_H
#define SHUNT_MMU_GUARD_H

#include <shunt/mmu.h>

/* One of the functions, and what it is given. */
struct shunt_mmu_guarded {
	void (*range_fn)(struct shunt_mmu_notifier *, const struct shunt_mmu_event *);
	void (*release_fn)(struct shunt_mmu_notifier *);
	void (*page_fn)(struct shunt_mmu_notifier *, uintptr_t);
	int (*young_fn)(struct shunt_mmu_notifier *, uintptr_t, uintptr_t);
	void (*interval_fn)(struct shunt_mmu_interval *, const struct shunt_mmu_event *, uint64_t);
	struct shunt_mmu_notifier *notifier;
	struct shunt_mmu_interval *interval;
	struct shunt_mmu_event event;
	uint64_t seq;
	int young; /* what young_fn said */
};

void shunt_mmu_guard(struct shunt_mmu_guarded *g);

/*
 * Lets a thread be cancelled again whose type is asynchronous, with nothing of ours open: it may end here, and then
 * what its call has opened is closed.
 */
void shunt_mmu_guard_cancel(void *op);

/* The contract is broken beyond repair: says how on stderr, and aborts. */
void shunt_mmu_guard_broken(const char *how) __attribute__((noreturn));

#endif
