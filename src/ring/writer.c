/* SPDX-License-Identifier: MIT */
/*
 * writer.c - writing events. docs/ring.md has the argument at length; in short:
 *
 * Each use of a page has a tag of its own, and an empty word of it is that tag.
 * A word is claimed by one compare-exchange from "empty, of the use that I know"
 * to the event, not locked: only the page's own thread writes to it, and against
 * a signal handler on the same thread one instruction is atomic enough. So the
 * claim fails, and the event is tried again from the start with a new time
 * stamp, if a handler wrote first, if a handler took another page (it seals the
 * old one), if the page is full (its last word is END), or if the page belongs to
 * somebody else by now. And since a failed claim reads the clock anew, words are
 * in the order of their stamps.
 *
 * Whatever a thread remembers of its page has the tag in the same word: where
 * the next event goes (`at`), and which page is current. A thread may be
 * interrupted anywhere, for long, and its handler may leave the page and come to
 * have it again: what is stored or compared after that is of the old use, and
 * means nothing in the new one.
 *
 * A short event is committed by its claim. A long one is claimed with a word
 * that says how long it will be, filled, and then committed by its final word.
 * If a handler closes the page in between, it finds the claim and leaves the page
 * PINNED; the writer finds the page closed when it has committed, and hands it
 * over when no claim is left in it.
 *
 * Runs in any context; no vector registers, no lock, no allocation but for a
 * thread's first event, and nothing of libc (errno included), which may be traced: but
 * for pthread_setspecific(), once a thread, whose own events find their way already. All
 * read-modify-writes of the thread's own words are single instructions.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/text_sys.h"
#include "pool.h"
#include "writer.h"

_Static_assert(sizeof(struct shunt_ring_page) == 64, "on disk");

/* --- single instructions ---------------------------------------------------- */

static inline bool cmpxchg64(uint64_t *p, uint64_t old, uint64_t new)
{
	bool done;

	__asm__ volatile("cmpxchgq %3, %1"
			 : "=@ccz"(done), "+m"(*p), "+a"(old)
			 : "r"(new)
			 : "memory");
	return done;
}

/*
 * A compare-exchange that fails writes what it has read back (Intel SDM 2A,
 * CMPXCHG), and unlocked, that undoes what another core stored meanwhile. So a
 * word of a page that may be another thread's by now is looked at first: only
 * a handler right between the look and the exchange can have given it away.
 */
static inline bool local_cmpxchg64(uint64_t *p, uint64_t old, uint64_t new)
{
	return *(volatile uint64_t *)p == old && cmpxchg64(p, old, new);
}

static inline void local_inc64(uint64_t *p)
{
	__asm__ volatile("incq %0" : "+m"(*p) : : "cc");
}

static inline uint64_t local_xadd64(uint64_t *p, uint64_t by)
{
	__asm__ volatile("xaddq %0, %1" : "+r"(by), "+m"(*p) : : "cc", "memory");
	return by;
}

static inline void fill64(uint64_t *p, uint64_t value, size_t n)
{
	__asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(value) : "memory");
}

static inline uint64_t clock_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

/* What a writer's hi is while the clock's high half is that of `ts`. */
static inline uint64_t hi_of(uint64_t ts)
{
	return (ts >> 32) + 1;
}

/* The kernel's own function; libc's may be traced. NULL: it is not there. */
static int (*monotonic)(clockid_t, struct timespec *);

static void find_clock(void)
{
	void *vdso = monotonic ? NULL : dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);

	if (vdso)
		*(void **)&monotonic = dlvsym(vdso, "__vdso_clock_gettime", "LINUX_2.6");
}

