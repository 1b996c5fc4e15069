/* SPDX-License-Identifier: MIT */
/*
 * near.c - memory that relative branches reach, and writing to it.
 *
 * The room is taken just below the object where there is any: what lies there
 * grows towards the object only as a heap does, and the block keeps to the
 * upper end of the gap. Above the object the block goes as far up as branches
 * reach, since directly above a program's data its heap (brk) grows, and never
 * directly below the main stack.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "text/maps.h"
#include "text/text_internal.h"

/* The reach of rel32, less a bit for the branch itself. */
#define REACH 0x7fff0000ul
#define LOWEST 0x10000ul
#define HIGHEST 0x7ffffffff000ul
#define PAGE 4096ul

struct gap {
	uintptr_t below, above; /* starts of the blocks to try; 0 = none */
};

static bool is_stack(struct shunt_maps *m, const struct shunt_vma *v)
{
	char name[32];

	if (v->inode)
		return false;
	return !shunt_maps_name(m, v->start, name, sizeof name) && !strcmp(name, "[stack]");
}

/* Looks at one gap [from, to) that a mapping or the end of the window closes. */
static void consider(struct gap *g, uintptr_t from, uintptr_t to, bool stack, uintptr_t lo,
	size_t size)
{
	if (to <= from || to - from < size)
		return;
	if (to <= lo)
		g->below = to - size; /* the highest one wins: it comes last */
	else if (from >= lo && !stack)
		g->above = to - size;
}

static int find_gap(uintptr_t lo, uintptr_t hi, size_t size, struct gap *g)
{
	uintptr_t first = hi > REACH + LOWEST ? hi - REACH : LOWEST;
	uintptr_t last = lo + REACH < HIGHEST ? lo + REACH : HIGHEST;
	uintptr_t at = (first + PAGE - 1) & -PAGE;
	struct shunt_maps m;
	struct shunt_vma v;
	int r = shunt_maps_open(&m);

	*g = (struct gap){0};
	if (r)
		return r;
	last &= -PAGE;
	while (at < last) {
		bool end = shunt_maps_find(&m, at, &v) != 0;
		uintptr_t to = end || v.start > last ? last : v.start;

		if (to > at)
			consider(g, at, to, !end && is_stack(&m, &v), lo, size);
		if (end)
			break;
		at = v.end;
	}
	shunt_maps_close(&m);
	return 0;
}

int shunt_text_alloc_near(uintptr_t lo, uintptr_t hi, size_t size, void **out)
{
	size = (size + PAGE - 1) & -PAGE;
	if (!size || lo >= hi || size > REACH || hi - lo > REACH - size)
		return -EINVAL;
	for (int tries = 0; tries < 16; tries++) {
		struct gap g;
		uintptr_t at;
		long p;
		int r = find_gap(lo, hi, size, &g);

		if (r)
			return r;
		at = g.below ? g.below : g.above;
		if (!at)
			return -ENOMEM;
		p = shunt_sys(SYS_mmap, at, size, PROT_READ | PROT_EXEC,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (p == (long)at) {
			*out = (void *)at;
			return 0;
		}
		/* A kernel that knows no NOREPLACE takes the address as a hint. */
		if (!shunt_sys_failed(p))
			shunt_sys(SYS_munmap, p, size);
		else if (p != -EEXIST)
			return (int)p;
	}
	return -ENOMEM;
}

static int write_mem(void *dst, const void *src, size_t n)
{
	long fd = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/mem", O_RDWR | O_CLOEXEC);
	size_t done = 0;
	long r = 0;

	if (fd < 0)
		return (int)fd;
	while (done < n) {
		r = shunt_sys(SYS_pwrite64, fd, (const char *)src + done, n - done,
			(uintptr_t)dst + done);
		if (r <= 0)
			break;
		done += (size_t)r;
	}
	shunt_sys(SYS_close, fd);
	return done == n ? 0 : r ? (int)r : -EIO;
}

/* Other code in these pages may be running, so they stay executable. */
static int write_mprotect(void *dst, const void *src, size_t n)
{
	uintptr_t from = (uintptr_t)dst & -PAGE;
	size_t len = (((uintptr_t)dst + n + PAGE - 1) & -PAGE) - from;
	long r = shunt_sys(SYS_mprotect, from, len, PROT_READ | PROT_WRITE | PROT_EXEC);

	if (r)
		return (int)r;
	memcpy(dst, src, n);
	return (int)shunt_sys(SYS_mprotect, from, len, PROT_READ | PROT_EXEC);
}

int shunt_text_write_private(void *dst, const void *src, size_t n)
{
	int r = n ? write_mem(dst, src, n) : 0;

	return r ? write_mprotect(dst, src, n) : 0;
}

bool shunt_text_single_threaded(void)
{
	struct shunt_status s;

	return !shunt_status_read(&s) && s.threads == 1;
}
