/* SPDX-License-Identifier: MIT */
/* toggle.c - 20,000 sites go on and off under running threads. */
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "sites.h"
#include "tap.h"

static void set_cpu(pthread_t t, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(t, sizeof set, &set);
}

static bool all_are(int what)
{
	for (unsigned i = 0; i < SITES; i++)
		if (site_call(i) != what)
			return false;
	return true;
}

static void alone(void)
{
	struct shunt_text_result res;

	ok(!site_toggle_n(SITES, true, NULL, &res), "alone: all sites on: %s", res.reason);
	ok(res.sites == SITES && res.pages >= 300, "%zu sites in %zu pages written", res.sites,
		res.pages);
	ok(all_are(2), "every call sees it");
	ok(!site_toggle_n(SITES, true, NULL, &res) && res.sites == 0,
		"what holds the new bytes already is not written");
	ok(!site_toggle_n(SITES, false, NULL, &res) && all_are(1), "and off again");
	ok(!site_toggle(7, true, NULL, &res) && res.strategy == SHUNT_TEXT_PLAIN &&
			site_call(7) == 2, "a single site is written plainly");
	ok(!site_toggle(7, false, NULL, &res) && site_call(7) == 1, "and back");
}

static void live(void)
{
	struct runner r[2];
	struct shunt_text_result res = {0};
	int err = 0, rounds = 200;
	uint64_t bad;

	runners_start(r, 2, 0, SITES, true);
	for (int i = 0; i < rounds && !err; i++)
		err = site_toggle_n(SITES, !(i & 1), NULL, &res);
	bad = runners_end(r, 2);
	ok(!err, "live: %d toggles of all sites: %s", rounds, res.reason);
	ok(res.strategy == SHUNT_TEXT_FLIP, "by flip");
	ok(!bad && r[0].old && r[0].new_, "no call saw a mixture (%llu old, %llu new)",
		(unsigned long long)(r[0].old + r[1].old),
		(unsigned long long)(r[0].new_ + r[1].new_));
}

static void single(void)
{
	struct runner r[2];
	struct shunt_text_result res = {0};
	int err = 0;
	unsigned worst = 0;
	uint64_t bad;
	static bool on[SITES];

	srandom(1);
	diag("seed 1");
	runners_start(r, 2, 0, SITES, true);
	for (int i = 0; i < 5000 && !err; i++) {
		unsigned k = (unsigned)random() % SITES;

		on[k] = !on[k];
		err = site_toggle(k, on[k], NULL, &res);
		if (i % 50 == 49) {
			unsigned n = mappings_of_sites();

			worst = n > worst ? n : worst;
		}
	}
	bad = runners_end(r, 2);
	ok(!err && !bad, "5,000 random single toggles: %s", res.reason);
	ok(worst <= 20, "leave at most %u mappings (bound 20)", worst);
	for (unsigned k = 0; k < SITES; k++)
		if (site_call(k) != 1 + on[k])
			bad++;
	ok(!bad, "every site is as it was set last");
}

static volatile bool hogs_stop;

static void spin_ns(long ns)
{
	struct timespec from, to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &to);
	while ((to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec < ns);
}

/* Takes its processor away from runners at any moment, also in the kernel. */
static void *hog(void *arg)
{
	unsigned x = 7;

	set_cpu(pthread_self(), (int)(long)arg);
	while (!hogs_stop) {
		struct timespec t = {0, 1000 + (x = x * 1103515245u + 12345u) % 60000};

		nanosleep(&t, NULL);
		spin_ns(20000 + x % 100000);
	}
	return NULL;
}

/* While a thread is made, it has all signals blocked: try again. */
static int toggle_by(enum shunt_text_strategy s, unsigned n, bool on, struct shunt_text_result *res)
{
	struct shunt_text_options o = {.strategy = s, .timeout_ms = 10000};
	int err;

	do
		err = site_toggle_n(n, on, &o, res);
	while (err == -EAGAIN && s == SHUNT_TEXT_TRAP);
	return err;
}

/*
 * One strategy after the other at the same site, run by threads that get the
 * processor only when nobody else wants it: one has trapped and not come to its
 * handler when the next batch, which moves threads, begins.
 */
static void mixed(void)
{
	static const enum shunt_text_strategy how[] = {SHUNT_TEXT_TRAP, SHUNT_TEXT_STOP,
		SHUNT_TEXT_TRAP, SHUNT_TEXT_STOP, SHUNT_TEXT_TRAP, SHUNT_TEXT_FLIP};
	struct sched_param none = {0};
	struct shunt_text_result res = {0};
	struct runner r[2];
	pthread_t hogs[2];
	int err = 0, rounds = 1200;
	uint64_t bad;

	runners_start(r, 2, 0, 1, false);
	for (int i = 0; i < 2; i++) {
		set_cpu(r[i].thread, i);
		pthread_setschedparam(r[i].thread, SCHED_IDLE, &none);
		pthread_create(&hogs[i], NULL, hog, (void *)(long)i);
	}
	for (int i = 0; i < rounds && !err; i++) {
		unsigned n = how[i % 6] == SHUNT_TEXT_TRAP ? 200 : 1;

		err = toggle_by(how[i % 6], n, true, &res);
		if (!err)
			err = toggle_by(how[i % 6], n, false, &res);
	}
	hogs_stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(hogs[i], NULL);
	bad = runners_end(r, 2);
	ok(!err && !bad, "%d toggles by trap, stop and flip in turn: %s", 2 * rounds, res.reason);
	ok(r[0].old && r[0].new_, "which the threads saw");
}

int main(int argc, char **argv)
{
	(void)argv;
	alone();
	live();
	single();
	if (argc < 2)
		mixed();
	return done();
}
