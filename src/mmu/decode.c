/* SPDX-License-Identifier: MIT */
/*
 * decode.c - which ranges a system call makes invalid. docs/mmu-calls.md is its table, with reasons.
 *
 * The rule: too much is allowed, too little is not. What a call changes lies in its ranges whatever it
 * returns; where that cannot be found out beforehand, the range is wider. Arguments that the kernel
 * refuses at first sight give nothing. General registers only, no libc: it runs at any point of the
 * program, and what arguments point to is read by the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "arch/x86_64/text_sys.h"
#include "mmu/area.h"

/* Newer than the headers that we build with. */
#define GUARD_INSTALL	     102  /* MADV_, 6.13 */
#define WRITE_ZEROES	     0x80 /* FALLOC_FL_, 6.17 */
#define TMPFILE_BIT	     020000000 /* O_TMPFILE without the O_DIRECTORY in it */
#define ARCH_GET_UNTAG_MASK_ 0x4001

#define HUGE_2M	    (1ul << 21)
#define HUGE_1G	    (1ul << 30)
#define HUGE_SHIFT  26
#define HUGE_MASK   0x3f
#define VECTORS	    1024 /* UIO_MAXIOV */
#define SLICE	    16	 /* of them at a time */

/* --- arithmetic, as the kernel does it ------------------------------------------------------- */

static bool aligned(uintptr_t v, uintptr_t page)
{
	return !(v & (page - 1));
}

/* Rounded up; 0 where it overflows. */
static uintptr_t up(uintptr_t v, uintptr_t page)
{
	return (v + page - 1) & ~(page - 1);
}

/* Without the bits that linear address masking lets a program keep in its pointers. */
static uintptr_t untag(uintptr_t addr)
{
	uint64_t mask = ~0ul;

	if (addr >= SHUNT_MMU_TOP && !shunt_sys(SYS_arch_prctl, ARCH_GET_UNTAG_MASK_, &mask))
		addr &= mask;
	return addr;
}

/* Calls that walk through what there is: as far as there can be anything. Where that ends, or 0. */
static uintptr_t add_walk(struct shunt_mmu_found *f, uint32_t kind, uintptr_t start, uintptr_t length)
{
	uintptr_t end;

	length = up(length, SHUNT_MMU_PAGE);
	if (!aligned(start, SHUNT_MMU_PAGE) || start >= SHUNT_MMU_TOP || start + length < start)
		return 0;
	end = start + length < SHUNT_MMU_TOP ? start + length : SHUNT_MMU_TOP;
	shunt_mmu_found_add(f, kind, start, end);
	return end;
}

/* Calls that refuse a range that cannot be. */
static void add_exact(struct shunt_mmu_found *f, uint32_t kind, uintptr_t start, uintptr_t length)
{
	if (length <= SHUNT_MMU_TOP && start <= SHUNT_MMU_TOP - length)
		add_walk(f, kind, start, length);
}

static void add_everything(struct shunt_mmu_found *f, uint32_t kind)
{
	shunt_mmu_found_add(f, kind, 0, SHUNT_MMU_TOP);
}

/* --- what the arguments point to ------------------------------------------------------------- */

/* The page, by a call that reads eight bytes of it, unless they are at 0, and then refuses what it is asked for. */
static bool is_readable(uintptr_t at)
{
	return shunt_sys(SYS_rt_sigprocmask, -1, (at & ~15ul) + 8, NULL, 8) != -EFAULT;
}

/*
 * The fast way needs more rights than the call does (memory that may only be written, a device's), and sandboxes
 * refuse it. The other one opens nothing, so that it does not fail where there are no descriptors.
 */
bool shunt_mmu_fetch(void *to, uintptr_t from, size_t n)
{
	struct iovec here = {to, n}, there = {(void *)from, n};
	uintptr_t at = from;

	if (shunt_sys(SYS_process_vm_readv, shunt_sys(SYS_getpid), &here, 1, &there, 1, 0) == (long)n)
		return true;
	if (from + n < from)
		return false;
	for (; at < from + n; at = (at & ~(SHUNT_MMU_PAGE - 1)) + SHUNT_MMU_PAGE)
		if (!is_readable(at))
			return false;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return true;
}

