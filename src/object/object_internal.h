/* SPDX-License-Identifier: MIT */
/* object_internal.h - what the files of this folder share. */
#ifndef SHUNT_OBJECT_INTERNAL_H
#define SHUNT_OBJECT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf_file.h"
#include "object.h"

/*
 * __cxa_demangle of the program's own C++ runtime, once an object that has one
 * was seen; NULL before. (libshunt brings none into a C program, and dlsym would
 * take the lock that dlopen holds.) Read with __atomic_load_n.
 */
extern char *(*shunt_object_demangler)(const char *name, char *buf, size_t *len, int *status);

/*
 * Whether a file is the one that the object was loaded from; `id` is its build-id. It
 * must have been parsed: its header is one.
 */
bool shunt_object_is_file(const struct shunt_object *o, const struct shunt_file *file,
	const uint8_t *id, unsigned id_len);

/*
 * Gives a part (object.h) its ids and puts it into the list. With the objects lock. 0,
 * -ENOMEM, or -ENOENT: no ids are left.
 */
int shunt_objects_add_part(struct shunt_object *part);

/* Where debug files are: only tests change it. */
extern const char *shunt_code_debug_dir;

#endif
