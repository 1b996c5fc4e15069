/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ops.c - random changes of memory in eight threads, notifiers that come and go, and a judge that does
 * not believe them: io_uring.
 *
 *   fuzz_ops [SECONDS [SEED]]
 *   FUZZ_NEEDS=name	skips where no library has this function: a preloaded allocator that is not there
 *
 * Each worker has some regions that are fixed buffers of a ring of its own. It does something to one, then
 * reads a file into it through the ring. What is not in the memory afterwards went to pages that were there
 * before: a stale translation. If the notifier, or the interval, has not been told of a change in the
 * region since it was given to the ring, it was missed: that is the failure. Also:
 * - in a start on the thread that makes the change, the memory is still what it was;
 * - the starts and ends that a notifier sees are the same ranges and kinds, whether the calls fail or not: some
 *   are refused by the kernel for their arguments, some with ENOMEM by a filter of system calls;
 * - none comes before register, after unregister, in a child of fork(), or of a kind not asked for;
 * - one release each, at exit too (the process that works is a child of the one that judges it);
 * - a change of each sort has been seen to leave stale data, so that the judge is known to be awake.
 *
 * From time to time everybody unregisters for a moment, and the code is as it was built.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../examples/uring.h"
#include "fuzz_oracle.h"
#include "tap.h"

#define WATCHERS 3
#define WORDS (LENGTH / 8)
#define SOURCE_WORDS (4096 + WORDS)
#define HEAP_SMALL 6 /* regions of malloc()'s: in a heap, by itself */
#define HEAP_LARGE 7
#define LIB 8

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

struct worker {
	struct uring ring;
	uint64_t seed;
	unsigned number;
	struct watcher watcher[WATCHERS];
	atomic_ulong done;
	const char *_Atomic doing;
	enum shunt_mmu_source source; /* of the change that was made */
	char lib[32];
};

static struct worker workers[WORKERS];
static struct watcher oracle = {.oracle = true};
static atomic_uint epoch; /* odd while the oracle may not be registered */
static atomic_bool quiet, stop;
static int source_file;
static struct shunt_mmu_coverage coverage;
static unsigned long seed;

static uint64_t roll(struct worker *w)
{
	uint64_t z = (w->seed += 0x9e3779b97f4a7c15ul);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	z = (z ^ z >> 27) * 0x94d049bb133111ebul;
	return z ^ z >> 31;
}

static unsigned upto(struct worker *w, unsigned n)
{
	return (unsigned)(roll(w) >> 16) % n;
}

/* ---- Regions, and what the ring has of them. ---- */

static struct region *region(struct worker *w, unsigned i)
{
	return &regions[w->number][i];
}

static unsigned slot(struct worker *w, const struct region *r)
{
	return (unsigned)(r - regions[w->number]);
}

static void *at(const struct region *r, unsigned pagenr)
{
	return (void *)(r->start + pagenr * PAGE);
}

/* Every second region has an interval, but not while nobody is to listen. */
static void listen_or_not(struct worker *w, struct region *r)
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

/* From here on the ring and the memory are the same. */
static void enlist(struct worker *w, struct region *r)
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

static void move(struct worker *w, struct region *r, uintptr_t to)
{
	if (r->listening)
		region_ignore(r);
	r->listening = false;
	r->start = to;
	enlist(w, r);
}

/* Reads into it. The pages where nothing arrived, as a mask. */
static unsigned transfer(struct worker *w, struct region *r)
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

/* Something became of it that leaves the ring behind, by what io_uring or the kernel said. */
static void must_be_told(struct worker *w, struct region *r, const char *what)
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

/* true: the region's data had gone astray. */
static bool judge(struct worker *w, struct region *r)
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

