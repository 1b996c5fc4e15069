/* SPDX-License-Identifier: MIT */
/*
 * calls.c - each call that can change memory, made in each way there is: told in pairs, of the ranges
 * and kinds that decode() finds in its arguments, and whether it failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decode_test.h"

#define P     4096l
#define PAGES 64l
#define SEEN  64

/* --- what is told -------------------------------------------------------------------------- */

static struct seen {
	struct shunt_mmu_event e;
	bool start;
} seen[SEEN];
static unsigned nseen;
static pthread_t me;
static bool listening;

static void note(const struct shunt_mmu_event *e, bool start)
{
	if (listening && pthread_equal(pthread_self(), me) && nseen < SEEN)
		seen[nseen++] = (struct seen){*e, start};
}

static void on_start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	note(e, true);
}

static void on_end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	note(e, false);
}

static const struct shunt_mmu_notifier_ops ops = {
	.invalidate_range_start = on_start, .invalidate_range_end = on_end,
};

/* --- the calls ----------------------------------------------------------------------------- */

static char *room;    /* PAGES pages, anonymous */
static char *mapped;  /* four pages of the file */
static char path[] = "/tmp/shunt-calls-XXXXXX";
static int file, segment;
static char *at;      /* of the segment */
static struct iovec vector[3];
static struct open_how cut = {.flags = O_WRONLY | O_TRUNC};

static long by_name(const struct shunt_mmu_call *c)
{
	const long *a = c->a;

	switch (c->nr) {
	case SYS_munmap:
		return munmap((void *)a[0], (size_t)a[1]);
	case SYS_mmap:
		return (long)mmap((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3], (int)a[4], a[5]);
	case SYS_mremap:
		return (long)mremap((void *)a[0], (size_t)a[1], (size_t)a[2], (int)a[3], (void *)a[4]);
	case SYS_mprotect:
		return mprotect((void *)a[0], (size_t)a[1], (int)a[2]);
	case SYS_pkey_mprotect:
		return pkey_mprotect((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3]);
	case SYS_madvise:
		return madvise((void *)a[0], (size_t)a[1], (int)a[2]);
	case SYS_process_madvise:
		return process_madvise((int)a[0], (void *)a[1], (size_t)a[2], (int)a[3], (unsigned)a[4]);
	case SYS_brk:
		return brk((void *)a[0]);
	case SYS_shmat:
		return (long)shmat((int)a[0], (void *)a[1], (int)a[2]);
	case SYS_shmdt:
		return shmdt((void *)a[0]);
	case SYS_ftruncate:
		return ftruncate((int)a[0], a[1]);
	case SYS_truncate:
		return truncate((char *)a[0], a[1]);
	case SYS_open:
	case SYS_openat: /* libc's open() is openat() */
		return openat((int)a[0], (char *)a[1], (int)a[2], 0600);
	case SYS_creat:
		return creat((char *)a[0], (mode_t)a[1]);
	case SYS_fallocate:
		return fallocate((int)a[0], (int)a[1], a[2], a[3]);
	case SYS_remap_file_pages:
		return remap_file_pages((void *)a[0], (size_t)a[1], (int)a[2], (size_t)a[3], (int)a[4]);
	case SYS_fork:
		return fork();
	}
	errno = ENOSYS;
	return -2;
}

