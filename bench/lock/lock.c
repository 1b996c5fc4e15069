/* SPDX-License-Identifier: MIT */
/*
 * lock.c - what a lock costs while nobody else wants it, and how locks do under threads:
 * sections of 100 ns, as many a second as there are; the smallest share of a thread by
 * the largest; and the wait that one in a thousand exceeds. Beside ours: pthread's
 * spinlock, its mutex, normal and adaptive, a plain ticket lock, MCS, and those two of
 * Concurrency Kit (libck-dev), if it was there.
 *
 *   bench-lock [ms [threads..]]      prints "name value unit"; medians of 7 runs,
 *				      the locks in turn; a run during which others used
 *				      the processors is repeated
 *   BENCH_LOCK=name  		      only locks whose names have this in them
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#ifdef WITH_CK
#include <ck_spinlock.h>
#endif

#include <shunt/lock.h>

#include "../timing.h"

#define THREADS 64
#define RUNS	7
#define SECTION_NS 100

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- the locks --------------------------------------------------------------------- */

#define APART _Alignas(128)

static struct {
	APART struct shunt_lock shunt;
	APART pthread_spinlock_t spin;
	APART pthread_mutex_t mutex;
	APART pthread_mutex_t adaptive;
	APART struct {
		_Atomic uint16_t next, owner;
	} ticket;
	struct mcs {
		APART struct mcs *_Atomic next;
		atomic_bool wait;
	} *_Atomic mcs_tail;
#ifdef WITH_CK
	APART ck_spinlock_ticket_t ck_ticket;
	APART ck_spinlock_mcs_t ck_mcs;
#endif
	APART char end;
} the;
static _Thread_local struct mcs mine;
#ifdef WITH_CK
static _Thread_local struct ck_spinlock_mcs APART ck_mine;
#define CK_LOCKS(do) \
	do(ck_ticket, ck_spinlock_ticket_lock(&the.ck_ticket), ck_spinlock_ticket_unlock(&the.ck_ticket)) \
	do(ck_mcs, ck_spinlock_mcs_lock(&the.ck_mcs, &ck_mine), ck_spinlock_mcs_unlock(&the.ck_mcs, &ck_mine))
#else
#define CK_LOCKS(do)
#endif

static inline void ticket_lock(void)
{
	uint16_t me = atomic_fetch_add(&the.ticket.next, 1);

	while (atomic_load_explicit(&the.ticket.owner, memory_order_acquire) != me)
		_mm_pause();
}

static inline void ticket_unlock(void)
{
	uint16_t owner = atomic_load_explicit(&the.ticket.owner, memory_order_relaxed);

	atomic_store_explicit(&the.ticket.owner, (uint16_t)(owner + 1), memory_order_release);
}

static inline void mcs_lock(void)
{
	struct mcs *before;

	atomic_store_explicit(&mine.next, NULL, memory_order_relaxed);
	atomic_store_explicit(&mine.wait, true, memory_order_relaxed);
	before = atomic_exchange(&the.mcs_tail, &mine);
	if (!before)
		return;
	atomic_store_explicit(&before->next, &mine, memory_order_release);
	while (atomic_load_explicit(&mine.wait, memory_order_acquire))
		_mm_pause();
}

static inline void mcs_unlock(void)
{
	struct mcs *after = atomic_load_explicit(&mine.next, memory_order_acquire), *me = &mine;

	if (!after) {
		if (atomic_compare_exchange_strong(&the.mcs_tail, &me, NULL))
			return;
		while (!(after = atomic_load_explicit(&mine.next, memory_order_acquire)))
			_mm_pause();
	}
	atomic_store_explicit(&after->wait, false, memory_order_release);
}

