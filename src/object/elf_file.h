/* SPDX-License-Identifier: MIT */
/* elf_file.h - the file behind a loaded object. */
#ifndef SHUNT_OBJECT_ELF_FILE_H
#define SHUNT_OBJECT_ELF_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One line of /proc/thread-self/maps. */
struct shunt_map {
	uintptr_t lo, hi;
	bool readable;
	dev_t dev;
	ino_t ino;
	const char *path; /* in the text; "" for none */
};

struct shunt_maps {
	char *text;
	struct shunt_map *map;
	size_t n;
};

/* Reads /proc/thread-self/maps. 0 or -errno. */
int shunt_maps_read(struct shunt_maps *maps);
void shunt_maps_free(struct shunt_maps *maps);

/* The mapping that holds addr, or NULL. */
const struct shunt_map *shunt_maps_at(const struct shunt_maps *maps, uintptr_t addr);

/* Whether all of lo..hi may be read. */
bool shunt_maps_readable(const struct shunt_maps *maps, uintptr_t lo, uintptr_t hi);

/* A file's contents, as far as the reader wants them; the rest reads as zeros. */
struct shunt_file {
	uint8_t *image;
	size_t size;
	dev_t dev;
	ino_t ino;
};

/* 0 or -errno. No descriptor stays open. */
int shunt_file_read(const char *path, struct shunt_file *file);

/* The same, and what only the list of all functions needs (code.h). */
int shunt_file_read_code(const char *path, struct shunt_file *file);
void shunt_file_free(struct shunt_file *file);

#endif
