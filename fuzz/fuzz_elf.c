/* SPDX-License-Identifier: MIT */
/*
 * fuzz_elf.c - the ELF reader and the search for sites on any bytes at all.
 * fuzz/corpus_elf DIR makes a corpus.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "object/elf_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The executable segments as the file has them. */
static size_t file_code(const uint8_t *data, size_t size, struct shunt_code *code, size_t max)
{
	size_t n = 0;
	Elf64_Ehdr eh;

	memcpy(&eh, data, sizeof eh);
	for (unsigned i = 0; i < eh.e_phnum && n < max; i++) {
		Elf64_Phdr ph;

		memcpy(&ph, data + eh.e_phoff + i * sizeof ph, sizeof ph);
		if (ph.p_type == PT_LOAD && ph.p_flags & PF_X && ph.p_offset <= size
			&& ph.p_filesz <= size - ph.p_offset)
			code[n++] = (struct shunt_code){data + ph.p_offset, ph.p_vaddr,
				ph.p_filesz};
	}
	return n;
}

static void check(const struct shunt_elf *e, const struct shunt_finding *f)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct shunt_found *s = &f->found[i];

		if (s->len < 5 || !s->kind || (i && s->site <= s[-1].site))
			abort();
		if (s->start != UINT32_MAX && s->start >= e->nstarts)
			abort();
		if (s->start != UINT32_MAX && e->starts[s->start].name)
			(void)strlen(e->starts[s->start].name);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shunt_finding f = {0};
	struct shunt_code code[4];
	struct shunt_elf e;

	if (shunt_elf_parse(data, size, &e))
		return 0;
	f.found = calloc(shunt_elf_room(&e), sizeof *f.found);
	if (f.found) {
		shunt_elf_find(&e, code, file_code(data, size, code, 4), &f);
		if (f.n >= shunt_elf_room(&e))
			abort();
		check(&e, &f);
	}
	free(f.found);
	shunt_elf_free(&e);
	return 0;
}
