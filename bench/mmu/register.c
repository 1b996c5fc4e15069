/* SPDX-License-Identifier: MIT */
/*
 * register.c - what registering takes, and unregistering: the first one of all arms and the last one disarms; and
 * another one while there is one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/mmu.h>

#include "../timing.h"
#include "mmu.h"

#define TURNS 50
static atomic_bool load_ends;

static void *load(void *arg)
{
	while (!load_ends)
		map_and_unmap();
	return arg;
}

static void ignore(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
}

static const struct shunt_mmu_notifier_ops ignores = { .invalidate_range_start = ignore };

static int print_register(const char *name, const char *when)
{
	double in[TURNS], out[TURNS];

	for (int i = 0; i < TURNS; i++) {
		struct shunt_mmu_notifier n = { .ops = &ignores };
		double t = now();
		int r = shunt_mmu_notifier_register(&n);

		if (r) {
			printf("# mmu.%s: %s\n", name, strerror(-r));
			return r;
		}
		in[i] = now() - t;
		t = now();
		shunt_mmu_notifier_unregister(&n);
		out[i] = now() - t;
	}
	printf("mmu.%s.register.%s %.4g us\n", name, when, median(in, TURNS) / 1e3);
	printf("mmu.%s.unregister.%s %.4g us\n", name, when, median(out, TURNS) / 1e3);
	fflush(stdout);
	return 0;
}

static void registering(const char *when)
{
	struct shunt_mmu_notifier other = { .ops = &ignores };

	if (print_register("first", when) || shunt_mmu_notifier_register(&other))
		return;
	print_register("another", when);
	shunt_mmu_notifier_unregister(&other);
}

void measure_registering(void)
{
	pthread_t t[2];

	registering("idle");
	for (int i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, load, NULL))
			abort();
	registering("loaded");
	load_ends = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}
