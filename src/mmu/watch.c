/* SPDX-License-Identifier: MIT */
/*
 * watch.c - the kernel tells what becomes of watched memory, late: userfaultfd.
 *
 * One descriptor in write-protect mode with WP_ASYNC, so that no fault ever stops a thread. Who unmaps, discards or
 * moves watched memory sleeps in the kernel until a thread of ours has read the event, and may have any
 * lock there is. So that thread (reader) takes only two locks, this file's `list` and the queue's, whose
 * holders do nothing that could send an event; it does not allocate, and unmaps nothing but the old
 * array of the list. The callbacks run on another thread (late.c).
 *
 * Nothing is told twice: the maker of a change that is told anyway has a slot in told.c until its call returns, so
 * a copy of that table made between poll() and read() has it. A discarding op swallows no more
 * bytes than it has: two threads that discard the same range at the same time, one of them unseen, send two events
 * of which the second must be told.
 *
 * The list of what is watched changes with the events, under the lock that read() is under. It
 * is for unwatch, ageing and coverage: whether something is told does not depend on it. For between a
 * change and its event another thread may map and watch the same addresses, and the event takes these out of the
 * list; the kernel goes on telling of them.
 *
 * A move is two events: REMAP, and UNMAP of where it was. The second is expected, and dropped, until somebody
 * watches that range again. Where it never comes (MREMAP_DONTUNMAP) the watch has moved away, and
 * what is expected harms nobody.
 *
 * The descriptor is also in a table of descriptors that only the reader has: a program that closes what it does not
 * know must not make us read from its next file. When its own copy is closed nothing more can be watched, but
 * what is watched is told.
 *
 * fork: the kernel drops the registrations in the child, where all this is set back: by a
 * handler, which can also close the descriptor, or, when the child was made without libc, when it first asks for
 * something: `owner` is in a page that a child finds empty. No lock is held over fork(): the reader needs `list`,
 * and who sleeps until it reads may have what fork() waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "base/hold.h"
#include "base/log.h"
#include "base/worker.h"
#include "mmu/watch.h"

/* Newer than Debian 12's headers (Linux 6.7). */
#define WP_UNPOPULATED (1ull << 13)
#define WP_ASYNC       (1ull << 15)
#define FEATURES \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | WP_UNPOPULATED | WP_ASYNC | \
		UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP)
#define USER_MODE_ONLY 1 /* all that the unprivileged get; no fault is delivered anyway */

#define ADDRESSES_END 0x7ffffffff000ul
#define EXPECTED      64

static struct shunt_hold setup = SHUNT_HOLD_INIT; /* before `list`; the reader never takes it */
static struct shunt_hold list = SHUNT_HOLD_INIT;
static struct shunt_mmu_spans spans;	       /* of list */
static struct shunt_mmu_span expected[EXPECTED]; /* of list; end 0: free */
static int uffd = -1;			       /* of setup and list */
static uint32_t *owner;			       /* 0 in a fork child, 2 while that is set back */
static bool handler;
static uint32_t ready;			       /* futex: the reader has its own table of descriptors */
/* Odd from before read() until what was read is in the queue; a futex. */
static uint32_t rounds;

static int read_events(void);
static struct shunt_worker reader = SHUNT_WORKER(read_events, "shunt-mmu-watch");

/* --- fork ----------------------------------------------------------------------------- */

static void set_back(void)
{
	setup = list = (struct shunt_hold)SHUNT_HOLD_INIT;
	spans.n = 0;
	memset(expected, 0, sizeof expected);
	uffd = -1;
	rounds = ready = 0;
	shunt_mmu_told_forget();
	shunt_mmu_late_forget();
}

static void in_child(void)
{
	if (uffd >= 0)
		shunt_sys(SYS_close, uffd);
	set_back();
	if (owner)
		__atomic_store_n(owner, 1, __ATOMIC_RELEASE);
}

