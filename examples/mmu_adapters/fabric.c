/* SPDX-License-Identifier: MIT */
/*
 * fabric.c - tells libfabric's registration caches what shunt sees. To be copied into a program of one's own.
 *
 * libfabric calls start() with the first cache and stop() with the last, subscribe() for each range that
 * a cache has registered, and valid() before it gives an answer: the latter two with its lock of all caches
 * held. notify() drops what a range has; it takes that lock.
 *
 * While it has the lock libfabric allocates. So notify() may not be called by somebody who has malloc()'s,
 * as free() has when it gives memory back: the notifier that calls it is not SHUNT_MMU_DIRECT, and such changes can be
 * made before it is through. What keeps the answers right then is valid(): each range is an interval too, which
 * is DIRECT, as all that it does is to mark the range as changed.
 *
 *   interval	marks, always before the change; valid() says no from then on
 *   notifier	notify(), so that registrations are given up soon; and once more after the change, for what
 *		was registered meanwhile. Then no cache has anything of the range from before that, and what
 *		was marked and subscribed before that is forgotten.
 *
 * unsubscribe() is not used: 1.17 never calls it, others do, and whose subscription it ends it does not say. So a range
 * whose registration has been given up for want of room stays here until its memory changes.
 *
 * Nothing here is freed in a callback, but kept for later: a heap that is trimmed there would be one more change,
 * one that the notifier is not told.
 */
#include "fabric.h"

#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_ext.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <shunt/mmu.h>

#define BUCKETS 1024
#define KINDS \
	(1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_DISCARD | 1u << SHUNT_MMU_FORK)

/* What a cache, or several, subscribed. Marked ones are not used for new subscriptions: it gets another one. */
struct range {
	struct shunt_mmu_interval interval; /* first */
	uintptr_t start;
	size_t length;
	uint64_t time; /* of the last subscription, by `now` */
	atomic_bool changed;
	struct range *next; /* in its bucket, or spare */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the lists; never while anything else is called */
static struct range *buckets[BUCKETS], *spare;
static uint64_t now; /* counts subscriptions */
static atomic_uint all_changed; /* how many ranges are marked */
static uint32_t partial;

/* ---- What shunt tells. ---- */

static void mark(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	struct range *r = (struct range *)i;

	(void)e;
	(void)seq;
	if (!atomic_exchange(&r->changed, true))
		all_changed++;
}

static const struct shunt_mmu_interval_ops interval_ops = {.invalidate = mark};

static struct fid_mem_monitor monitor;

static void tell(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	monitor.import_ops->notify(&monitor, (void *)e->start, e->end - e->start);
}

/* Takes those out of the lists that are marked, overlap, and have no subscription after `time`. */
static struct range *take_changed(uintptr_t from, uintptr_t to, uint64_t time)
{
	struct range *taken = NULL, **at, *r;

