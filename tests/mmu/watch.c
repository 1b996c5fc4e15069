/* SPDX-License-Identifier: MIT */
/*
 * The backstop: changes that nobody told of are told late, once; those that were told are not told again. Changes
 * are made by system calls that this file makes itself, so that no place in libc sees them.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/x86_64/text_sys.h"
#include "mmu/core.h"
#include "mmu/watch.h"
#include "tap.h"

#define PAGE  4096ul
#define PAGES 16
#define SIZE  (PAGES * PAGE)

/* --- a notifier that writes down what it is told of one piece of memory --------------------- */

struct heard {
	uintptr_t start, end, new_start;
	uint32_t kind, flags;
};

static pthread_mutex_t heard_lock = PTHREAD_MUTEX_INITIALIZER;
static struct heard heard[64];
static unsigned nheard;
static int open_pairs;
static uintptr_t care_start, care_end;

static bool cared_for(const struct shunt_mmu_event *e)
{
	return e->start < care_end && e->end > care_start;
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (!cared_for(e))
		return;
	pthread_mutex_lock(&heard_lock);
	if (nheard < 64)
		heard[nheard++] = (struct heard){e->start, e->end, e->new_start, e->kind, e->flags};
	open_pairs++;
	pthread_mutex_unlock(&heard_lock);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (!cared_for(e))
		return;
	pthread_mutex_lock(&heard_lock);
	open_pairs--;
	pthread_mutex_unlock(&heard_lock);
}

static const struct shunt_mmu_notifier_ops ops = {.invalidate_range_start = start, .invalidate_range_end = end};
static struct shunt_mmu_notifier notifier = {.ops = &ops, .flags = SHUNT_MMU_PARTIAL,
	.kinds = 1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_DISCARD};

static void listen_to(void *at, size_t size)
{
	shunt_mmu_sync();
	care_start = (uintptr_t)at;
	care_end = care_start + size;
	nheard = 0;
}

/* --- memory -------------------------------------------------------------------------------- */

static char *map_shared(int fd, int prot, int flags)
{
	long p = shunt_sys(SYS_mmap, 0, SIZE, prot, flags, fd, 0);

	if (shunt_sys_failed(p))
		abort();
	return (char *)p;
}

