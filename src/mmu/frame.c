/* SPDX-License-Identifier: MIT */
/*
 * frame.c - where a function keeps its return address at some instruction, from the tables
 * that unwinders use, as they are loaded.
 *
 * The formats: Linux Standard Base 5.0, Core, 10.6; DWARF 4, 6.4. The tables are those of code
 * that is running, and the loader's and the unwinder's already rely on them; still, every loop here is
 * bounded by the record's own length. What is not in the form that all linkers write gives
 * SHUNT_MMU_NO_FRAME.
 */
#include <dlfcn.h>
#include <string.h>

#include "mmu/sites.h"

#define RSP    7
#define RA     16
#define STATES 8

/* glibc 2.35; asks no lock of the loader's. */
#pragma weak _dl_find_object

struct bytes {
	const uint8_t *p, *end;
	bool bad;
};

struct state {
	uint64_t reg, off;
	bool known; /* the frame's address is a register plus an offset */
	bool ra;    /* the return address is where a call puts it */
};

static uint64_t take(struct bytes *b, unsigned n)
{
	uint64_t v = 0;

	if ((size_t)(b->end - b->p) < n) {
		b->bad = true;
		b->p = b->end;
		return 0;
	}
	memcpy(&v, b->p, n);
	b->p += n;
	return v;
}

static uint64_t uleb(struct bytes *b)
{
	uint64_t v = 0, c;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		c = take(b, 1);
		v |= (c & 127) << shift;
		if (!(c & 128))
			return v;
	}
	b->bad = true;
	return 0;
}

static int64_t sleb(struct bytes *b)
{
	uint64_t v = 0, c = 128;
	unsigned shift = 0;

	for (; c & 128 && shift < 64; shift += 7) {
		c = take(b, 1);
		v |= (c & 127) << shift;
	}
	if (c & 64 && shift < 64)
		v |= ~0ull << shift;
	return (int64_t)v;
}

static struct bytes record(const uint8_t *at)
{
	uint32_t len;

	memcpy(&len, at, 4);
	return (struct bytes){at + 4, at + 4 + len, len == 0 || len == UINT32_MAX};
}

struct cie {
	struct bytes insns;
	uint64_t code_align;
	int64_t data_align;
};

/* Only pointers as linkers sort them: four bytes, relative to their place. */
static bool read_cie(const uint8_t *at, struct cie *c)
{
	struct bytes b = record(at), data;
	const char *aug;
	uint64_t version, len;

	take(&b, 4);
	version = take(&b, 1);
	aug = (const char *)b.p;
	while (!b.bad && take(&b, 1))
		;
	c->code_align = uleb(&b);
	c->data_align = sleb(&b);
	if (version == 1)
		take(&b, 1);
	else
		uleb(&b);
	if (b.bad || *aug != 'z')
		return false;
	len = uleb(&b);
	data = b;
	if (b.bad || len > (uint64_t)(b.end - b.p))
		return false;
	b.p += len;
	for (aug++; *aug; aug++) {
		uint64_t enc;

		if (*aug == 'S')
			continue;
		enc = take(&data, 1);
		if (*aug == 'R' && enc != 0x1b)
			return false;
		if (*aug == 'P')
			take(&data, (enc & 15) == 0 || (enc & 15) == 4 ? 8 : 4);
		else if (*aug != 'R' && *aug != 'L')
			return false;
	}
	c->insns = b;
	return !data.bad;
}

