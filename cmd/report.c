/* SPDX-License-Identifier: MIT */
/*
 * report.c - `shunt report`: calls and times of each function.
 *
 * Times of a function go into a histogram of logarithmic buckets, 16 to a
 * doubling, so that a percentile is off by 3 % at most and memory does not grow
 * with the number of calls.
 */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "format/format.h"
#include "out.h"

#define OCTAVES 48

struct stats {
	uint64_t calls, total, self, max; /* ns */
	uint64_t left;			  /* calls that did not return */
	uint64_t threads;
	size_t last_stream; /* + 1 */
	uint32_t *octave[OCTAVES];
};

struct row {
	char *name;
	const char *object;
	uint32_t tid; /* with --by-thread */
	struct stats *s;
	uint64_t p50, p99;
};

struct report {
	struct trace t;
	struct stats **stats; /* [object], an array a function; last: unknown ones */
	struct stats unknown;
	struct row *rows;
	size_t nrows, room;
	uint64_t entries, exits, orphans, damaged, points;
	uint64_t *point; /* events of each tracepoint; the last one: not described */
	uint64_t first, last;
	size_t stream;
	const char *sort, *filter;
	unsigned long limit;
	bool json, by_thread;
};

static void say(const char *line)
{
	fprintf(stderr, "shunt: %s\n", line);
}

/* --- histogram ------------------------------------------------------------------- */

static void count(struct stats *s, uint64_t ns)
{
	unsigned o = ns < 16 ? 0 : 63 - (unsigned)__builtin_clzll(ns) - 3;
	unsigned i = (unsigned)(ns < 16 ? ns : (ns >> (o - 1)) & 15);

	if (o >= OCTAVES)
		o = OCTAVES - 1, i = 15;
	if (!s->octave[o])
		s->octave[o] = calloc(16, sizeof **s->octave);
	if (s->octave[o])
		s->octave[o][i]++;
}

static uint64_t percentile(const struct stats *s, double p)
{
	uint64_t n = 0, want, seen = 0;

	for (unsigned o = 0; o < OCTAVES; o++)
		for (unsigned i = 0; s->octave[o] && i < 16; i++)
			n += s->octave[o][i];
	want = (uint64_t)(p * (double)n);
	for (unsigned o = 0; o < OCTAVES; o++)
		for (unsigned i = 0; s->octave[o] && i < 16; i++) {
			uint64_t low = o ? (uint64_t)(16 + i) << (o - 1) : i;
			uint64_t mid = o ? low + ((1ULL << (o - 1)) >> 1) : low;

			seen += s->octave[o][i];
			if (seen > want)
				return mid < s->max ? mid : s->max;
		}
	return s->max;
}

/* --- counting ---------------------------------------------------------------------- */

static struct stats *stats_of(struct report *r, uint32_t image, uint32_t id)
{
	const struct trace_object *o;
	const struct trace_function *f = trace_function(&r->t, image, id, &o);
	size_t k;

	if (!f)
		return &r->unknown;
	k = (size_t)(o - r->t.objects);
	if (!r->stats[k])
		r->stats[k] = calloc(o->n, sizeof **r->stats);
	return r->stats[k] ? &r->stats[k][f - o->functions] : &r->unknown;
}

static void add_time(struct stats *s, uint64_t total, uint64_t self)
{
	s->total += total;
	s->self += self;
	if (total > s->max)
		s->max = total;
}

static void on_leave(struct trace_calls *c, const struct trace_frame *f, size_t depth, uint64_t ts,
	enum trace_how how)
{
	struct report *r = c->arg;
	struct stats *s = stats_of(r, r->t.streams[r->stream].image, f->id);
	uint64_t total = trace_duration(&r->t, ts - f->ts);
	uint64_t inside = trace_duration(&r->t, f->inside);

	(void)depth;
	s->calls++;
	s->left += how != TRACE_RETURNED;
	add_time(s, total, total > inside ? total - inside : 0);
	count(s, total);
	if (s->last_stream != r->stream + 1) {
		s->last_stream = r->stream + 1;
		s->threads++;
	}
}