static void *anonymous(void *where, size_t length, int flags)
{
	return mmap(where, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* Pages [a, b) of a region are no longer ours: maps them again, or if another has them, all elsewhere. */
static void refill(struct worker *w, struct region *r, unsigned a, unsigned b)
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

/* ---- Changes. ---- */

static long raw_munmap(void *p, size_t length)
{
	long r;

	__asm__ volatile("mov $11, %%eax\n\tsyscall" : "=&a"(r) : "D"(p), "S"(length) : "rcx", "r11", "memory");
	return r;
}

static long raw_madvise(void *p, size_t length, long advice)
{
	long r;

	__asm__ volatile("mov $28, %%eax\n\tsyscall"
		: "=&a"(r) : "D"(p), "S"(length), "d"(advice) : "rcx", "r11", "memory");
	return r;
}

static long do_munmap(struct worker *w, void *p, size_t length)
{
	switch (upto(w, 3)) {
	case 0: w->source = SHUNT_MMU_SRC_MUNMAP; return munmap(p, length);
	case 1: w->source = SHUNT_MMU_SRC_SYSCALL; return syscall(SYS_munmap, p, length);
	default: w->source = SHUNT_MMU_SRC_RAW; return raw_munmap(p, length);
	}
}

static long do_madvise(struct worker *w, void *p, size_t length, int advice)
{
	switch (upto(w, 3)) {
	case 0: w->source = SHUNT_MMU_SRC_MADVISE; return madvise(p, length, advice);
	case 1: w->source = SHUNT_MMU_SRC_SYSCALL; return syscall(SYS_madvise, p, length, (long)advice);
	default: w->source = SHUNT_MMU_SRC_RAW; return raw_madvise(p, length, advice);
	}
}

/* Some pages of a region: [*a, *b). */
static size_t some(struct worker *w, unsigned *a, unsigned *b)
{
	*a = upto(w, PAGES);
	*b = *a + 1 + upto(w, PAGES - *a);
	if (!upto(w, 3)) {
		*a = 0;
		*b = PAGES;
	}
	return (*b - *a) * PAGE;
}

static void op_unmap(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);

	if (!do_munmap(w, at(r, a), length))
		refill(w, r, a, b);
}

static void op_map_over(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	off_t offset = (off_t)((upto(w, 2) * PAGES + a) * PAGE);
	bool file = r->file >= 0 && upto(w, 2);
	int flags = file ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	int fd = file ? r->file : -1;

	w->source = upto(w, 2) ? SHUNT_MMU_SRC_MMAP : SHUNT_MMU_SRC_SYSCALL;
	if (w->source == SHUNT_MMU_SRC_MMAP)
		mmap(at(r, a), length, PROT_READ | PROT_WRITE, flags, fd, file ? offset : 0);
	else
		syscall(SYS_mmap, at(r, a), length, (long)(PROT_READ | PROT_WRITE), (long)flags, (long)fd,
			file ? (long)offset : 0L);
}

/* One mapping, which mremap() likes better, and the ring knows it. */
static void renew(struct worker *w, struct region *r)
{
	r->expect = 0;
	anonymous(at(r, 0), LENGTH, MAP_FIXED);
	enlist(w, r);
	if (transfer(w, r))
		fail("%s: a buffer that was registered just now is stale", w->doing);
}

static void op_move(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	void *to, *got;

	renew(w, r);
	to = anonymous(NULL, length, 0);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, a), length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (got != to)
		fail("mremap: %s", strerror(errno));
	munmap(to, length);
	refill(w, r, a, b);
}

static void op_move_only_pages(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	void *got;

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, a), length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (got != MAP_FAILED)
		munmap(got, length);
}

static void op_move_onto(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	char *from = anonymous(NULL, length, MAP_POPULATE);

	w->source = SHUNT_MMU_SRC_MREMAP;
	if (mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at(r, a)) != at(r, a))
		fail("mremap onto: %s", strerror(errno));
}

static void op_shrink(struct worker *w, struct region *r)
{
	unsigned a = 1 + upto(w, PAGES - 1);

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	if (mremap(at(r, 0), LENGTH, a * PAGE, 0) == at(r, 0))
		refill(w, r, a, PAGES);
}

static void op_grow(struct worker *w, struct region *r)
{
	void *got;

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, 0), LENGTH, 16 * LENGTH, MREMAP_MAYMOVE);
	if (got == MAP_FAILED)
		return;
	if (got == at(r, 0)) { /* there was room */
		munmap(at(r, PAGES), 15 * LENGTH);
		return;
	}
	munmap(got, 16 * LENGTH);
	refill(w, r, 0, PAGES);
}

