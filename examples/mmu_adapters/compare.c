/* SPDX-License-Identifier: MIT */
/*
 * compare.c - a registration cache is checked with its library's own means, and with an adapter.
 *
 * A page is registered and sent; it becomes another page at the same address, and is written to; then the cache
 * is asked for that address again, and what a card would send is compared with what was written. If it is
 * not that, the registration was stale.
 */
#include "compare.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "change.h"

#define ROUNDS	      20
#define THREADS	      4
#define THREAD_ROUNDS 500

static const struct subject *subject;

/* ---- One change at a time. ---- */

/* What is registered between the adapter's start and the change, as another thread might. */
static _Thread_local char *registers;

static void in_between(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (registers && e->start <= (uintptr_t)registers && (uintptr_t)registers < e->end)
		subject->send(registers);
}

static const struct shunt_mmu_notifier_ops between_ops = {.invalidate_range_start = in_between};

static bool stale(const struct way *w, uint32_t value, bool between)
{
	char *p = change_page(w);
	bool r;

	*(volatile uint32_t *)p = value;
	check(subject->send(p) == value, "a new page");
	registers = between ? p : NULL;
	w->make(p);
	registers = NULL;
	*(volatile uint32_t *)p = ~value;
	r = subject->send(p) != ~value;
	change_done(p);
	return r;
}

static unsigned count(const struct way *w, bool between)
{
	unsigned n = 0;

	for (uint32_t i = 1; i <= ROUNDS; i++)
		n += stale(w, i, between);
	return n;
}

/*
 * free() unmaps, while somebody has the cache's lock for so long that it cannot be told before. That must not
 * be for ever, and the answer that comes next must be right nevertheless.
 */
static bool stale_late(uint32_t value)
{
	char *block = malloc(1 << 20), *p = (char *)(((uintptr_t)block + (1 << 19)) & -PAGE);
	bool r;

	check(block != NULL, "malloc");
	*(volatile uint32_t *)p = value;
	check(subject->send(p) == value, "a block");
	subject->lock();
	free(block);
	check(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p,
		"what free() gave back");
	*(volatile uint32_t *)p = ~value;
	subject->unlock();
	r = subject->send(p) != ~value;
	check(!munmap(p, PAGE), "munmap");
	return r;
}

static unsigned count_late(void)
{
	unsigned n = 0;

	mallopt(M_MMAP_THRESHOLD, 65536);
	for (uint32_t i = 1; i <= ROUNDS; i++)
		n += stale_late(i);
	return n;
}

/* ---- Many at a time. ---- */

/*
 * With memory that libc gives back with its locks held, while other threads have the cache's and
 * allocate: who waits for each other here hangs.
 */
static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg, *wrong = calloc(1, sizeof *wrong);
	void *blocks[16] = {0};

	for (uint32_t i = 1; i <= THREAD_ROUNDS; i++) {
		void **b = &blocks[rand_r(&seed) % 16];
		unsigned w;

		free(*b);
		*b = malloc(1u << (8 + rand_r(&seed) % 11));
		/* A fork empties the cache, which would hide what else is wrong. */
		w = rand_r(&seed) % 64 ? rand_r(&seed) % (WAYS - 1) : WAYS - 1;
		*wrong += stale(&ways[w], i, false);
	}
	for (int i = 0; i < 16; i++)
		free(blocks[i]);
	return wrong;
}

static unsigned count_threads(void)
{
	pthread_t t[THREADS];
	unsigned n = 0;
	void *wrong;

	mallopt(M_TRIM_THRESHOLD, 4096);
	mallopt(M_TOP_PAD, 0);
	mallopt(M_MMAP_THRESHOLD, 65536);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)), "pthread_create");
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], &wrong);
		n += *(unsigned *)wrong;
		free(wrong);
	}
	return n;
}

/* ---- A mode. ---- */

static unsigned say(const struct mode *m, const char *name, unsigned n, unsigned of)
{
	printf("%-11s %-22s %2u of %u stale\n", m->name, name, n, of);
	return n;
}

/* What is wrong in other ways than by single changes. */
static unsigned more(const struct mode *m)
{
	struct shunt_mmu_notifier between = {.ops = &between_ops, .flags = SHUNT_MMU_PARTIAL};
	unsigned n;

	check(!shunt_mmu_notifier_register(&between), "register");
	n = say(m, "registered in between", count(&ways[0], true), ROUNDS);
	shunt_mmu_notifier_unregister(&between);
	if (subject->lock)
		n += say(m, "free, told late", count_late(), ROUNDS);
	return n + say(m, "on threads", count_threads(), THREADS * THREAD_ROUNDS);
}

static int run(const struct mode *m)
{
	unsigned n = 0, left;

	subject->open(m);
	for (const struct way *w = ways; w->name; w++)
		if (w->file && m->files)
			printf("%-11s %-22s left out: %s\n", m->name, w->name, m->files);
		else
			n += say(m, w->name, count(w, false), ROUNDS);
	if (m->adapter)
		n += more(m);
	left = subject->close(m);
	if (left)
		printf("%-11s %u registrations are left\n", m->name, left);
	return left || !n != m->adapter;
}

/* ---- Each in a process of its own. ---- */

static int start(const struct mode *m)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	check(child >= 0, "fork");
	if (!child) {
		setenv(m->variable, m->value, 1);
		execl("/proc/self/exe", subject->program, m->name, "again", NULL);
		_exit(2);
	}
	check(waitpid(child, &status, 0) == child, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

int compare(const struct subject *s, int argc, char **argv)
{
	int r, worst = 0;

	subject = s;
	for (const struct mode *m = s->modes; m->name; m++) {
		if (argc > 1 && strcmp(argv[1], m->name))
			continue;
		r = argc > 2 ? run(m) : start(m);
		worst = r > worst ? r : worst;
		if (r == 77)
			break;
	}
	if (argc == 1 && worst != 77)
		printf("%s: %s\n", s->program, worst ? "wrong" : "stale without the adapter, never with it");
	return worst;
}
