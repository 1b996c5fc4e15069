/* SPDX-License-Identifier: MIT */
/*
 * measure.h - loops beside each other: each RUNS times, in turn, so that what else the
 * machine does meets all of them alike. Medians.
 */
#ifndef BENCH_SITE_MEASURE_H
#define BENCH_SITE_MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../timing.h"

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
