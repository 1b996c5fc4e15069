/* SPDX-License-Identifier: MIT */
/* toggle.c - 20,000 sites go on and off under running threads. */
#include "sites.h"
#include "tap.h"

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

int main(void)
{
	alone();
	live();
	single();
	return done();
}
