/* SPDX-License-Identifier: MIT */
/*
 * op.c - one change under way (the order of things is in core.h).
 *
 * This runs in the place of libc's system calls: general registers only, no libc, at any point of the
 * program. Where nobody is concerned that is two counts of an SRCU section and a look at a tree; else
 * tell.c is called with the vector registers saved.
 */
#include <pthread.h>

#include "mmu/core.h"
#include "mmu/guard.h"
#include "mmu/watch.h"

static struct shunt_mmu_page nobody;
static struct shunt_srcu first_domain;

struct shunt_mmu_page *shunt_mmu_page = &nobody;
struct shunt_srcu *shunt_mmu_ops = &first_domain;
struct shunt_mmu_member *shunt_mmu_members;
uint64_t shunt_mmu_last;
uint32_t shunt_mmu_kinds;

static bool concerns_anybody(const struct shunt_mmu_range *r)
{
	return (__atomic_load_n(&shunt_mmu_kinds, __ATOMIC_ACQUIRE) >> r->kind & 1) ||
	       shunt_mmu_tree_overlaps(r->start, r->end);
}

/*
 * As shunt_srcu_read_lock(), but whole for all processors: a child that shares our memory (CLONE_VM) and runs beside
 * its parent has the same thread-local variables, and of two plain additions at a time one would be lost.
 */
static int enter(struct shunt_srcu *d)
{
	char *self = shunt_srcu_self;
	uint32_t word = __atomic_load_n(&d->word, __ATOMIC_RELAXED);

	if (!self || word < 16)
		return shunt_srcu_lock_slow(d);
	__atomic_fetch_add((uint64_t *)(void *)(self + word), 1, __ATOMIC_SEQ_CST);
	return (int)word;
}

/*
 * The last thing: signals that were held back come now, and a handler that jumps away from here leaves nothing open.
 * Nor does a thread that was cancelled meanwhile and ends here.
 */
static void leave(struct shunt_mmu_op *op)
{
	char *self = shunt_srcu_self;

	if (self && op->section >= 16)
		__atomic_fetch_add((uint64_t *)(void *)(self + op->section + 16), 1, __ATOMIC_SEQ_CST);
	else
		shunt_srcu_unlock_slow(op->domain, op->section);
	if (op->told || op->context & SHUNT_MMU_HELD)
		shunt_mmu_unhold(op->mask);
	if (op->told && op->cancel_type != PTHREAD_CANCEL_DEFERRED)
		shunt_arch_mmu_call(shunt_mmu_guard_cancel, op);
}

bool shunt_mmu_op_begin(struct shunt_mmu_op *op)
{
	op->owner = __atomic_load_n(&shunt_mmu_page->owner, __ATOMIC_ACQUIRE);
	/*
	 * A section also where nobody is registered: who registers while the change is under way waits for
	 * it, as it has not been told.
	 */
	if (!op->owner || (shunt_mmu_forking && op->range[0].kind == SHUNT_MMU_FORK))
		return false;
	op->domain = shunt_mmu_ops;
	op->section = enter(op->domain);
	op->told = false;
	op->opened = -1;
	for (uint32_t i = 0; i < op->n && !op->told; i++)
		op->told = concerns_anybody(&op->range[i]);
	if (op->told)
		shunt_arch_mmu_call(shunt_mmu_tell_start, op);
	op->watch = shunt_mmu_watch_begin(op);
	return true;
}

/* What end has to know of the call: whether it failed, and where the memory is now. */
static void note_result(struct shunt_mmu_op *op, long result)
{
	if (shunt_sys_failed(result)) {
		op->flags |= SHUNT_MMU_FAILED;
		return;
	}
	for (uint32_t i = 0; i < op->n; i++)
		if (op->range[i].kind == SHUNT_MMU_REMAP && result)
			op->range[i].new_start = (uintptr_t)result;
}

void shunt_mmu_op_end(struct shunt_mmu_op *op, long result)
{
	shunt_mmu_watch_end(op->watch);
	if (op->told) {
		note_result(op, result);
		shunt_arch_mmu_call(shunt_mmu_tell_end, op);
	}
	leave(op);
}

void shunt_mmu_op_forked(struct shunt_mmu_op *op)
{
	if (op->told) {
		shunt_mmu_under_way = op->outer;
		shunt_arch_mmu_call(shunt_mmu_cancel_unhold, op);
		op->told = !(op->context & SHUNT_MMU_NO_HOLD);
	}
	leave(op);
}
