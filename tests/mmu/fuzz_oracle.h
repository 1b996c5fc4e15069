/* SPDX-License-Identifier: MIT */
/*
 * fuzz_oracle.h - what the fuzzer knows of the events that it was told, and what it holds against them.
 *
 * A *region* is some pages that one worker changes at random, and that io_uring has pinned: what comes
 * through the ring goes to the pages of then. A *watcher* is a notifier that looks only at the rules that hold for
 * each notifier: each start has its end, none after unregister, one release. The *oracle* is a notifier
 * that also marks the regions that an event touches, and so do intervals.
 */
#ifndef FUZZ_ORACLE_H
#define FUZZ_ORACLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <shunt/mmu.h>

#define WORKERS 8
#define REGIONS 9
#define PAGES 8
#define PAGE 4096ul
#define LENGTH (PAGES * PAGE)

struct region {
	_Atomic uintptr_t start;
	atomic_uint told;	 /* by the oracle, since io_uring has it */
	/* what a start of the owner's own still finds in the memory; 0: do not look */
	atomic_ulong expect;
	unsigned epoch;		 /* of the oracle when io_uring got it */
	int file;		 /* or -1 */
	void *handle;		 /* where it is a library's or malloc()'s */
	struct shunt_mmu_interval interval;
	atomic_uint interval_told;
	bool listening;		 /* the interval is there, and was when io_uring got it */
	uint64_t seq;
};

extern struct region regions[WORKERS][REGIONS];

/* The number of the calling worker, -1: another thread. */
extern _Thread_local int self;
/* What it does. */
extern _Thread_local const char *doing;
/* Nobody is registered in a child of fork(). */
extern bool forked;

/* What both processes see: the one that works, and the one that judges. */
struct verdict {
	atomic_flag said;
	char text[300];
	atomic_ulong registered, released; /* watchers, and the oracle */
	unsigned long ops, events, stale, unseen, self_quits, late, handed;
};

extern struct verdict *verdict;

/* Says what went wrong (the first says it) and ends the process. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

enum watcher_state { WATCHER_OFF, WATCHER_ON };

struct watcher {
	struct shunt_mmu_notifier n;
	atomic_int state;
	atomic_ulong open; /* the sum of the hashes of all pairs that are open */
	atomic_uint inside, releases;
	atomic_bool gone;  /* unregister has returned */
	bool oracle;	   /* marks regions */
	unsigned busy;	   /* allocates and maps in one of so many callbacks; 0: never */
	unsigned quits_in; /* unregisters itself in one of so many; 0: never */
	atomic_uint seed;
};

/* Zeroes what there was. -errno. */
int watcher_on(struct watcher *w, uint32_t kinds, uint32_t flags);
/* Unregisters and holds it against the rules. */
void watcher_off(struct watcher *w);

/* Marks the region when something changes in it. */
int region_listen(struct region *r);
void region_ignore(struct region *r);

/* Pages that the system-call filter refuses everything in, WINDOW_SIZE for each worker. */
#define WINDOW_SIZE (16 * PAGE)
extern uintptr_t window;
extern atomic_uint window_starts[WORKERS], window_ends[WORKERS];

#endif