static char *map(void)
{
	char *p = map_shared(-1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	memset(p, 1, SIZE);
	return p;
}

static char *watched(void)
{
	char *p = map();

	if (shunt_mmu_watch(p, SIZE))
		abort();
	listen_to(p, SIZE);
	return p;
}

static void unmap(void *p, size_t size)
{
	shunt_sys(SYS_munmap, p, size);
}

/* Heard just this, and late. */
static bool heard_late(unsigned i, enum shunt_mmu_kind kind, void *at, size_t size)
{
	shunt_mmu_sync();
	return i < nheard && heard[i].kind == (uint32_t)kind && heard[i].start == (uintptr_t)at &&
	       heard[i].end == (uintptr_t)at + size && heard[i].flags & SHUNT_MMU_LATE && !open_pairs;
}

static bool only_late(enum shunt_mmu_kind kind, void *at, size_t size)
{
	bool is = heard_late(0, kind, at, size) && nheard == 1;

	if (!is) {
		diag("heard %u, open %d, wanted %u %p+%zx", nheard, open_pairs, kind, at, size);
		for (unsigned i = 0; i < nheard; i++)
			diag("  kind %u %lx-%lx new %lx flags %x", heard[i].kind, heard[i].start, heard[i].end,
				heard[i].new_start, heard[i].flags);
	}
	return is;
}

/* --- what is told late --------------------------------------------------------------------- */

static void unseen(void)
{
	char *p = watched(), *q;

	unmap(p + PAGE, PAGE);
	ok(only_late(SHUNT_MMU_UNMAP, p + PAGE, PAGE), "munmap is told late, once");
	listen_to(p, SIZE);
	shunt_sys(SYS_mmap, p + 4 * PAGE, 2 * PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ok(only_late(SHUNT_MMU_UNMAP, p + 4 * PAGE, 2 * PAGE), "MAP_FIXED is told late, once");
	listen_to(p, SIZE);
	shunt_sys(SYS_madvise, p + 8 * PAGE, PAGE, MADV_DONTNEED);
	ok(only_late(SHUNT_MMU_DISCARD, p + 8 * PAGE, PAGE), "madvise is told late, once");
	listen_to(p, SIZE);
	q = (char *)shunt_sys(SYS_mremap, p + 10 * PAGE, PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	ok(only_late(SHUNT_MMU_REMAP, p + 10 * PAGE, PAGE) && heard[0].new_start == (uintptr_t)q,
		"mremap is told late, once, with the new address");
	ok(shunt_mmu_watches((uintptr_t)q, (uintptr_t)q + PAGE) &&
			!shunt_mmu_watches((uintptr_t)p + 10 * PAGE, (uintptr_t)p + 11 * PAGE),
		"the watch has moved along");
	listen_to(q, PAGE);
	unmap(q, 64 * PAGE);
	ok(heard_late(0, SHUNT_MMU_UNMAP, q, 64 * PAGE) && nheard == 1, "and tells of the new place");
	listen_to(p, SIZE);
	shunt_sys(SYS_mremap, p + 12 * PAGE, 2 * PAGE, PAGE, 0);
	ok(only_late(SHUNT_MMU_UNMAP, p + 13 * PAGE, PAGE), "an mremap that shrinks is an unmap of its tail");
	unmap(p, SIZE);
}

/* A second call on a range that has moved away, mapped anew and watched again, is told as well. */
static void moved_and_watched_again(void)
{
	char *p = watched();
	char *q = (char *)shunt_sys(SYS_mremap, p, SIZE, SIZE, MREMAP_MAYMOVE | 4 /* DONTUNMAP */, 0);

	ok(only_late(SHUNT_MMU_REMAP, p, SIZE), "MREMAP_DONTUNMAP is told late, once");
	ok(!shunt_mmu_watch(p, SIZE), "its source is watched again");
	listen_to(p, SIZE);
	unmap(p, SIZE);
	ok(only_late(SHUNT_MMU_UNMAP, p, SIZE), "and unmapped: told, though the move had been expected to do that");
	unmap(q, SIZE);
}

/* --- what is not told twice ---------------------------------------------------------------- */

static void seen(void)
{
	char *p = watched();
	struct shunt_mmu_change c;

	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, (uintptr_t)p, (uintptr_t)p + PAGE, 0);
	unmap(p, PAGE);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 1 && !(heard[0].flags & SHUNT_MMU_LATE), "an unmap that was told is not told late");
	listen_to(p, SIZE);
	shunt_mmu_change_begin(&c, SHUNT_MMU_DISCARD, (uintptr_t)p, (uintptr_t)p + SIZE, 0);
	shunt_sys(SYS_madvise, p + PAGE, SIZE - PAGE, MADV_DONTNEED);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 1, "nor a discard");
	listen_to(p, SIZE);
	shunt_mmu_change_begin(&c, SHUNT_MMU_REMAP, (uintptr_t)p + PAGE, (uintptr_t)p + 2 * PAGE, 0);
	shunt_sys(SYS_mremap, p + PAGE, PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 1, "nor a move, with its two events");
	listen_to(p, SIZE);
	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, (uintptr_t)p + 4 * PAGE, (uintptr_t)p + 5 * PAGE, 0);
	unmap(p + 4 * PAGE, 2 * PAGE);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 2, "one that unmaps more than was told is told late");
	listen_to(p, SIZE);
	shunt_mmu_change_begin(&c, SHUNT_MMU_DISCARD, (uintptr_t)p + 6 * PAGE, (uintptr_t)p + 7 * PAGE, 0);
	unmap(p + 6 * PAGE, PAGE);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 2, "so is one of another kind");
	listen_to(p, SIZE);
	shunt_mmu_change_begin(&c, SHUNT_MMU_DISCARD, (uintptr_t)p + 8 * PAGE, (uintptr_t)p + 9 * PAGE, 0);
	shunt_sys(SYS_madvise, p + 8 * PAGE, PAGE, MADV_DONTNEED);
	shunt_sys(SYS_madvise, p + 8 * PAGE, PAGE, MADV_DONTNEED);
	shunt_mmu_change_end(&c, false, 0);
	shunt_mmu_sync();
	ok(nheard == 2, "of two discards of the same, one that was told, the second is told late");
	unmap(p, SIZE);
}

