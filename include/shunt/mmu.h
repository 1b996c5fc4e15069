/* SPDX-License-Identifier: MIT */
/*
 * mmu.h - MMU notifiers: learn what becomes invalid in this address space, before it does.
 *
 * What: a *secondary MMU* is whoever caches translations of this process's memory: a
 * registration cache of an RDMA card or of io_uring, a virtual machine monitor's memory slots,
 * an accelerator's page table, another process that maps our memory. A notifier is told of each
 * change that makes such translations wrong: `invalidate_range_start` before it,
 * `invalidate_range_end` after it, always in pairs. The names and the contract are those of the
 * Linux kernel's mmu_notifier and mmu_interval_notifier.
 *
 * Why: munmap(), mmap(MAP_FIXED), mremap(), madvise(), a shrinking heap or a library that is
 * unloaded change what an address means, and a cache that does not hear of it reads and writes
 * memory that is somebody else's by now, without an error.
 *
 *   shunt_mmu_notifier_register(), _unregister()      everything that happens
 *   shunt_mmu_interval_insert(), _remove()            what overlaps one range
 *   shunt_mmu_interval_read_begin(), _read_retry()    "is what I looked up still true?"
 *   shunt_mmu_sync()                                  waits for what is told late
 *   shunt_mmu_coverage()                              which changes are seen, and when
 *   shunt_mmu_watch(), _unwatch()                     a backstop: userfaultfd
 *   shunt_mmu_clear_flush_young()                     was it used since the last time?
 *   shunt_mmu_syscall(), _change_begin(), _end(), shunt_mmu_invalidate_page()
 *                                                     for who changes memory by own means
 *
 * Example: who keeps one translation lets go of it before it becomes wrong.
 *
 *	#include <sys/mman.h>
 *
 *	// libc declares munmap() a leaf: the compiler would not expect it to call functions of this file.
 *	static const char *volatile kept;	// a page that a device knows, say
 *	static volatile int under_way;		// both under a lock, where there are threads
 *
 *	static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
 *	{
 *		(void)n;
 *		under_way = under_way + 1;	// nobody may look anything up until the end
 *		if ((uintptr_t)kept >= e->start && (uintptr_t)kept < e->end)
 *			kept = NULL;
 *	}
 *
 *	static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
 *	{
 *		(void)n;
 *		(void)e;
 *		under_way = under_way - 1;
 *	}
 *
 *	static void release(struct shunt_mmu_notifier *n)
 *	{
 *		(void)n;
 *		kept = NULL;
 *	}
 *
 *	int main(void)
 *	{
 *		struct shunt_mmu_notifier_ops ops = {release, start, end, NULL, NULL};
 *		struct shunt_mmu_notifier n = {&ops, 0, 0, NULL};
 *		char *p = (char *)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
 *		int missed;
 *
 *		if (shunt_mmu_notifier_register(&n))
 *			return 1;
 *		kept = p;
 *		munmap(p, 4096);
 *		missed = kept != NULL || under_way;
 *		return shunt_mmu_notifier_unregister(&n) || missed;
 *	}
 *
 * How it works (docs/mmu.md has the whole of it): while anybody is registered, the places in the
 * loaded code that make such system calls are patched: the `mov $NR,%eax` before the `syscall`
 * becomes a jump. While nobody is, they hold the bytes they were built with. What is not made
 * through such a place is seen late (shunt_mmu_watch()) or not at all: shunt_mmu_coverage() says
 * for each kind of call which of these holds in this process.
 *
 * Where callbacks run, and what they may do:
 * - On the thread that makes the change, with all signals but the synchronous ones held back (and but libc's own
 *   by which setuid() has every thread do it, and waits for that). They may sleep, allocate, map, unmap, call
 *   everything; but see BLOCK below. The vector registers are saved, errno is restored.
 * - A change that is made from inside of libc (free() that trims its heap, a thread's stack) comes
 *   with locks of libc's held that a callback's own malloc() might need. Such a change is handed to a
 *   thread of the library's, and the thread that makes it waits until the callbacks have returned
 *   there, but no longer than 10 ms: a callback that needs one of those locks gets it then. In that
 *   case (and only then) the change is made before the callback has ended: its end says SHUNT_MMU_LATE,
 *   and so does a start that had not begun yet. Who looks translations up asks shunt_mmu_sync() or the
 *   interval's read_begin first, which wait for it: with these there is no stale answer. A notifier
 *   with SHUNT_MMU_DIRECT is never handed over, but called at once, as if it came from the program:
 *   it promises that its callbacks take no lock of libc's and do not allocate. The exec of execl() and
 *   its like is told at once, too: libc holds nothing there.
 * - What a callback itself changes is told to the others (with SHUNT_MMU_NESTED), not to those that
 *   are being called on this thread already: so nesting ends.
 * - Notifiers are called in the order of their registration, start and end alike.
 * - In a child of vfork(), or of clone(CLONE_VM), changes are those of the parent's memory and are told. One that
 *   runs beside its parent and has the parent's thread-local variables (no CLONE_SETTLS) must not be told of
 *   anything while the parent is: to us, as to libc, the two are one thread.
 *   In a child of fork() nobody is registered.
 * - They are no cancellation points: a thread that is cancelled meanwhile, its type asynchronous (as libc's is in
 *   open()), ends behind its last callback. They do not switch to another stack (a coroutine's) on which memory is changed
 *   before they have returned: that looks as if they had been left by longjmp().
 * - A callback that is left by longjmp() or an exception leaves a pair open that nobody can
 *   close: the process is aborted, with a message.
 * - The library's thread counts as one of the process's: a program whose main() ends by pthread_exit() does
 *   not end with its last own thread, but by exit().
 */
