/* SPDX-License-Identifier: MIT */
/*
 * cfi.c - see cfi.h.
 *
 * The formats: Linux Standard Base 5.0, Core, 10.6 (exception frames); DWARF 4, 6.4
 * and 7.23 (call frame instructions).
 */
#include <string.h>

#include "object/cfi.h"

#define RA     16
#define STATES 8 /* remembered at a time */

/* --- bytes ------------------------------------------------------------------ */

const uint8_t *shunt_cursor_take(struct shunt_cursor *c, uint64_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || n > (uint64_t)(c->end - c->p)) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	c->addr += n;
	return p;
}

uint64_t shunt_cursor_fixed(struct shunt_cursor *c, unsigned n)
{
	const uint8_t *p = shunt_cursor_take(c, n);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, n); /* little endian, as the machine is */
	return v;
}

static int64_t fixed_signed(struct shunt_cursor *c, unsigned n)
{
	unsigned shift = 64 - 8 * n;

	return (int64_t)(shunt_cursor_fixed(c, n) << shift) >> shift;
}

uint64_t shunt_cursor_uleb(struct shunt_cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint64_t b = shunt_cursor_fixed(c, 1);

		v |= (b & 127) << shift;
		if (!(b & 128))
			return v;
	}
	c->bad = true;
	return 0;
}

int64_t shunt_cursor_sleb(struct shunt_cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64;) {
		uint64_t b = shunt_cursor_fixed(c, 1);

		v |= (b & 127) << shift;
		shift += 7;
		if (b & 128)
			continue;
		if (b & 64 && shift < 64)
			v |= ~0ull << shift;
		return (int64_t)v;
	}
	c->bad = true;
	return 0;
}

uint64_t shunt_cursor_raw(struct shunt_cursor *c, uint8_t enc)
{
	switch (enc & 0x0f) {
	case 0x00:
	case 0x04:
	case 0x0c:
		return shunt_cursor_fixed(c, 8);
	case 0x01:
		return shunt_cursor_uleb(c);
	case 0x02:
		return shunt_cursor_fixed(c, 2);
	case 0x03:
		return shunt_cursor_fixed(c, 4);
	case 0x09:
		return (uint64_t)shunt_cursor_sleb(c);
	case 0x0a:
		return (uint64_t)fixed_signed(c, 2);
	case 0x0b:
		return (uint64_t)fixed_signed(c, 4);
	}
	c->bad = true;
	return 0;
}

uint64_t shunt_cursor_pointer(struct shunt_cursor *c, uint8_t enc)
{
	uint64_t at = c->addr, v = shunt_cursor_raw(c, enc);

	if ((enc & 0xf0) != 0x00 && (enc & 0xf0) != 0x10)
		c->bad = true;
	return v && (enc & 0x70) == 0x10 ? at + v : v;
}

/* --- records ---------------------------------------------------------------- */

bool shunt_cfi_record(struct shunt_cursor *c, struct shunt_cursor *record, bool *wide)
{
	uint64_t len = shunt_cursor_fixed(c, 4);

	*wide = len == UINT32_MAX;
	if (*wide)
		len = shunt_cursor_fixed(c, 8);
	*record = *c;
	if (!shunt_cursor_take(c, len))
		return false;
	record->end = record->p + len;
	return true;
}

uint64_t shunt_cfi_id(struct shunt_cursor *record, bool wide)
{
	return shunt_cursor_fixed(record, wide ? 8 : 4);
}

static void read_augmentation(struct shunt_cursor *c, const char *aug, struct shunt_cie *cie)
{
	uint64_t len;
	struct shunt_cursor data;

	if (*aug != 'z') {
		cie->ok = !*aug;
		return;
	}
	len = shunt_cursor_uleb(c);
	data = *c;
	if (!shunt_cursor_take(c, len)) {
		cie->ok = false;
		return;
	}
	data.end = data.bad ? data.end : data.p + len;
	cie->augmented = true;
	for (aug++; *aug && cie->ok; aug++) {
		uint8_t enc;

		switch (*aug) {
		case 'L':
			cie->lsda = (uint8_t)shunt_cursor_fixed(&data, 1);
			break;
		case 'R':
			cie->pointers = (uint8_t)shunt_cursor_fixed(&data, 1);
			break;
		case 'P':
			enc = (uint8_t)shunt_cursor_fixed(&data, 1);
			if (enc != SHUNT_CFI_OMIT)
				shunt_cursor_raw(&data, enc);
			break;
		case 'S':
			cie->signal = true;
			break;
		default:
			cie->ok = false;
		}
	}
	cie->ok &= !data.bad;
}

static const char *augmentation(struct shunt_cursor *c)
{
	const char *s = (const char *)c->p;
	const void *end = c->bad ? NULL : memchr(s, 0, (size_t)(c->end - c->p) < 16
		? (size_t)(c->end - c->p) : 16);

	if (!end) {
		c->bad = true;
		return "";
	}
	shunt_cursor_take(c, (uint64_t)((const char *)end - s) + 1);
	return s;
}

