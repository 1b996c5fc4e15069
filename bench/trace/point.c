/* SPDX-License-Identifier: MIT */
/*
 * point.c - what a tracepoint with two integers costs: off, recorded with its time stamp, by
 * one thread and by two at once, past a filter, stopped by one, and with a probe. Net of the
 * empty loop; medians of 11 runs; `name value unit` a line.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <shunt/ring.h>
#include <shunt/trace.h>

#include "../timing.h"

#define RUNS  11
#define CALLS 2000000L

SHUNT_TRACEPOINT(bench, two, shunt_integer(int, a), shunt_integer(int, b));

static void empty(void)
{
	for (long i = 0; i < CALLS; i++)
		__asm__ volatile("" : : "r"(i));
}

static void clock_reads(void)
{
	for (long i = 0; i < CALLS; i++)
		__asm__ volatile("rdtsc" : : "r"(i) : "rax", "rdx");
}

static void points(void)
{
	for (long i = 0; i < CALLS; i++) {
		__asm__ volatile("" : : "r"(i));
		shunt_trace(bench, two, (int)i, 7);
	}
}

static double per_call(void (*fn)(void))
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++) {
		double t = now();

		fn();
		v[r] = (now() - t) / (double)CALLS;
	}
	return median(v, RUNS);
}

static volatile int stop;

static void *other(void *arg)
{
	pin(0);
	while (!stop)
		shunt_trace(bench, two, 1, 2);
	return arg;
}

/* As the peer: one thread's time, while another one does the same on its own processor. */
static double by_two(void)
{
	pthread_t t;
	double one;

	pthread_create(&t, NULL, other, NULL);
	one = per_call(points);
	stop = 1;
	pthread_join(t, NULL);
	return one;
}

static long sum;

static void probe(int a, int b, void *data)
{
	*(long *)data += a + b;
}

int main(void)
{
	struct shunt_ring_options o = {.size = 16 << 20, .mode = SHUNT_RING_OVERWRITE};
	struct shunt_ring *ring;
	double loop, clock, one;
	char path[64];

	snprintf(path, sizeof path, "/dev/shm/shunt-bench-%d", getpid());
	if (shunt_ring_create(path, &o, &ring))
		return 1;
	unlink(path);
	pin(1);
	loop = per_call(empty);
	clock = per_call(clock_reads) - loop;
	printf("point.clock_read %.2f ns\n", clock);
	printf("point.off %.2f ns\n", per_call(points) - loop);
	if (shunt_trace_enable("bench:two", NULL, ring) != 1)
		return 1;
	one = per_call(points) - loop;
	printf("point.recorded %.2f ns\n", one);
	printf("point.recorded_by_clock_reads %.2f ratio\n", one / clock);
	printf("point.recorded_by_two_threads %.2f ns\n", by_two() - loop);
	shunt_trace_enable("bench:two", "b == 7", ring);
	printf("point.past_filter %.2f ns\n", per_call(points) - loop);
	shunt_trace_enable("bench:two", "b == 8", ring);
	printf("point.filtered_out %.2f ns\n", per_call(points) - loop);
	shunt_trace_disable("bench:two");
	if (shunt_trace_register(bench, two, probe, &sum))
		return 1;
	printf("point.probe %.2f ns\n", per_call(points) - loop);
	shunt_trace_unregister(bench, two, probe, &sum);
	shunt_ring_close(ring);
	return 0;
}
