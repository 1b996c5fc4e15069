/* SPDX-License-Identifier: MIT */
/*
 * lock.c - waiting for a lock, and switching between the two ways of it.
 *
 * What must hold: who sleeps is woken, though a native release wakes nobody.
 *
 * (1) Who may sleep is counted in `parked` and has found `shunt_lock_parking` true after it was. While
 *     somebody is counted, every release is a call: `shunt_lock_parking` becomes true after
 *     all of them are patched, and they are patched back after `shunt_lock_parking` has become
 *     false and `parked` has been zero. The patching serializes all processors: what a plain
 *     release before it has written is seen by whoever then finds `shunt_lock_parking` true.
 *
 * (2) Who sleeps is registered in the word, and sleeps only if the word's low half is
 *     still what it was when the lock was held: the holder's release is yet to come.
 *
 * (3) A ticket's holder: the release that calls a ticket counts in CALLED and wakes its bit.
 *
 * (4) Without a ticket: while the lock is free and somebody is registered, WOKEN is set. While it is
 *     set, somebody is awake who will take the lock, or clear it in an exchange that finds the lock
 *     held, before sleeping. That is whoever the release that set it has woken; or, if
 *     nobody slept yet, whoever failed to, since the word had changed; or a thread that spins and
 *     has set it itself, to spare the holder from waking anybody.
 *
 * With tickets waiting nobody else can take the lock, and the last of them wakes who has none.
 * models/lock.pml has all of it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "lock.h"
#include "site/site.h"
#include "word.h"

SHUNT_DEFINE_CHOICE(shunt_lock_mode, "native", "park");
SHUNT_PRIVATE(shunt_lock_mode); /* sleepers have to be waited for */

struct shunt_lock_times shunt_lock_times = {
	.spin_ns = 12000,
	.long_ns = 20000,
	.sleep_ns = 10000000,
	.turn_ns = 250000,
};

bool shunt_lock_parking;
static uint32_t parked;
uint32_t shunt_lock_sleeps;

/*
 * Between two looks, in pauses. Who has a ticket and is the next looks often. Who would
 * take what is free looks seldom: each look makes the holder's next exchange wait for the cache line.
 */
#define PAUSES_WITH 1
#define PAUSES_FOR  32

static void pause_for(int n)
{
	for (int i = 0; i < n; i++)
#ifdef __x86_64__
		__builtin_ia32_pause();
#else
		__asm__ volatile("" ::: "memory");
#endif
}

static bool parking_now(void)
{
	return __atomic_load_n(&shunt_lock_parking, __ATOMIC_RELAXED);
}

/* --- sleeping ------------------------------------------------------------------- */

/* (1). Whoever enters leaves, soon. The partners are in to_native(). */
static bool enter(void)
{
	__atomic_fetch_add(&parked, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&shunt_lock_parking, __ATOMIC_SEQ_CST))
		return true;
	__atomic_fetch_sub(&parked, 1, __ATOMIC_SEQ_CST);
	return false;
}

static void leave(void)
{
	__atomic_fetch_sub(&parked, 1, __ATOMIC_SEQ_CST);
}

/*
 * For a release that does for one of the bits, if the word's low half is still w's. For ns
 * at most. False: it was the time that ended it.
 */
static bool sleep_on(struct shunt_lock *l, uint64_t w, uint32_t bits, uint64_t ns)
{
	uint64_t most = shunt_lock_times.sleep_ns, until = shunt_now_ns() + (ns < most ? ns : most);
	struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
	int saved = errno;
	bool in_time;

	__atomic_fetch_add(&shunt_lock_sleeps, 1, __ATOMIC_RELAXED);
	in_time = !syscall(SYS_futex, l, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, (uint32_t)w,
			  most ? &t : NULL, NULL, bits) || errno != ETIMEDOUT;
	errno = saved;
	return in_time;
}

/* --- with a ticket -------------------------------------------------------------- */

/* Sleeps until it is called. False: not yet, but there is no sleeping any more. */
static bool sleep_with(struct shunt_lock *l, uint16_t ticket)
{
	uint64_t w;
	bool called;

	if (!enter())
		return false;
	do {
		w = look(l);
		if (owner_of(w) == ticket || (w & PARKERS) == PARKERS) {
			leave();
			return owner_of(w) == ticket;
		}
	} while (!exchange(l, w, w + PARKER));
	w += PARKER;
	while (owner_of(w) != ticket && parking_now()) {
		sleep_on(l, w, bit_of(ticket), UINT64_MAX);
		w = look(l);
	}
	while (!exchange(l, w, w - PARKER))
		w = look(l);
	called = owner_of(w) == ticket;
	leave();
	return called;
}

/* Spins as long as tickets are called one after the other. */
static bool spin_with(struct shunt_lock *l, uint16_t ticket)
{
	uint64_t since = shunt_now_ns();
	uint16_t seen = owner_of(look(l)), owner;

	for (;;) {
		for (int i = 0; i < 16; i++) {
			owner = owner_of(look(l));
			if (owner == ticket)
				return true;
			pause_for(PAUSES_WITH);
		}
		if (owner != seen) {
			seen = owner;
			since = shunt_now_ns();
		} else if (shunt_now_ns() - since >= shunt_lock_times.long_ns) {
			return false;
		}
	}
}

static void wait_with(struct shunt_lock *l, uint16_t ticket)
{
	while (!spin_with(l, ticket)) {
		shunt_lock_note();
		if (!parking_now())
			sched_yield();
		else if (sleep_with(l, ticket))
			return;
	}
}

