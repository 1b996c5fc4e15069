/* SPDX-License-Identifier: MIT */
/* change.c - for code that changes memory by means of its own, and says so. */
#include <errno.h>

#include "mmu/core.h"

__thread uint32_t shunt_mmu_changes;

struct change {
	struct shunt_mmu_op op;
	bool begun;
};

_Static_assert(sizeof(struct change) <= sizeof(struct shunt_mmu_change), "ABI");

static const uintptr_t page = 4096;

SHUNT_API int shunt_mmu_change_begin(struct shunt_mmu_change *c, enum shunt_mmu_kind kind,
	uintptr_t start, uintptr_t end, uintptr_t new_start)
{
	struct change *own = (void *)c;

	if (start >= end || end > -page || (unsigned)kind >= SHUNT_MMU_EXEC)
		return -EINVAL;
	start &= -page;
	end = (end + page - 1) & -page;
	own->op.range[0] = (struct shunt_mmu_range){start, end, new_start, kind};
	own->op.n = 1;
	own->op.context = 0;
	own->begun = shunt_mmu_op_begin(&own->op);
	shunt_mmu_changes++;
	return 0;
}

SHUNT_API void shunt_mmu_change_end(struct shunt_mmu_change *c, bool failed, uintptr_t new_start)
{
	struct change *own = (void *)c;

	shunt_mmu_changes--;
	if (own->begun)
		shunt_mmu_op_end(&own->op, failed ? -EINVAL : (long)new_start);
}

/*
 * What only this process's own threads tell of: the exec and the exit of a child that shares the memory leave it
 * alone. False: the call is made as ever.
 */
static bool ours(long nr)
{
	bool exec = nr == SYS_execve || nr == SYS_execveat;

	if (!exec && nr != SYS_exit_group)
		return true;
	if (!shunt_mmu_is_owner())
		return false;
	if (!exec)
		shunt_mmu_exiting();
	return exec;
}

static bool forks(const struct shunt_mmu_op *op)
{
	return op->range[0].kind == SHUNT_MMU_FORK;
}

SHUNT_API long shunt_mmu_syscall(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	struct shunt_mmu_call call = {nr, {a1, a2, a3, a4, a5, a6}};
	struct shunt_mmu_op op;
	long r;

	op.n = shunt_mmu_decode(&call, op.range);
	/* A program that is executed has the mask that there is. */
	op.context = op.n && op.range[0].kind == SHUNT_MMU_EXEC ? SHUNT_MMU_NO_HOLD : 0;
	if (!ours(nr) || !op.n || !shunt_mmu_op_begin(&op))
		return shunt_sys6(nr, a1, a2, a3, a4, a5, a6);
	r = shunt_sys6(nr, a1, a2, a3, a4, a5, a6);
	if (!r && forks(&op))
		shunt_mmu_op_forked(&op);
	else
		shunt_mmu_op_end(&op, r);
	return r;
}
