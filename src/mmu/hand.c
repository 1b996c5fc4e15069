/* SPDX-License-Identifier: MIT */
/*
 * hand.c - changes that are told of on a thread of the library's.
 *
 * Who makes such a change is inside of libc, with locks held that a callback may need. It queues a task and waits for
 * the callbacks, 10 ms at most: a callback that needs one of those locks then gets it, because the change goes on. The
 * intervals' sequence stays odd until the callbacks have returned, and shunt_mmu_sync() waits for them; so late
 * callbacks make nobody look up what is stale.
 *
 * A task has two items in the queue, its start's and its end's. Tasks come from memory that is mapped by the system
 * call itself when there are too few, and are used again, never given back.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/worker.h"
#include "mmu/core.h"
#include "mmu/watch.h"

#define CHUNK	(64u << 10)
#define WAIT_NS 10000000u

struct item {
	struct item *next;
	struct shunt_mmu_task *task;
};

struct shunt_mmu_task {
	struct shunt_mmu_op op;
	struct item start, end;
	uint32_t started; /* futex: 1: the callbacks have returned */
	struct shunt_mmu_task *free;
};

static int pass(void);
static struct shunt_worker worker = SHUNT_WORKER(pass, "shunt-mmu");

/* Under the small lock. */
static struct shunt_mmu_task *free_tasks;
static struct item *queue, **queue_end = &queue;
static uint32_t queued; /* items, ever */
static uint32_t done;	/* futex: items, ever */
static bool stocked;	/* of the registry */
static struct shunt_mmu_leaving *leaving; /* pushed by whoever is inside of a change */

int shunt_mmu_hand_prepare(void)
{
	return shunt_worker_kick(&worker);
}

void shunt_mmu_hand_reset(void)
{
	queue = NULL;
	queue_end = &queue;
	free_tasks = NULL;
	stocked = false;
	leaving = NULL;
	queued = done = 0;
}

/* --- tasks -------------------------------------------------------------------------- */

static void give(struct shunt_mmu_task *t)
{
	shunt_mmu_small_take();
	t->free = free_tasks;
	free_tasks = t;
	shunt_mmu_small_give();
}