static void op_discard(struct worker *w, struct region *r)
{
	static const int advice[] = {MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED, MADV_REMOVE, GUARD_INSTALL};
	int how = advice[upto(w, 5)];
	unsigned a, b;
	size_t length = some(w, &a, &b);

	if (!do_madvise(w, at(r, a), length, how) && how == GUARD_INSTALL) {
		r->expect = 0;
		madvise(at(r, a), length, GUARD_REMOVE);
	}
}

static void op_process_madvise(struct worker *w, struct region *r)
{
	static int pid = -1;
	struct iovec v[2];
	unsigned a = upto(w, PAGES - 2);

	if (pid < 0)
		pid = (int)syscall(SYS_pidfd_open, getpid(), 0L);
	v[0] = (struct iovec){at(r, a), PAGE};
	v[1] = (struct iovec){at(r, a + 2), PAGE};
	w->source = SHUNT_MMU_SRC_SYSCALL;
	syscall(SYS_process_madvise, (long)pid, v, 2L, (long)MADV_DONTNEED, 0L, 0L);
}

static void op_punch(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);

	w->source = SHUNT_MMU_SRC_FALLOCATE;
	if (r->file < 0)
		return;
	for (unsigned half = 0; half < 2; half++) {
		fallocate(r->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)((half * PAGES + a) * PAGE), (off_t)length);
		r->expect = 0;
	}
}

static void op_truncate(struct worker *w, struct region *r)
{
	w->source = SHUNT_MMU_SRC_TRUNCATE;
	if (r->file < 0)
		return;
	if (ftruncate(r->file, (off_t)(upto(w, PAGES) * PAGE)))
		fail("ftruncate: %s", strerror(errno));
	r->expect = 0; /* a bus error, meanwhile */
	if (ftruncate(r->file, 2 * (off_t)LENGTH))
		fail("ftruncate: %s", strerror(errno));
}

static void op_protect(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	unsigned long expect = r->expect;

	w->source = SHUNT_MMU_SRC_MPROTECT;
	mprotect(at(r, a), length, upto(w, 2) ? PROT_NONE : PROT_READ);
	r->expect = 0;
	mprotect(at(r, a), length, PROT_READ | PROT_WRITE);
	r->expect = expect;
}

static void op_shm(struct worker *w, struct region *r)
{
	int id = shmget(IPC_PRIVATE, LENGTH, 0600);

	if (id < 0)
		return;
	w->source = SHUNT_MMU_SRC_SHM;
	if (shmat(id, at(r, 0), SHM_REMAP) == at(r, 0)) {
		judge(w, r);
		if (!shmdt(at(r, 0)))
			refill(w, r, 0, PAGES);
	}
	shmctl(id, IPC_RMID, NULL);
}

static void op_write(struct worker *w, struct region *r)
{
	(void)w;
	for (unsigned p = 0; p < PAGES; p++) {
		volatile uint64_t *word = at(r, p);

		word[0] = word[0];
	}
}

static void wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail("a child ended with %x", (unsigned)status);
}

/* Nothing that the child does to its memory is ours. */
static void op_fork(struct worker *w, struct region *r)
{
	pid_t pid;

	w->source = SHUNT_MMU_SRC_FORK;
	pid = upto(w, 2) ? fork() : (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L, 0L);
	if (pid < 0)
		return;
	if (!pid) {
		forked = true;
		munmap(at(r, 0), LENGTH);
		syscall(SYS_madvise, at(region(w, 0), 0), LENGTH, (long)MADV_DONTNEED);
		_exit(0);
	}
	op_write(w, r);
	wait_for(pid);
}

/* All that it does is. */
static void op_vfork(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	pid_t pid;

	w->source = SHUNT_MMU_SRC_MUNMAP;
	pid = vfork();
	if (!pid) {
		munmap(at(r, a), length);
		_exit(0);
	}
	if (pid < 0)
		return;
	wait_for(pid);
	refill(w, r, a, b);
}

static void op_exec(struct worker *w, struct region *r)
{
	char *none[] = {NULL};

	(void)r;
	w->source = SHUNT_MMU_SRC_EXEC;
	execve("/nowhere/at/all", none, none);
}

static void *use_stack(void *arg)
{
	volatile char page[4 * PAGE];

	for (size_t i = 0; i < sizeof(page); i += PAGE)
		page[i] = 1;
	return arg;
}

