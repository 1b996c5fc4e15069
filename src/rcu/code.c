/* SPDX-License-Identifier: MIT */
/*
 * code.c - executable memory that can be freed.
 *
 * An arena is a block within reach of some text, cut into granules of 64 bytes. For
 * each granule there are three bits:
 *
 *   used   retired  first
 *    0        0       -     free; its bytes are int3
 *    1        0       b     allocated; b: an allocation begins here
 *    1        1       b     freed, a thread may still be in it; b: a freed range
 *                           begins here
 *
 * So freeing needs no memory and cannot fail, and any part of an allocation may be
 * freed on its own: many small ranges that were allocated, and written, as one.
 *
 * Invariant: a granule becomes free only after a look at all threads that began
 * after it was retired, its bytes were overwritten with int3, and all processors were
 * serialized, in this order. So nobody runs what was there before, and whoever
 * jumped there against the rules traps.
 *
 * Never writable: written through shunt_text_write_private(). Arenas stay: their
 * addresses are scarce, their memory is what is used again.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/hold.h"
#include "rcu/tasks.h"
#include "text/text_internal.h"

#define GRANULE 64ul
#define ARENA	(64ul << 10)
#define REACH	0x7fff0000ul
#define TRAP	0xcc
#define WORD	64ul

struct arena {
	struct arena *next;
	uintptr_t start;
	size_t n;	   /* granules */
	size_t unused;
	size_t run;	   /* no run of unused ones is longer */
	size_t retired_n;
	uint64_t *used, *retired, *first;
	struct freed {	   /* the range freed from this granule on */
		const char *name;
		uint64_t since;
	} *freed;
};

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct arena *arenas;
static size_t held, reserved;
size_t shunt_code_limit = 64ul << 20;

void shunt_code_lock(void)
{
	shunt_hold_take(&lock);
}

void shunt_code_unlock(void)
{
	shunt_hold_give(&lock);
}

/* --- bits ---------------------------------------------------------------------------- */

static void put(uint64_t *bits, size_t i, bool on)
{
	uint64_t bit = 1ull << i % WORD;

	bits[i / WORD] = on ? bits[i / WORD] | bit : bits[i / WORD] & ~bit;
}

static void put_run(uint64_t *bits, size_t from, size_t to, bool on)
{
	for (; from < to && from % WORD; from++)
		put(bits, from, on);
	for (; from + WORD <= to; from += WORD)
		bits[from / WORD] = on ? ~0ull : 0;
	for (; from < to; from++)
		put(bits, from, on);
}

/* The first granule from `from` on that is not as `value` says, at most n. */
static size_t run_end(const uint64_t *bits, size_t from, size_t n, bool value)
{
	while (from < n) {
		uint64_t w = (value ? ~bits[from / WORD] : bits[from / WORD]) >> from % WORD;

		if (w) {
			from += (size_t)__builtin_ctzll(w);
			break;
		}
		from = (from / WORD + 1) * WORD;
	}
	return from < n ? from : n;
}

/* A run of n unused granules; a->n if there is none, and how long the longest is. */
static size_t find_run(const struct arena *a, size_t n, size_t *longest)
{
	*longest = 0;
	for (size_t at = 0; (at = run_end(a->used, at, a->n, true)) < a->n;) {
		size_t end = run_end(a->used, at, a->n, false);

		if (end - at >= n)
			return at;
		if (end - at > *longest)
			*longest = end - at;
		at = end;
	}
	return a->n;
}

/* --- arenas -------------------------------------------------------------------------- */

/* Trap bytes over granules [from, to); a page of them at a time. */
static int poison(const struct arena *a, size_t from, size_t to)
{
	static uint8_t traps[4096];
	uintptr_t at = a->start + from * GRANULE, end = a->start + to * GRANULE;
	int r = 0;

	if (traps[0] != TRAP)
		memset(traps, TRAP, sizeof traps);
	for (; at < end && !r; at += sizeof traps) {
		size_t n = end - at < sizeof traps ? end - at : sizeof traps;

		r = shunt_text_write_private((void *)at, traps, n);
	}
	return r;
}

static bool within_reach(const struct arena *a, uintptr_t lo, uintptr_t hi)
{
	uintptr_t end = a->start + a->n * GRANULE;
	uintptr_t from = a->start < lo ? a->start : lo, to = end > hi ? end : hi;

	return to - from <= REACH;
}

static struct arena *arena_new(uintptr_t lo, uintptr_t hi, size_t size)
{
	size_t bytes = (size + ARENA - 1) / ARENA * ARENA, n = bytes / GRANULE;
	size_t words = (n + WORD - 1) / WORD;
	size_t meta = sizeof(struct arena) + 3 * words * 8 + n * sizeof(struct freed);
	struct arena *a;
	void *code;
	long p;

