/* SPDX-License-Identifier: MIT */
/*
 * storm.c [SEED [ROUNDS]] - probes come and go at random instructions of code that
 * threads and signal handlers run meanwhile: what it computes stays right, every
 * handler that runs is of a probe that is registered, and memory does not grow.
 */
#include <shunt/probe.h>
#include <shunt/tasks.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../tap.h"

long work_leaf(long, long);
long work_push(long, long);
long work_mixed(long, long);
extern char work_begin[], work_end[];

#define INPUTS 64
#define THREADS 3
#define PROBES 48
#define ALIVE 0x616c697665ul

static long expected[3][INPUTS];
static long (*const functions[3])(long, long) = {work_leaf, work_push, work_mixed};
static atomic_long wrong, dead, hits, calls, signals;
static atomic_int stop;
static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

struct mine {
	struct shunt_probe p;
	unsigned long alive;
	atomic_long hits;
};

static struct mine pool[PROBES];

static void handler(struct shunt_probe *p, struct shunt_regs *regs)
{
	struct mine *m = (struct mine *)p;

	if (m->alive != ALIVE || regs->rip < (uintptr_t)work_begin || regs->rip > (uintptr_t)work_end)
		atomic_fetch_add(&dead, 1);
	atomic_fetch_add_explicit(&m->hits, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

static void returned(struct shunt_probe *p, struct shunt_regs *regs)
{
	struct mine *m = (struct mine *)p;

	(void)regs;
	if (m->alive != ALIVE)
		atomic_fetch_add(&dead, 1);
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

static void one(unsigned i)
{
	unsigned f = i % 3, k = i / 3 % INPUTS;

	if (functions[f]((long)k * 0x12345, (long)k - 7) != expected[f][k])
		atomic_fetch_add(&wrong, 1);
	atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
}

static void on_signal(int sig)
{
	(void)sig;
	one((unsigned)atomic_fetch_add(&signals, 1));
}

static void *run(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg * 1000;

	while (!stop)
		one(i++);
	return NULL;
}

static long memory_kb(void)
{
	char line[256];
	long kb = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (fgets(line, sizeof line, f))
		sscanf(line, "RssAnon: %ld", &kb);
	fclose(f);
	return kb;
}

static unsigned long tally[8], refused, again;

static void put(struct mine *m)
{
	struct shunt_probe_result res;
	uint64_t r = rnd();
	int err;

	memset(m, 0, sizeof *m);
	m->alive = ALIVE;
	m->p.addr = work_begin + r % (uint64_t)(work_end - work_begin);
	if (r >> 20 & 1)
		m->p.pre = handler;
	if ((r >> 21 & 3) == 0)
		m->p.post = handler;
	if ((r >> 23 & 3) == 0) {
		m->p.ret = returned;
		m->p.addr = (void *)(uintptr_t)functions[r >> 32 & 1];
	}
	if (!m->p.post && !m->p.ret)
		m->p.pre = handler;
	m->p.flags = (r >> 25 & 1 ? SHUNT_PROBE_GENERAL_REGS : 0) |
		     ((r >> 26 & 7) == 0 ? SHUNT_PROBE_BREAKPOINT_ONLY : 0);
	err = shunt_probe_register(&m->p, &res);
	if (err == -EINVAL || err == -ENOTSUP || err == -ENOENT)
		refused++; /* the middle of an instruction, a branch with a post handler .. */
	else if (err == -EAGAIN)
		again++;
	else if (err) {
		printf("# %s: %s\n", strerror(-err), res.reason);
		atomic_fetch_add(&wrong, 1);
	} else
		tally[shunt_probe_form(&m->p)]++;
	if (err)
		m->alive = 0;
}

static void take(struct mine *m)
{
	int r = shunt_probe_unregister(&m->p);

	if (r) {
		printf("# unregister: %s\n", strerror(-r));
		atomic_fetch_add(&wrong, 1);
	}
	memset(m, 0xee, sizeof *m);
	m->alive = 0;
}

static void toggle(struct mine *m)
{
	int r = shunt_probe_disable(&m->p);

	if (!r && (rnd() & 3))
		r = shunt_probe_enable(&m->p);
	if (r && r != -EAGAIN) {
		printf("# toggle: %s\n", strerror(-r));
		atomic_fetch_add(&wrong, 1);
	}
}

static void on_log(enum shunt_log_level level, const char *message)
{
	(void)level;
	diag("%s", message);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	long rounds = argc > 2 ? atol(argv[2]) : 3000, kb = 0;
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	pthread_t thread[THREADS];

	printf("# seed %lu\n", (unsigned long)seed);
	shunt_set_log(on_log, SHUNT_LOG_WARNING);
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_STALL_MS, 3000);
	state = seed * 0x9E3779B97F4A7C15ull | 1;
	for (unsigned i = 0; i < 3 * INPUTS; i++)
		expected[i % 3][i / 3 % INPUTS] = functions[i % 3]((long)(i / 3 % INPUTS) * 0x12345,
			(long)(i / 3 % INPUTS) - 7);
	sigaction(SIGUSR1, &sa, NULL);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, run, (void *)i);
	for (long i = 0; i < rounds; i++) {
		struct mine *m = &pool[rnd() % PROBES];

		if (m->alive != ALIVE)
			put(m);
		else if (rnd() % 4 == 0)
			toggle(m);
		else
			take(m);
		pthread_kill(thread[rnd() % THREADS], SIGUSR1);
		if (i == rounds / 3)
			kb = memory_kb();
	}
	for (size_t i = 0; i < PROBES; i++)
		if (pool[i].alive == ALIVE)
			take(&pool[i]);
	shunt_rcu_tasks_barrier();
	kb = memory_kb() - kb;
	stop = 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	printf("# %ld calls, %ld in signal handlers, %ld hits; %lu jumps, %lu shared, %lu many, "
	       "%lu breakpoints, %lu refused, %lu not now; %ld KiB more\n", calls, signals, hits,
		tally[1], tally[2], tally[3], tally[4], refused, again, kb);
	ok(!wrong, "what the probed code computes stays right");
	ok(!dead, "no handler of a probe that is gone");
	ok(hits > 0 && tally[1] && tally[2] && tally[4], "jumps, shared jumps and breakpoints were there, and hit");
	ok(kb < 4096, "memory does not grow");
	return done();
}
