/* SPDX-License-Identifier: MIT */
/* writer.h - a thread's end of a ring; the tracer's assembly knows the layout. */
#ifndef SHUNT_RING_WRITER_H
#define SHUNT_RING_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shunt_ring;
struct pool_slot;

/*
 * Written by its thread only. Lies in memory that a fork child finds zeroed
 * (MADV_WIPEONFORK), so that a child, however it was made, never writes into
 * its parent's page.
 *
 * `at` says where the first word may be that is empty, and in which use of the
 * page: where its tag is that of the current page, everything before that word is
 * full. An empty word has the same tag, so comparing one is all the checking there is.
 */
struct shunt_ring_writer {
	uint64_t at;	   /* tag << 32 | index of the word among the pages' words */
	uint64_t hi;	   /* clock's high half in the page, plus 1, or SHUNT_WRITER_IDLE */
	uint64_t *words;   /* the pages' */
	uint64_t *written; /* the thread's count */
	/* tag << 32 | the same as hi, if the page is marked for long events. Changed by
	 * whoever closes such a page. */
	uint64_t longs;
	struct pool_slot *slot;
	/* The page, index + 1, that the thread is making ready, and where on its
	 * stack it does so. */
	uint32_t preparing;
	uintptr_t preparing_at;
};

/* No clock's high half: sends every event to the slow path. */
#define SHUNT_WRITER_IDLE 0

/* The calling thread's writer, NULL when there is no memory. Any context. */
struct shunt_ring_writer *shunt_ring_writer(struct shunt_ring *ring);

/* The calling thread has ended but for libc's own code: it has no writer any more. */
bool shunt_ring_thread_over(void);

/* Writes a short event, or counts it as discarded (-ENOSPC). Any context. */
int shunt_ring_put_slow(struct shunt_ring *ring, struct shunt_ring_writer *w, uint32_t tag);

/* Whether the writers' fast path may read the TSC. */
bool shunt_ring_uses_tsc(const struct shunt_ring *ring);

/* In a fork child, from an atfork handler: the thread starts anew. */
void shunt_ring_forget_thread(void);

#endif
