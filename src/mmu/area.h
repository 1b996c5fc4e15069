/* SPDX-License-Identifier: MIT */
/*
 * area.h - the mappings of this process, as the kernel has them now, read without libc, without
 * allocating and with little stack: for decode.c and files.c. General registers only.
 *
 * PROCMAP_QUERY on /proc/thread-self/maps answers for one mapping at a time; kernels before 6.11 have
 * only the text. It is the thread's own entry: that of the process is empty once its first thread
 * has ended. Each answer is true for itself; mappings may change between two.
 */
#ifndef SHUNT_MMU_AREA_H
#define SHUNT_MMU_AREA_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/mmu_internal.h"

#define SHUNT_MMU_PAGE 4096ul
/* Behind the last address that any x86-64 process can have (with five levels of page tables). */
#define SHUNT_MMU_TOP (1ul << 56)

struct shunt_mmu_area {
	uintptr_t start, end;
	uint64_t offset; /* bytes, of the file */
	uint64_t inode;	 /* 0: no file */
	uint32_t major, minor;
	uint64_t page; /* the size of its pages; 0: not known (text) */
	bool sysv;     /* named as a System V segment; only where asked for */
};

struct shunt_mmu_areas {
	int fd;
	bool text;
	bool any;	       /* text: a line was understood */
	bool over;	       /* text: the end was reached */
	uint32_t at, have;     /* text: what buffer[] holds */
	struct shunt_mmu_area last; /* text: the line read last */
	char buffer[1024];
};

/* 0 or -errno. What was opened must be closed. */
int shunt_mmu_areas_open(struct shunt_mmu_areas *a);
/* Has it read as text from now on. For tests. */
void shunt_mmu_areas_as_text(bool text);
void shunt_mmu_areas_close(struct shunt_mmu_areas *a);
/*
 * The mapping that holds `from`, or the next one above it; `from` never goes back. With `files` only those
 * of files. 1, 0 (there is none), or -errno.
 */
int shunt_mmu_areas_next(struct shunt_mmu_areas *a, uintptr_t from, bool files,
	struct shunt_mmu_area *found);
/* Fills in `sysv` of a mapping that next() gave. */
void shunt_mmu_areas_name(struct shunt_mmu_areas *a, struct shunt_mmu_area *found);
/* One look-up of the mapping at or above addr: 1, 0 or -errno. */
int shunt_mmu_area_find(uintptr_t addr, struct shunt_mmu_area *found);

/* Ranges found so far: r[0 .. n). When they are more than `room` they become one. */
struct shunt_mmu_found {
	struct shunt_mmu_range *r;
	unsigned n, room;
	bool one;
};

/* Adds [start, end), if it is not empty; joins it with one of the same kind that it touches. */
void shunt_mmu_found_add(struct shunt_mmu_found *f, uint32_t kind, uintptr_t start, uintptr_t end);

/* A file, as the mappings name it. */
struct shunt_mmu_file {
	uint64_t inode;
	uint32_t major, minor;
	bool any_device; /* the device is not known: files of this number on any of them */
};

/* Where bytes [from, to) of it are mapped. What cannot be found out is everything. files.c */
void shunt_mmu_file_find(const struct shunt_mmu_file *file, uint64_t from, uint64_t to,
	struct shunt_mmu_found *f);
/* Bytes [from, to) of a file by descriptor, which may be an O_PATH one. files.c */
void shunt_mmu_fd_find(int fd, uint64_t from, uint64_t to, struct shunt_mmu_found *f);

#endif