/* --- mappings ---------------------------------------------------------------------------------- */

/* The size of the pages that a mapping made by default with MAP_HUGETLB has. */
static uintptr_t default_huge(void)
{
	long fd = shunt_sys(SYS_memfd_create, "huge", MFD_HUGETLB | MFD_CLOEXEC);
	struct statfs s;
	uintptr_t page = HUGE_2M;

	if (shunt_sys_failed(fd))
		return page;
	if (!shunt_sys(SYS_fstatfs, fd, &s))
		page = (uintptr_t)s.f_bsize;
	shunt_sys(SYS_close, fd);
	return page;
}

static uintptr_t page_of_new(unsigned long flags, int fd)
{
	unsigned shift = (flags >> HUGE_SHIFT) & HUGE_MASK;
	struct statfs s;

	if (flags & MAP_ANONYMOUS) {
		if (!(flags & MAP_HUGETLB))
			return SHUNT_MMU_PAGE;
		return shift ? 1ul << shift : default_huge();
	}
	if (shunt_sys(SYS_fstatfs, fd, &s) || s.f_type != HUGETLBFS_MAGIC)
		return SHUNT_MMU_PAGE;
	return (uintptr_t)s.f_bsize;
}

static void decode_mmap(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t start = (uintptr_t)a[0], length = (uintptr_t)a[1];
	unsigned long flags = (unsigned long)a[3];

	if (!(flags & MAP_FIXED) || (flags & MAP_FIXED_NOREPLACE) || !length)
		return;
	length = up(length, SHUNT_MMU_PAGE);
	/* Lengths of huge pages are rounded up to whole ones. */
	if (aligned(start, HUGE_2M) && !aligned(length, HUGE_2M))
		length = up(length, page_of_new(flags, (int)a[4]));
	if (length)
		add_exact(f, SHUNT_MMU_UNMAP, start, length);
}

/* The same file, mapped over a part of itself: rounded down, unlike all others. */
static void decode_remap_file_pages(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t start = (uintptr_t)a[0] & ~(SHUNT_MMU_PAGE - 1);
	uintptr_t length = (uintptr_t)a[1] & ~(SHUNT_MMU_PAGE - 1);

	if (!a[2])
		add_exact(f, SHUNT_MMU_UNMAP, start, length);
}

struct move {
	uintptr_t from, old, new, to;
	unsigned long flags;
};

/* Its lengths in whole pages, as large as the mapping has them. */
static bool round_move(struct move *m)
{
	struct shunt_mmu_area a;
	uintptr_t page = SHUNT_MMU_PAGE;

	m->old = up(m->old, page);
	m->new = up(m->new, page);
	if (aligned(m->from, HUGE_2M) && !aligned(m->old | m->new, HUGE_2M) &&
	    shunt_mmu_area_find(m->from, &a) > 0 && a.start <= m->from) {
		if (a.page)
			page = a.page;
		else if (a.inode) /* not told: all huge pages are files' */
			page = aligned(m->from, HUGE_1G) ? HUGE_1G : HUGE_2M;
		m->old = up(m->old, page);
		m->new = up(m->new, page);
	}
	return m->new && m->old <= SHUNT_MMU_TOP && m->new <= SHUNT_MMU_TOP &&
	       m->from <= SHUNT_MMU_TOP - m->old;
}

static void move_to(const struct move *m, struct shunt_mmu_found *f)
{
	uintptr_t left = m->old < m->new ? m->old : m->new;

	if (!aligned(m->to, SHUNT_MMU_PAGE) || m->to > SHUNT_MMU_TOP - m->new ||
	    (m->from < m->to + m->new && m->to < m->from + m->old))
		return;
	shunt_mmu_found_add(f, SHUNT_MMU_REMAP, m->from, m->from + left);
	if (f->n)
		f->r[0].new_start = m->to;
	shunt_mmu_found_add(f, SHUNT_MMU_UNMAP, m->from + left, m->from + m->old);
	shunt_mmu_found_add(f, SHUNT_MMU_UNMAP, m->to, m->to + m->new);
}

