/* SPDX-License-Identifier: MIT */
/* reader.c - threads' memory for sections (the idea is in reader.h). */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/membarrier.h>

#include <shunt/srcu.h>

#include "arch/x86_64/text_sys.h"
#include "reader.h"

__thread char *shunt_srcu_self __attribute__((tls_model("initial-exec")));
extern __thread struct shunt_reader *shunt_reader_self
	__attribute__((alias("shunt_srcu_self"), visibility("hidden")));
struct shunt_srcu shunt_callbacks = {.word = SHUNT_INDEX_CALLBACKS * sizeof(struct shunt_counts),
	.index = SHUNT_INDEX_CALLBACKS};
struct shunt_srcu shunt_points = {.word = SHUNT_INDEX_POINTS * sizeof(struct shunt_counts),
	.index = SHUNT_INDEX_POINTS};
bool shunt_reader_fence;
uint32_t shunt_generation, shunt_generation_raw;

/* Grows only; new readers are pushed at the head. */
static struct shunt_reader *readers;
static int32_t process;
static bool ready;

/* Which indexes are taken, a bit each. */
static uint64_t taken[SHUNT_INDEXES / 64];

/* 1, and 0 in a fork child, however it was made; but 1 in one that shares our memory. */
static uint32_t always = 1, *not_forked = &always;

static long membarrier(int cmd)
{
	return shunt_sys(SYS_membarrier, cmd, 0, 0);
}

struct shunt_reader *shunt_reader_first(void)
{
	return __atomic_load_n(&readers, __ATOMIC_ACQUIRE);
}

/* --- indexes --------------------------------------------------------------- */

uint32_t shunt_index_take(void)
{
	for (uint32_t i = SHUNT_INDEX_USERS; i < SHUNT_INDEXES; i++) {
		uint64_t bit = 1ull << i % 64;

		if (!~__atomic_load_n(&taken[i / 64], __ATOMIC_RELAXED))
			i |= 63;
		else if (!(__atomic_fetch_or(&taken[i / 64], bit, __ATOMIC_ACQ_REL) & bit))
			return i;
	}
	return 0;
}

void shunt_index_give(uint32_t index)
{
	__atomic_fetch_and(&taken[index / 64], ~(1ull << index % 64), __ATOMIC_ACQ_REL);
}

int shunt_reader_barrier(void)
{
	int err = 0;

	if (!shunt_reader_fence)
		err = (int)membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return err;
}

/* --- fork ------------------------------------------------------------------- */

static int64_t open_sections(const struct shunt_counts *c, int phase)
{
	return (int64_t)(c->lock[phase] - c->unlock[phase]);
}

/* The sections of whoever had it, in our own domains, are over. */
static void forget(struct shunt_reader *r)
{
	for (uint32_t i = SHUNT_INDEX_FIRST; i < SHUNT_INDEX_USERS; i++)
		for (int p = 0; p < 2; p++) {
			struct shunt_counts *c = shunt_reader_counts(r, i);

			if (open_sections(c, p))
				c->unlock[p] = c->lock[p];
		}
	r->callbacks.top = 0;
	r->points.top = 0;
	r->nframes = 0;
}

/*
 * In a child: of the sections of this domain those stay that the forking thread has
 * entered, as far as there are so many at all; others may have left some that it entered,
 * and it some of theirs.
 */
static void keep_own(struct shunt_reader *self, uint32_t index, int phase, int32_t now)
{
	int64_t all = 0, own = 0;

	for (struct shunt_reader *r = readers; r; r = r->next) {
		struct shunt_counts *c = shunt_reader_counts(r, index);
		int64_t open = open_sections(c, phase);

		all += open;
		if (r == self)
			own = open;
		else if (open && r->process != now)
			c->unlock[phase] = c->lock[phase];
	}
	if (self && own != 0 && (own < 0 || own > all)) {
		struct shunt_counts *c = shunt_reader_counts(self, index);

		c->unlock[phase] = c->lock[phase] - (uint64_t)(own < 0 || all < 0 ? 0 : all);
	}
}