static uint64_t clock_now(const struct shunt_ring *r)
{
	struct timespec t;

	if (r->clock == SHUNT_RING_CLOCK_TSC)
		return clock_tsc();
	if (r->clock == SHUNT_RING_CLOCK_NONE)
		return 0;
	if (monotonic)
		monotonic(CLOCK_MONOTONIC, &t);
	else
		shunt_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- a thread's writers ------------------------------------------------------ */

/* One block a thread, in memory that fork wipes; a block is another thread's
 * only once the kernel does not know its tid any more. */
struct block {
	struct shunt_ring_writer w[SHUNT_RING_MAX];
	struct block *next;
	int32_t tid;
	uint8_t rounds; /* of destructors that the thread has been through ... */
	uint8_t over;	/* ... all of them */
};

static __thread struct block *mine;
static struct block *blocks;   /* all of this process */
static int32_t blocks_process; /* whose they are */

/* Frames further apart are taken to be on different stacks. */
#define STACK_REACH (1u << 20)

static int32_t gettid_(void)
{
	return (int32_t)shunt_sys(SYS_gettid);
}

static bool tid_gone(int32_t tid)
{
	return shunt_sys(SYS_tgkill, shunt_sys(SYS_getpid), tid, 0) == -ESRCH;
}

static pthread_key_t exit_key;
static int exit_key_made;

static void thread_exit(void *arg)
{
	struct block *b = arg;

	/*
	 * Other keys' destructors may write events in each round: the slot is kept until the
	 * last, or there would be one for each round. What the thread does after that, in
	 * libc's own code, would get it one for good.
	 */
	if (++b->rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
		pthread_setspecific(exit_key, b);
		return;
	}
	b->over = 1;
	for (int i = 0; i < SHUNT_RING_MAX; i++)
		shunt_ring_leave(i, &b->w[i]);
}

void shunt_ring_writers_init(void)
{
	find_clock();
	if (!exit_key_made && !pthread_key_create(&exit_key, thread_exit))
		exit_key_made = 1;
}

static void block_reset(struct block *b, int32_t tid)
{
	for (int i = 0; i < SHUNT_RING_MAX; i++) {
		b->w[i].slot = NULL;
		b->w[i].hi = SHUNT_WRITER_IDLE;
		b->w[i].longs = 0;
		b->w[i].preparing = 0;
	}
	b->rounds = b->over = 0;
	b->tid = tid;
}

static struct block *block_reuse(int32_t tid)
{
	struct block *b = __atomic_load_n(&blocks, __ATOMIC_ACQUIRE);

	for (; b; b = b->next) {
		int32_t old = __atomic_load_n(&b->tid, __ATOMIC_ACQUIRE);

		if ((old && !tid_gone(old)) ||
			!__atomic_compare_exchange_n(&b->tid, &old, tid, false, __ATOMIC_SEQ_CST,
				__ATOMIC_RELAXED))
			continue;
		block_reset(b, tid);
		return b;
	}
	return NULL;
}

static struct block *block_grow(int32_t tid)
{
	size_t size = 16384, n = size / sizeof(struct block);
	long p = shunt_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct block *b = (void *)p, *head;

	if (shunt_sys_failed(p))
		return NULL;
	shunt_sys(SYS_madvise, b, size, MADV_WIPEONFORK);
	for (size_t i = 0; i < n; i++) {
		block_reset(&b[i], 0);
		b[i].next = i + 1 < n ? &b[i + 1] : NULL;
	}
	b[0].tid = tid;
	head = __atomic_load_n(&blocks, __ATOMIC_RELAXED);
	do
		b[n - 1].next = head;
	while (!__atomic_compare_exchange_n(&blocks, &head, b, false, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED));
	return b;
}

/* A child made by a bare fork: what it finds is its parent's, and wiped. */
static void check_process(void)
{
	int32_t pid = (int32_t)shunt_sys(SYS_getpid);

	if (blocks_process != pid) {
		blocks_process = pid;
		__atomic_store_n(&blocks, NULL, __ATOMIC_RELAXED);
	}
}

static struct block *block_get(void)
{
	struct block *b = mine;
	int32_t tid;

	if (b && b->tid)
		return b;
	check_process();
	tid = gettid_();
	if (b) { /* wiped: this is a fork child */
		block_reset(b, tid);
		return b;
	}
	b = block_reuse(tid);
	if (!b)
		b = block_grow(tid);
	/* A handler that came first keeps its block; ours waits for the thread's end. */
	if (b && !mine)
		mine = b;
	return mine;
}

void shunt_ring_forget_thread(void)
{
	struct block *b = mine;

	check_process();
	if (b)
		block_reset(b, gettid_());
}

/* --- slots --------------------------------------------------------------------- */

/* An ended thread's slot whose pages are all gone: its account joins the total. */
static bool slot_retire(struct shunt_ring *r, struct pool_slot *s)
{
	uint32_t ended = SLOT_ENDED;
	struct pool_account *t = &r->super->retired;

	if (s->a.written != s->a.read + s->a.overwritten)
		return false;
	if (!__atomic_compare_exchange_n(&s->state, &ended, SLOT_TAKEN, false, __ATOMIC_SEQ_CST,
		    __ATOMIC_RELAXED))
		return false;
	__atomic_fetch_add(&t->written, s->a.written, __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->discarded, s->a.discarded, __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->overwritten, s->a.overwritten, __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->read, s->a.read, __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->torn, s->a.torn, __ATOMIC_RELAXED);
	return true;
}

static struct pool_slot *slot_take(struct shunt_ring *r)
{
	for (int round = 0; round < 2; round++)
		for (uint32_t i = 0; i < r->nslots; i++) {
			struct pool_slot *s = &r->slots[i];
			uint32_t free = SLOT_FREE;

			if (round == 0 && __atomic_load_n(&s->state, __ATOMIC_RELAXED) == free &&
				__atomic_compare_exchange_n(&s->state, &free, SLOT_TAKEN, false,
					__ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				return s;
			if (round == 1 && slot_retire(r, s))
				return s;
		}
	return NULL;
}

static void slot_begin(struct shunt_ring *r, struct pool_slot *s)
{
	s->tag = r->tag;
	s->pid = (uint32_t)shunt_sys(SYS_getpid);
	s->tid = (uint32_t)gettid_();
	shunt_sys(SYS_prctl, PR_GET_NAME, s->comm);
	s->a.written = s->a.discarded = 0;
	s->a.read = s->a.torn = 0;
	s->a.overwritten = 0;
	s->current = 0;
	__atomic_store_n(&s->state, SLOT_LIVE, __ATOMIC_RELEASE);
}

/* Gives the writer a slot. A handler that interrupts may do so first. */
static bool writer_join(struct shunt_ring *r, struct shunt_ring_writer *w)
{
	struct pool_slot *s;

	if (w->slot)
		return true;
	s = slot_take(r);
	if (!s)
		return false;
	slot_begin(r, s);
	w->hi = SHUNT_WRITER_IDLE;
	w->written = &s->a.written;
	w->words = (uint64_t *)(void *)r->pages;
	if (!local_cmpxchg64((uint64_t *)&w->slot, 0, (uint64_t)s)) {
		__atomic_store_n(&s->state, SLOT_FREE, __ATOMIC_RELEASE);
		w->written = &w->slot->a.written;
	}
	if (exit_key_made)
		pthread_setspecific(exit_key, mine);
	return true;
}

struct shunt_ring_writer *shunt_ring_writer(struct shunt_ring *r)
{
	struct block *b = block_get();

	return b ? &b->w[r->id] : NULL;
}

bool shunt_ring_thread_over(void)
{
	return mine && mine->over;
}

bool shunt_ring_uses_tsc(const struct shunt_ring *r)
{
	return r->clock == SHUNT_RING_CLOCK_TSC;
}

/* --- pages ---------------------------------------------------------------------- */

static uint64_t *page_words(const struct shunt_ring *r, uint32_t i)
{
	return (uint64_t *)(void *)((char *)page_at(r, i) + sizeof(struct shunt_ring_page));
}

static uint64_t *page_last(const struct shunt_ring *r, uint32_t i)
{
	return (uint64_t *)(void *)((char *)page_at(r, i) + r->page_size) - 1;
}

static uint64_t *word_at(const struct shunt_ring *r, uint64_t at)
{
	return (uint64_t *)(void *)r->pages + (uint32_t)at;
}

static struct shunt_ring_page *page_around(const struct shunt_ring *r, const uint64_t *p)
{
	size_t by = (size_t)((const char *)p - r->pages);

	return (void *)(r->pages + (by & ~(size_t)(r->page_size - 1)));
}

/* The first word at or after `p` that is not part of an event. */
static uint64_t *first_free(uint64_t *p, uint64_t *last)
{
	while (p < last) {
		uint64_t w = *(volatile uint64_t *)p;

		if (!(w & 1) || (WORD_KIND(w) == WORD_SPECIAL && WORD_SUB(w) == SUB_CLOCK))
			p++;
		else if (WORD_KIND(w) == WORD_LONG || WORD_SUB(w) == SUB_CLAIMED)
			p += words_of(WORD_LEN(w));
		else
			break; /* EMPTY or END */
	}
	/* A page that is not ours any more may say anything: never beyond its end. */
	return p < last ? p : last;
}

/*
 * Nothing more goes into the page: a writer caught in the middle will fail.
 * `empty` says which use of the page is meant: if that has ended meanwhile,
 * nothing is written. `p` is where an event begins.
 */
static void seal(struct shunt_ring *r, uint32_t i, uint64_t *p, uint64_t empty)
{
	uint64_t *last = page_last(r, i);

	do
		p = first_free(p, last);
	while (*(volatile uint64_t *)p == empty && !local_cmpxchg64(p, empty, WORD_END));
}

void shunt_ring_seal(struct shunt_ring *r, uint32_t i)
{
	seal(r, i, page_words(r, i), EMPTY(TAG_OF(r->descs[i].instance)));
	__atomic_store_n(&r->descs[i].state, PAGE_FULL, __ATOMIC_RELEASE);
}

/*
 * A closed page of ours goes to the reader as soon as no event of it is in the
 * making. Called by who closes the page, and by each writer that finds its page
 * closed when it has committed: whoever comes last finds none.
 */
static void page_settle(struct shunt_ring *r, uint32_t i, uint64_t tag)
{
	struct pool_desc *d = &r->descs[i];
	uint64_t events, torn;

	/* In this order: nobody but us takes a page of ours out of PINNED. */
	if (__atomic_load_n(&d->state, __ATOMIC_ACQUIRE) != PAGE_PINNED ||
		TAG_OF(d->instance) != tag)
		return;
	shunt_ring_count(page_at(r, i), r->page_size, &events, &torn);
	if (torn)
		return;
	d->events = (uint32_t)events;
	__atomic_compare_exchange_n(&d->state, &(uint32_t){PAGE_PINNED}, PAGE_FULL, false,
		__ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

/* Where events begin in a page: where the last one ended, if that was in this use
 * of the page. */
static uint64_t *begin_in(struct shunt_ring *r, struct shunt_ring_writer *w, uint64_t current)
{
	uint64_t at = *(volatile uint64_t *)&w->at;

	return TAG(at) == TAG(current) ? word_at(r, at) : page_words(r, CURRENT_PAGE(current));
}

static void page_close(struct shunt_ring *r, struct shunt_ring_writer *w, struct pool_slot *s,
	uint64_t current)
{
	uint32_t i = CURRENT_PAGE(current);
	struct shunt_ring_page *p = page_at(r, i);

	seal(r, i, begin_in(r, w, current), EMPTY(current));
	if (!local_cmpxchg64(&s->current, current, TAG(current)))
		return; /* a handler has closed it */
	if (!(*(volatile uint8_t *)&p->flags & SHUNT_RING_PAGE_LONG)) {
		__atomic_store_n(&r->descs[i].state, PAGE_FULL, __ATOMIC_RELEASE);
		return;
	}
	/* PINNED before the look, so that whoever commits after it does not miss it. */
	__atomic_store_n(&r->descs[i].state, PAGE_PINNED, __ATOMIC_RELEASE);
	*(volatile uint8_t *)&p->flags = SHUNT_RING_PAGE_LONG | SHUNT_RING_PAGE_CLOSED;
	*(volatile uint64_t *)&w->longs = TAG(current);
	page_settle(r, i, TAG(current));
}

static void give_back(struct shunt_ring *r, uint32_t i)
{
	__atomic_store_n(&r->descs[i].state, PAGE_FREE, __ATOMIC_RELEASE);
	__atomic_fetch_add(&r->super->free, 1, __ATOMIC_RELEASE);
}

static bool take_free(struct shunt_ring *r, uint32_t i)
{
	uint32_t free = PAGE_FREE;

	if (__atomic_load_n(&r->descs[i].state, __ATOMIC_RELAXED) != PAGE_FREE ||
		!__atomic_compare_exchange_n(&r->descs[i].state, &free, PAGE_TAKEN, false,
			__ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		return false;
	__atomic_fetch_sub(&r->super->free, 1, __ATOMIC_RELAXED);
	return true;
}

static uint64_t page_events(const struct shunt_ring *r, uint32_t i)
{
	uint64_t events = *(volatile uint32_t *)&r->descs[i].events, torn;

	if (events == POOL_UNCOUNTED)
		shunt_ring_count(page_at(r, i), r->page_size, &events, &torn);
	return events;
}

/*
 * Counted before it is taken, so that the count is added right behind the
 * taking: a handler that leaves by longjmp has two instructions to get in between.
 */
static bool take_full(struct shunt_ring *r, uint32_t i)
{
	struct pool_desc *d = &r->descs[i];
	uint64_t events, instance;
	uint32_t full = PAGE_FULL;

	/* In this order: if it is the same instance when we have it, it was full
	 * and whole when we counted. */
	instance = __atomic_load_n(&d->instance, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&d->state, __ATOMIC_ACQUIRE) != PAGE_FULL)
		return false;
	events = page_events(r, i);
	if (!__atomic_compare_exchange_n(&d->state, &full, PAGE_TAKEN, false, __ATOMIC_SEQ_CST,
		    __ATOMIC_RELAXED))
		return false;
	if (d->instance != instance) /* it was taken, filled and full again */
		events = page_events(r, i);
	__atomic_fetch_add(&r->slots[d->slot].a.overwritten, events, __ATOMIC_RELAXED);
	return true;
}

/* A page of the pool, index + 1, or 0: oldest first, since tickets go round. */
static uint32_t take(struct shunt_ring *r, uint64_t *instance)
{
	bool any = __atomic_load_n(&r->super->free, __ATOMIC_RELAXED) > 0;

	if (!any && r->mode == SHUNT_RING_DISCARD)
		return 0;
	*instance = __atomic_add_fetch(&r->super->cursor, 1, __ATOMIC_SEQ_CST);
	for (uint32_t k = 0; k < r->npages; k++) {
		uint32_t i = (uint32_t)((*instance + k) % r->npages);

		if (take_free(r, i) || (r->mode == SHUNT_RING_OVERWRITE && take_full(r, i)))
			return i + 1;
	}
	return 0;
}

static void page_begin(struct shunt_ring *r, struct shunt_ring_writer *w, uint32_t i,
	uint64_t instance)
{
	struct shunt_ring_page *p = page_at(r, i);
	struct pool_slot *s = w->slot;
	uint32_t slot = (uint32_t)(s - r->slots);

	fill64(page_words(r, i), EMPTY(TAG_OF(instance)),
		(r->page_size - sizeof *p) / sizeof(uint64_t) - 1);
	*page_last(r, i) = WORD_END;
	p->version = POOL_VERSION;
	p->flags = 0;
	p->header = sizeof *p;
	p->slot = slot;
	p->tag = s->tag;
	p->pid = s->pid;
	p->tid = s->tid;
	p->instance = instance;
	p->seq = local_xadd64(&s->seq, 1);
	p->ts = clock_now(r);
	p->discarded = s->a.discarded;
	p->written = s->a.written;
	r->descs[i].slot = slot;
	r->descs[i].events = POOL_UNCOUNTED;
	r->descs[i].instance = instance;
	p->magic = SHUNT_RING_PAGE_MAGIC;
	/* Only now has the page a meaning, should we die. */
	__atomic_store_n(&r->descs[i].state, PAGE_OPEN, __ATOMIC_RELEASE);
}

static bool on_altstack(uintptr_t sp)
{
	stack_t ss;

	return !shunt_sys(SYS_sigaltstack, 0, &ss) && !(ss.ss_flags & SS_DISABLE) &&
	       sp - (uintptr_t)ss.ss_sp < ss.ss_size;
}

/*
 * Whoever was preparing a page may have been interrupted by a handler that left
 * by longjmp. Then its frame is gone: we stand above it on the same stack. A
 * handler that has interrupted it stands below, or on the alternate stack.
 */
static void reclaim(struct shunt_ring *r, struct shunt_ring_writer *w, uintptr_t sp)
{
	uint32_t page = w->preparing;

	if (sp < w->preparing_at || sp - w->preparing_at > STACK_REACH || on_altstack(sp))
		return;
	w->preparing = 0;
	if (r->descs[page - 1].state == PAGE_TAKEN)
		give_back(r, page - 1);
}

/*
 * A new current page, unless a handler has found one since the slot said `none`.
 * False: there is none to be had.
 */
static __attribute__((noinline)) bool page_new(struct shunt_ring *r, struct shunt_ring_writer *w,
	uint64_t none)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0), outer_at = w->preparing_at;
	uint64_t instance;
	uint32_t page, outer;

	if (w->preparing)
		reclaim(r, w, sp);
	outer = w->preparing;
	page = take(r, &instance);
	if (!page)
		return *(volatile uint64_t *)&w->slot->current != none;
	*(volatile uintptr_t *)&w->preparing_at = sp;
	*(volatile uint32_t *)&w->preparing = page;
	page_begin(r, w, page - 1, instance);
	if (!local_cmpxchg64(&w->slot->current, none, TAG_OF(instance) | page))
		give_back(r, page - 1);
	*(volatile uint32_t *)&w->preparing = outer;
	*(volatile uintptr_t *)&w->preparing_at = outer_at;
	return true;
}

/*
 * Brings `at` and `hi` to the current page, making one if needed. A handler may
 * come in between and do the same: whatever is left behind then fails its claim
 * and comes here again.
 */
static bool resync(struct shunt_ring *r, struct shunt_ring_writer *w, uint32_t words)
{
	for (;;) {
		uint64_t current = *(volatile uint64_t *)&w->slot->current;
		uint32_t i = CURRENT_PAGE(current);
		uint64_t *p, *last;

		if (!CURRENT_ANY(current)) {
			w->hi = SHUNT_WRITER_IDLE;
			if (!page_new(r, w, current))
				return false;
			continue;
		}
		last = page_last(r, i);
		p = first_free(begin_in(r, w, current), last);
		if (*(volatile uint64_t *)p != EMPTY(current) || p + words > last) {
			page_close(r, w, w->slot, current);
			continue;
		}
		/* hi comes last, for it opens the fast path. */
		if (TAG(w->at) != TAG(current))
			*(volatile uint64_t *)&w->hi = SHUNT_WRITER_IDLE;
		*(volatile uint64_t *)&w->at =
			TAG(current) | (uint64_t)(p - (uint64_t *)(void *)r->pages);
		if (*(volatile uint64_t *)&w->hi == SHUNT_WRITER_IDLE)
			*(volatile uint64_t *)&w->hi = hi_of(page_at(r, i)->ts);
		return true;
	}
}

static int discard(struct shunt_ring *r, struct shunt_ring_writer *w)
{
	if (w && w->slot)
		local_inc64(&w->slot->a.discarded);
	else
		__atomic_fetch_add(&r->super->homeless, 1, __ATOMIC_RELAXED);
	return -ENOSPC;
}

/* What is claimed. */
struct place {
	uint64_t *pos;
	struct shunt_ring_page *page;
	uint64_t word, at, hi;
};

/*
 * One try to claim `words` words with `to->word` (less the time). False: try
 * again. The fast path knows the TSC and no clock, and leaves a new high half of
 * the clock to the slow one.
 */
static inline __attribute__((always_inline)) bool claim(struct shunt_ring *r,
	struct shunt_ring_writer *w, struct place *to, size_t words, bool event_long, bool fast)
{
	/* First: where there is one, `at` has been set. */
	uint64_t hi = *(volatile uint64_t *)&w->hi, ts;

	to->at = *(volatile uint64_t *)&w->at;
	to->pos = word_at(r, to->at);
	/* Last: what a handler writes from here on makes the claim fail. */
	if (fast)
		ts = r->clock == SHUNT_RING_CLOCK_TSC ? clock_tsc() : 0;
	else
		ts = clock_now(r);
	if (__builtin_expect(hi_of(ts) != hi, 0)) {
		/* Said once for all that follow; twice does no harm. */
		if (!fast && hi &&
			local_cmpxchg64(to->pos, EMPTY(to->at), WORD_CLOCK(ts >> 32))) {
			*(volatile uint64_t *)&w->at = to->at + 1;
			*(volatile uint64_t *)&w->hi = hi_of(ts);
		}
		return false;
	}
	/* The last word of a page is END: a short event needs no look. */
	if (event_long) {
		uint8_t *flags;

		to->page = page_around(r, to->pos);
		if (__builtin_expect((size_t)((char *)(to->pos + words) - (char *)to->page) >
					     r->room, 0))
			return false;
		/* Before the claim. In somebody else's page, by now, it only
		 * costs them a look. */
		flags = &to->page->flags;
		if (__builtin_expect(!(*(volatile uint8_t *)flags & SHUNT_RING_PAGE_LONG), 0))
			__atomic_fetch_or(flags, SHUNT_RING_PAGE_LONG, __ATOMIC_RELAXED);
	}
	to->word |= ts << 32;
	to->hi = hi;
	if (__builtin_expect(!local_cmpxchg64(to->pos, EMPTY(to->at), to->word), 0))
		return false;
	*(volatile uint64_t *)&w->at = to->at + words;
	return true;
}

static inline uint64_t put_word(uint32_t tag)
{
	return (uint64_t)(tag & SHUNT_RING_TAG_MAX) << 1;
}

int shunt_ring_put_slow(struct shunt_ring *r, struct shunt_ring_writer *w, uint32_t tag)
{
	struct place to;

	if (!w || !writer_join(r, w))
		return discard(r, w);
	do {
		if (!resync(r, w, 1))
			return discard(r, w);
		to.word = put_word(tag);
	} while (!claim(r, w, &to, 1, false, false));
	local_inc64(&w->slot->a.written);
	return 0;
}

static __attribute__((noinline)) int put_anew(struct shunt_ring *r, uint32_t tag)
{
	return shunt_ring_put_slow(r, shunt_ring_writer(r), tag);
}

/* The calling thread's writer, if it may try the fast path. */
static inline __attribute__((always_inline)) struct shunt_ring_writer *ready(struct shunt_ring *r)
{
	struct block *b = mine;

	/* What a fork child finds, all zero, is idle. */
	if (__builtin_expect(!b || r->clock == SHUNT_RING_CLOCK_MONOTONIC, 0))
		return NULL;
	return (struct shunt_ring_writer *)(void *)((char *)b->w + r->writer_at);
}

SHUNT_API int shunt_ring_put(struct shunt_ring *r, uint32_t tag)
{
	struct shunt_ring_writer *w = ready(r);
	struct place to = {.word = put_word(tag)};

	if (__builtin_expect(!w, 0) || __builtin_expect(!claim(r, w, &to, 1, false, true), 0))
		return put_anew(r, tag);
	local_inc64(w->written);
	return 0;
}

/* --- long events ---------------------------------------------------------------- */

static inline __attribute__((always_inline)) void copy_in(uint64_t *to, const void *data,
	size_t len)
{
	const unsigned char *from = data, *end = from + len;
	uint64_t x = 0;

	for (; end - from >= 8; from += 8) {
		__builtin_memcpy(&x, from, 8);
		*(volatile uint64_t *)to++ = x;
	}
	if (from == end)
		return;
	x = 0;
	if (len > 8) { /* the last eight bytes, and of these the last ones */
		__builtin_memcpy(&x, end - 8, 8);
		x >>= 64 - 8 * (end - from);
	} else {
		for (int i = 0; from < end; i += 8)
			x |= (uint64_t)*from++ << i;
	}
	*(volatile uint64_t *)to = x;
}

/* The page of an event that has just got its final word may have been closed
 * before. After the event: a handler that closes it later finds no claim. */
static inline __attribute__((always_inline)) int settle_late(struct shunt_ring *r, uint64_t at)
{
	struct shunt_ring_page *page = page_around(r, word_at(r, at));
	size_t by = (size_t)((char *)page - r->pages);

	if (__builtin_expect(*(volatile uint8_t *)&page->flags & SHUNT_RING_PAGE_CLOSED, 0))
		page_settle(r, (uint32_t)(by / r->page_size), TAG(at));
	return 0;
}

static __attribute__((noinline)) int look_again(struct shunt_ring *r, uint64_t at)
{
	return settle_late(r, at);
}

/* Fills what was claimed at `at`, and makes the claim an event. */
static __attribute__((noinline)) int commit(struct shunt_ring *r, struct shunt_ring_writer *w,
	uint64_t at, uint64_t word, const void *data, size_t len)
{
	uint64_t *pos = word_at(r, at);

	copy_in(pos + 1, data, len);
	/* x86 keeps the order of stores, and volatile has the compiler do so. */
	*(volatile uint64_t *)pos = word ^ WORD_CLAIMED ^ WORD_LONG;
	local_inc64(w->written);
	return settle_late(r, at);
}

static inline uint64_t claim_word(uint32_t type, size_t len)
{
	return (uint64_t)type << 20 | (uint64_t)len << 8 | WORD_CLAIMED;
}

static __attribute__((noinline)) int write_slow(struct shunt_ring *r, uint32_t type,
	const void *data, size_t len)
{
	struct shunt_ring_writer *w;
	struct place to;
	uint64_t longs;
	uint32_t words;

	if (type > SHUNT_RING_TYPE_MAX)
		return -EINVAL;
	if (len > SHUNT_RING_PAYLOAD_MAX)
		return -EMSGSIZE;
	words = words_of((uint32_t)len);
	w = shunt_ring_writer(r);
	if (words * 8 > r->page_size - sizeof(struct shunt_ring_page) - 16) {
		if (w)
			writer_join(r, w);
		discard(r, w);
		return -EMSGSIZE;
	}
	if (!w || !writer_join(r, w))
		return discard(r, w);
	do {
		if (!resync(r, w, words))
			return discard(r, w);
		longs = *(volatile uint64_t *)&w->longs;
		to.word = claim_word(type, len);
	} while (!claim(r, w, &to, words, true, false));
	/* From here on the fast path will do, unless a handler has closed the page. */
	if (r->clock != SHUNT_RING_CLOCK_MONOTONIC)
		local_cmpxchg64(&w->longs, longs, TAG(to.at) | to.hi);
	return commit(r, w, to.at, to.word, data, len);
}

/*
 * The fast path knows the TSC and no clock, and pages that have long events;
 * whatever it finds not quite as usual is left to the slow one. As claim() and
 * commit(), in an order that keeps few things in registers.
 */
static inline __attribute__((always_inline)) int write_fast(struct shunt_ring *r, uint32_t type,
	const void *data, size_t len)
{
	struct block *b = mine;
	struct shunt_ring_writer *w;
	uint64_t word, longs, at, mark, unlike, *pos;
	size_t n = (len + 7) / 8;

	if (__builtin_expect(!b, 0) || __builtin_expect((type | len) > SHUNT_RING_TYPE_MAX, 0))
		return write_slow(r, type, data, len);
	w = (struct shunt_ring_writer *)(void *)((char *)b->w + r->writer_at);
	word = claim_word(type, len);
	longs = *(volatile uint64_t *)&w->longs;
	at = *(volatile uint64_t *)&w->at;
	mark = TAG(at) + 1;
	if (r->clock == SHUNT_RING_CLOCK_TSC) {
		uint64_t ts = clock_tsc();

		word |= ts << 32;
		mark += ts >> 32;
	}
	/* So that nothing is kept that the word has: type, ts. */
	__asm__ volatile("" : "+r"(word));
	pos = word_at(r, at);
	if (__builtin_expect(longs != mark, 0))
		return write_slow(r, WORD_TYPE(word), data, len);
	/* The claim's last word, too: it is in the page, and before its end. */
	unlike = *(volatile uint64_t *)pos ^ EMPTY(at);
	unlike |= *(volatile uint64_t *)(pos + n) ^ EMPTY(at);
	if (__builtin_expect(unlike != 0, 0) ||
		__builtin_expect(!cmpxchg64(pos, EMPTY(at), word), 0))
		return write_slow(r, WORD_TYPE(word), data, len);
	*(volatile uint64_t *)&w->at = at + n + 1;
	if (len != 16)
		return commit(r, w, at, word, data, len);
	__builtin_memcpy(pos + 1, data, 16);
	__asm__ volatile("" ::: "memory");
	*(volatile uint64_t *)pos = word ^ WORD_CLAIMED ^ WORD_LONG;
	local_inc64(w->written);
	/* Who closed the page has changed it. */
	if (__builtin_expect(*(volatile uint64_t *)&w->longs != longs, 0))
		return look_again(r, at);
	return 0;
}

/* Any but the most usual length. */
static __attribute__((noinline)) int write_any(struct shunt_ring *r, uint32_t type,
	const void *data, size_t len)
{
	return write_fast(r, type, data, len);
}

SHUNT_API int shunt_ring_write(struct shunt_ring *r, uint32_t type, const void *data, size_t len)
{
	return __builtin_expect(len == 16, 1) ? write_fast(r, type, data, 16)
					      : write_any(r, type, data, len);
}

/* --- the end of a thread --------------------------------------------------------- */

static void close_all(struct shunt_ring *r, struct shunt_ring_writer *w, struct pool_slot *s)
{
	uint64_t current;

	w->hi = SHUNT_WRITER_IDLE;
	w->longs = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	while (current = *(volatile uint64_t *)&s->current, CURRENT_ANY(current))
		page_close(r, w, s, current);
}

void shunt_ring_writer_end(struct shunt_ring *r, struct shunt_ring_writer *w)
{
	struct pool_slot *s = w->slot;

	if (!s)
		return;
	close_all(r, w, s);
	w->at = 0;
	w->preparing = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	w->slot = NULL;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	/* Until there a handler may have begun a page of the slot; from there on
	 * one takes a slot of its own. */
	close_all(r, w, s);
	__atomic_store_n(&s->state, SLOT_ENDED, __ATOMIC_RELEASE);
}

void shunt_ring_writers_end(struct shunt_ring *r)
{
	struct block *b;

	check_process();
	for (b = __atomic_load_n(&blocks, __ATOMIC_ACQUIRE); b; b = b->next)
		shunt_ring_writer_end(r, &b->w[r->id]);
}
