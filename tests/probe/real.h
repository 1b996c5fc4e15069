/* SPDX-License-Identifier: MIT */
/*
 * real.h - the functions of a program or library as it is installed: what its .eh_frame
 * describes, which stripping leaves in place.
 */
#ifndef TESTS_PROBE_REAL_H
#define TESTS_PROBE_REAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct real_function {
	const uint8_t *bytes;
	uintptr_t lo, hi; /* as linked */
};

struct real {
	const uint8_t *file;
	size_t size;
	struct real_function *functions;
	size_t n;
};

/* 0; -1: it is not there; -2: there is something in it that we do not know. */
int real_open(struct real *r, const char *path);
void real_close(struct real *r);

/* The n bytes that are linked to be at addr, NULL if not all are in the file. */
const uint8_t *real_at(const struct real *r, uintptr_t addr, size_t n);

/* Likewise, for struct shunt_code: of what is not writable. */
bool real_read(void *r, uintptr_t addr, void *to, size_t n);

#endif
