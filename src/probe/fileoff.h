/* SPDX-License-Identifier: MIT */
/* fileoff.h - addresses in loaded objects' files. Any thread, no signal handlers. */
#ifndef SHUNT_PROBE_FILEOFF_H
#define SHUNT_PROBE_FILEOFF_H

#include <stddef.h>
#include <stdint.h>

/*
 * Where the byte at an offset of an object's file is. `object` is a path or a file name;
 * NULL: the object that has `beside` in it. 0; -ENOENT: no such object is loaded; -ERANGE:
 * nothing of the file is loaded from there.
 */
int shunt_fileoff_find(const char *object, uintptr_t beside, uint64_t offset, uintptr_t *addr);

/* The file name of the object that has `addr` in it; "?" if none has. */
void shunt_fileoff_object(uintptr_t addr, char *name, size_t size);

#endif