static void op_thread(struct worker *w, struct region *r)
{
	pthread_attr_t attr;
	pthread_t t;

	(void)r;
	w->source = SHUNT_MMU_SRC_LIBC;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, (1ul + upto(w, 32)) << 20);
	if (!pthread_create(&t, &attr, use_stack, NULL))
		pthread_join(t, NULL);
	pthread_attr_destroy(&attr);
}

static void heap_get(struct worker *w, struct region *r)
{
	size_t size = slot(w, r) == HEAP_SMALL ? 100000 : 1 << 20;

	r->handle = malloc(size);
	if (!r->handle)
		fail("no memory");
	memset(r->handle, 1, 100000); /* populate what the region can be in */
}

static uintptr_t heap_start(const struct region *r)
{
	return ((uintptr_t)r->handle + 64 + PAGE - 1) & ~(PAGE - 1);
}

/* free() may give it back to the kernel, malloc() may give us the same address once more. */
static void op_heap(struct worker *w, struct region *r)
{
	r->expect = 0; /* it is anybody's, for a while */
	w->source = SHUNT_MMU_SRC_LIBC;
	free(r->handle);
	if (!upto(w, 4))
		malloc_trim(0);
	heap_get(w, r);
	if (heap_start(r) != r->start)
		move(w, r, heap_start(r));
}

static void op_trim(struct worker *w, struct region *r)
{
	(void)r;
	w->source = SHUNT_MMU_SRC_LIBC;
	malloc_trim(0);
}

static uintptr_t lib_open(struct worker *w, struct region *r)
{
	r->handle = dlopen(w->lib, RTLD_NOW | RTLD_LOCAL);
	if (!r->handle)
		fail("dlopen: %s", dlerror());
	return (uintptr_t)dlsym(r->handle, "fuzz_lib_data");
}

static void op_lib(struct worker *w, struct region *r)
{
	uintptr_t start;

	w->source = SHUNT_MMU_SRC_LOADER;
	dlclose(r->handle);
	r->expect = 0;
	start = lib_open(w, r);
	if (start == r->start)
		return;
	must_be_told(w, r, "a library was unloaded");
	move(w, r, start);
}

/* The kernel refuses these for what they say: nothing changes. */
static void op_nonsense(struct worker *w, struct region *r)
{
	w->source = SHUNT_MMU_SRC_MUNMAP;
	switch (upto(w, 6)) {
	case 0: munmap((char *)at(r, 0) + 1, PAGE); break;
	case 1: munmap(at(r, 0), 0); break;
	case 2: mmap(at(r, 0), LENGTH, PROT_READ, MAP_PRIVATE | MAP_FIXED, 1 << 20, 0); break;
	case 3:
		if (mremap(at(r, 0), LENGTH, LENGTH, MREMAP_FIXED, at(r, 1)) != MAP_FAILED)
			fail("that was no nonsense");
		break;
	case 4: madvise(at(r, 0), LENGTH, 12345); break;
	case 5: madvise((char *)at(r, 0) + 1, LENGTH, MADV_DONTNEED); break;
	}
}

/* These are refused by the filter with ENOMEM, after the notifiers have been told. */
static void op_refused(struct worker *w, struct region *r)
{
	char *p = (char *)window + w->number * WINDOW_SIZE;
	unsigned before = epoch, starts = window_starts[w->number], ends = window_ends[w->number];
	bool failed;

	(void)r;
	w->source = SHUNT_MMU_SRC_MUNMAP;
	errno = 0;
	switch (upto(w, 6)) {
	case 0: failed = munmap(p, PAGE); break;
	case 1: failed = anonymous(p, 2 * PAGE, MAP_FIXED) == MAP_FAILED; break;
	case 2: failed = mremap(p, 4 * PAGE, 2 * PAGE, 0) == MAP_FAILED; break;
	case 3: failed = mprotect(p, PAGE, PROT_READ); break;
	case 4: failed = madvise(p, PAGE, MADV_DONTNEED); break;
	default: failed = syscall(SYS_munmap, p, PAGE); break;
	}
	if (!failed || errno != ENOMEM)
		fail("the filter of system calls let one through");
	starts = window_starts[w->number] - starts;
	ends = window_ends[w->number] - ends;
	if (before == epoch && before % 2 == 0 && (starts != 1 || ends != 1))
		fail("a refused call had %u starts and %u ends", starts, ends);
}

