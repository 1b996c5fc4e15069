/* SPDX-License-Identifier: MIT */
/*
 * hold.h - holding signals back while a lock is held that a handler's fork() would
 * wait for, or that its siglongjmp() would leave taken.
 */
#ifndef SHUNT_BASE_HOLD_H
#define SHUNT_BASE_HOLD_H

#include <pthread.h>
#include <signal.h>

/* All but the synchronous ones; what was blocked before into *before. */
static inline void shunt_hold_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	pthread_sigmask(SIG_BLOCK, &all, before);
}

static inline void shunt_release_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

#endif
