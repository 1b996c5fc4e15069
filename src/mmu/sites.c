/* SPDX-License-Identifier: MIT */
/*
 * sites.c - finding, arming and disarming the places that make system calls which
 * change mappings (sites.h says what a place is).
 *
 * Only exact bytes are a place: `mov $NR,%eax; syscall` as compilers and libc's wrappers have it,
 * and three shapes more that libc has (shapes[] below). What does not look so is left alone,
 * and shunt_mmu_coverage() says what follows from that.
 *
 * Invariant: at a place there are its own five bytes, or our jump, or something that somebody
 * else has put there. We write only the first over the second and the second over the first,
 * by replacing pages (text/flip.c): threads that exit have all signals blocked in libc at the
 * very calls that matter, so nothing may trap there, and nobody is stopped.
 *
 * Arming ends when each thread was seen outside of the calls once. Who was seen outside comes
 * through a stub from then on. Not waited for are calls in which a thread may sleep for as long
 * as it likes, and of which a begin before arming does no harm to the one who registers:
 * open and creat, of which what they change they have changed before they sleep or change after (a
 * named pipe, which nobody maps); and those that make processes or end in another program.
 *
 * Locks: `lock`, held with signals held back, then the objects', the loader's list, the text
 * engine's, the look's.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <shunt/text.h>

#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/hold.h"
#include "base/log.h"
#include "mmu/core.h"
#include "mmu/coverage.h"
#include "object/object.h"
#include "rcu/look.h"
#include "text/maps.h"
#include "text/text_internal.h"

#define STUB	    64
#define BLOCK_HEAD  16
#define OBJECTS	    256
#define SYSCALL_LEN 2
#define LOOK_MS	    10
#define LIMIT_MS    5000

static struct shunt_hold lock = SHUNT_HOLD_INIT;

static struct known {
	struct shunt_object *obj;
	uint32_t first, n; /* places */
} known[OBJECTS];
static uint32_t nknown;
static uint32_t next_object; /* all with a lower number have been looked at */
static struct shunt_edit edits[SHUNT_MMU_PLACES];
static uint32_t number[SHUNT_MMU_PLACES]; /* of their places */
static bool full;
static struct shunt_mmu_libc libc;

/* --- which bytes are a place ------------------------------------------------------------- */

struct shape {
	const char *bytes; /* "NNNN" stands for the number, of nr if that is not ANY */
	uint8_t n;
	uint8_t at;	   /* of the instruction */
	uint8_t number_at; /* 0: in %rax */
	uint8_t call;	   /* of the `syscall`; 0: not in a straight line */
	int32_t nr;
};

/* Every shape has one of these in it. */
#define SYSCALL	  "\x0f\x05"
#define EXIT_TAIL "\xba\x3c\0\0\0\xeb"
#define EXIT_AT	  5 /* of it */

static const struct shape shapes[] = {
	/* mov $NR,%eax; syscall */
	{"\xb8NNNN\x0f\x05", 7, 0, 1, 5, SHUNT_MMU_ANY},
	/* mov 8(%rsp),%r9; syscall: libc's syscall() */
	{"\x4c\x8b\x4c\x24\x08\x0f\x05", 7, 0, 0, 5, SHUNT_MMU_ANY},
	/* mov $NR,%eax; mov %rdi,%rsi; mov $AT_FDCWD,%edi; syscall: open without cancellation */
	{"\xb8NNNN\x48\x89\xfe\xbf\x9c\xff\xff\xff\x0f\x05", 15, 8, 1, 13, SYS_openat},
	/*
	 * mov $NR,%esi; mov $SYS_exit,%edx; jmp 1f; .. 1: mov %esi,%eax; syscall: _exit().
	 * Between the first and the syscall nothing is done that could go elsewhere, and edi has
	 * been set.
	 */
	{"\xbeNNNN\xba\x3c\0\0\0\xeb", 11, 0, 1, 0, SYS_exit_group},
};

static bool is_shape(const struct shape *s, const uint8_t *p, size_t n)
{
	const uint8_t *b = (const uint8_t *)s->bytes;

	if (n < s->n)
		return false;
	for (unsigned i = 0; i < s->n; i++)
		if (p[i] != b[i] && !(s->number_at && i - s->number_at < 4u))
			return false;
	return true;
}

/* A prefix before the first byte would make it another instruction, or be the end of one. */
static bool has_prefix(const uint8_t *p, const uint8_t *text)
{
	return p > text && ((p[-1] & 0xf8) == 0x48 || (p[-1] & 0xf9) == 0x41 || p[-1] == 0x66);
}