/* An old length of 0 maps a shared mapping a second time: nothing goes but the destination. */
static void decode_mremap(const long *a, struct shunt_mmu_found *f)
{
	struct move m = {untag((uintptr_t)a[0]), (uintptr_t)a[1], (uintptr_t)a[2],
		(uintptr_t)a[4], (unsigned long)a[3]};
	bool may_move = m.flags & MREMAP_MAYMOVE;

	if ((m.flags & ~(unsigned long)(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) ||
	    ((m.flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !may_move) ||
	    !aligned(m.from, SHUNT_MMU_PAGE) || !round_move(&m) ||
	    ((m.flags & MREMAP_DONTUNMAP) && m.old != m.new))
		return;
	if (m.flags & MREMAP_FIXED)
		move_to(&m, f);
	else if (m.old > m.new)
		shunt_mmu_found_add(f, SHUNT_MMU_UNMAP, m.from + m.new, m.from + m.old);
	else if (may_move && (m.old < m.new || (m.flags & MREMAP_DONTUNMAP)))
		shunt_mmu_found_add(f, SHUNT_MMU_REMAP, m.from, m.from + m.old);
}

/* PROT_GROWSDOWN begins where the mapping does; PROT_GROWSUP is refused here, nothing grows so. */
static void decode_mprotect(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t start = untag((uintptr_t)a[0]), length = (uintptr_t)a[1];
	struct shunt_mmu_area area;
	int r;

	if (a[2] & PROT_GROWSUP)
		return;
	if ((a[2] & PROT_GROWSDOWN) && length && aligned(start, SHUNT_MMU_PAGE)) {
		r = shunt_mmu_area_find(start, &area);
		if (r < 0)
			area.start = 0;
		if (r && area.start < start) {
			length += start - area.start;
			start = area.start;
		}
	}
	add_walk(f, SHUNT_MMU_PROTECT, start, length);
}

/* Given 0 it only tells. The heap's end need not be at the end of a page. */
static void decode_brk(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t now, wanted = (uintptr_t)a[0];

	if (!wanted)
		return;
	now = (uintptr_t)shunt_sys(SYS_brk, 0);
	if (wanted < now)
		shunt_mmu_found_add(f, SHUNT_MMU_UNMAP, up(wanted, SHUNT_MMU_PAGE),
			up(now, SHUNT_MMU_PAGE));
}

static void decode_shmat(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t addr = (uintptr_t)a[1], page = SHUNT_MMU_PAGE;
	struct shmid_ds s;

	if (!(a[2] & SHM_REMAP))
		return;
	if (a[2] & SHM_RND)
		addr &= ~(SHUNT_MMU_PAGE - 1);
	if (!addr || shunt_sys(SYS_shmctl, a[0], IPC_STAT, &s))
		return;
	/* Whether it is made of huge pages nobody tells; they are only where a huge page can begin. */
	if (aligned(addr, HUGE_2M) && !aligned(s.shm_segsz, HUGE_2M))
		page = aligned(addr, HUGE_1G) ? HUGE_1G : HUGE_2M;
	add_exact(f, SHUNT_MMU_UNMAP, addr, up(s.shm_segsz, page));
}

static void decode_shmdt(const long *a, struct shunt_mmu_found *f)
{
	if (aligned((uintptr_t)a[0], SHUNT_MMU_PAGE))
		f->n = shunt_mmu_shm_range((uintptr_t)a[0], f->r);
}

/* --- advice ------------------------------------------------------------------------------------ */

/* Every other mapping of the files that are mapped in [start, end), where it shows the same bytes. */
static void add_elsewhere(uintptr_t start, uintptr_t end, struct shunt_mmu_found *f)
{
	struct shunt_mmu_areas all;
	struct shunt_mmu_area a;
	struct shunt_mmu_file file = {.any_device = false};
	uint64_t from;
	int r = shunt_mmu_areas_open(&all);

	if (!r) {
		while ((r = shunt_mmu_areas_next(&all, start, true, &a)) > 0 && a.start < end) {
			file.inode = a.inode;
			file.major = a.major;
			file.minor = a.minor;
			from = a.offset + (start > a.start ? start - a.start : 0);
			start = a.end < end ? a.end : end;
			shunt_mmu_file_find(&file, from, a.offset + (start - a.start), f);
			if (start == end)
				break;
		}
		shunt_mmu_areas_close(&all);
	}
	if (r < 0)
		add_everything(f, SHUNT_MMU_DISCARD);
}

enum what { NOTHING, HERE, FILE_TOO };

/*
 * All others leave the contents as they are. Those that only exchange the frame for one with the same contents
 * (PAGEOUT, COLD, COLLAPSE, MERGEABLE and UNMERGEABLE, SOFT_OFFLINE) let pages alone that
 * somebody holds through a translation of the kernel's; a translation that is not the kernel's
 * leads through the address. GUARD_REMOVE opens what had no translation. POPULATE_WRITE does what a
 * write to the memory does, which nobody is told of either.
 */
static enum what advice(long number)
{
	switch ((int)number) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_FREE:
	case GUARD_INSTALL:
		return HERE;
	case MADV_REMOVE:   /* a hole in the file */
	case MADV_HWPOISON: /* the frame is lost to all who map it */
		return FILE_TOO;
	}
	return NOTHING;
}

static void add_advice(uintptr_t start, uintptr_t length, enum what what, struct shunt_mmu_found *f)
{
	uintptr_t end;

	start = untag(start);
	end = add_walk(f, SHUNT_MMU_DISCARD, start, length);
	if (what == FILE_TOO && start < end)
		add_elsewhere(start, end, f);
}

static void decode_madvise(const long *a, struct shunt_mmu_found *f)
{
	enum what what = advice(a[2]);

	if (what != NOTHING)
		add_advice((uintptr_t)a[0], (uintptr_t)a[1], what, f);
}

/*
 * Whose memory it is about is not asked: advice that discards is refused for any but one's own
 * (and altogether before 6.13).
 */
static void decode_process_madvise(const long *a, struct shunt_mmu_found *f)
{
	uintptr_t vector = (uintptr_t)a[1], n = (uintptr_t)a[2], i, j, m;
	struct iovec v[SLICE];
	enum what what = advice(a[3]);

	if (what == NOTHING || (unsigned)a[4] || n > VECTORS)
		return;
	for (i = 0; i < n; i += m) {
		m = n - i < SLICE ? n - i : SLICE;
		if (!shunt_mmu_fetch(v, vector + i * sizeof(v[0]), m * sizeof(v[0]))) {
			f->n = 0;
			return;
		}
		for (j = 0; j < m; j++)
			add_advice((uintptr_t)v[j].iov_base, v[j].iov_len, what, f);
	}
}

/* --- files --------------------------------------------------------------------------------------- */

/* The file is cut off at `size`. The rest of a page that is cut through becomes zeroes. */
static void cut(int fd, uint64_t size, struct shunt_mmu_found *f)
{
	struct stat s;

	if (!shunt_sys(SYS_fstat, fd, &s) && S_ISREG(s.st_mode) && size < (uint64_t)s.st_size)
		shunt_mmu_fd_find(fd, size, UINT64_MAX, f);
}

/* As cut(), of what open() with O_PATH returned: an error of the call's own, or one of ours. */
static void cut_opened(long fd, uint64_t size, struct shunt_mmu_found *f)
{
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM) {
		add_everything(f, SHUNT_MMU_DISCARD);
	} else if (!shunt_sys_failed(fd)) {
		cut((int)fd, size, f);
		shunt_sys(SYS_close, fd);
	}
}

