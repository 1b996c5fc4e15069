/* SPDX-License-Identifier: MIT */
/*
 * files.c - where a file, or a System V segment, is mapped. General registers only.
 *
 * A mapping names its file by inode number and device. What fstat() says of the same file
 * is not always that: btrfs and overlayfs give out device numbers that no mapping has. The number
 * of the inode can be had for certain (fdinfo's "ino:" is what the mappings have too); the device is
 * compared only on file systems that are known to say the same in both places. Elsewhere every file of that
 * number counts, whatever its device: one too many is told to callbacks that need not have known, one too
 * few is stale data. To map the file and look what the mapping says would be exact, but needs a
 * descriptor that can be mapped, and closing a second descriptor of a file drops the
 * program's own fcntl() locks on it.
 *
 * What cannot be found out (no /proc, no descriptor left) is everything, for the same reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "arch/x86_64/text_sys.h"
#include "mmu/area.h"

#define XFS_MAGIC 0x58465342

static uintptr_t page_down(uint64_t v)
{
	return v & ~(SHUNT_MMU_PAGE - 1);
}

/* Does not overflow: beyond the last page there is nothing. */
static uint64_t page_up(uint64_t v)
{
	return v > UINT64_MAX - SHUNT_MMU_PAGE ? UINT64_MAX : page_down(v + SHUNT_MMU_PAGE - 1);
}

static bool is_of(const struct shunt_mmu_area *a, const struct shunt_mmu_file *f)
{
	return a->inode == f->inode &&
	       (f->any_device || (a->major == f->major && a->minor == f->minor));
}

/* The part of the mapping that shows bytes [from, to) of its file. */
static void add_part(const struct shunt_mmu_area *a, uint64_t from, uint64_t to,
	struct shunt_mmu_found *f)
{
	uint64_t length = a->end - a->start, first, last;

	if (to <= a->offset)
		return;
	first = from > a->offset ? from - a->offset : 0;
	last = to - a->offset < length ? to - a->offset : length;
	if (first < last)
		shunt_mmu_found_add(f, SHUNT_MMU_DISCARD, a->start + first, a->start + last);
}

void shunt_mmu_file_find(const struct shunt_mmu_file *file, uint64_t from, uint64_t to,
	struct shunt_mmu_found *f)
{
	struct shunt_mmu_areas all;
	struct shunt_mmu_area a;
	uintptr_t at = 0;
	int r = shunt_mmu_areas_open(&all);

	if (!r) {
		while ((r = shunt_mmu_areas_next(&all, at, true, &a)) > 0) {
			if (is_of(&a, file))
				add_part(&a, page_down(from), page_up(to), f);
			at = a.end;
		}
		shunt_mmu_areas_close(&all);
	}
	if (r < 0)
		shunt_mmu_found_add(f, SHUNT_MMU_DISCARD, 0, SHUNT_MMU_TOP);
}

static char *digits(char *to, unsigned v)
{
	char text[10];
	unsigned n = 0;

	do
		text[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		*to++ = text[--n];
	return to;
}

static char *words(char *to, const char *from)
{
	while (*from)
		*to++ = *from++;
	return to;
}

/* The inode's number as mappings have it; `otherwise` where the kernel does not say (before 5.19). */
static uint64_t inode_of(int fd, uint64_t otherwise)
{
	char text[256], *p;
	uint64_t v = 0;
	long info, n;

	p = digits(words(text, "/proc/thread-self/fdinfo/"), (unsigned)fd);
	*p = 0;
	info = shunt_sys(SYS_openat, AT_FDCWD, text, O_RDONLY | O_CLOEXEC, 0);
	if (shunt_sys_failed(info))
		return otherwise;
	n = shunt_sys(SYS_read, info, text, sizeof(text) - 1);
	shunt_sys(SYS_close, info);
	if (shunt_sys_failed(n) || n <= 0)
		return otherwise;
	text[n] = 0;
	for (p = text; *p; p++)
		if (p[0] == '\n' && p[1] == 'i' && p[2] == 'n' && p[3] == 'o' && p[4] == ':')
			break;
	if (!*p)
		return otherwise;
	for (p += 5; *p == '\t' || *p == ' '; p++)
		;
	for (; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return v;
}

/* Whether mappings name files of this kind of file system as fstat() does. */
static bool devices_agree(int fd)
{
	struct statfs s;

	if (shunt_sys(SYS_fstatfs, fd, &s))
		return false;
	switch (s.f_type) {
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
		return true;
	}
	return false;
}

void shunt_mmu_fd_find(int fd, uint64_t from, uint64_t to, struct shunt_mmu_found *f)
{
	struct shunt_mmu_file file;
	struct stat s;

	if (from >= to || shunt_sys(SYS_fstat, fd, &s) ||
	    !(S_ISREG(s.st_mode) || S_ISBLK(s.st_mode)))
		return;
	/* The kernel's own numbers, as it packs them for fstat(). */
	file.major = (uint32_t)(s.st_dev >> 8) & 0xfff;
	file.minor = (uint32_t)((s.st_dev & 0xff) | ((s.st_dev >> 12) & 0xfff00));
	file.any_device = !devices_agree(fd);
	file.inode = file.any_device ? inode_of(fd, s.st_ino) : s.st_ino;
	shunt_mmu_file_find(&file, from, to, f);
}

unsigned shunt_mmu_file_ranges(int fd, int dirfd, const char *path, uint64_t from, uint64_t to,
	struct shunt_mmu_range *r, unsigned room)
{
	struct shunt_mmu_found f = {.r = r, .room = room};
	long opened;

	if (fd != -1) {
		shunt_mmu_fd_find(fd, from, to, &f);
		return f.n;
	}
	opened = shunt_sys(SYS_openat, dirfd, path, O_PATH | O_CLOEXEC, 0);
	if (opened == -EMFILE || opened == -ENFILE || opened == -ENOMEM) {
		shunt_mmu_found_add(&f, SHUNT_MMU_DISCARD, 0, SHUNT_MMU_TOP);
	} else if (!shunt_sys_failed(opened)) {
		shunt_mmu_fd_find((int)opened, from, to, &f);
		shunt_sys(SYS_close, opened);
	}
	return f.n;
}

/*
 * The segment is the first one above addr that would begin at addr if all of it were there, and the
 * kernel takes off every mapping of it of which that is true.
 */
unsigned shunt_mmu_shm_range(uintptr_t addr, struct shunt_mmu_range *r)
{
	struct shunt_mmu_found f = {.r = r, .room = 1};
	struct shunt_mmu_areas all;
	struct shunt_mmu_area a;
	struct shunt_mmu_file first = {.inode = 0};
	uintptr_t at = addr;
	int got;

	got = shunt_mmu_areas_open(&all);
	if (got < 0)
		goto everything;
	while ((got = shunt_mmu_areas_next(&all, at, true, &a)) > 0) {
		at = a.end;
		if (a.start < addr || a.start - addr != a.offset)
			continue;
		shunt_mmu_areas_name(&all, &a);
		if (!a.sysv)
			continue;
		if (!first.inode) {
			first.inode = a.inode;
			first.major = a.major;
			first.minor = a.minor;
		}
		if (is_of(&a, &first))
			shunt_mmu_found_add(&f, SHUNT_MMU_UNMAP, a.start, a.end);
	}
	shunt_mmu_areas_close(&all);
everything:
	if (got < 0)
		shunt_mmu_found_add(&f, SHUNT_MMU_UNMAP, addr, SHUNT_MMU_TOP);
	return f.n;
}
