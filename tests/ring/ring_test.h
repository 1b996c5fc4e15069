/* SPDX-License-Identifier: MIT */
/* ring_test.h - what the ring's tests share. */
#ifndef RING_TEST_H
#define RING_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "tap.h"

static char ring_path[64];

__attribute__((unused)) static struct shunt_ring *make(uint64_t size, uint32_t page,
	enum shunt_ring_mode mode, enum shunt_ring_clock clock)
{
	struct shunt_ring_options o = {.size = size, .page_size = page, .mode = mode,
		.clock = clock};
	struct shunt_ring *r = NULL;
	int e;

	snprintf(ring_path, sizeof ring_path, "/dev/shm/shunt-test-%d", (int)getpid());
	unlink(ring_path);
	e = shunt_ring_create(ring_path, &o, &r);
	if (e) {
		diag("shunt_ring_create: %d", e);
		exit(1);
	}
	return r;
}

__attribute__((unused)) static void drop(struct shunt_ring *r)
{
	shunt_ring_close(r);
	unlink(ring_path);
}

/* Calls fn for every event of every full page, of as many as the pool has: a
 * writer may be faster. Returns how many events. */
__attribute__((unused)) static uint64_t consume(struct shunt_ring *r,
	void (*fn)(const struct shunt_ring_page *, const struct shunt_ring_event *, void *),
	void *arg)
{
	struct shunt_ring_page_ref ref;
	struct shunt_ring_info info;
	uint64_t n = 0;

	shunt_ring_info(r, &info);
	for (uint32_t k = 0; k < info.pages && !shunt_ring_page_next(r, &ref); k++) {
		struct shunt_ring_cursor c;
		struct shunt_ring_event e;

		if (!shunt_ring_events(ref.page, info.page_size, &c))
			while (shunt_ring_event_next(&c, &e) == 1) {
				n += e.kind != SHUNT_RING_EVENT_TORN;
				if (fn)
					fn(ref.page, &e, arg);
			}
		shunt_ring_page_release(r, &ref);
	}
	return n;
}

#endif
