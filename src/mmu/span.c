/* SPDX-License-Identifier: MIT */
/*
 * span.c - sorted ranges of addresses in one array: found by halving, changed by moving what is behind.
 *
 * The array is mapped, not allocated: the thread that reads the kernel's events changes it while others sleep in
 * the kernel until they are read, with malloc's locks held maybe.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "mmu/watch.h"

int shunt_mmu_spans_reserve(struct shunt_mmu_spans *l, size_t more)
{
	size_t room = l->room ? l->room : 2048 / sizeof *l->s;
	long p;

	if (l->n + more <= l->room)
		return 0;
	while (room < l->n + more)
		room *= 2;
	p = shunt_sys(SYS_mmap, 0, room * sizeof *l->s, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shunt_sys_failed(p))
		return -ENOMEM;
	if (l->n)
		memcpy((void *)p, l->s, l->n * sizeof *l->s);
	if (l->s)
		shunt_sys(SYS_munmap, l->s, l->room * sizeof *l->s);
	l->s = (struct shunt_mmu_span *)p;
	l->room = room;
	return 0;
}

/* The first that ends behind `at`. */
static size_t find(const struct shunt_mmu_spans *l, uintptr_t at)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (l->s[mid].end <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* `new_n` of them instead of those from `at` to `to`. */
static void resize(struct shunt_mmu_spans *l, size_t at, size_t to, size_t new_n)
{
	memmove(&l->s[at + new_n], &l->s[to], (l->n - to) * sizeof *l->s);
	l->n = l->n - (to - at) + new_n;
}

void shunt_mmu_spans_add(struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end)
{
	size_t at = find(l, start - 1), to; /* also one that ends where this begins */

	for (to = at; to < l->n && l->s[to].start <= end; to++) {
		if (l->s[to].start < start)
			start = l->s[to].start;
		if (l->s[to].end > end)
			end = l->s[to].end;
	}
	resize(l, at, to, 1);
	l->s[at] = (struct shunt_mmu_span){start, end};
}

bool shunt_mmu_spans_cut(struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end)
{
	size_t at = find(l, start), to = at, n = 0;
	struct shunt_mmu_span left[2];
	bool fits = true;

	for (; to < l->n && l->s[to].start < end; to++) {
		if (l->s[to].start < start)
			left[n++] = (struct shunt_mmu_span){l->s[to].start, start};
		if (l->s[to].end > end)
			left[n++] = (struct shunt_mmu_span){end, l->s[to].end};
	}
	if (n > to - at && shunt_mmu_spans_reserve(l, 1)) {
		fits = false;
		n--;
	}
	resize(l, at, to, n);
	memcpy(&l->s[at], left, n * sizeof *left);
	return fits;
}

bool shunt_mmu_spans_first(const struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end,
	struct shunt_mmu_span *piece)
{
	size_t at = find(l, start);

	if (start >= end || at == l->n || l->s[at].start >= end)
		return false;
	piece->start = l->s[at].start > start ? l->s[at].start : start;
	piece->end = l->s[at].end < end ? l->s[at].end : end;
	return true;
}
