/* SPDX-License-Identifier: MIT */
/*
 * zone.h - code made while running, for the tests: zones that call a function, and
 * threads that are somewhere.
 */
#ifndef TEST_ZONE_H
#define TEST_ZONE_H

#include <shunt/tasks.h>

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>

#include "tap.h"

#define unlikely_fail(what) \
	do { \
		diag("%s:%d: %s", __FILE__, __LINE__, what); \
		exit(1); \
	} while (0)

struct visit {
	struct shunt_rcu_head head;
	struct shunt_zone zone;
	volatile uint32_t called;
};

/* void zone(void (*f)(void *), void *arg): calls f(arg) from inside. */
static const uint8_t caller_code[] = {
	0x48, 0x83, 0xec, 0x08, /* sub $8, %rsp */
	0x48, 0x89, 0xf8,	/* mov %rdi, %rax */
	0x48, 0x89, 0xf7,	/* mov %rsi, %rdi */
	0xff, 0xd0,		/* call *%rax */
	0x48, 0x83, 0xc4, 0x08, /* add $8, %rsp */
	0xc3,
};

typedef void (*caller_fn)(void (*f)(void *), void *arg);

__attribute__((unused)) static caller_fn make_caller(struct shunt_zone *zone)
{
	uintptr_t here = (uintptr_t)&make_caller;

	if (shunt_code_alloc(zone, here, here + 1, sizeof caller_code) ||
		shunt_code_write(zone, 0, caller_code, sizeof caller_code))
		unlikely_fail("no code memory");
	return (caller_fn)zone->start;
}

/* The stats' number of passes goes up by n: whoever was to be seen has been. */
__attribute__((unused)) static struct shunt_rcu_tasks_stats figures(void)
{
	struct shunt_rcu_tasks_stats s;

	if (shunt_rcu_tasks_stats(&s, sizeof s))
		unlikely_fail("no stats");
	return s;
}

static void never(struct shunt_rcu_head *head)
{
	free(head);
}

/*
 * Two passes go by: the first one that ends may have begun before. A pass ends
 * whether or not zones are found to be visited.
 */
__attribute__((unused)) static void passes(unsigned n)
{
	static const uint8_t nothing;

	for (unsigned i = 0; i < n; i++) {
		struct visit *v = calloc(1, sizeof *v);

		v->zone.start = (uintptr_t)&nothing;
		v->zone.end = v->zone.start + 1;
		uint64_t before = figures().passes;

		shunt_call_rcu_tasks(&v->head, &v->zone, never);
		while (figures().passes == before)
			sched_yield();
	}
}

/* A word to wait for. */
__attribute__((unused)) static void raise_flag(volatile uint32_t *flag)
{
	__atomic_store_n(flag, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, flag, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0L);
}

__attribute__((unused)) static void await_flag(volatile uint32_t *flag)
{
	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, flag, FUTEX_WAIT, 0, NULL, NULL, 0L);
}

__attribute__((unused)) static void visit_called(struct shunt_rcu_head *head)
{
	raise_flag(&((struct visit *)head)->called);
}

#endif
