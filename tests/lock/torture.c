/* SPDX-License-Identifier: MIT */
/*
 * torture.c - locks under threads, while the mode is switched all the time and signals
 * arrive everywhere. Sleeps have no time limit here: a wake that is missed is a test that hangs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <shunt/lock.h>

#include "base/clock.h"
#include "../turns.h"
#include "lock/lock.h"
#include "tap.h"

#define THREADS 16

static atomic_bool stop;

static void on_signal(int sig)
{
	(void)sig;
}

/* Sends signals to all of them in turn, for so long. */
static void disturb(pthread_t *t, int n, unsigned ms)
{
	uint64_t until = shunt_now_ns() + ms * 1000000ull;
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; shunt_now_ns() < until; i++) {
		pthread_kill(t[i % n], SIGUSR1);
		usleep(150);
	}
}

/* Switches until told to stop. */
static unsigned switches;

static void *switcher(void *arg)
{
	int *err = arg;

	while (!stop) {
		*err |= shunt_lock_set_mode(SHUNT_LOCK_PARK);

		usleep(switches % 7 * 300);
		*err |= shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
		usleep(switches % 3 * 200);
		switches++;
	}
	return NULL;
}

/* --- mutual exclusion ------------------------------------------------------------ */

#define LOCKS 3

static struct {
	struct shunt_lock lock;
	unsigned long a, b; /* the same, but for the holder */
	atomic_uint inside;
} guarded[LOCKS];
static atomic_ulong wrong;

static void *excludes(void *arg)
{
	unsigned long id = (unsigned long)arg, n = 0;
	unsigned x = (unsigned)id * 2654435761u + 1;

	while (!stop) {
		x = x * 1103515245u + 12345u;
		__typeof__(&guarded[0]) g = &guarded[(x >> 16) % LOCKS];

		if ((x >> 20) % 4)
			shunt_lock_lock(&g->lock);
		else if (!shunt_lock_trylock(&g->lock))
			continue;
		wrong += g->inside++ != 0 || g->a != g->b;
		g->a++;
		if ((x >> 8) % 256 == 0)
			sched_yield();
		g->b++;
		g->inside--;
		shunt_lock_unlock(&g->lock);
		n++;
		if ((x >> 10) % 1024 == 0)
			usleep(100);
	}
	return (void *)n;
}

static void exclusion(void)
{
	pthread_t t[THREADS], s;
	unsigned long n = 0, sum = 0;
	void *one;
	int err = 0;

	pthread_create(&s, NULL, switcher, &err);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, excludes, (void *)i);
	disturb(t, THREADS, 5000);
	stop = true;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], &one);
		n += (unsigned long)one;
	}
	pthread_join(s, NULL);
	stop = false;
	for (int i = 0; i < LOCKS; i++) {
		sum += guarded[i].a;
		wrong += guarded[i].lock.word << 48 != 0 || guarded[i].a != guarded[i].b;
	}
	ok(!wrong && n == sum, "%d threads exclude one another, %lu times (%lu wrong)", THREADS, n,
		(unsigned long)wrong);
	ok(!err && switches > 10, "in %u switches", switches);
}

/* --- nobody is left behind ----------------------------------------------------------- */

#define ROUNDS 150

static struct shunt_lock one;
static unsigned long taken;
static int rounds_ms;

static void *few_times(void *arg)
{
	unsigned x = (unsigned)(uintptr_t)arg * 2654435761u + 1;
	uint64_t until = shunt_now_ns() + (uint64_t)rounds_ms * 1000000;

	while (shunt_now_ns() < until) {
		x = x * 1103515245u + 12345u;
		shunt_lock_lock(&one);
		taken++;
		if ((x >> 16) % 64 == 0)
			usleep(x >> 8 & 511); /* the others spin to the end */
		shunt_lock_unlock(&one);
		if ((x >> 20) % 32 == 0)
			sched_yield();
	}
	return NULL;
}

/*
 * Whoever comes last to its end leaves no one asleep: a thread that misses its wake is
 * never joined. In all sorts of haste, from sleeping at once to hardly ever, and from
 * tickets at once to never; near the ends of the counters, too.
 */
