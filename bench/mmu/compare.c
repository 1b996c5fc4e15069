/* SPDX-License-Identifier: MIT */
/*
 * compare.c - what it costs to map and unmap while somebody listens.
 *
 * mmu.NAME.pair	mmap() and munmap() of 4 KiB, that nobody is interested in but who listens to everything
 *	.pair_added	that, less the same before it was armed: processes differ by more than listeners
 *			do, so both are of one process; and each of the 7 runs is a process
 *	.kept_pair	the range is made known to the listener in between, and forgotten after it
 *	.unmap_nothing	munmap() where nothing is mapped
 *	.malloc		malloc() and free() of 1 MiB;	.thread	pthread_create() and _join()
 *			(an allocator of its own comes with ucm_reloc)
 *	.threads_2, _8	pairs a second, of all threads;	_kept	how many of those before it was armed
 *	.after.*	the same when it is disarmed
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../timing.h"
#include "mmu.h"

#define RUNS  7
#define PAIRS 4000

#define BATCHES 9

/* The median of some batches: others run, too. */
static double each(void (*fn)(void), int n)
{
	double v[BATCHES];

	for (int b = 0; b < BATCHES; b++) {
		double t = now();

		for (int i = 0; i < n; i++)
			fn();
		v[b] = (now() - t) / n;
	}
	return median(v, BATCHES);
}

static void unpin(void)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof all);
	sched_setaffinity(0, sizeof all, &all);
}

static void *pairs(void *arg)
{
	for (int i = 0; i < PAIRS; i++)
		map_and_unmap();
	return arg;
}

/* A second, of n threads. */
static double rate(int n)
{
	pthread_t t[8];
	double from = now();

	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, pairs, NULL))
			abort();
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	return n * (double)PAIRS / (now() - from) * 1e9;
}

static double kept_pair(const struct listener *l, int n)
{
	double t = now();

	for (int i = 0; i < n; i++) {
		void *p = map_page();

		if (l->keep(p, PAGE))
			abort();
		munmap(p, PAGE);
		if (l->forget)
			l->forget(p, PAGE);
	}
	return (now() - t) / n;
}

enum { PAIR, NOTHING, MALLOC, THREAD, THREADS_2, THREADS_8, COMMON };
enum { BEFORE, ARMED = COMMON, AFTER = 2 * COMMON, KEPT = 3 * COMMON, ARM, DISARM, VALUES };

static void measure(double v[COMMON])
{
	pin(0);
	v[PAIR] = each(map_and_unmap, 500);
	v[NOTHING] = each(unmap_nothing, 3000);
	v[MALLOC] = each(allocate_and_free, 200);
	v[THREAD] = each(create_and_join, 50);
	unpin();
	v[THREADS_2] = rate(2);
	v[THREADS_8] = rate(8);
}

/* That it is told of what it wants to be told of; else there would be nothing to measure. */
static bool hears(const struct listener *l, double *kept)
{
	unsigned long before = l->heard ? l->heard() : 0;

	if (l->keep)
		*kept = kept_pair(l, 500);
	else if (l->hears_all)
		each(map_and_unmap, 500); /* and more */
	else
		return true;
	return !l->heard || l->heard() >= before + 499; /* a thread may be about to read the last */
}

/* One process. 0; 1: not installed; or an errno. */
static int run_once(const struct listener *l, double v[VALUES])
{
	double t;
	int r;

	for (int i = 0; i < VALUES; i++)
		v[i] = -1;
	if (l->load)
		l->load();
	rate(8); /* stacks, arenas: what the first time costs */
	measure(v + BEFORE);
	t = now();
	r = l->arm();
	v[ARM] = now() - t;
	if (r)
		return r < 0 ? -r : 1;
	measure(v + ARMED);
	if (!hears(l, &v[KEPT]))
		return EPROTO;
	if (!l->disarm)
		return 0;
	t = now();
	l->disarm();
	v[DISARM] = now() - t;
	measure(v + AFTER);
	return 0;
}

/* In a child, since not everybody can be disarmed. */
static int run(const struct listener *l, double v[VALUES])
{
	int fd[2], r = EPIPE;
	pid_t pid;

	if (pipe(fd) || (pid = fork()) < 0)
		abort();
	if (!pid) {
		alarm(60);
		r = run_once(l, v);
		_exit(write(fd[1], &r, sizeof r) != sizeof r || write(fd[1], v, VALUES * sizeof *v) < 0);
	}
	close(fd[1]);
	if (read(fd[0], &r, sizeof r) == sizeof r && !r && read(fd[0], v, VALUES * sizeof *v) < 0)
		r = EPIPE;
	close(fd[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return r;
}

static void print(const struct listener *l, const char *what, const char *unit, double scale, int i, double all[][VALUES])
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++)
		v[r] = all[r][i];
	if (v[0] >= 0)
		printf("mmu.%s.%s %.4g %s\n", l->name, what, median(v, RUNS) / scale, unit);
}

static void print_against(const struct listener *l, const char *what, int i, int from, bool ratio, double all[][VALUES])
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++)
		v[r] = ratio ? all[r][i] / all[r][from] : all[r][i] - all[r][from];
	if (all[0][i] >= 0)
		printf("mmu.%s.%s %.4g %s\n", l->name, what, median(v, RUNS), ratio ? "ratio" : "ns");
}

static void print_common(const struct listener *l, const char *when, int from, double all[][VALUES])
{
	static const char *const name[COMMON] = { "pair", "unmap_nothing", "malloc", "thread", "threads_2", "threads_8" };

	for (int i = 0; i < COMMON; i++) {
		char what[64];

		snprintf(what, sizeof what, "%s%s", when, name[i]);
		print(l, what, i < THREADS_2 ? "ns" : "1/s", 1, from + i, all);
		snprintf(what, sizeof what, "%s%s_%s", when, name[i], i < THREADS_2 ? "added" : "kept");
		print_against(l, what, from + i, BEFORE + i, i >= THREADS_2, all);
	}
}

static void print_all(const struct listener *l, int r, double all[][VALUES])
{
	if (r) {
		printf("# mmu.%s: %s\n", l->name, r == 1 ? "not installed" : strerror(r));
		return;
	}
	print_common(l, "", ARMED, all);
	print_common(l, "after.", AFTER, all);
	print(l, "kept_pair", "ns", 1, KEPT, all);
	print_against(l, "kept_pair_added", KEPT, BEFORE + PAIR, false, all);
	print(l, "arm", "us", 1e3, ARM, all);
	print(l, "disarm", "us", 1e3, DISARM, all);
	fflush(stdout);
}

bool wanted(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc < 2;
}

#define LISTENERS 16

void compare(const struct listener *const *l, int argc, char **argv)
{
	static double all[LISTENERS][RUNS][VALUES];
	int failed[LISTENERS] = {0};

	prepare_work();
	for (int r = 0; r < RUNS; r++)
		for (size_t i = 0; l[i]; i++)
			if (wanted(argc, argv, l[i]->name) && !failed[i])
				failed[i] = run(l[i], all[i][r]);
	for (size_t i = 0; l[i]; i++)
		if (wanted(argc, argv, l[i]->name))
			print_all(l[i], failed[i], all[i]);
}