/* Where _exit's jump leads to: `mov %esi,%eax; syscall`. */
static bool is_exit(const uint8_t *p, size_t n)
{
	size_t to;

	if (n < 12 || p[11] > 127)
		return false;
	to = 12u + p[11];
	return to + 4 <= n && !memcmp(p + to, "\x89\xf0\x0f\x05", 4);
}

static bool is_place(const struct shape *s, const uint8_t *p, size_t n, const uint8_t *text,
	int32_t *nr)
{
	if (!is_shape(s, p, n))
		return false;
	*nr = SHUNT_MMU_ANY;
	if (!s->number_at)
		return true;
	memcpy(nr, p + s->number_at, 4);
	if ((s->nr != SHUNT_MMU_ANY && *nr != s->nr) || (!s->call && !is_exit(p, n)))
		return false;
	return (*nr == SYS_exit_group || shunt_mmu_interesting(*nr)) && !has_prefix(p, text);
}

/* --- stubs -------------------------------------------------------------------------------- */

static void put_rel(uint8_t *at, uintptr_t addr, uintptr_t to)
{
	int32_t rel = (int32_t)(to - (addr + 4));

	memcpy(at, &rel, 4);
}

static int write_stub(const struct shunt_mmu_place *p, uint32_t n, uintptr_t block)
{
	uint8_t b[STUB] = {0};
	uintptr_t s = p->stub;

	memcpy(b, p->old, 5);
	memcpy(b + 5, "\x48\x8d\x64\x24\x80", 5); /* lea -128(%rsp),%rsp */
	memcpy(b + 10, "\xff\x35", 2);		  /* push next(%rip) */
	put_rel(b + 12, s + 12, s + 48);
	b[16] = 0x68; /* push $number */
	memcpy(b + 17, &n, 4);
	memcpy(b + 21, "\xff\x25", 2); /* jmp *shunt_mmu_entry */
	put_rel(b + 23, s + 23, block);
	memcpy(b + SHUNT_MMU_TAIL, "\x0f\x05\x48\x89\xc1\xe3\x06\xff\x25", 9);
	put_rel(b + 36, s + 36, block + 8);
	b[40] = 0xe9;
	put_rel(b + 41, s + 41, p->behind);
	memcpy(b + 48, &p->next, 8);
	return shunt_text_write_private((void *)s, b, sizeof b);
}

static int write_block(const struct known *k, uintptr_t lo, uintptr_t hi)
{
	const void *head[2] = {shunt_mmu_entry, shunt_mmu_cloned};
	void *block;
	int r = shunt_text_alloc_near(lo, hi, BLOCK_HEAD + k->n * STUB, &block);

	if (!r)
		r = shunt_text_write_private(block, head, sizeof head);
	for (uint32_t i = k->first; i < k->first + k->n && !r; i++) {
		shunt_mmu_places[i].stub = (uintptr_t)block + BLOCK_HEAD + (i - k->first) * STUB;
		r = write_stub(&shunt_mmu_places[i], i, (uintptr_t)block);
	}
	return r;
}

/* --- finding ------------------------------------------------------------------------------ */

static void add(uintptr_t addr, const struct shape *s, int32_t nr, uint16_t object)
{
	struct shunt_mmu_place *p = &shunt_mmu_places[shunt_mmu_nplaces];

	if (shunt_mmu_nplaces == SHUNT_MMU_PLACES) {
		full = true;
		return;
	}
	*p = (struct shunt_mmu_place){.addr = addr + s->at, .next = addr + s->at + SHUNT_MMU_PLACE,
		.behind = s->call ? addr + s->call + SYSCALL_LEN : 0, .nr = nr, .object = object};
	memcpy(p->old, (const void *)p->addr, SHUNT_MMU_PLACE);
	shunt_mmu_nplaces++;
}

/* At a hit of the needle: behind `at` bytes of the shape. */
static void consider(const struct shape *s, const uint8_t *text, const uint8_t *end,
	const uint8_t *hit, unsigned at, uint16_t object)
{
	const uint8_t *p = hit - at;
	int32_t nr;

	if ((size_t)(hit - text) >= at && is_place(s, p, (size_t)(end - p), text, &nr))
		add((uintptr_t)p, s, nr, object);
}

