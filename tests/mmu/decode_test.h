/* SPDX-License-Identifier: MIT */
/* decode_test.h - what the tests of decode.c share: a call, and the ranges that are expected of it. */
#ifndef DECODE_TEST_H
#define DECODE_TEST_H

#include <stdio.h>
#include <string.h>

#include "mmu/area.h"
#include "tap.h"

#define UNMAP	SHUNT_MMU_UNMAP
#define REMAP	SHUNT_MMU_REMAP
#define PROTECT SHUNT_MMU_PROTECT
#define DISCARD SHUNT_MMU_DISCARD
#define TOP	SHUNT_MMU_TOP
#define FIXED	(MREMAP_FIXED | MREMAP_MAYMOVE)

static struct shunt_mmu_range got[SHUNT_MMU_RANGES]; /* by the last decode() */

static inline unsigned decode(long nr, const long a[6])
{
	struct shunt_mmu_call c = {.nr = nr};

	memcpy(c.a, a, sizeof(c.a));
	memset(got, 0xa5, sizeof(got));
	return shunt_mmu_decode(&c, got);
}

static inline bool same(const struct shunt_mmu_range *a, const struct shunt_mmu_range *b)
{
	return a->start == b->start && a->end == b->end && a->new_start == b->new_start &&
	       a->kind == b->kind;
}

/* In any order. */
__attribute__((unused)) static bool expect(const char *name, long nr, const long a[6], unsigned n,
	const struct shunt_mmu_range *want)
{
	unsigned found = decode(nr, a), i, j, hits = 0;

	for (i = 0; i < n; i++)
		for (j = 0; j < found; j++)
			hits += same(&want[i], &got[j]);
	if (found != n || hits != n)
		for (j = 0; j < found; j++)
			diag("has %lx-%lx to %lx kind %u", got[j].start, got[j].end,
				got[j].new_start, got[j].kind);
	return ok(found == n && hits == n, "%s", name);
}

#endif
