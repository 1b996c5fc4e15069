/* SPDX-License-Identifier: MIT */
/* common.h - time, medians and pinning, for the peers' benchmarks. */
#ifndef PEERS_COMMON_H
#define PEERS_COMMON_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS  11
#define CALLS 500000L

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

/* The running time of `statement`, in ns: the median of RUNS times CALLS of it. */
#define MEASURE(statement) \
	__extension__({ \
		double v_[RUNS]; \
		for (int r_ = 0; r_ < RUNS; r_++) { \
			double t_ = now(); \
			for (long i_ = 0; i_ < CALLS; i_++) { \
				statement; \
				__asm__ volatile("" ::: "memory"); \
			} \
			v_[r_] = (now() - t_) / (double)CALLS; \
		} \
		median(v_, RUNS); \
	})

#endif