/* The same through libc: told before, where its places are patched, and once in any case. */
static void through_libc(void)
{
	static struct shunt_mmu_coverage c;
	char *p = watched();
	bool before, late;

	munmap(p, PAGE);
	shunt_mmu_sync();
	late = nheard && heard[0].flags & SHUNT_MMU_LATE;
	before = !shunt_mmu_coverage(&c) && c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_SEEN_BEFORE;
	ok(nheard == 1, "munmap() of libc's is told once (%u, %s)", nheard, late ? "late" : "before");
#ifndef __SANITIZE_ADDRESS__
	ok(late == !before, "before, if coverage says so");
#else
	(void)before;
#endif
	listen_to(p, SIZE);
	madvise(p + PAGE, PAGE, MADV_DONTNEED);
	shunt_mmu_sync();
	ok(nheard == 1, "madvise() too (%u)", nheard);
	listen_to(p, SIZE);
	ok(mremap(p + 2 * PAGE, PAGE, 64 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED, "mremap()");
	shunt_mmu_sync();
	ok(nheard == 1, "too (%u)", nheard);
	munmap(p + 4 * PAGE, 4 * PAGE);
	shunt_mmu_sync();
	ok(nheard == 2, "and what is left (%u)", nheard);
	unmap(p, SIZE);
}

/* --- after the change ---------------------------------------------------------------------- */

static _Atomic int ended_on, stop;
static int early;
static char *looked_at;

static void ignore(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
}

static void look_at_end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (e->kind == SHUNT_MMU_DISCARD && e->start == (uintptr_t)looked_at)
		ended_on = 1 + looked_at[0];
}

static void *spin(void *arg)
{
	(void)arg;
	while (!stop)
		;
	return NULL;
}

static void *discard(void *policy)
{
	struct sched_param none = {0};
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
	if (policy)
		sched_setscheduler(0, SCHED_IDLE, &none);
	else
		setpriority(PRIO_PROCESS, (id_t)shunt_sys(SYS_gettid), 10);
	shunt_sys(SYS_madvise, looked_at, PAGE, MADV_DONTNEED);
	return NULL;
}

/* An end is late by 100 ms at most, and comes again where that was too early. */
static bool ends_empty(void)
{
	static const struct timespec moment = {0, 1000000};

	shunt_mmu_sync();
	early += ended_on == 78;
	for (int i = 0; ended_on != 1 && i < 5000; i++)
		nanosleep(&moment, NULL);
	return ended_on == 1;
}

static void discard_rounds(int rounds, void *policy, const char *name)
{
	int good = 0, done_rounds = 0;
	pthread_t t;

	/* Where ends may be early, until some were. */
	for (int i = 0; i < rounds && good == i && early < 3; i++, done_rounds++) {
		looked_at[0] = 77;
		ended_on = 0;
		pthread_create(&t, NULL, discard, policy);
		pthread_join(t, NULL);
		good += ends_empty();
	}
	ok(good == done_rounds, "a discard's end comes after it, %s", name);
}

/*
 * The kernel says it before a discard, whose maker has yet to get a processor: it shares one with a thread
 * that never sleeps, at a low priority. The end has to find the page empty.
 */
static void after_the_discard(void)
{
	static const struct shunt_mmu_notifier_ops look = {.invalidate_range_start = ignore,
		.invalidate_range_end = look_at_end};
	struct shunt_mmu_notifier n = {.ops = &look, .flags = SHUNT_MMU_PARTIAL};
	pthread_t busy;
	pthread_attr_t a;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	pthread_attr_init(&a);
	pthread_attr_setaffinity_np(&a, sizeof one, &one);
	looked_at = watched();
	stop = 0;
	if (shunt_mmu_notifier_register(&n) || pthread_create(&busy, &a, spin, NULL))
		abort();
	discard_rounds(20, NULL, "by a thread that waits for a processor");
	shunt_mmu_late_patience = 0;
	discard_rounds(200, &n, "also when one gets none for so long that it is given up: it comes again");
	shunt_mmu_late_patience = 100000000;
	stop = 1;
	pthread_join(busy, NULL);
	/* With this the last of those that were not sure is. */
	shunt_sys(SYS_madvise, looked_at, PAGE, MADV_DONTNEED);
	shunt_mmu_sync();
	pthread_attr_destroy(&a);
	shunt_mmu_notifier_unregister(&n);
	unmap(looked_at, SIZE);
}

