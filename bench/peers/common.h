/* SPDX-License-Identifier: MIT */
/* common.h - how long a statement takes, for the peers' benchmarks. */
#ifndef PEERS_COMMON_H
#define PEERS_COMMON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../timing.h"

#define RUNS  11
#define CALLS 500000L

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