#ifndef SHUNT_MMU_H
#define SHUNT_MMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What becomes of a range. */
enum shunt_mmu_kind {
	SHUNT_MMU_UNMAP = 0,   /* it goes, or something else is mapped over it: munmap, mmap(MAP_FIXED),
				* shmdt, shmat(SHM_REMAP), a brk or mremap that shrinks, mremap's destination */
	SHUNT_MMU_REMAP = 1,   /* it moves: mremap; new_start says where to */
	SHUNT_MMU_PROTECT = 2, /* its access rights change: mprotect, pkey_mprotect */
	SHUNT_MMU_DISCARD = 3, /* its contents go, the mapping stays: madvise, a hole in a file, a file cut off */
	SHUNT_MMU_FORK = 4,    /* private memory becomes copy-on-write: fork */
	SHUNT_MMU_EXEC = 5,    /* everything goes, if execve succeeds; the end comes only if it fails */
	SHUNT_MMU_EXIT = 6,    /* everything goes (intervals only: notifiers get release) */
	SHUNT_MMU_KINDS = 7
};

/* shunt_mmu_event.flags */
#define SHUNT_MMU_BLOCK 1u  /* the callback may wait for other threads, whatever they do. Without it only
			     * for such that do not need libc's locks meanwhile, nor the parent of a vfork child */
#define SHUNT_MMU_LATE 2u   /* the change may have been made already */
#define SHUNT_MMU_NESTED 4u /* made by a callback of somebody else's */
#define SHUNT_MMU_FAILED 8u /* end only: the call failed. Some of them change a part before they do */
#define SHUNT_MMU_HANDED 16u /* called on the library's thread */

struct shunt_mmu_event {
	uintptr_t start; /* the range: whole pages, [start, end) */
	uintptr_t end;
	uintptr_t new_start; /* REMAP: the new address; 0 in start where the kernel is to choose it */
	uint32_t kind;	     /* enum shunt_mmu_kind */
	uint32_t flags;	     /* SHUNT_MMU_BLOCK, .. */
};

struct shunt_mmu_notifier;