/* A notifier more or less. */
static void op_watch(struct worker *w, struct region *r)
{
	struct watcher *v = &w->watcher[upto(w, WATCHERS)];
	uint32_t kinds = upto(w, 3) ? 0 : 1u << upto(w, SHUNT_MMU_KINDS) | 1u << upto(w, SHUNT_MMU_KINDS);
	bool direct = upto(w, 2);
	int err;

	(void)r;
	if (v->state == WATCHER_ON) {
		watcher_off(v);
		return;
	}
	if (quiet)
		return;
	v->busy = direct ? 0 : 4;
	v->quits_in = upto(w, 4) ? 0 : 64;
	err = watcher_on(v, kinds, direct ? SHUNT_MMU_DIRECT : 0);
	if (err)
		fail("register: %s", strerror(-err));
}

enum where { PAGES_OF_OURS, FILES_OF_OURS, HEAP, LIBRARY };

static const struct op {
	const char *name;
	void (*run)(struct worker *w, struct region *r);
	enum where where;
	unsigned often;
	bool goes_stale; /* as the test for the test, at least once in many */
} ops[] = {
	{"munmap", op_unmap, PAGES_OF_OURS, 8, true},
	{"mmap over", op_map_over, PAGES_OF_OURS, 8, true},
	{"mremap away", op_move, PAGES_OF_OURS, 4, true},
	{"mremap DONTUNMAP", op_move_only_pages, PAGES_OF_OURS, 4, true},
	{"mremap onto", op_move_onto, PAGES_OF_OURS, 4, true},
	{"mremap to less", op_shrink, PAGES_OF_OURS, 4, true},
	{"mremap to more", op_grow, PAGES_OF_OURS, 4, true},
	{"madvise", op_discard, PAGES_OF_OURS, 8, true},
	{"process_madvise", op_process_madvise, PAGES_OF_OURS, 4, false},
	{"hole in a file", op_punch, FILES_OF_OURS, 4, true},
	{"ftruncate", op_truncate, FILES_OF_OURS, 4, true},
	{"mprotect", op_protect, PAGES_OF_OURS, 4, false},
	{"shmat, shmdt", op_shm, PAGES_OF_OURS, 2, true},
	{"write", op_write, PAGES_OF_OURS, 2, false},
	{"fork", op_fork, PAGES_OF_OURS, 1, false},
	{"vfork", op_vfork, PAGES_OF_OURS, 2, true},
	{"execve that fails", op_exec, PAGES_OF_OURS, 1, false},
	{"thread", op_thread, PAGES_OF_OURS, 2, false},
	{"free, malloc", op_heap, HEAP, 12, true},
	{"malloc_trim", op_trim, HEAP, 1, false},
	{"dlclose, dlopen", op_lib, LIBRARY, 3, true},
	{"nonsense", op_nonsense, PAGES_OF_OURS, 2, false},
	{"refused", op_refused, PAGES_OF_OURS, 4, false},
	{"register, unregister", op_watch, PAGES_OF_OURS, 4, false},
};

#define OPS (sizeof(ops) / sizeof(*ops))

static struct {
	struct verdict v;
	atomic_ulong done[OPS], stale[OPS];
} *shared;

/* ---- Workers. ---- */

static struct region *pick(struct worker *w, enum where where)
{
	switch (where) {
	case FILES_OF_OURS: return region(w, 3 + upto(w, 3));
	case HEAP: return region(w, upto(w, 2) ? HEAP_SMALL : HEAP_LARGE);
	case LIBRARY: return region(w, LIB);
	default: return region(w, upto(w, 6));
	}
}

static unsigned pick_op(struct worker *w)
{
	unsigned sum = 0, k;

	for (unsigned i = 0; i < OPS; i++)
		sum += ops[i].often;
	k = upto(w, sum);
	for (unsigned i = 0;; k -= ops[i++].often)
		if (k < ops[i].often)
			return i;
}

