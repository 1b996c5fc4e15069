/* SPDX-License-Identifier: MIT */
/* maps.h - what is mapped where, asked of the kernel anew for every batch. */
#ifndef SHUNT_TEXT_MAPS_H
#define SHUNT_TEXT_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHUNT_VMA_READ = 1, SHUNT_VMA_WRITE = 2, SHUNT_VMA_EXEC = 4, SHUNT_VMA_SHARED = 8 };

struct shunt_vma {
	uintptr_t start, end;
	uint64_t offset, inode;
	uint32_t major, minor;
	uint32_t flags;
	uint32_t page_size; /* of hugetlbfs mappings; 0 = not known */
};

/* A neighbourhood of mappings that continue each other: one file's text. */
struct shunt_chain {
	struct shunt_vma whole; /* start, end, offset of all; the rest as the first */
	unsigned count;
};

struct shunt_maps {
	int fd;
	bool query; /* PROCMAP_QUERY (Linux 6.11) works */
	/* else: a table, sorted by address */
	struct shunt_vma *table;
	size_t n, room;
};

int shunt_maps_open(struct shunt_maps *m);
void shunt_maps_close(struct shunt_maps *m);
/* The mapping that covers addr, or the next one above: 0, -ENOENT, -errno. */
int shunt_maps_find(struct shunt_maps *m, uintptr_t addr, struct shunt_vma *out);
/* The mappings around one that continue it, at most max of them. */
void shunt_maps_chain(struct shunt_maps *m, const struct shunt_vma *v, unsigned max,
	struct shunt_chain *out);
/* The mapping's name into buf; "" if it has none. 0 or -errno. */
int shunt_maps_name(struct shunt_maps *m, uintptr_t addr, char *buf, size_t size);

/* For tests: read the table even where the kernel can be asked. */
extern bool shunt_maps_never_query;

/* What /proc/self/status says. */
struct shunt_status {
	unsigned threads;
	int tracer;
	uint64_t locked_kb;
};
int shunt_status_read(struct shunt_status *s);

/* Reads a small file of /proc whole; the number of bytes or -errno. */
long shunt_proc_read(const char *path, char *buf, size_t size);
/* The same, of a path below the directory `dir`. */
long shunt_proc_read_at(int dir, const char *path, char *buf, size_t size);

#endif
