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
	uint64_t until = shunt_lock_ns() + ms * 1000000ull;
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; shunt_lock_ns() < until; i++) {
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

int main(void)
{
	shunt_lock_times.sleep_ns = 0;
	exclusion();
	return done();
}
