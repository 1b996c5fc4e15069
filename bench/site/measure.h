/* SPDX-License-Identifier: MIT */
/*
 * measure.h - loops beside each other: each RUNS times, in turn, so that what else the
 * machine does meets all of them alike. Medians.
 */
#ifndef BENCH_SITE_MEASURE_H
#define BENCH_SITE_MEASURE_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 15

struct loop {
	const char *name;
	void (*run)(long n);
	double ns[RUNS]; /* for each of n */
	double median;
};

/* loop_NAME(n): the statement n times; the compiler keeps nothing in registers between. */
#define LOOP(name, statement) \
	__attribute__((noinline, aligned(64))) static void loop_##name(long n) \
	{ \
		for (long i = 0; i < n; i++) { \
			statement; \
			__asm__ volatile("" ::: "memory"); \
		} \
	}

/* The statement eight times, each as in a turn of its own. */
#define AGAIN(s) \
	s; \
	__asm__ volatile("" ::: "memory")
#define FOUR(s) AGAIN(s); AGAIN(s); AGAIN(s); AGAIN(s)
#define EIGHT(s) FOUR(s); FOUR(s)

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static inline double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof *v, by_value);
	return v[n / 2];
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

/* Fills in the medians and prints them, with how they compare with the first loop. */
static inline void measure(const char *prefix, struct loop *loops, int count, long n)
{
	for (int i = 0; i < count; i++)
		loops[i].run(n / 10);
	for (int r = 0; r < RUNS; r++)
		for (int i = 0; i < count; i++) {
			double t = now();

			loops[i].run(n);
			loops[i].ns[r] = (now() - t) / (double)n;
		}
	for (int i = 0; i < count; i++) {
		loops[i].median = median(loops[i].ns, RUNS);
		printf("%s.%s %.3f ns\n", prefix, loops[i].name, loops[i].median);
		if (i)
			printf("%s.%s_by_%s %.2f ratio\n", prefix, loops[i].name, loops[0].name,
				loops[i].median / loops[0].median);
	}
	fflush(stdout);
}

#endif
