/* SPDX-License-Identifier: MIT */
/*
 * srcu.c - what a read-side section costs, how long grace periods take, and what 1,000 domains
 * weigh. Beside SRCU: liburcu's flavours memb, bp and qsbr with their readers inlined,
 * Concurrency Kit's epochs and a pthread rwlock, as far as they were there at build time.
 *
 *   bench-srcu [graces]	prints "name value unit". Pairs are medians of 15 runs, the kinds in turn,
 *			without the loop's own time; latencies are of so many grace periods (300),
 *			or of those of five seconds
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef WITH_URCU
#define _LGPL_SOURCE
#define URCU_INLINE_SMALL_FUNCTIONS
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wundef"
#include <urcu/urcu-bp.h>
#include <urcu/urcu-memb.h>
#include <urcu/urcu-qsbr.h>
#pragma GCC diagnostic pop
#endif
#ifdef WITH_CK
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <ck_epoch.h>
#pragma GCC diagnostic pop
#endif

#include <shunt/srcu.h>

#include "../timing.h"

#define PAIRS 2000000
#define RUNS  15

static SHUNT_SRCU_DEFINE(domain);
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

#define NOTHING	      __asm__ volatile("" : : : "memory")
#define BENCH(name, ...) \
	static __attribute__((noinline)) void name(void) \
	{ \
		for (int i = 0; i < PAIRS; i++) { \
			__VA_ARGS__; \
		} \
	}

/* --- pairs ------------------------------------------------------------------------- */

BENCH(loop, NOTHING)
BENCH(shunt, int idx = shunt_srcu_read_lock(&domain); NOTHING; shunt_srcu_read_unlock(&domain, idx))
BENCH(shunt_called, int idx = shunt_srcu_lock_slow(&domain); NOTHING;
	shunt_srcu_unlock_slow(&domain, idx))
BENCH(rw, pthread_rwlock_rdlock(&rwlock); NOTHING; pthread_rwlock_unlock(&rwlock))
#ifdef WITH_URCU
BENCH(memb, urcu_memb_read_lock(); NOTHING; urcu_memb_read_unlock())
BENCH(bp, urcu_bp_read_lock(); NOTHING; urcu_bp_read_unlock())
BENCH(qsbr, urcu_qsbr_read_lock(); NOTHING; urcu_qsbr_read_unlock())
#endif
#ifdef WITH_CK
static ck_epoch_t epoch;
static ck_epoch_record_t record;
BENCH(ck, ck_epoch_begin(&record, NULL); NOTHING; ck_epoch_end(&record, NULL))
#endif

static const struct kind {
	const char *name;
	void (*run)(void);
} kinds[] = {
	{"loop", loop},
	{"shunt", shunt},
	{"shunt_no_membarrier", shunt_called},
	{"pthread_rwlock", rw},
#ifdef WITH_URCU
	{"urcu_memb", memb},
	{"urcu_bp", bp},
	{"urcu_qsbr", qsbr},
#endif
#ifdef WITH_CK
	{"ck_epoch", ck},
#endif
};
#define KINDS (sizeof kinds / sizeof *kinds)

static void *rests(void *arg)
{
	atomic_bool *stop = arg;

	while (!*stop)
		usleep(100000);
	return NULL;
}

static void pairs(void)
{
	double t[KINDS][RUNS], net;
	atomic_bool stop = false;
	pthread_t other;

	/* Locks of a process of one thread are not locks. */
	pthread_create(&other, NULL, rests, &stop);
	for (int r = 0; r < RUNS; r++)
		for (size_t k = 0; k < KINDS; k++) {
			double before = now();

			kinds[k].run();
			t[k][r] = (now() - before) / PAIRS;
		}
	stop = true;
	pthread_join(other, NULL);
	for (size_t k = 0; k < KINDS; k++) {
		net = median(t[k], RUNS) - (k ? t[0][RUNS / 2] : 0);
		printf("srcu.pair.%s %.2f ns\n", kinds[k].name, net);
	}
}

/* --- grace periods --------------------------------------------------------------------- */

struct flavour {
	const char *name;
	void (*thread)(bool begin);
	void (*section)(void);
	void (*wait)(void);
};

static void busy(void)
{
	for (int i = 0; i < 50; i++)
		NOTHING;
}

static void no_thread(bool begin)
{
	(void)begin;
}

