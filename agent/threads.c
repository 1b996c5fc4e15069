/* SPDX-License-Identifier: MIT */
/*
 * threads.c - calls that mean something else when a process has one thread
 * more: the control thread goes away before them, for good.
 *
 * pthread_exit in the main thread: the process is to end with its last thread.
 * unshare and setns with a user namespace (or anything else that is shared
 * between threads): the kernel refuses it to a process with several threads.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "control/serve.h"

typedef void exit_fn(void *);
typedef int unshare_fn(int);
typedef int setns_fn(int, int);

SHUNT_INTERPOSE void pthread_exit(void *value)
{
	exit_fn *real = (exit_fn *)shunt_agent_next("pthread_exit");

	if (syscall(SYS_gettid) == getpid())
		shunt_serve_stop();
	real(value);
	__builtin_unreachable();
}

SHUNT_INTERPOSE int unshare(int flags)
{
	unshare_fn *real = (unshare_fn *)shunt_agent_next("unshare");

	if (flags & (CLONE_NEWUSER | CLONE_THREAD | CLONE_VM | CLONE_SIGHAND))
		shunt_serve_stop();
	return real(flags);
}

SHUNT_INTERPOSE int setns(int fd, int type)
{
	setns_fn *real = (setns_fn *)shunt_agent_next("setns");

	shunt_serve_stop();
	return real(fd, type);
}
