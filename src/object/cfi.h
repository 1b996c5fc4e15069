/* SPDX-License-Identifier: MIT */
/*
 * cfi.h - what .eh_frame says of functions: where they begin and end, and where, at some instruction of
 * theirs, the return address is.
 *
 * A record is a CIE, what some functions have in common, or an FDE, which is of one function and
 * names its CIE. Both have instructions, which are run one after the other.
 *
 * No byte is trusted, but where a cursor ends: who reads further gets 0, and `bad`.
 */
#ifndef SHUNT_OBJECT_CFI_H
#define SHUNT_OBJECT_CFI_H

#include <stdbool.h>
#include <stdint.h>

#define SHUNT_CFI_RSP  7
#define SHUNT_CFI_OMIT 0xff /* as an encoding: there is none */

struct shunt_cursor {
	const uint8_t *p, *end;
	uint64_t addr; /* of p */
	bool bad;      /* read over the end */
};

/* Steps over n bytes: where they are, or NULL. */
const uint8_t *shunt_cursor_take(struct shunt_cursor *c, uint64_t n);
/* A number of n bytes. */
uint64_t shunt_cursor_fixed(struct shunt_cursor *c, unsigned n);
/* Numbers of more than 64 bits are none. */
uint64_t shunt_cursor_uleb(struct shunt_cursor *c);
int64_t shunt_cursor_sleb(struct shunt_cursor *c);
/* A number in the form of a pointer of this encoding. */
uint64_t shunt_cursor_raw(struct shunt_cursor *c, uint8_t enc);
/* An address: absolute or relative to its place. 0 stays 0: there is none. */
uint64_t shunt_cursor_pointer(struct shunt_cursor *c, uint8_t enc);

/* Cuts a record off *c: what is behind its length. False: it is not whole. */
bool shunt_cfi_record(struct shunt_cursor *c, struct shunt_cursor *record, bool *wide);
/* The number that a record begins with: how far before it its CIE is; 0: it is one. */
uint64_t shunt_cfi_id(struct shunt_cursor *record, bool wide);

struct shunt_cie {
	bool ok, augmented, signal;
	uint8_t pointers, lsda; /* encodings */
	uint64_t code_align;
	int64_t data_align;
	struct shunt_cursor insns;
};

/* The CIE that is at `at`. */
void shunt_cie_read(struct shunt_cursor at, struct shunt_cie *cie);

struct shunt_fde {
	uint64_t start, size;
	uint64_t lsda; /* 0: none */
	struct shunt_cursor insns;
};

/* Of a record, behind its id. */
bool shunt_fde_read(struct shunt_cursor record, const struct shunt_cie *cie, struct shunt_fde *fde);

/* All zero is how it begins. */
struct shunt_frame {
	uint64_t reg, off; /* the frame's address is that register plus off */
	bool known;	   /* it is */
	bool ra;	   /* the return address is where a call puts it, below the frame's address */
};

/*
 * Runs those instructions that hold at `pc`, from the function's start, at most `max` of them. False: one is
 * not understood, or there are more; *f is what those before it made of it.
 */
bool shunt_cfi_run(struct shunt_cursor insns, const struct shunt_cie *cie, uint64_t pc, unsigned max,
	struct shunt_frame *f);

#endif
