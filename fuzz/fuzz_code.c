/* SPDX-License-Identifier: MIT */
/*
 * fuzz_code.c - the list of all functions of any bytes at all: symbols, frames, tables
 * of exceptions, relocations. The last two bytes choose where a second file begins,
 * which is taken for the first one's debug file. fuzz/corpus_elf DIR makes a corpus.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/object/code_sound.h"
#include "object/elf_code.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shunt_code_list *l;
	struct shunt_elf_code c;
	uint64_t lo, hi, slot[4];
	uint16_t at = 0;

	if (shunt_elf_code_read(data, size, &c))
		return 0;
	memcpy(&at, data + size - 2, 2); /* it has a header */
	if (at < size && shunt_elf_code_add_debug(data + at, size - at, &c) == -ENOMEM)
		abort();
	if (shunt_elf_code_imports(data, size, "malloc", slot, 4) > 4)
		abort();
	lo = c.text_lo;
	hi = c.text_hi;
	if (!shunt_code_list_make(&c, 0, &l)) {
		if (code_unsound(l, lo, hi))
			abort();
		shunt_code_list_free(l);
	}
	shunt_elf_code_free(&c);
	return 0;
}
