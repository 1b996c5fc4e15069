/* SPDX-License-Identifier: MIT */
/* ours.c - our notifier, and intervals. */
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <shunt/mmu.h>

#include "mmu.h"

static atomic_ulong events;

static unsigned long heard(void)
{
	return events;
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
	atomic_fetch_add_explicit(&events, 1, memory_order_relaxed);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
}

static const struct shunt_mmu_notifier_ops ops = { .invalidate_range_start = start, .invalidate_range_end = end };
static struct shunt_mmu_notifier notifier = { .ops = &ops };

static int notifier_arm(void)
{
	return shunt_mmu_notifier_register(&notifier);
}

static void notifier_disarm(void)
{
	shunt_mmu_notifier_unregister(&notifier);
}

static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)i;
	(void)e;
	(void)seq;
	atomic_fetch_add_explicit(&events, 1, memory_order_relaxed);
}

static const struct shunt_mmu_interval_ops interval_ops = { .invalidate = invalidate };
static struct shunt_mmu_interval *intervals;
static size_t interval_count;

/* n of them, a page each, in memory that nobody touches; with a page between them. */
static int intervals_arm(size_t n)
{
	char *p = mmap(NULL, 2 * n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r = 0;

	intervals = calloc(n, sizeof *intervals);
	if (p == MAP_FAILED || !intervals)
		return -ENOMEM;
	for (size_t i = 0; i < n && !r; i++) {
		intervals[i].ops = &interval_ops;
		r = shunt_mmu_interval_insert(&intervals[i], (uintptr_t)p + 2 * i * PAGE, PAGE);
		interval_count += !r;
	}
	return r;
}

static void intervals_disarm(void)
{
	while (interval_count)
		shunt_mmu_interval_remove(&intervals[--interval_count]);
	free(intervals);
}

static int one(void)
{
	return intervals_arm(1);
}

static int hundred(void)
{
	return intervals_arm(100);
}

static int hundred_thousand(void)
{
	return intervals_arm(100000);
}

static _Thread_local struct shunt_mmu_interval kept;

static int keep_interval(void *p, size_t length)
{
	kept.ops = &interval_ops;
	return shunt_mmu_interval_insert(&kept, (uintptr_t)p, length);
}

static int forget_interval(void *p, size_t length)
{
	(void)p;
	(void)length;
	return shunt_mmu_interval_remove(&kept);
}

const struct listener shunt_notifier = {
	.name = "shunt_notifier", .arm = notifier_arm, .disarm = notifier_disarm, .heard = heard,
	.hears_all = true,
};
const struct listener shunt_interval_1 = {
	.name = "shunt_interval_1", .arm = one, .disarm = intervals_disarm, .keep = keep_interval,
	.forget = forget_interval, .heard = heard,
};
const struct listener shunt_interval_100 = {
	.name = "shunt_interval_100", .arm = hundred, .disarm = intervals_disarm,
};
const struct listener shunt_interval_100000 = {
	.name = "shunt_interval_100000", .arm = hundred_thousand, .disarm = intervals_disarm,
};
