/* SPDX-License-Identifier: MIT */
/*
 * lock.h - a spinlock of 8 bytes whose waiters can be made to sleep.
 *
 * What: a ticket lock. To take it while nobody has it is one locked instruction, to release
 * it one plain one; neither calls a function. While threads outnumber processors, the
 * release of every lock in the process is rewritten into a call that wakes sleepers, and
 * waiters sleep.
 *
 * Why: a spinlock is the cheapest lock there is until its holder is preempted; then
 * everybody spins for nothing. A mutex asks at each release whether somebody sleeps,
 * for which it needs a locked instruction, though nearly nobody ever does. Here nobody
 * asks: the question is put into the code when there is reason to.
 *
 *   struct shunt_lock, SHUNT_LOCK_INIT	   the lock; all zero is a free one
 *   shunt_lock_init(l)			   makes it free
 *   shunt_lock_lock(l), shunt_lock_trylock(l), shunt_lock_unlock(l)
 *   shunt_lock_set_mode(mode)		   SHUNT_LOCK_NATIVE or SHUNT_LOCK_PARK, for all locks
 *   shunt_lock_get_mode()		   which of them
 *   shunt_lock_auto(on)		   a thread that looks after the mode
 *
 * Example:
 *
 *	static struct shunt_lock lock = SHUNT_LOCK_INIT;
 *	static long balance;
 *
 *	static void deposit(long n)
 *	{
 *		shunt_lock_lock(&lock);
 *		balance += n;
 *		shunt_lock_unlock(&lock);
 *	}
 *
 *	int main(void)
 *	{
 *		shunt_lock_auto(true);
 *		deposit(2);
 *		deposit(3);
 *		return balance != 5 || shunt_lock_auto(false);
 *	}
 *
 * How it works: docs/lock.md. In short: free is "next ticket == ticket being served"; unlocking adds
 * one to the latter, a 16-bit field that only the holder writes, so that no locked instruction is
 * needed. That addition is a pv op (ops.h): in park mode a compare-exchange in its place
 * releases and finds out whom to wake, at once. So there is no moment between
 * asking and releasing, and nothing of the lock is touched after its release: the next
 * holder may free its memory.
 *
 * Caveats:
 * - Not recursive, not robust, in one process only: not in memory shared with others.
 * - In native mode waiters spin, and in the order in which they came.
 * - In park mode threads that come may overtake those that sleep, for a few milliseconds.
 * - A child of fork() may use locks that were free at the fork; others, its own too, it
 *   has to shunt_lock_init() first: their waiters are not there any more.
 * - Code that runs before its object's constructors (an IFUNC resolver) releases natively;
 *   who sleeps for that lock sleeps 10 ms too long at most.
 * - At most 65,535 threads may wait for a lock at once.
 */
#ifndef SHUNT_LOCK_H
#define SHUNT_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <shunt/ops.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ABI. Bits 0..15 how many are registered as sleepers, 16 one of them is awake, 17..31
 * changes when a ticket is called; 32..47 the next ticket, 48..63 the one being served.
 */
struct shunt_lock {
	uint64_t word;
};
#define SHUNT_LOCK_INIT {0}

enum shunt_lock_modes {
	SHUNT_LOCK_NATIVE = 0, /* waiters spin */
	SHUNT_LOCK_PARK = 1,   /* ... a little, then sleep */
};

/*
 * The mode of all locks of the process. Any thread but not signal handlers. Blocks,
 * allocates; patches code (text.h). To native mode: waits until all sleepers are up, usually
 * for 10 ms at most. 0, or the mode is what it was:
 * -ERANGE	there is no such mode
 * -EBUSY	a sleeper did not get up for a second (a stopped thread), or an unlock does not
 *		hold what it should (another tool has changed it)
 * -ENOMEM, or what shunt_text_apply() says.
 */
SHUNT_API int shunt_lock_set_mode(enum shunt_lock_modes mode);

/*
 * Starts or stops a thread that sets the mode: to park as soon as waiters have spun for
 * 20 us in vain 16 times within 10 ms, to native when none has slept for a second. It sleeps while
 * nobody spins long. It blocks all signals but SIGTRAP. Stopping it leaves the mode as it
 * is. Any thread but not signal handlers. Blocks, allocates. It is not there in a child
 * of fork(). 0, also if it is as wanted; or what pthread_create() says, negative.
 */
