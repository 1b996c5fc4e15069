/* SPDX-License-Identifier: MIT */
/*
 * tasks.h - tasks RCU: free generated code when no thread can be in it.
 *
 * What: a *zone* is a range of code that a program made while running: a
 * trampoline, a probe's detour, what a JIT compiler wrote. When nothing leads
 * into it any more, a thread may still be in it: preempted between two of its
 * instructions, in a function that it called, in a signal handler that
 * interrupted it. Tasks RCU waits until that has become impossible, for every
 * thread, and then lets the memory be freed.
 *
 *   shunt_call_rcu_tasks()           call back when nobody can be in a zone
 *   shunt_synchronize_rcu_tasks()    wait until everybody has been out of all zones
 *   shunt_rcu_tasks_barrier()        wait for the callbacks
 *   shunt_code_alloc()               executable memory within reach of given text
 *   shunt_code_write(), _free()      W^X, freed through a grace period
 *   shunt_rcu_tasks_roots_add()      where stacks of coroutines are
 *   shunt_rcu_tasks_set()            stall time, signal, limits
 *   shunt_rcu_tasks_stats()          what it costs, and what is held back
 *
 * Example: a function that is made, used, and freed while others may run it.
 *
 *	#include <shunt/tasks.h>
 *
 *	static int (*volatile answer)(void);
 *
 *	int main(void)
 *	{
 *		static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
 *		static struct shunt_zone zone;
 *		uintptr_t here = (uintptr_t)main;
 *		int n;
 *
 *		zone.name = "answer";
 *		if (shunt_code_alloc(&zone, here, here + 1, sizeof code) ||
 *			shunt_code_write(&zone, 0, code, sizeof code))
 *			return 1;
 *		answer = (int (*)(void))zone.start;
 *		n = answer();
 *		answer = 0;                    // the door is closed
 *		if (shunt_code_free(&zone))    // the room is emptied, then used again
 *			return 1;
 *		return n != 42;
 *	}
 *
 * How it works: docs/tasks.md. Threads that do not run are looked at through /proc, and never
 * notice; those that run are asked by a signal.
 *
 * Caveats:
 * - Addresses are recognised, not understood: a number on a stack that happens to
 *   be an address in a zone keeps it, until the stack changes.
 * - A thread that runs on and on with the signal blocked holds up all zones. It is named in
 *   a report, as is who sleeps in a zone; memory held so is bounded.
 * - The signal restarts system calls (SA_RESTART), but some (poll, epoll_wait, nanosleep)
 *   fail with EINTR for any signal. Idle threads get none; a thread that was running when it
 *   was looked at, twice, and began to wait before the signal came, may see it.
 * - A process made by a raw clone() with CLONE_VM, without CLONE_THREAD and CLONE_VFORK, runs
 *   unseen in our memory: it must stay out of zones.
 */
#ifndef SHUNT_TASKS_H
#define SHUNT_TASKS_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/rcu.h>
#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A range of code. The library's from shunt_call_rcu_tasks() or shunt_code_free()
 * until the callback; else the caller's, who may keep any number of them.
 */
struct shunt_zone {
	uintptr_t start, end; /* [start, end) */
	const char *name;     /* for reports; must stay; may be NULL */
	/*
	 * For code that counts its visitors itself, by locked adds: sums of those
	 * who came and who left. The zone is kept while they differ. Both 0
	 * for all others.
	 */
	uint64_t begun, ended;
	void *priv[4]; /* the library's: zero them */
};

/*
 * Calls func(head) on a thread of the library's own, without locks, when no thread
 * can be in the zone any more: neither by its PC, nor by an address on its stack or
 * on one that a signal handler has left for another, nor through a child of
 * vfork(). Before the call the door must have been closed: nothing leads into the zone,
 * and all processors have been serialized since (shunt_text_apply() does that).
 *
 * Being on the way into the zone means being in it, but only for who has
 * arrived: an address of it that is kept elsewhere, such as in a function pointer, and
 * used later, is a door.
 *
 * zone and head stay the library's until func is called; zones may overlap. While one zone
 * is visited, others are called back. Any thread, with any locks that func does
 * not take; also in func itself. Not in signal handlers. Allocates a thread the first
 * time and after fork(). 0; -EINVAL: no func, or an empty zone; -EAGAIN: no thread could be
 * started, and nothing was taken.
 */
SHUNT_API int shunt_call_rcu_tasks(struct shunt_rcu_head *head, struct shunt_zone *zone,
	void (*func)(struct shunt_rcu_head *head));

/*
 * Waits until every thread has, at least once since the call, been seen outside of
 * all zones that there are: all memory of shunt_code_alloc(), and zones that wait for
 * their callback. As long as it takes: a thread asleep in a zone is waited for.
 * Blocks; not in signal handlers. 0; -EDEADLK: the caller is itself in such a zone;
 * -ENOMEM, or what /proc said: nothing was waited for.
 */
SHUNT_API int shunt_synchronize_rcu_tasks(void);