/* --- what can be watched ------------------------------------------------------------------- */

static void kinds_of_memory(void)
{
	char name[] = "/tmp/shunt-watch-XXXXXX", *p;
	int fd = mkstemp(name), self = open("/proc/self/exe", O_RDONLY);

	unlink(name);
	if (fd < 0 || ftruncate(fd, SIZE))
		abort();
	p = map_shared(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
	ok(!shunt_mmu_watch(p, SIZE), "a shared file mapping");
	listen_to(p, SIZE);
	shunt_sys(SYS_madvise, p, PAGE, MADV_DONTNEED);
	ok(only_late(SHUNT_MMU_DISCARD, p, PAGE), "its discard is told");
	unmap(p, SIZE);
	ok(heard_late(1, SHUNT_MMU_UNMAP, p, SIZE), "its unmap is told");
	p = map_shared(self, PROT_READ, MAP_PRIVATE);
	ok(!shunt_mmu_watch(p, SIZE), "a private file mapping, read-only");
	unmap(p, SIZE);
	p = map_shared(-1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	ok(!shunt_mmu_watch(p, SIZE), "shmem");
	listen_to(p, SIZE);
	shunt_sys(SYS_madvise, p, PAGE, MADV_REMOVE);
	ok(only_late(SHUNT_MMU_DISCARD, p, PAGE), "its hole is told");
	unmap(p, SIZE);
	p = map_shared(self, PROT_READ, MAP_SHARED);
	ok(shunt_mmu_watch(p, SIZE) == -EINVAL, "not a shared one that can never be written");
	unmap(p, SIZE);
	p = (char *)shunt_sys(SYS_mmap, 0, 2 << 20, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (shunt_sys_failed((long)p)) {
		skip("no huge pages are set aside here");
	} else {
		ok(!shunt_mmu_watch(p, 2 << 20), "hugetlb");
		unmap(p, 2 << 20);
	}
	close(fd);
	close(self);
}

static void refused(void)
{
	char *p = map(), *q = map();
	int self = open("/proc/self/exe", O_RDONLY);

	ok(shunt_mmu_watch(p + 1, PAGE) == -EINVAL && shunt_mmu_watch(p, PAGE + 1) == -EINVAL &&
			shunt_mmu_watch(p, 0) == -EINVAL && shunt_mmu_watch((void *)-PAGE, PAGE) == -EINVAL &&
			shunt_mmu_watch(p, -PAGE) == -EINVAL,
		"not whole pages, nothing, beyond the address space: -EINVAL");
	unmap(p + PAGE, PAGE);
	ok(shunt_mmu_watch(p, SIZE) == -ENOMEM && shunt_mmu_watch(p + PAGE, PAGE) == -ENOMEM, "a hole: -ENOMEM");
	listen_to(p, SIZE);
	unmap(p + 2 * PAGE, PAGE);
	shunt_mmu_sync();
	ok(!nheard, "and nothing of it is watched");
	shunt_sys(SYS_mmap, q + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, self, 0);
	ok(shunt_mmu_watch(q, SIZE) == -EINVAL, "a part that cannot be: -EINVAL");
	listen_to(q, SIZE);
	unmap(q + 2 * PAGE, PAGE);
	shunt_mmu_sync();
	ok(!nheard && !shunt_mmu_watches((uintptr_t)q, (uintptr_t)q + PAGE), "and nothing of it is watched");
	ok(shunt_mmu_unwatch(q, SIZE) == -ENOENT, "unwatch of what is not watched: -ENOENT");
	unmap(p, SIZE);
	unmap(q, SIZE);
	close(self);
}

static void parts(void)
{
	char *p = watched();
	uintptr_t a = (uintptr_t)p;

	ok(!shunt_mmu_unwatch(p + 4 * PAGE, 2 * PAGE), "a part is unwatched");
	ok(shunt_mmu_watches(a, a + 4 * PAGE) && shunt_mmu_watches(a + 6 * PAGE, a + SIZE) &&
			!shunt_mmu_watches(a, a + SIZE) && !shunt_mmu_watches(a + 5 * PAGE, a + 7 * PAGE),
		"the rest stays watched");
	unmap(p + 4 * PAGE, PAGE);
	shunt_mmu_sync();
	ok(!nheard, "nothing is told of that part");
	unmap(p + 6 * PAGE, PAGE);
	ok(only_late(SHUNT_MMU_UNMAP, p + 6 * PAGE, PAGE), "but of the rest");
	ok(!shunt_mmu_watches(a + 6 * PAGE, a + 7 * PAGE), "what is unmapped is watched no more");
	unmap(p, SIZE);
	ok(!shunt_mmu_unwatch(p, SIZE) || !shunt_mmu_watches(a, a + SIZE), "nor is the rest");
}

/* --- ageing ------------------------------------------------------------------------------- */

static int answer;

static int young(struct shunt_mmu_notifier *n, uintptr_t start_, uintptr_t end_)
{
	(void)n;
	(void)start_;
	(void)end_;
	return answer;
}

static void ageing(void)
{
	static const struct shunt_mmu_notifier_ops yes = {.invalidate_range_start = start,
		.invalidate_range_end = end, .clear_flush_young = young};
	struct shunt_mmu_notifier n = {.ops = &yes, .flags = SHUNT_MMU_PARTIAL};
	char *p = map_shared(-1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	ok(!shunt_mmu_clear_flush_young(p, SIZE), "not watched: nobody says that it was used");
	shunt_mmu_watch(p, SIZE);
	ok(!shunt_mmu_clear_flush_young(p, SIZE), "untouched: not used");
	p[3 * PAGE] = 1;
	ok(!shunt_mmu_clear_flush_young(p, 3 * PAGE) && !shunt_mmu_clear_flush_young(p + 4 * PAGE, PAGE),
		"other pages than the written one: not used");
	ok(shunt_mmu_clear_flush_young(p, SIZE) == 1, "written: used");
	ok(!shunt_mmu_clear_flush_young(p, SIZE), "not since");
	p[3 * PAGE] = 2;
	ok(shunt_mmu_clear_flush_young(p + 3 * PAGE + 7, 1) == 1, "written again: used");
	for (int i = 0; i < PAGES; i += 2)
		p[i * PAGE] = 1;
	ok(shunt_mmu_clear_flush_young(p, SIZE) == 1 && !shunt_mmu_clear_flush_young(p, SIZE),
		"all that was written is taken at once");
	if (shunt_mmu_notifier_register(&n))
		abort();
	ok(!shunt_mmu_clear_flush_young(p, SIZE), "a consumer that says no");
	answer = 1;
	ok(shunt_mmu_clear_flush_young(p, SIZE) == 1, "a consumer that says yes");
	answer = 0;
	shunt_mmu_notifier_unregister(&n);
	ok(shunt_mmu_clear_flush_young(p, 0) == -EINVAL && shunt_mmu_clear_flush_young((void *)-PAGE, 1) == -EINVAL,
		"bad ranges: -EINVAL");
	unmap(p, SIZE);
}

/* The kernel writes into a page that is protected for ageing: no signal, no error. */
static void written_by_the_kernel(void)
{
	char *p = watched();
	int fds[2];

	shunt_mmu_clear_flush_young(p, SIZE);
	if (pipe(fds) || write(fds[1], "x", 1) != 1)
		abort();
	ok(read(fds[0], p, 1) == 1 && shunt_mmu_clear_flush_young(p, SIZE) == 1, "what the kernel writes is seen");
	close(fds[0]);
	close(fds[1]);
	unmap(p, SIZE);
}

/* --- fork --------------------------------------------------------------------------------- */

static int status_of(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* In the child: nothing is watched, it can unmap, and can begin anew. */
static int as_child(char *p)
{
	alarm(20);
	if (shunt_mmu_watches((uintptr_t)p, (uintptr_t)p + PAGE))
		return 1;
	unmap(p, PAGE);
	if (shunt_mmu_watch(p + PAGE, PAGE))
		return 2;
	if (!shunt_mmu_watches((uintptr_t)p + PAGE, (uintptr_t)p + 2 * PAGE))
		return 3;
	unmap(p + PAGE, PAGE);
	shunt_mmu_watch_sync();
	return shunt_mmu_watches((uintptr_t)p + PAGE, (uintptr_t)p + 2 * PAGE) ? 4 : 0;
}

/* The parent's thread is in the middle of telling. */
static int as_registered_child(void)
{
	static struct shunt_mmu_notifier own = {.ops = &ops, .flags = SHUNT_MMU_PARTIAL};

	alarm(20);
	if (shunt_mmu_notifier_register(&own))
		return 1;
	shunt_mmu_sync();
	return shunt_mmu_notifier_unregister(&own) ? 2 : 0;
}

static int fork_while_telling(void)
{
	char *p = watched();
	pid_t child;

	pthread_mutex_lock(&heard_lock);
	unmap(p, PAGE); /* back when it has been read; told, or not yet */
	child = (pid_t)shunt_sys(SYS_fork);
	if (!child)
		shunt_sys(SYS_exit_group, as_registered_child());
	pthread_mutex_unlock(&heard_lock);
	unmap(p, SIZE);
	return status_of(child);
}

static void *unmap_for_ever(void *arg)
{
	(void)arg;
	while (!stop) {
		char *p = map();

		shunt_mmu_watch(p, SIZE);
		unmap(p, SIZE);
	}
	return NULL;
}

static void forks(void)
{
	char *p = watched();
	pid_t child = fork();
	int failed = 0;
	pthread_t t;

	if (!child)
		_exit(as_child(p));
	failed = status_of(child);
	ok(!failed, "a fork child is watched no more, and may watch (%d)", failed);
	child = (pid_t)shunt_sys(SYS_fork);
	if (!child)
		shunt_sys(SYS_exit_group, as_child(p));
	failed = status_of(child);
	ok(!failed, "so is one that was made without libc (%d)", failed);
	shunt_mmu_sync();
	ok(!nheard, "what they unmap is not told to us");
	child = (pid_t)shunt_sys(SYS_vfork);
	if (!child) {
		shunt_sys(SYS_munmap, p, PAGE);
		shunt_sys(SYS_exit, 0);
	}
	status_of(child);
	ok(only_late(SHUNT_MMU_UNMAP, p, PAGE), "what a vfork child unmaps is");
	unmap(p, SIZE);
	failed = fork_while_telling();
	ok(!failed, "one that was made while something is told does not wait for that (%d)", failed);
	stop = failed = 0;
	pthread_create(&t, NULL, unmap_for_ever, NULL);
	for (int i = 0; i < 50; i++) {
		p = map();
		child = fork();
		if (!child)
			_exit(as_child(p));
		failed += status_of(child) != 0;
		unmap(p, SIZE);
	}
	stop = 1;
	pthread_join(t, NULL);
	ok(!failed, "forks while another thread watches and unmaps");
}

/* --- exit, privileges, closed descriptors -------------------------------------------------- */

static int in_a_child(int (*fn)(void))
{
	pid_t child = fork();

	if (!child) {
		alarm(20);
		exit(fn());
	}
	return status_of(child);
}

/*
 * The leak sanitizer stops all threads at exit, one by one: when the reader is one of the first, who waits for it in
 * the kernel cannot be stopped, and the sanitizer waits for ever.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static int exits(void)
{
	pthread_t t;

	stop = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(&t, NULL, unmap_for_ever, NULL);
	for (int i = 0; i < 50; i++) {
		char *p = map();

		shunt_mmu_watch(p, SIZE);
		unmap(p, SIZE);
	}
	return 7;
}

static int unprivileged(void)
{
	char *p;

	/* Before: who is nobody by setuid may not write to its own text. */
	if (shunt_mmu_notifier_register(&notifier))
		return 1;
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		return 6;
	p = map();
	if (shunt_mmu_watch(p, SIZE))
		return 2;
	listen_to(p, SIZE);
	shunt_sys(SYS_madvise, p, PAGE, MADV_DONTNEED);
	if (!only_late(SHUNT_MMU_DISCARD, p, PAGE))
		return 3;
	unmap(p, SIZE);
	return heard_late(1, SHUNT_MMU_UNMAP, p, SIZE) ? 7 : 4;
}

static int closed(void)
{
	int fds[2];
	char *p, byte = 0;

	if (shunt_mmu_notifier_register(&notifier))
		return 1;
	p = map();
	if (shunt_mmu_watch(p, SIZE))
		return 2;
	shunt_sys(SYS_close_range, 3, ~0u, 0);
	if (pipe(fds) || write(fds[1], "x", 1) != 1)
		return 3;
	listen_to(p, SIZE);
	unmap(p, SIZE);
	if (!only_late(SHUNT_MMU_UNMAP, p, SIZE))
		return 4;
	return read(fds[0], &byte, 1) == 1 && byte == 'x' ? 7 : 5;
}

static void ends(void)
{
	int failed = 0, r;

	for (int i = 0; i < 20; i++)
		failed += in_a_child(exits) != 7;
	ok(!failed, "exit with events on their way does not hang");
	r = in_a_child(unprivileged);
	if (r == 6)
		skip("only root can become nobody");
	else
		ok(r == 7, "without privileges (%d)", r);
	r = in_a_child(closed);
	ok(r == 7, "a program that closes all descriptors is told, and its own are not read (%d)", r);
}

/* --- many --------------------------------------------------------------------------------- */

#define ROUNDS 1500

static _Atomic unsigned long late_unmaps, told_unmaps;

static void count(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (e->kind != SHUNT_MMU_UNMAP || e->end - e->start != SIZE)
		return;
	if (e->flags & SHUNT_MMU_LATE)
		late_unmaps++;
	else
		told_unmaps++;
}

/*
 * Each at an address of its own: else one could map, watch and unmap what the other has just unmapped and is still
 * telling of, and need not be told.
 */
static void *rounds_of(void *arg)
{
	char *p = (char *)(arg ? 0x200000000000ul : 0x300000000000ul);
	bool told = arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct shunt_mmu_change c;

		shunt_sys(SYS_mmap, p, SIZE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (shunt_mmu_watch(p, SIZE))
			abort();
		if (told)
			shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, (uintptr_t)p, (uintptr_t)p + SIZE, 0);
		unmap(p, SIZE);
		if (told)
			shunt_mmu_change_end(&c, false, 0);
		/* A full queue puts ranges together: not here. */
		if (i % 256 == 0)
			shunt_mmu_sync();
	}
	return NULL;
}

static void many(void)
{
	static const struct shunt_mmu_notifier_ops counting = {.invalidate_range_start = count};
	struct shunt_mmu_notifier n = {.ops = &counting, .flags = SHUNT_MMU_PARTIAL};
	pthread_t t[2];

	listen_to(NULL, 0);
	if (shunt_mmu_notifier_register(&n))
		abort();
	pthread_create(&t[0], NULL, rounds_of, NULL);
	pthread_create(&t[1], NULL, rounds_of, &n);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	shunt_mmu_sync();
	ok(told_unmaps == ROUNDS && late_unmaps == ROUNDS,
		"two threads: each unmap is told once (%lu before, %lu late)", told_unmaps, late_unmaps);
	shunt_mmu_notifier_unregister(&n);
}

int main(void)
{
	char *p = map();
	int r = shunt_mmu_watch(p, SIZE);

	if (r == -ENOSYS || r == -EPERM) {
		skip("no userfaultfd with WP_ASYNC here (%d)", r);
		return done();
	}
	ok(!r && shunt_mmu_watched(), "memory is watched (%d)", r);
	unmap(p, SIZE);
	ok(!shunt_mmu_watched(), "none when it is unmapped");
	ends();
	if (shunt_mmu_notifier_register(&notifier))
		abort();
	unseen();
	moved_and_watched_again();
	seen();
	through_libc();
	kinds_of_memory();
	refused();
	parts();
	ageing();
	written_by_the_kernel();
	after_the_discard();
	forks();
	many();
	ok(!shunt_mmu_notifier_unregister(&notifier) && !open_pairs, "all pairs were closed");
	return done();
}
