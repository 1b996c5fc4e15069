/* SPDX-License-Identifier: MIT */
/*
 * hold.h - holding signals back while a lock is held that a handler's fork() would
 * wait for, or that its siglongjmp() would leave taken. And cancellation: a thread that ends in an open() or read() below
 * would leave it taken as well.
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

/*
 * A lock that is held so. The mask that its holder had before is kept in it: handlers of
 * fork() take it in one function and give it in another.
 */
struct shunt_hold {
	pthread_mutex_t mutex;
	sigset_t before; /* the holder's */
	int cancel;
};

#define SHUNT_HOLD_INIT {.mutex = PTHREAD_MUTEX_INITIALIZER}

static inline void shunt_hold_take(struct shunt_hold *h)
{
	sigset_t before;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	shunt_hold_signals(&before);
	pthread_mutex_lock(&h->mutex);
	h->before = before;
	h->cancel = cancel;
}

static inline void shunt_hold_give(struct shunt_hold *h)
{
	sigset_t before = h->before;
	int cancel = h->cancel;

	pthread_mutex_unlock(&h->mutex);
	shunt_release_signals(&before);
	pthread_setcancelstate(cancel, NULL);
}

#endif
