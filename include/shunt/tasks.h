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

SHUNT_API int shunt_call_rcu_tasks(struct shunt_rcu_head *head, struct shunt_zone *zone,
	void (*func)(struct shunt_rcu_head *head));
SHUNT_API int shunt_synchronize_rcu_tasks(void);
SHUNT_API int shunt_rcu_tasks_barrier(void);

/*
 * Executable memory from which every address of [near_lo, near_hi) can be
 * reached with a 32-bit relative branch, and the other way round. Fills in
 * zone->start and zone->end (start is aligned to 16 bytes); what is in it is
 * int3 until written.
 */
SHUNT_API int shunt_code_alloc(struct shunt_zone *zone, uintptr_t near_lo, uintptr_t near_hi,
	size_t size);
/* Writes n bytes at zone->start + offset. Nothing may execute there yet. */
SHUNT_API int shunt_code_write(const struct shunt_zone *zone, size_t offset, const void *bytes,
	size_t n);
/* After a grace period of tasks RCU the memory is poisoned and used again. */
SHUNT_API int shunt_code_free(struct shunt_zone *zone);

#ifdef __cplusplus
}
#endif
#endif
