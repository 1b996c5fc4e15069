/* SPDX-License-Identifier: MIT */
/*
 * elf_image.h - what an ELF file says about functions and their entries: a pure
 * function of the file's bytes, and the sites found with it in code.
 */
#ifndef SHUNT_OBJECT_ELF_IMAGE_H
#define SHUNT_OBJECT_ELF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "object.h"

/* A place where a function begins. All addresses are the file's own. */
struct shunt_elf_start {
	uint64_t addr;
	uint64_t size;
	const char *name; /* in the image, ends in a 0 there; NULL: none known */
	uint8_t rank;	  /* the lower, the better a name */
};

struct shunt_elf {
	uint8_t build_id[SHUNT_BUILD_ID_MAX];
	unsigned build_id_len;
	uint64_t text_lo, text_hi;
	struct shunt_elf_start *starts; /* ascending, one an address */
	size_t nstarts;
	uint64_t *entries; /* what the entry sections hold, ascending */
	size_t nentries;
	bool has_section; /* there is a section of entries, empty or not */
	bool profiled;	  /* linked with -pg */
	uint64_t *slots; /* GOT slots that will hold __fentry__, ascending */
	size_t nslots;
	uint64_t fentry;   /* __fentry__ itself, 0: not defined here */
	uint64_t demangle; /* __cxa_demangle, 0: not defined here */
};

/*
 * Reads an image of `size` bytes; names point into it. 0, -ENOEXEC (not a
 * 64-bit x86 executable or shared object), -EBADMSG (damaged), -ENOMEM. What is
 * damaged in part is read as far as it makes sense.
 */
int shunt_elf_parse(const void *image, size_t size, struct shunt_elf *elf);
void shunt_elf_free(struct shunt_elf *elf);

/* The GNU build-id in notes; its length, 0 for none. */
unsigned shunt_elf_build_id(const uint8_t *notes, size_t size, uint8_t *id);

/* A run of the code as it is in memory (or in the file), at a file address. */
struct shunt_code {
	const uint8_t *bytes;
	uint64_t addr, size;
};

struct shunt_found {
	uint64_t site;
	uint32_t start; /* index in elf->starts; UINT32_MAX: not known */
	uint8_t kind, len;
};

struct shunt_finding {
	struct shunt_found *found; /* room for nentries + nstarts */
	size_t n;
	uint32_t missed, refused;
};

/* The most sites an object can have: the room that shunt_elf_find wants. */
static inline size_t shunt_elf_room(const struct shunt_elf *elf)
{
	return elf->nentries + elf->nstarts + 1;
}

/* Finds the sites; ascending. Neither allocates nor locks. */
void shunt_elf_find(const struct shunt_elf *elf, const struct shunt_code *code,
	size_t ncode, struct shunt_finding *f);

/* entry_x86_64.c: what code at a function's entry is. */
struct shunt_entry {
	uint8_t kind, len;
	uint8_t skip; /* endbr64 before it */
};

/* How many bytes the NOP at p has, 0 if it is none. */
unsigned shunt_entry_nop(const uint8_t *p, size_t n);

/* Whether an endbr64 is at p. */
bool shunt_entry_endbr(const uint8_t *p, size_t n);

/* The target of a direct call or jump, or the slot of an indirect one. */
struct shunt_entry_branch {
	uint64_t to;
	uint8_t len;
	bool indirect;
};

bool shunt_entry_call(const uint8_t *p, size_t n, uint64_t addr, struct shunt_entry_branch *b);
bool shunt_entry_plt(const uint8_t *p, size_t n, uint64_t addr, uint64_t *slot);

/* The NOP site at p: its kind, and its length through *len. */
uint8_t shunt_entry_nops(const uint8_t *p, size_t n, uint8_t *len);

#endif