static long by_number(const struct shunt_mmu_call *c)
{
	const long *a = c->a;

	return syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long by_hand(const struct shunt_mmu_call *c)
{
	const long *a = c->a;
	long r = shunt_mmu_syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);

	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

static const struct way {
	const char *name;
	long (*make)(const struct shunt_mmu_call *c);
} ways[] = {{"shunt_mmu_syscall()", by_hand}, {"syscall()", by_number}, {"the function", by_name}};

/* --- the tests ----------------------------------------------------------------------------- */

/* Everything as it was, whatever the last call did. */
static void again(void)
{
	if (mmap(room, (size_t)(PAGES * P), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != room ||
	    ftruncate(file, 8 * P) ||
	    mmap(mapped, 4 * P, PROT_READ, MAP_SHARED | MAP_FIXED, file, 2 * P) != mapped ||
	    shmat(segment, at, SHM_REMAP) != at)
		abort();
}

static bool matches(const struct seen *s, const struct shunt_mmu_range *r, bool start, bool failed,
	long result)
{
	uintptr_t new_start = r->new_start;

	if (r->kind == REMAP && !start && !failed)
		new_start = (uintptr_t)result;
	return s->start == start && s->e.start == r->start && s->e.end == r->end && s->e.kind == r->kind &&
	       (s->e.new_start == new_start || (failed && !start)) &&
	       !(s->e.flags & (SHUNT_MMU_NESTED | SHUNT_MMU_LATE | SHUNT_MMU_HANDED)) &&
	       !(s->e.flags & SHUNT_MMU_FAILED) == (start || !failed);
}

static bool told(unsigned n, const struct shunt_mmu_range *want, bool failed, long result)
{
	unsigned i, j, hits = 0;

	for (i = 0; i < n; i++)
		for (j = 0; j < nseen; j++)
			hits += matches(&seen[j], &want[i], j < n, failed, result);
	if (nseen == 2 * n && hits == 2 * n)
		return true;
	for (i = 0; i < n; i++)
		diag("wanted %lx-%lx to %lx kind %u", want[i].start, want[i].end, want[i].new_start,
			want[i].kind);
	for (j = 0; j < nseen; j++)
		diag("%s %lx-%lx to %lx kind %u flags %x", seen[j].start ? "start" : "end", seen[j].e.start,
			seen[j].e.end, seen[j].e.new_start, seen[j].e.kind, seen[j].e.flags);
	return false;
}

static void end_child(long r)
{
	if (!r)
		_exit(nseen != 1); /* the start that was told in the parent */
	waitpid((pid_t)r, NULL, 0);
}

/* `ranges`: how many there have to be; `fails`: the error that it has to have, or 0. */
static void one(const struct way *w, const char *name, struct shunt_mmu_call c, unsigned ranges, int fails)
{
	struct shunt_mmu_range want[SHUNT_MMU_RANGES];
	unsigned n;
	bool good, failed;
	long r;

	again();
	if (c.nr == SYS_brk)
		c.a[0] = (long)sbrk(0) + c.a[0];
	n = shunt_mmu_decode(&c, want);
	nseen = 0;
	listening = true;
	errno = 0;
	r = w->make(&c);
	listening = false;
	if (c.nr == SYS_fork && r >= 0)
		end_child(r);
	if (r == -2) /* no function of that name */
		return;
	failed = r == -1;
	/* brk() the system call says where the heap ends instead of failing. */
	good = n == ranges && (failed ? errno : 0) == fails && told(n, want, failed, r);
	if (!good)
		diag("%s: %ld, errno %d, %u ranges", name, r, failed ? errno : 0, n);
	ok(good, "%s: %s", w->name, name);
	if ((c.nr == SYS_openat || c.nr == SYS_creat || c.nr == SYS_openat2) && r >= 0)
		close((int)r);
	if (c.nr == SYS_mremap && !failed && (r < (long)room || r >= (long)room + PAGES * P))
		munmap((void *)r, (size_t)c.a[2]);
}

#define CALL(n, ...) (struct shunt_mmu_call){n, {__VA_ARGS__}}
#define ANON	     (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)

static void memory(const struct way *w)
{
	long r = (long)room;

	one(w, "munmap", CALL(SYS_munmap, r, 3 * P), 1, 0);
	one(w, "munmap inside of a page", CALL(SYS_munmap, r + 1, P), 0, EINVAL);
	one(w, "mmap over it", CALL(SYS_mmap, r, 2 * P - 1, PROT_READ, ANON, -1, 0), 1, 0);
	one(w, "mmap over it of no file", CALL(SYS_mmap, r, P, PROT_READ, MAP_SHARED | MAP_FIXED, -1, 0), 1,
		EBADF);
	one(w, "mmap where there is something", CALL(SYS_mmap, r, P, PROT_READ,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), 0, EEXIST);
	one(w, "mremap, shorter", CALL(SYS_mremap, r, 4 * P, P, 0), 1, 0);
	one(w, "mremap, longer", CALL(SYS_mremap, r, 2 * P, 4 * P, MREMAP_MAYMOVE), 1, 0);
	one(w, "mremap, to", CALL(SYS_mremap, r, 2 * P, 2 * P, FIXED, r + 9 * P), 2, 0);
	one(w, "mremap, shorter, to", CALL(SYS_mremap, r, 4 * P, 2 * P, FIXED, r + 9 * P), 3, 0);
	one(w, "mremap of nothing", CALL(SYS_mremap, 4096, P, 2 * P, MREMAP_MAYMOVE), 1, EFAULT);
	one(w, "mprotect", CALL(SYS_mprotect, r, 2 * P, PROT_READ), 1, 0);
	one(w, "mprotect of nothing", CALL(SYS_mprotect, 4096, P, PROT_READ), 1, ENOMEM);
	one(w, "pkey_mprotect", CALL(SYS_pkey_mprotect, r, P, PROT_READ, -1), 1, 0);
	one(w, "madvise", CALL(SYS_madvise, r, P, MADV_DONTNEED), 1, 0);
	one(w, "madvise of nothing", CALL(SYS_madvise, 4096, P, MADV_DONTNEED), 1, ENOMEM);
	one(w, "madvise that discards nothing", CALL(SYS_madvise, r, P, MADV_WILLNEED), 0, 0);
	one(w, "remap_file_pages", CALL(SYS_remap_file_pages, (long)mapped, P, 0, 3, 0), 1, 0);
	one(w, "shmdt", CALL(SYS_shmdt, (long)at), 1, 0);
	one(w, "shmat over it", CALL(SYS_shmat, segment, (long)at, SHM_REMAP), 1, 0);
	one(w, "fork", CALL(SYS_fork, 0), 1, 0);
}

static void files(const struct way *w)
{
	one(w, "ftruncate", CALL(SYS_ftruncate, file, 3 * P), 1, 0);
	one(w, "ftruncate, longer", CALL(SYS_ftruncate, file, 30 * P), 0, 0);
	one(w, "truncate", CALL(SYS_truncate, (long)path, 3 * P), 1, 0);
	one(w, "creat", CALL(SYS_creat, (long)path, 0600), 1, 0);
	one(w, "openat", CALL(SYS_openat, AT_FDCWD, (long)path, O_WRONLY | O_TRUNC), 1, 0);
	one(w, "openat2", CALL(SYS_openat2, AT_FDCWD, (long)path, (long)&cut, sizeof(cut)), 1, 0);
	one(w, "openat that keeps it", CALL(SYS_openat, AT_FDCWD, (long)path, O_RDONLY), 0, 0);
	one(w, "fallocate", CALL(SYS_fallocate, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * P, P), 1,
		0);
	one(w, "madvise of the file", CALL(SYS_madvise, (long)mapped + P, P, MADV_REMOVE), 1, 0);
}

/* The kernel may be older than advice on oneself's memory. */
static void vectors(const struct way *w)
{
	struct shunt_mmu_call c = CALL(SYS_process_madvise, -10001, (long)vector, 3, MADV_DONTNEED);

	vector[0] = (struct iovec){room, P};
	vector[1] = (struct iovec){room + 4 * P, 2 * P};
	vector[2] = (struct iovec){room + 9 * P, P};
	if (syscall(SYS_process_madvise, -10001, vector, 3, MADV_DONTNEED, 0) != 4 * P)
		skip("%s: process_madvise: %s", w->name, strerror(errno));
	else
		one(w, "process_madvise", c, 3, 0);
}

static void heap(const struct way *w)
{
	void *now = sbrk(0);

	sbrk(4 * P);
	if (w->make == by_name) {
		one(w, "brk", CALL(SYS_brk, -2 * P), 1, 0);
	} else {
		nseen = 0;
		listening = true;
		w->make(&CALL(SYS_brk, (long)now + P));
		listening = false;
		ok(nseen == 2 && seen[0].start && !seen[1].start && seen[0].e.kind == UNMAP,
			"%s: brk", w->name);
	}
	brk(now);
}

static bool covered(void)
{
	struct shunt_mmu_coverage c;

	return !shunt_mmu_coverage(&c) &&
	       c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_SEEN_BEFORE;
}

int main(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops, .flags = SHUNT_MMU_DIRECT | SHUNT_MMU_PARTIAL};
	unsigned i, count;
	int r;

	me = pthread_self();
	setvbuf(stdout, NULL, _IOLBF, 4096);
	file = mkstemp(path);
	segment = shmget(IPC_PRIVATE, 3 * P, 0600);
	room = mmap(NULL, (size_t)(PAGES * P), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mapped = mmap(NULL, 4 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = mmap(NULL, 3 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (file < 0 || segment < 0)
		return 1;
	r = shunt_mmu_notifier_register(&n);
	ok(!r, "registered (%d)", r);
	count = covered() ? 3 : 1;
	for (i = 0; i < count; i++) {
		memory(&ways[i]);
		files(&ways[i]);
		vectors(&ways[i]);
		heap(&ways[i]);
	}
	if (count == 1)
		skip("calls that the program makes itself: munmap() is not seen");
	ok(!shunt_mmu_notifier_unregister(&n), "unregistered");
	shmctl(segment, IPC_RMID, NULL);
	unlink(path);
	return done();
}