#define LOCKS(do) \
	do(shunt_native, shunt_lock_lock(&the.shunt), shunt_lock_unlock(&the.shunt)) \
	do(shunt_park, shunt_lock_lock(&the.shunt), shunt_lock_unlock(&the.shunt)) \
	do(shunt_auto, shunt_lock_lock(&the.shunt), shunt_lock_unlock(&the.shunt)) \
	do(pthread_spin, pthread_spin_lock(&the.spin), pthread_spin_unlock(&the.spin)) \
	do(mutex, pthread_mutex_lock(&the.mutex), pthread_mutex_unlock(&the.mutex)) \
	do(adaptive, pthread_mutex_lock(&the.adaptive), pthread_mutex_unlock(&the.adaptive)) \
	do(ticket, ticket_lock(), ticket_unlock()) \
	do(mcs, mcs_lock(), mcs_unlock()) \
	CK_LOCKS(do)

/* --- alone ---------------------------------------------------------------------------- */

#define PAIRS 5000000

#define ALONE(name, lock, unlock) \
	static double alone_##name(void) \
	{ \
		uint64_t from = now_ns(); \
		for (int i = 0; i < PAIRS; i++) { \
			lock; \
			unlock; \
		} \
		return (double)(now_ns() - from) / PAIRS; \
	}
LOCKS(ALONE)

/* --- under threads ---------------------------------------------------------------------- */

#define BUCKETS 1024 /* of waits: 16 for each power of two of cycles */

static struct {
	APART unsigned long sections;
	uint32_t waits[BUCKETS];
} thread[THREADS];
static struct {
	APART atomic_bool go, stop;
	APART unsigned long shared[8];
} arena;
static double ticks_per_ns;
static uint64_t section_ticks;

static unsigned bucket(uint64_t ticks)
{
	unsigned high = 63u - (unsigned)__builtin_clzll(ticks | 16);

	return high * 16 + (unsigned)(ticks >> (high - 4) & 15);
}

static double bucket_ns(unsigned b)
{
	return (double)((16ull + b % 16) << (b / 16 - 4)) / ticks_per_ns;
}

static inline void work(uint64_t ticks)
{
	uint64_t from = __rdtsc();

	arena.shared[0]++;
	arena.shared[7]++;
	while (__rdtsc() - from < ticks)
		;
}

#define RUN(name, lock, unlock) \
	static void *run_##name(void *arg) \
	{ \
		__typeof__(&thread[0]) me = arg; \
		unsigned long n = 0; \
		while (!arena.go) \
			usleep(100); \
		while (!atomic_load_explicit(&arena.stop, memory_order_relaxed)) { \
			uint64_t from = __rdtsc(), at; \
			lock; \
			at = __rdtsc(); \
			work(section_ticks); \
			unlock; \
			me->waits[bucket(at - from)]++; \
			me->sections = ++n; \
		} \
		return NULL; \
	}
LOCKS(RUN)

static const struct {
	const char *name;
	double (*alone)(void);
	void *(*run)(void *);
} locks[] = {
#define ENTRY(name, lock, unlock) {#name, alone_##name, run_##name},
	LOCKS(ENTRY)};
#define NLOCKS (sizeof locks / sizeof *locks)

struct result {
	double rate, share, wait;
};

/* The sections are counted while all still run: a lock that convoys takes long to end. */
static struct result under(void *(*run)(void *), int n, unsigned ms)
{
	unsigned long count[THREADS], least = -1ul, most = 0, sum = 0, waits = 0, seen = 0;
	struct result r = {0};
	pthread_t t[THREADS];
	uint64_t from;
	double ns;

	memset(thread, 0, sizeof thread);
	arena.stop = arena.go = false;
	for (int i = 0; i < n; i++)
		pthread_create(&t[i], NULL, run, &thread[i]);
	from = now_ns();
	arena.go = true;
	usleep(ms * 1000);
	for (int i = 0; i < n; i++)
		count[i] = *(volatile unsigned long *)&thread[i].sections;
	ns = (double)(now_ns() - from);
	arena.stop = true;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < n; i++) {
		sum += count[i];
		least = count[i] < least ? count[i] : least;
		most = count[i] > most ? count[i] : most;
		for (unsigned b = 0; b < BUCKETS; b++)
			waits += thread[i].waits[b];
	}
	for (unsigned b = 0; b < BUCKETS && !r.wait; b++) {
		for (int i = 0; i < n; i++)
			seen += thread[i].waits[b];
		if (seen >= waits - waits / 1000)
			r.wait = bucket_ns(b + 1) / 1e3;
	}
	r.rate = (double)sum / ns * 1e3;
	r.share = most ? (double)least / (double)most : 0;
	return r;
}