/* A coroutine came back: the time away belongs to it after all. */
static void on_late(struct trace_calls *c, const struct trace_frame *f, uint64_t left, uint64_t ts)
{
	struct report *r = c->arg;
	struct stats *s = stats_of(r, r->t.streams[r->stream].image, f->id);

	s->left--;
	s->total += trace_duration(&r->t, ts - left);
}

static int add_row(struct report *r, char *name, const char *object, uint32_t tid,
	struct stats *s)
{
	struct row *more;

	if (r->nrows == r->room) {
		r->room = r->room ? r->room * 2 : 256;
		more = realloc(r->rows, r->room * sizeof *more);
		if (!more)
			return -ENOMEM;
		r->rows = more;
	}
	r->rows[r->nrows++] = (struct row){.name = name, .object = object, .tid = tid, .s = s};
	return 0;
}

/* Rows of all functions that were called, and empties what they came from. */
static int collect(struct report *r, uint32_t tid)
{
	char buf[4096];

	for (size_t k = 0; k < r->t.nobjects; k++) {
		const struct trace_object *o = &r->t.objects[k];

		for (uint32_t i = 0; r->stats[k] && i < o->n; i++) {
			if (!r->stats[k][i].calls)
				continue;
			trace_name(&r->t, o->image, o->first_id + i, buf, sizeof buf);
			if (add_row(r, strdup(buf), o->path, tid, &r->stats[k][i]))
				return -ENOMEM;
		}
		if (r->by_thread)
			r->stats[k] = NULL; /* the rows have it */
	}
	if (r->unknown.calls && !r->by_thread)
		return add_row(r, strdup("(functions without a list)"), "?", tid, &r->unknown);
	return 0;
}

static int read_stream(struct report *r, size_t k)
{
	struct trace_calls c = {.leave = on_leave, .late = on_late, .arg = r};
	struct trace_reader in;
	struct trace_event e;
	int err = trace_reader_init(&in, &r->t, &r->t.streams[k]);

	r->stream = k;
	in.points = true;
	while (!err && trace_reader_next(&in, &e) == 1) {
		if (!r->first || e.ts < r->first)
			r->first = e.ts;
		if (e.ts > r->last)
			r->last = e.ts;
		if (e.is_point) {
			r->point[e.point ? (size_t)(e.point - r->t.points) : r->t.npoints]++;
			r->points++;
			continue;
		}
		r->entries += !e.exit;
		r->exits += e.exit;
		err = trace_calls_event(&c, &e);
	}
	trace_calls_end(&c);
	r->orphans += c.orphans;
	r->damaged += in.damaged;
	trace_reader_end(&in);
	return err;
}

/* --- rows --------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	if (!c)
		c = strcmp(x->object, y->object);
	return c ? c : x->tid < y->tid ? -1 : x->tid > y->tid;
}

/* The same function of several process images is one row. */
static void merge_rows(struct report *r)
{
	size_t n = 0;

	if (r->nrows)
		qsort(r->rows, r->nrows, sizeof *r->rows, by_name);
	for (size_t i = 0; i < r->nrows; i++) {
		struct stats *to, *from = r->rows[i].s;

		if (!n || by_name(&r->rows[n - 1], &r->rows[i])) {
			r->rows[n++] = r->rows[i];
			continue;
		}
		to = r->rows[n - 1].s;
		to->calls += from->calls;
		to->left += from->left;
		to->threads += from->threads;
		to->total += from->total;
		to->self += from->self;
		to->max = from->max > to->max ? from->max : to->max;
		for (unsigned o = 0; o < OCTAVES; o++) {
			if (!from->octave[o])
				continue;
			if (!to->octave[o]) {
				to->octave[o] = from->octave[o];
				continue;
			}
			for (unsigned k = 0; k < 16; k++)
				to->octave[o][k] += from->octave[o][k];
		}
		free(r->rows[i].name);
	}
	r->nrows = n;
}

/* The same tracepoint of several process images is one row. */
static void merge_points(struct report *r)
{
	for (size_t i = 0; i < r->t.npoints; i++)
		if (r->t.points[i].first != i) {
			r->point[r->t.points[i].first] += r->point[i];
			r->point[i] = 0;
		}
}

static const char *sort_key;

