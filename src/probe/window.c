/* SPDX-License-Identifier: MIT */
/*
 * window.c - executable memory at given addresses.
 *
 * A jump of five bytes in the place of an instruction of fewer has the bytes of
 * the next instruction for the upper part of its distance: it leads to one of 2^24,
 * 2^16, 2^8 or 1 addresses, which lie anywhere within 2 GiB. (The idea is that of
 * Duck, Gao and Roychoudhury, "Binary Rewriting without Control Flow Recovery",
 * PLDI 2020, there called punning.) What is mapped there is ours, or nobody's: then
 * the page is taken, except where the heap or the main thread's stack grow.
 *
 * Used intervals and pages are in two sorted arrays: there are some hundreds.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/text_sys.h"
#include "base/hold.h"
#include "probe/detour.h"
#include "text/text_internal.h"

#define PAGE 4096ul
#define HEAP_GROWTH (64ul << 20)
#define STACK_GROWTH (512ul << 20)
#define LOWEST 0x10000ul
#define HIGHEST 0x7ffffffff000ul

struct span {
	uintptr_t start, end;
};

struct spans {
	struct span *s; /* ascending, none touches another */
	size_t n, room;
};

static struct spans used, pages; /* pages: one each */
static struct shunt_hold lock = SHUNT_HOLD_INIT;
static void take_lock(void)
{
	shunt_hold_take(&lock);
}

static void give_lock(void)
{
	shunt_hold_give(&lock);
}

void shunt_window_at_fork(void)
{
	pthread_atfork(take_lock, give_lock, give_lock);
}

/* The first span that ends behind addr. */
static size_t find(const struct spans *v, uintptr_t addr)
{
	size_t lo = 0, hi = v->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (v->s[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int insert(struct spans *v, uintptr_t start, uintptr_t end)
{
	size_t at = find(v, start);

	if (v->n == v->room) {
		size_t room = v->room ? 2 * v->room : 64;
		struct span *s = realloc(v->s, room * sizeof *s);

		if (!s)
			return -ENOMEM;
		v->s = s;
		v->room = room;
	}
	memmove(&v->s[at + 1], &v->s[at], (v->n - at) * sizeof *v->s);
	v->s[at] = (struct span){start, end};
	v->n++;
	return 0;
}

static void erase(struct spans *v, size_t at)
{
	v->n--;
	memmove(&v->s[at], &v->s[at + 1], (v->n - at) * sizeof *v->s);
}

/* Where the program's own memory grows. */
static bool grows(uintptr_t page)
{
	uintptr_t brk = (uintptr_t)shunt_sys(SYS_brk, 0), stack = (uintptr_t)environ;

	return page - (brk - PAGE) < HEAP_GROWTH || stack - page < STACK_GROWTH;
}

static int take_page(uintptr_t page)
{
	size_t i = find(&pages, page);
	long p;
	int r;

	if (i < pages.n && pages.s[i].start == page)
		return 0;
	if (page < LOWEST || page >= HIGHEST || grows(page))
		return -ENOMEM;
	p = shunt_sys(SYS_mmap, page, PAGE, PROT_READ | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p != (long)page) {
		if (!shunt_sys_failed(p))
			shunt_sys(SYS_munmap, p, PAGE);
		return -ENOMEM;
	}
	r = insert(&pages, page, page + PAGE);
	if (r)
		shunt_sys(SYS_munmap, page, PAGE);
	return r;
}

/* Gives pages back on which nothing is used any more. */
static void drop_pages(uintptr_t from, uintptr_t to)
{
	for (uintptr_t page = from & -PAGE; page < to; page += PAGE) {
		size_t u = find(&used, page), i = find(&pages, page);

		if (u < used.n && used.s[u].start < page + PAGE)
			continue;
		if (i < pages.n && pages.s[i].start == page) {
			erase(&pages, i);
			shunt_sys(SYS_munmap, page, PAGE);
		}
	}
}

static int take(uintptr_t at, size_t size)
{
	int r = 0;

	for (uintptr_t page = at & -PAGE; page < at + size && !r; page += PAGE)
		r = take_page(page);
	if (!r)
		r = insert(&used, at, at + size);
	if (r)
		drop_pages(at, at + size);
	return r;
}

/* The next address from `at` at which size bytes are not used by us. */
static uintptr_t next_free(uintptr_t at, size_t size)
{
	for (size_t i = find(&used, at); i < used.n && used.s[i].start < at + size; i++)
		at = used.s[i].end;
	return at;
}

int shunt_window_alloc(struct shunt_zone *zone, uintptr_t lo, uintptr_t hi, size_t size)
{
	int r = -ENOMEM;

	take_lock();
	/* First on pages that are ours already, then anywhere; not forever. */
	for (size_t i = find(&pages, lo); i < pages.n && pages.s[i].start <= hi && r; i++) {
		uintptr_t from = pages.s[i].start > lo ? pages.s[i].start : lo;
		uintptr_t at = next_free(from, size);

		if (at <= hi && at + size <= pages.s[i].end)
			r = take(at, size);
		if (!r)
			zone->start = at;
	}
	for (uintptr_t at = next_free(lo, size), n = 0; at <= hi && r && n < 64; n++) {
		r = take(at, size);
		zone->start = at;
		at = next_free((at + PAGE + size - 1) & -PAGE, size);
	}
	give_lock();
	zone->end = zone->start + size;
	return r;
}

void shunt_window_free(const struct shunt_zone *zone)
{
	uint8_t poison[SHUNT_DETOUR_MAX];
	size_t i;

	memset(poison, 0xcc, sizeof poison);
	shunt_text_write_private((void *)zone->start, poison, zone->end - zone->start);
	take_lock();
	i = find(&used, zone->start);
	if (i < used.n && used.s[i].start == zone->start)
		erase(&used, i);
	drop_pages(zone->start, zone->end);
	give_lock();
}

bool shunt_window_owns(uintptr_t addr)
{
	bool yes;
	size_t i;

	take_lock();
	i = find(&pages, addr);
	yes = i < pages.n && pages.s[i].start <= addr;
	give_lock();
	return yes;
}
