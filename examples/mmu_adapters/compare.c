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

static bool stale(const struct way *w, uint32_t value)
{
	char *p = change_page(w);
	bool r;

	*(volatile uint32_t *)p = value;
	check(subject->send(p) == value, "a new page");
	w->make(p);
	*(volatile uint32_t *)p = ~value;
	r = subject->send(p) != ~value;
	change_done(p);
	return r;
}

static unsigned count(const struct way *w)
{
	unsigned n = 0;

	for (uint32_t i = 1; i <= ROUNDS; i++)
		n += stale(w, i);
	return n;
}

/* Of how many pages a registration made after a change is kept: a cache that keeps none is never stale. */
static unsigned count_kept(void)
{
	unsigned n = 0, made;

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		char *p = change_page(&ways[0]);

		*p = 1;
		subject->send(p);
		ways[0].make(p);
		*p = 1;
		subject->send(p);
		made = subject->made();
		subject->send(p);
		n += subject->made() == made;
		change_done(p);
	}
	return n;
}

/* Another process: it cuts off the file when it may. */
static pid_t start_cutter(int *may)
{
	int fd[2];
	pid_t child;
	char c;

	check(!pipe(fd), "pipe");
	child = fork();
	check(child >= 0, "fork");
	if (!child)
		_exit(read(fd[0], &c, 1) != 1 || ftruncate(change_fd, 0) || ftruncate(change_fd, PAGE));
	close(fd[0]);
	*may = fd[1];
	return child;
}

/*
 * The page is registered once more between the start and the change, as another thread might do. That there is
 * something in between at all, the change is one that is not seen, and told by hand.
 */
static bool stale_between(uint32_t value)
{
	static const struct way file = {.file = true};
	char *p = change_page(&file);
	struct shunt_mmu_change c;
	int may, status;
	pid_t child = start_cutter(&may);
	bool r;

	*(volatile uint32_t *)p = value;
	check(subject->send(p) == value, "a new page");
	check(!shunt_mmu_change_begin(&c, SHUNT_MMU_DISCARD, (uintptr_t)p, (uintptr_t)p + PAGE, 0), "begin");
	check(subject->send(p) == value, "a page that is about to change");
	check(write(may, "", 1) == 1 && waitpid(child, &status, 0) == child && !status, "another process");
	shunt_mmu_change_end(&c, false, 0);
	close(may);
	*(volatile uint32_t *)p = ~value;
	r = subject->send(p) != ~value;
	change_done(p);
	return r;
}

static unsigned count_between(void)
{
	unsigned n = 0;

	for (uint32_t i = 1; i <= ROUNDS; i++)
		n += stale_between(i);
	return n;
}

/*
 * free() unmaps, while somebody has a lock of the cache's for so long that it cannot be told before. That
 * must not be for ever, and the answer that is given meanwhile must be right nevertheless.
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
	r = subject->send(p) != ~value;
	subject->unlock();
	check(!munmap(p, PAGE), "munmap");
	return r;
}

static unsigned count_late(void)
{
	unsigned n = 0;

#ifdef SANITIZED
	return 0; /* its free() keeps what it gets */
#endif
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
		*wrong += stale(&ways[w], i);
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
	unsigned n = say(m, "registered in between", count_between(), ROUNDS), kept = count_kept();

	printf("%-11s %-22s %2u of %u kept\n", m->name, "after a change", kept, ROUNDS);
	n += ROUNDS - kept;
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
			n += say(m, w->name, count(w), ROUNDS);
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
