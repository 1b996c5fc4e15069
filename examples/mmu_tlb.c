/* SPDX-License-Identifier: MIT */
/*
 * mmu_tlb.c - an engine with a translation cache of its own, as an accelerator has one.
 *
 *   mmu_tlb [--interval] [--with | --without]     without either: both, and the two must differ
 *
 * The program maps frames of a memfd at virtual pages and changes that all the time, from several
 * threads. The engine is given virtual addresses. It looks up once which frame is there and keeps the
 * answer; then it reads and writes the frame through a mapping of its own. Nothing tells it
 * that the program has mapped something else by now, but a notifier:
 *
 *   start		raises the count of changes of each page that is concerned, flushes the translation,
 *			and waits until the engine is through with what it had looked up before;
 *   end		lowers the count, faults that waited go on;
 *   invalidate_page	is a flush alone, it takes no lock and waits for nobody: a pager of the program's
 *			has exchanged the frame of one page, by a means that is not seen.
 *
 * A translation is one word, its generation and the frame. Each flush makes a new generation, so that a fault
 * that looked the page up before puts nothing in after it. With --interval there is one interval for
 * each page in place of the notifier, and shunt_mmu_interval_read_begin() and _read_retry() do the work of
 * the count and the generation.
 *
 * What is wrong is counted, by two rules that hold if the translations are right:
 *   stale	a word that the engine read is not what the page held since before it looked;
 *   stray	the engine wrote to a frame that has been taken away from its page.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <shunt/mmu.h>
#include <shunt/srcu.h>

#define PAGE	4096
#define THREADS 3
#define EACH	8 /* pages of a thread */
#define PAGES	(THREADS * EACH)
#define FRAMES	(2 * PAGES)
#define ROUNDS	1200
#define ENOUGH	15 /* seconds: on a busy machine, where who yields comes back after milliseconds, not all rounds are made */

/* What a page is to hold, as the engine is to find it: a version, or one of these. */
#define NOTHING	 0xffffffffu
#define CHANGING 0xfffffffeu

struct frame { /* the start of one */
	uint32_t number;
	_Atomic uint32_t version;
	_Atomic uint32_t writes; /* the engine's */
	uint32_t before;	 /* as many of them there were when it was taken away */
};

static char *frames, *base; /* the engine's view, all of the memfd; the program's */
static int memfd;
static _Atomic uint32_t expected[PAGES];
static atomic_ulong passes, rounds, looks, stale, stray, faults, waited;
static time_t began;
static atomic_bool stop;
static bool with, by_interval;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "mmu_tlb: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct frame *frame_at(uint32_t n)
{
	return (struct frame *)(frames + (size_t)n * PAGE);
}

/* ---- The engine: translations, faults. ---- */

static _Atomic uint64_t tlb[PAGES]; /* generation << 32 | frame + 1; without a frame: no translation */
static _Atomic unsigned active[PAGES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static SHUNT_SRCU_DEFINE(accesses);
static struct shunt_mmu_interval interval[PAGES];

/* Without a lock. */
static void flush(unsigned page)
{
	uint64_t old = tlb[page];

	while (!atomic_compare_exchange_weak(&tlb[page], &old, ((old >> 32) + 1) << 32))
		;
}

/*
 * The time that a bus takes: others run meanwhile, and what was true before need not be any more. All
 * that this program is about would rarely happen without.
 */
static void slowly(void)
{
	static unsigned seed; /* the engine's alone */

	if (rand_r(&seed) % 4)
		return;
	for (int n = 1 + rand_r(&seed) % 8; n; n--)
		sched_yield();
}

/* The frame that is mapped at the page now, + 1; 0: none, or it may not be read. */
static uint32_t walk(unsigned page)
{
	struct frame f;
	struct iovec to = { &f, sizeof f }, from = { base + (size_t)page * PAGE, sizeof f };

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)sizeof f)
		f.number = UINT32_MAX;
	slowly();
	return f.number + 1; /* each frame says which it is */
}

/* As KVM's page faults: wait for changes that are under way, look, and see whether one came between. */
static bool fault_counted(unsigned page, uint32_t *frame)
{
	uint64_t before = tlb[page]; /* before `active`: start raises that first */

	if (active[page]) {
		waited++;
		pthread_mutex_lock(&lock);
		while (active[page])
			pthread_cond_wait(&idle, &lock);
		pthread_mutex_unlock(&lock);
		return false;
	}
	*frame = walk(page);
	return atomic_compare_exchange_strong(&tlb[page], &before, (before & ~0xffffffffull) | *frame);
}