/* A copy of the library that is its own file, so that nobody else keeps it loaded. */
static void copy_lib(struct worker *w)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	int from, to = memfd_create("lib", MFD_CLOEXEC);
	struct stat st;

	path[n < 0 ? 0 : n] = '\0';
	strcpy(strrchr(path, '/'), "/libtest-mmu-fuzz.so");
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0 || fstat(from, &st) || sendfile(to, from, NULL, (size_t)st.st_size) != st.st_size)
		fail("%s: %s", path, strerror(errno));
	close(from);
	snprintf(w->lib, sizeof(w->lib), "/proc/self/fd/%d", to);
}

static void set_up(struct worker *w)
{
	int err = uring_open(&w->ring, REGIONS);

	if (err)
		fail("io_uring: %s", strerror(-err));
	w->doing = "set up";
	copy_lib(w);
	for (unsigned i = 0; i < REGIONS; i++) {
		struct region *r = region(w, i);
		char *p;

		r->file = -1;
		if (i == LIB) {
			r->start = lib_open(w, r);
		} else if (i >= HEAP_SMALL) {
			heap_get(w, r);
			r->start = heap_start(r);
		} else {
			if (i >= 3)
				r->file = memfd_create("region", MFD_CLOEXEC);
			if (i >= 3 && ftruncate(r->file, 2 * (off_t)LENGTH))
				fail("memfd: %s", strerror(errno));
			p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
				i < 3 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, r->file, 0);
			r->start = (uintptr_t)p;
		}
		enlist(w, r);
		transfer(w, r);
	}
}

static void leave(struct worker *w)
{
	for (unsigned i = 0; i < WATCHERS; i++)
		if (w->watcher[i].state == WATCHER_ON)
			watcher_off(&w->watcher[i]);
	for (unsigned i = 0; i < REGIONS; i++)
		listen_or_not(w, region(w, i));
}

static void *work(void *arg)
{
	struct worker *w = arg;

	self = (int)w->number;
	set_up(w);
	while (!stop) {
		unsigned op = pick_op(w);
		struct region *r = pick(w, ops[op].where);

		w->doing = doing = ops[op].name;
		if (quiet)
			leave(w);
		ops[op].run(w, r);
		shared->done[op]++;
		shared->stale[op] += judge(w, r);
		w->done++;
	}
	quiet = true;
	leave(w);
	return NULL;
}

/* ---- The process that works. ---- */

/* System calls that change memory fail in the window, with ENOMEM. */
static void refuse_window(void)
{
	char *p = mmap(NULL, 2 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t lo, hi;

	window = ((uintptr_t)p + (1 << 20) - 1) & ~((1ul << 20) - 1);
	lo = (uint32_t)window;
	hi = (uint32_t)(window >> 32);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, hi, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, lo, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, lo + WORKERS * WINDOW_SIZE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(*code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		fail("seccomp: %s", strerror(errno));
}

static void crashed(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fail("signal %d at %p, worker %d: %s", sig, info->si_addr, self, self < 0 ? "" : workers[self].doing);
}

static void prepare(void)
{
	static uint64_t word[SOURCE_WORDS];
	struct sigaction sa = {.sa_sigaction = crashed, .sa_flags = SA_SIGINFO};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	for (uint64_t i = 0; i < SOURCE_WORDS; i++)
		word[i] = i + 1;
	source_file = memfd_create("source", MFD_CLOEXEC);
	if (write(source_file, word, sizeof(word)) != sizeof(word))
		fail("memfd: %s", strerror(errno));
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	refuse_window();
}

static void oracle_on(struct worker *w)
{
	int err = watcher_on(&oracle, 0, upto(w, 2) ? SHUNT_MMU_DIRECT : 0);

	if (err)
		fail("the oracle cannot be registered: %s", strerror(-err));
}

/* The oracle leaves and comes back; everybody leaves, at times. */
static void come_and_go(struct worker *w)
{
	quiet = !upto(w, 3);
	epoch++;
	watcher_off(&oracle);
	if (quiet)
		usleep(upto(w, 20000));
	oracle_on(w);
	epoch++;
	quiet = false;
}

/* Whether each worker gets on. */
static void watch_over(unsigned tick)
{
	static unsigned long before[WORKERS];
	static unsigned since[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		if (workers[i].done != before[i])
			since[i] = tick;
		before[i] = workers[i].done;
		if (tick - since[i] > 60000)
			fail("worker %u does not get on: %s", i, workers[i].doing);
	}
}

static int run(unsigned seconds)
{
	static const enum shunt_mmu_source needed[] = {
		SHUNT_MMU_SRC_MUNMAP, SHUNT_MMU_SRC_MMAP, SHUNT_MMU_SRC_MREMAP, SHUNT_MMU_SRC_MADVISE,
		SHUNT_MMU_SRC_MPROTECT, SHUNT_MMU_SRC_SYSCALL, SHUNT_MMU_SRC_LIBC, SHUNT_MMU_SRC_LOADER,
	};
	struct worker me = {.seed = seed * 1000003};
	pthread_t t[WORKERS];
	time_t until = time(NULL) + seconds;
	unsigned tick = 0;

	prepare();
	if (shunt_mmu_coverage(&coverage))
		fail("coverage");
	for (unsigned i = 0; i < sizeof(needed) / sizeof(*needed); i++)
		if (coverage.source[needed[i]].when != SHUNT_MMU_SEEN_BEFORE)
			fail("%s cannot be seen: %s", shunt_mmu_source_name(needed[i]), coverage.source[needed[i]].why);
	oracle_on(&me);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.seed = seed * WORKERS + i, .number = i};
		pthread_create(&t[i], NULL, work, &workers[i]);
	}
	while (time(NULL) < until) {
		unsigned ms = 1 + upto(&me, 100);

		usleep(ms * 1000);
		watch_over(tick += ms);
		come_and_go(&me);
	}
	stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(t[i], NULL);
	return 0; /* the oracle stays, exit() must release it */
}