/* The description of the function that holds pc; its start. NULL: none. */
static const uint8_t *find(const uint8_t *hdr, uintptr_t pc, uintptr_t *start)
{
	int32_t row[2];
	uint32_t n, lo = 0, hi;

	if (memcmp(hdr, "\x01\x1b\x03\x3b", 4))
		return NULL;
	memcpy(&n, hdr + 8, 4);
	for (hi = n; lo < hi;) {
		uint32_t mid = lo + (hi - lo) / 2;

		memcpy(row, hdr + 12 + 8 * (size_t)mid, 8);
		if ((uintptr_t)hdr + (uintptr_t)(intptr_t)row[0] <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	memcpy(row, hdr + 12 + 8 * (size_t)(lo - 1), 8);
	*start = (uintptr_t)hdr + (uintptr_t)(intptr_t)row[0];
	return hdr + row[1];
}

static void skip_block(struct bytes *b)
{
	uint64_t n = uleb(b);

	if (n > (uint64_t)(b->end - b->p))
		b->bad = true;
	else
		b->p += n;
}

struct run {
	const struct cie *cie;
	struct state now, kept[STATES];
	unsigned nkept;
	uint64_t at, pc; /* relative to the function's start */
};

static void saved(struct run *r, uint64_t reg, bool as_called)
{
	if (reg == RA)
		r->now.ra = as_called;
}

/* Instructions that say where something is. False: not known. */
static bool rule(struct run *r, struct bytes *b, uint8_t op)
{
	uint64_t reg;

	switch (op) {
	case 0x05: /* offset_extended */
		reg = uleb(b);
		saved(r, reg, (int64_t)uleb(b) * r->cie->data_align == -8);
		return true;
	case 0x06: /* restore_extended */
	case 0x08: /* same_value */
	case 0x2e: /* GNU_args_size */
		uleb(b);
		return true;
	case 0x07: /* undefined */
		saved(r, uleb(b), false);
		return true;
	case 0x09: /* register */
		saved(r, uleb(b), false);
		uleb(b);
		return true;
	case 0x0c: /* def_cfa */
		r->now.reg = uleb(b);
		r->now.off = uleb(b);
		r->now.known = true;
		return true;
	case 0x0d: /* def_cfa_register */
		r->now.reg = uleb(b);
		return true;
	case 0x0e: /* def_cfa_offset */
		r->now.off = uleb(b);
		return true;
	case 0x0f: /* def_cfa_expression */
		r->now.known = false;
		skip_block(b);
		return true;
	case 0x10: /* expression */
	case 0x16: /* val_expression */
		saved(r, uleb(b), false);
		skip_block(b);
		return true;
	}
	return false;
}

static bool state(struct run *r, uint8_t op)
{
	if (op == 0x0a && r->nkept < STATES) /* remember_state */
		r->kept[r->nkept++] = r->now;
	else if (op == 0x0b && r->nkept) /* restore_state */
		r->now = r->kept[--r->nkept];
	else
		return !op; /* nop */
	return true;
}

/* False: not understood. Stops at the first that is for instructions behind pc. */
static bool run(struct run *r, struct bytes b)
{
	while (b.p < b.end && !b.bad && r->at <= r->pc) {
		uint8_t op = (uint8_t)take(&b, 1);

		if (op >> 6 == 1) { /* advance_loc */
			r->at += (op & 63) * r->cie->code_align;
		} else if (op >> 6 == 2) { /* offset */
			saved(r, op & 63, (int64_t)uleb(&b) * r->cie->data_align == -8);
		} else if (op >= 2 && op <= 4) { /* advance_loc1, 2, 4 */
			r->at += take(&b, 1u << (op - 2)) * r->cie->code_align;
		} else if (op >> 6 != 3 && !rule(r, &b, op) && !state(r, op)) {
			return false;
		}
	}
	return !b.bad;
}

uint32_t shunt_mmu_frame_in(uintptr_t pc, const uint8_t *hdr)
{
	struct cie cie = {0};
	struct run r = {.cie = &cie};
	const uint8_t *at, *back;
	struct bytes b;
	uintptr_t start;
	uint64_t size;

	at = find(hdr, pc, &start);
	if (!at)
		return SHUNT_MMU_NO_FRAME;
	b = record(at);
	back = b.p;
	if (b.bad || !read_cie(back - take(&b, 4), &cie))
		return SHUNT_MMU_NO_FRAME;
	take(&b, 4);
	size = take(&b, 4);
	skip_block(&b);
	if (b.bad || pc - start >= size)
		return SHUNT_MMU_NO_FRAME;
	if (!run(&r, cie.insns))
		return SHUNT_MMU_NO_FRAME;
	r.pc = pc - start;
	r.at = 0;
	if (!run(&r, b) || !r.now.known || !r.now.ra || r.now.reg != RSP || r.now.off < 8 ||
		r.now.off > 1 << 20)
		return SHUNT_MMU_NO_FRAME;
	return (uint32_t)r.now.off - 8;
}

uint32_t shunt_mmu_frame_at(uintptr_t pc)
{
	struct dl_find_object o;

	if (!_dl_find_object || _dl_find_object((void *)pc, &o) || !o.dlfo_eh_frame)
		return SHUNT_MMU_NO_FRAME;
	return shunt_mmu_frame_in(pc, o.dlfo_eh_frame);
}
