/* SPDX-License-Identifier: MIT */
/*
 * watch.h - the parts of the backstop: what userfaultfd tells of watched memory.
 *
 *   watch.c   watching, and the thread that reads the kernel's events
 *   span.c    the watched ranges
 *   told.c    which changes are told by their makers anyway (general registers only)
 *   late.c    the thread that tells the rest to the notifiers
 *   young.c   ageing
 */
#ifndef SHUNT_MMU_WATCH_H
#define SHUNT_MMU_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/mmu_internal.h"

/* ---- told.c: for op.c ---- */

/* Not 0 while anything is watched. */
extern uint32_t shunt_mmu_watching;

/*
 * The op's ranges are told by its maker: what the kernel says of them until leave() is not told again. Between
 * them is the call, nothing has to be under way in between but that. A slot's number for leave(), or -1 where the
 * op changes nothing that the kernel tells of, or there is no slot: it is told twice then.
 * Any context; general registers only.
 */
int shunt_mmu_watch_enter(const struct shunt_mmu_op *op);
void shunt_mmu_watch_leave(int slot);

/* What op_begin() and op_end() run. */
static inline int shunt_mmu_watch_begin(const struct shunt_mmu_op *op)
{
	return __atomic_load_n(&shunt_mmu_watching, __ATOMIC_RELAXED) ? shunt_mmu_watch_enter(op) : -1;
}

static inline void shunt_mmu_watch_end(int slot)
{
	if (slot >= 0)
		shunt_mmu_watch_leave(slot);
}

/* ---- told.c: for watch.c ---- */

#define SHUNT_MMU_TOLD 256

/* One change that is under way. */
struct shunt_mmu_told {
	uint32_t slot, turn; /* the turn-th op of that slot */
	uint32_t n;
	struct shunt_mmu_range range[SHUNT_MMU_RANGES];
};

/* All that are under way, at most SHUNT_MMU_TOLD: their number. One that comes or goes meanwhile may be missing. */
unsigned shunt_mmu_told_copy(struct shunt_mmu_told *to);
/* Whether every byte of [start, end) is in its ranges of one of these kinds (1u << kind). */
bool shunt_mmu_told_covers(const struct shunt_mmu_told *t, uintptr_t start, uintptr_t end, uint32_t kinds);
/* In a fork child. */
void shunt_mmu_told_forget(void);

/* ---- span.c ---- */

/* Ranges of addresses, sorted, none touches another. Zero is an empty one. Its user locks. */
struct shunt_mmu_spans {
	struct shunt_mmu_span {
		uintptr_t start, end;
	} *s;
	size_t n, room;
};

/* Room for `more` further ones: 0 or -ENOMEM. Never unmaps anything that is watched, never calls libc. */
int shunt_mmu_spans_reserve(struct shunt_mmu_spans *l, size_t more);
/* There is room for one more. */
void shunt_mmu_spans_add(struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end);
/*
 * Takes [start, end) out. Where one would become two, and there is no room for it, the upper part goes as well, and
 * the answer is false.
 */
bool shunt_mmu_spans_cut(struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end);
/* The first piece of [start, end) that is in one of them; false: none. */
bool shunt_mmu_spans_first(const struct shunt_mmu_spans *l, uintptr_t start, uintptr_t end,
	struct shunt_mmu_span *piece);

/* ---- watch.c ---- */

/* Is anything watched? Any thread, not from signal handlers. */
bool shunt_mmu_watched(void);
/* Is all of [start, end) watched? Any thread, not from signal handlers. */
bool shunt_mmu_watches(uintptr_t start, uintptr_t end);
/* The first watched piece of [start, end). */
bool shunt_mmu_watched_piece(uintptr_t start, uintptr_t end, struct shunt_mmu_span *piece);
/*
 * Waits until all has been told late that was changed before: a system call that changes watched memory returns
 * when its event has been taken. One load where nothing is watched; on the thread that tells it
 * returns at once. Not from signal handlers.
 */
void shunt_mmu_watch_sync(void);

/* ---- late.c ---- */

/* Starts the thread: 0 or -errno. */
int shunt_mmu_late_start(void);
/* For the reading thread: tells it soon. Never waits for callbacks, allocates nothing, never fails. */
void shunt_mmu_late_push(const struct shunt_mmu_range *r);
/* Waits until what was pushed before has been told. */
void shunt_mmu_late_sync(void);
/* How long a discard's end waits to be sure; tests change it. */
extern uint64_t shunt_mmu_late_patience;
/* In a fork child. */
void shunt_mmu_late_forget(void);

#endif
