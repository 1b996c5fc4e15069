/* SPDX-License-Identifier: MIT */
/* detour.c - see detour.h, and arch/x86_64/probe.h for what a detour looks like. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/probe.h"
#include "base/log.h"
#include "probe/detour.h"
#include "rcu/tasks.h"

struct writer {
	struct shunt_detour_code *c;
	uintptr_t at; /* of the first byte */
};

static void put(struct writer *w, const void *bytes, size_t n)
{
	memcpy(w->c->bytes + w->c->size, bytes, n);
	w->c->size += n;
}

/* The three lines; the call's displacement is filled in at the end. */
static size_t put_call(struct writer *w, uint32_t id)
{
	static const uint8_t red_zone[] = {0x48, 0x8d, 0x64, 0x24, 0x80}; /* lea -128(%rsp),%rsp */
	static const uint8_t call[] = {0xff, 0x15, 0, 0, 0, 0};		  /* call *0(%rip) */
	static const uint8_t nop[] = {0x0f, 0x1f, 0x80};		  /* nop id(%rax) */
	size_t at;

	put(w, red_zone, sizeof red_zone);
	put(w, call, sizeof call);
	at = w->c->size;
	put(w, nop, sizeof nop);
	put(w, &id, 4);
	return at;
}

/* The address that the call which ends at `call` takes. */
static void put_entry(struct writer *w, size_t call, void (*entry)(void))
{
	int32_t rel = (int32_t)(w->c->size - call);
	uintptr_t to = (uintptr_t)entry;

	memcpy(w->c->bytes + call - 4, &rel, 4);
	put(w, &to, 8);
}

static int put_jump(struct writer *w, uintptr_t to, const char **why)
{
	intptr_t rel = (intptr_t)(to - (w->at + w->c->size + 5));
	int32_t rel32 = (int32_t)rel;
	uint8_t op = 0xe9;

	if (rel != rel32) {
		*why = "the way back from where its code would be is too far";
		return -ERANGE;
	}
	put(w, &op, 1);
	put(w, &rel32, 4);
	return 0;
}

static int put_moved(struct writer *w, const struct shunt_insn *insn, const uint8_t *bytes,
	const char **why)
{
	uint8_t moved[SHUNT_INSN_MOVED_MAX];
	int n = shunt_insn_move(insn, bytes, w->at + w->c->size, moved, why);

	if (n < 0)
		return n;
	put(w, moved, (size_t)n);
	return 0;
}

int shunt_detour_make(const struct shunt_detour_plan *plan, uintptr_t at,
	struct shunt_detour_code *code, const char **why)
{
	const struct shunt_place *p = plan->place;
	bool vec = plan->flags & SHUNT_HOOK_VEC, goes_on = true;
	struct writer w = {.c = code, .at = at};
	size_t before, behind = 0;
	int r;

	code->size = 0;
	before = put_call(&w, p->id);
	code->tail = SHUNT_DETOUR_CALL - 7;
	code->behind = 0;
	for (size_t off = 0; off < plan->span;) {
		struct shunt_insn insn;

		r = shunt_insn_decode(p->text.old + off, plan->span - off, p->addr + off, &insn);
		if (!r)
			r = put_moved(&w, &insn, p->text.old + off, why);
		if (r)
			return r;
		goes_on = shunt_insn_goes_on(&insn);
		if (!off && (plan->flags & SHUNT_HOOK_POST))
			behind = put_call(&w, p->id);
		/* Whoever is in a handler behind it, of an earlier detour, comes here. */
		if (!off)
			code->behind = (uint16_t)(behind ? behind : code->size);
		off += insn.len;
	}
	r = goes_on ? put_jump(&w, p->addr + plan->span, why) : 0;
	if (r)
		return r;
	while (code->size & 7)
		put(&w, "\xcc", 1);
	put_entry(&w, before, vec ? shunt_probe_before_vec : shunt_probe_before_gpr);
	if (behind)
		put_entry(&w, behind, vec ? shunt_probe_behind_vec : shunt_probe_behind_gpr);
	return 0;
}

static void release(struct shunt_rcu_head *head)
{
	struct shunt_detour *d = (struct shunt_detour *)head, **at;

	shunt_probes_lock();
	for (at = &d->place->retired; *at != d; at = &(*at)->older)
		;
	*at = d->older;
	shunt_probes_unlock();
	if (d->window)
		shunt_window_free(&d->zone);
	else
		shunt_code_release(d->zone.start, d->zone.end);
	free(d);
}

void shunt_detour_retire(struct shunt_detour *d)
{
	int r = 0;

	if (!d)
		return;
	r = shunt_call_rcu_tasks(&d->head, &d->zone, release);
	if (r)
		shunt_log(SHUNT_LOG_WARNING, "a probe's code is kept for good: error %d", -r);
}
