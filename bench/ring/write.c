/* SPDX-License-Identifier: MIT */
/* write.c - what writing an event costs, beside a clock read. Medians of 11. */
#include <stdio.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "../timing.h"

#define RUNS  11
#define TIMES 1000000L

#define MEDIAN(statement) \
	__extension__({ \
		double v[RUNS]; \
		for (int r = 0; r < RUNS; r++) { \
			double t = now(); \
			for (long i = 0; i < TIMES; i++) { \
				statement; \
				__asm__ volatile("" ::: "memory"); \
			} \
			v[r] = (now() - t) / (double)TIMES; \
		} \
		median(v, RUNS); \
	})

static struct shunt_ring *make(enum shunt_ring_clock clock, char *path, size_t size)
{
	struct shunt_ring_options o = {.size = 256 << 10, .page_size = 16384, .mode = SHUNT_RING_OVERWRITE,
		.clock = clock};
	struct shunt_ring *r;

	snprintf(path, size, "/dev/shm/shunt-bench-ring-%d-%d", (int)getpid(), (int)clock);
	if (shunt_ring_create(path, &o, &r))
		exit(1);
	return r;
}

int main(void)
{
	uint64_t data[2] = {1, 2};
	char a[64], b[64];
	struct shunt_ring *stamped = make(SHUNT_RING_CLOCK_AUTO, a, sizeof a);
	struct shunt_ring *bare = make(SHUNT_RING_CLOCK_NONE, b, sizeof b);
	double clock, with, without;

	pin(1);
	clock = MEDIAN(__asm__ volatile("rdtsc" : : : "rax", "rdx"));
	with = MEDIAN(shunt_ring_write(stamped, 1, data, sizeof data));
	without = MEDIAN(shunt_ring_write(bare, 1, data, sizeof data));
	printf("ring.loop %.2f ns\n", MEDIAN((void)0));
	printf("ring.clock_read %.2f ns\n", clock);
	printf("ring.write_16_stamped %.2f ns\n", with);
	printf("ring.write_16_stamped_by_clock_read %.2f ratio\n", with / clock);
	printf("ring.write_16_unstamped %.2f ns\n", without);
	printf("ring.write_13_unstamped %.2f ns\n", MEDIAN(shunt_ring_write(bare, 1, data, 13)));
	printf("ring.put_stamped %.2f ns\n", MEDIAN(shunt_ring_put(stamped, 1)));
	printf("ring.put_unstamped %.2f ns\n", MEDIAN(shunt_ring_put(bare, 1)));
	shunt_ring_close(stamped);
	shunt_ring_close(bare);
	unlink(a);
	unlink(b);
	return 0;
}
