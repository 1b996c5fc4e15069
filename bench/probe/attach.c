/* SPDX-License-Identifier: MIT */
/*
 * attach.c - probes on 20,000 functions at once, put and taken, alone and while two threads
 * run through them; then on every function of libcrypto. Prints the time of the batch,
 * how the probes are in place, and what one takes of memory: `name value unit`.
 *
 *   bench-probe-attach [runs]
 *
 * The first time is apart: the program's functions are read and decoded then.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/probe.h>
#include <shunt/tasks.h>

#include "object/code.h"
#include "../timing.h"

#define MOST 64

extern long (*const many[])(long);
extern const int n_many;

static atomic_int stop;
static atomic_ulong hits;

__attribute__((target("general-regs-only"))) static void count(struct shunt_probe *p,
	struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

static void *run(void *arg)
{
	volatile long x = (long)arg;

	pin((int)x);
	for (unsigned k = 1; !stop; k++)
		x = many[k * 7919u % (unsigned)n_many](x);
	return NULL;
}

/* KiB: resident, and mapped. */
static void memory(double kb[2])
{
	unsigned long mapped = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%lu %lu", &mapped, &resident) != 2)
		mapped = resident = 0;
	if (f)
		fclose(f);
	kb[0] = 4.0 * (double)resident;
	kb[1] = 4.0 * (double)mapped;
}

struct batch {
	const char *name;
	struct shunt_probe *p;
	struct shunt_probe **list;
	size_t n;
};

static void forms(const struct batch *b)
{
	static const char *const names[] = {"off", "jump", "shared", "many", "breakpoint"};
	size_t n[5] = {0};

	for (size_t i = 0; i < b->n; i++)
		n[shunt_probe_form(&b->p[i])]++;
	for (int k = 0; k < 5; k++)
		if (n[k])
			printf("attach.%s.%s %zu probes\n", b->name, names[k], n[k]);
}

/* Milliseconds, or an end with the reason. */
static double put(struct batch *b)
{
	struct shunt_probe_result res;
	double t = now();

	if (shunt_probe_register_many(b->list, b->n, &res)) {
		printf("# attach.%s: %zu: %s\n", b->name, res.index, res.reason);
		exit(1);
	}
	return (now() - t) / 1e6;
}

static double take(struct batch *b)
{
	double t = now();

	if (shunt_probe_unregister_many(b->list, b->n)) {
		printf("# attach.%s: not taken out\n", b->name);
		exit(1);
	}
	return (now() - t) / 1e6;
}

static void times(struct batch *b, const char *how, int runs)
{
	double on[MOST], off[MOST];

	for (int i = 0; i < runs; i++) {
		shunt_rcu_tasks_barrier(); /* the last one's code is freed on another thread */
		on[i] = put(b);
		off[i] = take(b);
	}
	printf("attach.%s.%s.on %.1f ms\n", b->name, how, median(on, runs));
	printf("attach.%s.%s.off %.1f ms\n", b->name, how, median(off, runs));
	printf("attach.%s.%s.on_per_probe %.2f us\n", b->name, how,
		median(on, runs) * 1e3 / (double)b->n);
}

/* The first time: what is read then, and the memory that it takes. */
static void first(struct batch *b)
{
	double before[2], with[2];

	memory(before);
	printf("attach.%s.probes %zu probes\n", b->name, b->n);
	printf("attach.%s.first %.1f ms\n", b->name, put(b));
	memory(with);
	forms(b);
	printf("attach.%s.resident_per_probe %.0f bytes\n", b->name,
		(with[0] - before[0]) * 1024 / (double)b->n);
	printf("attach.%s.mapped_per_probe %.0f bytes\n", b->name,
		(with[1] - before[1]) * 1024 / (double)b->n);
	take(b);
}

static bool make(struct batch *b, const char *name, size_t n)
{
	*b = (struct batch){.name = name, .n = n};
	b->p = calloc(n, sizeof *b->p);
	b->list = calloc(n, sizeof *b->list);
	for (size_t i = 0; i < n && b->p && b->list; i++) {
		b->p[i] = (struct shunt_probe){.pre = count, .flags = SHUNT_PROBE_GENERAL_REGS};
		b->list[i] = &b->p[i];
	}
	return b->p && b->list;
}

static void generated(int runs)
{
	pthread_t t[2];
	struct batch b;

	if (!make(&b, "20000", (size_t)n_many))
		exit(1);
	for (int i = 0; i < n_many; i++)
		b.p[i].addr = (void *)(uintptr_t)many[i];
	first(&b);
	times(&b, "alone", runs);
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, run, (void *)i);
	put(&b);
	forms(&b);
	while (hits < 1000)
		sched_yield();
	take(&b);
	times(&b, "live", runs);
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* Those that can be probed, found one by one. */
static void library(const char *file, const char *name)
{
	const struct shunt_code_list *list;
	struct shunt_object *obj;
	struct shunt_probe_result res;
	void *lib = dlopen(file, RTLD_NOW);
	struct batch b;
	size_t n = 0;
	double t;

	if (!lib) {
		printf("# attach.%s: not installed\n", name);
		return;
	}
	shunt_objects_refresh();
	obj = shunt_object_of((uintptr_t)dlsym(lib, "OPENSSL_init_crypto"));
	t = now();
	if (!obj || shunt_code_of(obj, &list) || !make(&b, name, list->nfuncs))
		exit(1);
	printf("attach.%s.functions_read %.1f ms\n", name, (now() - t) / 1e6);
	for (uint32_t i = 0; i < list->nfuncs; i++)
		if (!(list->funcs[i].flags & SHUNT_CODE_NO_ENTRY))
			b.p[n++].addr = (void *)list->funcs[i].start;
	b.n = n;
	/* One that is refused goes; the rest is tried again. */
	while (b.n && shunt_probe_register_many(b.list, b.n, &res))
		b.p[res.index].addr = b.p[--b.n].addr;
	if (b.n)
		take(&b);
	printf("attach.%s.refused %zu functions\n", name, n - b.n);
	first(&b);
	times(&b, "alone", 3);
}

int main(int argc, char **argv)
{
	int runs = argc > 1 ? atoi(argv[1]) : 7;

	if (runs < 1 || runs > MOST)
		return 2;
	generated(runs);
	library("libcrypto.so.3", "libcrypto");
	return 0;
}
