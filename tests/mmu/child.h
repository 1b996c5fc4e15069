/* SPDX-License-Identifier: MIT */
/* child.h - cases that each have a process of their own, which is killed if it hangs. */
#ifndef TESTS_MMU_CHILD_H
#define TESTS_MMU_CHILD_H

#include "guarantee.h"

static pid_t child;

static inline void kill_child(int sig)
{
	(void)sig;
	kill(child, SIGKILL);
}

/* What the case returns is 0 if it is well. The status of its process. */
static inline int run_child(int (*fn)(void))
{
	int status;

	fflush(stdout);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fn());
	}
	signal(SIGALRM, kill_child);
	alarm(60);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	alarm(0);
	return status;
}

static inline void diag_status(int status)
{
	diag(WIFEXITED(status) ? "step %d" : "signal %d",
		WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static inline void in_child(int (*fn)(void), const char *property)
{
	int status = run_child(fn);

	ok(status == 0, "%s", property);
	if (status)
		diag_status(status);
}

static inline char *map(size_t length)
{
	char *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(99);
	return p;
}

#endif