/* ---- The process that judges. ---- */

static unsigned long done_so_far(void)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < OPS; i++)
		sum += shared->done[i];
	return sum;
}

/* The status; what stands still for a minute is killed. */
static int wait_or_kill(pid_t pid)
{
	unsigned long before = 0, now;
	unsigned still = 0;
	int status = 0;

	while (!waitpid(pid, &status, WNOHANG)) {
		usleep(100000);
		now = done_so_far();
		still = now == before ? still + 1 : 0;
		before = now;
		if (still == 600 && !atomic_flag_test_and_set(&verdict->said))
			snprintf(verdict->text, sizeof(verdict->text), "it stands still");
		if (still >= 600)
			kill(pid, SIGKILL);
	}
	return status;
}

static void report(void)
{
	unsigned long sum = 0, stale = 0;

	for (unsigned i = 0; i < OPS; i++) {
		diag("%-22s %8lu, stale data after %lu", ops[i].name, (unsigned long)shared->done[i],
			(unsigned long)shared->stale[i]);
		sum += shared->done[i];
		stale += shared->stale[i];
		if (ops[i].goes_stale && shared->done[i] > 200)
			ok(shared->stale[i], "%s leaves stale data behind: the judge sees it", ops[i].name);
	}
	diag("%lu operations, %lu times stale data (%lu not told, and not to be), about %lu events, of these %lu late, "
	     "%lu handed over; %lu notifiers, of these %lu unregistered themselves", sum, stale, verdict->unseen,
	     verdict->events, verdict->late, verdict->handed, (unsigned long)verdict->registered,
	     verdict->self_quits);
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
	struct uring u;
	int err = uring_open(&u, 1), status = 0;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : (unsigned long)time(NULL) ^ (unsigned long)getpid() << 20;
	if (err) {
		skip("no io_uring with fixed buffers for us here: %s", strerror(-err));
		return done();
	}
	uring_close(&u);
	if (getenv("FUZZ_NEEDS") && !dlsym(RTLD_DEFAULT, getenv("FUZZ_NEEDS"))) {
		skip("the allocator with %s() is not installed", getenv("FUZZ_NEEDS"));
		return done();
	}
	diag("seed %lu, %u s", seed, seconds);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	verdict = &shared->v;
	pid = fork();
	if (!pid)
		exit(run(seconds));
	status = wait_or_kill(pid);
	report();
	ok(!verdict->text[0], "no translation went stale unheard, starts and ends pair%s%s", verdict->text[0] ? ": " : "",
		verdict->text);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "the process came to its end (%x)", (unsigned)status);
	ok(verdict->registered == verdict->released, "each notifier had one release, at exit too (%lu, %lu)",
		(unsigned long)verdict->registered, (unsigned long)verdict->released);
	return done();
}