/* A lock that is free is taken by it. Never so many that the next one is the one being served. */
static uint16_t take_ticket(struct shunt_lock *l, uint64_t less)
{
	for (;;) {
		uint64_t w = look(l);

		if ((uint16_t)(next_of(w) - owner_of(w)) == 0xffff)
			sched_yield();
		else if (exchange(l, w, (ticketed(w) - (less & PARKER)) & ~(less & WOKEN)))
			return next_of(w);
	}
}

/* --- without ------------------------------------------------------------------------ */

/*
 * Looks for the lock being free. `*as` is what there is of us in the word: PARKER if we are
 * registered, WOKEN if it may be on our account: that of everybody who is registered.
 */
static bool spin_for(struct shunt_lock *l, uint64_t *as)
{
	uint64_t until = shunt_now_ns() + shunt_lock_times.spin_ns, w;

	do {
		for (int i = 0; i < 2; i++) {
			w = look(l);
			if (is_free(w)) {
				if (exchange(l, w, (ticketed(w) - (*as & PARKER)) & ~(*as & WOKEN)))
					return true;
			} else if ((w & PARKERS) && !(w & WOKEN)) {
				if (exchange(l, w, w | WOKEN))
					*as |= WOKEN;
			}
			pause_for(PAUSES_FOR);
		}
	} while (shunt_now_ns() < until);
	return false;
}

/* Registers, unless the lock is free: then takes it. (4) */
static bool register_or_take(struct shunt_lock *l, uint64_t *as)
{
	for (;;) {
		uint64_t w = look(l);

		if (is_free(w)) {
			if (exchange(l, w, ticketed(w) & ~(*as & WOKEN)))
				return true;
		} else if ((w & PARKERS) == PARKERS) {
			sched_yield();
		} else if (exchange(l, w, (w + PARKER) & ~(*as & WOKEN))) {
			*as = PARKER | WOKEN;
			return false;
		}
	}
}

/* Sleeps once, if the lock is held. False: too long, ns. */
static bool sleep_once(struct shunt_lock *l, uint64_t ns)
{
	uint64_t w = look(l);

	if (is_free(w))
		return true;
	if (w & WOKEN) {
		if (!exchange(l, w, w & ~WOKEN))
			return true;
		w &= ~WOKEN;
	}
	return sleep_on(l, w, BIT_NONE, ns);
}

/*
 * Registered. Whoever comes may overtake it until its time is up; the more sleep, the later,
 * so that no more of them get up in a time than the holders can stand.
 */
static bool sleep_for(struct shunt_lock *l, uint64_t *as)
{
	uint64_t patience = shunt_lock_times.turn_ns * (look(l) & PARKERS), since = shunt_now_ns();
	uint64_t waited = 0;

	while (parking_now() && waited < patience) {
		if (sleep_once(l, patience - waited) && spin_for(l, as))
			return true;
		waited = shunt_now_ns() - since;
	}
	return false;
}

static void lock_parking(struct shunt_lock *l)
{
	uint64_t as = 0;
	uint16_t ticket;

	if (spin_for(l, &as))
		return;
	if (!enter()) {
		wait_with(l, take_ticket(l, as));
		return;
	}
	if (register_or_take(l, &as) || sleep_for(l, &as)) {
		leave();
		return;
	}
	ticket = take_ticket(l, as);
	leave();
	wait_with(l, ticket);
}

SHUNT_API void shunt_lock_wait(struct shunt_lock *l, uint16_t ticket)
{
	wait_with(l, ticket);
}

SHUNT_API void shunt_lock_slow(struct shunt_lock *l)
{
	if (parking_now())
		lock_parking(l);
	else
		wait_with(l, take_ticket(l, 0));
}

/* --- switching ------------------------------------------------------------------------ */

static pthread_mutex_t switching = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void)
{
	pthread_mutex_lock(&switching);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&switching);
}

/* Whoever was parked is not here. */
static void in_child(void)
{
	parked = 0;
	shunt_lock_governor_gone();
	pthread_mutex_unlock(&switching);
}

/* Before the library's handlers for its sites' lock, which set_mode takes within its own. */
static void once_begun(void)
{
	shunt_sites_at_fork();
	pthread_atfork(before_fork, after_fork, in_child);
}

void shunt_lock_mind_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, once_begun);
}

static int to_park(void)
{
	int err = shunt_choice_set(shunt_lock_mode, SHUNT_LOCK_PARK);

	if (!err)
		__atomic_store_n(&shunt_lock_parking, true, __ATOMIC_SEQ_CST);
	return err;
}

static int to_native(void)
{
	struct timespec t = {0, 100000};
	uint64_t until = shunt_now_ns() + 1000000000;
	int err = 0;

	/* (1): after this nobody enters who is not seen in `parked` by the loads below. */
	__atomic_store_n(&shunt_lock_parking, false, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&parked, __ATOMIC_SEQ_CST) && !err)
		if (shunt_now_ns() > until)
			err = -EBUSY;
		else
			nanosleep(&t, NULL);
	if (!err)
		err = shunt_choice_set(shunt_lock_mode, SHUNT_LOCK_NATIVE);
	if (err)
		__atomic_store_n(&shunt_lock_parking, true, __ATOMIC_SEQ_CST);
	return err;
}

SHUNT_API int shunt_lock_set_mode(enum shunt_lock_modes mode)
{
	int err = 0;

	if (mode != SHUNT_LOCK_NATIVE && mode != SHUNT_LOCK_PARK)
		return -ERANGE;
	shunt_lock_mind_forks();
	pthread_mutex_lock(&switching);
	if (mode != shunt_lock_get_mode())
		err = mode == SHUNT_LOCK_PARK ? to_park() : to_native();
	pthread_mutex_unlock(&switching);
	return err;
}
