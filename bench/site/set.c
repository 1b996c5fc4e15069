/* SPDX-License-Identifier: MIT */
/*
 * set.c - how long it takes to set a key that has 1, 100 or 20,000 branches, alone and
 * beside two threads that run through them, one on each of the first two processors;
 * and 1,000 keys, one by one and in one batch. Beside it, what a patcher cannot do
 * without: two mprotect() around the bytes. Medians. Who sets one key after the other
 * beside two threads waits for a processor, too: two of them have three to run.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "measure.h"

#include <shunt/imv.h>
#include <shunt/key.h>

#define ROUNDS 31

SHUNT_DEFINE_STATIC_KEY_FALSE(key_1);
SHUNT_DEFINE_STATIC_KEY_FALSE(key_100);
SHUNT_DEFINE_STATIC_KEY_FALSE(key_20000);
SHUNT_DEFINE_STATIC_IMV(uint32_t, imv_1, 0);
#define KEYS 1000
SHUNT_DEFINE_KEY_ARRAY_FALSE(keys, KEYS);

/* --- the sites ---------------------------------------------------------------------- */

/* X(10) to X(99), in tens and hundreds: a number's digits one after the other. */
#define TEN(X, n) \
	X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7) X(n##8) X(n##9)
#define HUNDRED(X, n) \
	TEN(X, n##0) TEN(X, n##1) TEN(X, n##2) TEN(X, n##3) TEN(X, n##4) \
	TEN(X, n##5) TEN(X, n##6) TEN(X, n##7) TEN(X, n##8) TEN(X, n##9)
#define THOUSAND(X, n) \
	HUNDRED(X, n##0) HUNDRED(X, n##1) HUNDRED(X, n##2) HUNDRED(X, n##3) HUNDRED(X, n##4) \
	HUNDRED(X, n##5) HUNDRED(X, n##6) HUNDRED(X, n##7) HUNDRED(X, n##8) HUNDRED(X, n##9)
#define TEN_THOUSAND(X, n) \
	THOUSAND(X, n##0) THOUSAND(X, n##1) THOUSAND(X, n##2) THOUSAND(X, n##3) \
	THOUSAND(X, n##4) THOUSAND(X, n##5) THOUSAND(X, n##6) THOUSAND(X, n##7) \
	THOUSAND(X, n##8) THOUSAND(X, n##9)

#define SITE(name, condition) \
	static int name(void) \
	{ \
		return condition ? 1 : 2; \
	}
SITE(one, shunt_key_unlikely(key_1))
#define OF_100(n) SITE(h##n, shunt_key_unlikely(key_100))
HUNDRED(OF_100, 1)
#define OF_20000(n) SITE(f##n, shunt_key_unlikely(key_20000))
TEN_THOUSAND(OF_20000, 1)
TEN_THOUSAND(OF_20000, 2)
#define OF_KEYS(n) SITE(k##n, shunt_key_unlikely_at(keys, 1##n - 11000))
THOUSAND(OF_KEYS, 1)
static int value(void)
{
	return shunt_imv_read(imv_1) ? 1 : 2;
}

typedef int site_fn(void);
#define H(n) h##n,
#define F(n) f##n,
#define K(n) k##n,
static site_fn *const of_1[] = {one}, *const of_imv[] = {value};
static site_fn *const of_100[] = {HUNDRED(H, 1)};
static site_fn *const of_20000[] = {TEN_THOUSAND(F, 1) TEN_THOUSAND(F, 2)};
static site_fn *const of_keys[] = {THOUSAND(K, 1)};

/* --- who runs through them ------------------------------------------------------------- */

struct running {
	site_fn *const *sites;
	unsigned count;
};
static struct running now_running = {of_1, 1};
static bool stop;

static void *run(void *arg)
{
	uint32_t x = 1 + (uint32_t)(uintptr_t)arg;
	struct running *r;

	pin((int)(intptr_t)arg);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		r = &now_running;
		x = x * 1103515245u + 12345u;
		r->sites[(x >> 8) % r->count]();
		__asm__ volatile("" ::: "memory");
	}
	return NULL;
}

/* --- what is set ------------------------------------------------------------------------ */

static int set_1(bool on)
{
	return shunt_key_set(&key_1.key, on);
}

static int set_100(bool on)
{
	return shunt_key_set(&key_100.key, on);
}

static int set_20000(bool on)
{
	return shunt_key_set(&key_20000.key, on);
}

static int set_imv(bool on)
{
	return shunt_imv_set(imv_1, (uint32_t)on);
}

static int set_one_by_one(bool on)
{
	int err = 0;

	for (int i = 0; i < KEYS; i++)
		err |= shunt_key_set(&keys[i].key, on);
	return err;
}

static int set_batch(bool on)
{
	static struct shunt_key *all[KEYS];
	static bool ons[KEYS];

	for (int i = 0; i < KEYS; i++) {
		all[i] = &keys[i].key;
		ons[i] = on;
	}
	return shunt_keys_set(all, ons, KEYS);
}

/* A page of text made writable and back: it is this program's, and stays as it is. */
static int protect_twice(bool on)
{
	uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE);
	void *page = (void *)((uintptr_t)one & ~(size - 1));

	(void)on;
	return mprotect(page, size, PROT_READ | PROT_WRITE | PROT_EXEC) ||
	       mprotect(page, size, PROT_READ | PROT_EXEC);
}

enum { MPROTECT, IMV_1, KEY_1, KEY_100, KEY_20000, ONE_BY_ONE, BATCH, CASES };
static const struct {
	const char *name;
	int (*set)(bool on);
	struct running run;
	unsigned keys;
} cases[CASES] = {
	[MPROTECT] = {"mprotect_twice", protect_twice, {of_1, 1}, 1},
	[IMV_1] = {"imv_1_site", set_imv, {of_imv, 1}, 1},
	[KEY_1] = {"key_1_site", set_1, {of_1, 1}, 1},
	[KEY_100] = {"key_100_sites", set_100, {of_100, 100}, 1},
	[KEY_20000] = {"key_20000_sites", set_20000, {of_20000, 20000}, 1},
	[ONE_BY_ONE] = {"1000_keys_one_by_one", set_one_by_one, {of_keys, KEYS}, KEYS},
	[BATCH] = {"1000_keys_batch", set_batch, {of_keys, KEYS}, KEYS},
};
_Static_assert(sizeof of_20000 / sizeof *of_20000 == 20000, "20,000 sites");

/* Each branch, or NULL, has said what it must. */
static bool right(const struct running *r, bool on)
{
	for (unsigned i = 0; i < r->count; i++)
		if (r->sites[i]() != (on ? 1 : 2))
			return false;
	return true;
}

static int all(const char *how)
{
	double t[ROUNDS], m[CASES], from;

	for (int c = 0; c < CASES; c++) {
		now_running = cases[c].run;
		for (int i = 0; i < ROUNDS; i++) {
			bool on = !(i & 1);

			from = now();
			if (cases[c].set(on))
				return 1;
			t[i] = now() - from;
			if (cases[c].set != protect_twice && !right(&cases[c].run, on))
				return 2;
			usleep(100);
		}
		if (cases[c].set(false))
			return 1;
		m[c] = median(t, ROUNDS);
		printf("site.set.%s.%s %.2f us\n", how, cases[c].name, m[c] / 1e3);
		if (cases[c].keys > 1)
			printf("site.set.%s.%s.per_key %.1f ns\n", how, cases[c].name,
				m[c] / cases[c].keys);
		else if (cases[c].run.count > 1)
			printf("site.set.%s.%s.per_site %.1f ns\n", how, cases[c].name,
				m[c] / cases[c].run.count);
		fflush(stdout);
	}
	printf("site.set.%s.key_1_site_by_mprotect_twice %.2f ratio\n", how,
		m[KEY_1] / m[MPROTECT]);
	printf("site.set.%s.1000_keys_one_by_one_by_batch %.2f ratio\n", how,
		m[ONE_BY_ONE] / m[BATCH]);
	return 0;
}

int main(void)
{
	pthread_t th[2];
	int err = all("alone");

	for (intptr_t i = 0; i < 2 && !err; i++)
		if (pthread_create(&th[i], NULL, run, (void *)i))
			return 1;
	if (!err) {
		usleep(200000);
		err = all("live");
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		for (int i = 0; i < 2; i++)
			pthread_join(th[i], NULL);
	}
	if (err)
		printf("# bench-site-set: %s\n", err == 1 ? "a set failed" : "a branch is wrong");
	return err;
}
