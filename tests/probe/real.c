/* SPDX-License-Identifier: MIT */
/* real.c - .eh_frame_hdr's sorted table, and the FDEs that it refers to. */
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "real.h"

/* DWARF encodings: relative to the header, to the place; 4 bytes, signed or not. */
#define DATAREL_SDATA4 0x3b
#define PCREL_SDATA4 0x1b
#define UDATA4 0x03

static const Elf64_Phdr *header(const struct real *r, size_t i)
{
	const Elf64_Ehdr *e = (const void *)r->file;

	return i < e->e_phnum ? (const Elf64_Phdr *)(r->file + e->e_phoff) + i : NULL;
}

const uint8_t *real_at(const struct real *r, uintptr_t addr, size_t n)
{
	const Elf64_Phdr *p;

	for (size_t i = 0; (p = header(r, i)); i++)
		if (p->p_type == PT_LOAD && addr >= p->p_vaddr && n <= p->p_filesz &&
			addr - p->p_vaddr <= p->p_filesz - n)
			return r->file + p->p_offset + (addr - p->p_vaddr);
	return NULL;
}

bool real_read(void *r, uintptr_t addr, void *to, size_t n)
{
	const uint8_t *from = real_at(r, addr, n);
	const Elf64_Phdr *p;

	for (size_t i = 0; (p = header(r, i)); i++)
		if (p->p_type == PT_LOAD && (p->p_flags & PF_W) && addr - p->p_vaddr < p->p_memsz)
			return false;
	if (from)
		memcpy(to, from, n);
	return from;
}

static int32_t read32(const struct real *r, uintptr_t addr)
{
	const uint8_t *p = real_at(r, addr, 4);
	int32_t v = 0;

	if (p)
		memcpy(&v, p, 4);
	return v;
}

static int read_table(struct real *r, uintptr_t hdr)
{
	const uint8_t *h = real_at(r, hdr, 12);
	size_t n;

	if (!h || h[0] != 1 || h[1] != PCREL_SDATA4 || h[2] != UDATA4 || h[3] != DATAREL_SDATA4)
		return -2;
	n = (uint32_t)read32(r, hdr + 8);
	r->functions = calloc(n + 1, sizeof *r->functions);
	for (size_t i = 0; i < n; i++) {
		uintptr_t lo = hdr + (uintptr_t)(intptr_t)read32(r, hdr + 12 + 8 * i);
		uintptr_t fde = hdr + (uintptr_t)(intptr_t)read32(r, hdr + 16 + 8 * i);
		size_t size = (uint32_t)read32(r, fde + 12);
		const uint8_t *bytes = real_at(r, lo, size);

		/* pc_begin must say the same, else it is encoded otherwise. */
		if (fde + 8 + (uintptr_t)(intptr_t)read32(r, fde + 8) != lo || !bytes)
			return -2;
		if (size)
			r->functions[r->n++] = (struct real_function){bytes, lo, lo + size};
	}
	return 0;
}

int real_open(struct real *r, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const Elf64_Phdr *p;
	struct stat st;
	void *m;

	*r = (struct real){0};
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || st.st_size < 64) {
		close(fd);
		return -2;
	}
	m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (m == MAP_FAILED)
		return -1;
	r->file = m;
	r->size = (size_t)st.st_size;
	for (size_t i = 0; (p = header(r, i)); i++)
		if (p->p_type == PT_GNU_EH_FRAME)
			return read_table(r, p->p_vaddr);
	return -2;
}

void real_close(struct real *r)
{
	free(r->functions);
	if (r->file)
		munmap((void *)r->file, r->size);
}
