/* SPDX-License-Identifier: MIT */
/*
 * functions.c - what it costs to know all functions of a file: the first time that
 * somebody asks, reading it from the page cache; memory that stays; and a lookup by name
 * and by address.
 *
 *   bench-object-functions [file..]     prints "name value unit"; medians of 21
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../timing.h"
#include "object/elf_code.h"
#include "object/elf_file.h"

#define RUNS 21

static struct shunt_code_list *read_list(const char *path)
{
	struct shunt_code_list *l = NULL;
	struct shunt_elf_code c;
	struct shunt_file file;

	if (shunt_file_read_code(path, &file))
		return NULL;
	if (!shunt_elf_code_read(file.image, file.size, &c)) {
		if (shunt_code_list_make(&c, 0, &l))
			l = NULL;
		shunt_elf_code_free(&c);
	}
	shunt_file_free(&file);
	return l;
}

static void lookups(const char *name, const struct shunt_code_list *l)
{
	size_t hits = 0;
	double t = now();

	for (uint32_t i = 0; i < l->nfuncs; i++)
		hits += shunt_code_in(l, l->funcs[i * 7919ull % l->nfuncs].start + 1) != NULL;
	printf("functions-%s-by-address %.0f ns\n", name, (now() - t) / l->nfuncs);
	if (!l->nnames)
		return;
	t = now();
	for (uint32_t i = 0; i < l->nnames; i++)
		hits += shunt_code_named(l, l->strings + l->names[i * 7919ull % l->nnames].name,
				NULL) != NULL;
	printf("functions-%s-by-name %.0f ns\n", name, (now() - t) / l->nnames);
	if (hits < l->nfuncs / 2)
		printf("# lookups failed\n");
}

static void measure(const char *path)
{
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct shunt_code_list *l = NULL;
	double t[RUNS];

	for (unsigned i = 0; i < RUNS; i++) {
		shunt_code_list_free(l);
		t[i] = now();
		l = read_list(path);
		t[i] = now() - t[i];
		if (!l)
			return;
	}
	printf("functions-%s %u functions\n", name, l->nfuncs);
	printf("functions-%s-read %.2f ms\n", name, median(t, RUNS) / 1e6);
	printf("functions-%s-memory %zu KiB\n", name, l->bytes >> 10);
	lookups(name, l);
	shunt_code_list_free(l);
}

int main(int argc, char **argv)
{
	static const char *const files[] = {"/lib/x86_64-linux-gnu/libc.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/python3.11", "/usr/bin/git",
		"/usr/bin/gdb"};

	for (int i = 1; i < argc; i++)
		measure(argv[i]);
	for (size_t i = 0; argc == 1 && i < sizeof files / sizeof *files; i++)
		measure(files[i]);
	return 0;
}
