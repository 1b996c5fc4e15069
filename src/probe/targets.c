/* SPDX-License-Identifier: MIT */
/*
 * targets.c - where the branches of a whole object lead.
 *
 * Compilers let a function jump to another only at its start. Handwritten code
 * does not: glibc's mempcpy() jumps into memcpy(), three bytes behind its start.
 * So that nobody jumps between two instructions is known only when the branches of
 * all functions are.
 *
 * One bit for each byte of text: a branch leads there. Text in functions is
 * decoded; bytes that are no instruction, and the bytes between functions, are
 * looked at as if a branch began at each of them. That finds too many, never
 * too few.
 */
#include <stdlib.h>
#include <string.h>

#include "object/code.h"
#include "probe/insn.h"
#include "probe/place.h"
#include "probe/targets.h"

struct targets {
	struct targets *next;
	const struct shunt_object *obj;
	uintptr_t lo, hi;
	uint8_t bits[];
};

static struct targets *all;

static void mark(struct targets *t, uintptr_t target)
{
	uintptr_t off = target - t->lo;

	if (off < t->hi - t->lo)
		t->bits[off / 8] |= (uint8_t)(1u << off % 8);
}

/* As if any of the bytes began a branch; those of one may end behind them. */
static void mark_all(struct targets *t, const uint8_t *bytes, uintptr_t lo, uintptr_t hi)
{
	for (uintptr_t addr = lo; addr < hi; addr++) {
		const uint8_t *b = bytes + (addr - lo);
		size_t n = hi - addr;
		int32_t rel;

		if (n >= 2 && ((b[0] & 0xf0) == 0x70 || b[0] == 0xeb || (b[0] & 0xfc) == 0xe0))
			mark(t, addr + 2 + (uintptr_t)(intptr_t)(int8_t)b[1]);
		if (n >= 5 && (b[0] == 0xe8 || b[0] == 0xe9)) {
			memcpy(&rel, b + 1, 4);
			mark(t, addr + 5 + (uintptr_t)(intptr_t)rel);
		}
		if (n >= 6 && ((b[0] == 0x0f && (b[1] & 0xf0) == 0x80) || (b[0] == 0xc7 && b[1] == 0xf8))) {
			memcpy(&rel, b + 2, 4);
			mark(t, addr + 6 + (uintptr_t)(intptr_t)rel);
		}
	}
}

static void mark_function(struct targets *t, const uint8_t *bytes, uintptr_t lo, uintptr_t hi)
{
	struct shunt_insn insn;

	for (uintptr_t addr = lo; addr < hi; addr += insn.len) {
		if (shunt_insn_decode(bytes + (addr - lo), hi - addr, addr, &insn)) {
			mark_all(t, bytes + (addr - lo), addr, hi);
			return;
		}
		if (insn.target)
			mark(t, insn.target);
	}
}

static void mark_object(struct targets *t, const struct shunt_code_list *list, uint8_t *bytes)
{
	uintptr_t done = t->lo;

	shunt_place_read(t->lo, bytes, t->hi - t->lo);
	for (uint32_t i = 0; i < list->nfuncs; i++) {
		uintptr_t lo = list->funcs[i].start, hi = lo + list->funcs[i].size;

		if (lo < t->lo || hi > t->hi)
			continue;
		if (lo > done)
			mark_all(t, bytes + (done - t->lo), done, lo);
		mark_function(t, bytes + (lo - t->lo), lo, hi);
		if (hi > done)
			done = hi;
	}
	mark_all(t, bytes + (done - t->lo), done, t->hi);
}

static struct targets *make(struct shunt_object *obj)
{
	size_t n = obj->text_hi - obj->text_lo;
	const struct shunt_code_list *list;
	struct targets *t = calloc(1, sizeof *t + n / 8 + 1);
	uint8_t *bytes = malloc(n);

	if (!t || !bytes || shunt_code_of(obj, &list)) {
		free(t);
		free(bytes);
		return NULL;
	}
	t->obj = obj;
	t->lo = obj->text_lo;
	t->hi = obj->text_hi;
	mark_object(t, list, bytes);
	free(bytes);
	t->next = all;
	all = t;
	return t;
}

bool shunt_targets_none(struct shunt_object *obj, uintptr_t lo, uintptr_t hi)
{
	const struct targets *t = all;

	while (t && t->obj != obj)
		t = t->next;
	if (!t)
		t = make(obj);
	if (!t || lo < t->lo || hi > t->hi)
		return false;
	for (uintptr_t off = lo - t->lo; off < hi - t->lo; off++)
		if (t->bits[off / 8] >> off % 8 & 1)
			return false;
	return true;
}
