/* SPDX-License-Identifier: MIT */
/*
 * guarantee.h - what the tests of the notifiers' promises share: a notifier that counts and that a
 * thread can be made to stay in, threads taking turns, children that say how it went.
 */
#ifndef GUARANTEE_H
#define GUARANTEE_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "../turns.h"
#include "tap.h"
#include "text/threads.h"

#define PAGE 4096ul

/* --- turns ---------------------------------------------------------------------- */

/* Whether a thread of this process sleeps in the kernel: it goes on only if another one lets it. */
static inline bool sleeps(pid_t tid)
{
	char text[200], *p = NULL;

	if (shunt_thread_read(-1, tid, "stat", text, sizeof text) > 0)
		p = strrchr(text, ')');
	return p && p[2] == 'S';
}

static inline pid_t self(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* --- a notifier that counts -------------------------------------------------------- */

struct counter {
	struct shunt_mmu_notifier n;
	uintptr_t from, to;		     /* counts what begins there; 0, 0: everything */
	atomic_int starts, ends, releases, pages;
	atomic_int flags;		     /* of all its events */
	atomic_int stay;		     /* 1: whoever comes to start stays there until it is 0 */
	atomic_int inside;		     /* who does */
	void (*in_start)(struct counter *c); /* what else to do there */
	void (*in_end)(struct counter *c);
	void (*in_release)(struct counter *c);
	struct shunt_mmu_event last;
};

static inline bool counts(const struct counter *c, const struct shunt_mmu_event *e)
{
	return !c->to || (e->start >= c->from && e->start < c->to);
}

static inline void counter_start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct counter *c = (struct counter *)n;

	if (!counts(c, e))
		return;
	c->last = *e;
	atomic_fetch_or(&c->flags, (int)e->flags);
	c->starts++;
	c->inside++;
	while (atomic_load(&c->stay))
		sched_yield();
	c->inside--;
	if (c->in_start)
		c->in_start(c);
}

static inline void counter_end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct counter *c = (struct counter *)n;

	if (!counts(c, e))
		return;
	c->last = *e;
	atomic_fetch_or(&c->flags, (int)e->flags);
	c->ends++;
	if (c->in_end)
		c->in_end(c);
}

static inline void counter_release(struct shunt_mmu_notifier *n)
{
	struct counter *c = (struct counter *)n;

	c->releases++;
	if (c->in_release)
		c->in_release(c);
}

static const struct shunt_mmu_notifier_ops counter_ops = {
	.invalidate_range_start = counter_start,
	.invalidate_range_end = counter_end,
	.release = counter_release,
};

/* As a test program in a sanitizer's build is, there may be sources that cannot be seen. */
#define COUNTER(name) struct counter name = {.n = {.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL}}

static inline void must(int err, const char *what)
{
	if (err) {
		printf("Bail out! %s: %s\n", what, strerror(-err));
		_exit(1);
	}
}

static inline void enter(struct counter *c)
{
	must(shunt_mmu_notifier_register(&c->n), "register");
}

static inline void only_at(struct counter *c, const void *page)
{
	c->from = (uintptr_t)page & -PAGE;
	c->to = c->from + 1;
}

/* --- changes --------------------------------------------------------------------------- */

/* Nobody's addresses: what is announced there is announced by hand. */
#define SOMEWHERE 0x10000000ul
#define BY_HAND(name) \
	struct counter name = {.n = {.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL}, \
		.from = SOMEWHERE, .to = 8 * SOMEWHERE}

static inline void change_of(enum shunt_mmu_kind kind, uintptr_t at)
{
	struct shunt_mmu_change c;

	must(shunt_mmu_change_begin(&c, kind, at, at + PAGE, 0), "change");
	shunt_mmu_change_end(&c, false, 0);
}

static inline void change(void)
{
	change_of(SHUNT_MMU_UNMAP, SOMEWHERE);
}

/* A thread that makes one, and may be found in a callback of it. */
struct changer {
	pthread_t thread;
	uintptr_t at;
	atomic_int done;
};

static inline void *changes(void *arg)
{
	struct changer *c = arg;

	change_of(SHUNT_MMU_UNMAP, c->at);
	reach(&c->done, 1);
	return NULL;
}

static inline void changer_start(struct changer *c, uintptr_t at)
{
	*c = (struct changer){.at = at};
	pthread_create(&c->thread, NULL, changes, c);
}

/* A thread that calls one function, of which one wants to know whether it has returned. */
struct caller {
	pthread_t thread;
	int (*fn)(void *);
	void *arg;
	int err;
	atomic_int tid, done;
};

static inline void *calls(void *arg)
{
	struct caller *c = arg;

	reach(&c->tid, self());
	c->err = c->fn(c->arg);
	reach(&c->done, 1);
	return NULL;
}

static inline void caller_start(struct caller *c, int (*fn)(void *), void *arg)
{
	*c = (struct caller){.fn = fn, .arg = arg};
	pthread_create(&c->thread, NULL, calls, c);
	await(&c->tid, 1);
}

/* It sleeps in fn: true. It has returned from it: false. */
static inline bool caller_waits(struct caller *c)
{
	while (!atomic_load(&c->done))
		if (sleeps(c->tid))
			return !atomic_load(&c->done);
	return false;
}

static inline int caller_end(struct caller *c)
{
	pthread_join(c->thread, NULL);
	return c->err;
}

static inline int registers(void *n)
{
	return shunt_mmu_notifier_register(n);
}

static inline int unregisters(void *n)
{
	return shunt_mmu_notifier_unregister(n);
}

static inline int removes(void *i)
{
	return shunt_mmu_interval_remove(i);
}

/* --- children -------------------------------------------------------------------------- */

/* Runs fn in a child and catches what comes out of `fd` there. */
static inline int child_says(void (*fn)(void), int fd, char *said, size_t room)
{
	int p[2];
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	fflush(stdout);
	if (pipe(p))
		return -1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a test that hangs nothing is to stay */
		dup2(p[1], fd);
		close(p[0]);
		close(p[1]);
		fn();
		_exit(0);
	}
	close(p[1]);
	while (n + 1 < room && (r = read(p[0], said + n, room - 1 - n)) > 0)
		n += (size_t)r;
	said[n] = 0;
	close(p[0]);
	return exit_of(pid);
}

#endif