/* Several threads of a child that was made without libc may come here first. */
static void after_fork(void)
{
	uint32_t now = 0;

	if (!owner || __atomic_load_n(owner, __ATOMIC_ACQUIRE) == 1)
		return;
	if (__atomic_compare_exchange_n(owner, &now, 2, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
		set_back();
		__atomic_store_n(owner, 1, __ATOMIC_RELEASE);
	}
	while (__atomic_load_n(owner, __ATOMIC_ACQUIRE) != 1)
		shunt_sys(SYS_sched_yield);
}

static int own(void)
{
	long p;

	if (!handler) {
		if (pthread_atfork(NULL, NULL, in_child))
			return -ENOMEM;
		handler = true;
	}
	if (owner)
		return 0;
	p = shunt_sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shunt_sys_failed(p))
		return -ENOMEM;
	*(uint32_t *)p = 1;
	if (shunt_sys(SYS_madvise, p, 4096, MADV_WIPEONFORK)) {
		shunt_sys(SYS_munmap, p, 4096);
		return -ENOSYS;
	}
	owner = (uint32_t *)p;
	return 0;
}

/* --- the list ------------------------------------------------------------------------- */

/* With it held: for op.c, whose ops are made known while there is something. */
static void show_watching(void)
{
	__atomic_store_n(&shunt_mmu_watching, (uint32_t)spans.n, __ATOMIC_RELEASE);
}

static void expect(uintptr_t start, uintptr_t end)
{
	for (int i = 0; i < EXPECTED; i++)
		if (!expected[i].end) {
			expected[i] = (struct shunt_mmu_span){start, end};
			return;
		}
}

static bool was_expected(uintptr_t start, uintptr_t end)
{
	for (int i = 0; i < EXPECTED; i++)
		if (expected[i].end == end && expected[i].start == start) {
			expected[i].end = 0;
			return true;
		}
	return false;
}

static void expect_no_more(uintptr_t start, uintptr_t end)
{
	for (int i = 0; i < EXPECTED; i++)
		if (expected[i].start < end && expected[i].end > start)
			expected[i].end = 0;
}

/* Of what moved, the part that was watched is watched at its new place. */
static void follow(uintptr_t from, uintptr_t to, uintptr_t len)
{
	struct shunt_mmu_span piece;

	for (uintptr_t at = from; shunt_mmu_spans_first(&spans, at, from + len, &piece); at = piece.end) {
		shunt_mmu_spans_cut(&spans, piece.start, piece.end);
		if (!shunt_mmu_spans_reserve(&spans, 1))
			shunt_mmu_spans_add(&spans, piece.start - from + to, piece.end - from + to);
	}
}

bool shunt_mmu_watched_piece(uintptr_t start, uintptr_t end, struct shunt_mmu_span *piece)
{
	bool any;

	if (!__atomic_load_n(&shunt_mmu_watching, __ATOMIC_ACQUIRE))
		return false;
	after_fork();
	shunt_hold_take(&list);
	any = shunt_mmu_spans_first(&spans, start, end, piece);
	shunt_hold_give(&list);
	return any;
}

bool shunt_mmu_watched(void)
{
	struct shunt_mmu_span piece;

	return shunt_mmu_watched_piece(0, ADDRESSES_END, &piece);
}

bool shunt_mmu_watches(uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_span piece;

	return shunt_mmu_watched_piece(start, end, &piece) && piece.start == start && piece.end == end;
}

/* --- the reader ----------------------------------------------------------------------- */

/* What an event says, into *r. Its kinds are those that an op may have that makes it; 0: nothing to tell. */
static uint32_t decode(const struct uffd_msg *m, struct shunt_mmu_range *r)
{
	*r = (struct shunt_mmu_range){.start = m->arg.remove.start, .end = m->arg.remove.end};
	switch (m->event) {
	case UFFD_EVENT_UNMAP:
		r->kind = SHUNT_MMU_UNMAP;
		return 1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP;
	case UFFD_EVENT_REMOVE:
		r->kind = SHUNT_MMU_DISCARD;
		return 1u << SHUNT_MMU_DISCARD;
	case UFFD_EVENT_REMAP:
		r->kind = SHUNT_MMU_REMAP;
		r->start = m->arg.remap.from;
		r->end = r->start + m->arg.remap.len;
		r->new_start = m->arg.remap.to;
		return r->end > r->start ? 1u << SHUNT_MMU_REMAP : 0; /* or a second mapping of the same */
	}
	return 0;
}

static uint64_t discards(const struct shunt_mmu_told *t)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < t->n; i++)
		if (t->range[i].kind == SHUNT_MMU_DISCARD)
			bytes += t->range[i].end - t->range[i].start;
	return bytes;
}