	if (shunt_text_alloc_near(lo, hi, bytes, &code))
		return NULL;
	p = shunt_sys(SYS_mmap, 0, meta, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shunt_sys_failed(p)) {
		shunt_sys(SYS_munmap, code, bytes);
		return NULL;
	}
	a = (struct arena *)p;
	*a = (struct arena){.start = (uintptr_t)code, .n = n, .unused = n, .run = n};
	a->used = (uint64_t *)(a + 1);
	a->retired = a->used + words;
	a->first = a->retired + words;
	a->freed = (struct freed *)(a->first + words);
	if (poison(a, 0, n)) {
		shunt_sys(SYS_munmap, code, bytes);
		shunt_sys(SYS_munmap, p, meta);
		return NULL;
	}
	a->next = arenas;
	arenas = a;
	reserved += bytes;
	return a;
}

static struct arena *arena_of(uintptr_t start, uintptr_t end)
{
	struct arena *a = arenas;

	while (a && (start < a->start || end > a->start + a->n * GRANULE))
		a = a->next;
	return a;
}

static uintptr_t take(struct arena *a, size_t at, size_t n)
{
	put_run(a->used, at, at + n, true);
	put(a->first, at, true);
	a->unused -= n;
	return a->start + at * GRANULE;
}

static uintptr_t find(uintptr_t lo, uintptr_t hi, size_t n)
{
	for (struct arena *a = arenas; a; a = a->next) {
		size_t at;

		if (a->unused < n || a->run < n || !within_reach(a, lo, hi))
			continue;
		at = find_run(a, n, &a->run);
		if (at < a->n) {
			a->run = a->unused;
			return take(a, at, n);
		}
	}
	return 0;
}

/* --- allocate, write, free -------------------------------------------------------------- */

int shunt_code_alloc(struct shunt_zone *zone, uintptr_t near_lo, uintptr_t near_hi, size_t size)
{
	size_t n = (size + GRANULE - 1) / GRANULE;
	struct arena *a;
	uintptr_t at;
	int r = 0;

	if (!size || near_lo >= near_hi || size > REACH || near_hi - near_lo > REACH - size)
		return -EINVAL;
	shunt_code_lock();
	at = held > shunt_code_limit ? 0 : find(near_lo, near_hi, n);
	if (!at && held <= shunt_code_limit) {
		a = arena_new(near_lo, near_hi, size);
		at = a ? take(a, 0, n) : 0;
	}
	if (at) {
		zone->start = at;
		zone->end = at + size;
	} else {
		r = -ENOMEM;
	}
	shunt_code_unlock();
	return r;
}

/* Granules [*from, *to) of the arena, all in use and none freed; NULL otherwise. */
static struct arena *in_use(uintptr_t start, uintptr_t end, size_t *from, size_t *to)
{
	struct arena *a;

	end = (end + GRANULE - 1) & -GRANULE;
	if (start % GRANULE || start >= end)
		return NULL;
	a = arena_of(start, end);
	if (!a)
		return NULL;
	*from = (start - a->start) / GRANULE;
	*to = (end - a->start) / GRANULE;
	if (run_end(a->used, *from, *to, true) < *to || run_end(a->retired, *from, *to, false) < *to)
		return NULL;
	return a;
}

bool shunt_code_owns(uintptr_t start, uintptr_t end)
{
	size_t from, to;
	bool r;

	shunt_code_lock();
	r = in_use(start & -GRANULE, end, &from, &to);
	shunt_code_unlock();
	return r;
}

int shunt_code_write(const struct shunt_zone *zone, size_t offset, const void *bytes, size_t n)
{
	size_t size = zone->end - zone->start;

	if (zone->start > zone->end || offset > size || n > size - offset)
		return -ERANGE;
	if (!n)
		return 0;
	if (!shunt_code_owns(zone->start + offset, zone->start + offset + n))
		return -EINVAL;
	return shunt_text_write_private((void *)(zone->start + offset), bytes, n);
}

static void retire(struct arena *a, size_t from, size_t to, const char *name)
{
	put_run(a->retired, from, to, true);
	put(a->first, from, true);
	a->freed[from] = (struct freed){name, shunt_now_ns()};
	a->retired_n += to - from;
	held += (to - from) * GRANULE;
}

int shunt_code_free(struct shunt_zone *zone)
{
	size_t from, to;
	struct arena *a;
	int r = -EINVAL;

	if (__atomic_load_n(&zone->begun, __ATOMIC_ACQUIRE) !=
		__atomic_load_n(&zone->ended, __ATOMIC_ACQUIRE))
		return -EBUSY;
	shunt_code_lock();
	a = in_use(zone->start, zone->end, &from, &to);
	if (a) {
		retire(a, from, to, zone->name);
		r = 0;
	}
	shunt_code_unlock();
	if (!r)
		shunt_tasks_kick();
	return r;
}

/* --- grace periods ----------------------------------------------------------------------- */