static int by_key(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	uint64_t u = x->s->total, v = y->s->total;

	if (!strcmp(sort_key, "name"))
		return by_name(a, b);
	if (!strcmp(sort_key, "self"))
		u = x->s->self, v = y->s->self;
	else if (!strcmp(sort_key, "calls"))
		u = x->s->calls, v = y->s->calls;
	else if (!strcmp(sort_key, "max"))
		u = x->s->max, v = y->s->max;
	else if (!strcmp(sort_key, "p50"))
		u = x->p50, v = y->p50;
	else if (!strcmp(sort_key, "p99"))
		u = x->p99, v = y->p99;
	return u > v ? -1 : u < v ? 1 : by_name(a, b);
}

static const char *human(uint64_t ns, char buf[16])
{
	if (ns < 10000)
		snprintf(buf, 16, "%llu ns", (unsigned long long)ns);
	else if (ns < 10000000)
		snprintf(buf, 16, "%.1f us", (double)ns / 1e3);
	else if (ns < 10000000000ULL)
		snprintf(buf, 16, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(buf, 16, "%.2f s", (double)ns / 1e9);
	return buf;
}

static void print_text(const struct report *r)
{
	char a[5][16];

	printf("%10s %10s %10s %9s %9s %9s %7s  %s\n", "calls", "total", "self", "p50", "p99",
		"max", r->by_thread ? "thread" : "threads", "function");
	for (size_t i = 0; i < r->nrows && (!r->limit || i < r->limit); i++) {
		const struct row *w = &r->rows[i];

		printf("%10llu %10s %10s %9s %9s %9s %7llu  ",
			(unsigned long long)w->s->calls, human(w->s->total, a[0]),
			human(w->s->self, a[1]), human(w->p50, a[2]), human(w->p99, a[3]),
			human(w->s->max, a[4]),
			(unsigned long long)(r->by_thread ? w->tid : w->s->threads));
		shunt_out_plain(stdout, w->name, strlen(w->name));
		putchar('\n');
	}
	for (size_t i = 0; i <= r->t.npoints; i++)
		if (r->point[i])
			printf("%10llu %60s  %s\n", (unsigned long long)r->point[i], "tracepoint",
				i < r->t.npoints ? r->t.points[i].name : "(not described)");
	printf("\n%llu events of %zu threads", (unsigned long long)(r->entries + r->exits + r->points),
		r->t.nstreams);
	if (r->t.has_total)
		printf("; %llu written, %llu discarded, %llu overwritten",
			(unsigned long long)r->t.total.written,
			(unsigned long long)r->t.total.discarded,
			(unsigned long long)r->t.total.overwritten);
	putchar('\n');
}

static void print_json(const struct report *r)
{
	const struct trace_account *a = &r->t.total;

	printf("{\"events\":%llu,\"points\":{",
		(unsigned long long)(r->entries + r->exits + r->points));
	for (size_t i = 0, any = 0; i < r->t.npoints; i++)
		if (r->point[i])
			printf("%s\"%s\":%llu", any++ ? "," : "", r->t.points[i].name,
				(unsigned long long)r->point[i]);
	printf("},\"entries\":%llu,\"exits\":%llu,\"orphan_exits\":%llu,"
	       "\"threads\":%zu,\"complete\":%s,\"duration_ns\":%llu,",
		(unsigned long long)r->entries,
		(unsigned long long)r->exits, (unsigned long long)r->orphans, r->t.nstreams,
		r->t.complete ? "true" : "false",
		(unsigned long long)trace_duration(&r->t, r->last - r->first));
	printf("\"account\":{\"written\":%llu,\"discarded\":%llu,\"overwritten\":%llu,"
	       "\"read\":%llu,\"torn\":%llu},\"functions\":[",
		(unsigned long long)a->written, (unsigned long long)a->discarded,
		(unsigned long long)a->overwritten, (unsigned long long)a->read,
		(unsigned long long)a->torn);
	for (size_t i = 0; i < r->nrows && (!r->limit || i < r->limit); i++) {
		const struct row *w = &r->rows[i];

		printf("%s\n{\"name\":", i ? "," : "");
		shunt_out_json(stdout, w->name, strlen(w->name));
		printf(",\"object\":");
		shunt_out_json(stdout, w->object, strlen(w->object));
		if (r->by_thread)
			printf(",\"thread\":%u", w->tid);
		printf(",\"calls\":%llu,\"total_ns\":%llu,\"self_ns\":%llu,\"p50_ns\":%llu,"
		       "\"p99_ns\":%llu,\"max_ns\":%llu,\"left\":%llu,\"threads\":%llu}",
			(unsigned long long)w->s->calls, (unsigned long long)w->s->total,
			(unsigned long long)w->s->self, (unsigned long long)w->p50,
			(unsigned long long)w->p99, (unsigned long long)w->s->max,
			(unsigned long long)w->s->left, (unsigned long long)w->s->threads);
	}
	puts("\n]}");
}

static void finish_rows(struct report *r)
{
	size_t n = 0;

	merge_rows(r);
	for (size_t i = 0; i < r->nrows; i++)
		if (!r->filter || !fnmatch(r->filter, r->rows[i].name, 0))
			r->rows[n++] = r->rows[i];
	r->nrows = n;
	for (size_t i = 0; i < n; i++) {
		r->rows[i].p50 = percentile(r->rows[i].s, 0.50);
		r->rows[i].p99 = percentile(r->rows[i].s, 0.99);
	}
	sort_key = r->sort;
	if (n)
		qsort(r->rows, n, sizeof *r->rows, by_key);
}

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "shunt report: %s%s%s: shunt report [--sort total|self|calls|p50|p99|max|name] "
			"[--filter GLOB] [--limit N] [--by-thread] [--json] [DIR]\n",
		what, arg ? " " : "", arg ? arg : "");
	return 2;
}

