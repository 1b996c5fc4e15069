/* SPDX-License-Identifier: MIT */
/*
 * core.h - what op.c, tell.c, notifier.c, interval.c, tree.c and hand.c share.
 *
 * The order of things, and why nothing is missed (docs/mmu.md, models/mmu.pml):
 *
 * - A change is a section of one SRCU domain, from before it looks who is concerned until after its
 *   last end. So a grace period of that domain is: all changes that were begun before have ended.
 * - Who registers is put into the list first and then waits for a grace period. A change that did not see it
 *   has ended when register returns; one that begins later sees it. None is told of by half: a change
 *   remembers whom it called start of, and calls end of just those.
 * - Who unregisters has `release` called first: until that has dropped its translations it is told of
 *   changes as ever. Then it is marked dead, and unregister waits until its `open` is zero. A change
 *   raises `open` before it looks at the mark, and lowers it after end. Both are sequentially consistent:
 *   either the change sees the mark and leaves it alone, or unregister sees the count and waits. It waits for
 *   nothing else: not for changes that another notifier sleeps in without this one being part of them.
 * - Inside of a change (in a callback, mostly) nobody waits for the end of changes: two callbacks, each of
 *   which unregisters its own notifier, may be in changes that the other one has been told of. There the
 *   notifier is marked cut, and only callbacks of it that are running are waited for, by
 *   `running` and `cut` in the way of `open` and `dead`. What has begun has no end for it.
 * - Memory of those who are gone is used again only after a grace period.
 *
 * Locks: `registry`, held while lists are changed, never while anything is waited for or a callback runs (but for
 * arming, which waits for system calls of threads only); `shunt_mmu_small`, held for some stores with signals held back.
 */
#ifndef SHUNT_MMU_CORE_H
#define SHUNT_MMU_CORE_H

#include <linux/futex.h>
#include <shunt/srcu.h>

#include "arch/x86_64/text_sys.h"
#include "base/hold.h"
#include "mmu/mmu_internal.h"

/*
 * What is over and is to be taken out of the registry. Inside of a change that is left to the library's
 * thread: who makes the change may hold a lock of libc's that fork() waits for while it has the registry.
 */
struct shunt_mmu_leaving {
	struct shunt_mmu_leaving *next;
	void (*out)(struct shunt_mmu_leaving *l); /* called with the registry */
};

/* A registered notifier: ours, so that nothing of the caller's is touched after it has gone. */
struct shunt_mmu_member {
	struct shunt_mmu_member *next; /* in the order of registration */
	uint64_t number;	       /* 1, 2, .. */
	uint32_t slot;		       /* its bit in shunt_mmu_op.started */
	uint32_t kinds;
	bool direct;
	uint32_t dead;	   /* futex: release has returned: no new start */
	uint32_t released; /* who sets it calls release */
	uint32_t open;	   /* futex: starts without an end, and other callbacks running */
	uint32_t cut;	   /* no callback any more: unregistered inside of a change */
	uint32_t running;  /* futex: callbacks, other than release */
	int32_t process;   /* that it is registered in */
	uint64_t state;	   /* the grace period after which it is nobody's */
	struct shunt_mmu_leaving leaving;
	struct shunt_mmu_member *gone; /* who went after it; `next` stays for who stands here */
	struct shunt_mmu_notifier *user;
	const struct shunt_mmu_notifier_ops *ops;
};

/* An inserted interval. */
struct shunt_mmu_node {
	struct shunt_mmu_branch {
		struct shunt_mmu_node *left, *right;
		uintptr_t max; /* greatest end below here */
	} in[2];	       /* the tree is kept twice: tree.c */
	uintptr_t start, end;
	uint64_t number;
	uint32_t priority;
	uint32_t kinds;
	bool direct;
	uint32_t settled; /* changes that did not see it have ended */
	uint32_t dead;
	uint32_t running; /* futex: callbacks */
	uint64_t seq;	  /* of the last change that overlapped it */
	int32_t process;
	uint64_t state;	  /* a grace period: first to be settled, then to be nobody's */
	struct shunt_mmu_interval *user;
	const struct shunt_mmu_interval_ops *ops;
	struct shunt_mmu_leaving leaving;
	struct shunt_mmu_node *gone;
};

/* ---- op.c ---- */

/* All zero in a fork child, however it was made. */
struct shunt_mmu_page {
	uint32_t armed; /* somebody is registered */
	int32_t owner;	/* the process */
};

extern struct shunt_mmu_page *shunt_mmu_page;

/* false: a child, that shares our memory or has a copy of it; or nobody has ever been registered. */
static inline bool shunt_mmu_is_owner(void)
{
	return (int32_t)shunt_sys(SYS_getpid) == __atomic_load_n(&shunt_mmu_page->owner, __ATOMIC_ACQUIRE);
}

extern struct shunt_srcu *shunt_mmu_ops; /* the domain */
extern struct shunt_mmu_member *shunt_mmu_members;
extern uint64_t shunt_mmu_last;	 /* the greatest number given out */
extern uint32_t shunt_mmu_kinds; /* that any notifier wants */
extern __thread uint32_t shunt_mmu_forking; /* in fork(), which has been told of */

/* ---- tree.c ---- */

/* Lock-free: inside of a section of the ops. Any node that overlaps; general registers only. */
bool shunt_mmu_tree_overlaps(uintptr_t start, uintptr_t end);
/* The next one in order behind (after_start, after_number), or NULL; from (0, 0). */
struct shunt_mmu_node *shunt_mmu_tree_next(uintptr_t start, uintptr_t end, uintptr_t after_start,
	uint64_t after_number);
