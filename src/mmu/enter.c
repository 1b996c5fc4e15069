/* SPDX-License-Identifier: MIT */
/*
 * enter.c - what an armed place runs: asks what the call will change, tells of it, makes the call,
 * tells that it was made.
 *
 * General registers only, nothing of libc's, no errno: it runs in libc's place with whatever
 * locks libc holds, in vfork children, in threads that exit.
 */
#include <fcntl.h>
#include <linux/sched.h>
#include <sys/syscall.h>

#include "arch/x86_64/text_sys.h"
#include "arch/x86_64/trampoline_c.h"
#include "mmu/core.h"
#include "mmu/sites.h"

#define RED_ZONE 128

struct shunt_mmu_place shunt_mmu_places[SHUNT_MMU_PLACES];
uint32_t shunt_mmu_nplaces;
struct shunt_range shunt_mmu_inner[SHUNT_MMU_INNER];
uint32_t shunt_mmu_ninner;

/* --- calling with all registers kept ---------------------------------------------------- */

void shunt_mmu_call_kept(void (*fn)(void *), void *arg, size_t size, uint64_t mask);

/* x87, SSE, AVX, and the three of AVX-512. Not: protection keys, which are no callback's business,
 * and matrix tiles, which no callback touches unless it asks for them. */
#define KEPT 0xe7u
#define LEGACY_AREA 512
#define HEADER 64

static uint64_t kept_mask;
static uint32_t kept_size; /* 0: not known yet */

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
	__asm__("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(sub));
}

/* Slow in virtual machines, so once. Several threads find the same. */
static void find_kept(void)
{
	uint32_t r[4], lo, hi, size = LEGACY_AREA + HEADER;
	uint64_t mask = 0;

	cpuid(1, 0, r);
	if (r[2] >> 27 & 1) { /* OSXSAVE */
		__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		mask = lo & KEPT;
	}
	for (uint32_t i = 2; i < 8; i++) {
		if (!(mask >> i & 1))
			continue;
		cpuid(0xd, i, r);
		if (r[1] + r[0] > size)
			size = r[1] + r[0];
	}
	__atomic_store_n(&kept_mask, mask, __ATOMIC_RELAXED);
	__atomic_store_n(&kept_size, size, __ATOMIC_RELEASE);
}

void shunt_arch_mmu_call(void (*fn)(void *), void *arg)
{
	/* Pairs with the release in find_kept(): the mask is there. */
	if (!__atomic_load_n(&kept_size, __ATOMIC_ACQUIRE))
		find_kept();
	shunt_mmu_call_kept(fn, arg, kept_size, kept_mask);
}

/* --- where the call comes from ------------------------------------------------------------ */

static bool is_inner(uintptr_t pc)
{
	uint32_t n = __atomic_load_n(&shunt_mmu_ninner, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < n; i++)
		if (pc - shunt_mmu_inner[i].start < shunt_mmu_inner[i].end - shunt_mmu_inner[i].start)
			return true;
	return false;
}

/* Where a probe or a tracer wants to see the return it has put a stub of its own; for a tail call one upon another. */
static uintptr_t behind_stubs(uintptr_t pc)
{
	for (int i = 0; i < 16 && shunt_stub_contains(pc); i++)
		pc = shunt_stub_row(pc)->parent;
	return pc;
}

/* Has the program called the wrapper, or libc itself? */
static bool from_inside(const struct shunt_mmu_place *p, const struct shunt_mmu_regs *r)
{
	uintptr_t sp = (uintptr_t)(&r->site + 2) + RED_ZONE;

	if (p->inner || p->frame == SHUNT_MMU_NO_FRAME)
		return true;
	return is_inner(behind_stubs(*(const uintptr_t *)(sp + p->frame)));
}

/* --- kinds of calls ------------------------------------------------------------------------- */

static bool has_kind(const struct shunt_mmu_op *op, uint32_t kind)
{
	for (uint32_t i = 0; i < op->n; i++)
		if (op->range[i].kind == kind)
			return true;
	return false;
}

/* Of a call that makes a copy of the memory: will the child be on another stack? */
static bool has_own_stack(const struct shunt_mmu_call *c)
{
	struct clone_args a = {0};
	size_t size = (size_t)c->a[1];

	if (c->nr == SYS_clone)
		return c->a[1];
	return c->nr == SYS_clone3 && size >= offsetof(struct clone_args, stack) + 8 &&
	       shunt_mmu_fetch(&a, (uintptr_t)c->a[0], size < sizeof a ? size : sizeof a) && a.stack;
}