static bool is_key(const char *word)
{
	static const char *const keys[] = {"total", "self", "calls", "p50", "p99", "max", "name"};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!strcmp(word, keys[i]))
			return true;
	return false;
}

static int options(struct report *r, int argc, char **argv)
{
	static const struct option opts[] = {{"sort", 1, NULL, 's'}, {"filter", 1, NULL, 'f'},
		{"limit", 1, NULL, 'n'}, {"json", 0, NULL, 'j'}, {"by-thread", 0, NULL, 't'},
		{NULL, 0, NULL, 0}};
	char *end;
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "s:f:n:jt", opts, NULL)) != -1)
		switch (c) {
		case 's':
			r->sort = optarg;
			if (!is_key(optarg))
				return usage("cannot sort by", optarg);
			break;
		case 'f':
			r->filter = optarg;
			break;
		case 'n':
			r->limit = strtoul(optarg, &end, 10);
			if (*end || end == optarg || *optarg == '-')
				return usage("not a number:", optarg);
			break;
		case 'j':
			r->json = true;
			break;
		case 't':
			r->by_thread = true;
			break;
		default:
			return usage("no such option, or it wants a value:", argv[optind - 1]);
		}
	if (argc - optind > 1)
		return usage("one directory at a time, not also", argv[optind + 1]);
	return 0;
}

int shunt_cmd_report(int argc, char **argv)
{
	struct report r = {.sort = "total"};
	const char *dir;
	int err = options(&r, argc, argv);

	if (err)
		return err;
	dir = optind < argc ? argv[optind] : "shunt.trace";
	err = trace_open(&r.t, dir, say);
	if (err) {
		fprintf(stderr, "shunt report: %s: %s: name a directory that 'shunt record' made\n",
			dir, strerror(-err));
		return 1;
	}
	r.stats = calloc(r.t.nobjects + 1, sizeof *r.stats);
	r.point = calloc(r.t.npoints + 1, sizeof *r.point);
	for (size_t k = 0; k < r.t.nstreams && r.stats && r.point && !err; k++) {
		err = read_stream(&r, k);
		if (!err && r.by_thread)
			err = collect(&r, r.t.streams[k].tid);
	}
	if (!err && !r.by_thread)
		err = collect(&r, 0);
	if (err || !r.stats || !r.point) {
		fprintf(stderr, "shunt report: out of memory\n");
		return 1;
	}
	finish_rows(&r);
	merge_points(&r);
	if (r.json)
		print_json(&r);
	else
		print_text(&r);
	if (r.damaged)
		fprintf(stderr, "shunt: %llu damaged pages were read in part\n",
			(unsigned long long)r.damaged);
	err = !r.t.npages && r.t.size ? 1 : 0;
	trace_close(&r.t);
	return err;
}
