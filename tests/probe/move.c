/* SPDX-License-Identifier: MIT */
/*
 * move.c - every function of real libraries and programs is decoded; every form of
 * instruction in them does elsewhere what it does in its place.
 *
 *   test-probe-move [seconds [seed]]
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "forms.h"
#include "probe/insn.h"
#include "real.h"
#include "tap.h"

/* Displacements are as large as a library, detours are nearer than 2 GiB. */
#define NEAR 0x30000000

#define REASONS 32

struct counts {
	size_t functions, understood, unsure, insns;
	size_t unreached, lost; /* lost: where all jumps are known, and no padding */
	size_t bytes, rooms[3]; /* at the start: one instruction, several, none */
	size_t moved;
	struct {
		const char *why;
		size_t n;
	} reasons[REASONS];
};

static void count_reason(struct counts *c, const char *why)
{
	int i = 0;

	while (i < REASONS - 1 && c->reasons[i].why && strcmp(c->reasons[i].why, why))
		i++;
	c->reasons[i].why = why;
	c->reasons[i].n++;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void move_one(const uint8_t *bytes, size_t n, uintptr_t at, struct counts *c,
	struct forms *forms)
{
	uint8_t out[SHUNT_INSN_MOVED_MAX];
	struct shunt_insn insn;
	const char *why = NULL;

	if (shunt_insn_decode(bytes, n, at, &insn))
		return;
	c->insns++;
	if (shunt_insn_move(&insn, bytes, at + NEAR, out, &why) >= 0)
		c->moved++;
	else
		count_reason(c, why);
	forms_add(forms, bytes, insn.len);
}

static bool is_padding(const uint8_t *bytes, size_t n)
{
	const char *name = shunt_insn_name(bytes, n);

	return !strcmp(name, "nop") || !strcmp(name, "xchg") || !strcmp(name, "int3");
}

static void function(const struct real_function *f, const struct shunt_code_map *m,
	struct counts *c, struct forms *forms)
{
	struct shunt_room room;
	uintptr_t next;

	shunt_code_room(m, f->lo, &room);
	c->rooms[room.why ? 2 : room.insns > 1]++;
	if (room.why)
		count_reason(c, room.why);
	c->unsure += shunt_code_unsure(m);
	for (uintptr_t at = f->lo; at; at = next) {
		move_one(f->bytes + (at - f->lo), f->hi - at, at, c, forms);
		c->unreached += !shunt_code_reached(m, at);
		c->lost += !shunt_code_reached(m, at) && !shunt_code_unsure(m) &&
			   !is_padding(f->bytes + (at - f->lo), f->hi - at);
		shunt_code_boundary(m, at, NULL, &next);
	}
}

/* Addresses in the middle of functions that other functions lead to, in order. */
struct middles {
	uintptr_t *at;
	size_t n, room;
};

static int compare_address(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return x < y ? -1 : x > y;
}

/* The first of the sorted ones that is not below addr. */
static size_t lower(const struct middles *m, uintptr_t addr)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->at[mid] < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_middle(const struct real *r, uintptr_t addr)
{
	size_t lo = 0, hi = r->n;

	while (lo < hi) { /* .eh_frame_hdr is sorted */
		size_t mid = (lo + hi) / 2;

		if (r->functions[mid].lo <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && addr > r->functions[lo - 1].lo && addr < r->functions[lo - 1].hi;
}

static void add_middles(const struct real *r, const struct shunt_code_map *map, struct middles *m)
{
	const uintptr_t *exits;
	size_t n = shunt_code_exits(map, &exits);

	for (size_t i = 0; i < n; i++) {
		if (!is_middle(r, exits[i]))
			continue;
		if (m->n == m->room) {
			m->room = m->room ? 2 * m->room : 1024;
			m->at = realloc(m->at, m->room * sizeof *m->at);
			if (!m->at)
				abort();
		}
		m->at[m->n++] = exits[i];
	}
}

static struct shunt_code_map *map(const struct real *r, const struct real_function *f,
	const struct middles *m, uintptr_t *where)
{
	size_t first = m ? lower(m, f->lo + 1) : 0;
	struct shunt_code code = {.bytes = f->bytes, .lo = f->lo, .hi = f->hi, .read = real_read,
		.arg = (void *)r};

	if (m) {
		code.entries = m->at + first;
		code.nentries = lower(m, f->hi) - first;
	}
	return shunt_code_map(&code, where);
}

/* All functions once, without what others know of them. */
static double all_exits(const struct real *r, struct middles *m)
{
	double start = now(), took;
	struct shunt_code_map **maps = calloc(r->n, sizeof *maps);

	if (!maps)
		abort();
	for (size_t i = 0; i < r->n; i++)
		maps[i] = map(r, &r->functions[i], NULL, NULL);
	took = now() - start;
	for (size_t i = 0; i < r->n; i++) {
		if (maps[i])
			add_middles(r, maps[i], m);
		free(maps[i]);
	}
	free(maps);
	if (m->n)
		qsort(m->at, m->n, sizeof *m->at, compare_address);
	return took;
}

static void all_functions(const struct real *r, const char *name, struct forms *forms)
{
	struct counts c = {.functions = r->n};
	uintptr_t where;
	struct middles middles = {0};
	double s = all_exits(r, &middles);
	int shown = 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct real_function *f = &r->functions[i];
		struct shunt_code_map *m = map(r, f, &middles, &where);

		c.bytes += f->hi - f->lo;
		if (!m) {
			if (shown++ < 10)
				diag("%s: %lx-%lx is not understood at %lx: %s", name, f->lo, f->hi,
					where, shunt_insn_name(f->bytes + (where - f->lo), f->hi - where));
			continue;
		}
		c.understood++;
		function(f, m, &c, forms);
		free(m);
	}
	ok(c.understood * 1000 >= c.functions * 999,
		"%s: %zu of %zu functions are understood, %zu instructions", name, c.understood,
		c.functions, c.insns);
	diag("%s: %.1f ms, %.0f ns an instruction, %.0f us for a thousand bytes", name, s * 1e3,
		s * 1e9 / (double)c.insns, s * 1e9 / (double)c.bytes);
	diag("%s: %zu functions with jumps that may lead anywhere, %zu instructions unreached; in all "
	     "others %zu but for padding", name, c.unsure, c.unreached, c.lost);
	diag("%s: a jump at the start: %zu over one instruction, %zu over several, %zu not", name,
		c.rooms[0], c.rooms[1], c.rooms[2]);
	diag("%s: %zu branches lead into the middle of other functions", name, middles.n);
	free(middles.at);
	for (int i = 0; i < REASONS && c.reasons[i].why; i++)
		diag("%s: %zu: %s", name, c.reasons[i].n, c.reasons[i].why);
}

struct tally {
	size_t trials, verdicts[4], signals[65];
};

static void show_failure(const struct form *f, uint64_t seed, const struct trial *t)
{
	char hex[31] = "";

	for (int i = 0; i < f->len; i++)
		sprintf(hex + 2 * i, "%02x", f->bytes[i]);
	diag("%s (%s), seed %lu: %s", hex, shunt_insn_name(f->bytes, f->len), (unsigned long)seed,
		t->what);
}

static void try_form(const struct form *f, uint64_t seed, struct tally *tally)
{
	struct trial t;
	enum verdict v = forms_try(f, seed, &t);

	tally->trials++;
	tally->verdicts[v]++;
	if (v == SAME)
		tally->signals[t.signal]++;
	if (v == DIFFERENT && tally->verdicts[v] < 20)
		show_failure(f, seed, &t);
}

/* What compilers seldom or never make of the kinds that are not just copied. */
static const char *const rare[] = {"e200", "e100", "e000", "e300", "67e300", "67e200", "0f05",
	"f30f05", "eb00", "e900000000", "7000", "7f00", "2e7500", "0f8000000000", "3e0f8500000000",
	"e800000000", "67e800000000", "666648e800000000", "f2e800000000", "c3", "f3c3", "c20800",
	"f2c3", "ffd0", "41ffd4", "3effd1", "f2ffd2", "ff10", "ff1500000000", "6648ff1500000000",
	"f2ff1500000000", "ff5000", "41ff5500", "ff9400ffffffff", "ff1424", "ff542400",
	"ff942400000000", "ffd4", "ff14c4", "ff54c400", "42ff14e4", "41ff1424", "41ff542400", "64ff13",
	"64ff5300", "65ff1500000000", "ff142500000000", "67ff10", "67ff5300", "48ffd0", "48ff10",
	"ffe0", "3effe0", "ffe4", "ff20", "ff2500000000", "3eff24c500000000", "ff2424", "c7f800000000",
	"c6f800", "488d0500000000", "67488d0500000000", "c705000000000a000000", "6667c7000a00", "f00fb10d00000000",
	"660f3a0f050000000003", "c5f96f0500000000", "c4e37d180500000000ff", "62f1fd486f0500000000",
	"62f3fd48250500000000aa", "f30f1efa", "0f0b", "0fb9c0", "9c", "9d", "54", "5c", "c8100000",
	"c9", "ff3424", "ff3500000000", "8f0500000000", "8f0424", "6a00", "6800000000"};

#define RARE_TRIALS 400

static struct form read_form(const char *hex)
{
	struct form f = {0};
	unsigned b;

	for (; sscanf(hex, "%2x", &b) == 1; hex += 2)
		f.bytes[f.len++] = (uint8_t)b;
	return f;
}

static void rare_forms(uint64_t seed)
{
	struct tally tally = {0};
	size_t n = sizeof rare / sizeof *rare;

	for (size_t i = 0; i < n * RARE_TRIALS; i++) {
		struct form f = read_form(rare[i / RARE_TRIALS]);

		try_form(&f, seed + i, &tally);
	}
	ok(tally.verdicts[SAME] && !tally.verdicts[DIFFERENT],
		"%zu forms that are not just copied, %d times each: the same (%zu times not)", n,
		RARE_TRIALS, tally.verdicts[DIFFERENT]);
	diag("%zu trials: %zu refused, %zu skipped; ended by: trap %zu, segv %zu, ill %zu",
		tally.trials, tally.verdicts[REFUSED], tally.verdicts[SKIPPED],
		tally.signals[SIGTRAP], tally.signals[SIGSEGV], tally.signals[SIGILL]);
}

/* All once, then again for as long as was asked for. */
static void all_forms(const struct forms *forms, double seconds, uint64_t seed)
{
	struct tally tally = {0};
	double end = now() + seconds;
	size_t rounds = 0;

	do {
		for (size_t i = 0; i < forms->size && (!rounds || now() < end); i++)
			if (forms->table[i].len)
				try_form(&forms->table[i], seed + rounds * forms->size + i, &tally);
		rounds++;
	} while (now() < end);
	ok(tally.verdicts[SAME] && !tally.verdicts[DIFFERENT],
		"%zu forms do elsewhere what they do in their place (%zu times not)", forms->n,
		tally.verdicts[DIFFERENT]);
	diag("%zu trials, %zu rounds, seed %lu: %zu refused, %zu skipped, %zu the same", tally.trials,
		rounds, (unsigned long)seed, tally.verdicts[REFUSED], tally.verdicts[SKIPPED],
		tally.verdicts[SAME]);
	diag("ended by: trap %zu, segv %zu, bus %zu, ill %zu, fpe %zu", tally.signals[SIGTRAP],
		tally.signals[SIGSEGV], tally.signals[SIGBUS], tally.signals[SIGILL],
		tally.signals[SIGFPE]);
}

/* cpuid says which processor it is executed on. */
static void pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv)
{
	static const char *const files[] = {"/lib/x86_64-linux-gnu/libc.so.6",
		"/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
		"/usr/bin/gdb"};
	double seconds = argc > 1 ? atof(argv[1]) : 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	struct forms forms = {0};
	const char *why;

	if (shunt_insn_init(&why)) {
		skip("%s", why);
		return done();
	}
	pin();
	if (forms_init()) {
		skip("no executable memory at fixed addresses");
		return done();
	}
	rare_forms(seed);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		const char *name = strrchr(files[i], '/') + 1;
		struct real r;

		switch (real_open(&r, files[i])) {
		case 0:
			all_functions(&r, name, &forms);
			break;
		case -1:
			skip("%s is not installed", files[i]);
			break;
		default:
			ok(false, "%s: its .eh_frame_hdr can be read", name);
		}
		real_close(&r);
	}
	all_forms(&forms, seconds, seed);
	free(forms.table);
	return done();
}
