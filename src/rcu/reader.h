/* SPDX-License-Identifier: MIT */
/*
 * reader.h - each thread's memory for read-side sections, and all threads' list of it.
 *
 * Each thread that ever entered a section has one block of memory, found through
 * one thread-local pointer: first struct shunt_reader, what the tracer needs of a thread,
 * then for each SRCU domain, at its index, sums of the sections entered and left.
 *
 * Blocks are never unmapped: a thread that ended leaves its own to another,
 * once the kernel no longer knows its tid; the sums go on from what they are. So
 * who waits may look at any of them at any time.
 */
#ifndef SHUNT_RCU_READER_H
#define SHUNT_RCU_READER_H

#include <stdbool.h>
#include <stdint.h>

#define SHUNT_READER_NEST   0xffffffffULL
#define SHUNT_READER_PHASE  (1ULL << 32)
#define SHUNT_READER_FRAMES 256

/* Sums of the sections entered and left in either phase: never reset, never a depth. */
struct shunt_counts {
	uint64_t lock[2], unlock[2];
};

#define SHUNT_READER_SIZE  (512u << 10) /* of a block */
#define SHUNT_INDEXES	   (SHUNT_READER_SIZE / sizeof(struct shunt_counts))
#define SHUNT_INDEX_FIRST  80 /* behind the struct */
#define SHUNT_INDEX_CALLBACKS SHUNT_INDEX_FIRST
#define SHUNT_INDEX_POINTS (SHUNT_INDEX_FIRST + 1)
#define SHUNT_INDEX_USERS  (SHUNT_INDEX_FIRST + 2)

struct shunt_reader {
	uint64_t ctr;	    /* nesting, and the phase of the outermost section */
	uint32_t depth;	    /* callbacks running on this thread, one inside another */
	uint32_t nframes;   /* traced frames, for ops with a depth limit */
	uintptr_t frame[4]; /* where the callbacks' frames are */
	int32_t tid;	    /* owner, 0 if free */
	int32_t process;    /* in which it became the owner */
	struct shunt_reader *next;
	uintptr_t frames[SHUNT_READER_FRAMES];
	uint64_t points;    /* as ctr, of tracepoints */
	uint32_t npoints;   /* how many sections that is, or one more */
	uintptr_t point[8]; /* where the first of their frames are */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct shunt_reader) <= SHUNT_INDEX_FIRST * sizeof(struct shunt_counts),
	"the sums begin behind it");

/* shunt_srcu_self by another name: this library's, whoever else defines that. */
extern __thread struct shunt_reader *shunt_reader_self;
extern uint64_t shunt_reader_phase;
extern bool shunt_reader_fence; /* no membarrier here: readers pay */

/*
 * The calling thread's reader, made when it has none; NULL when there is no
 * memory. Any context, signal handlers included.
 */
struct shunt_reader *shunt_reader_get(void);

/* The last one made; the others by ->next. */
struct shunt_reader *shunt_reader_first(void);

static inline struct shunt_counts *shunt_reader_counts(struct shunt_reader *r, uint32_t index)
{
	return (struct shunt_counts *)(void *)r + index;
}

/* A place for a domain's sums; 0: there is none left. Any context. */
uint32_t shunt_index_take(void);
void shunt_index_give(uint32_t index);

struct shunt_srcu;
#define SHUNT_SRCU_PHASE 8u /* in its `word` */

/* A place for a domain that has none, if there is one. Any context. */
void shunt_srcu_settle(struct shunt_srcu *d);

/*
 * How often this process is a fork child. Each changes what was going on: who was waiting or
 * working is gone. `raw`, the last one that fork() did not tell us of (clone(2), or the
 * system call): what was being changed then is half done.
 */
extern uint32_t shunt_generation, shunt_generation_raw;

/* Looks whether this is such a child: on all slow paths. */
void shunt_reader_look_forked(void);

/* A full barrier on all threads. 0, or what membarrier(2) says. */
int shunt_reader_barrier(void);

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
