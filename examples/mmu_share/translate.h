/* SPDX-License-Identifier: MIT */
#ifndef TRANSLATE_H
#define TRANSLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct translation {
	uint64_t offset; /* in the file */
	int prot;	 /* what all of the range allows */
};

/*
 * Where in the file behind fd [start, start + length) is. Slow, and only as true as nothing
 * changes meanwhile: the caller asks shunt_mmu_interval_read_retry(). 0, -EFAULT: it is not.
 */
int translate(int fd, uintptr_t start, size_t length, struct translation *t);

#endif
