/* SPDX-License-Identifier: MIT */
/* rcu_test.h - what the tests of grace periods share. */
#ifndef RCU_TEST_H
#define RCU_TEST_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/srcu.h>

#include "../turns.h"
#include "tap.h"

static inline uint64_t random_of(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

#endif