static void find_in(uintptr_t lo, uintptr_t hi, uint16_t object)
{
	const uint8_t *text = (const uint8_t *)lo, *end = (const uint8_t *)hi, *p;

	for (p = text; (p = memmem(p, (size_t)(end - p), SYSCALL, 2)); p += 2)
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
			if (shapes[i].call)
				consider(&shapes[i], text, end, p, shapes[i].call, object);
	for (p = text; (p = memmem(p, (size_t)(end - p), EXIT_TAIL, 6)); p += 6)
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
			if (!shapes[i].call)
				consider(&shapes[i], text, end, p, EXIT_AT, object);
}

typedef void (*text_fn)(const struct shunt_object *o, uintptr_t lo, uintptr_t hi, void *arg);

/*
 * The code of an object: its span may have holes, and parts that are no code. What is mapped in
 * several pieces, as by a flip, is one.
 */
static void each_text(const struct shunt_object *o, struct shunt_maps *maps, text_fn fn, void *arg)
{
	uintptr_t lo = 0, hi = 0;
	struct shunt_vma v;

	for (uintptr_t at = o->text_lo; at < o->text_hi; at = v.end) {
		if (shunt_maps_find(maps, at, &v) || v.start >= o->text_hi)
			break;
		if ((v.flags & (SHUNT_VMA_READ | SHUNT_VMA_EXEC)) != (SHUNT_VMA_READ | SHUNT_VMA_EXEC))
			continue;
		if (v.start != hi) {
			if (hi > lo)
				fn(o, lo, hi, arg);
			lo = v.start > at ? v.start : at;
		}
		hi = v.end < o->text_hi ? v.end : o->text_hi;
	}
	if (hi > lo)
		fn(o, lo, hi, arg);
}

static void find_in_text(const struct shunt_object *o, uintptr_t lo, uintptr_t hi, void *arg)
{
	(void)o;
	find_in(lo, hi, *(const uint16_t *)arg);
}

static bool begins(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

static const char *base_name(const struct shunt_object *o)
{
	const char *slash = o->path ? strrchr(o->path, '/') : NULL;

	return slash ? slash + 1 : o->path ? o->path : "";
}

static bool is_loader(const struct shunt_object *o)
{
	return begins(base_name(o), "ld-linux") || begins(base_name(o), "ld-2");
}

static bool is_libc(const struct shunt_object *o)
{
	return begins(base_name(o), "libc.so") || begins(base_name(o), "libc-2");
}

static bool holds(const struct shunt_object *o, uintptr_t addr)
{
	return addr - o->text_lo < o->text_hi - o->text_lo;
}

static bool has_allocator(const struct shunt_object *o)
{
	return holds(o, libc.malloc) || holds(o, libc.free);
}

static void note_inner(const struct shunt_object *o)
{
	if (shunt_mmu_ninner == SHUNT_MMU_INNER)
		return;
	shunt_mmu_inner[shunt_mmu_ninner] = (struct shunt_range){o->text_lo, o->text_hi};
	/* Pairs with the acquire in enter.c: the range is there. */
	__atomic_store_n(&shunt_mmu_ninner, shunt_mmu_ninner + 1, __ATOMIC_RELEASE);
}

static void describe(const struct known *k)
{
	bool inner = is_loader(k->obj) || (has_allocator(k->obj) && !is_libc(k->obj));

	for (uint32_t i = k->first; i < k->first + k->n; i++) {
		shunt_mmu_places[i].inner = inner;
		shunt_mmu_places[i].loader = is_loader(k->obj);
		shunt_mmu_places[i].raw = !is_loader(k->obj) && !is_libc(k->obj) && !libc.is_static;
		shunt_mmu_places[i].frame = shunt_mmu_frame_at(shunt_mmu_places[i].next);
	}
}

static int look_at_object(struct shunt_object *o, struct shunt_maps *maps)
{
	uint16_t number_of_object = (uint16_t)nknown;
	struct known *k = &known[nknown];

	if (is_loader(o) || is_libc(o) || has_allocator(o) || libc.is_static)
		note_inner(o);
	if (nknown == OBJECTS) {
		full = true;
		return 0;
	}
	*k = (struct known){.obj = o, .first = shunt_mmu_nplaces};
	each_text(o, maps, find_in_text, &number_of_object);
	k->n = shunt_mmu_nplaces - k->first;
	if (!k->n)
		return 0;
	nknown++;
	describe(k);
	return write_block(k, o->text_lo, o->text_hi);
}

/* What has been loaded since the last time. A place without a stub is none. */
static int find_new(void)
{
	struct shunt_maps maps;
	int r = shunt_maps_open(&maps);

	if (r)
		return r;
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next) {
		if (o->of || o->gone || o->id < next_object)
			continue;
		next_object = o->id + 1;
		r = look_at_object(o, &maps);
		if (r)
			shunt_log(SHUNT_LOG_WARNING, "mmu: no room for stubs near %s: %s", o->path,
				strerror(-r));
	}
	shunt_maps_close(&maps);
	if (full)
		shunt_log(SHUNT_LOG_WARNING, "mmu: more than %d places, or %d objects with places: the others are "
			"not seen", SHUNT_MMU_PLACES, OBJECTS);
	full = false;
	return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void jump_to_stub(const struct shunt_mmu_place *p, uint8_t *b)
{
	b[0] = 0xe9;
	put_rel(b + 1, p->addr + 1, p->stub);
}

/* The `syscall` may be somebody else's by now although our bytes are not. */
static bool is_whole(const struct shunt_mmu_place *p)
{
	return !p->behind || !memcmp((const void *)(p->behind - SYSCALL_LEN), SYSCALL, SYSCALL_LEN);
}

/* The edits that are to be made of the places that hold what they should. */
static size_t collect(bool arm)
{
	size_t n = 0;

	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++) {
		struct shunt_mmu_place *p = &shunt_mmu_places[i];
		struct shunt_edit *e = &edits[n];
		uint8_t jump[SHUNT_MMU_PLACE];

		if (!p->stub || known[p->object].obj->gone) {
			p->armed = p->free = false;
			continue;
		}
		jump_to_stub(p, jump);
		p->armed = !memcmp((const void *)p->addr, jump, sizeof jump);
		p->free = is_whole(p) && !memcmp((const void *)p->addr, p->old, sizeof p->old);
		if (!(arm ? p->free : p->armed))
			continue;
		*e = (struct shunt_edit){.addr = (void *)p->addr, .len = SHUNT_MMU_PLACE};
		memcpy(arm ? e->old : e->new_, p->old, SHUNT_MMU_PLACE);
		memcpy(arm ? e->new_ : e->old, jump, SHUNT_MMU_PLACE);
		number[n++] = i;
	}
	return n;
}