static void shunt_section(void)
{
	int idx = shunt_srcu_read_lock(&domain);

	busy();
	shunt_srcu_read_unlock(&domain, idx);
}

static void shunt_wait(void)
{
	shunt_srcu_synchronize(&domain);
}

static void shunt_hurry(void)
{
	shunt_srcu_synchronize_expedited(&domain);
}

#ifdef WITH_URCU
static void memb_thread(bool begin)
{
	if (begin)
		urcu_memb_register_thread();
	else
		urcu_memb_unregister_thread();
}

static void memb_section(void)
{
	urcu_memb_read_lock();
	busy();
	urcu_memb_read_unlock();
}

static void bp_section(void)
{
	urcu_bp_read_lock();
	busy();
	urcu_bp_read_unlock();
}
#endif

static const struct flavour flavours[] = {
	{"shunt", no_thread, shunt_section, shunt_wait},
	{"shunt_expedited", no_thread, shunt_section, shunt_hurry},
#ifdef WITH_URCU
	{"urcu_memb", memb_thread, memb_section, urcu_memb_synchronize_rcu},
	{"urcu_bp", no_thread, bp_section, urcu_bp_synchronize_rcu},
#endif
};

static atomic_bool stop_reading;
static atomic_int running;

static void *reads(void *arg)
{
	const struct flavour *f = arg;

	f->thread(true);
	f->section();
	running++;
	while (!stop_reading)
		f->section();
	f->thread(false);
	return NULL;
}

static void latency(const struct flavour *f, int threads, int graces)
{
	double *t = calloc((size_t)graces, sizeof *t);
	double end = now() + 5e9;
	pthread_t th[64];
	int n = 0;

	stop_reading = false;
	running = 0;
	for (int i = 0; i < threads; i++)
		pthread_create(&th[i], NULL, reads, (void *)(uintptr_t)f);
	while (running < threads)
		usleep(1000);
	do {
		double before = now();

		f->wait();
		t[n++] = (now() - before) / 1000;
	} while (n < graces && now() < end);
	stop_reading = true;
	for (int i = 0; i < threads; i++)
		pthread_join(th[i], NULL);
	qsort(t, (size_t)n, sizeof *t, by_value);
	printf("srcu.grace.%s.%d_readers.p50 %.1f us\n", f->name, threads, t[n / 2]);
	printf("srcu.grace.%s.%d_readers.p99 %.1f us\n", f->name, threads, t[n * 99 / 100]);
	printf("srcu.grace.%s.%d_readers.max %.1f us\n", f->name, threads, t[n - 1]);
	fflush(stdout);
	free(t);
}

/* --- memory ---------------------------------------------------------------------------------- */

static long resident(void)
{
	long size = 0, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

static void thousand(void)
{
	long before = resident(), made, read;
	struct shunt_srcu *d = calloc(1000, sizeof *d);

	for (int i = 0; i < 1000; i++)
		shunt_srcu_init(&d[i]);
	made = resident() - before;
	for (int i = 0; i < 1000; i++)
		shunt_srcu_read_unlock(&d[i], shunt_srcu_read_lock(&d[i]));
	read = resident() - before - made;
	printf("srcu.memory.1000_domains %ld bytes\n", (long)(1000 * sizeof *d));
	printf("srcu.memory.1000_domains.resident %ld bytes\n", made);
	printf("srcu.memory.1000_domains.each_reading_thread %ld bytes\n", read);
	for (int i = 0; i < 1000; i++)
		shunt_srcu_cleanup(&d[i]);
	free(d);
}

int main(int argc, char **argv)
{
	int graces = argc > 1 ? atoi(argv[1]) : 300;

	if (graces < 1)
		return 2;
#ifdef WITH_CK
	ck_epoch_init(&epoch);
	ck_epoch_register(&epoch, &record, NULL);
#endif
#ifdef WITH_URCU
	urcu_memb_register_thread();
	urcu_qsbr_register_thread();
#endif
	thousand();
	pairs();
#ifdef WITH_URCU
	urcu_memb_unregister_thread();
	urcu_qsbr_unregister_thread();
#endif
	for (int threads = 0; threads <= 64; threads += threads ? 62 : 2)
		for (size_t i = 0; i < sizeof flavours / sizeof *flavours; i++)
			latency(&flavours[i], threads, graces);
	return 0;
}
