/* SPDX-License-Identifier: MIT */
/*
 * tasks.c - what grace periods for code cost: how long one takes, from the call to the
 * return of the callback; 10,000 handed in at once; signals for each; with 1 to 1,000
 * threads asleep, none and two of them busy.
 *
 *   bench-tasks [runs]       prints "name value unit"; medians
 */
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shunt/tasks.h>

#include "../timing.h"
#include "rcu/tasks.h"

#define MANY 10000
#define RANGES 20000

static volatile uint32_t go;
static volatile unsigned ready;

static void *asleep(void *arg)
{
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!go)
		syscall(SYS_futex, &go, FUTEX_WAIT, 0, NULL, NULL, 0L);
	return arg;
}

static void *busy(void *arg)
{
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!go)
		;
	return arg;
}

static void nothing(struct shunt_rcu_head *head)
{
	(void)head;
}

static struct shunt_rcu_tasks_stats figures(void)
{
	struct shunt_rcu_tasks_stats s = {0};

	shunt_rcu_tasks_stats(&s, sizeof s);
	return s;
}

static void say(const char *what, unsigned sleepers, unsigned runners, double value, const char *unit)
{
	printf("tasks-%s-%u-asleep-%u-busy %.3f %s\n", what, sleepers, runners, value, unit);
	fflush(stdout);
}

static double one(struct shunt_zone *zone)
{
	struct shunt_rcu_head head;
	double from = now();

	shunt_call_rcu_tasks(&head, zone, nothing);
	shunt_rcu_tasks_barrier();
	return now() - from;
}

static double many(struct shunt_zone *zones)
{
	static struct shunt_rcu_head heads[MANY];
	double from = now();

	for (int i = 0; i < MANY; i++)
		shunt_call_rcu_tasks(&heads[i], &zones[i], nothing);
	shunt_rcu_tasks_barrier();
	return now() - from;
}

static double ranges(uintptr_t start)
{
	static struct shunt_range r[RANGES];
	double from;

	for (int i = 0; i < RANGES; i++)
		r[i] = (struct shunt_range){start + (uintptr_t)i * 64, start + (uintptr_t)i * 64 + 5};
	from = now();
	shunt_tasks_ranges_clear(r, RANGES, NULL, 10000);
	return now() - from;
}

static void measure(unsigned sleepers, unsigned runners, int runs)
{
	static struct shunt_zone zones[MANY];
	static double v[1000];
	pthread_t *t = calloc(sleepers + runners, sizeof *t);
	struct shunt_rcu_tasks_stats before;
	struct shunt_zone all = {0};
	uintptr_t here = (uintptr_t)&measure;
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	go = ready = 0;
	for (unsigned i = 0; i < sleepers + runners; i++)
		if (pthread_create(&t[i], &small, i < sleepers ? asleep : busy, NULL))
			exit(1);
	while (ready < sleepers + runners)
		sched_yield();
	if (shunt_code_alloc(&all, here, here + 1, RANGES * 64))
		exit(1);
	for (int i = 0; i < MANY; i++) {
		memset(&zones[i], 0, sizeof zones[i]);
		zones[i].start = all.start + (uintptr_t)i * 64;
		zones[i].end = zones[i].start + 64;
	}
	one(&zones[0]);
	before = figures();
	for (int i = 0; i < runs; i++)
		v[i] = one(&zones[0]);
	say("signals-each", sleepers, runners,
		(double)(figures().signals - before.signals) / runs, "signals");
	say("one", sleepers, runners, median(v, runs) / 1e3, "us");
	say("one-p99", sleepers, runners, v[runs * 99 / 100] / 1e3, "us");
	before = figures();
	for (int i = 0; i < 7; i++)
		v[i] = many(zones);
	say("10000-passes", sleepers, runners, (double)(figures().passes - before.passes) / 7, "passes");
	say("10000", sleepers, runners, median(v, 7) / 1e6, "ms");
	for (int i = 0; i < 7; i++)
		v[i] = ranges(all.start);
	say("20000-ranges", sleepers, runners, median(v, 7) / 1e6, "ms");
	go = 1;
	syscall(SYS_futex, &go, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0L);
	for (unsigned i = 0; i < sleepers + runners; i++)
		pthread_join(t[i], NULL);
	free(t);
	shunt_code_free(&all);
}

int main(int argc, char **argv)
{
	static const unsigned sleepers[] = {1, 10, 100, 1000};
	int runs = argc > 1 ? atoi(argv[1]) : 100;

	if (runs < 1 || runs > 1000)
		return 2;
	for (unsigned i = 0; i < sizeof sleepers / sizeof *sleepers; i++)
		for (unsigned b = 0; b <= 2; b += 2)
			measure(sleepers[i], b, runs);
	return 0;
}
