/* SPDX-License-Identifier: MIT */
/*
 * fetch.c - what a probe's event costs once the program has come by: its arguments fetched and
 * the event recorded, by what they are. Without the way there and back, which is the engine's.
 * Medians of 11 runs; `name value unit` a line.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "probe/event_hit.h"
#include "probe/spec.h"

#include "../timing.h"

#define RUNS 11

/* Of trace/point.h, which has another struct shunt_probe. */
int shunt_points_switch(const char *glob, const char *filter, struct shunt_ring *ring, bool on);
void shunt_points_ring(struct shunt_ring *ring);

static struct shunt_regs regs;

static double per_hit(struct shunt_probe *p, long hits)
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++) {
		double t = now();

		for (long i = 0; i < hits; i++)
			p->pre(p, &regs);
		v[r] = (now() - t) / (double)hits;
	}
	return median(v, RUNS);
}

static int measure(const char *name, const char *args, const char *filter, long hits)
{
	static struct shunt_spec s;
	static struct shunt_hit h;
	struct shunt_probe p = {.pre = shunt_hit, .data = &h};
	char text[256], why[320] = "";
	int err;

	snprintf(text, sizeof text, "%s=f%s", name, args);
	err = shunt_spec_parse(text, &s, why, sizeof why);
	memset(&h, 0, sizeof h);
	h.fetch = s.fetch;
	if (!err)
		err = shunt_event_make(&h.event, s.event, "bench", &h.fetch, why, sizeof why);
	snprintf(text, sizeof text, "probe:%s", name);
	if (!err && filter)
		err = shunt_points_switch(text, *filter ? filter : NULL, NULL, *filter != 0) < 0;
	if (err) {
		fprintf(stderr, "%s: %s\n", text, why);
		return 1;
	}
	printf("probe.hit.%s %.1f ns\n", name, per_hit(&p, hits));
	shunt_event_free(&h.event);
	return 0;
}

int main(void)
{
	static uint64_t word = 7, *pointer = &word;
	struct shunt_ring_options o = {.size = 8 << 20, .mode = SHUNT_RING_OVERWRITE};
	struct shunt_ring *ring;
	uint64_t here[8] = {0};
	char path[64];
	int err;

	pin(1);
	snprintf(path, sizeof path, "/dev/shm/shunt-bench-fetch-%d", getpid());
	if (shunt_ring_create(path, &o, &ring)) {
		fprintf(stderr, "no ring\n");
		return 1;
	}
	unlink(path);
	shunt_points_ring(ring);
	regs.rdi = (uint64_t)&pointer;
	regs.rsi = (uint64_t)"/etc/ld.so.cache";
	regs.rsp = (uint64_t)here;
	err = measure("off", "(%rdi,%rsi)", "", 2000000);
	err |= measure("no_argument", "", NULL, 2000000);
	err |= measure("two_registers", "(%rdi,%rsi)", NULL, 2000000);
	err |= measure("word_of_stack", "($stack1)", NULL, 2000000);
	err |= measure("word", "(+0(%rdi))", NULL, 200000);
	err |= measure("four_words", "(+0(%rdi),+8(%rsi):u32,+0(%rsi):u8,+1(%rsi):u8)", NULL, 200000);
	err |= measure("word_in_two_steps", "(+0(+0(%rdi)))", NULL, 200000);
	err |= measure("string", "(+0(%rsi):string)", NULL, 200000);
	err |= measure("nowhere", "(+0(%rax):u8)", NULL, 200000);
	err |= measure("filter", "(a=%rdi,b=%rsi)", "a == 0", 200000);
	return err;
}