static bool fault_interval(unsigned page, uint32_t *frame)
{
	uint64_t seq = shunt_mmu_interval_read_begin(&interval[page]);
	bool ok;

	*frame = walk(page);
	pthread_mutex_lock(&lock);
	ok = !shunt_mmu_interval_read_retry(&interval[page], seq);
	if (ok)
		tlb[page] = *frame;
	pthread_mutex_unlock(&lock);
	return ok;
}

/* false: nothing is there. */
static bool fault(unsigned page)
{
	uint32_t frame;

	faults++;
	while (!(with && by_interval ? fault_interval(page, &frame) : fault_counted(page, &frame)))
		;
	return frame;
}

/* false: the translation is to be made first. */
static bool access_page(unsigned page, uint32_t *word)
{
	int idx = shunt_srcu_read_lock(&accesses);
	uint32_t frame = (uint32_t)tlb[page];

	if (frame) {
		slowly();
		*word = frame_at(frame - 1)->version;
		frame_at(frame - 1)->writes++;
	}
	shunt_srcu_read_unlock(&accesses, idx);
	return frame;
}

static void look(unsigned page)
{
	uint32_t before = expected[page], word = NOTHING;

	while (!access_page(page, &word) && fault(page))
		;
	if (before == CHANGING || expected[page] != before)
		return;
	looks++;
	stale += word != before;
}

static void *engine(void *arg)
{
	while (!stop) {
		for (unsigned i = 0; i < PAGES; i++)
			look(i);
		passes++;
	}
	return arg;
}

/* ---- What keeps its translations right. ---- */

/* The pages that are concerned: [from, to). */
static bool concerned(const struct shunt_mmu_event *e, unsigned *from, unsigned *to)
{
	uintptr_t a = (uintptr_t)base, z = a + (size_t)PAGES * PAGE;

	if (e->end <= a || e->start >= z)
		return false;
	*from = e->start <= a ? 0 : (unsigned)((e->start - a) / PAGE);
	*to = e->end >= z ? PAGES : (unsigned)((e->end - a) / PAGE);
	return true;
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	unsigned from, to;

	(void)n;
	if (!concerned(e, &from, &to))
		return;
	for (unsigned i = from; i < to; i++) {
		active[i]++;
		flush(i);
	}
	shunt_srcu_synchronize(&accesses);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	unsigned from, to;

	(void)n;
	if (!concerned(e, &from, &to))
		return;
	pthread_mutex_lock(&lock);
	for (unsigned i = from; i < to; i++) {
		check(active[i], "an end without a start");
		active[i]--;
	}
	pthread_cond_broadcast(&idle);
	pthread_mutex_unlock(&lock);
}

static void page_exchanged(struct shunt_mmu_notifier *n, uintptr_t page)
{
	(void)n;
	if (page - (uintptr_t)base < (size_t)PAGES * PAGE)
		flush((unsigned)((page - (uintptr_t)base) / PAGE));
}

static void release(struct shunt_mmu_notifier *n)
{
	(void)n;
	for (unsigned i = 0; i < PAGES; i++)
		flush(i);
	shunt_srcu_synchronize(&accesses);
}

static const struct shunt_mmu_notifier_ops ops = {
	.release = release,
	.invalidate_range_start = start,
	.invalidate_range_end = end,
	.invalidate_page = page_exchanged,
};
static struct shunt_mmu_notifier notifier = { .ops = &ops };

static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)e;
	(void)seq;
	pthread_mutex_lock(&lock);
	tlb[i - interval] = 0;
	pthread_mutex_unlock(&lock);
	shunt_srcu_synchronize(&accesses);
}

static const struct shunt_mmu_interval_ops interval_ops = { .invalidate = invalidate };

static int listen_begin(void)
{
	int r = 0;

	if (!by_interval)
		return shunt_mmu_notifier_register(&notifier);
	for (unsigned i = 0; i < PAGES && !r; i++) {
		interval[i].ops = &interval_ops;
		r = shunt_mmu_interval_insert(&interval[i], (uintptr_t)base + (size_t)i * PAGE, PAGE);
	}
	return r;
}

static void listen_end(void)
{
	if (!by_interval)
		shunt_mmu_notifier_unregister(&notifier);
	for (unsigned i = 0; by_interval && i < PAGES; i++)
		shunt_mmu_interval_remove(&interval[i]);
}

