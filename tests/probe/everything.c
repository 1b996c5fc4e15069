/* SPDX-License-Identifier: MIT */
/*
 * everything.c - preloaded into a program that nobody compiled for it: probes all
 * functions of it (or of the objects in PROBE_OBJECTS, a colon between them), all
 * in one batch, and says what became of it on the descriptor in PROBE_FD when the
 * program ends.
 */
#include <shunt/probe.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "object/code.h"

static struct shunt_probe *probes;
static struct shunt_probe **list;
static size_t n, refused, forms[5];
static atomic_ulong hits, returns;
static double ms;

static void pre(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

static void ret(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	atomic_fetch_add_explicit(&returns, 1, memory_order_relaxed);
}

static int wanted(const struct shunt_object *o, const char *names)
{
	const char *base = strrchr(o->path, '/');
	size_t len;

	if (!names)
		return !o->id;
	base = base ? base + 1 : o->path;
	len = strlen(base);
	for (const char *p = names; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL)
		if (!strncmp(p, base, len) && (!p[len] || p[len] == ':'))
			return 1;
	return 0;
}

static void collect(struct shunt_object *o)
{
	const struct shunt_code_list *code;
	const char *noret = getenv("PROBE_NO_RETURNS");

	if (shunt_code_of(o, &code))
		return;
	probes = realloc(probes, (n + code->nfuncs) * sizeof *probes);
	for (size_t i = 0; i < code->nfuncs; i++) {
		const struct shunt_code_func *f = &code->funcs[i];

		if (f->flags & (SHUNT_CODE_NO_ENTRY | SHUNT_CODE_IFUNC))
			continue;
		probes[n++] = (struct shunt_probe){.addr = (void *)f->start, .pre = pre,
			.ret = noret ? NULL : ret, .flags = SHUNT_PROBE_GENERAL_REGS};
	}
}

static void report(void)
{
	char line[256];
	const char *fd = getenv("PROBE_FD");

	snprintf(line, sizeof line,
		"%zu probes in %.1f ms: %zu jump, %zu shared, %zu many, %zu breakpoint; %zu refused; "
		"%lu hits, %lu returns\n", n, ms, forms[1], forms[2], forms[3], forms[4], refused,
		(unsigned long)hits, (unsigned long)returns);
	if (write(fd ? atoi(fd) : 2, line, strlen(line)) < 0)
		_exit(99);
}

__attribute__((constructor)) static void start(void)
{
	const char *names = getenv("PROBE_OBJECTS");
	struct shunt_probe_result res;
	struct timespec a, b;
	int r = -1;

	shunt_objects_refresh();
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		if (wanted(o, names))
			collect(o);
	list = malloc(n * sizeof *list);
	for (size_t i = 0; i < n; i++)
		list[i] = &probes[i];
	clock_gettime(CLOCK_MONOTONIC, &a);
	/* One that is refused is left out, and the rest tried again. */
	while (n && (r = shunt_probe_register_many(list, n, &res))) {
		if (getenv("PROBE_WHY"))
			fprintf(stderr, "refused: %s\n", res.reason);
		refused++;
		list[res.index] = list[--n];
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
	for (size_t i = 0; i < n; i++)
		forms[shunt_probe_form(list[i])]++;
	atexit(report);
}
