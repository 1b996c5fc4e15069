/* SPDX-License-Identifier: MIT */
/* turns.h - tests in which several threads or processes take turns. */
#ifndef TESTS_TURNS_H
#define TESTS_TURNS_H

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static void hung(int sig)
{
	static const char say[] = "not ok - hangs\n";

	(void)sig;
	_exit(write(1, say, sizeof say - 1) ? 1 : 2);
}

/* A missed wake hangs for ever: who waits for so long says so and ends. */
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

#endif
