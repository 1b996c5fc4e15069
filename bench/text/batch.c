/* SPDX-License-Identifier: MIT */
/*
 * batch.c - how long a batch takes, per strategy and size, alone and beside two
 * running threads, one on each of the first two processors, and for how long it
 * held a running thread up: the longest time between two looks of a thread at the
 * clock during a batch, the batches' median. The writer needs a processor, too.
 *
 *   bench-text [max-sites]       prints "name value unit", times are medians
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shunt/text.h>

#define SITES 45000
#define SITE_SIZE 64
#define ROUNDS 60

__asm__(".section .text.bench,\"ax\"\n.balign 4096\n.globl bench_sites\n.hidden bench_sites\n"
	"bench_sites:\n.rept 45000\n.byte 0x0f,0x1f,0x44,0,0\n mov $1,%eax\n ret\n mov $2,%eax\n ret\n"
	".balign 64\n.endr\n.balign 4096\n.text\n");
extern uint8_t bench_sites[];

static volatile bool stop;
static volatile unsigned sites_now;
static uint64_t gap_max[2];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Calls sites, and keeps the longest time between two looks at the clock. */
static void *run(void *arg)
{
	long id = (long)arg;
	uint32_t x = (uint32_t)id * 77 + 1;
	uint64_t last = now_ns(), t;
	sigset_t all;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(id, &cpu);
	pthread_setaffinity_np(pthread_self(), sizeof cpu, &cpu);
	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	while (!stop) {
		for (int i = 0; i < 20; i++) {
			x = x * 1103515245u + 12345u;
			((int (*)(void))(uintptr_t)(bench_sites + (x >> 8) % sites_now * SITE_SIZE))();
		}
		t = now_ns();
		if (t - last > gap_max[id])
			gap_max[id] = t - last;
		last = t;
	}
	return NULL;
}

static void pause_us(long us)
{
	struct timespec t = {0, us * 1000};

	nanosleep(&t, NULL);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void edits(struct shunt_edit *e, unsigned n, bool on)
{
	static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0, 0}, jump[5] = {0xe9, 6, 0, 0, 0};

	for (unsigned i = 0; i < n; i++) {
		e[i] = (struct shunt_edit){.addr = bench_sites + (size_t)i * SITE_SIZE,
			.target = bench_sites + (size_t)i * SITE_SIZE + 11,
			.len = 5, .act = SHUNT_TEXT_JUMP};
		memcpy(e[i].old, on ? nop : jump, 5);
		memcpy(e[i].new_, on ? jump : nop, 5);
	}
}

static void measure(enum shunt_text_strategy s, enum shunt_text_write w, unsigned n, bool live)
{
	static struct shunt_edit on[SITES], off[SITES];
	static const char *const ways[] = {"", "-mem", "-mprotect", "-alias"};
	struct shunt_text_options o = {.strategy = s, .write = w};
	struct shunt_text_result res;
	uint64_t t[ROUNDS], held[ROUNDS];
	char name[96];

	snprintf(name, sizeof name, "text.%s%s.%s.%u", shunt_text_strategy_name(s), ways[w],
		live ? "live" : "alone", n);
	edits(on, n, true);
	edits(off, n, false);
	sites_now = n;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t from = now_ns();

		gap_max[0] = gap_max[1] = 0;

		if (shunt_text_apply(i & 1 ? off : on, n, &o, &res)) {
			printf("# %s: %s\n", name, res.reason);
			return;
		}
		t[i] = now_ns() - from;
		held[i] = gap_max[0] > gap_max[1] ? gap_max[0] : gap_max[1];
		/* A running thread looks at the clock once a microsecond. */
		if (live)
			pause_us(100);
	}
	printf("%s.first %.1f us\n", name, (double)t[0] / 1e3);
	qsort(t, ROUNDS, sizeof *t, compare);
	qsort(held, ROUNDS, sizeof *held, compare);
	printf("%s %.1f us\n", name, (double)t[ROUNDS / 2] / 1e3);
	printf("%s.per_site %.1f ns\n", name, (double)t[ROUNDS / 2] / n);
	if (live)
		printf("%s.held_up %.1f us\n", name, (double)held[ROUNDS / 2] / 1e3);
	fflush(stdout);
}

static const unsigned sizes[] = {1, 100, 1000, 20000, 45000};

static void all(bool live, unsigned max)
{
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= max; i++) {
		measure(SHUNT_TEXT_FLIP, SHUNT_TEXT_WRITE_AUTO, sizes[i], live);
		measure(SHUNT_TEXT_TRAP, SHUNT_TEXT_WRITE_MEM, sizes[i], live);
		measure(SHUNT_TEXT_TRAP, SHUNT_TEXT_WRITE_MPROTECT, sizes[i], live);
		measure(SHUNT_TEXT_STOP, SHUNT_TEXT_WRITE_MEM, sizes[i], live);
		if (!live)
			measure(SHUNT_TEXT_PLAIN, SHUNT_TEXT_WRITE_MEM, sizes[i], live);
		measure(SHUNT_TEXT_AUTO, SHUNT_TEXT_WRITE_AUTO, sizes[i], live);
	}
}

int main(int argc, char **argv)
{
	unsigned max = argc > 1 ? (unsigned)atoi(argv[1]) : SITES;
	struct timespec pause = {0, 200000000};
	pthread_t th[2];

	all(false, max);
	sites_now = 1;
	for (long i = 0; i < 2; i++)
		pthread_create(&th[i], NULL, run, (void *)i);
	nanosleep(&pause, NULL);
	gap_max[0] = gap_max[1] = 0;
	nanosleep(&pause, NULL);
	printf("text.no_patching.held_up %.1f us\n",
		(double)(gap_max[0] > gap_max[1] ? gap_max[0] : gap_max[1]) / 1e3);
	all(true, max);
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(th[i], NULL);
	return 0;
}
