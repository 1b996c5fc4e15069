/* SPDX-License-Identifier: MIT */
/*
 * engine.h - what the parts of the patching engine share.
 *
 * apply.c checks a batch and picks a strategy; flip.c, trap.c and stop.c are the
 * strategies; write.c are the ways to write that trap, stop and plain use.
 */
#ifndef SHUNT_TEXT_ENGINE_H
#define SHUNT_TEXT_ENGINE_H

#include <shunt/text.h>

#include <stdbool.h>

#include "text/maps.h"

#define SHUNT_PAGE 4096ul
/* The memfd that text becomes with SHUNT_TEXT_WRITE_ALIAS. */
#define SHUNT_ALIAS_NAME "shunt-text"

/* One batch, sorted by address, old bytes compared, the batch lock held. */
struct shunt_batch {
	const struct shunt_edit *e;
	size_t n;
	uint8_t *pending; /* a byte each: 1 = holds the old bytes, to be written */
	const struct shunt_edit *many; /* a site that holds several instructions */
	bool undo;	  /* write old bytes where new ones are: for roll-back */
	struct shunt_maps *maps;
	struct shunt_status status;
	const struct shunt_text_options *opts;
	struct shunt_text_result *res;
};

static inline uintptr_t shunt_edit_start(const struct shunt_edit *e)
{
	return (uintptr_t)e->addr;
}

static inline uintptr_t shunt_edit_end(const struct shunt_edit *e)
{
	return (uintptr_t)e->addr + e->len;
}

static inline const uint8_t *shunt_edit_from(const struct shunt_batch *b, size_t i)
{
	return b->undo ? b->e[i].new_ : b->e[i].old;
}

static inline const uint8_t *shunt_edit_to(const struct shunt_batch *b, size_t i)
{
	return b->undo ? b->e[i].old : b->e[i].new_;
}

/* Sites are mostly of five bytes or two: no call for those. */
static inline bool shunt_bytes_equal(const void *a, const void *b, size_t n)
{
	if (n == 5)
		return !__builtin_memcmp(a, b, 5);
	if (n == 2)
		return !__builtin_memcmp(a, b, 2);
	return !__builtin_memcmp(a, b, n);
}

static inline void shunt_bytes_copy(void *to, const void *from, size_t n)
{
	if (n == 5)
		__builtin_memcpy(to, from, 5);
	else if (n == 2)
		__builtin_memcpy(to, from, 2);
	else
		__builtin_memcpy(to, from, n);
}

/* Records why, and where; returns err. */
int shunt_batch_fail(struct shunt_batch *b, int err, const void *addr, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The strategies. Each leaves everything as it was when it fails, but for -EIO. */
int shunt_flip(struct shunt_batch *b);
int shunt_trap(struct shunt_batch *b);
int shunt_stop(struct shunt_batch *b);
int shunt_plain(struct shunt_batch *b);

/* Scratch memory of the batch lock's holder, kept between batches. */
enum shunt_scratch {
	SHUNT_SCRATCH_SORTED,
	SHUNT_SCRATCH_MERGE,
	SHUNT_SCRATCH_PENDING,
	SHUNT_SCRATCH_PAGES,
	SHUNT_SCRATCHES
};
void *shunt_scratch(enum shunt_scratch which, size_t size);

#endif
