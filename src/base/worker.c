/* SPDX-License-Identifier: MIT */
/* worker.c - see worker.h. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/text_sys.h"
#include "base/hold.h"
#include "base/worker.h"

#define STACK	   ((size_t)256 << 10)
#define MOST_STACK ((size_t)256 << 20)

static __thread const struct shunt_worker *self;

bool shunt_worker_self(const struct shunt_worker *w)
{
	return self == w;
}

static void *run(void *arg)
{
	struct shunt_worker *w = arg;

	self = w;
	pthread_setname_np(pthread_self(), w->name);
	for (;;) {
		/* Pairs with the add in kick: what was asked for before it is seen. */
		uint32_t seen = __atomic_load_n(&w->kicks, __ATOMIC_ACQUIRE);
		int ms = w->pass();
		struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

		if (ms)
			shunt_sys(SYS_futex, &w->kicks, FUTEX_WAIT_PRIVATE, seen, ms < 0 ? NULL : &t);
	}
	return NULL;
}

static int start(struct shunt_worker *w)
{
	sigset_t before;
	pthread_attr_t attr;
	pthread_t thread;
	int r = EINVAL;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* The thread has this mask, too: a breakpoint in its way must not kill it. */
	shunt_hold_signals(&before);
	/* Too small if the program has so many thread-local variables: they are taken from it. */
	for (size_t size = STACK; size <= MOST_STACK; size *= 4) {
		pthread_attr_setstacksize(&attr, size);
		r = pthread_create(&thread, &attr, run, w);
		if (r != EINVAL)
			break;
	}
	shunt_release_signals(&before);
	pthread_attr_destroy(&attr);
	return -r;
}

/* Whether it is the caller who starts the thread; waits for another who does. */
static bool claim(struct shunt_worker *w, int32_t process)
{
	int32_t now = __atomic_load_n(&w->process, __ATOMIC_ACQUIRE);

	for (;;) {
		if (now == process)
			return false;
		if (now == -process) {
			shunt_sys(SYS_sched_yield);
			now = __atomic_load_n(&w->process, __ATOMIC_ACQUIRE);
		} else if (__atomic_compare_exchange_n(&w->process, &now, -process, false,
				   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			return true;
		}
	}
}

void shunt_worker_wake(struct shunt_worker *w)
{
	__atomic_add_fetch(&w->kicks, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &w->kicks, FUTEX_WAKE_PRIVATE, 1);
}

int shunt_worker_kick(struct shunt_worker *w)
{
	int32_t process = (int32_t)getpid();
	sigset_t before;
	int r = 0;

	if (__atomic_load_n(&w->process, __ATOMIC_ACQUIRE) != process) {
		shunt_hold_signals(&before);
		if (claim(w, process)) {
			r = start(w);
			__atomic_store_n(&w->process, r ? 0 : process, __ATOMIC_RELEASE);
		}
		shunt_release_signals(&before);
	}
	shunt_worker_wake(w);
	return r;
}
