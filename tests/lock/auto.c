/* SPDX-License-Identifier: MIT */
/* auto.c - the governor: to park when threads outnumber processors, and back. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include <shunt/lock.h>

#include "lock/lock.h"
#include "tap.h"

#define THREADS 16

static struct shunt_lock lock;
static atomic_int stop;
static unsigned long inside;

static void *busy(void *arg)
{
	unsigned long n = 0;

	while (!stop) {
		shunt_lock_lock(&lock);
		for (int i = 0; i < 20; i++)
			__atomic_fetch_add(&inside, 1, __ATOMIC_RELAXED);
		shunt_lock_unlock(&lock);
		n++;
	}
	*(unsigned long *)arg = n;
	return NULL;
}

/* Whether the mode is that within the time. */
static bool becomes(enum shunt_lock_modes mode, unsigned seconds)
{
	for (unsigned i = 0; i < seconds * 100; i++) {
		if (shunt_lock_get_mode() == mode)
			return true;
		usleep(10000);
	}
	return false;
}

static void run(int n, bool quiet)
{
	unsigned long done[THREADS], sum = 0;
	pthread_t t[THREADS];
	bool on, off;

	stop = 0;
	for (int i = 0; i < n; i++)
		pthread_create(&t[i], NULL, busy, &done[i]);
	on = becomes(SHUNT_LOCK_PARK, quiet ? 0 : 10);
	usleep(200000);
	stop = 1;
	for (int i = 0; i < n; i++) {
		pthread_join(t[i], NULL);
		sum += done[i];
	}
	off = becomes(SHUNT_LOCK_NATIVE, 10);
	if (!quiet)
		ok(on && off, "%d threads on 2 processors: to park (%d), and back when they are gone (%d)", n,
			on, off);
	ok(inside == sum * 20, "%lu sections", sum);
	inside = 0;
}

int main(void)
{
	cpu_set_t all, two;
	int n = 0;

	alarm(60);
	sched_getaffinity(0, sizeof all, &all);
	CPU_ZERO(&two);
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &two);
			n++;
		}
	sched_setaffinity(0, sizeof two, &two);
	ok(!shunt_lock_auto(true) && !shunt_lock_auto(true), "auto on, twice");
	run(1, true);
	run(THREADS, false);
	run(THREADS, false);
	ok(!shunt_lock_auto(false), "auto off");
	ok(!shunt_lock_auto(true) && !shunt_lock_auto(false), "on and off at once");
	return done();
}