static bool more(void)
{
	char *chunk = (void *)shunt_sys(SYS_mmap, NULL, CHUNK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (shunt_sys_failed((long)chunk))
		return false;
	for (size_t at = 0; at + sizeof(struct shunt_mmu_task) <= CHUNK; at += sizeof(struct shunt_mmu_task))
		give((void *)(chunk + at));
	return true;
}

/* The first are there before anybody is told: who frees memory because there is none needs one. */
int shunt_mmu_hand_stock(void)
{
	if (!stocked && !more())
		return -ENOMEM;
	stocked = true;
	return 0;
}

/* Without memory it waits for somebody's to be done: no change may go untold. */
static struct shunt_mmu_task *take(void)
{
	struct shunt_mmu_task *t;

	for (;;) {
		shunt_mmu_small_take();
		t = free_tasks;
		if (t)
			free_tasks = t->free;
		shunt_mmu_small_give();
		if (t)
			return t;
		if (!more())
			shunt_sys(SYS_sched_yield);
	}
}

static void put(struct item *i, struct shunt_mmu_task *t)
{
	i->next = NULL;
	i->task = t;
	shunt_mmu_small_take();
	*queue_end = i;
	queue_end = &i->next;
	__atomic_store_n(&queued, queued + 1, __ATOMIC_SEQ_CST);
	shunt_mmu_small_give();
	shunt_worker_wake(&worker);
}

static struct item *first(void)
{
	struct item *i;

	shunt_mmu_small_take();
	i = queue;
	if (i) {
		queue = i->next;
		if (!queue)
			queue_end = &queue;
	}
	shunt_mmu_small_give();
	return i;
}

/* --- who makes the change ------------------------------------------------------------ */

static void prepare(struct shunt_mmu_task *t, const struct shunt_mmu_op *op, const uint64_t *who)
{
	memcpy(&t->op, op, sizeof t->op);
	memcpy(t->op.started, who, sizeof t->op.started);
	t->op.context &= ~SHUNT_MMU_IN_LIBC;
	t->op.flags |= SHUNT_MMU_BLOCK | SHUNT_MMU_HANDED;
	t->op.task = NULL;
	t->op.counted = op->counted;
	t->started = 0;
	if (op->counted)
		shunt_mmu_active_raise();
}

static void wait_started(struct shunt_mmu_task *t)
{
	uint64_t end = shunt_now_ns() + WAIT_NS;

	while (!__atomic_load_n(&t->started, __ATOMIC_ACQUIRE) && shunt_mmu_sleep_until(&t->started, 0, end))
		;
}

/* The library's own thread does not wait for itself: what its callbacks' frees change comes late. */
void shunt_mmu_hand_start(struct shunt_mmu_op *op, const uint64_t *who)
{
	struct shunt_mmu_task *t = take();

	prepare(t, op, who);
	op->task = t;
	put(&t->start, t);
	if (!shunt_worker_self(&worker))
		wait_started(t);
	if (!__atomic_load_n(&t->started, __ATOMIC_ACQUIRE))
		__atomic_fetch_or(&t->op.flags, SHUNT_MMU_LATE, __ATOMIC_RELEASE);
}

void shunt_mmu_hand_end(struct shunt_mmu_op *op)
{
	struct shunt_mmu_task *t = op->task;

	__atomic_fetch_or(&t->op.flags, op->flags & SHUNT_MMU_FAILED, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < op->n; i++)
		__atomic_store_n(&t->op.range[i].new_start, op->range[i].new_start, __ATOMIC_RELAXED);
	put(&t->end, t);
}

/* --- the thread ------------------------------------------------------------------------- */

static void run_start(struct shunt_mmu_task *t)
{
	shunt_mmu_tell_handed_start(&t->op);
	__atomic_store_n(&t->started, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &t->started, FUTEX_WAKE_PRIVATE, 1);
}

static void run_end(struct shunt_mmu_task *t)
{
	shunt_mmu_tell_handed_end(&t->op);
	if (t->op.counted)
		shunt_mmu_active_lower();
	give(t);
}

static bool run_next(void)
{
	struct item *i = first();

	if (!i)
		return false;
	if (i == &i->task->start)
		run_start(i->task);
	else
		run_end(i->task);
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
	shunt_sys(SYS_futex, &done, FUTEX_WAKE_PRIVATE, INT32_MAX);
	return true;
}

void shunt_mmu_hand_leaving(struct shunt_mmu_leaving *l)
{
	l->next = __atomic_load_n(&leaving, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&leaving, &l->next, l, true, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED))
		;
	shunt_worker_wake(&worker);
}

static bool take_leaving_out(void)
{
	struct shunt_mmu_leaving *l, *next;

	if (!__atomic_load_n(&leaving, __ATOMIC_SEQ_CST))
		return false;
	shunt_mmu_registry_take();
	for (l = __atomic_exchange_n(&leaving, NULL, __ATOMIC_SEQ_CST); l; l = next) {
		next = l->next;
		l->out(l);
	}
	shunt_mmu_registry_give();
	return true;
}

static int pass(void)
{
	while (run_next() || take_leaving_out())
		;
	return -1;
}

/* --- waiting for it ----------------------------------------------------------------------- */

SHUNT_API void shunt_mmu_sync(void)
{
	uint32_t want = __atomic_load_n(&queued, __ATOMIC_SEQ_CST), now;

	/* In a fork child that has registered nobody, what was queued is its parent's. */
	if (shunt_mmu_inside() || !__atomic_load_n(&shunt_mmu_page->owner, __ATOMIC_ACQUIRE))
		return;
	while ((int32_t)((now = __atomic_load_n(&done, __ATOMIC_SEQ_CST)) - want) < 0)
		shunt_sys(SYS_futex, &done, FUTEX_WAIT_PRIVATE, now, NULL);
	shunt_mmu_watch_sync();
}