/* Each may be NULL, but there must be invalidate_range_start or invalidate_page. */
struct shunt_mmu_notifier_ops {
	/*
	 * It is over: all translations must go, and none may be made. Exactly once, whoever comes
	 * first of unregister and exit; at exit before the pages go, other threads still
	 * running. One that exits as well waits for it, a second at most. What other threads change
	 * meanwhile is told as ever, until unregister returns: so other callbacks of the notifier may
	 * run at the same time, and after it.
	 */
	void (*release)(struct shunt_mmu_notifier *n);
	/* From here on, until end, no translation of the range may be used or made. */
	void (*invalidate_range_start)(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e);
	void (*invalidate_range_end)(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e);
	/*
	 * One page is another one now (shunt_mmu_invalidate_page(), a pager's). Without a start and an
	 * end around it; may not block. Where it is NULL a start and an end are called.
	 */
	void (*invalidate_page)(struct shunt_mmu_notifier *n, uintptr_t page);
	/* Whether the range was used through the secondary MMU since the last call: 1 or 0. */
	int (*clear_flush_young)(struct shunt_mmu_notifier *n, uintptr_t start, uintptr_t end);
};

/* shunt_mmu_notifier.flags */
#define SHUNT_MMU_DIRECT 1u  /* callbacks take no lock of libc's: always call them at once */
#define SHUNT_MMU_PARTIAL 2u /* register although some calls cannot be seen: ask shunt_mmu_coverage() */

/* The user's, usually inside of a larger struct. Zero what is not used. */
struct shunt_mmu_notifier {
	const struct shunt_mmu_notifier_ops *ops;
	uint32_t kinds; /* 1u << kind, or'ed: those wanted; 0: all */
	uint32_t flags;
	void *node; /* the library's; NULL before */
};

/*
 * Registers. When it returns, every change that is made from then on is told, and none that is still
 * under way was begun without: it waits for those. Any thread, not from signal handlers
 * nor from a notifier's callback. May sleep and allocate.
 * 0, or with nothing changed:
 * -EINVAL	no ops, neither start nor page in them, unknown flags or kinds
 * -EALREADY	is registered
 * -EDEADLK	called from a callback
 * -ENOSPC	256 are registered
 * -ENOTSUP	some calls that can usually be seen cannot here, and no SHUNT_MMU_PARTIAL; the log says which
 * -ENOMEM, -EAGAIN	no memory, or no thread; -EAGAIN also: a thread has run for five seconds without a pause with all
 *			signals blocked, so that it cannot be known where it is
 * -EMFILE, -EBUSY, -EPERM, ... no descriptor, or code could not be patched; the log says why
 */
SHUNT_API int shunt_mmu_notifier_register(struct shunt_mmu_notifier *n);

/*
 * Unregisters; release has been called when it returns, no callback of it runs, none will, and the
 * memory is the caller's. Waits for pairs that it was told the start of. Any thread, not from
 * signal handlers. It allocates nothing. From a callback (or between change_begin and change_end) it
 * does not wait for ends, only for callbacks of it that other threads are running: pairs that are open
 * have no end then, release takes its place. Not from the callback of a SHUNT_MMU_NESTED event: a callback that
 * it waits for may be making a change that waits for one further out here.
 * 0, or -ENOENT: never registered, unregistered already, or in the parent of a fork.
 */
SHUNT_API int shunt_mmu_notifier_unregister(struct shunt_mmu_notifier *n);

struct shunt_mmu_interval;

struct shunt_mmu_interval_ops {
	/*
	 * Before the change. All translations in the interval that overlap the event must go; `seq` is
	 * what read_retry compares with. There is no end: read_begin waits for it.
	 */
	void (*invalidate)(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq);
};

struct shunt_mmu_interval {
	const struct shunt_mmu_interval_ops *ops;
	uintptr_t start; /* set by insert */
	size_t length;
	uint32_t kinds; /* as for notifiers */
	uint32_t flags;
	void *node; /* the library's; NULL before */
};

/*
 * Wants to know what overlaps [start, start + length). O(log n) with n intervals, which may overlap
 * each other and be equal. The first one arms, as the first notifier does, and sleeps for it; later ones
 * only allocate. Any thread, not from signal handlers; callbacks may.
 * 0, or with nothing changed: -EINVAL (no invalidate, length 0, beyond the address space), -EALREADY, and what
 * shunt_mmu_notifier_register() says (-EDEADLK only for the first).
 */
