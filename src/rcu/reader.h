/* SPDX-License-Identifier: MIT */
/*
 * reader.h - read-side sections around callbacks, and waiting for them.
 *
 * Each thread that ever runs a callback owns a struct shunt_reader, found
 * through one thread-local pointer. Entering and leaving a section are plain
 * stores to it: no locked instruction and no fence, because whoever waits pays
 * with membarrier(PRIVATE_EXPEDITED), which is a full barrier on every running
 * thread of the process (membarrier(2)).
 *
 * Readers are never unmapped: a thread that ended leaves its reader to the
 * next one, once the kernel no longer knows its tid. So a waiter may look at
 * any of them at any time.
 *
 * The algorithm is the two-phase one of Desnoyers et al., "User-Level
 * Implementations of Read-Copy Update" (IEEE TPDS 23(2), 2012), general-purpose
 * flavour: a section remembers the phase in which it began; the waiter flips
 * the phase and waits for sections of the old one, twice, since a reader may
 * have read the phase just before the flip and stored it just after.
 */
#ifndef SHUNT_RCU_READER_H
#define SHUNT_RCU_READER_H

#include <stdbool.h>
#include <stdint.h>

#define SHUNT_READER_NEST   0xffffffffULL
#define SHUNT_READER_PHASE  (1ULL << 32)
#define SHUNT_READER_FRAMES 256

struct shunt_reader {
	uint64_t ctr;	    /* nesting, and the phase of the outermost section */
	uint32_t depth;	    /* callbacks running on this thread, one inside another */
	uint32_t nframes;   /* traced frames, for ops with a depth limit */
	uintptr_t frame[4]; /* where the callbacks' frames are */
	int32_t tid;	    /* owner, 0 if free */
	struct shunt_reader *next;
	uintptr_t frames[SHUNT_READER_FRAMES];
	uint64_t points;    /* as ctr, of tracepoints */
	uint32_t npoints;   /* how many sections that is, or one more */
	uintptr_t point[8]; /* where the first of their frames are */
} __attribute__((aligned(64)));

extern __thread struct shunt_reader *shunt_reader_self;
extern uint64_t shunt_reader_phase;
extern bool shunt_reader_fence; /* no membarrier here: readers pay */

/*
 * The calling thread's reader, made when it has none; NULL when there is no
 * memory. Any context, signal handlers included.
 */
struct shunt_reader *shunt_reader_get(void);

static inline void shunt_section_enter(uint64_t *at)
{
	uint64_t ctr = *(volatile uint64_t *)at;

	if (ctr & SHUNT_READER_NEST)
		ctr++;
	else
		ctr = *(volatile uint64_t *)&shunt_reader_phase | 1;
	*(volatile uint64_t *)at = ctr;
	/* Pairs with the membarriers of shunt_reader_synchronize(): what is
	 * read inside the section is read after the section is seen. */
	if (__builtin_expect(shunt_reader_fence, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void shunt_section_leave(uint64_t *at)
{
	if (__builtin_expect(shunt_reader_fence, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	*(volatile uint64_t *)at = *at - 1;
}

static inline void shunt_reader_enter(struct shunt_reader *r)
{
	shunt_section_enter(&r->ctr);
}

static inline void shunt_reader_leave(struct shunt_reader *r)
{
	shunt_section_leave(&r->ctr);
}

/*
 * Whether an address is on the calling thread's alternate signal stack: for who compares
 * frames to find sections that a handler has jumped away from. Any context.
 */
bool shunt_on_altstack(uintptr_t addr);

/* Whether the calling thread is inside a section. Any context. */
static inline bool shunt_reader_inside(void)
{
	const struct shunt_reader *r = shunt_reader_self;

	return r && ((r->ctr | r->points) & SHUNT_READER_NEST);
}

/*
 * Waits until every section that was entered before the call has been left.
 * Sections that begin meanwhile are not waited for. Blocks; not from a signal
 * handler. 0, or -EDEADLK from inside a section of the calling thread.
 */
int shunt_reader_synchronize(void);

#endif
