/* SPDX-License-Identifier: MIT */
/*
 * young.c - was a range used since the last time?
 *
 * The consumers are asked, all of them, since each forgets when it answers. Where the range is watched the kernel
 * says what was written: a page that is write-protected in the page table (userfaultfd's bit) was not; the first
 * write takes that away, without a fault that anybody gets. One ioctl asks and protects again, so no write
 * falls between.
 *
 * Asked for are pages that are there or swapped out. For one that was never touched the kernel would say
 * "written" too, and mark it, which takes page tables for all of a sparse mapping. So the period
 * begins with the first call, which says 1 for what was there before; and reading a page for the
 * first time counts as use. Reads of what is there are seen by nobody: soft-dirty and idle page
 * tracking need privileges or are not built in, and they have the same gap or are for the whole system.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "arch/x86_64/text_sys.h"
#include "base/log.h"
#include "mmu/watch.h"

#define ADDRESSES_END 0x7ffffffff000ul
#define REGIONS	      32

/* Newer than Debian 12's headers (Linux 6.7): fs.h. */
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, all_of, any_of, returned;
};

struct region {
	uint64_t start, end, categories;
};

#define SCAN	       _IOWR('f', 16, struct scan)
#define WP_MATCHING    1u
#define IS_WPALLOWED   1u
#define IS_WRITTEN     2u
#define IS_PRESENT     8u
#define IS_SWAPPED     16u

_Static_assert(sizeof(struct scan) == 96 && sizeof(struct region) == 24, "the kernel's");

/* Written pages of it are counted, and protected: 1, 0 or -errno. */
static int take_written(long pagemap, const struct shunt_mmu_span *piece)
{
	struct region found[REGIONS];
	struct scan s = {.size = sizeof s, .flags = WP_MATCHING, .end = piece->end, .vec = (uintptr_t)found,
		.vec_len = REGIONS, .all_of = IS_WPALLOWED | IS_WRITTEN, .any_of = IS_PRESENT | IS_SWAPPED,
		.returned = IS_WRITTEN};
	int any = 0;

	for (uintptr_t at = piece->start; at < piece->end; at = s.walk_end) {
		long n;

		s.start = at;
		n = shunt_sys(SYS_ioctl, pagemap, SCAN, &s);
		if (n < 0)
			return (int)n;
		any |= n > 0;
		if (s.walk_end <= at)
			break;
	}
	return any;
}

static bool written(uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_span piece;
	bool any = false;
	long pagemap;
	int r = 0;

	if (!shunt_mmu_watched_piece(start, end, &piece))
		return false;
	/* The thread's: the process's own has no memory any more when its first thread has ended. */
	pagemap = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		r = (int)pagemap;
	while (r >= 0 && shunt_mmu_watched_piece(start, end, &piece)) {
		r = take_written(pagemap, &piece);
		any |= r > 0;
		start = piece.end;
	}
	if (pagemap >= 0)
		shunt_sys(SYS_close, pagemap);
	if (r < 0)
		shunt_log(SHUNT_LOG_WARNING, "mmu: pagemap cannot be read (%d): writes are not seen", r);
	return any;
}

int shunt_mmu_clear_flush_young(void *start, size_t length)
{
	uintptr_t at = (uintptr_t)start, end = at + length;
	bool young;

	if (!length || at >= ADDRESSES_END || length > ADDRESSES_END - at)
		return -EINVAL;
	at &= -4096ul;
	end = (end + 4095) & -4096ul;
	young = shunt_mmu_ask_young(at, end);
	return written(at, end) || young;
}