SHUNT_API int shunt_mmu_interval_insert(struct shunt_mmu_interval *i, uintptr_t start, size_t length);

/*
 * No callback of it runs when it returns, but for one that it is called from. Allocates nothing. As
 * shunt_mmu_notifier_unregister() otherwise. 0, or -ENOENT.
 */
SHUNT_API int shunt_mmu_interval_remove(struct shunt_mmu_interval *i);

/*
 * The collision-retry idiom, as in the kernel:
 *
 *	do {
 *		seq = shunt_mmu_interval_read_begin(i);
 *		... look the translation up, as slowly as need be ...
 *		lock(mine);
 *		if (!shunt_mmu_interval_read_retry(i, seq))
 *			break;			// and put it in, still under the lock
 *		unlock(mine);
 *	} while (1);
 *
 * where `invalidate` takes the same lock to remove what is there. read_begin sleeps while a change
 * that overlaps the interval is under way. From a callback it does not, and read_retry
 * says true. Both: any thread; read_retry in any context.
 */
SHUNT_API uint64_t shunt_mmu_interval_read_begin(struct shunt_mmu_interval *i);
SHUNT_API bool shunt_mmu_interval_read_retry(const struct shunt_mmu_interval *i, uint64_t seq);

/*
 * Waits until callbacks that were handed to the library's thread before the call have returned. One
 * load where there are none. Any thread, not from signal handlers; from a callback it
 * returns at once.
 */
SHUNT_API void shunt_mmu_sync(void);

/* ---- What is seen. ---- */

enum shunt_mmu_when {
	SHUNT_MMU_UNSEEN = 0,
	SHUNT_MMU_SEEN_LATE = 1,   /* in ranges that are watched, after the change */
	SHUNT_MMU_SEEN_BEFORE = 2,
};

/* Where a change comes from. */
enum shunt_mmu_source {
	SHUNT_MMU_SRC_MUNMAP = 0,
	SHUNT_MMU_SRC_MMAP,	   /* MAP_FIXED over something */
	SHUNT_MMU_SRC_MREMAP,
	SHUNT_MMU_SRC_MPROTECT,
	SHUNT_MMU_SRC_MADVISE,
	SHUNT_MMU_SRC_PROCESS_MADVISE, /* on oneself */
	SHUNT_MMU_SRC_BRK,
	SHUNT_MMU_SRC_SHM,	   /* shmdt, shmat(SHM_REMAP) */
	SHUNT_MMU_SRC_TRUNCATE,	   /* ftruncate, truncate, open(O_TRUNC) of a mapped file */
	SHUNT_MMU_SRC_FALLOCATE,   /* holes in a mapped file */
	SHUNT_MMU_SRC_FORK,
	SHUNT_MMU_SRC_EXEC,
	SHUNT_MMU_SRC_EXIT,
	SHUNT_MMU_SRC_LIBC,	   /* libc's own: heap, thread stacks */
	SHUNT_MMU_SRC_LOADER,	   /* ld.so's own: dlopen, dlclose */
	SHUNT_MMU_SRC_SYSCALL,	   /* syscall(SYS_munmap, ..) */
	SHUNT_MMU_SRC_RAW,	   /* `syscall` instructions of other code */
	SHUNT_MMU_SRC_IO_URING,	   /* IORING_OP_MADVISE, _FALLOCATE, _FTRUNCATE */
	SHUNT_MMU_SRC_OTHERS,	   /* other processes: ptrace, process_madvise, files that they truncate */
	SHUNT_MMU_SOURCES
};

struct shunt_mmu_coverage {
	struct {
		uint8_t when;	/* enum shunt_mmu_when */
		uint32_t sites; /* places in code that are patched, or would be, for it */
		char why[160];	/* one sentence where it is not BEFORE; "" otherwise */
	} source[SHUNT_MMU_SOURCES];
};