	pthread_mutex_lock(&lock);
	for (int b = 0; b < BUCKETS; b++) {
		for (at = &buckets[b]; (r = *at);) {
			if (!r->changed || r->start >= to || r->start + r->length <= from || r->time > time) {
				at = &r->next;
				continue;
			}
			*at = r->next;
			r->next = taken;
			taken = r;
		}
	}
	pthread_mutex_unlock(&lock);
	return taken;
}

static void give_spare(struct range *r)
{
	pthread_mutex_lock(&lock);
	r->next = spare;
	spare = r;
	pthread_mutex_unlock(&lock);
}

static void tell_and_forget(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct range *r, *next;
	uint64_t time;

	pthread_mutex_lock(&lock);
	time = now;
	pthread_mutex_unlock(&lock);
	tell(n, e);
	if (!all_changed)
		return;
	for (r = take_changed(e->start, e->end, time); r; r = next) {
		next = r->next;
		shunt_mmu_interval_remove(&r->interval);
		all_changed--;
		give_spare(r);
	}
}

static const struct shunt_mmu_notifier_ops notifier_ops = {
	.invalidate_range_start = tell, .invalidate_range_end = tell_and_forget,
};

static struct shunt_mmu_notifier notifier;

/* ---- What libfabric asks for. ---- */

static int start(struct fid_mem_monitor *m)
{
	(void)m;
	notifier = (struct shunt_mmu_notifier){.ops = &notifier_ops, .kinds = KINDS, .flags = partial};
	return shunt_mmu_notifier_register(&notifier);
}

static void free_all(struct range **list)
{
	struct range *r;

	while ((r = *list)) {
		*list = r->next;
		shunt_mmu_interval_remove(&r->interval);
		free(r);
	}
}

/* There is no cache. */
static void stop(struct fid_mem_monitor *m)
{
	(void)m;
	shunt_mmu_notifier_unregister(&notifier);
	for (int b = 0; b < BUCKETS; b++)
		free_all(&buckets[b]);
	free_all(&spare);
	all_changed = 0;
}

static struct range **bucket(uintptr_t start)
{
	return &buckets[(start >> 12) % BUCKETS];
}

/* Whether there is one that is not marked. If it is in the same moment, its time must be what it was. */
static bool subscribe_again(uintptr_t start, size_t length)
{
	bool found = false;
	uint64_t before;

	pthread_mutex_lock(&lock);
	for (struct range *r = *bucket(start); r && !found; r = r->next) {
		if (r->start != start || r->length != length || r->changed)
			continue;
		before = r->time;
		r->time = ++now;
		found = !r->changed;
		if (!found)
			r->time = before;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

static struct range *take_spare(void)
{
	struct range *r;

	pthread_mutex_lock(&lock);
	r = spare;
	if (r)
		spare = r->next;
	pthread_mutex_unlock(&lock);
	return r ? r : malloc(sizeof *r);
}

static void put_in(struct range *r)
{
	struct range **b = bucket(r->start);

	pthread_mutex_lock(&lock);
	r->time = ++now;
	r->next = *b;
	*b = r;
	pthread_mutex_unlock(&lock);
}

static void take_out(struct range *r)
{
	struct range **at = bucket(r->start);

	pthread_mutex_lock(&lock);
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	pthread_mutex_unlock(&lock);
}

/* In the list first: whoever marks it looks for it there after the change. */
static int subscribe(struct fid_mem_monitor *m, const void *address, size_t length)
{
	struct range *r;
	int error;

	(void)m;
	if (subscribe_again((uintptr_t)address, length))
		return 0;
	r = take_spare();
	if (!r)
		return -FI_ENOMEM;
	*r = (struct range){.start = (uintptr_t)address, .length = length,
		.interval = {.ops = &interval_ops, .kinds = KINDS, .flags = SHUNT_MMU_DIRECT | partial}};
	put_in(r);
	error = shunt_mmu_interval_insert(&r->interval, r->start, length);
	if (error) {
		take_out(r);
		give_spare(r);
	}
	return error;
}

static void unsubscribe(struct fid_mem_monitor *m, const void *address, size_t length)
{
	(void)m;
	(void)address;
	(void)length;
}

/* No as long as anything marked is here: once too often, if another cache had it, never once too seldom. */
static bool valid(struct fid_mem_monitor *m, const void *address, size_t length)
{
	bool r = true;

	(void)m;
	if (!all_changed)
		return true;
	pthread_mutex_lock(&lock);
	for (struct range *i = *bucket((uintptr_t)address); i; i = i->next)
		if (i->start == (uintptr_t)address && i->length == length && i->changed)
			r = false;
	pthread_mutex_unlock(&lock);
	return r;
}

static struct fi_ops_mem_monitor monitor_ops = {
	.size = sizeof monitor_ops,
	.start = start,
	.stop = stop,
	.subscribe = subscribe,
	.unsubscribe = unsubscribe,
	.valid = valid,
};

/* ---- Import. ---- */

int mmu_fabric_import(uint32_t flags)
{
	struct fi_info *info = NULL;
	struct fid *cache;
	int r;

	/* Sets libfabric up. An import before that is forgotten if FI_MR_CACHE_MONITOR names another one. */
	fi_getinfo(FI_VERSION(1, 14), NULL, NULL, 0, NULL, &info);
	fi_freeinfo(info);
	r = fi_open(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &cache, NULL);
	if (r)
		return r;
	partial = flags & SHUNT_MMU_PARTIAL;
	monitor.fid.fclass = FI_CLASS_MEM_MONITOR;
	monitor.export_ops = &monitor_ops;
	r = fi_import_fid(cache, &monitor.fid, 0);
	fi_close(cache);
	return r;
}

void mmu_fabric_close(void)
{
	fi_close(&monitor.fid);
}

bool mmu_fabric_started(void)
{
	return notifier.node != NULL;
}