/* The registry's holder. Allocate nothing. */
void shunt_mmu_tree_insert(struct shunt_mmu_node *n);
void shunt_mmu_tree_remove(struct shunt_mmu_node *n);
void shunt_mmu_tree_reset(void);

/* ---- tell.c ---- */

/* A callback that is running, on the stack of its thread. */
struct shunt_mmu_frame {
	struct shunt_mmu_frame *outer;
	const void *who; /* member or node */
	bool holds;	 /* raised the member's `open`, or the node's `running`, for itself alone */
	bool releases;
};

extern __thread struct shunt_mmu_frame *shunt_mmu_frames;
extern __thread struct shunt_mmu_op *shunt_mmu_under_way; /* told ones of this thread */
extern __thread uint32_t shunt_mmu_changes; /* between shunt_mmu_change_begin() and _end() */

/* The calling thread is part of a change: it cannot wait for all to end. */
static inline bool shunt_mmu_inside(void)
{
	return shunt_mmu_frames || shunt_mmu_under_way || shunt_mmu_changes;
}

void shunt_mmu_tell_start(void *op);
void shunt_mmu_tell_end(void *op);
/* Lets the thread be cancelled again, but not now. */
void shunt_mmu_cancel_unhold(void *op);
/* The two for what was handed over, on the library's thread. */
void shunt_mmu_tell_handed_start(struct shunt_mmu_op *op);
void shunt_mmu_tell_handed_end(struct shunt_mmu_op *op);
/* Calls release, if nobody did, or waits until it has returned; not for a call that this is called from. */
void shunt_mmu_release(struct shunt_mmu_member *m);
/* Lowers a member's `open` or a node's `running`; who waits for it is woken. */
void shunt_mmu_lower(uint32_t *open, const uint32_t *dead);
/* Waits until *open is what the caller itself holds of it. */
void shunt_mmu_wait_open(uint32_t *open, uint32_t own);
/* Sleeps while *at is `was`. false: the time has come (shunt_now_ns()). Not for code in general registers only. */
bool shunt_mmu_sleep_until(uint32_t *at, uint32_t was, uint64_t end);
/* How much of it frames of the calling thread hold. */
uint32_t shunt_mmu_held_by_self(const void *who);

/* ---- interval.c: the sequence ---- */

extern uint64_t shunt_mmu_seq; /* odd while a change that overlaps an interval is under way */
void shunt_mmu_active_raise(void);
void shunt_mmu_active_lower(void);
void shunt_mmu_interval_forget(void);

/* ---- notifier.c: the registry ---- */

void shunt_mmu_registry_take(void); /* looks for a fork first */
void shunt_mmu_registry_give(void);
/* Has l->out(l) called with the registry: at once, or soon. Allocates nothing, waits for nobody in a callback. */
void shunt_mmu_leave(struct shunt_mmu_leaving *l);
/* One more who wants to be told: the first one arms. Fills *missing. The registry's holder. */
int shunt_mmu_user_add(uint32_t *missing);
void shunt_mmu_user_drop(void);
int shunt_mmu_refuse_missing(uint32_t missing);

/* ---- hand.c ---- */

int shunt_mmu_hand_prepare(void);
/* Memory for the first tasks: 0 or -ENOMEM. The registry's holder. */
int shunt_mmu_hand_stock(void);
/*
 * Both: signals held back. start has `who` (slots; their `open` is raised) and the intervals told of it on the
 * library's thread, and waits for that up to 10 ms; after that op->flags says that it is late.
 */
void shunt_mmu_hand_start(struct shunt_mmu_op *op, const uint64_t *who);
void shunt_mmu_hand_end(struct shunt_mmu_op *op);
void shunt_mmu_hand_reset(void);
void shunt_mmu_hand_leaving(struct shunt_mmu_leaving *l);

/* ---- a lock for a few stores: signals are held back ---- */

extern uint32_t shunt_mmu_small;

static inline void shunt_mmu_small_take(void)
{
	uint32_t free = 0;

	if (__atomic_compare_exchange_n(&shunt_mmu_small, &free, 1, false, __ATOMIC_ACQUIRE,
		    __ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&shunt_mmu_small, 2, __ATOMIC_ACQUIRE))
		shunt_sys(SYS_futex, &shunt_mmu_small, FUTEX_WAIT_PRIVATE, 2, NULL);
}

static inline void shunt_mmu_small_give(void)
{
	if (__atomic_exchange_n(&shunt_mmu_small, 0, __ATOMIC_RELEASE) == 2)
		shunt_sys(SYS_futex, &shunt_mmu_small, FUTEX_WAKE_PRIVATE, 1);
}

/* libc's own: what pthread_cancel() sends, and setuid() and its like to every thread. */
#define SHUNT_MMU_SIGCANCEL 32
#define SHUNT_MMU_SIGSETXID 33

/*
 * All signals but the synchronous ones; without libc. The mask before is returned. And but setuid()'s, which waits until
 * each thread has had it: the callback may be waiting for who calls setuid().
 */
static inline uint64_t shunt_mmu_hold(void)
{
	uint64_t before = 0;
	uint64_t all = ~(1ull << (SIGTRAP - 1) | 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) |
			 1ull << (SIGILL - 1) | 1ull << (SIGFPE - 1) | 1ull << (SHUNT_MMU_SIGSETXID - 1));

	shunt_sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, 8);
	return before;
}

static inline void shunt_mmu_unhold(uint64_t before)
{
	shunt_sys(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
}

#endif