/* ---- The program. ---- */

struct owner {
	unsigned first;	      /* of its pages */
	uint32_t mapped[EACH]; /* the frame of each, + 1 */
	bool locked[EACH];     /* PROT_NONE */
	uint32_t spare[FRAMES / THREADS]; /* first in, first out */
	unsigned spares;
	uint32_t version;
	unsigned seed;
};

static char *address(const struct owner *o, unsigned i)
{
	return base + (size_t)(o->first + i) * PAGE;
}

static uint32_t fresh(struct owner *o)
{
	uint32_t n = o->spare[0];

	memmove(o->spare, o->spare + 1, --o->spares * sizeof o->spare[0]);
	frame_at(n)->version = ++o->version;
	return n;
}

static void changing(struct owner *o, unsigned i)
{
	expected[o->first + i] = CHANGING;
}

static void changed(struct owner *o, unsigned i)
{
	uint32_t f = o->mapped[i];

	expected[o->first + i] = !f || o->locked[i] ? NOTHING : frame_at(f - 1)->version;
}

/* The frame is not the page's any more: whoever writes to it from now on has not heard of it. */
static void taken(struct owner *o, uint32_t frame)
{
	if (!frame)
		return;
	o->spare[o->spares++] = frame - 1;
	frame_at(frame - 1)->before = frame_at(frame - 1)->writes;
}

/* Until the engine has looked at every page, once at least since now. */
static void let_it_look(struct owner *o)
{
	unsigned long until = passes + 2;

	while (passes < until)
		sched_yield();
	for (unsigned i = 0; i < o->spares; i++) {
		struct frame *f = frame_at(o->spare[i]);

		stray += f->writes - f->before;
		f->before = f->writes;
	}
}

static void map(struct owner *o, unsigned i)
{
	uint32_t old = o->mapped[i], new = fresh(o);

	changing(o, i);
	check(mmap(address(o, i), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd,
		(off_t)new * PAGE) != MAP_FAILED, "mmap");
	o->mapped[i] = new + 1;
	o->locked[i] = false;
	changed(o, i);
	taken(o, old);
}

/* All pages of the thread from i on, in one call: some may hold nothing already. */
static void unmap(struct owner *o, unsigned i)
{
	uint32_t old[EACH];

	for (unsigned j = i; j < EACH; j++)
		changing(o, j);
	check(!munmap(address(o, i), (size_t)(EACH - i) * PAGE), "munmap");
	for (unsigned j = i; j < EACH; j++) {
		old[j] = o->mapped[j];
		o->mapped[j] = 0;
		o->locked[j] = false;
		changed(o, j);
	}
	for (unsigned j = i; j < EACH; j++)
		taken(o, old[j]);
}

static void protect(struct owner *o, unsigned i)
{
	if (!o->mapped[i])
		return;
	changing(o, i);
	check(!mprotect(address(o, i), PAGE, o->locked[i] ? PROT_READ | PROT_WRITE : PROT_NONE), "mprotect");
	o->locked[i] = !o->locked[i];
	changed(o, i);
}

/* From one page to another, over what was there. */
static void move(struct owner *o, unsigned from, unsigned to)
{
	uint32_t old = o->mapped[to];

	if (from == to || !o->mapped[from])
		return;
	changing(o, from);
	changing(o, to);
	check(mremap(address(o, from), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, address(o, to)) !=
		MAP_FAILED, "mremap");
	o->mapped[to] = o->mapped[from];
	o->locked[to] = o->locked[from];
	o->mapped[from] = 0;
	o->locked[from] = false;
	changed(o, from);
	changed(o, to);
	taken(o, old);
}

/*
 * A pager of the program's exchanges the frame of a page, by a system call of its own that is not seen
 * (SHUNT_MMU_SRC_RAW): it is the pager's to say so.
 */
static long map_unseen(void *at, uint32_t frame)
{
	register long flags __asm__("r10") = MAP_SHARED | MAP_FIXED;
	register long fd __asm__("r8") = memfd;
	register long offset __asm__("r9") = (long)frame * PAGE;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "0"(SYS_mmap), "D"(at), "S"((long)PAGE),
		"d"((long)(PROT_READ | PROT_WRITE)), "r"(flags), "r"(fd), "r"(offset) : "rcx", "r11", "memory");
	return r;
}