static void rounds(bool switching)
{
	static const uint32_t spins[] = {0, 5000, 300000}, turns[] = {0, 20000, 1000000000};
	pthread_t t[THREADS], s;
	unsigned long sum = 0;
	int err = 0;

	switches = 0;
	shunt_lock_set_mode(SHUNT_LOCK_PARK);
	if (switching)
		pthread_create(&s, NULL, switcher, &err);
	for (unsigned r = 0; r < ROUNDS; r++) {
		int n = r % 4 == 3 ? THREADS : 2 + r % 4;

		shunt_lock_times.spin_ns = spins[r % 3];
		shunt_lock_times.turn_ns = turns[r / 3 % 3];
		rounds_ms = 1 + (int)(r % 5) * 8;
		one.word = r & 1 ? 0 : 0xfff8fff8fffc0000;
		for (long i = 0; i < n; i++)
			pthread_create(&t[i], NULL, few_times, (void *)(i + r * THREADS));
		disturb(t, n, (unsigned)rounds_ms);
		for (int i = 0; i < n; i++)
			pthread_join(t[i], NULL);
		/* WOKEN is nobody's now. */
		wrong += (one.word & 0x1ffff) != 0 || (uint16_t)(one.word >> 32) != one.word >> 48;
		sum += taken;
		taken = 0;
	}
	stop = true;
	if (switching)
		pthread_join(s, NULL);
	stop = false;
	ok(!wrong && !err, "nobody is left asleep, %s: %d rounds, %lu times, %u switches, %u sleeps",
		switching ? "switched" : "parking", ROUNDS, sum, switches, shunt_lock_sleeps);
	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
}

/* --- the memory is the next holder's ----------------------------------------------------- */

static struct shunt_lock *_Atomic page;
static atomic_uint arrived;

static void *unmaps(void *arg)
{
	for (unsigned i = 0; i < *(unsigned *)arg; i++) {
		struct shunt_lock *l;

		while (!(l = page))
			sched_yield();
		page = NULL;
		arrived = i + 1;
		shunt_lock_lock(l);
		munmap(l, 4096);
	}
	return NULL;
}

static void memory(enum shunt_lock_modes mode, bool switching, unsigned n)
{
	pthread_t t, s;
	int err = 0;

	shunt_lock_times.spin_ns = 2000;
	shunt_lock_times.turn_ns = 100000;
	arrived = 0;
	shunt_lock_set_mode(mode);
	if (switching)
		pthread_create(&s, NULL, switcher, &err);
	pthread_create(&t, NULL, unmaps, &n);
	for (unsigned i = 0; i < n; i++) {
		struct shunt_lock *l = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint64_t from;

		shunt_lock_lock(l);
		page = l;
		while (arrived <= i)
			sched_yield();
		from = shunt_now_ns();
		while (shunt_now_ns() - from < i % 16 * 1000)
			;
		if (i % 512 == 0)
			usleep(2000);
		shunt_lock_unlock(l);
	}
	pthread_join(t, NULL);
	stop = true;
	if (switching)
		pthread_join(s, NULL);
	stop = false;
	ok(!err, "%u locks, unmapped by who takes them next, %s", n,
		switching ? "switched" : mode ? "parking" : "native");
	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
}

/* --- one release in the middle of a switch ------------------------------------------------ */

static struct shunt_lock ball;
static atomic_uint turn, caught, switched;

static void *catches(void *arg)
{
	for (unsigned i = 1; i <= *(unsigned *)arg; i++) {
		while (turn != i)
			sched_yield();
		shunt_lock_lock(&ball);
		shunt_lock_unlock(&ball);
		caught = i;
	}
	return NULL;
}

static void *switches_once(void *arg)
{
	for (unsigned i = 1; i <= *(unsigned *)arg; i++) {
		while (turn != i)
			sched_yield();
		shunt_lock_set_mode(i & 1 ? SHUNT_LOCK_PARK : SHUNT_LOCK_NATIVE);
		switched = i;
	}
	return NULL;
}

/* The lock is released once; nothing later repairs what that one has missed. */
static void handover(unsigned n)
{
	pthread_t a, b;

	shunt_lock_times.spin_ns = 0;
	shunt_lock_times.turn_ns = 1000000000;
	pthread_create(&a, NULL, catches, &n);
	pthread_create(&b, NULL, switches_once, &n);
	for (unsigned i = 1; i <= n; i++) {
		uint64_t from;

		shunt_lock_lock(&ball);
		turn = i;
		from = shunt_now_ns();
		while (shunt_now_ns() - from < i * 7919 % 100000)
			if (i & 2)
				sched_yield();
		shunt_lock_unlock(&ball);
		while (caught != i || switched != i)
			sched_yield();
	}
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	ok(true, "%u times one release while the mode is switched", n);
	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
}

int main(void)
{
	end_after(110);
	shunt_lock_times.sleep_ns = 0;
	exclusion();
	rounds(false);
	rounds(true);
	handover(4000);
	memory(SHUNT_LOCK_NATIVE, false, 20000);
	memory(SHUNT_LOCK_PARK, false, 20000);
	memory(SHUNT_LOCK_NATIVE, true, 20000);
	return done();
}