/* Whether one of the ops tells it. */
static bool is_told(const struct shunt_mmu_told *t, unsigned n, const struct shunt_mmu_range *r, uint32_t kinds)
{
	static struct {
		uint32_t turn;
		uint64_t bytes;
	} swallowed[SHUNT_MMU_TOLD]; /* by the op that has the slot */
	uint64_t length = r->end - r->start;

	for (const struct shunt_mmu_told *e = t + n; t < e; t++) {
		if (!shunt_mmu_told_covers(t, r->start, r->end, kinds))
			continue;
		if (r->kind != SHUNT_MMU_DISCARD)
			return true;
		if (swallowed[t->slot].turn != t->turn) {
			swallowed[t->slot].turn = t->turn;
			swallowed[t->slot].bytes = 0;
		}
		if (swallowed[t->slot].bytes + length > discards(t))
			continue;
		swallowed[t->slot].bytes += length;
		return true;
	}
	return false;
}

/* With the list held. Whether *r is to be told. */
static bool take_in(const struct uffd_msg *m, const struct shunt_mmu_told *t, unsigned n, struct shunt_mmu_range *r)
{
	uint32_t kinds = decode(m, r);
	bool told = !kinds || is_told(t, n, r, kinds);

	if (r->kind == SHUNT_MMU_UNMAP && kinds) {
		shunt_mmu_spans_cut(&spans, r->start, r->end);
		if (!told)
			told = was_expected(r->start, r->end);
	} else if (r->kind == SHUNT_MMU_REMAP && kinds) {
		follow(r->start, r->new_start, r->end - r->start);
		if (!told)
			expect(r->start, r->end);
	}
	show_watching();
	return !told;
}

static void count_round(void)
{
	__atomic_add_fetch(&rounds, 1, __ATOMIC_SEQ_CST);
	shunt_sys(SYS_futex, &rounds, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

/* One event: 1, 0: there was none, -errno. */
static int read_event(int fd)
{
	static struct shunt_mmu_told told[SHUNT_MMU_TOLD];
	unsigned n = shunt_mmu_told_copy(told);
	struct shunt_mmu_range r;
	struct uffd_msg m;
	bool tell = false;
	long got;

	/* Before it is read, and its maker goes on and asks shunt_mmu_watch_sync(). */
	__atomic_add_fetch(&rounds, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&list.mutex);
	got = shunt_sys(SYS_read, fd, &m, sizeof m);
	if (got == sizeof m)
		tell = take_in(&m, told, n, &r);
	pthread_mutex_unlock(&list.mutex);
	if (tell)
		shunt_mmu_late_push(&r);
	count_round();
	return got == sizeof m ? 1 : got == -EAGAIN ? 0 : (int)got;
}

/* A table of descriptors of its own, with only this one; where there is no such call, the program's. */
static void own_table(int fd)
{
	if (shunt_sys(SYS_close_range, fd + 1, ~0u, CLOSE_RANGE_UNSHARE))
		return;
	if (fd > 0)
		shunt_sys(SYS_close_range, 0, fd - 1, 0);
}

static int read_events(void)
{
	int fd = uffd, r;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	own_table(fd);
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &ready, FUTEX_WAKE_PRIVATE, 1);
	for (;;) {
		r = (int)shunt_sys(SYS_ppoll, &p, 1, NULL, NULL, 8);
		if (r == 1 && p.revents & POLLIN)
			r = read_event(fd);
		else if (r == 1)
			r = -EIO;
		if (r < 0 && r != -EINTR && r != -EAGAIN)
			break;
	}
	/* When the last descriptor is closed nothing is registered any more, and nobody waits for us. */
	shunt_sys(SYS_close, fd);
	shunt_log(SHUNT_LOG_ERROR, "mmu: userfaultfd cannot be read (%d): nothing is watched any more", r);
	return -1;
}

void shunt_mmu_watch_sync(void)
{
	uint32_t now;

	if (!__atomic_load_n(&rounds, __ATOMIC_SEQ_CST))
		return;
	after_fork(); /* then it is not our reader's */
	now = __atomic_load_n(&rounds, __ATOMIC_SEQ_CST);
	while (now & 1 && __atomic_load_n(&rounds, __ATOMIC_SEQ_CST) == now)
		shunt_sys(SYS_futex, &rounds, FUTEX_WAIT_PRIVATE, now, NULL);
	shunt_mmu_late_sync();
}

/* --- watch, unwatch ------------------------------------------------------------------- */

static int open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
	long fd = shunt_sys(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd < 0)
		return fd == -EINVAL ? -ENOSYS : (int)fd;
	if (shunt_sys(SYS_ioctl, fd, UFFDIO_API, &api)) {
		shunt_sys(SYS_close, fd);
		return -ENOSYS;
	}
	return (int)fd;
}

