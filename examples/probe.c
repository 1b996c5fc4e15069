/* SPDX-License-Identifier: MIT */
/*
 * probe.c - what a program asks malloc() for, and how often qsort() is called and returns, though
 * neither was compiled for being watched: probes in libc, put in while two threads run, and
 * taken out again.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <shunt/probe.h>

static atomic_long calls, bytes, sorts, returns;
static atomic_bool stop;

/* No printf() here, and no lock: who calls malloc() may hold any. */
static void on_malloc(struct shunt_probe *p, struct shunt_regs *regs)
{
	atomic_fetch_add((atomic_long *)p->data, 1);
	atomic_fetch_add(&bytes, (long)regs->rdi);
}

static void on_sort(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)regs;
	atomic_fetch_add((atomic_long *)p->data, 1);
}

static void on_sorted(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	atomic_fetch_add(&returns, 1);
}

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void *work(void *arg)
{
	while (!stop) {
		int *v = malloc(100 * sizeof *v);

		for (int i = 0; v && i < 100; i++)
			v[i] = i * 7919 % 100;
		if (v)
			qsort(v, 100, sizeof *v, by_value);
		for (int i = 0; v && i < 100; i++)
			if (v[i] != i)
				abort();
		free(v);
	}
	return arg;
}

static const char *form_of(const struct shunt_probe *p)
{
	static const char *const name[] = {"off", "a jump", "a jump that shares bytes",
		"a jump over several instructions", "a breakpoint"};

	return name[shunt_probe_form(p)];
}

int main(void)
{
	struct shunt_probe allocates = {.symbol = "libc.so.6:malloc", .pre = on_malloc, .data = &calls};
	struct shunt_probe sorting = {.symbol = "libc.so.6:qsort", .pre = on_sort, .ret = on_sorted,
		.data = &sorts};
	struct shunt_probe *all[] = {&allocates, &sorting};
	struct shunt_probe_result res;
	pthread_t t[2];
	long last;

	for (int i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, work, NULL))
			return 1;
	if (shunt_probe_register_many(all, 2, &res)) {
		fprintf(stderr, "%s: %s\n", all[res.index]->symbol, res.reason);
		return 1;
	}
	printf("malloc by %s, qsort by %s\n", form_of(&allocates), form_of(&sorting));
	while (calls < 1000 || returns < 1000)
		sched_yield();
	if (shunt_probe_unregister_many(all, 2))
		return 1;
	last = calls; /* nobody counts any more */
	printf("%ld calls of malloc for %ld bytes, %ld of qsort, %ld returned\n", last, bytes + 0,
		sorts + 0, returns + 0);
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	return calls != last || bytes < 400 * 1000;
}
