/* SPDX-License-Identifier: MIT */
/* fuzz_region.c - regions, what the ring has of them, and what must have been told when it is behind. */
#include "fuzz_ops.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

atomic_uint epoch;
atomic_bool quiet;
int source_file;
struct shunt_mmu_coverage coverage;

static uint64_t roll(struct worker *w)
{
	uint64_t z = (w->seed += 0x9e3779b97f4a7c15ul);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	z = (z ^ z >> 27) * 0x94d049bb133111ebul;
	return z ^ z >> 31;
}

unsigned upto(struct worker *w, unsigned n)
{
	return (unsigned)(roll(w) >> 16) % n;
}

struct region *region(struct worker *w, unsigned i)
{
	return &regions[w->number][i];
}

unsigned slot(struct worker *w, const struct region *r)
{
	return (unsigned)(r - regions[w->number]);
}

void *at(const struct region *r, unsigned pagenr)
{
	return (void *)(r->start + pagenr * PAGE);
}

size_t some(struct worker *w, unsigned *a, unsigned *b)
{
	*a = upto(w, PAGES);
	*b = *a + 1 + upto(w, PAGES - *a);
	if (!upto(w, 3)) {
		*a = 0;
		*b = PAGES;
	}
	return (*b - *a) * PAGE;
}

void listen_or_not(struct worker *w, struct region *r)
{
	bool wanted = slot(w, r) % 2 == 0 && !quiet;
	int err = 0;

	if (wanted && !r->listening)
		err = region_listen(r);
	else if (!wanted && r->listening)
		region_ignore(r);
	if (err)
		fail("an interval: %s", strerror(-err));
	r->listening = wanted;
}

void enlist(struct worker *w, struct region *r)
{
	int err;

	listen_or_not(w, r);
	r->epoch = epoch;
	r->told = r->interval_told = 0;
	if (r->listening)
		r->seq = shunt_mmu_interval_read_begin(&r->interval);
	err = uring_set(&w->ring, slot(w, r), at(r, 0), LENGTH);
	if (err)
		fail("%s: a region of %s cannot be registered with the ring: %s", w->doing,
			r->handle ? "malloc's or dlopen's" : "ours", strerror(-err));
}

void move(struct worker *w, struct region *r, uintptr_t to)
{
	if (r->listening)
		region_ignore(r);
	r->listening = false;
	r->start = to;
	enlist(w, r);
}

unsigned transfer(struct worker *w, struct region *r)
{
	uint64_t base = upto(w, 4096);
	volatile uint64_t *word = at(r, 0);
	unsigned astray = 0;
	int n;

	r->expect = 0;
	n = uring_read(&w->ring, slot(w, r), at(r, 0), LENGTH, source_file, base * 8);
	if (n != (int)LENGTH)
		fail("%s: a read through the ring: %s", w->doing, n < 0 ? strerror(-n) : "short");
	for (unsigned p = 0; p < PAGES; p++)
		if (word[p * 512] != base + p * 512 + 1 || word[p * 512 + 511] != base + p * 512 + 512)
			astray |= 1u << p;
	if (!astray)
		r->expect = base + 1;
	return astray;
}

static bool excused(const struct worker *w, const struct region *r)
{
	return r->epoch % 2 || r->epoch != epoch || coverage.source[w->source].when != SHUNT_MMU_SEEN_BEFORE;
}

void must_be_told(struct worker *w, struct region *r, const char *what)
{
	if (r->handle)
		shunt_mmu_sync();
	if (!r->told && !excused(w, r))
		fail("%s (%s): %s, and no notifier was told", w->doing, shunt_mmu_source_name(w->source), what);
	if (r->listening && coverage.source[w->source].when == SHUNT_MMU_SEEN_BEFORE &&
	    (!r->interval_told || !shunt_mmu_interval_read_retry(&r->interval, r->seq)))
		fail("%s (%s): %s, and the interval was not told", w->doing, shunt_mmu_source_name(w->source), what);
	verdict->unseen += !r->told;
}

bool judge(struct worker *w, struct region *r)
{
	unsigned astray = transfer(w, r);

	if (astray)
		must_be_told(w, r, "stale data");
	if (astray || r->told || r->interval_told || r->epoch != epoch || !upto(w, 8)) {
		enlist(w, r);
		if (transfer(w, r))
			fail("%s: a buffer that was registered just now is stale", w->doing);
	}
	return astray;
}

void *anonymous(void *where, size_t length, int flags)
{
	return mmap(where, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

void refill(struct worker *w, struct region *r, unsigned a, unsigned b)
{
	char *p;

	if (a == b || anonymous(at(r, a), (b - a) * PAGE, MAP_FIXED_NOREPLACE) == at(r, a))
		return;
	must_be_told(w, r, "pages are gone");
	r->expect = 0;
	if (a)
		munmap(at(r, 0), a * PAGE);
	if (b < PAGES)
		munmap(at(r, b), (PAGES - b) * PAGE);
	p = anonymous(NULL, LENGTH, 0);
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	move(w, r, (uintptr_t)p);
}