/* With setup held. */
static int start(void)
{
	int r;

	if (uffd >= 0)
		return 0;
	r = own();
	if (!r)
		r = open_uffd();
	if (r < 0)
		return r;
	uffd = r;
	r = shunt_mmu_late_start();
	if (!r)
		r = shunt_worker_kick(&reader);
	if (r) {
		shunt_sys(SYS_close, uffd);
		uffd = -1;
		return r == -ENOMEM ? r : -EAGAIN;
	}
	while (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
		shunt_sys(SYS_futex, &ready, FUTEX_WAIT_PRIVATE, 0, NULL);
	return 0;
}

static bool bad(uintptr_t start, size_t length)
{
	return start % 4096 || length % 4096 || !length || start >= ADDRESSES_END ||
		length > ADDRESSES_END - start;
}

static void unregister(uintptr_t start, uintptr_t end)
{
	struct uffdio_range r = {start, end - start};

	/* What was unmapped in this moment can't be, and needs not. */
	shunt_sys(SYS_ioctl, uffd, UFFDIO_UNREGISTER, &r);
}

/* All of [start, end) that is not in the list. */
static void undo(uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_span piece;

	while (shunt_mmu_spans_first(&spans, start, end, &piece)) {
		if (piece.start > start)
			unregister(start, piece.start);
		start = piece.end;
	}
	if (start < end)
		unregister(start, end);
}

/* With the list held. */
static int watch_range(uintptr_t start, uintptr_t end)
{
	struct uffdio_register reg = {.range = {start, end - start}, .mode = UFFDIO_REGISTER_MODE_WP};
	long r;

	/* The kernel's own check passes over holes. */
	if (shunt_sys(SYS_msync, start, end - start, MS_ASYNC) == -ENOMEM)
		return -ENOMEM;
	if (shunt_mmu_spans_reserve(&spans, 1))
		return -ENOMEM;
	__atomic_store_n(&shunt_mmu_watching, (uint32_t)spans.n + 1, __ATOMIC_SEQ_CST);
	r = shunt_sys(SYS_ioctl, uffd, UFFDIO_REGISTER, &reg);
	if (!r) {
		expect_no_more(start, end);
		shunt_mmu_spans_add(&spans, start, end);
	} else if (r == -ENOMEM) {
		undo(start, end); /* all others are said before anything is done */
	}
	show_watching();
	/* A shared mapping that may never be written. */
	return r == -EPERM ? -EINVAL : (int)r;
}

int shunt_mmu_watch(void *start_, size_t length)
{
	uintptr_t start_at = (uintptr_t)start_;
	int r;

	if (bad(start_at, length))
		return -EINVAL;
	after_fork();
	shunt_hold_take(&setup);
	r = start();
	if (!r) {
		shunt_hold_take(&list);
		r = watch_range(start_at, start_at + length);
		shunt_hold_give(&list);
	}
	shunt_hold_give(&setup);
	return r;
}

int shunt_mmu_unwatch(void *start_, size_t length)
{
	uintptr_t at = (uintptr_t)start_, end = at + length;
	struct shunt_mmu_span piece;
	int r = -ENOENT;

	if (bad(at, length))
		return -EINVAL;
	after_fork();
	shunt_hold_take(&list);
	if (!shunt_mmu_spans_reserve(&spans, 1))
		for (; shunt_mmu_spans_first(&spans, at, end, &piece); at = piece.end, r = 0) {
			unregister(piece.start, piece.end);
			shunt_mmu_spans_cut(&spans, piece.start, piece.end);
		}
	else
		r = -ENOMEM;
	show_watching();
	shunt_hold_give(&list);
	return r;
}