/* In a fork child only the forking thread goes on: what the others held is free. */
static void child(void)
{
	struct shunt_reader *self = shunt_reader_self;
	int32_t now = (int32_t)shunt_sys(SYS_getpid);

	process = now;
	for (uint32_t i = SHUNT_INDEX_FIRST; i < SHUNT_INDEXES; i++)
		if (taken[i / 64] >> i % 64 & 1) {
			keep_own(self, i, 0, now);
			keep_own(self, i, 1, now);
		}
	for (struct shunt_reader *r = readers; r; r = r->next) {
		if (r == self) {
			r->tid = (int32_t)shunt_sys(SYS_gettid);
			r->process = now;
		} else if (r->process != now) {
			forget(r);
			r->tid = 0;
		}
	}
	__atomic_store_n(&shunt_generation, shunt_generation + 1, __ATOMIC_RELEASE);
	__atomic_store_n(not_forked, 1, __ATOMIC_RELEASE);
	membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

/*
 * Only the main thread can be the one that forked. Another one, that was made before that one
 * came here, leaves all as it is: the sections of those who are gone are still waited for then.
 */
void shunt_reader_look_forked(void)
{
	if (__builtin_expect(__atomic_load_n(not_forked, __ATOMIC_ACQUIRE), 1) ||
		shunt_sys(SYS_getpid) != shunt_sys(SYS_gettid))
		return;
	child();
	__atomic_store_n(&shunt_generation_raw, shunt_generation, __ATOMIC_RELEASE);
}

__attribute__((constructor(101))) static void start(void)
{
	uint32_t *page;

	if (__atomic_exchange_n(&ready, true, __ATOMIC_SEQ_CST))
		return;
	process = (int32_t)shunt_sys(SYS_getpid);
	for (uint32_t i = SHUNT_INDEX_FIRST; i < SHUNT_INDEX_USERS; i++)
		__atomic_fetch_or(&taken[i / 64], 1ull << i % 64, __ATOMIC_RELAXED);
	if (getenv("SHUNT_NO_MEMBARRIER") || membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) < 0)
		shunt_reader_fence = true;
	page = (void *)shunt_sys(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!shunt_sys_failed((long)page) && !shunt_sys(SYS_madvise, page, 4096, MADV_WIPEONFORK)) {
		*page = 1;
		not_forked = page;
	}
	pthread_atfork(NULL, NULL, child);
}

/* --- blocks ------------------------------------------------------------------ */

static bool owner_gone(const struct shunt_reader *r)
{
	int32_t tid = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

	return tid > 0 && shunt_sys(SYS_tgkill, process, tid, 0) == -ESRCH;
}

static bool take_over(struct shunt_reader *r, int32_t tid)
{
	int32_t old = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

	if (old && !owner_gone(r))
		return false;
	if (!__atomic_compare_exchange_n(&r->tid, &old, tid, false, __ATOMIC_SEQ_CST,
		    __ATOMIC_RELAXED))
		return false;
	r->process = process;
	forget(r);
	return true;
}

void shunt_reader_close_ended(const struct shunt_srcu *d)
{
	for (struct shunt_reader *r = shunt_reader_first(); r; r = r->next) {
		const struct shunt_counts *c = shunt_reader_counts(r, d->index);
		int32_t tid = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

		if ((!open_sections(c, 0) && !open_sections(c, 1)) || tid <= 0 || !owner_gone(r) ||
			!__atomic_compare_exchange_n(&r->tid, &tid, -1, false, __ATOMIC_SEQ_CST,
				__ATOMIC_RELAXED))
			continue;
		forget(r);
		__atomic_store_n(&r->tid, 0, __ATOMIC_RELEASE);
	}
}

/*
 * A free reader, or one whose thread has ended. Each asks a few of them only, in turn, so that
 * thousands of threads that come do not ask all of thousands.
 */
static struct shunt_reader *reuse(int32_t tid)
{
	static struct shunt_reader *next;
	struct shunt_reader *r = __atomic_load_n(&next, __ATOMIC_ACQUIRE), *first = NULL;

	for (int i = 0; i < 64; i++) {
		if (!r)
			r = shunt_reader_first();
		if (!r || r == first)
			break;
		if (!first)
			first = r;
		if (take_over(r, tid)) {
			__atomic_store_n(&next, r->next, __ATOMIC_RELEASE);
			return r;
		}
		r = r->next;
	}
	__atomic_store_n(&next, r, __ATOMIC_RELEASE);
	return NULL;
}

static struct shunt_reader *grow(int32_t tid)
{
	struct shunt_reader *r = (void *)shunt_sys(SYS_mmap, NULL, SHUNT_READER_SIZE,
		PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct shunt_reader *head;

	if (shunt_sys_failed((long)r))
		return NULL;
	/* Neighbours make one mapping: a huge page would make it all of them real. */
	shunt_sys(SYS_madvise, r, SHUNT_READER_SIZE, MADV_NOHUGEPAGE);
	r->tid = tid;
	r->process = (int32_t)shunt_sys(SYS_getpid);
	head = __atomic_load_n(&readers, __ATOMIC_RELAXED);
	do
		r->next = head;
	while (!__atomic_compare_exchange_n(&readers, &head, r, false, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED));
	return r;
}

/*
 * A vfork child acts for the parent's thread, but who that is does not know: it makes a
 * reader that no other thread will have while the process lives. Nor can it tell
 * who lives, when it has a pid namespace of its own.
 */
static struct shunt_reader *find(void)
{
	int32_t tid = (int32_t)shunt_sys(SYS_gettid);
	struct shunt_reader *r;