SHUNT_API int shunt_lock_auto(bool on);

/* The choice that the mode is. Not for shunt_choice_set(): sleepers would not be waited for. */
SHUNT_API extern struct shunt_choice shunt_lock_mode;
SHUNT_DECLARE_CHOICE(shunt_lock_mode);

/* What the inline functions call. The last changes no register, for its call stands
 * where the compiler sees one instruction. */
SHUNT_API void shunt_lock_slow(struct shunt_lock *l);
SHUNT_API void shunt_lock_wait(struct shunt_lock *l, uint16_t ticket);
#ifdef __x86_64__
__attribute__((no_caller_saved_registers))
#endif
SHUNT_API void shunt_lock_unlock_park(struct shunt_lock *l);

/* Any context. */
static inline __attribute__((unused)) enum shunt_lock_modes shunt_lock_get_mode(void)
{
	return shunt_choice_get(shunt_lock_mode) ? SHUNT_LOCK_PARK : SHUNT_LOCK_NATIVE;
}

/* Makes a lock free, whatever it was; nobody may be waiting for it. Any context. */
static inline __attribute__((unused)) void shunt_lock_init(struct shunt_lock *l)
{
	__atomic_store_n(&l->word, 0, __ATOMIC_RELAXED);
}

/*
 * Takes a lock if it is free, and says whether. Never blocks. Any context.
 *
 * Only the tickets are exchanged, so that sleepers coming and going do not disturb.
 * They are read one by one, since the one being served has often just been written by
 * a 16-bit store, which a wider load would have to wait for.
 */
static inline __attribute__((unused)) bool shunt_lock_trylock(struct shunt_lock *l)
{
#if SHUNT_SITES
	typedef uint16_t __attribute__((may_alias)) half;
	typedef uint32_t __attribute__((may_alias)) both;
	half *tickets = (half *)&l->word + 2;
	both next = __atomic_load_n(&tickets[0], __ATOMIC_RELAXED), was = next << 16 | next;

	if (__atomic_load_n(&tickets[1], __ATOMIC_RELAXED) != next)
		return false;
	return __atomic_compare_exchange_n((both *)(void *)tickets, &was,
		next << 16 | (uint16_t)(next + 1), false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
#else
	uint64_t was = __atomic_load_n(&l->word, __ATOMIC_RELAXED);
	uint64_t next = was >> 32 & 0xffff;

	return next == was >> 48 &&
	       __atomic_compare_exchange_n(&l->word, &was,
		       (was & ~(UINT64_C(0xffff) << 32)) | ((next + 1) & 0xffff) << 32, false,
		       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
#endif
}

/*
 * Takes a lock. Spins, or sleeps (see the modes); never allocates, uses no other lock, so that
 * an allocator may be built on it. As any lock not in signal handlers, unless its holders
 * block the signal.
 */
static inline __attribute__((unused)) void shunt_lock_lock(struct shunt_lock *l)
{
#if SHUNT_SITES
	typedef uint16_t __attribute__((may_alias)) half;
	half *tickets = (half *)&l->word + 2;
	uint16_t ticket;

	/* A ticket in any case: it needs no look at the word before. */
	if (shunt_choice(shunt_lock_mode) == SHUNT_LOCK_NATIVE) {
		ticket = __atomic_fetch_add(&tickets[0], 1, __ATOMIC_ACQUIRE);
		if (__builtin_expect(__atomic_load_n(&tickets[1], __ATOMIC_ACQUIRE) != ticket, 0))
			shunt_lock_wait(l, ticket);
		return;
	}
#endif
	if (__builtin_expect(!shunt_lock_trylock(l), 0))
		shunt_lock_slow(l);
}

/*
 * Releases a lock that the caller holds, or has been handed. Never blocks. After
 * it, the lock's memory is the next holder's.
 */
static inline __attribute__((unused)) void shunt_lock_unlock(struct shunt_lock *l)
{
#if SHUNT_SITES
	shunt_op(shunt_lock_mode, (), ("D"(l)), ("memory", "cc"), "addw $1, 6(%%rdi)",
		SHUNT_OP_CALL(shunt_lock_unlock_park));
#else
	shunt_lock_unlock_park(l);
#endif
}

#ifdef __cplusplus
}
#endif

#endif