static size_t without(size_t n, const void *addr)
{
	for (size_t i = 0; i < n; i++)
		if (edits[i].addr == addr) {
			memmove(&edits[i], &edits[i + 1], (n - i - 1) * sizeof *edits);
			memmove(&number[i], &number[i + 1], (n - i - 1) * sizeof *number);
			return n - 1;
		}
	return n;
}

struct job {
	bool arm;
	size_t written;
	struct shunt_text_result res;
};

/* Leaves out what somebody else has changed in the meantime. */
static int write_all(struct job *j)
{
	struct shunt_text_options opts = {.strategy = shunt_text_single_threaded()
		? SHUNT_TEXT_PLAIN : SHUNT_TEXT_FLIP};
	size_t n = collect(j->arm), left;
	int r = 0;

	while (n) {
		r = shunt_text_apply(edits, n, &opts, &j->res);
		if (r && opts.strategy == SHUNT_TEXT_PLAIN && r != -EBUSY) {
			opts.strategy = SHUNT_TEXT_FLIP;
			continue;
		}
		left = r == -EBUSY ? without(n, j->res.addr) : n;
		if (left == n)
			break;
		n = left;
		r = 0;
	}
	for (size_t i = 0; i < n && !r; i++)
		shunt_mmu_places[number[i]].armed = j->arm;
	j->written = r ? 0 : n;
	return r;
}

static int find_and_write(void *arg)
{
	struct job *j = arg;
	int r = j->arm ? find_new() : 0;

	return r ? r : write_all(j);
}

bool shunt_mmu_place_works(const struct shunt_mmu_place *p)
{
	/* One that was loaded since the last who registered will be armed for the next. */
	return p->armed || (p->free && !__atomic_load_n(&shunt_mmu_page->armed, __ATOMIC_ACQUIRE));
}

/* All code but libc's, the loader's and the library's own. */
struct visit {
	text_fn fn;
	void *arg;
};

static int visit_all(void *arg)
{
	const struct visit *v = arg;
	struct shunt_maps maps;
	int r = shunt_maps_open(&maps);

	for (struct shunt_object *o = r ? NULL : shunt_objects_first(); o; o = o->next)
		if (!o->of && !o->gone &&
			(libc.is_static || !(is_loader(o) || is_libc(o) || begins(base_name(o), "libshunt"))))
			each_text(o, &maps, v->fn, v->arg);
	if (!r)
		shunt_maps_close(&maps);
	return r;
}

