/* SPDX-License-Identifier: MIT */
/*
 * event_write.c - an event on its way into the ring, between any two instructions of the
 * program: vector registers are the program's.
 *
 * The ring is written with general registers only. A filter may have floating-point numbers
 * and calls libc, so around it everything is saved that libc's functions may use: that costs
 * ten times what the event does, but only where there is a filter.
 */
#include <shunt/ring.h>
#include <shunt/trace.h>

#include "event.h"
#include "trace/point.h"

/*
 * x87, SSE, AVX and AVX-512, in the standard format: up to 2,688 bytes, where there was room
 * for MPX (Intel SDM volume 1, 13.4; CPUID leaf 0xd).
 * Not the tiles of AMX and not PKRU, which no code of ours or libc's changes.
 */
enum { STATE = 0xe7, STATE_BYTES = 2688, STATE_HEADER = 512 };

struct state {
	uint8_t bytes[STATE_BYTES];
} __attribute__((aligned(64)));

/* Asked once: where there is a hypervisor, CPUID takes microseconds. */
static bool have_xsave(void)
{
	static uint32_t known; /* 1, and OSXSAVE as bit 27 */
	uint32_t a = 1, b, c = __atomic_load_n(&known, __ATOMIC_RELAXED), d;

	if (!c) {
		__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		c |= 1;
		__atomic_store_n(&known, c, __ATOMIC_RELAXED);
	}
	return c >> 27 & 1;
}

static void save(struct state *s)
{
	volatile uint64_t *header = (void *)(s->bytes + STATE_HEADER);

	/* XSAVE does not write all of its header, and XRSTOR wants zeros there. */
	for (int i = 0; i < 8; i++)
		header[i] = 0;
	__asm__ volatile("xsave64 %0" : "+m"(*s) : "a"(STATE), "d"(0));
}

static void restore(const struct state *s)
{
	__asm__ volatile("xrstor64 %0" : : "m"(*s), "a"(STATE), "d"(0) : "memory");
}

static void save_old(struct state *s)
{
	__asm__ volatile("fxsave64 %0" : "=m"(*s));
}

static void restore_old(const struct state *s)
{
	__asm__ volatile("fxrstor64 %0" : : "m"(*s));
}

/* What is not on the way of every event: its frame is large. */
static __attribute__((noinline, cold)) void write_kept(const struct shunt_point *p, const void *data,
	size_t len)
{
	bool xsave = have_xsave();
	struct state s;

	(xsave ? save : save_old)(&s);
	shunt_point_write(p, data, len);
	(xsave ? restore : restore_old)(&s);
}

void shunt_event_write(const struct shunt_event *e, const void *data, size_t len)
{
	const struct shunt_point *p = e->point;
	struct shunt_ring *ring;

	if (__atomic_load_n(&p->ring, __ATOMIC_RELAXED) || __atomic_load_n(&p->filter, __ATOMIC_RELAXED)) {
		write_kept(p, data, len);
		return;
	}
	ring = shunt_points_recorder();
	if (ring)
		shunt_ring_write(ring, p->id, data, len);
}