static void decode_truncate(const long *a, struct shunt_mmu_found *f)
{
	if (a[1] >= 0)
		cut_opened(shunt_sys(SYS_openat, AT_FDCWD, a[0], O_PATH | O_CLOEXEC, 0),
			(uint64_t)a[1], f);
}

static void decode_ftruncate(const long *a, struct shunt_mmu_found *f)
{
	if (a[1] >= 0)
		cut((int)a[0], (uint64_t)a[1], f);
}

/* Whether open() with these flags can cut a file off that is there already. */
static bool cuts(uint64_t flags)
{
	return (flags & O_TRUNC) && !(flags & (O_PATH | O_DIRECTORY | TMPFILE_BIT)) &&
	       (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
}

static void decode_open(long dirfd, long path, uint64_t flags, struct shunt_mmu_found *f)
{
	if (cuts(flags))
		cut_opened(shunt_sys(SYS_openat, dirfd, path,
				   O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW), 0),
			0, f);
}

static void decode_openat2(const long *a, struct shunt_mmu_found *f)
{
	struct open_how how;

	if ((uintptr_t)a[3] < sizeof(how) || !shunt_mmu_fetch(&how, (uintptr_t)a[2], sizeof(how)) ||
		!cuts(how.flags))
		return;
	how.flags = O_PATH | O_CLOEXEC | (how.flags & O_NOFOLLOW);
	how.mode = 0;
	cut_opened(shunt_sys(SYS_openat2, a[0], a[1], &how, sizeof(how)), 0, f);
}