static long make(const struct shunt_mmu_regs *r)
{
	return shunt_sys6((long)r->rax, (long)r->rdi, (long)r->rsi, (long)r->rdx, (long)r->r10,
		(long)r->r8, (long)r->r9);
}

static void go_behind(struct shunt_mmu_regs *r, const struct shunt_mmu_place *p, long result)
{
	r->rax = (uint64_t)result;
	r->rcx = p->behind;
	r->r11 = p->behind;
}

/*
 * Cancellation points: libc lets the signal for it through while they last, and it is answered by leaving
 * all frames, also between begin and end, which would never come, and while decode() has a file open.
 */
static bool is_cancellable(const struct shunt_mmu_call *c)
{
	/* Most do not cut anything off, and need not pay. */
	if (c->nr == SYS_openat || c->nr == SYS_open || c->nr == SYS_open_by_handle_at)
		return c->a[c->nr == SYS_open ? 1 : 2] & O_TRUNC;
	return c->nr == SYS_creat || c->nr == SYS_openat2 || c->nr == SYS_fallocate;
}

/* The child is not in what the thread is in: it has the thread-local variables of now. */
static long make_elsewhere(struct shunt_mmu_regs *r, const struct shunt_mmu_place *p)
{
	struct shunt_mmu_frame *frames = shunt_mmu_frames;
	struct shunt_mmu_op *under_way = shunt_mmu_under_way;
	uint32_t changes = shunt_mmu_changes;
	long result;

	shunt_mmu_frames = NULL;
	shunt_mmu_under_way = NULL;
	shunt_mmu_changes = 0;
	result = shunt_mmu_clone(r, p->stub + SHUNT_MMU_TAIL);
	shunt_mmu_frames = frames;
	shunt_mmu_under_way = under_way;
	shunt_mmu_changes = changes;
	return result;
}

static bool tell(struct shunt_mmu_regs *r, const struct shunt_mmu_place *p,
	const struct shunt_mmu_call *c, struct shunt_mmu_op *op)
{
	bool fork = has_kind(op, SHUNT_MMU_FORK);
	bool own_stack = fork && has_own_stack(c);
	long result;

	/* The mask is inherited by a program that is executed, and by a child that does not come back. */
	if (own_stack || has_kind(op, SHUNT_MMU_EXEC))
		op->context |= SHUNT_MMU_NO_HOLD;
	if (!shunt_mmu_op_begin(op))
		return false;
	result = own_stack ? make_elsewhere(r, p) : make(r);
	if (op->context & SHUNT_MMU_HELD && c->nr != SYS_fallocate && !shunt_sys_failed(result))
		op->opened = (int)result;
	if (fork && !result)
		shunt_mmu_op_forked(op);
	else
		shunt_mmu_op_end(op, result);
	go_behind(r, p, result);
	return true;
}

/* A child that shares the memory: its exec leaves the memory alone. */
static bool is_told(const struct shunt_mmu_op *op)
{
	return !has_kind(op, SHUNT_MMU_EXEC) || shunt_mmu_is_owner();
}

static bool look_and_tell(struct shunt_mmu_regs *r, const struct shunt_mmu_place *p,
	const struct shunt_mmu_call *c)
{
	struct shunt_mmu_op op;
	bool made = false;

	op.context = 0;
	if (is_cancellable(c)) {
		op.context = SHUNT_MMU_HELD;
		op.mask = shunt_mmu_hold();
	}
	op.n = shunt_mmu_decode(c, op.range);
	/* execl() and its like hold no lock; after 10 ms nobody would be left to be waited for. */
	if (op.n && !has_kind(&op, SHUNT_MMU_EXEC) && from_inside(p, r))
		op.context |= SHUNT_MMU_IN_LIBC;
	if (op.n && is_told(&op))
		made = tell(r, p, c, &op);
	if (!made && op.context & SHUNT_MMU_HELD)
		shunt_mmu_unhold(op.mask);
	return made;
}

bool shunt_mmu_enter(struct shunt_mmu_regs *r)
{
	const struct shunt_mmu_place *p = &shunt_mmu_places[r->site];
	struct shunt_mmu_call c = {
		.nr = p->nr == SHUNT_MMU_ANY ? (int32_t)r->rax : p->nr,
		.a = {(long)r->rdi, (long)r->rsi, (long)r->rdx, (long)r->r10, (long)r->r8, (long)r->r9},
	};

	r->r11 = p->next;
	if (c.nr == SYS_exit_group) {
		if (shunt_mmu_is_owner())
			shunt_mmu_exiting();
		return false;
	}
	return shunt_mmu_interesting(c.nr) && look_and_tell(r, p, &c);
}
