/* SPDX-License-Identifier: MIT */
/*
 * elf_frame.c - .eh_frame and .gcc_except_table: where functions begin and end, how
 * they are entered, and where exceptions land in them.
 *
 * The formats: Linux Standard Base 5.0, Core, 10.6 (exception frames); DWARF 4, 6.4
 * and 7.23 (call frame instructions); the Itanium C++ ABI's exception handling tables
 * for the table of call sites.
 *
 * .eh_frame is walked from its first byte to its last rather than through the search
 * table of .eh_frame_hdr: every description is needed anyway, and the table may be
 * missing. A description's length leads to the next one also where it is not understood.
 *
 * Bounded: a record is looked at once, of its instructions the first few (those
 * before the function's first instruction), of the CIE that it names the same. A
 * damaged file may have many functions share one table of call sites: more
 * entries than the section has room for are not read.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "elf_code.h"

#define MAX_INSNS 64
#define RSP	  7
#define RA	  16
#define OMIT	  0xff

/* --- bytes ------------------------------------------------------------------ */

struct cursor {
	const uint8_t *p, *end;
	uint64_t addr; /* of p */
	bool bad;      /* read over the end */
};

static struct cursor cursor_at(const struct shunt_elf_bytes *b, uint64_t off, uint64_t len)
{
	struct cursor c = {.bad = true};

	if (off <= b->n && len <= b->n - off)
		c = (struct cursor){b->at + off, b->at + off + len, b->addr + off, false};
	return c;
}

static const uint8_t *take(struct cursor *c, uint64_t n)
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

static uint64_t fixed(struct cursor *c, unsigned n)
{
	const uint8_t *p = take(c, n);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, n); /* little endian, as the machine is */
	return v;
}

static int64_t fixed_signed(struct cursor *c, unsigned n)
{
	unsigned shift = 64 - 8 * n;

	return (int64_t)(fixed(c, n) << shift) >> shift;
}

/* Numbers of more than 64 bits are none. */
static uint64_t uleb(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint64_t b = fixed(c, 1);

		v |= (b & 127) << shift;
		if (!(b & 128))
			return v;
	}
	c->bad = true;
	return 0;
}

