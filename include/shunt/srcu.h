/* SPDX-License-Identifier: MIT */
/*
 * srcu.h - sleepable RCU: wait until all who were reading have finished.
 *
 * What: readers mark sections in which they use what others may take away. Who takes
 * something away first makes it unfindable, then waits for a *grace period*, until every
 * section that had begun by then is over, then frees it. Readers of one *domain* are waited
 * for by that domain alone, so they may take their time: sleep, block, do I/O.
 *
 * Why: marking a section costs two plain increments of a thread's own memory: no lock, no
 * locked instruction, no fence, nothing that processors share. Threads are not registered, a
 * signal handler may read at any instruction, and a section may be left on another
 * thread than the one it was entered on.
 *
 *   struct shunt_srcu, SHUNT_SRCU_INIT, SHUNT_SRCU_DEFINE(name)   a domain; all zero is one
 *   shunt_srcu_init(d), shunt_srcu_cleanup(d)	    the same at run time, and its end
 *   shunt_srcu_read_lock(d), shunt_srcu_read_unlock(d, idx)	    a section
 *   shunt_srcu_synchronize(d)			    waits for a grace period
 *   shunt_srcu_synchronize_expedited(d)	    ... in a hurry
 *   shunt_srcu_call(d, head, func)		    calls back after one
 *   shunt_srcu_barrier(d)			    waits for callbacks
 *   shunt_srcu_get_state(d), shunt_srcu_start_poll(d)	    which one it would be,
 *   shunt_srcu_poll_state(d, state)		    and whether it is over
 *
 * Example:
 *
 *	#include <stdlib.h>
 *
 *	struct config {
 *		struct shunt_rcu_head head;
 *		int limit;
 *	};
 *	static struct config *current;
 *	static SHUNT_SRCU_DEFINE(domain);
 *
 *	static int limit(void)
 *	{
 *		int idx = shunt_srcu_read_lock(&domain);
 *		const struct config *c = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
 *		int n = c ? c->limit : 0;
 *
 *		shunt_srcu_read_unlock(&domain, idx);
 *		return n;
 *	}
 *
 *	static void release(struct shunt_rcu_head *head)
 *	{
 *		free((void *)head);
 *	}
 *
 *	static void set_limit(int n)
 *	{
 *		struct config *c = (struct config *)malloc(sizeof *c), *old;
 *
 *		c->limit = n;
 *		old = __atomic_exchange_n(&current, c, __ATOMIC_ACQ_REL);
 *		if (old)
 *			shunt_srcu_call(&domain, &old->head, release);
 *	}
 *
 *	int main(void)
 *	{
 *		set_limit(1);
 *		set_limit(2);
 *		return limit() != 2 || shunt_srcu_barrier(&domain) || shunt_srcu_cleanup(&domain);
 *	}
 *
 * How it works: src/rcu/srcu.c and docs/rcu.md. In short: each thread has, for each domain, sums
 * of the sections entered and left. Who waits adds them up over all threads; when the
 * sums are equal, with a membarrier(2) between adding up the one and the other,
 * nobody is inside. Two pairs of sums, used in turn, keep new readers from being waited for.
 *
 * Caveats:
 * - A section that is never left, because its thread ended in it or jumped out of it, is waited for
 *   for ever (a message goes to the log after ten seconds).
 * - A fork() child goes on with the sections of the forking thread; those of the others are
 *   over. Which thread a section belongs to is told by where it was entered: in a program
 *   that moves open sections between threads, fork while none is moved.
 * - A vfork() child may read; all else is for the parent.
 * - Where membarrier(2) is not to be had (before Linux 4.14, or filtered), sections cost two locked
 *   instructions.
 * - Each thread that reads maps 512 KiB of address space, of which it uses a page for
 *   the first 48 domains, and one for each 128 more. A program that locks all its memory
 *   (mlockall(2), MCL_FUTURE) pays for the whole of it. Where it cannot be mapped, the thread's
 *   sections are counted in the domain itself, by locked instructions.
 */
#ifndef SHUNT_SRCU_H
#define SHUNT_SRCU_H

#include <stdbool.h>
#include <stdint.h>

#include <shunt/rcu.h>
#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A domain. `word` is ABI; the rest is the library's alone. */
struct shunt_srcu {
	/* Where a thread has its sums for this domain, in bytes; and, in bit 3, which pair of
	 * them is in use. Below 16: nowhere, ask the library. */
	uint32_t word;
	uint32_t index;
	uint64_t apart[7]; /* what changes is not in the readers' cache line, or seldom */
	uint64_t seq;
	uint64_t since;
	uint32_t driver, stage;
	uint64_t lock[2], unlock[2];
	struct shunt_rcu_head *incoming, **incoming_end;
	struct shunt_rcu_head *waiting;
	uint64_t due, wanted;
	uint64_t pending;
	struct shunt_srcu *next;
	uint32_t armed, waiters;
	uint64_t unused;
};

#ifdef __cplusplus
#define SHUNT_SRCU_INIT {}
#else
#define SHUNT_SRCU_INIT {0}
#endif
#define SHUNT_SRCU_DEFINE(name) struct shunt_srcu name = SHUNT_SRCU_INIT

/* How many domains there can be at a time. Those that come later are slow for readers. */
#define SHUNT_SRCU_DOMAINS 16000

