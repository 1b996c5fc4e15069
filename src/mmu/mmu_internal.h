/* SPDX-License-Identifier: MIT */
/*
 * mmu_internal.h - what the parts of the MMU notifiers share.
 *
 *   op.c        one change under way: who is concerned, start, end (general registers only)
 *   change.c    changes that are announced by hand, and shunt_mmu_syscall() (general registers only)
 *   tell.c      calling the callbacks; guard.c: one of them, which may only be left by returning
 *   notifier.c  registering and unregistering
 *   interval.c  intervals, their sequence
 *   tree.c      the range tree that ops read without a lock
 *   hand.c      the library's thread, for changes that come from inside of libc
 *   decode.c    which ranges a system call makes invalid (general registers only)
 *   area.c      the mappings that there are (general registers only)
 *   files.c     where a file, or a System V segment, is mapped (general registers only)
 *   sites.c     the places in code that make such calls: finding, arming, disarming
 *   frame.c     where a function at a place keeps its return address
 *   enter.c     what an armed place runs (general registers only); mmu.S is its way in
 *   coverage.c  what is seen
 *   watch.c     userfaultfd; watch.h has its parts
 */
#ifndef SHUNT_MMU_INTERNAL_H
#define SHUNT_MMU_INTERNAL_H

#include <shunt/mmu.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- decode.c ---- */

#define SHUNT_MMU_RANGES 8

struct shunt_mmu_range {
	uintptr_t start, end; /* whole pages, start < end */
	uintptr_t new_start;
	uint32_t kind;
};

/* A system call that is about to be made. */
struct shunt_mmu_call {
	long nr;
	long a[6];
};

/*
 * What the call would make invalid: the number of ranges, 0: nothing (then it is made as if nobody
 * listened). Never touches memory that its arguments point to but through the kernel; a call
 * with more ranges than there is room for gets one that holds them all. Calls that the kernel
 * refuses anyway may give 0 or ranges. Any context that the call may be made in; general
 * registers only; allocates nothing; must not call libc.
 */
unsigned shunt_mmu_decode(const struct shunt_mmu_call *c, struct shunt_mmu_range r[SHUNT_MMU_RANGES]);

/* Reads what an argument points to. false: the kernel cannot, either. */
bool shunt_mmu_fetch(void *to, uintptr_t from, size_t n);

/* Whether decode() can ever find something in a call of this number. And the source it belongs to. */
bool shunt_mmu_interesting(long nr);
enum shunt_mmu_source shunt_mmu_source_of(long nr);

/* ---- files.c: as decode ---- */

/*
 * The places where bytes [from, to) of a file are mapped here: by descriptor, or by path with fd == -1 (`path` as
 * the kernel would take it, dirfd too). As many as there is room for, else one that holds them all.
 */
unsigned shunt_mmu_file_ranges(int fd, int dirfd, const char *path, uint64_t from, uint64_t to,
	struct shunt_mmu_range *r, unsigned room);
/* The mapping of the System V segment that is attached at addr: 1 or 0. */
unsigned shunt_mmu_shm_range(uintptr_t addr, struct shunt_mmu_range *r);

/* ---- op.c ---- */

#define SHUNT_MMU_NOTIFIERS 256

/* shunt_mmu_op.context */
#define SHUNT_MMU_IN_LIBC 1u   /* called from inside of libc: its locks may be held */
#define SHUNT_MMU_NO_HOLD 4u   /* signals are not to be held back between start and end */
#define SHUNT_MMU_MADE 8u      /* the change has been made already */
#define SHUNT_MMU_HELD 16u     /* signals are held back already, `mask` says which were before: end lets them in */

/*
 * One change under way, on the stack of the thread that makes it. The caller sets range, n and context.
 * It is a section of the domain of ops from begin to end: who waits for a grace period of it
 * waits for all changes that were begun before.
 */
struct shunt_mmu_op {
	struct shunt_mmu_range range[SHUNT_MMU_RANGES];
	uint32_t n;
	uint32_t context;
	/* op.c's and tell.c's */
	struct shunt_mmu_op *outer;  /* of this thread */
	struct shunt_srcu *domain;
	int section;
	int32_t owner;		     /* the process in which it began */
	int32_t watch;		     /* watch.h: its slot */
	bool told;		     /* somebody is concerned */
	bool counted;		     /* raised the count of active changes */
	uint32_t flags;		     /* of its events */
	struct shunt_mmu_task *task; /* handed over */
	uint64_t limit;		     /* notifiers with a greater number came later */
	uint64_t started[SHUNT_MMU_NOTIFIERS / 64]; /* by slot: start was called, end was not */
	uint64_t mask;		     /* the signals that were blocked before */
	int cancel_state, cancel_type; /* cancellation, as it was before */
	int opened;		     /* a descriptor that the call has opened, or -1 */
};

/*
 * false: this is a fork child: make the call as ever, no end. true: all who are
 * concerned (maybe nobody) have had their start; op_end() must follow, with what the kernel returned (-errno),
 * on the same thread. General registers only.
 */
bool shunt_mmu_op_begin(struct shunt_mmu_op *op);
void shunt_mmu_op_end(struct shunt_mmu_op *op, long result);
/*
 * In the fork child instead of op_end(), for an op that began in the parent: the mask is as it was before.
 * (A child on another stack, where `op` is not: context had SHUNT_MMU_NO_HOLD, and nothing is called.)
 */
void shunt_mmu_op_forked(struct shunt_mmu_op *op);
/* The process exits: release for everybody. */
void shunt_mmu_exiting(void);

/* Tells of a change that has been made already: start and end, with SHUNT_MMU_LATE. Where libc may be called. */
void shunt_mmu_tell_late(const struct shunt_mmu_range *r);
/* Calls the clear_flush_young of all; whether one of them said yes. */
bool shunt_mmu_ask_young(uintptr_t start, uintptr_t end);

/* ---- sites.c ---- */

/*
 * Arms all places; those that cannot be are left alone. *missing gets 1 << enum shunt_mmu_source for those sources
 * that could be expected to be seen before and will not be. When it returns no thread is any more inside
 * of a call that it began through a place while that was not armed. The caller holds no lock that a callback may
 * need. 0 or -errno with nothing armed, why in `why`. `again`: they are armed for others; those are armed that have come
 * since, and stay so whatever is returned.
 */
int shunt_mmu_sites_arm(bool again, uint32_t *missing, char *why, size_t size);
/* Puts the bytes back. Threads may still be in what the places led to. */
void shunt_mmu_sites_disarm(void);
/* Has their lock taken over fork(): call it before registering the lock that is held around the two. Once. */
void shunt_mmu_sites_at_fork(void);

/* ---- mmu.S ---- */

/* The registers of a thread at a place, as the stub pushed them. */
struct shunt_mmu_regs {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t site; /* the number of the place */
};

/*
 * What a place runs instead of its `mov`. true: the call was made, rax holds what it returned; go on behind the
 * `syscall`. false: go on at the `syscall`. General registers only.
 */
bool shunt_mmu_enter(struct shunt_mmu_regs *r);

/* Calls fn(arg), all vector registers and the x87 state saved around it. */
void shunt_arch_mmu_call(void (*fn)(void *), void *arg);

#endif
