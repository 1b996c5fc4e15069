/* SPDX-License-Identifier: MIT */
/*
 * governor.c - a thread that sets the locks' mode.
 *
 * A waiter cannot do it: patching allocates, and the lock may be the allocator's. So waiters
 * count, and the first one wakes the governor.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "lock.h"
#include "word.h"

#define WINDOW_NS 10000000u   /* long spins are counted over so long */
#define ENOUGH	  16u	      /* ... and so many are a reason */
#define GLANCE_NS 100000000u  /* how often it looks whether somebody sleeps still */
#define QUIET_NS  1000000000u /* without a sleep for so long: back */

bool shunt_lock_governed;
uint32_t shunt_lock_spun;

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;
static uint32_t stop;

static void futex_sleep(uint32_t *at, uint32_t value, uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	syscall(SYS_futex, at, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, ns ? &t : NULL, NULL, 0);
}

static void futex_wake(uint32_t *at)
{
	int saved = errno;

	syscall(SYS_futex, at, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
	errno = saved;
}

void shunt_lock_note(void)
{
	if (__atomic_load_n(&shunt_lock_governed, __ATOMIC_RELAXED) &&
		!__atomic_fetch_add(&shunt_lock_spun, 1, __ATOMIC_SEQ_CST))
		futex_wake(&shunt_lock_spun);
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_SEQ_CST);
}

/* False if that did not work: it is tried again. */
static bool set(enum shunt_lock_modes mode)
{
	int err = shunt_lock_set_mode(mode);

	if (err)
		shunt_log(SHUNT_LOG_WARNING, "the locks' mode cannot be changed (%d)", err);
	return !err;
}

/* Waits until there is a reason to park. */
static void watch_native(void)
{
	if (!__atomic_load_n(&shunt_lock_spun, __ATOMIC_SEQ_CST))
		futex_sleep(&shunt_lock_spun, 0, 0);
	futex_sleep(&stop, 0, WINDOW_NS);
	if (__atomic_exchange_n(&shunt_lock_spun, 0, __ATOMIC_SEQ_CST) >= ENOUGH && !stopped())
		set(SHUNT_LOCK_PARK);
}

static void watch_park(void)
{
	uint32_t last = __atomic_load_n(&shunt_lock_sleeps, __ATOMIC_RELAXED), now;
	uint64_t since = shunt_now_ns();

	while (!stopped() && shunt_lock_get_mode() == SHUNT_LOCK_PARK) {
		futex_sleep(&stop, 0, GLANCE_NS);
		now = __atomic_load_n(&shunt_lock_sleeps, __ATOMIC_RELAXED);
		if (now != last) {
			last = now;
			since = shunt_now_ns();
		} else if (shunt_now_ns() - since >= QUIET_NS && !stopped()) {
			set(SHUNT_LOCK_NATIVE);
			since = shunt_now_ns();
		}
	}
	__atomic_store_n(&shunt_lock_spun, 0, __ATOMIC_SEQ_CST);
}

static void *govern(void *arg)
{
	while (!stopped()) {
		if (shunt_lock_get_mode() == SHUNT_LOCK_NATIVE)
			watch_native();
		else
			watch_park();
	}
	return arg;
}

static int start(void)
{
	sigset_t all, old;
	int err;

	stop = 0;
	shunt_lock_spun = 0;
	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&thread, NULL, govern, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		pthread_setname_np(thread, "shunt-lock");
	__atomic_store_n(&shunt_lock_governed, !err, __ATOMIC_SEQ_CST);
	return -err;
}

/* Whichever of its two sleeps it is in. */
static void halt(void)
{
	__atomic_store_n(&shunt_lock_governed, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&shunt_lock_spun, 1, __ATOMIC_SEQ_CST);
	futex_wake(&stop);
	futex_wake(&shunt_lock_spun);
	pthread_join(thread, NULL);
}

SHUNT_API int shunt_lock_auto(bool on)
{
	int err = 0;

	shunt_lock_mind_forks();
	pthread_mutex_lock(&starting);
	if (on && !shunt_lock_governed)
		err = start();
	else if (!on && shunt_lock_governed)
		halt();
	pthread_mutex_unlock(&starting);
	return err;
}

void shunt_lock_governor_gone(void)
{
	shunt_lock_governed = false;
	pthread_mutex_init(&starting, NULL);
}
