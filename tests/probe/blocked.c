/* SPDX-License-Identifier: MIT */
/*
 * blocked.c - probes where the C library has all signals blocked: at the first function of
 * its threads, while threads come and go. A breakpoint there kills, be it for a moment.
 */
#include <shunt/probe.h>

#include <pthread.h>
#include <stdint.h>

#include "../tap.h"
#include "object/code.h"

#define ROUNDS 30

static int stop;
static uintptr_t into; /* where a thread's function returns to */
static unsigned long threads, hits;

static void *nothing(void *unused)
{
	(void)unused;
	__atomic_store_n(&into, (uintptr_t)__builtin_return_address(0), __ATOMIC_RELAXED);
	return NULL;
}

static void *come_and_go(void *unused)
{
	pthread_t t;

	(void)unused;
	for (; !__atomic_load_n(&stop, __ATOMIC_RELAXED); threads++)
		if (!pthread_create(&t, NULL, nothing, NULL))
			pthread_join(t, NULL);
	return NULL;
}

static void count(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

int main(void)
{
	struct shunt_probe p = {.pre = count, .flags = SHUNT_PROBE_GENERAL_REGS};
	struct shunt_probe_result res;
	const struct shunt_code_list *list;
	const struct shunt_code_func *f;
	void *resolved;
	unsigned done_ = 0, forms[5] = {0};
	pthread_t t;

	pthread_create(&t, NULL, nothing, NULL);
	pthread_join(t, NULL);
	/* This makes the library look at the objects. */
	ok(!shunt_probe_resolve("libc.so.6:pthread_create", 0, &resolved, &res), "libc is known %s",
		res.reason);
	f = shunt_code_at(into, &list);
	if (!f) {
		skip("where threads begin is not known");
		return done();
	}
	p.addr = (void *)f->start;
	pthread_create(&t, NULL, come_and_go, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		if (shunt_probe_register(&p, &res)) {
			diag("not now: %s", res.reason);
			continue;
		}
		forms[shunt_probe_form(&p)]++;
		done_++;
		shunt_probe_unregister(&p);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	diag("%lu threads, %lu hits; %u jumps, %u shared, %u many", threads, hits, forms[1], forms[2],
		forms[3]);
	ok(done_ && !forms[SHUNT_PROBE_BREAKPOINT], "%u of %d times, and alive", done_, ROUNDS);
	return done();
}
