/* SPDX-License-Identifier: MIT */
/*
 * tasks.h - what tasks RCU does for the rest of the library, and what its own
 * files share: code.c is the memory, look.c looks at threads, inquire.c asks
 * those that run, tasks.c are grace periods.
 *
 * Locks, all of them inside the text batch lock and each held with signals held
 * back: `code` (bitmaps of the memory), `pending` (the list of callbacks), `look`
 * (one look at the threads at a time; a holder may wait for other threads, for some
 * milliseconds at most). None of them is held while another one is taken, and
 * none while a callback runs.
 */
#ifndef SHUNT_RCU_TASKS_H
#define SHUNT_RCU_TASKS_H

#include <shunt/tasks.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shunt_range {
	uintptr_t start, end; /* [start, end) */
};

/*
 * Waits until every thread has been seen outside of all n ranges, which are sorted
 * by start and do not overlap, and into which nothing leads any more: original
 * text behind breakpoints that is about to be overwritten. hit, n bytes or NULL, is
 * set to 1 for those that somebody may still be in, 0 for others. A return address
 * into a range counts, but not one that is start itself: that is also what callers know
 * their ranges by. (Behind a breakpoint nobody returns to the second byte: no call is
 * one byte long.) 0: nobody is in any; -EAGAIN: after timeout_ms
 * milliseconds somebody was or might have been (0: one look); -EDEADLK: the caller
 * itself is; -EINVAL: not sorted; -errno. May be called with the batch lock held;
 * not from signal handlers.
 */
int shunt_tasks_ranges_clear(const struct shunt_range *sorted, size_t n, uint8_t *hit,
	unsigned timeout_ms);

/*
 * The same, but the caller's own stack counts from `self` up only: below are frames of
 * functions that return to nowhere in the ranges, and what calls before have left there
 * looks like addresses in them.
 */
int shunt_tasks_ranges_clear_above(uintptr_t self, const struct shunt_range *sorted, size_t n,
	uint8_t *hit, unsigned timeout_ms);

/*
 * Permanent code [lo, hi) from which a thread may be about to jump into any zone
 * by an address that it has in a register only: a thread whose PC is in there,
 * or that is interrupted there, counts as inside of every zone. Words on stacks do
 * not: what is called from there has not yet, or has already, read its table. At
 * most 16, for good. 0, -ENOSPC, -EINVAL.
 */
int shunt_tasks_doorway(uintptr_t lo, uintptr_t hi);

/*
 * Gives code memory back at once: for who knows that nobody is in it, such as a
 * callback of shunt_call_rcu_tasks() for this very range. Aligned as for
 * shunt_code_free(). It is int3 and serialized before it is used again.
 */
int shunt_code_release(uintptr_t start, uintptr_t end);

/* Whether [start, end) is allocated code memory. Any thread, not in signal handlers. */
bool shunt_code_owns(uintptr_t start, uintptr_t end);

/* --- between the files ------------------------------------------------------------------ */

/* One zone, as a look sees it. */
struct shunt_spot {
	uintptr_t start, end;
	uintptr_t reach;	 /* the largest end up to and with this one: zones may overlap */
	struct shunt_zone *zone; /* NULL: freed code memory */
	const char *name;
	int tid;		 /* who was found in it; 0: nobody; -1: no thread can be named */
	uintptr_t pc;
	uint64_t begun;		 /* zone->begun, before the look */
	uintptr_t upto;		 /* code memory: where the granules end */
	uint64_t since;		 /* freed code: when, ns */
	size_t number;
};

/* code.c: freed memory awaits its grace period. */
struct shunt_spots;
int shunt_code_collect(struct shunt_spots *to);	    /* adds the freed ranges */
int shunt_code_existing(struct shunt_spots *to);    /* adds all that is allocated */
void shunt_code_settle(struct shunt_spots *s); /* those not hit may be used again */
size_t shunt_code_held(void);			    /* bytes freed and not yet usable */
size_t shunt_code_reserved(void);		    /* bytes of executable memory in all */
extern size_t shunt_code_limit;
void shunt_code_lock(void);
void shunt_code_unlock(void);

/* tasks.c */
void shunt_tasks_kick(void);

/* A growing array of spots, in memory of its own. */
struct shunt_spots {
	struct shunt_spot *s;
	size_t n, room;
};
int shunt_spots_add(struct shunt_spots *s, struct shunt_spot spot);
void shunt_spots_sort(struct shunt_spots *s);
void shunt_spots_free(struct shunt_spots *s);

/*
 * For tests: parts of the looking that are left out. Each of them must make the
 * sweep fail.
 */
enum {
	SHUNT_TASKS_NO_STACK = 1,     /* stacks are not read */
	SHUNT_TASKS_NO_PC = 2,	      /* nor where a thread stands */
	SHUNT_TASKS_NO_FRAMES = 4,    /* frames of signals do not lead to other stacks */
	SHUNT_TASKS_NO_REGISTERS = 8, /* nor other registers (arguments of system calls) */
	SHUNT_TASKS_NO_VFORK = 16,    /* who waits for a vfork child is like others */
	SHUNT_TASKS_NO_RECHECK = 32,  /* that it has not run meanwhile is not asked */
	/* These are no omissions but other ways, which must work as well. */
	SHUNT_TASKS_NO_SCHEDSTAT = 1 << 16, /* as on kernels without it */
	SHUNT_TASKS_NO_READV = 1 << 17,	    /* as where process_vm_readv is refused */
};
extern unsigned shunt_tasks_test_off;
/* Called between where a thread is and what is on its stack; NULL: not. */
extern void (*shunt_tasks_test_between)(int tid);

#endif