void shunt_cie_read(struct shunt_cursor at, struct shunt_cie *cie)
{
	struct shunt_cursor c;
	const char *aug;
	uint8_t version;
	bool wide;

	*cie = (struct shunt_cie){.ok = true, .lsda = SHUNT_CFI_OMIT};
	if (!shunt_cfi_record(&at, &c, &wide) || shunt_cfi_id(&c, wide)) {
		cie->ok = false;
		return;
	}
	version = (uint8_t)shunt_cursor_fixed(&c, 1);
	aug = augmentation(&c);
	if (version == 4)
		shunt_cursor_fixed(&c, 2); /* sizes of an address and a segment */
	cie->code_align = shunt_cursor_uleb(&c);
	cie->data_align = shunt_cursor_sleb(&c);
	if (version == 1)
		shunt_cursor_fixed(&c, 1);
	else
		shunt_cursor_uleb(&c);
	read_augmentation(&c, aug, cie);
	cie->insns = c;
	cie->ok &= !c.bad && (version == 1 || version == 3 || version == 4);
}

bool shunt_fde_read(struct shunt_cursor c, const struct shunt_cie *cie, struct shunt_fde *fde)
{
	fde->start = shunt_cursor_pointer(&c, cie->pointers);
	fde->size = shunt_cursor_raw(&c, cie->pointers & 0x0f);
	fde->lsda = 0;
	if (cie->augmented) {
		uint64_t len = shunt_cursor_uleb(&c);
		struct shunt_cursor data = c;

		if (!shunt_cursor_take(&c, len))
			return false;
		data.end = data.p + len;
		if (cie->lsda != SHUNT_CFI_OMIT)
			fde->lsda = shunt_cursor_pointer(&data, cie->lsda);
		c.bad |= data.bad;
	}
	fde->insns = c;
	return !c.bad;
}

/* --- instructions ------------------------------------------------------------ */

struct run {
	struct shunt_cursor c;
	const struct shunt_cie *cie;
	struct shunt_frame *now, kept[STATES];
	unsigned nkept;
	uint64_t at; /* what follows is for code from here on */
};

static void skip_block(struct shunt_cursor *c)
{
	shunt_cursor_take(c, shunt_cursor_uleb(c));
}

static void saved(struct run *r, uint64_t reg, bool as_called)
{
	if (reg == RA)
		r->now->ra = as_called;
}

/* At `factor` times the alignment from the frame's address: a call puts it at -8. */
static void saved_at(struct run *r, uint64_t reg, uint64_t factor)
{
	saved(r, reg, factor * (uint64_t)r->cie->data_align == (uint64_t)-8);
}

/* Those that say where something is. */
static bool rule(struct run *r, uint8_t op)
{
	struct shunt_cursor *c = &r->c;
	uint64_t reg;

	switch (op) {
	case 0x05: /* offset_extended */
		reg = shunt_cursor_uleb(c);
		saved_at(r, reg, shunt_cursor_uleb(c));
		return true;
	case 0x07: /* undefined */
		saved(r, shunt_cursor_uleb(c), false);
		return true;
	case 0x06: /* restore_extended */
	case 0x08: /* same_value */
	case 0x2e: /* GNU_args_size */
		shunt_cursor_uleb(c);
		return true;
	case 0x09: /* register */
	case 0x14: /* val_offset */
		saved(r, shunt_cursor_uleb(c), false);
		shunt_cursor_uleb(c);
		return true;
	case 0x0c: /* def_cfa */
		r->now->reg = shunt_cursor_uleb(c);
		r->now->off = shunt_cursor_uleb(c);
		r->now->known = true;
		return true;
	case 0x0d: /* def_cfa_register */
		r->now->reg = shunt_cursor_uleb(c);
		return true;
	case 0x0e: /* def_cfa_offset */
		r->now->off = shunt_cursor_uleb(c);
		return true;
	case 0x0f: /* def_cfa_expression */
		r->now->known = false;
		skip_block(c);
		return true;
	case 0x10: /* expression */
	case 0x16: /* val_expression */
		saved(r, shunt_cursor_uleb(c), false);
		skip_block(c);
		return true;
	}
	return false;
}

static bool state(struct run *r, uint8_t op)
{
	if (op == 0x0a && r->nkept < STATES) /* remember_state */
		r->kept[r->nkept++] = *r->now;
	else if (op == 0x0b && r->nkept) /* restore_state */
		*r->now = r->kept[--r->nkept];
	else
		return !op; /* nop */
	return true;
}

static bool step(struct run *r)
{
	uint8_t op = (uint8_t)shunt_cursor_fixed(&r->c, 1);

	switch (op >> 6) {
	case 1: /* advance_loc */
		r->at += (op & 63) * r->cie->code_align;
		return true;
	case 2: /* offset */
		saved_at(r, op & 63, shunt_cursor_uleb(&r->c));
		return true;
	case 3: /* restore */
		return true;
	}
	if (op >= 2 && op <= 4) { /* advance_loc1, 2, 4 */
		r->at += shunt_cursor_fixed(&r->c, 1u << (op - 2)) * r->cie->code_align;
		return true;
	}
	return state(r, op) || rule(r, op);
}

bool shunt_cfi_run(struct shunt_cursor insns, const struct shunt_cie *cie, uint64_t pc, unsigned max,
	struct shunt_frame *f)
{
	struct run r = {.c = insns, .cie = cie, .now = f};

	for (; r.c.p < r.c.end && r.at <= pc; max--)
		if (!max || !step(&r) || r.c.bad)
			return false;
	return true;
}
