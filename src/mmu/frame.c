/* SPDX-License-Identifier: MIT */
/*
 * frame.c - where a function keeps its return address at some instruction, from the tables
 * that unwinders use, as they are loaded.
 *
 * The tables are those of code that is running, and the loader's and the unwinder's already rely on them: where
 * they end is not asked, a record is read by its own length. What is not in the form that all linkers write gives
 * SHUNT_MMU_NO_FRAME. The search table's form: Linux Standard Base 5.0, Core, 10.6.2.
 */
#include <dlfcn.h>
#include <limits.h>
#include <string.h>

#include "mmu/sites.h"
#include "object/cfi.h"

/* glibc 2.35; asks no lock of the loader's. */
#pragma weak _dl_find_object

/* The description of the function that may hold pc. NULL: none. */
static const uint8_t *find(const uint8_t *hdr, uintptr_t pc)
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
	return hdr + row[1];
}

static struct shunt_cursor from(const uint8_t *at)
{
	return (struct shunt_cursor){at, (const uint8_t *)INTPTR_MAX, (uintptr_t)at, false};
}

static bool read_fde(const uint8_t *at, struct shunt_cie *cie, struct shunt_fde *fde)
{
	struct shunt_cursor c = from(at), record;
	bool wide;

	if (!shunt_cfi_record(&c, &record, &wide))
		return false;
	at = record.p;
	at -= shunt_cfi_id(&record, wide);
	if (record.bad)
		return false;
	shunt_cie_read(from(at), cie);
	return cie->ok && shunt_fde_read(record, cie, fde);
}

uint32_t shunt_mmu_frame_in(uintptr_t pc, const uint8_t *hdr)
{
	const uint8_t *at = find(hdr, pc);
	struct shunt_frame f = {0};
	struct shunt_cie cie;
	struct shunt_fde fde;

	if (!at || !read_fde(at, &cie, &fde) || pc - fde.start >= fde.size)
		return SHUNT_MMU_NO_FRAME;
	if (!shunt_cfi_run(cie.insns, &cie, 0, UINT_MAX, &f) ||
		!shunt_cfi_run(fde.insns, &cie, pc - fde.start, UINT_MAX, &f))
		return SHUNT_MMU_NO_FRAME;
	if (!f.known || !f.ra || f.reg != SHUNT_CFI_RSP || f.off < 8 || f.off > 1 << 20)
		return SHUNT_MMU_NO_FRAME;
	return (uint32_t)f.off - 8;
}

uint32_t shunt_mmu_frame_at(uintptr_t pc)
{
	struct dl_find_object o;

	if (!_dl_find_object || _dl_find_object((void *)pc, &o) || !o.dlfo_eh_frame)
		return SHUNT_MMU_NO_FRAME;
	return shunt_mmu_frame_in(pc, o.dlfo_eh_frame);
}
