/* SPDX-License-Identifier: MIT */
/*
 * pool.h - the layout of a ring's file, shared by all processes that map it.
 *
 *	superblock | thread slots | page descriptors | pages | POOL_BEYOND bytes
 *
 * Each word of it is written either by one thread alone (plain stores, read by
 * others in order, as x86 keeps stores in order), or atomically.
 */
#ifndef SHUNT_RING_POOL_H
#define SHUNT_RING_POOL_H

#include <shunt/ring.h>

#define POOL_MAGIC   0x31474e5254485348ULL /* "HSHTRNG1" */
#define POOL_VERSION 1

struct pool_account {
	uint64_t written, discarded, overwritten, read, torn;
};

struct pool_super {
	uint64_t magic;
	uint32_t version;
	uint32_t page_size, pages, slots, mode, clock;
	uint64_t size, slots_at, descs_at, pages_at;
	uint64_t clock_hz, clock_base_ticks, clock_base_ns;
	/* Each of these is written by everybody. */
	uint64_t cursor __attribute__((aligned(64))); /* tickets; the next instance */
	int64_t free __attribute__((aligned(64)));    /* pages */
	struct pool_account retired __attribute__((aligned(64)));
	uint64_t homeless; /* discarded: no slot for the thread */
};

enum { SLOT_FREE, SLOT_TAKEN, SLOT_LIVE, SLOT_ENDED };

/* A thread's place. Its own thread writes all but state, overwritten, read, torn. */
struct pool_slot {
	uint32_t state;
	uint32_t tag, pid, tid;
	char comm[16];
	struct pool_account a;
	uint64_t seq;
	uint64_t current; /* its page: tag << 32 | index + 1, or 0 there for none */
	uint64_t unused[4];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct pool_slot) == 128, "two lines a thread");

enum {
	PAGE_FREE,
	PAGE_TAKEN,   /* its thread prepares it: what is in it means nothing */
	PAGE_OPEN,    /* its thread writes */
	PAGE_FULL,    /* for a reader, or to be overwritten */
	PAGE_READING, /* a reader has it */
	PAGE_READ,    /* and has done with it: what its slot's `read` becomes is in
		       * the header's `discarded`, should the reader die now */
	PAGE_PINNED,  /* full, with long events that their writer will finish */
};

struct pool_desc {
	uint32_t state;
	uint32_t slot;
	uint64_t instance;
	uint32_t events; /* of a FULL page, or POOL_UNCOUNTED */
	uint32_t unused[3];
};
#define POOL_UNCOUNTED UINT32_MAX

/* --- words of a page ------------------------------------------------------------ */

/* Bit 0 clear: a short event. Else the low two bits: */
#define WORD_LONG     1u
#define WORD_SPECIAL  3u
#define WORD_KIND(w)  ((w) & 3u)
#define WORD_TYPE(w)  ((uint32_t)((w) >> 20) & 0xfff)
#define WORD_LEN(w)   ((uint32_t)((w) >> 8) & 0xfff)
#define WORD_SHAPE    0xfff03u /* kind and length of a long event */
/* Bits 2 to 7 of a special word. */
enum { SUB_EMPTY, SUB_CLAIMED, SUB_END = 3, SUB_CLOCK };
#define WORD_SUB(w)   ((unsigned)((w) >> 2) & 0x3f)
#define SPECIAL(sub)  ((uint64_t)(sub) << 2 | WORD_SPECIAL)

#define WORD_CLAIMED   SPECIAL(SUB_CLAIMED)
#define WORD_END       SPECIAL(SUB_END)
#define WORD_CLOCK(hi) ((uint64_t)(hi) << 32 | SPECIAL(SUB_CLOCK))

/*
 * The tag of a page's use, in the high half of a word: the low half of its
 * instance. It comes again after 2^32 pages; who was interrupted for just so long
 * would have to be told apart, and is not.
 */
#define TAG(x)		((x) & ~(uint64_t)UINT32_MAX)
#define TAG_OF(inst)	((uint64_t)(inst) << 32)
#define EMPTY(x)	(TAG(x) | SPECIAL(SUB_EMPTY))
#define CURRENT_ANY(c)	((uint32_t)(c) != 0)
#define CURRENT_PAGE(c) ((uint32_t)(c) - 1)

/* What the low half of a word can say. */
#define POOL_WORDS_MAX ((uint64_t)1 << 32)

/* Bytes of the file behind the last page. */
#define POOL_BEYOND 4096

/* Words that a long event of `len` payload bytes takes. */
static inline uint32_t words_of(uint32_t len)
{
	return 1 + (len + 7) / 8;
}

struct pool_full {
	uint64_t instance;
	uint32_t index;
};

struct shunt_ring {
	struct pool_super *super;
	struct pool_slot *slots;
	struct pool_desc *descs;
	char *pages;
	uint32_t page_size, npages, nslots;
	uint32_t room; /* bytes of a page before its last word */
	uint32_t mode, clock;
	uint32_t tag;
	int id;		  /* its place in the threads' tables of writers */
	size_t writer_at; /* the same in bytes */
	struct pool_full *batch; /* a reader's list of full pages */
	uint32_t nbatch, batch_at;
};

static inline struct shunt_ring_page *page_at(const struct shunt_ring *r, uint32_t i)
{
	return (struct shunt_ring_page *)(r->pages + (size_t)i * r->page_size);
}

/* Complete events and torn ones of a page. */
void shunt_ring_count(const struct shunt_ring_page *page, size_t size, uint64_t *events,
	uint64_t *torn);

struct shunt_ring_writer;

void shunt_ring_writers_init(void);
/* The calling thread writes no more: its page is handed over, its slot ended. */
void shunt_ring_writer_end(struct shunt_ring *r, struct shunt_ring_writer *w);
/* The same for all threads of this process, none of which is writing. */
void shunt_ring_writers_end(struct shunt_ring *r);
/* The same for the ring with this id, if it is open. */
void shunt_ring_leave(int id, struct shunt_ring_writer *w);

/* The second half of giving a page back: may be done again. */
void shunt_ring_page_free(struct shunt_ring *r, uint32_t page);

/* Hands an OPEN page over, sealed; for its own thread, or when that is gone. */
void shunt_ring_seal(struct shunt_ring *r, uint32_t page);

#endif