void shunt_mmu_each_text(text_fn fn, void *arg)
{
	struct visit v = {fn, arg};

	shunt_objects_while_loaded(visit_all, &v);
}

static int find_only(void *arg)
{
	int r = find_new();

	(void)arg;
	if (!r)
		collect(true); /* what is armed, and what could be */
	return r;
}

/* --- until nobody is inside --------------------------------------------------------------------- */

/* Whether who registers may rely on there being none of these that began before. */
static bool is_waited_for(long nr)
{
	switch (nr) {
	case SYS_open:
	case SYS_creat:
	case SYS_openat:
	case SYS_openat2:
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit_group:
		return false;
	}
	return shunt_mmu_interesting(nr);
}

/* At the `syscall` itself, or in the kernel by it. A mmap that replaces nothing is harmless. */
static bool is_inside(uintptr_t pc, long nr, const uint64_t *arg)
{
	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++) {
		const struct shunt_mmu_place *p = &shunt_mmu_places[i];

		if (nr < 0 ? pc != p->next : pc != p->behind || !p->behind)
			continue;
		if (nr < 0)
			return p->nr == SHUNT_MMU_ANY || is_waited_for(p->nr);
		return is_waited_for(nr) && (nr != SYS_mmap || (arg[3] & MAP_FIXED));
	}
	return false;
}

static int stalled(const struct shunt_look *l, char *why, size_t size)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->t[i].tid && l->t[i].why && l->t[i].mark == l->mark)
			return shunt_why(why, size, -EAGAIN, "thread %d %s for %d ms", l->t[i].tid,
				l->t[i].why == SHUNT_UNSEEN_ZONE ? "is in a call that changes mappings"
					: shunt_look_why(l->t[i].why), LIMIT_MS);
	return shunt_why(why, size, -EAGAIN, "threads come and go without pause");
}

static int wait_outside(char *why, size_t size)
{
	uint64_t deadline = shunt_now_ns() + LIMIT_MS * 1000000ull;
	struct shunt_spots none = {0};
	struct shunt_look look;
	int r = shunt_look_begin(&look, &none);

	look.inside = is_inside;
	while (!r && (r = shunt_look_try(&look, LOOK_MS)) == -EAGAIN && shunt_now_ns() < deadline)
		r = 0;
	if (r == -EAGAIN)
		stalled(&look, why, size);
	else if (r)
		shunt_why(why, size, r, "threads cannot be looked at: %s", strerror(-r));
	shunt_look_end(&look);
	return r;
}

/* --- the two ends ---------------------------------------------------------------------------------- */

static void before_fork(void)
{
	shunt_hold_take(&lock);
}

static void after_fork(void)
{
	shunt_hold_give(&lock);
}

void shunt_mmu_sites_at_fork(void)
{
	shunt_text_at_fork();
	shunt_objects_at_fork();
	pthread_atfork(before_fork, after_fork, after_fork);
}

static int disarm(void)
{
	struct job j = {.arm = false};
	int r = shunt_objects_while_loaded(find_and_write, &j);

	if (r)
		shunt_log(SHUNT_LOG_WARNING, "mmu: the code stays patched, which does no harm: %s",
			*j.res.reason ? j.res.reason : strerror(-r));
	return r;
}

int shunt_mmu_sites_arm(bool again, uint32_t *missing, char *why, size_t size)
{
	struct job j = {.arm = true};
	char first[128] = "";
	int r;

	if (size)
		*why = 0;
	shunt_mmu_learn(&libc);
	shunt_hold_take(&lock);
	r = shunt_objects_while_loaded(find_and_write, &j);
	if (r)
		shunt_why(why, size, r, "code could not be patched: %s",
			*j.res.reason ? j.res.reason : strerror(-r));
	else if (j.written && (r = wait_outside(why, size)) && !again)
		disarm();
	*missing = r ? 0 : shunt_mmu_sites_missing(&libc, first, sizeof first);
	if (*first)
		shunt_why(why, size, 0, "%s", first);
	shunt_hold_give(&lock);
	return r;
}

void shunt_mmu_sites_disarm(void)
{
	shunt_hold_take(&lock);
	disarm();
	shunt_hold_give(&lock);
}

int shunt_mmu_sites_look(void)
{
	int r;

	shunt_mmu_learn(&libc);
	shunt_hold_take(&lock);
	r = shunt_objects_while_loaded(find_only, NULL);
	if (r)
		shunt_hold_give(&lock);
	return r;
}

void shunt_mmu_sites_done(void)
{
	shunt_hold_give(&lock);
}