static void decode_open_by_handle(const long *a, struct shunt_mmu_found *f)
{
	if (cuts((uint32_t)a[2]))
		cut_opened(shunt_sys(SYS_open_by_handle_at, a[0], a[1], O_PATH | O_CLOEXEC), 0, f);
}

/* Beyond its end a file has no pages; what is behind a part that is taken out or put in moves. */
static void decode_fallocate(const long *a, struct shunt_mmu_found *f)
{
	uint64_t from = (uint64_t)a[2], to = from + (uint64_t)a[3];
	int fd = (int)a[0], mode = (int)a[1];
	struct stat s;

	if (a[2] < 0 || a[3] <= 0 || (int64_t)to < 0 || shunt_sys(SYS_fstat, fd, &s) ||
	    (S_ISREG(s.st_mode) && from >= (uint64_t)s.st_size))
		return;
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		to = UINT64_MAX;
	else if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | WRITE_ZEROES)))
		return;
	shunt_mmu_fd_find(fd, from, to, f);
}

/* --- processes ----------------------------------------------------------------------------------- */

static void decode_clone(uint64_t flags, struct shunt_mmu_found *f)
{
	if (!(flags & CLONE_VM))
		add_everything(f, SHUNT_MMU_FORK);
}

/* Its struct begins with the flags. */
static void decode_clone3(const long *a, struct shunt_mmu_found *f)
{
	uint64_t flags = 0;

	if ((uintptr_t)a[1] >= sizeof(flags) && shunt_mmu_fetch(&flags, (uintptr_t)a[0], sizeof(flags)))
		decode_clone(flags, f);
}

/* --- all of them --------------------------------------------------------------------------------- */

