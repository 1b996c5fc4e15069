/* SPDX-License-Identifier: MIT */
/*
 * fabric.c - tells libfabric's registration caches what shunt sees. To be copied into a program of one's own.
 *
 * libfabric calls start() with the first cache and stop() with the last, subscribe() and unsubscribe() for
 * each range that a cache has registered, and valid() before it gives an answer: all but start and stop with
 * its lock of all caches and monitors held. notify() drops what a range has; it takes that lock.
 *
 * While it has the lock libfabric allocates. So notify() may not be called by somebody who has malloc()'s,
 * as free() has when it gives memory back: the notifier that calls it is not SHUNT_MMU_DIRECT, and such changes can be
 * made before it is through. What keeps the answers right then is valid(): each range is an interval too, which
 * is DIRECT, as all that it does is to mark the range as changed.
 *
 *   interval	marks, always before the change; valid() says no from then on
 *   notifier	notify(), so that registrations are given up soon; and once more after the change, for what
 *		was registered meanwhile
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

/* What a cache subscribed. Several may subscribe the same range, each time it is another one of these. */
struct range {
	struct shunt_mmu_interval interval; /* first */
	uintptr_t start;
	size_t length;
	atomic_bool changed;
	struct range *next; /* in its bucket, or spare */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the lists; never while anything else is called */
static struct range *buckets[BUCKETS], *spare;
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

static const struct shunt_mmu_notifier_ops notifier_ops = {
	.invalidate_range_start = tell, .invalidate_range_end = tell,
};

static struct shunt_mmu_notifier notifier;

/* ---- What libfabric asks for. ---- */

static int start(struct fid_mem_monitor *m)
{
	(void)m;
	notifier = (struct shunt_mmu_notifier){.ops = &notifier_ops, .kinds = KINDS, .flags = partial};
	return shunt_mmu_notifier_register(&notifier);
}

static void stop(struct fid_mem_monitor *m)
{
	struct range *r;

	(void)m;
	shunt_mmu_notifier_unregister(&notifier);
	while ((r = spare)) {
		spare = r->next;
		free(r);
	}
}

static struct range **bucket(uintptr_t start)
{
	return &buckets[(start >> 12) % BUCKETS];
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

static void give_spare(struct range *r)
{
	pthread_mutex_lock(&lock);
	r->next = spare;
	spare = r;
	pthread_mutex_unlock(&lock);
}

static int subscribe(struct fid_mem_monitor *m, const void *address, size_t length)
{
	struct range *r = take_spare(), **b = bucket((uintptr_t)address);
	int error;

	(void)m;
	if (!r)
		return -FI_ENOMEM;
	*r = (struct range){.start = (uintptr_t)address, .length = length,
		.interval = {.ops = &interval_ops, .kinds = KINDS, .flags = SHUNT_MMU_DIRECT | partial}};
	error = shunt_mmu_interval_insert(&r->interval, r->start, length);
	if (error) {
		give_spare(r);
		return error;
	}
	pthread_mutex_lock(&lock);
	r->next = *b;
	*b = r;
	pthread_mutex_unlock(&lock);
	return 0;
}

/*
 * Which of several that subscribed the same range asks is not known. Who leaves takes one that has not changed, if
 * there is one: so as long as anybody has a registration from before the change, valid() says no to all of
 * them. That is once too often, never once too seldom.
 */
static struct range *take_out(uintptr_t address, size_t length)
{
	struct range **at, **found = NULL, *r;

	pthread_mutex_lock(&lock);
	for (at = bucket(address); *at; at = &(*at)->next) {
		if ((*at)->start != address || (*at)->length != length)
			continue;
		found = at;
		if (!(*at)->changed)
			break;
	}
	r = found ? *found : NULL;
	if (r)
		*found = r->next;
	pthread_mutex_unlock(&lock);
	return r;
}

static void unsubscribe(struct fid_mem_monitor *m, const void *address, size_t length)
{
	struct range *r = take_out((uintptr_t)address, length);

	(void)m;
	if (!r)
		return;
	shunt_mmu_interval_remove(&r->interval);
	if (r->changed)
		all_changed--;
	give_spare(r);
}

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
