/* SPDX-License-Identifier: MIT */
/* The range tree finds what a plain list finds, also while it is changed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/core.h"
#include "tap.h"

#define N 300

static struct shunt_mmu_node nodes[N];
static bool in[N];

static uint64_t seed = 88172645463325252u;

static uint64_t dice(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static bool hits(const struct shunt_mmu_node *n, uintptr_t start, uintptr_t end)
{
	return n->start < end && n->end > start;
}

static int brute(uintptr_t start, uintptr_t end)
{
	int count = 0;

	for (int i = 0; i < N; i++)
		count += in[i] && hits(&nodes[i], start, end);
	return count;
}

/* All that overlap, in order; -1 if one is out of order, or does not overlap. */
static int walk(uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_node *n;
	uintptr_t after = 0;
	uint64_t number = 0;
	int count = 0;

	while ((n = shunt_mmu_tree_next(start, end, after, number))) {
		if (!hits(n, start, end) || n->start < after || (n->start == after && n->number <= number))
			return -1;
		after = n->start;
		number = n->number;
		count++;
	}
	return count;
}

static void change(int i, uint64_t number)
{
	if (in[i]) {
		shunt_mmu_tree_remove(&nodes[i]);
	} else {
		memset(&nodes[i], 0, sizeof nodes[i]);
		nodes[i].start = dice(1000) + 1;
		nodes[i].end = nodes[i].start + 1 + dice(dice(4) ? 20 : 900);
		nodes[i].number = number;
		shunt_mmu_tree_insert(&nodes[i]);
	}
	in[i] = !in[i];
}

static void random_operations(void)
{
	int bad = 0, found = 0;

	for (int k = 1; k < 20000; k++) {
		uintptr_t start = dice(1100), end = start + 1 + dice(50);
		int want;

		change((int)dice(N), (uint64_t)k);
		want = brute(start, end);
		bad += walk(start, end) != want || shunt_mmu_tree_overlaps(start, end) != (want > 0);
		found += want;
	}
	ok(!bad && found > 1000, "20,000 changes: it finds what a list finds (%d wrong, %d found)", bad, found);
}

static atomic_int stop;
static atomic_long reads;

/* The pillars, which nobody removes, are always found, each once. */
static void *reads_on(void *arg)
{
	(void)arg;
	long bad = 0;

	while (!stop) {
		bad += shunt_mmu_tree_next(5000, 5001, 0, 0) != &nodes[0];
		bad += !shunt_mmu_tree_overlaps(5000, 5001);
		bad += walk(5000, 5400) < 4;
		bad += shunt_mmu_tree_overlaps(9000, 9001);
		reads++;
	}
	return (void *)bad;
}

static void read_while_changed(void)
{
	pthread_t t;
	void *bad;
	uint64_t number = 100;

	shunt_mmu_tree_reset();
	memset(in, 0, sizeof in);
	for (int i = 0; i < 4; i++) {
		nodes[i] = (struct shunt_mmu_node){.start = 5000 + (uintptr_t)i * 100,
			.end = 5001 + (uintptr_t)i * 100, .number = (uint64_t)i + 1};
		shunt_mmu_tree_insert(&nodes[i]);
	}
	pthread_create(&t, NULL, reads_on, NULL);
	while (reads < 20000)
		for (int k = 0; k < 100; k++)
			change(4 + (int)dice(N - 4), number++);
	stop = 1;
	pthread_join(t, &bad);
	ok(!bad, "a reader always finds what is always there, and nothing that never is (%ld wrong)",
		(long)bad);
}

int main(void)
{
	random_operations();
	read_while_changed();
	return done();
}
