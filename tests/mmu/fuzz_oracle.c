/* SPDX-License-Identifier: MIT */
/* fuzz_oracle.c - the notifiers of the fuzzer */
#include "fuzz_oracle.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct region regions[WORKERS][REGIONS];
_Thread_local int self = -1;
_Thread_local const char *doing = "";
bool forked;
struct verdict *verdict;
uintptr_t window;
atomic_uint window_starts[WORKERS], window_ends[WORKERS];

void fail(const char *fmt, ...)
{
	va_list ap;

	if (!atomic_flag_test_and_set(&verdict->said)) {
		va_start(ap, fmt);
		vsnprintf(verdict->text, sizeof(verdict->text), fmt, ap);
		va_end(ap);
	}
	_exit(1);
}

/* Two pairs that are open at the same time on the same range have the same, and are two in the sum. */
static unsigned long hash(const struct shunt_mmu_event *e)
{
	unsigned long h = e->start * 0x9e3779b97f4a7c15ul ^ (e->end + e->kind) * 0xc2b2ae3d27d4eb4ful;

	return (h ^ h >> 29) * 0xbf58476d1ce4e5b9ul | 1;
}

static unsigned roll(struct watcher *w)
{
	unsigned v = atomic_fetch_add_explicit(&w->seed, 0x9e3779b9u, memory_order_relaxed);

	v = (v ^ v >> 16) * 0x7feb352du;
	return (v ^ v >> 15) * 0x846ca68bu >> 8;
}

static void check_event(const struct watcher *w, const struct shunt_mmu_event *e, bool end)
{
	if (forked)
		fail("a callback ran in a child of fork()");
	if (w->gone)
		fail("a callback after unregister");
	if (e->start >= e->end || (e->start | e->end) % PAGE || e->kind >= SHUNT_MMU_KINDS)
		fail("an event of [%lx, %lx), kind %u", e->start, e->end, e->kind);
	if (w->n.kinds && !(w->n.kinds >> e->kind & 1))
		fail("an event of kind %u that was not asked for", e->kind);
	if (!end && e->flags & SHUNT_MMU_FAILED)
		fail("a start that failed");
	if (w->n.flags & SHUNT_MMU_DIRECT && e->flags & SHUNT_MMU_HANDED)
		fail("a direct notifier was called on the library's thread");
}

/* The owner itself makes the change: until this returns, the memory is as it left it. */
static void check_before(const struct region *r, const struct shunt_mmu_event *e)
{
	uintptr_t start = r->start;
	unsigned long expect = r->expect;

	/* A callback's own mapping may lie where the region had a page, and go from there. */
	if (!expect || e->flags & (SHUNT_MMU_LATE | SHUNT_MMU_HANDED | SHUNT_MMU_NESTED))
		return;
	for (unsigned p = 0; p < PAGES; p++) {
		uintptr_t at = start + p * PAGE;

		if (at >= e->start && at < e->end && *(volatile unsigned long *)at != expect + p * (PAGE / 8))
			fail("%s: a start of kind %u, [%lx, %lx), found page %u of a region at %lx changed already",
				doing, e->kind, e->start, e->end, p, start);
	}
}

static void mark(const struct shunt_mmu_event *e)
{
	for (int w = 0; w < WORKERS; w++)
		for (struct region *r = regions[w]; r < regions[w] + REGIONS; r++) {
			uintptr_t start = r->start;

			if (!start || e->start >= start + LENGTH || start >= e->end)
				continue;
			r->told++;
			if (w == self)
				check_before(r, e);
		}
}

static bool in_window(const struct shunt_mmu_event *e)
{
	return self >= 0 && e->start < window + (unsigned)(self + 1) * WINDOW_SIZE &&
		e->end > window + (unsigned)self * WINDOW_SIZE && e->end - e->start <= WINDOW_SIZE;
}

/* What callbacks may do: all. */
static void work(struct watcher *w)
{
	void *p;

	if (!w->busy || roll(w) % w->busy)
		return;
	p = malloc(roll(w) % 200000);
	if (roll(w) % 4 == 0) {
		void *m = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(m, PAGE);
	}
	free(p);
}

static void quit(struct watcher *w, const struct shunt_mmu_event *e)
{
	if (e->flags & SHUNT_MMU_NESTED || !w->quits_in || roll(w) % w->quits_in || shunt_mmu_notifier_unregister(&w->n))
		return;
	w->gone = true;
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct watcher *w = (struct watcher *)n;

	w->inside++;
	check_event(w, e, false);
	w->open += hash(e);
	if (w->oracle) {
		verdict->events++; /* roughly */
		verdict->late += !!(e->flags & SHUNT_MMU_LATE);
		verdict->handed += !!(e->flags & SHUNT_MMU_HANDED);
		mark(e);
		if (in_window(e))
			window_starts[self]++;
	}
	work(w);
	quit(w, e);
	w->inside--;
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct watcher *w = (struct watcher *)n;

	w->inside++;
	check_event(w, e, true);
	w->open -= hash(e);
	if (w->oracle && in_window(e)) {
		if (!(e->flags & SHUNT_MMU_FAILED))
			fail("the end of a refused call does not say that it failed");
		window_ends[self]++;
	}
	work(w);
	quit(w, e);
	w->inside--;
}

static void release(struct shunt_mmu_notifier *n)
{
	struct watcher *w = (struct watcher *)n;

	if (forked)
		fail("release in a child of fork()");
	if (w->releases++)
		fail("a second release");
	verdict->released++;
}

static const struct shunt_mmu_notifier_ops ops = {
	.release = release, .invalidate_range_start = start, .invalidate_range_end = end,
};

int watcher_on(struct watcher *w, uint32_t kinds, uint32_t flags)
{
	int r;

	w->n = (struct shunt_mmu_notifier){.ops = &ops, .kinds = kinds, .flags = flags};
	w->open = 0;
	w->releases = 0;
	w->gone = false;
	verdict->registered++;
	r = shunt_mmu_notifier_register(&w->n);
	if (r)
		verdict->registered--;
	else
		w->state = WATCHER_ON;
	return r;
}

/* Pairs that were open when it left from inside of a callback, on whatever thread, have no end. */
void watcher_off(struct watcher *w)
{
	int r = shunt_mmu_notifier_unregister(&w->n);
	bool quits = r == -ENOENT && w->quits_in;

	/* It is about to leave, or has left: nobody waits for the callback that it does it in. */
	while (quits && (!w->gone || w->inside))
		sched_yield();
	if (r && !quits)
		fail("unregister: %s", strerror(-r));
	w->gone = true;
	if (w->inside)
		fail("a callback runs after unregister");
	if (w->releases != 1)
		fail("%u releases after unregister", w->releases);
	if (w->open && !quits)
		fail("a start has no end");
	verdict->self_quits += quits;
	w->state = WATCHER_OFF;
}

static void touched(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	struct region *r = (struct region *)((char *)i - offsetof(struct region, interval));

	(void)seq;
	if (forked)
		fail("an interval's callback ran in a child of fork()");
	if (e->start >= i->start + i->length || i->start >= e->end)
		fail("an interval was told of what is not in it");
	r->interval_told++;
}

static const struct shunt_mmu_interval_ops interval_ops = {.invalidate = touched};

int region_listen(struct region *r)
{
	r->interval = (struct shunt_mmu_interval){.ops = &interval_ops};
	return shunt_mmu_interval_insert(&r->interval, r->start, LENGTH);
}

void region_ignore(struct region *r)
{
	int err = shunt_mmu_interval_remove(&r->interval);

	if (err)
		fail("an interval cannot be removed: %s", strerror(-err));
}
