/* SPDX-License-Identifier: MIT */
/* fileoff.c - see fileoff.h. The loader's list is asked each time, as it is then. */
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fileoff.h"

struct search {
	const char *object;
	uintptr_t beside;
	uint64_t offset;
	uintptr_t addr;
	int err;
	char *name; /* of the object, if it is wanted */
	size_t size;
};

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The program itself has no name in the list. */
static const char *path_of(const struct dl_phdr_info *info, char path[512])
{
	ssize_t n;

	if (info->dlpi_name && *info->dlpi_name)
		return info->dlpi_name;
	n = readlink("/proc/self/exe", path, 511);
	path[n < 0 ? 0 : n] = 0;
	return path;
}

static const ElfW(Phdr) *segment_of(const struct dl_phdr_info *info, uintptr_t addr)
{
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
			addr - info->dlpi_addr - info->dlpi_phdr[i].p_vaddr < info->dlpi_phdr[i].p_memsz)
			return &info->dlpi_phdr[i];
	return NULL;
}

static bool is_it(const struct search *s, const struct dl_phdr_info *info)
{
	char self[512];
	const char *path;

	if (!s->object)
		return segment_of(info, s->beside) != NULL;
	path = path_of(info, self);
	return !strcmp(strchr(s->object, '/') ? path : file_name(path), s->object);
}

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *s = arg;
	char self[512];

	(void)size;
	if (!is_it(s, info))
		return 0;
	if (s->name)
		snprintf(s->name, s->size, "%s", file_name(path_of(info, self)));
	s->err = -ERANGE;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || s->offset - ph->p_offset >= ph->p_filesz)
			continue;
		s->addr = info->dlpi_addr + ph->p_vaddr + (s->offset - ph->p_offset);
		s->err = 0;
	}
	return 1;
}

int shunt_fileoff_find(const char *object, uintptr_t beside, uint64_t offset, uintptr_t *addr)
{
	struct search s = {.object = object, .beside = beside, .offset = offset, .err = -ENOENT};

	dl_iterate_phdr(look, &s);
	*addr = s.addr;
	return s.err;
}

void shunt_fileoff_object(uintptr_t addr, char *name, size_t size)
{
	struct search s = {.beside = addr, .name = name, .size = size};

	snprintf(name, size, "?");
	dl_iterate_phdr(look, &s);
}