static void exchange(struct owner *o, unsigned i)
{
	uint32_t old = o->mapped[i], new;

	if (!old || o->locked[i])
		return;
	new = fresh(o);
	changing(o, i);
	check(map_unseen(address(o, i), new) == (long)address(o, i), "mmap, by a call of its own");
	o->mapped[i] = new + 1;
	if (with) {
		shunt_mmu_invalidate_page((uintptr_t)address(o, i));
		shunt_srcu_synchronize(&accesses); /* the old frame may be in use until here */
	}
	changed(o, i);
	taken(o, old);
}

/* Some times at once: what the engine looks up in between is of no use for long. */
static void replace(struct owner *o, unsigned i)
{
	for (int n = 1 + rand_r(&o->seed) % 4; n; n--)
		if (rand_r(&o->seed) % 2)
			map(o, i);
		else
			exchange(o, i);
}

/* Without a notifier not before something went wrong: this is to be seen. */
static bool enough(void)
{
	return time(NULL) - began > ENOUGH && (with || stale || stray);
}

static void *program(void *arg)
{
	struct owner *o = arg;

	for (int round = 0; round < ROUNDS && !enough(); round++) {
		unsigned i = (unsigned)rand_r(&o->seed) % EACH;

		switch (rand_r(&o->seed) % 10) {
		case 0: unmap(o, i); break;
		case 1: protect(o, i); break;
		case 2: move(o, i, (i + 3) % EACH); break;
		default: replace(o, i);
		}
		let_it_look(o);
		rounds++;
	}
	return NULL;
}

/* ---- */

static void prepare(struct owner *o, unsigned n)
{
	memset(o, 0, sizeof *o);
	o->first = n * EACH;
	o->seed = n + 1;
	for (uint32_t i = 0; i < FRAMES / THREADS; i++) {
		uint32_t f = n * (FRAMES / THREADS) + i;

		frame_at(f)->number = f;
		frame_at(f)->before = frame_at(f)->writes;
		o->spare[o->spares++] = f;
	}
	for (unsigned i = 0; i < EACH; i++)
		changed(o, i);
}

/* How much was wrong; -1: the notifier could not be registered. */
static long run(bool notified)
{
	static struct owner owner[THREADS];
	pthread_t thread[THREADS], engine_thread;
	int r = 0;

	with = notified;
	stop = false;
	rounds = looks = stale = stray = faults = waited = 0;
	began = time(NULL);
	for (unsigned i = 0; i < PAGES; i++)
		flush(i);
	check(!munmap(base, (size_t)PAGES * PAGE), "munmap");
	for (unsigned i = 0; i < THREADS; i++)
		prepare(&owner[i], i);
	if (with)
		r = listen_begin();
	if (r) {
		fprintf(stderr, "mmu_tlb: cannot listen: %s\n", strerror(-r));
		return -1;
	}
	check(!pthread_create(&engine_thread, NULL, engine, NULL), "pthread_create");
	for (unsigned i = 0; i < THREADS; i++)
		check(!pthread_create(&thread[i], NULL, program, &owner[i]), "pthread_create");
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	stop = true;
	pthread_join(engine_thread, NULL);
	if (with)
		listen_end();
	printf("%s: %lu rounds, %lu looks, %lu faults (%lu waited for a change): %lu stale, %lu stray writes\n",
		!with ? "without a notifier" : by_interval ? "with intervals" : "with a notifier",
		rounds, looks, faults, waited, stale, stray);
	fflush(stdout);
	return (long)(stale + stray);
}

int main(int argc, char **argv)
{
	bool only_with = false, only_without = false, good = true;

	for (int i = 1; i < argc; i++) {
		by_interval |= !strcmp(argv[i], "--interval");
		only_with |= !strcmp(argv[i], "--with");
		only_without |= !strcmp(argv[i], "--without");
	}
	memfd = memfd_create("frames", MFD_CLOEXEC);
	check(memfd >= 0 && !ftruncate(memfd, (off_t)FRAMES * PAGE), "memfd");
	frames = mmap(NULL, (size_t)FRAMES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	/* Far from where the kernel puts mappings by itself: what is unmapped there stays so. */
	base = mmap((void *)0x200000000000, (size_t)PAGES * PAGE, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	check(frames != MAP_FAILED && base != MAP_FAILED, "mmap");
	if (!only_with)
		good &= run(false) > 0;
	if (!only_without)
		good &= run(true) == 0;
	if (!good)
		fprintf(stderr, "mmu_tlb: that is not what should have come out\n");
	return !good;
}
