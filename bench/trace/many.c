/* SPDX-License-Identifier: MIT */
/*
 * many.c - switching the recording of N functions on and off, live, while two
 * threads run through all of them. Prints the time of the batch (which a user
 * waits for) and the longest time that a running thread was held up beyond what
 * it is held up without any patching.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "ring/pool.h"
#include "ring/writer.h"
#include "trace/record.h"
#include "../timing.h"

#define RUNS 21

extern long (*const many[])(long);
extern const int n_many;

static atomic_int stop;
static _Atomic(double) max_gap[2];

static void *run(void *arg)
{
	long me = (long)arg;
	volatile long x = me;
	cpu_set_t cpu;
	double last;

	CPU_ZERO(&cpu);
	CPU_SET(me, &cpu);
	pthread_setaffinity_np(pthread_self(), sizeof cpu, &cpu);
	last = now();
	for (unsigned k = 1; !stop; k++) {
		double t;

		for (int i = 0; i < 16; i++)
			x = many[(k * 7919u + (unsigned)i * 104729u) % (unsigned)n_many](x);
		t = now();
		if (t - last > max_gap[me])
			max_gap[me] = t - last;
		last = t;
	}
	return NULL;
}

static double gaps(void)
{
	double a = max_gap[0], b = max_gap[1];

	max_gap[0] = max_gap[1] = 0;
	return a > b ? a : b;
}

static void pause_ms(long ms)
{
	struct timespec t = {.tv_nsec = ms * 1000000};

	nanosleep(&t, NULL);
}

static void spin_ns(double ns)
{
	double until = now() + ns;

	while (now() < until)
		;
}

static void batches(const char *how, const char *glob, int n)
{
	double on[RUNS], off[RUNS], held[RUNS], idle[RUNS];
	struct shunt_record_change res;
	uint32_t changed = 0;

	for (int r = 0; r < RUNS; r++) {
		/* What a thread is held up in as long a time without a batch. */
		gaps();
		spin_ns(r ? on[r - 1] : 1e5);
		idle[r] = gaps();
		if (shunt_record_set(&glob, 1, true, &res))
			exit(1);
		on[r] = (double)res.ns;
		changed = res.changed;
		held[r] = gaps();
		pause_ms(1);
		if (shunt_record_set(&glob, 1, false, &res))
			exit(1);
		off[r] = (double)res.ns;
	}
	printf("many.%s.%d.sites %u sites\n", how, n, changed);
	printf("many.%s.%d.on %.3f ms\n", how, n, median(on, RUNS) / 1e6);
	printf("many.%s.%d.off %.3f ms\n", how, n, median(off, RUNS) / 1e6);
	printf("many.%s.%d.on_per_site %.1f ns\n", how, n, median(on, RUNS) / changed);
	if (!strcmp(how, "live")) {
		printf("many.%s.%d.held_up %.1f us\n", how, n, median(held, RUNS) / 1e3);
		printf("many.%s.%d.held_up_without %.1f us\n", how, n, median(idle, RUNS) / 1e3);
	}
}

static void sizes(const char *how)
{
	batches(how, "m_7", 1);
	batches(how, "m_7??", 100);
	batches(how, "m_7???", 1000);
	batches(how, "m_*", n_many);
}

int main(void)
{
	struct shunt_ring_options opts = {.size = 64 << 20, .mode = SHUNT_RING_OVERWRITE};
	struct shunt_record_stats st;
	struct shunt_ring_info info;
	char path[64];
	struct shunt_ring *ring;
	pthread_t t[2];
	double start;

	snprintf(path, sizeof path, "/dev/shm/shunt-bench-%d", (int)getpid());
	start = now();
	if (shunt_ring_create(path, &opts, &ring) || shunt_record_start(ring))
		return 1;
	printf("many.start %.2f ms\n", (now() - start) / 1e6);
	sizes("alone");
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, run, (void *)i);
	pause_ms(20);
	sizes("live");
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	shunt_record_stats(&st);
	shunt_ring_info(ring, &info);
	printf("many.memory %.0f bytes\n", (double)st.memory);
	/* Its writers, its row in the pool, and the page that it fills. */
	printf("many.memory_per_thread %.0f bytes\n", (double)(SHUNT_RING_MAX *
		sizeof(struct shunt_ring_writer) + sizeof(struct pool_slot) + info.page_size));
	printf("many.memory_per_site %.1f bytes\n", (double)st.memory / st.functions);
	shunt_ring_close(ring);
	unlink(path);
	return 0;
}