static int64_t sleb(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64;) {
		uint64_t b = fixed(c, 1);

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

static uint64_t raw_pointer(struct cursor *c, uint8_t enc)
{
	switch (enc & 0x0f) {
	case 0x00:
	case 0x04:
	case 0x0c:
		return fixed(c, 8);
	case 0x01:
		return uleb(c);
	case 0x02:
		return fixed(c, 2);
	case 0x03:
		return fixed(c, 4);
	case 0x09:
		return (uint64_t)sleb(c);
	case 0x0a:
		return (uint64_t)fixed_signed(c, 2);
	case 0x0b:
		return (uint64_t)fixed_signed(c, 4);
	}
	c->bad = true;
	return 0;
}

/* An address: absolute or relative to its place. 0 stays 0: there is none. */
static uint64_t pointer(struct cursor *c, uint8_t enc)
{
	uint64_t at = c->addr, v = raw_pointer(c, enc);

	if ((enc & 0xf0) != 0x00 && (enc & 0xf0) != 0x10)
		c->bad = true;
	return v && (enc & 0x70) == 0x10 ? at + v : v;
}

/* --- CIEs ------------------------------------------------------------------- */

struct cie {
	uint64_t off; /* UINT64_MAX: none yet */
	bool ok, augmented, signal;
	uint8_t pointers, lsda; /* encodings */
	int64_t data_align;
	struct cursor insns;
};

static void read_augmentation(struct cursor *c, const char *aug, struct cie *cie)
{
	uint64_t len;
	struct cursor data;

	if (*aug != 'z') {
		cie->ok = !*aug;
		return;
	}
	len = uleb(c);
	data = *c;
	if (!take(c, len)) {
		cie->ok = false;
		return;
	}
	data.end = data.bad ? data.end : data.p + len;
	cie->augmented = true;
	for (aug++; *aug && cie->ok; aug++) {
		uint8_t enc;

		switch (*aug) {
		case 'L':
			cie->lsda = (uint8_t)fixed(&data, 1);
			break;
		case 'R':
			cie->pointers = (uint8_t)fixed(&data, 1);
			break;
		case 'P':
			enc = (uint8_t)fixed(&data, 1);
			if (enc != OMIT)
				raw_pointer(&data, enc);
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

static const char *augmentation(struct cursor *c)
{
	const char *s = (const char *)c->p;
	const void *end = c->bad ? NULL : memchr(s, 0, (size_t)(c->end - c->p) < 16
		? (size_t)(c->end - c->p) : 16);

	if (!end) {
		c->bad = true;
		return "";
	}
	take(c, (uint64_t)((const char *)end - s) + 1);
	return s;
}

/* A record: what is behind its length, and the offset of the next one. */
static bool record(const struct shunt_elf_bytes *b, uint64_t *off, struct cursor *c, bool *wide)
{
	struct cursor head = cursor_at(b, *off, b->n - *off);
	uint64_t len = fixed(&head, 4);

	*wide = len == UINT32_MAX;
	if (*wide)
		len = fixed(&head, 8);
	*c = head;
	if (!take(&head, len))
		return false;
	c->end = c->p + len;
	*off = (uint64_t)(head.p - b->at);
	return true;
}

static void read_cie(const struct shunt_elf_bytes *b, uint64_t off, struct cie *cie)
{
	uint64_t next = off;
	struct cursor c;
	const char *aug;
	uint8_t version;
	bool wide;

	*cie = (struct cie){.off = off, .ok = true, .lsda = OMIT};
	if (off >= b->n || !record(b, &next, &c, &wide) || fixed(&c, wide ? 8 : 4)) {
		cie->ok = false;
		return;
	}
	version = (uint8_t)fixed(&c, 1);
	aug = augmentation(&c);
	if (version == 4)
		fixed(&c, 2); /* sizes of an address and a segment */
	uleb(&c);
	cie->data_align = sleb(&c);
	if (version == 1)
		fixed(&c, 1);
	else
		uleb(&c);
	read_augmentation(&c, aug, cie);
	cie->insns = c;
	cie->ok &= !c.bad && (version == 1 || version == 3 || version == 4);
}

/* --- how a function is entered ----------------------------------------------- */

/* The state before the first instruction. */
struct entry {
	uint64_t reg, off; /* the frame's address is that register plus off */
	bool expression;
	bool ra; /* the return address is where a call puts it */
};

static void skip_block(struct cursor *c)
{
	take(c, uleb(c));
}

static void saved(struct entry *e, uint64_t reg, bool as_called)
{
	if (reg == RA)
		e->ra = as_called;
}

/* At `factor` times the alignment from the frame's address: a call puts it at -8. */
static void saved_at(struct entry *e, uint64_t reg, uint64_t factor, int64_t align)
{
	saved(e, reg, factor * (uint64_t)align == (uint64_t)-8);
}

/* One instruction. False: the code goes on, or it is not known. */
static bool step(struct cursor *c, int64_t align, struct entry *e)
{
	uint8_t op = (uint8_t)fixed(c, 1);
	uint64_t reg;

	if (c->bad)
		return false;
	switch (op & 0xc0) {
	case 0x40: /* advance_loc */
		return !(op & 0x3f);
	case 0x80: /* offset */
		saved_at(e, op & 0x3f, uleb(c), align);
		return true;
	case 0xc0: /* restore */
		return true;
	}
	switch (op) {
	case 0x00: /* nop */
	case 0x0a: /* remember_state */
		return true;
	case 0x05: /* offset_extended */
		reg = uleb(c);
		saved_at(e, reg, uleb(c), align);
		return true;
	case 0x07: /* undefined */
		saved(e, uleb(c), false);
		return true;
	case 0x06: /* restore_extended */
	case 0x08: /* same_value */
	case 0x2e: /* GNU_args_size */
		uleb(c);
		return true;
	case 0x09: /* register */
	case 0x14: /* val_offset */
		saved(e, uleb(c), false);
		uleb(c);
		return true;
	case 0x0c: /* def_cfa */
		e->reg = uleb(c);
		e->off = uleb(c);
		e->expression = false;
		return true;
	case 0x0d: /* def_cfa_register */
		e->reg = uleb(c);
		return true;
	case 0x0e: /* def_cfa_offset */
		e->off = uleb(c);
		return true;
	case 0x0f: /* def_cfa_expression */
		e->expression = true;
		skip_block(c);
		return true;
	case 0x10: /* expression */
	case 0x16: /* val_expression */
		saved(e, uleb(c), false);
		skip_block(c);
		return true;
	}
	return false;
}

static void run(struct cursor c, int64_t align, struct entry *e)
{
	for (unsigned i = 0; i < MAX_INSNS && c.p < c.end && step(&c, align, e); i++)
		;
}

/* Whether it is entered by a call: the return address is on top of the stack. */
static bool is_called(const struct cie *cie, const struct cursor *insns)
{
	struct entry e = {0};

	run(cie->insns, cie->data_align, &e);
	run(*insns, cie->data_align, &e);
	return e.ra && !e.expression && e.reg == RSP && e.off == 8;
}

/* --- landing pads ------------------------------------------------------------- */

struct frames {
	struct shunt_elf_code *code;
	const struct shunt_elf_bytes *frames, *lsda;
	size_t budget; /* of call sites */
	struct cie cie;
};

/* The table of call sites. 1: not understood; -ENOMEM. */
static int read_sites(struct frames *x, struct cursor c, uint8_t enc, uint64_t base)
{
	while (c.p < c.end) {
		uint64_t pad;
		int err;

		if (!x->budget)
			return 1;
		x->budget--;
		raw_pointer(&c, enc);
		raw_pointer(&c, enc);
		pad = raw_pointer(&c, enc);
		uleb(&c);
		if (c.bad || (pad && !shunt_elf_part_of(x->code, base + pad)))
			return 1;
		err = pad ? shunt_elf_code_pad(x->code, base + pad) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* The pads of the function at `start`. 1: not understood; -ENOMEM. */
static int read_lsda(struct frames *x, uint64_t at, uint64_t start)
{
	uint64_t off = at - x->lsda->addr, base = start, len;
	struct cursor c;
	uint8_t enc;

	if (!x->lsda->at || at < x->lsda->addr || off >= x->lsda->n)
		return 1;
	c = cursor_at(x->lsda, off, x->lsda->n - off);
	enc = (uint8_t)fixed(&c, 1);
	if (enc != OMIT)
		base = pointer(&c, enc);
	if ((uint8_t)fixed(&c, 1) != OMIT)
		uleb(&c); /* where the types are */
	enc = (uint8_t)fixed(&c, 1);
	len = uleb(&c);
	if (c.bad || len > (uint64_t)(c.end - c.p) || enc & 0xf0)
		return 1;
	c.end = c.p + len;
	return read_sites(x, c, enc, base);
}

/* --- FDEs --------------------------------------------------------------------- */

/* 1: not understood; -ENOMEM. */
static int read_fde(struct frames *x, struct cursor c, uint64_t cie_off)
{
	struct shunt_elf_said s = {.flags = SHUNT_CODE_FDE, .rank = SHUNT_CODE_NAMELESS};
	uint64_t lsda = 0;
	struct cie *cie = &x->cie;
	int err = 0;

	if (cie->off != cie_off)
		read_cie(x->frames, cie_off, cie);
	if (!cie->ok)
		return 1;
	s.addr = pointer(&c, cie->pointers);
	s.size = raw_pointer(&c, cie->pointers & 0x0f);
	if (cie->augmented) {
		uint64_t len = uleb(&c);
		struct cursor data = c;

		if (!take(&c, len))
			return 1;
		data.end = data.p + len;
		if (cie->lsda != OMIT)
			lsda = pointer(&data, cie->lsda);
		c.bad |= data.bad;
	}
	if (c.bad || !s.addr)
		return c.bad;
	if (cie->signal) /* begins one byte before the code, for the unwinder's sake */
		return 0;
	if (!is_called(cie, &c))
		s.flags |= SHUNT_CODE_NOT_CALLED;
	if (lsda && shunt_elf_part_of(x->code, s.addr))
		err = read_lsda(x, lsda, s.addr);
	if (err > 0) {
		x->code->bad_pads++;
		s.flags |= SHUNT_CODE_PADS_UNKNOWN;
	}
	return err < 0 ? err : shunt_elf_code_say(x->code, s);
}

int shunt_elf_frames(struct shunt_elf_code *code, const struct shunt_elf_bytes *frames,
	const struct shunt_elf_bytes *lsda)
{
	/* A call site takes 4 bytes at least. */
	struct frames x = {code, frames, lsda, lsda->n / 4 + 1, {.off = UINT64_MAX}};
	uint64_t off = 0;

	while (off + 4 <= frames->n) {
		struct cursor c;
		uint64_t id, at;
		bool wide;
		int err;

		if (!record(frames, &off, &c, &wide)) {
			code->bad_frames++;
			break;
		}
		if (c.p == c.end) /* the terminator, which linkers also leave in the middle */
			continue;
		at = (uint64_t)(c.p - frames->at);
		id = fixed(&c, wide ? 8 : 4);
		if (!c.bad && !id)
			continue; /* a CIE */
		err = c.bad || id > at ? 1 : read_fde(&x, c, at - id);
		if (err < 0)
			return err;
		code->bad_frames += (uint32_t)err;
	}
	return 0;
}
