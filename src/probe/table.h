/* SPDX-License-Identifier: MIT */
/*
 * table.h - where a switch jumps to: the table of a jump whose index is compared with
 * the number of entries right before, as gcc and clang write it.
 */
#ifndef SHUNT_PROBE_TABLE_H
#define SHUNT_PROBE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHUNT_TABLE_RUN 24 /* instructions that are looked at */

/* An instruction of a run: each is executed right after the one before. */
struct shunt_run {
	const uint8_t *bytes;
	uint8_t len;
	uintptr_t at;
};

struct shunt_table {
	uintptr_t at;	/* where it is */
	uintptr_t base; /* what is added to an entry */
	size_t n;
	uint8_t size;	/* of an entry: 4, with a sign, or 8 */
	uintptr_t from; /* it is so if nothing leads behind this one of the run */
};

/*
 * The table of the jump that ends the run. False if it does not read one, or may
 * read it out of bounds: every step must be there. Any context.
 */
bool shunt_table_find(const struct shunt_run *run, size_t n, struct shunt_table *t);

#endif