/*
 * Says what is seen in this process while somebody is registered: it looks at the code that is loaded
 * now. Any thread, not from signal handlers nor callbacks; allocates. 0, -ENOMEM, -EMFILE or -ENFILE (no
 * descriptor), -EAGAIN (objects are loaded and unloaded without pause).
 */
SHUNT_API int shunt_mmu_coverage(struct shunt_mmu_coverage *c);

/* "munmap", "mmap", ..; "unseen", "late", "before". Any context; NULL where there is no such. */
SHUNT_API const char *shunt_mmu_source_name(enum shunt_mmu_source s);
SHUNT_API const char *shunt_mmu_when_name(enum shunt_mmu_when w);
/* "unmap", .. of an event's kind. */
SHUNT_API const char *shunt_mmu_kind_name(enum shunt_mmu_kind k);

/*
 * The backstop: has the kernel tell (userfaultfd, write-protect mode with WP_ASYNC: no faults are
 * delivered) what is unmapped, discarded or moved in the range by calls that are not seen. Such events
 * come with SHUNT_MMU_LATE: the address may be somebody else's by then. shunt_mmu_sync() waits until all that
 * was changed before has been told. What is told before by its maker is not told again. A watch follows mremap and ends
 * with munmap. Whole pages (of hugetlbfs: its pages); anonymous, shmem and hugetlbfs mappings, other files too unless
 * they are shared and can never be written. Cost: who changes watched memory sleeps until a thread of the
 * library's has read of it. docs/mmu-watch.md says what is not seen.
 * Any thread, not from signal handlers nor callbacks. 0, or with nothing changed: -EINVAL (not whole
 * pages, length 0, mappings that the kernel cannot watch), -ENOMEM (not mapped all of it, or no memory), -EBUSY
 * (another userfaultfd has it), -EAGAIN (no thread), -ENOSYS, -EPERM (the kernel has none, or not for us), -EMFILE,
 * -EBADF, -ENOTTY (the program has closed the library's descriptor; what is watched stays so).
 */
SHUNT_API int shunt_mmu_watch(void *start, size_t length);
/* What is watched of the range is no longer. As watch; -ENOENT: none of it is. */
SHUNT_API int shunt_mmu_unwatch(void *start, size_t length);

/*
 * Ageing: 1 if the range was used since the last call through a secondary MMU (the consumers'
 * clear_flush_young, all of them are asked) or, where it is watched, written to by this
 * process; 0 if not. What the process reads is not seen: this kernel tells it to nobody in user
 * space. The first call says what was there before, and each makes the next write to a page that was written cost a
 * fault. Any thread, not from signal handlers. -EINVAL for a bad range.
 */
SHUNT_API int shunt_mmu_clear_flush_young(void *start, size_t length);

/* ---- For code that changes memory by means that are not seen. ---- */

/* Makes a system call and tells of it. As syscall(2), but -errno. Any context that syscall(2) is for. */
SHUNT_API long shunt_mmu_syscall(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

/* A change by other means (an ioctl, a driver, io_uring); lives on the caller's stack between the two. */
struct shunt_mmu_change {
	uint64_t private_[96];
};

/*
 * begin tells the start and end the end, on the same thread and in the same function or below it.
 * new_start as in the event. `failed`: nothing was changed. Any thread; allocates nothing. begin: 0,
 * or -EINVAL (unknown kind, start >= end, EXEC and EXIT), and end must not be called then.
 */
SHUNT_API int shunt_mmu_change_begin(struct shunt_mmu_change *c, enum shunt_mmu_kind kind,
	uintptr_t start, uintptr_t end, uintptr_t new_start);
SHUNT_API void shunt_mmu_change_end(struct shunt_mmu_change *c, bool failed, uintptr_t new_start);

/* One page has been exchanged. Calls every notifier's invalidate_page. As change_begin. */
SHUNT_API int shunt_mmu_invalidate_page(uintptr_t page);

#ifdef __cplusplus
}
#endif
#endif
