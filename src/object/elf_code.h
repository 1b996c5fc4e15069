/* SPDX-License-Identifier: MIT */
/*
 * elf_code.h - everything that an ELF file says about its functions: symbols,
 * frames, landing pads, and what they make up together. A pure function of the
 * file's bytes; no byte is trusted. code.h has what comes of it.
 */
#ifndef SHUNT_OBJECT_ELF_CODE_H
#define SHUNT_OBJECT_ELF_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "code.h"

/* One thing that was said about an address. All addresses are the file's own. */
struct shunt_elf_said {
	uint64_t addr, size;
	const char *name; /* in the image; NULL: none */
	uint32_t len;	  /* of the name */
	uint16_t flags;	  /* SHUNT_CODE_* */
	uint8_t rank;	  /* enum shunt_code_rank */
};

/* A section of code. */
struct shunt_elf_part {
	uint64_t lo, hi;
	bool linker; /* not compiled: .plt, .init .. */
};

#define SHUNT_ELF_PARTS 64

struct shunt_elf_code {
	uint8_t build_id[SHUNT_BUILD_ID_MAX];
	unsigned build_id_len;
	uint64_t text_lo, text_hi;
	struct shunt_elf_part parts[SHUNT_ELF_PARTS]; /* in the file's order */
	unsigned nparts;
	struct shunt_elf_said *said;
	size_t nsaid, room_said;
	uint64_t *pads; /* as found */
	size_t npads, room_pads;
	uint64_t *slots; /* pairs: an IFUNC's resolver, the slot for its choice */
	size_t nslots, room_slots; /* pairs times two */
	uint32_t bad_frames, bad_pads; /* FDEs and LSDAs not understood */
	size_t strings;		       /* bytes of the tables that names are in */
	char soname[64];
	char debuglink[256]; /* "": none */
	uint32_t debuglink_crc;
};

/*
 * Reads an image; names point into it. 0, -ENOEXEC, -EBADMSG (damaged), -ENOMEM.
 * What is damaged in part is read as far as it makes sense.
 */
int shunt_elf_code_read(const void *image, size_t size, struct shunt_elf_code *c);

/* Its build-id, of at most SHUNT_BUILD_ID_MAX bytes: the length, 0 for none. */
unsigned shunt_elf_code_build_id(const void *image, size_t size, uint8_t *id);

/*
 * Adds the symbols of a file with the debug information of the same object; that
 * it is one is for the caller to know. Its image must stay like the first one.
 */
int shunt_elf_code_add_debug(const void *image, size_t size, struct shunt_elf_code *c);

void shunt_elf_code_free(struct shunt_elf_code *c);

/* The section of code that holds addr, or NULL. */
const struct shunt_elf_part *shunt_elf_part_of(const struct shunt_elf_code *c, uint64_t addr);

/* Adds one, if it is in code. 0 or -ENOMEM. */
int shunt_elf_code_say(struct shunt_elf_code *c, struct shunt_elf_said s);
int shunt_elf_code_pad(struct shunt_elf_code *c, uint64_t addr);

/* A section of bytes as the frame reader sees it. */
struct shunt_elf_bytes {
	const uint8_t *at;
	uint64_t addr;
	size_t n;
};

/* elf_frame.c: .eh_frame and .gcc_except_table (at: NULL where there is none). */
int shunt_elf_frames(struct shunt_elf_code *c, const struct shunt_elf_bytes *frames,
	const struct shunt_elf_bytes *lsda);

/*
 * The slots that a dynamic relocation binds to the symbol `name`; their number,
 * at most max.
 */
size_t shunt_elf_code_imports(const void *image, size_t size, const char *name,
	uint64_t *slot, size_t max);

/*
 * Makes the list of an object at load bias `base`. Reorders c. 0 or -ENOMEM.
 * Free with shunt_code_list_free() where it is not kept.
 */
int shunt_code_list_make(struct shunt_elf_code *c, uintptr_t base,
	struct shunt_code_list **list);
void shunt_code_list_free(struct shunt_code_list *list);

#endif
