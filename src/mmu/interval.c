/* SPDX-License-Identifier: MIT */
/*
 * interval.c - intervals, and the sequence that tells who looks something up that it has changed.
 *
 * One sequence for all: it is odd while a change is under way that overlaps any interval, and goes on when the last
 * of them has ended. Each interval keeps the value of the last change that overlapped it. So
 * as long as its value is the present one it may be in the middle of a change, and read_begin waits; a change that
 * comes later gives it another value, and read_retry sees that. The value is set before the callback: who
 * passed read_retry before, under the lock that the callback takes, has put in what the callback finds.
 *
 * An interval that is inserted while changes are under way that did not see it is not settled: read_begin
 * waits for a grace period of the changes first. So inserting waits for nobody.
 */
#include <errno.h>
#include <stdlib.h>

#include "mmu/core.h"

uint64_t shunt_mmu_seq = 2;
static uint32_t active;
static uint64_t numbers;
static struct shunt_mmu_node *gone, **gone_end = &gone;

/* --- the sequence ------------------------------------------------------------------ */

void shunt_mmu_active_raise(void)
{
	shunt_mmu_small_take();
	active++;
	__atomic_store_n(&shunt_mmu_seq, shunt_mmu_seq | 1, __ATOMIC_SEQ_CST);
	shunt_mmu_small_give();
}

void shunt_mmu_active_lower(void)
{
	bool last;

	shunt_mmu_small_take();
	last = !--active;
	if (last)
		__atomic_store_n(&shunt_mmu_seq, shunt_mmu_seq + 1, __ATOMIC_SEQ_CST);
	shunt_mmu_small_give();
	if (last)
		shunt_sys(SYS_futex, &shunt_mmu_seq, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void shunt_mmu_interval_forget(void)
{
	active = 0;
	shunt_mmu_seq = (shunt_mmu_seq | 1) + 1;
	gone = NULL;
	gone_end = &gone;
}

/* --- inserting ---------------------------------------------------------------------- */

static struct shunt_mmu_node *node_of(const struct shunt_mmu_interval *i)
{
	struct shunt_mmu_node *n = __atomic_load_n(&i->node, __ATOMIC_SEQ_CST);

	return n && n->process == shunt_mmu_page->owner ? n : NULL;
}

/* The oldest that is nobody's any more is taken again; a few of the others are freed. */
static struct shunt_mmu_node *take_gone(void)
{
	struct shunt_mmu_node *n = gone;

	if (!n || !shunt_srcu_poll_state(shunt_mmu_ops, n->state))
		return NULL;
	gone = n->gone;
	if (!gone)
		gone_end = &gone;
	return n;
}

static int check(const struct shunt_mmu_interval *i, uintptr_t start, size_t length)
{
	if (!i || !i->ops || !i->ops->invalidate || !length || start + length < start ||
		i->kinds >> SHUNT_MMU_KINDS || (i->flags & ~(SHUNT_MMU_DIRECT | SHUNT_MMU_PARTIAL)))
		return -EINVAL;
	/* 57 bits of address, at most; what the kernel itself has is nobody's. */
	return start + length > 1ull << 56 ? -EINVAL : 0;
}

static int add(struct shunt_mmu_interval *i, struct shunt_mmu_node *n)
{
	uint32_t missing;
	int r;

	if (node_of(i))
		return -EALREADY;
	r = shunt_mmu_user_add(&missing);
	if (!r && missing && !(i->flags & SHUNT_MMU_PARTIAL)) {
		shunt_mmu_user_drop();
		r = shunt_mmu_refuse_missing(missing);
	}
	if (r)
		return r;
	n->number = ++numbers;
	n->process = shunt_mmu_page->owner;
	/* No value that will ever be the present one again. */
	n->seq = (__atomic_load_n(&shunt_mmu_seq, __ATOMIC_SEQ_CST) | 1) - 2;
	/* Its callback may run, and look, before insert returns. */
	i->start = n->start;
	i->length = n->end - n->start;
	shunt_mmu_tree_insert(n);
	n->state = shunt_srcu_get_state(shunt_mmu_ops);
	i->node = n;
	return 0;
}

SHUNT_API int shunt_mmu_interval_insert(struct shunt_mmu_interval *i, uintptr_t start, size_t length)
{
	struct shunt_mmu_node *n, *again[2] = {NULL, NULL};
	int r = check(i, start, length);

	if (!r)
		r = shunt_mmu_hand_prepare();
	if (r)
		return r;
	n = calloc(1, sizeof *n);
	if (!n)
		return -ENOMEM;
	*n = (struct shunt_mmu_node){.start = start, .end = start + length, .user = i, .ops = i->ops,
		.kinds = i->kinds ? i->kinds : (1u << SHUNT_MMU_KINDS) - 1,
		.direct = i->flags & SHUNT_MMU_DIRECT};
	shunt_mmu_registry_take();
	again[0] = take_gone();
	again[1] = take_gone();
	r = add(i, n);
	shunt_mmu_registry_give();
	if (r)
		free(n);
	free(again[0]);
	free(again[1]);
	return r;
}

static void take_out(struct shunt_mmu_leaving *l)
{
	struct shunt_mmu_node *n = (void *)((char *)l - offsetof(struct shunt_mmu_node, leaving));

	shunt_mmu_tree_remove(n);
	n->state = shunt_srcu_get_state(shunt_mmu_ops);
	n->gone = NULL;
	*gone_end = n;
	gone_end = &n->gone;
	shunt_mmu_user_drop();
}

SHUNT_API int shunt_mmu_interval_remove(struct shunt_mmu_interval *i)
{
	struct shunt_mmu_node *n = node_of(i);

	if (!__atomic_exchange_n(&i->node, NULL, __ATOMIC_SEQ_CST) || !n)
		return -ENOENT;
	__atomic_store_n(&n->dead, 1, __ATOMIC_SEQ_CST);
	shunt_mmu_wait_open(&n->running, shunt_mmu_held_by_self(n));
	n->leaving.out = take_out;
	shunt_mmu_leave(&n->leaving);
	return 0;
}

/* --- looking up ---------------------------------------------------------------------- */

static void settle(struct shunt_mmu_node *n)
{
	if (__atomic_load_n(&n->settled, __ATOMIC_ACQUIRE))
		return;
	if (!shunt_srcu_poll_state(shunt_mmu_ops, n->state))
		shunt_srcu_synchronize(shunt_mmu_ops);
	__atomic_store_n(&n->settled, 1, __ATOMIC_RELEASE);
}

SHUNT_API uint64_t shunt_mmu_interval_read_begin(struct shunt_mmu_interval *i)
{
	struct shunt_mmu_node *n = node_of(i);
	uint64_t seq;

	if (!n || shunt_mmu_inside())
		return 0;
	settle(n);
	for (;;) {
		seq = __atomic_load_n(&n->seq, __ATOMIC_SEQ_CST);
		if (seq != __atomic_load_n(&shunt_mmu_seq, __ATOMIC_SEQ_CST))
			return seq;
		shunt_sys(SYS_futex, &shunt_mmu_seq, FUTEX_WAIT_PRIVATE, (uint32_t)seq, NULL);
	}
}

SHUNT_API bool shunt_mmu_interval_read_retry(const struct shunt_mmu_interval *i, uint64_t seq)
{
	const struct shunt_mmu_node *n = node_of(i);

	return !seq || !n || __atomic_load_n(&n->seq, __ATOMIC_SEQ_CST) != seq;
}
