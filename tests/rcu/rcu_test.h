/* SPDX-License-Identifier: MIT */
/* rcu_test.h - what the tests of grace periods share: two threads taking turns, time limits. */
#ifndef RCU_TEST_H
#define RCU_TEST_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/srcu.h>

#include "tap.h"

static void hung(int sig)
{
	static const char say[] = "not ok - hangs\n";

	(void)sig;
	_exit(write(1, say, sizeof say - 1) ? 1 : 2);
}

static inline void end_after(unsigned seconds)
{
	signal(SIGALRM, hung);
	alarm(seconds);
}

/* A step that others wait for. */
static inline void reach(atomic_int *at, int n)
{
	atomic_store(at, n);
}

static inline void await(atomic_int *at, int n)
{
	while (atomic_load(at) < n)
		sched_yield();
}

/* What a child says with its exit: 0 is good. A signal is 1000 and its number. */
static inline int exit_of(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline uint64_t random_of(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

#endif