/*
 * Waits until all callbacks that were handed in before have returned. Blocks, for as
 * long as anybody is in their zones; not in signal handlers. 0; -EDEADLK: from a
 * callback; -EAGAIN: no thread could be started.
 */
SHUNT_API int shunt_rcu_tasks_barrier(void);

/*
 * Executable memory from which every address of [near_lo, near_hi) can be
 * reached with a 32-bit relative branch, and the other way round. Fills in
 * zone->start and zone->end (start is aligned to 64 bytes); what is in it is
 * int3 until written. Any thread, not in signal handlers; maps memory, never blocks
 * for a grace period. 0; -EINVAL: no size, an empty or too wide range; -ENOMEM: no room
 * within reach, or more memory than SHUNT_RCU_TASKS_HELD_MAX waits to be freed.
 */
SHUNT_API int shunt_code_alloc(struct shunt_zone *zone, uintptr_t near_lo, uintptr_t near_hi,
	size_t size);

/*
 * Writes n bytes at zone->start + offset. Nothing may execute there yet; other parts of
 * the page may. Any thread, not in signal handlers. 0; -ERANGE: not in the zone; -EINVAL: not
 * in memory of shunt_code_alloc(); or what all ways of writing said.
 */
SHUNT_API int shunt_code_write(const struct shunt_zone *zone, size_t offset, const void *bytes,
	size_t n);

/*
 * After a grace period of tasks RCU the memory is poisoned and used again. Doors as for
 * shunt_call_rcu_tasks(). Any part of an allocation that begins at a multiple of 64 bytes
 * from its start may be freed on its own, by a zone that says so; it goes up to
 * the next multiple. The zone itself is the caller's again at once, only its name must
 * stay. Allocates nothing but the thread. Any thread, not in signal handlers. 0;
 * -EINVAL: not such a part, or freed already; -EBUSY: begun and ended differ (a zone
 * that counts goes through shunt_call_rcu_tasks() first).
 */
SHUNT_API int shunt_code_free(struct shunt_zone *zone);

/*
 * Where a program that switches stacks by itself (coroutines, fibers) keeps them. each()
 * calls visit(arg, lo, hi, sp) for every context there is, on or off a thread: the stack is
 * [lo, hi); sp is where its saved part begins, or 0 if it runs or may be about to. While
 * visit() runs, a context that was given with its sp must not be resumed. Where a thread's
 * own stack is left for a coroutine's, it is such a context too. each() runs on any
 * thread of the library or one that waits for a grace period, with signals held
 * back and a lock of ours: it must not wait for another thread that does something
 * with tasks RCU. Without this, code that others free must not be left by a switch of
 * stacks, or must count its visitors (begun, ended).
 */
struct shunt_rcu_roots {
	void (*each)(struct shunt_rcu_roots *roots,
		void (*visit)(void *arg, uintptr_t lo, uintptr_t hi, uintptr_t sp), void *arg);
	struct shunt_rcu_roots *next; /* the library's */
};

/* Any thread, not in signal handlers. The structure stays the library's until removed. 0;
 * -EINVAL: no each(); -ENOENT: was not added. */
SHUNT_API int shunt_rcu_tasks_roots_add(struct shunt_rcu_roots *roots);
SHUNT_API int shunt_rcu_tasks_roots_remove(struct shunt_rcu_roots *roots);

enum shunt_rcu_tasks_option {
	SHUNT_RCU_TASKS_STALL_MS, /* after which a report is logged, and again; 0: never. 10000 */
	SHUNT_RCU_TASKS_SIGNAL,	  /* asks running threads; 0: a free real-time one is found */
	SHUNT_RCU_TASKS_HELD_MAX, /* bytes of freed code that may wait. 64 MiB */
};

/* Any thread, not in signal handlers. 0; -EINVAL: no such option or signal. */
SHUNT_API int shunt_rcu_tasks_set(enum shunt_rcu_tasks_option option, uint64_t value);

struct shunt_rcu_tasks_stats {
	uint64_t passes;      /* looks at all threads that came to an end */
	uint64_t tries;	      /* attempts, also those that somebody could not be seen in */
	uint64_t threads;     /* threads looked at */
	uint64_t signals;     /* sent to running threads, in all */
	uint64_t called;      /* callbacks that have returned */
	uint64_t waiting;     /* callbacks that have not */
	uint64_t held;	      /* zones that somebody was found in by the last look */
	uint64_t held_bytes;  /* code that was freed and cannot be used yet */
	uint64_t code_bytes;  /* executable memory, in all */
	uint64_t stalls;      /* reports */
	int32_t signal;	      /* the number in use, 0: none yet */
	int32_t stalled_tid;  /* who the last report names, */
	uintptr_t stalled_pc; /* and where that one was, 0: not known */
};

/* Any thread; not in signal handlers. Fills in size bytes: sizeof *stats. 0, -EINVAL. */
SHUNT_API int shunt_rcu_tasks_stats(struct shunt_rcu_tasks_stats *stats, size_t size);

#ifdef __cplusplus
}
#endif
#endif
