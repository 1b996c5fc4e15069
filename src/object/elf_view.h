/* SPDX-License-Identifier: MIT */
/*
 * elf_view.h - looking at the bytes of an ELF file that may be damaged.
 *
 * The invariant of all readers: every byte is read through shunt_elf_span(), which
 * hands out a pointer only when the whole range lies in the image, and through
 * memcpy, so that nothing depends on alignment. All counts come from sizes that
 * the span agreed to. Names are checked to end inside their table.
 */
#ifndef SHUNT_OBJECT_ELF_VIEW_H
#define SHUNT_OBJECT_ELF_VIEW_H

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The longest name that is one: what is longer no compiler made. */
#define SHUNT_ELF_NAME_MAX 65536

struct shunt_elf_table {
	const uint8_t *at;
	size_t n; /* entries, or bytes for strings */
	uint32_t link;
};

struct shunt_elf_view {
	const uint8_t *image;
	size_t size;
	Elf64_Ehdr eh;
	struct shunt_elf_table names; /* of sections */
};

/* Room for one more of `each` bytes than n: doubles. NULL: no memory, and p is as it was. */
static inline void *shunt_elf_more(void *p, size_t n, size_t *have, size_t each)
{
	size_t want = *have ? *have * 2 : 64;
	void *q;

	if (n < *have)
		return p;
	q = realloc(p, want * each);
	if (q)
		*have = want;
	return q;
}

static inline const uint8_t *shunt_elf_span(const struct shunt_elf_view *v, uint64_t off,
	uint64_t len)
{
	if (off > v->size || len > v->size - off)
		return NULL;
	return v->image + off;
}

static inline bool shunt_elf_section(const struct shunt_elf_view *v, uint32_t i, Elf64_Shdr *sh)
{
	const uint8_t *p;

	if (i >= v->eh.e_shnum || v->eh.e_shentsize != sizeof *sh || v->eh.e_shoff > v->size)
		return false;
	p = shunt_elf_span(v, v->eh.e_shoff + (uint64_t)i * sizeof *sh, sizeof *sh);
	if (!p)
		return false;
	memcpy(sh, p, sizeof *sh);
	return true;
}

/* A section's contents as entries of `each` bytes. */
static inline bool shunt_elf_table_of(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	size_t each, struct shunt_elf_table *t)
{
	const uint8_t *p;

	if (sh->sh_type == SHT_NOBITS || !(p = shunt_elf_span(v, sh->sh_offset, sh->sh_size)))
		return false;
	*t = (struct shunt_elf_table){p, sh->sh_size / each, sh->sh_link};
	return true;
}

static inline bool shunt_elf_table_at(const struct shunt_elf_view *v, uint32_t i, size_t each,
	struct shunt_elf_table *t)
{
	Elf64_Shdr sh;

	return shunt_elf_section(v, i, &sh) && shunt_elf_table_of(v, &sh, each, t);
}

static inline const char *shunt_elf_string(const struct shunt_elf_table *t, uint64_t off)
{
	size_t left = off < t->n ? t->n - off : 0;

	if (left > SHUNT_ELF_NAME_MAX)
		left = SHUNT_ELF_NAME_MAX;
	if (!left || !memchr(t->at + off, 0, left))
		return NULL;
	return (const char *)t->at + off;
}

static inline bool shunt_elf_named(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	const char *name)
{
	const char *s = shunt_elf_string(&v->names, sh->sh_name);

	return s && !strcmp(s, name);
}

/* 0, or -ENOEXEC: not a 64-bit x86 executable or shared object. */
static inline int shunt_elf_open(struct shunt_elf_view *v, const void *image, size_t size)
{
	Elf64_Ehdr *h = &v->eh;

	*v = (struct shunt_elf_view){.image = image, .size = size};
	if (size < sizeof *h)
		return -ENOEXEC;
	memcpy(h, image, sizeof *h);
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) || h->e_ident[EI_CLASS] != ELFCLASS64
		|| h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_X86_64
		|| (h->e_type != ET_EXEC && h->e_type != ET_DYN))
		return -ENOEXEC;
	shunt_elf_table_at(v, h->e_shstrndx, 1, &v->names);
	return 0;
}

#endif
