/* SPDX-License-Identifier: MIT */
/* procmap.h - what linux/fs.h of 6.11 and later has, and the headers that we build with lack. */
#ifndef SHUNT_BASE_PROCMAP_H
#define SHUNT_BASE_PROCMAP_H

#include <linux/ioctl.h>
#include <stdint.h>

/* Of /proc/thread-self/maps: the mapping at query_addr. */
struct shunt_procmap {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset;
	uint64_t inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
_Static_assert(sizeof(struct shunt_procmap) == 104, "as the kernel has it");

#define SHUNT_PROCMAP_QUERY   _IOWR('f', 17, struct shunt_procmap)
#define SHUNT_PROCMAP_OR_NEXT 0x10 /* .. or the next one above */
#define SHUNT_PROCMAP_FILES   0x20 /* only those of files */

#endif
