/* SPDX-License-Identifier: MIT */
/* object_internal.h - what the files of this folder share. */
#ifndef SHUNT_OBJECT_INTERNAL_H
#define SHUNT_OBJECT_INTERNAL_H

#include <stddef.h>

/*
 * __cxa_demangle of the program's own C++ runtime, once an object that has one
 * was seen; NULL before. (libshunt brings none into a C program, and dlsym would
 * take the lock that dlopen holds.) Read with __atomic_load_n.
 */
extern char *(*shunt_object_demangler)(const char *name, char *buf, size_t *len, int *status);

#endif