static int serialize(void)
{
	shunt_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	return (int)shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

static void make_free(struct arena *a, size_t from, size_t to)
{
	put_run(a->used, from, to, false);
	put_run(a->first, from, to, false);
	a->unused += to - from;
	a->run = a->unused;
}

int shunt_code_release(uintptr_t start, uintptr_t end)
{
	size_t from, to;
	struct arena *a;
	int r = -EINVAL;

	shunt_code_lock();
	a = in_use(start, end, &from, &to);
	if (a)
		r = poison(a, from, to);
	if (a && !r) {
		serialize();
		make_free(a, from, to);
	}
	shunt_code_unlock();
	return r;
}

/* Of the run of `bits` that goes on at from. */
static size_t range_end(const struct arena *a, const uint64_t *bits, size_t from)
{
	size_t end = run_end(bits, from, a->n, true);
	size_t next = run_end(a->first, from + 1, a->n, false);

	return next < end ? next : end;
}

/*
 * Where the code ends: behind it is what was never written. That address is one that
 * programs have on their stacks, as the zone's end; nobody returns to a breakpoint.
 */
static uintptr_t code_end(uintptr_t start, uintptr_t end)
{
	while (end > start + 1 && *(const uint8_t *)(end - 1) == TRAP)
		end--;
	return end;
}

static int add(struct shunt_spots *to, const struct arena *a, size_t from, size_t end,
	const struct freed *freed)
{
	uintptr_t start = a->start + from * GRANULE, upto = a->start + end * GRANULE;

	return shunt_spots_add(to, (struct shunt_spot){.start = start, .end = code_end(start, upto),
		.upto = upto, .name = freed->name, .since = freed->since});
}

int shunt_code_collect(struct shunt_spots *to)
{
	int r = 0;

	shunt_code_lock();
	for (struct arena *a = arenas; a && !r; a = a->next)
		for (size_t at = 0, end; a->retired_n && !r &&
			(at = run_end(a->retired, at, a->n, false)) < a->n; at = end) {
			end = range_end(a, a->retired, at);
			r = add(to, a, at, end, &a->freed[at]);
		}
	shunt_code_unlock();
	return r;
}

int shunt_code_existing(struct shunt_spots *to)
{
	int r = 0;

	shunt_code_lock();
	for (struct arena *a = arenas; a && !r; a = a->next)
		for (size_t at = 0, end; !r && (at = run_end(a->used, at, a->n, false)) < a->n;
			at = end) {
			end = range_end(a, a->used, at);
			r = add(to, a, at, end, &a->freed[at]);
		}
	shunt_code_unlock();
	return r;
}

static bool clear(const struct shunt_spot *s)
{
	return !s->zone && !s->tid;
}

static size_t granule(const struct arena *a, uintptr_t addr)
{
	return (addr - a->start) / GRANULE;
}

/* Neighbours go together, each write being a system call: the first one behind. */
static size_t neighbours(const struct shunt_spots *s, size_t i, const struct arena *a)
{
	uintptr_t end = a->start + a->n * GRANULE;

	for (i++; i < s->n && clear(&s->s[i]); i++)
		if (s->s[i].start != s->s[i - 1].upto || s->s[i].upto > end)
			break;
	return i;
}

static bool poison_clear(struct shunt_spots *s)
{
	bool any = false;

	for (size_t i = 0, j; i < s->n; i = j) {
		struct arena *a = clear(&s->s[i]) ? arena_of(s->s[i].start, s->s[i].upto) : NULL;

		j = a ? neighbours(s, i, a) : i + 1;
		if (!a)
			continue;
		any = true;
		/* What cannot be overwritten is kept: it may work another time. */
		if (poison(a, granule(a, s->s[i].start), granule(a, s->s[j - 1].upto)))
			for (size_t k = i; k < j; k++)
				s->s[k].tid = -1;
	}
	return any;
}

static void settle_one(struct arena *a, size_t from, size_t to)
{
	put_run(a->retired, from, to, false);
	a->retired_n -= to - from;
	held -= (to - from) * GRANULE;
	make_free(a, from, to);
}

/* Poisoned, all of it, then serialized once, then free. */
void shunt_code_settle(struct shunt_spots *s)
{
	shunt_code_lock();
	if (poison_clear(s)) {
		serialize();
		for (size_t i = 0; i < s->n; i++) {
			struct arena *a =
				clear(&s->s[i]) ? arena_of(s->s[i].start, s->s[i].upto) : NULL;

			if (a)
				settle_one(a, granule(a, s->s[i].start), granule(a, s->s[i].upto));
		}
	}
	shunt_code_unlock();
}

size_t shunt_code_held(void)
{
	return __atomic_load_n(&held, __ATOMIC_RELAXED);
}

size_t shunt_code_reserved(void)
{
	return __atomic_load_n(&reserved, __ATOMIC_RELAXED);
}