enum shunt_mmu_source shunt_mmu_source_of(long nr)
{
	switch (nr) {
	case SYS_munmap:
		return SHUNT_MMU_SRC_MUNMAP;
	case SYS_mmap:
	case SYS_remap_file_pages:
		return SHUNT_MMU_SRC_MMAP;
	case SYS_mremap:
		return SHUNT_MMU_SRC_MREMAP;
	case SYS_mprotect:
	case SYS_pkey_mprotect:
		return SHUNT_MMU_SRC_MPROTECT;
	case SYS_madvise:
		return SHUNT_MMU_SRC_MADVISE;
	case SYS_process_madvise:
		return SHUNT_MMU_SRC_PROCESS_MADVISE;
	case SYS_brk:
		return SHUNT_MMU_SRC_BRK;
	case SYS_shmat:
	case SYS_shmdt:
		return SHUNT_MMU_SRC_SHM;
	case SYS_truncate:
	case SYS_ftruncate:
	case SYS_open:
	case SYS_creat:
	case SYS_openat:
	case SYS_openat2:
	case SYS_open_by_handle_at:
		return SHUNT_MMU_SRC_TRUNCATE;
	case SYS_fallocate:
		return SHUNT_MMU_SRC_FALLOCATE;
	case SYS_fork:
	case SYS_clone:
	case SYS_clone3:
		return SHUNT_MMU_SRC_FORK;
	case SYS_execve:
	case SYS_execveat:
		return SHUNT_MMU_SRC_EXEC;
	case SYS_exit_group:
		return SHUNT_MMU_SRC_EXIT;
	}
	return SHUNT_MMU_SOURCES;
}

bool shunt_mmu_interesting(long nr)
{
	return shunt_mmu_source_of(nr) != SHUNT_MMU_SOURCES;
}

static void decode_memory(const struct shunt_mmu_call *c, struct shunt_mmu_found *f)
{
	const long *a = c->a;

	switch (c->nr) {
	case SYS_munmap:
		add_exact(f, SHUNT_MMU_UNMAP, untag((uintptr_t)a[0]), (uintptr_t)a[1]);
		break;
	case SYS_mmap:
		decode_mmap(a, f);
		break;
	case SYS_remap_file_pages:
		decode_remap_file_pages(a, f);
		break;
	case SYS_mremap:
		decode_mremap(a, f);
		break;
	case SYS_mprotect:
	case SYS_pkey_mprotect:
		decode_mprotect(a, f);
		break;
	case SYS_madvise:
		decode_madvise(a, f);
		break;
	case SYS_process_madvise:
		decode_process_madvise(a, f);
		break;
	case SYS_brk:
		decode_brk(a, f);
		break;
	case SYS_shmat:
		decode_shmat(a, f);
		break;
	case SYS_shmdt:
		decode_shmdt(a, f);
		break;
	}
}

static void decode_file(const struct shunt_mmu_call *c, struct shunt_mmu_found *f)
{
	const long *a = c->a;

	switch (c->nr) {
	case SYS_truncate:
		decode_truncate(a, f);
		break;
	case SYS_ftruncate:
		decode_ftruncate(a, f);
		break;
	case SYS_open:
		decode_open(AT_FDCWD, a[0], (uint32_t)a[1], f);
		break;
	case SYS_creat:
		decode_open(AT_FDCWD, a[0], O_CREAT | O_WRONLY | O_TRUNC, f);
		break;
	case SYS_openat:
		decode_open(a[0], a[1], (uint32_t)a[2], f);
		break;
	case SYS_openat2:
		decode_openat2(a, f);
		break;
	case SYS_open_by_handle_at:
		decode_open_by_handle(a, f);
		break;
	case SYS_fallocate:
		decode_fallocate(a, f);
		break;
	}
}

static void decode_process(const struct shunt_mmu_call *c, struct shunt_mmu_found *f)
{
	switch (c->nr) {
	case SYS_fork:
		decode_clone(0, f);
		break;
	case SYS_clone:
		decode_clone((uint64_t)c->a[0], f);
		break;
	case SYS_clone3:
		decode_clone3(c->a, f);
		break;
	case SYS_execve:
	case SYS_execveat:
		add_everything(f, SHUNT_MMU_EXEC);
		break;
	}
}

unsigned shunt_mmu_decode(const struct shunt_mmu_call *c, struct shunt_mmu_range r[SHUNT_MMU_RANGES])
{
	struct shunt_mmu_found f = {.r = r, .room = SHUNT_MMU_RANGES};

	decode_memory(c, &f);
	decode_file(c, &f);
	decode_process(c, &f);
	return f.n;
}