/*
 * Makes a domain of any memory. Not needed for one that is all zero. Any thread.
 * 0; -ENOSPC: there are SHUNT_SRCU_DOMAINS already.
 */
SHUNT_API int shunt_srcu_init(struct shunt_srcu *d);

/*
 * The end of a domain that nobody uses any more: its memory may be freed, or used as new. Waits
 * for a callback that is running; not from signal handlers. 0, or nothing has changed:
 * -EBUSY	there are readers inside, or callbacks that have not been called yet (which
 *		shunt_srcu_barrier() waits for), or it is one of its callbacks that asks
 * or what pthread_create(3) and membarrier(2) say, negative.
 */
SHUNT_API int shunt_srcu_cleanup(struct shunt_srcu *d);

/*
 * Waits for a grace period: for all sections of the domain that were entered before the call.
 * What other threads stored in them is seen afterwards, and what they could find
 * before the call is theirs no more. Several callers share one. Any thread;
 * not in signal handlers, nor in vfork children. Blocks. 0, or
 * -EDEADLK	it is the calling thread that is inside, and nobody else. A section that was
 *		entered here and moved to another thread while open counts as being here.
 * or what membarrier(2) says, negative, when a filter that was installed later forbids it.
 */
SHUNT_API int shunt_srcu_synchronize(struct shunt_srcu *d);

/* The same, but looks for the end all the time where the other sleeps up to 2 ms. */
SHUNT_API int shunt_srcu_synchronize_expedited(struct shunt_srcu *d);

/*
 * Has func(head) called after a grace period, on a thread of the library's, with all signals
 * blocked and no lock held, in the order of the calls. func may do as it likes, free the memory of
 * head, call this again; but all callbacks of all domains wait for one that blocks. Any thread, in
 * sections and callbacks too; not in signal handlers. Does not wait; starts
 * the thread if there is none. 0, or what pthread_create(3) says, negative: will not be called then.
 * A fork() child calls the callbacks that were waiting, when it first uses this, _barrier() or
 * _start_poll() itself.
 */
SHUNT_API int shunt_srcu_call(struct shunt_srcu *d, struct shunt_rcu_head *head,
	void (*func)(struct shunt_rcu_head *head));

/*
 * Waits until all callbacks of the domain that were handed over before have returned. As
 * shunt_srcu_synchronize(); and -EDEADLK: from a callback; -ENOMEM.
 */
SHUNT_API int shunt_srcu_barrier(struct shunt_srcu *d);

/*
 * Polling. The state stands for the end of a grace period that begins after the call;
 * shunt_srcu_poll_state() says whether it is reached. With get_state nobody works for it but
 * other callers' grace periods and the polls: each takes it one step further. start_poll has the
 * library's thread do it; if it cannot be started, it is as get_state. poll_state
 * does not wait. A state of 0 is always reached. Any thread; not in signal handlers, but for get_state.
 */
SHUNT_API uint64_t shunt_srcu_get_state(struct shunt_srcu *d);
SHUNT_API uint64_t shunt_srcu_start_poll(struct shunt_srcu *d);
SHUNT_API bool shunt_srcu_poll_state(struct shunt_srcu *d, uint64_t state);

/* For the two functions below. */
SHUNT_API int shunt_srcu_lock_slow(struct shunt_srcu *d);
SHUNT_API void shunt_srcu_unlock_slow(struct shunt_srcu *d, int idx);

/* The calling thread's sums; NULL before its first section. */
extern SHUNT_API __thread char *shunt_srcu_self __attribute__((tls_model("initial-exec")));

/*
 * Begins a section; returns what the end of it is to be given. Any context, signal handlers and
 * vfork children too; sections nest. Never fails, does not block; a thread's first
 * one maps memory. errno is left alone.
 */
__attribute__((unused)) static inline int shunt_srcu_read_lock(struct shunt_srcu *d)
{
#ifdef __x86_64__
	char *self = shunt_srcu_self;
	uint32_t word = __atomic_load_n(&d->word, __ATOMIC_RELAXED);

	if (__builtin_expect(self && word >= 16, 1)) {
		/* One instruction, so that a signal handler's count is not lost. Pairs with the
		 * membarrier of shunt_srcu_synchronize(): what is read in the section is
		 * read after that, or the section is counted before. */
		__asm__ volatile("incq %0" : "+m"(*(uint64_t *)(void *)(self + word)) : : "cc", "memory");
		return (int)word;
	}
#endif
	return shunt_srcu_lock_slow(d);
}

/* Ends a section; on any thread, but once. As shunt_srcu_read_lock(). */
__attribute__((unused)) static inline void shunt_srcu_read_unlock(struct shunt_srcu *d, int idx)
{
#ifdef __x86_64__
	char *self = shunt_srcu_self;

	if (__builtin_expect(self && idx >= 16, 1)) {
		/* Stores are seen in their order, and after earlier loads: who
		 * has counted this is behind the section. */
		__asm__ volatile("incq %0"
				 : "+m"(*(uint64_t *)(void *)(self + (uint32_t)idx + 16))
				 :
				 : "cc", "memory");
		return;
	}
#endif
	shunt_srcu_unlock_slow(d, idx);
}

#ifdef __cplusplus
}
#endif
#endif
