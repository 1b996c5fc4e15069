/* SPDX-License-Identifier: MIT */
/*
 * elf_frame.c - .eh_frame and .gcc_except_table: where functions begin and end, how
 * they are entered, and where exceptions land in them.
 *
 * The formats: cfi.h's; the Itanium C++ ABI's exception handling tables
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

#include "cfi.h"
#include "elf_code.h"

#define MAX_INSNS 64

static struct shunt_cursor cursor_at(const struct shunt_elf_bytes *b, uint64_t off, uint64_t len)
{
	struct shunt_cursor c = {.bad = true};

	if (b->at && off <= b->n && len <= b->n - off)
		c = (struct shunt_cursor){b->at + off, b->at + off + len, b->addr + off, false};
	return c;
}

/* Whether it is entered by a call: the return address is on top of the stack. */
static bool is_called(const struct shunt_cie *cie, const struct shunt_fde *fde)
{
	struct shunt_frame f = {0};

	shunt_cfi_run(cie->insns, cie, 0, MAX_INSNS, &f);
	shunt_cfi_run(fde->insns, cie, 0, MAX_INSNS, &f);
	return f.ra && f.known && f.reg == SHUNT_CFI_RSP && f.off == 8;
}

/* --- landing pads ------------------------------------------------------------- */

struct frames {
	struct shunt_elf_code *code;
	const struct shunt_elf_bytes *frames, *lsda;
	size_t budget; /* of call sites */
	struct shunt_cie cie;
	uint64_t cie_off; /* UINT64_MAX: none yet */
};

/* The table of call sites. 1: not understood; -ENOMEM. */
static int read_sites(struct frames *x, struct shunt_cursor c, uint8_t enc, uint64_t base)
{
	while (c.p < c.end) {
		uint64_t pad;
		int err;

		if (!x->budget)
			return 1;
		x->budget--;
		shunt_cursor_raw(&c, enc);
		shunt_cursor_raw(&c, enc);
		pad = shunt_cursor_raw(&c, enc);
		shunt_cursor_uleb(&c);
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
	struct shunt_cursor c;
	uint8_t enc;

	if (!x->lsda->at || at < x->lsda->addr || off >= x->lsda->n)
		return 1;
	c = cursor_at(x->lsda, off, x->lsda->n - off);
	enc = (uint8_t)shunt_cursor_fixed(&c, 1);
	if (enc != SHUNT_CFI_OMIT)
		base = shunt_cursor_pointer(&c, enc);
	if ((uint8_t)shunt_cursor_fixed(&c, 1) != SHUNT_CFI_OMIT)
		shunt_cursor_uleb(&c); /* where the types are */
	enc = (uint8_t)shunt_cursor_fixed(&c, 1);
	len = shunt_cursor_uleb(&c);
	if (c.bad || len > (uint64_t)(c.end - c.p) || enc & 0xf0)
		return 1;
	c.end = c.p + len;
	return read_sites(x, c, enc, base);
}

/* --- FDEs --------------------------------------------------------------------- */

/* 1: not understood; -ENOMEM. */
static int read_fde(struct frames *x, struct shunt_cursor c, uint64_t cie_off)
{
	struct shunt_elf_said s = {.flags = SHUNT_CODE_FDE, .rank = SHUNT_CODE_NAMELESS};
	struct shunt_fde fde;
	int err = 0;

	if (x->cie_off != cie_off)
		shunt_cie_read(cursor_at(x->frames, cie_off, x->frames->n - cie_off), &x->cie);
	x->cie_off = cie_off;
	if (!x->cie.ok || !shunt_fde_read(c, &x->cie, &fde))
		return 1;
	/* A signal's begins one byte before the code, for the unwinder's sake. */
	if (!fde.start || x->cie.signal)
		return 0;
	s.addr = fde.start;
	s.size = fde.size;
	if (!is_called(&x->cie, &fde))
		s.flags |= SHUNT_CODE_NOT_CALLED;
	if (fde.lsda && shunt_elf_part_of(x->code, s.addr))
		err = read_lsda(x, fde.lsda, s.addr);
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
	struct frames x = {code, frames, lsda, lsda->n / 4 + 1, {0}, UINT64_MAX};
	struct shunt_cursor all = cursor_at(frames, 0, frames->n);

	while (all.end - all.p >= 4) {
		struct shunt_cursor c;
		uint64_t id, at;
		bool wide;
		int err;

		if (!shunt_cfi_record(&all, &c, &wide)) {
			code->bad_frames++;
			break;
		}
		if (c.p == c.end) /* the terminator, which linkers also leave in the middle */
			continue;
		at = (uint64_t)(c.p - frames->at);
		id = shunt_cfi_id(&c, wide);
		if (!c.bad && !id)
			continue; /* a CIE */
		err = c.bad || id > at ? 1 : read_fde(&x, c, at - id);
		if (err < 0)
			return err;
		code->bad_frames += (uint32_t)err;
	}
	return 0;
}