/* What others have used of all processors, in ns. */
static double others(void)
{
	unsigned long user, nice, system, idle, wait, irq, soft;
	struct rusage u;
	FILE *f = fopen("/proc/stat", "r");
	double all = 0;

	if (f && fscanf(f, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &wait, &irq,
			 &soft) == 7)
		all = (double)(user + nice + system + irq + soft) * 1e9 / (double)sysconf(_SC_CLK_TCK);
	if (f)
		fclose(f);
	getrusage(RUSAGE_SELF, &u);
	return all - (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e9 -
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e3;
}

static unsigned disturbed;

static struct result undisturbed(void *(*run)(void *), int n, unsigned ms)
{
	struct result r;

	for (int i = 0; i < 10; i++) {
		double before = others();

		r = under(run, n, ms);
		if (others() - before < 0.08e6 * ms)
			return r;
		usleep(200000);
	}
	disturbed++;
	return r;
}

static void print(const char *name, int threads, const struct result *r)
{
	double v[3][RUNS];

	for (int i = 0; i < RUNS; i++) {
		v[0][i] = r[i].rate;
		v[1][i] = r[i].share;
		v[2][i] = r[i].wait;
	}
	printf("lock.%s.%d.rate %.3f M/s\n", name, threads, median(v[0], RUNS));
	printf("lock.%s.%d.share %.2f ratio\n", name, threads, median(v[1], RUNS));
	printf("lock.%s.%d.wait_p999 %.1f us\n", name, threads, median(v[2], RUNS));
	fflush(stdout);
}

static void mode(const char *name)
{
	int err = shunt_lock_auto(!strcmp(name, "shunt_auto"));

	err |= shunt_lock_set_mode(
		strcmp(name, "shunt_park") ? SHUNT_LOCK_NATIVE : SHUNT_LOCK_PARK);
	if (err)
		printf("# %s: %s\n", name, strerror(-err));
}

static void calibrate(void)
{
	uint64_t from = now_ns(), ticks = __rdtsc();

	while (now_ns() - from < 50000000)
		;
	ticks_per_ns = (double)(__rdtsc() - ticks) / (double)(now_ns() - from);
	section_ticks = (uint64_t)(SECTION_NS * ticks_per_ns);
}

int main(int argc, char **argv)
{
	static const int few[] = {2, 4, 8, 16, 32};
	unsigned ms = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	int n = argc > 2 ? argc - 2 : 5;
	const char *only = getenv("BENCH_LOCK");
	static struct result one[NLOCKS][RUNS];
	double v[RUNS];
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&the.adaptive, &a);
	pthread_mutex_init(&the.mutex, NULL);
	pthread_spin_init(&the.spin, 0);
	calibrate();
	for (size_t l = 0; l < NLOCKS; l++) {
		if (only && !strstr(locks[l].name, only))
			continue;
		mode(locks[l].name);
		for (int r = 0; r < RUNS; r++)
			v[r] = locks[l].alone();
		printf("lock.%s.alone %.2f ns\n", locks[l].name, median(v, RUNS));
	}
	for (int i = 0; i < n; i++) {
		int threads = argc > 2 ? atoi(argv[2 + i]) : few[i];

		if (threads < 1 || threads > THREADS)
			continue;
		for (int r = 0; r < RUNS; r++)
			for (size_t l = 0; l < NLOCKS; l++) {
				if (only && !strstr(locks[l].name, only))
					continue;
				mode(locks[l].name);
				one[l][r] = undisturbed(locks[l].run, threads, ms);
			}
		for (size_t l = 0; l < NLOCKS; l++)
			if (!only || strstr(locks[l].name, only))
				print(locks[l].name, threads, one[l]);
	}
	if (disturbed)
		printf("# in %u runs others used the processors, too\n", disturbed);
	return shunt_lock_auto(false);
}
