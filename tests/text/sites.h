/* SPDX-License-Identifier: MIT */
/* sites.h - the tests' sites, and threads that run through them. */
#ifndef TEST_SITES_H
#define TEST_SITES_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/text.h>

#define SITES 20000
#define SITE_SIZE 63

extern uint8_t test_sites[], test_sites_end[];

static const uint8_t site_nop[5] = {0x0f, 0x1f, 0x44, 0, 0};
static const uint8_t site_jump[5] = {0xe9, 6, 0, 0, 0};

__attribute__((unused)) static uint8_t *site(unsigned i)
{
	return test_sites + (size_t)i * SITE_SIZE;
}

__attribute__((unused)) static int site_call(unsigned i)
{
	return ((int (*)(void))(uintptr_t)site(i))();
}

__attribute__((unused)) static void site_edit(struct shunt_edit *e, unsigned i, bool on)
{
	memset(e, 0, sizeof *e);
	e->addr = site(i);
	e->target = site(i) + 11;
	e->len = 5;
	e->act = SHUNT_TEXT_JUMP;
	memcpy(e->old, on ? site_nop : site_jump, 5);
	memcpy(e->new_, on ? site_jump : site_nop, 5);
}

/* The first n sites, on or off. */
__attribute__((unused)) static int site_toggle_n(unsigned n, bool on,
	const struct shunt_text_options *o, struct shunt_text_result *res)
{
	static struct shunt_edit e[SITES];

	for (unsigned i = 0; i < n; i++)
		site_edit(&e[i], i, on);
	return shunt_text_apply(e, n, o, res);
}

__attribute__((unused)) static int site_toggle(unsigned i, bool on,
	const struct shunt_text_options *o, struct shunt_text_result *res)
{
	struct shunt_edit e;

	site_edit(&e, i, on);
	return shunt_text_apply(&e, 1, o, res);
}

/* Threads that call random sites until told to stop. */
struct runner {
	pthread_t thread;
	unsigned first, n; /* sites to run through */
	bool block_all;
	uint64_t old, new_, bad;
};

static volatile bool runners_stop;

__attribute__((unused)) static void *runner_main(void *arg)
{
	struct runner *r = arg;
	uint32_t x = 12345 + (uint32_t)(uintptr_t)r;

	if (r->block_all) {
		sigset_t all;

		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, NULL);
	}
	while (!runners_stop) {
		x = x * 1103515245u + 12345u;
		switch (site_call(r->first + (x >> 8) % r->n)) {
		case 1:
			r->old++;
			break;
		case 2:
			r->new_++;
			break;
		default:
			r->bad++;
		}
	}
	return NULL;
}

__attribute__((unused)) static void runners_start(struct runner *r, int n, unsigned first,
	unsigned sites, bool block_all)
{
	runners_stop = false;
	for (int i = 0; i < n; i++) {
		r[i] = (struct runner){.first = first, .n = sites, .block_all = block_all};
		if (pthread_create(&r[i].thread, NULL, runner_main, &r[i]))
			abort();
	}
	for (int i = 0; i < n; i++)
		while (!*(volatile uint64_t *)&r[i].old && !*(volatile uint64_t *)&r[i].new_)
			sched_yield();
}

/* Returns how many calls returned what no site ever returns. */
__attribute__((unused)) static uint64_t runners_end(struct runner *r, int n)
{
	uint64_t bad = 0;

	runners_stop = true;
	for (int i = 0; i < n; i++) {
		pthread_join(r[i].thread, NULL);
		bad += r[i].bad;
	}
	return bad;
}

__attribute__((unused)) static unsigned mappings_of_sites(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[4600];
	unsigned n = 0;

	while (f && fgets(line, sizeof line, f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx", &a, &b) == 2 &&
			a < (uintptr_t)test_sites_end && b > (uintptr_t)test_sites)
			n++;
	}
	if (f)
		fclose(f);
	return n;
}

#endif
