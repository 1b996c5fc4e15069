/* SPDX-License-Identifier: MIT */
/*
 * hit.c - what a detour calls: the handlers, and where to go on.
 *
 * Runs in the probed code's place: any context, signal handlers included, any
 * lock held. It takes no lock, makes no system call, and is compiled without vector
 * registers.
 *
 * Invariant: between the return of these functions and the program's next
 * instruction, the address in a detour that a thread is about to go to can be
 * seen: it is in the frame's pin as long as the frame lies above the stack
 * pointer, and after that the thread is at a doorway (rcu/tasks.h). It is pinned
 * first and looked up once more: an address that was still there then is one
 * that whoever takes it away will find pinned.
 */
#include "arch/x86_64/probe.h"
#include "arch/x86_64/trampoline_c.h"
#include "probe/place.h"
#include "trace/hook.h"

_Static_assert(offsetof(struct shunt_stub, door) == SHUNT_STUB_DOOR, "assembly");

unsigned shunt_probe_test_off;
struct shunt_place *shunt_place_blocks[SHUNT_PLACES_MAX / SHUNT_PLACE_BLOCK];

/* Stubs that lead to stubs: functions that leave by tail calls, each with a probe. */
#define CHAIN_MAX 16

static uintptr_t pinned(struct shunt_probe_frame *f, const uintptr_t *where)
{
	volatile uintptr_t *pin = &f->pin;
	uintptr_t at;

	do {
		at = __atomic_load_n(where, __ATOMIC_ACQUIRE);
		if (__builtin_expect(!(shunt_probe_test_off & SHUNT_PROBE_NO_PIN), 1))
			*pin = at;
		/* Only against the compiler: who frees a detour looks at this
		 * thread's stack from a signal handler on it, or while it does not run. */
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	} while (at != __atomic_load_n(where, __ATOMIC_ACQUIRE));
	return at;
}

/*
 * The frame to leave by, with the stack pointer and the place to go on that the
 * registers say. A lower stack pointer takes the frame along: its cell must be
 * where `ret` finds it.
 */
static struct shunt_probe_frame *leave(struct shunt_probe_frame *f, uintptr_t to)
{
	uintptr_t here = (uintptr_t)&f->cell + SHUNT_PROBE_BELOW, sp = f->regs.rsp;

	f->regs.rsp = sp - SHUNT_PROBE_BELOW;
	f->cell = to;
	if (__builtin_expect(sp == here, 1))
		return f;
	if (sp < here)
		return (struct shunt_probe_frame *)((uintptr_t)f - (here - sp));
	*(uintptr_t *)f->regs.rsp = to;
	return f;
}

/*
 * From here on it is the program's address that is seen on the stack, no more the
 * detour's. One of them always is: with neither, nobody would know of a thread that goes
 * on at `at` when its place is gone, and a jump over several instructions might be
 * put around it.
 */
static void come_from(struct shunt_probe_frame *f, uintptr_t at)
{
	*(volatile uint64_t *)&f->regs.rip = at;
	*(volatile uintptr_t *)&f->cell = 0;
}

/* --- handlers ---------------------------------------------------------------- */

static const struct shunt_probe_hook *hook_of(const struct shunt_place *p)
{
	return __atomic_load_n(&p->hook, __ATOMIC_ACQUIRE);
}

/*
 * Whether a probe's handlers can be called: not those that use vector registers
 * where these were not saved (a thread that came through the detour of
 * before they were registered).
 */
static bool called(const struct shunt_probe_call *c, bool vec)
{
	return vec || c->gpr;
}

static void call_all(const struct shunt_probe_hook *h, struct shunt_regs *regs, bool vec, bool post)
{
	for (uint32_t i = 0; i < h->n; i++) {
		const struct shunt_probe_call *c = &h->call[i];
		shunt_probe_fn fn = post ? c->post : c->pre;

		if (fn && called(c, vec))
			fn(c->probe, regs);
	}
}

/* --- returns ------------------------------------------------------------------ */

static bool chain_is_short(uintptr_t parent)
{
	for (int n = 0; shunt_stub_contains(parent); n++) {
		if (n == CHAIN_MAX)
			return false;
		parent = shunt_stub_row(parent)->parent;
	}
	return true;
}

/*
 * The stub through which the function that begins here returns; 0: it is not
 * seen returning.
 */
static uintptr_t stub_of(const struct shunt_place *p, const struct shunt_probe_hook *h,
	uintptr_t parent)
{
	uint32_t kind = h->flags & SHUNT_HOOK_VEC ? SHUNT_STUB_PROBE_VEC : SHUNT_STUB_PROBE;

	return chain_is_short(parent) ? shunt_stub_probe(parent, p->id, kind, &p->tail) : 0;
}

struct shunt_probe_frame *shunt_probe_before(struct shunt_probe_frame *f, uint32_t id, bool vec)
{
	struct shunt_place *p = shunt_place_of(id);
	uintptr_t sp = f->regs.rsp, to = p->addr, stub = 0;
	const struct shunt_probe_hook *h;
	struct shunt_section s;

	come_from(f, to);
	if (shunt_section_begin(&s, (uintptr_t)f)) {
		h = hook_of(p);
		if (h)
			call_all(h, &f->regs, vec, false);
		if (h && (h->flags & SHUNT_HOOK_RET) && f->regs.rip == p->addr &&
			f->regs.rsp == sp)
			stub = stub_of(p, h, *(uintptr_t *)sp);
		shunt_section_end(&s);
	}
	if (f->regs.rip != p->addr)
		return leave(f, f->regs.rip);
	if (stub) {
		/* The stub's call puts its own return address in the function's place. */
		f->regs.rsp = sp + 8;
		return leave(f, stub);
	}
	return leave(f, pinned(f, &p->tail));
}

/* Behind the displaced instruction. */
struct shunt_probe_frame *shunt_probe_behind(struct shunt_probe_frame *f, uint32_t id, bool vec)
{
	struct shunt_place *p = shunt_place_of(id);
	const struct shunt_probe_hook *h;
	struct shunt_section s;
	uintptr_t to;

	come_from(f, p->next);
	if (shunt_section_begin(&s, (uintptr_t)f)) {
		h = hook_of(p);
		if (h)
			call_all(h, &f->regs, vec, true);
		shunt_section_end(&s);
	}
	if (f->regs.rip != p->next)
		return leave(f, f->regs.rip);
	to = pinned(f, &p->behind);
	return leave(f, to ? to : p->next);
}

void shunt_probe_return(struct shunt_probe_frame *f, const struct shunt_stub *row)
{
	const struct shunt_place *p = shunt_place_of(row->id);
	bool vec = row->kind == SHUNT_STUB_PROBE_VEC;
	const struct shunt_probe_hook *h;
	struct shunt_section s;

	if (!shunt_section_begin(&s, (uintptr_t)f))
		return;
	h = hook_of(p);
	for (uint32_t i = h ? h->n : 0; i-- > 0;) {
		const struct shunt_probe_call *c = &h->call[i];

		if (c->ret && called(c, vec))
			c->ret(c->probe, &f->regs);
	}
	shunt_section_end(&s);
	f->cell = f->regs.rip;
}
