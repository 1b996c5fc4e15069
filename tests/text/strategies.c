/* SPDX-License-Identifier: MIT */
/* strategies.c - each strategy with each way of writing, under running threads. */
#include <errno.h>
#include <time.h>

#include "sites.h"
#include "tap.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* `on` must come back as it was. Batches of some and of many sites. */
static void torture(enum shunt_text_strategy s, enum shunt_text_write w, unsigned n,
	double seconds)
{
	static const char *const ways[] = {"auto", "mem", "mprotect", "alias"};
	struct shunt_text_options o = {.strategy = s, .write = w};
	struct shunt_text_result res = {0};
	struct runner r[2];
	double end = now() + seconds;
	unsigned rounds = 0;
	int err = 0;
	uint64_t bad;

	runners_start(r, 2, 0, n, false);
	do
		err = site_toggle_n(n, !(rounds++ & 1), &o, &res);
	while (!err && (now() < end || (rounds & 1)));
	bad = runners_end(r, 2);
	ok(!err && !bad && res.strategy == s, "%s, %s, %u sites: %u toggles, %llu calls%s%s",
		shunt_text_strategy_name(s), ways[w], n, rounds,
		(unsigned long long)(r[0].old + r[0].new_ + r[1].old + r[1].new_),
		err ? ": " : "", res.reason);
}

int main(void)
{
	struct shunt_text_options plain = {.strategy = SHUNT_TEXT_PLAIN};

	/* The alias comes last: it leaves the text as a memfd. */
	for (int w = 0; w <= SHUNT_TEXT_WRITE_ALIAS; w++) {
		torture(SHUNT_TEXT_TRAP, (enum shunt_text_write)w, 20, 0.5);
		torture(SHUNT_TEXT_TRAP, (enum shunt_text_write)w, SITES, 0.5);
		torture(SHUNT_TEXT_STOP, (enum shunt_text_write)w, 2000, 0.5);
		plain.write = (enum shunt_text_write)w;
		ok(!site_toggle_n(2000, true, &plain, NULL) && site_call(1999) == 2 &&
				!site_toggle_n(2000, false, &plain, NULL) && site_call(0) == 1,
			"plain, way %d", w);
	}
	torture(SHUNT_TEXT_FLIP, SHUNT_TEXT_WRITE_AUTO, SITES, 0.5);
	torture(SHUNT_TEXT_TRAP, SHUNT_TEXT_WRITE_MEM, 20, 0.2);
	return done();
}
