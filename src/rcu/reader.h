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

#include <shunt/srcu.h>

#include "arch/x86_64/trampoline.h"

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

/*
 * The sections of one domain that a thread is in, one inside another, and where their frames are: a signal
 * handler may jump away from the middle of one, for siglongjmp() asks nobody.
 *
 * `top` says in one word how many there are and where the uppermost one's frame is. It is stored before
 * the section is counted as entered, and put back after it is counted as left; so at whatever
 * instruction a jump happens, what `top` leads to is all that may be open. It never is half of an old and half of
 * a new one for a handler, and a handler that returns has put it back.
 */
#define SHUNT_LEVELS 8 /* beyond, sections inside others are not counted, only levels */
#define SHUNT_LEVEL_ONE (1ull << SHUNT_LEVEL_SHIFT)

struct shunt_levels {
	uint64_t top;
	uint64_t below[SHUNT_LEVELS];	/* what was top before */
	uint64_t base[SHUNT_LEVELS][2]; /* how many sections were open, in either phase */
	uint32_t idx[SHUNT_LEVELS];	/* what the section was given */
};

struct shunt_reader {
	struct shunt_levels callbacks; /* of the function tracer */
	struct shunt_levels points;    /* of tracepoints */
	struct shunt_reader *next;
	int32_t tid;	 /* owner, 0 if free */
	int32_t process; /* in which it became the owner */
	uint32_t nframes; /* traced frames, for ops with a depth limit */
	uintptr_t frames[SHUNT_READER_FRAMES];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct shunt_reader) <= SHUNT_INDEX_FIRST * sizeof(struct shunt_counts),
	"the sums begin behind it");

/* shunt_srcu_self by another name: this library's, whoever else defines that. */
extern __thread struct shunt_reader *shunt_reader_self;
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

/* The library's own domains. Their places are fixed; sections of threads that end in them are over. */
extern struct shunt_srcu shunt_callbacks, shunt_points;

static inline unsigned shunt_levels_depth(const struct shunt_levels *l)
{
	return (unsigned)(l->top >> SHUNT_LEVEL_SHIFT);
}

static inline uintptr_t shunt_levels_frame(const struct shunt_levels *l)
{
	return (uintptr_t)(l->top & (SHUNT_LEVEL_ONE - 1));
}

/* As shunt_srcu_read_lock() and _unlock() do. */
static inline void shunt_count(struct shunt_reader *r, uint32_t at)
{
	uint64_t *sum = (uint64_t *)(void *)((char *)r + at);

	if (__builtin_expect(shunt_reader_fence, 0))
		__atomic_fetch_add(sum, 1, __ATOMIC_SEQ_CST);
	else
		__asm__ volatile("incq %0" : "+m"(*sum) : : "cc", "memory");
}

/* Notes what is there before a section inside another. */
void shunt_level_save(struct shunt_reader *r, struct shunt_levels *l, const struct shunt_srcu *d);

/* The uppermost level was left by a jump: closes its section, if it is open. */
void shunt_level_drop(struct shunt_reader *r, struct shunt_levels *l, const struct shunt_srcu *d);

/* Enters a section; `sp` is where its frame is. */
static inline void shunt_level_enter(struct shunt_reader *r, struct shunt_levels *l,
	const struct shunt_srcu *d, uintptr_t sp)
{
	unsigned n = shunt_levels_depth(l);
	uint32_t word;

	if (__builtin_expect(n >= SHUNT_LEVELS, 0)) {
		*(volatile uint64_t *)&l->top = l->top + SHUNT_LEVEL_ONE;
		return;
	}
	if (__builtin_expect(n, 0))
		shunt_level_save(r, l, d);
	*(volatile uint64_t *)&l->top = (n + 1) * SHUNT_LEVEL_ONE | sp;
	word = __atomic_load_n(&d->word, __ATOMIC_RELAXED);
	*(volatile uint32_t *)&l->idx[n] = word;
	shunt_count(r, word);
}

static inline void shunt_level_leave(struct shunt_reader *r, struct shunt_levels *l)
{
	unsigned n = shunt_levels_depth(l) - 1;

	if (__builtin_expect(n >= SHUNT_LEVELS, 0)) {
		*(volatile uint64_t *)&l->top = l->top - SHUNT_LEVEL_ONE;
		return;
	}
	shunt_count(r, l->idx[n] + 16);
	*(volatile uint64_t *)&l->top = n ? l->below[n - 1] : 0;
}

/*
 * Whether an address is on the calling thread's alternate signal stack: for who compares
 * frames to find sections that a handler has jumped away from. Any context.
 */
bool shunt_on_altstack(uintptr_t addr);

/* Whether the calling thread is inside a section of the library's own domains. Any context. */
bool shunt_reader_inside(void);

/* Ends what threads that are gone have left open in one of these domains. */
void shunt_reader_close_ended(const struct shunt_srcu *d);

/*
 * Waits for a grace period of one of them. Blocks; not from a signal handler. 0, or
 * -EDEADLK from inside a section of either, of the calling thread.
 */
int shunt_reader_synchronize(struct shunt_srcu *d);

#endif
