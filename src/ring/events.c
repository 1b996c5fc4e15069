/* SPDX-License-Identifier: MIT */
/*
 * events.c - what is in a page. An image is taken apart without trusting it:
 * the trace reader gives us files.
 */
#include <errno.h>
#include <string.h>

#include "pool.h"

SHUNT_API int shunt_ring_events(const void *page, size_t size, struct shunt_ring_cursor *c)
{
	struct shunt_ring_page h;

	if (size < sizeof h)
		return -EINVAL;
	memcpy(&h, page, sizeof h);
	if (h.magic != SHUNT_RING_PAGE_MAGIC || h.version != POOL_VERSION || h.header < sizeof h ||
		h.header % 8 || h.header > size)
		return -EINVAL;
	c->at = (const uint64_t *)(const void *)((const char *)page + h.header);
	c->end = c->at + (size - h.header) / 8;
	c->hi = h.ts >> 32;
	return 0;
}

static int end_of(struct shunt_ring_cursor *c, int r)
{
	c->at = c->end;
	return r;
}

SHUNT_API int shunt_ring_event_next(struct shunt_ring_cursor *c, struct shunt_ring_event *e)
{
	while (c->at < c->end) {
		uint64_t w = *(const volatile uint64_t *)c->at;
		unsigned sub = WORD_SUB(w);

		e->ts = c->hi << 32 | w >> 32;
		if (!(w & 1)) {
			e->kind = SHUNT_RING_EVENT_SHORT;
			e->tag = (uint32_t)w >> 1;
			e->data = NULL;
			e->len = 0;
			c->at++;
			return 1;
		}
		if (WORD_KIND(w) == WORD_SPECIAL && sub == SUB_CLOCK) {
			c->hi = w >> 32;
			c->at++;
			continue;
		}
		if (WORD_KIND(w) == WORD_SPECIAL && (sub == SUB_EMPTY || sub == SUB_END))
			return end_of(c, 0);
		if (WORD_KIND(w) == WORD_SPECIAL && sub != SUB_CLAIMED)
			return end_of(c, -EINVAL);
		if (words_of(WORD_LEN(w)) > (size_t)(c->end - c->at))
			return end_of(c, -EINVAL);
		e->kind = WORD_KIND(w) == WORD_LONG ? SHUNT_RING_EVENT_LONG : SHUNT_RING_EVENT_TORN;
		e->tag = WORD_TYPE(w);
		e->len = WORD_LEN(w);
		e->data = c->at + 1;
		c->at += words_of(WORD_LEN(w));
		return 1;
	}
	return 0;
}

/*
 * Passes over long events that are as long as the one at `p`, which is most often
 * so: guessing it, the processor looks at an event before it has the length of
 * the one before.
 */
static inline const uint64_t *pass_alike(const uint64_t *p, const uint64_t *end, uint64_t *events)
{
	const volatile uint64_t *at = p;
	uint64_t alike = *at & WORD_SHAPE;
	ptrdiff_t n = words_of(WORD_LEN(alike));

	for (; end - at > 3 * n; at += 4 * n) {
		uint64_t unlike = (at[0] ^ alike) | (at[n] ^ alike) | (at[2 * n] ^ alike) |
				  (at[3 * n] ^ alike);

		if (unlike & WORD_SHAPE)
			break;
		*events += 4;
	}
	for (; at < end && (*at & WORD_SHAPE) == alike; at += n)
		++*events;
	return (const uint64_t *)at;
}

void shunt_ring_count(const struct shunt_ring_page *page, size_t size, uint64_t *events,
	uint64_t *torn)
{
	const uint64_t *p = (const uint64_t *)(const void *)(page + 1);
	const uint64_t *end = (const uint64_t *)(const void *)((const char *)page + size);

	*events = *torn = 0;
	while (p < end) {
		uint64_t w = *(const volatile uint64_t *)p;

		if (!(w & 1)) {
			++*events;
			p++;
		} else if (WORD_KIND(w) == WORD_LONG) {
			p = pass_alike(p, end, events);
		} else if (WORD_SUB(w) == SUB_CLOCK) {
			p++;
		} else if (WORD_SUB(w) == SUB_CLAIMED) {
			++*torn;
			p += words_of(WORD_LEN(w));
		} else {
			return;
		}
	}
}
