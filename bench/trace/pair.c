/* SPDX-License-Identifier: MIT */
/*
 * pair.c - what a traced call costs: untraced, off, entry callback, entry and
 * exit callbacks, entry and exit recorded with time stamps, the same of a function that
 * was not compiled for it. Medians of 11 runs;
 * `name value unit` a line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/ftrace.h>
#include <shunt/ring.h>

#include "trace/record.h"
#include "../timing.h"

#define RUNS  11
#define CALLS 1000000L

void p_site(void);
void p_plain(void);
void p_displaced(void); /* of a library that nobody compiled for tracing */

static double calls(void (*fn)(void))
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++) {
		double t = now();

		for (long i = 0; i < CALLS; i++)
			fn();
		v[r] = (now() - t) / (double)CALLS;
	}
	return median(v, RUNS);
}

static double clock_read(void)
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++) {
		double t = now();

		for (long i = 0; i < CALLS; i++)
			__asm__ volatile("rdtsc" : : : "rax", "rdx");
		v[r] = (now() - t) / (double)CALLS;
	}
	return median(v, RUNS);
}

static long n;

__attribute__((target("general-regs-only"))) static void nothing(uintptr_t ip, uintptr_t parent,
	struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	n++;
}

#define DISPLACED "libbench-trace-displaced.so:p_displaced"

static double with(unsigned flags, shunt_ftrace_fn entry, shunt_ftrace_fn exit_)
{
	struct shunt_ftrace_ops ops = {.entry = entry, .exit = exit_, .flags = flags};
	double t;

	shunt_ftrace_filter(&ops, "p_site");
	if (shunt_ftrace_register(&ops))
		exit(1);
	t = calls(p_site);
	shunt_ftrace_unregister(&ops);
	return t;
}

int main(void)
{
	static const char *const all[] = {"p_site"}, *const displaced[] = {DISPLACED};
	struct shunt_ring_options opts = {.size = 64 << 20, .mode = SHUNT_RING_OVERWRITE};
	char path[64];
	struct shunt_ring *ring;
	double clock, plain, off, pair;

	pin(1);
	clock = clock_read();
	plain = calls(p_plain);
	off = calls(p_site);
	printf("trace.clock_read %.2f ns\n", clock);
	printf("trace.call_plain %.2f ns\n", plain);
	printf("trace.call_off %.2f ns\n", off);
	printf("trace.entry_callback_gpr %.2f ns\n",
		with(SHUNT_FTRACE_GENERAL_REGS, nothing, NULL) - plain);
	printf("trace.entry_callback_any %.2f ns\n", with(0, nothing, NULL) - plain);
	printf("trace.both_callbacks_gpr %.2f ns\n",
		with(SHUNT_FTRACE_GENERAL_REGS, nothing, nothing) - plain);
	snprintf(path, sizeof path, "/dev/shm/shunt-bench-%d", (int)getpid());
	if (shunt_ring_create(path, &opts, &ring) || shunt_record_start(ring) ||
		shunt_record_set(all, 1, true, NULL))
		return 1;
	pair = calls(p_site) - plain;
	printf("trace.pair_recorded %.2f ns\n", pair);
	printf("trace.pair_recorded_by_clock_reads %.2f ratio\n", pair / (2 * clock));
	shunt_record_set(all, 1, false, NULL);
	plain = calls(p_displaced);
	if (shunt_record_set(displaced, 1, true, NULL))
		return 1;
	printf("trace.pair_recorded_displaced %.2f ns\n", calls(p_displaced) - plain);
	shunt_record_set(displaced, 1, false, NULL);
	printf("trace.call_off_again %.2f ns\n", calls(p_site));
	shunt_ring_close(ring);
	unlink(path);
	return n == 0;
}