	if (shunt_sys(SYS_getpid) != process)
		return grow(process);
	r = reuse(tid);
	return r ? r : grow(tid);
}

struct shunt_reader *shunt_reader_get(void)
{
	struct shunt_reader *r = shunt_reader_self;

	if (r)
		return r;
	start();
	shunt_reader_look_forked();
	r = find();
	/* A signal handler may have given this thread one meanwhile: keep the
	 * first, ours stays with this tid until the thread is gone. */
	if (r && !shunt_reader_self)
		shunt_reader_self = r;
	return shunt_reader_self;
}

/* --- sections that are not so simple (srcu.h) ----------------------------------- */

void shunt_srcu_settle(struct shunt_srcu *d)
{
	uint32_t index = shunt_index_take(), none = 0;

	if (!index)
		return;
	if (!__atomic_compare_exchange_n(&d->index, &none, index, false, __ATOMIC_ACQ_REL,
		    __ATOMIC_RELAXED))
		shunt_index_give(index);
	else if (!shunt_reader_fence)
		__atomic_fetch_or(&d->word, index * (uint32_t)sizeof(struct shunt_counts),
			__ATOMIC_RELEASE);
}

/* Locked, so that it is a fence, too, where readers need one. */
static void count(uint64_t *at)
{
	__atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
}

/* The calling thread's sums for a domain; NULL: it has no place for them. */
static struct shunt_counts *own_counts(const struct shunt_srcu *d)
{
	struct shunt_reader *r = shunt_reader_self ? shunt_reader_self : shunt_reader_get();

	return r && d->index ? shunt_reader_counts(r, d->index) : NULL;
}

SHUNT_API int shunt_srcu_lock_slow(struct shunt_srcu *d)
{
	struct shunt_counts *c;
	uint32_t word;

	if (!__atomic_load_n(&d->index, __ATOMIC_RELAXED))
		shunt_srcu_settle(d);
	c = own_counts(d);
	word = __atomic_load_n(&d->word, __ATOMIC_RELAXED);
	count((c ? c->lock : d->lock) + !!(word & SHUNT_SRCU_PHASE));
	return (int)word;
}

SHUNT_API void shunt_srcu_unlock_slow(struct shunt_srcu *d, int idx)
{
	struct shunt_counts *c = own_counts(d);

	count((c ? c->unlock : d->unlock) + !!((uint32_t)idx & SHUNT_SRCU_PHASE));
}

bool shunt_on_altstack(uintptr_t addr)
{
	stack_t ss;

	return !shunt_sys(SYS_sigaltstack, NULL, &ss) && !(ss.ss_flags & SS_DISABLE) &&
	       addr - (uintptr_t)ss.ss_sp < ss.ss_size;
}

/* --- the library's own sections --------------------------------------------------- */

bool shunt_reader_inside(void)
{
	struct shunt_reader *r = shunt_reader_self;
	const struct shunt_counts *c = r ? shunt_reader_counts(r, SHUNT_INDEX_CALLBACKS) : NULL;
	const struct shunt_counts *p = r ? shunt_reader_counts(r, SHUNT_INDEX_POINTS) : NULL;

	return r && (c->lock[0] + c->lock[1] != c->unlock[0] + c->unlock[1] ||
			    p->lock[0] + p->lock[1] != p->unlock[0] + p->unlock[1]);
}

void shunt_level_save(struct shunt_reader *r, struct shunt_levels *l, const struct shunt_srcu *d)
{
	const struct shunt_counts *c = shunt_reader_counts(r, d->index);
	unsigned n = shunt_levels_depth(l);

	/* The same whoever stores it: a handler in between finds what we have found. */
	l->below[n - 1] = l->top;
	for (int p = 0; p < 2; p++)
		l->base[n][p] = (uint64_t)open_sections(c, p);
}

/* Of this phase so many are open: a handler that comes between has left as it found. */
static void set_open(struct shunt_counts *c, int phase, uint64_t open)
{
	uint64_t left, want;

	do {
		left = __atomic_load_n(&c->unlock[phase], __ATOMIC_RELAXED);
		want = __atomic_load_n(&c->lock[phase], __ATOMIC_RELAXED) - open;
	} while (left != want && !__atomic_compare_exchange_n(&c->unlock[phase], &left, want, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

void shunt_level_drop(struct shunt_reader *r, struct shunt_levels *l, const struct shunt_srcu *d)
{
	struct shunt_counts *c = shunt_reader_counts(r, d->index);
	unsigned n = shunt_levels_depth(l) - 1;

	if (n >= SHUNT_LEVELS) {
		*(volatile uint64_t *)&l->top = l->top - SHUNT_LEVEL_ONE;
		return;
	}
	for (int p = 0; p < 2; p++)
		set_open(c, p, n ? l->base[n][p] : 0);
	*(volatile uint64_t *)&l->top = n ? l->below[n - 1] : 0;
}
