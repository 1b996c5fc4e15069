/* SPDX-License-Identifier: MIT */
/* dump.c - `shunt dump`: a trace in the formats of others. */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "format/format.h"

static void say(const char *line)
{
	fprintf(stderr, "shunt: %s\n", line);
}

static int usage(const char *what, const char *arg)
{
	fprintf(stderr,
		"shunt dump: %s%s%s: shunt dump --text | --raw | --ctf OUT | --chrome OUT.json | "
		"--flame OUT.svg [--from SECONDS] [--to SECONDS] [--split SECONDS] [--thread TID] "
		"[--filter GLOB] [DIR]\n",
		what, arg ? " " : "", arg ? arg : "");
	return 2;
}

struct wish {
	char format;
	const char *out;
	double from, to, split;
	long thread;
	const char *filter;
};

static int seconds(const char *text, double *s)
{
	char *end;

	*s = strtod(text, &end);
	return *end || end == text || !(*s >= 0 && *s < 1e9) ? usage("not a time in seconds:", text)
							     : 0;
}

/* What part of the trace. */
static int limit(struct wish *w, int c, const char *text)
{
	char *end;

	switch (c) {
	case 'b':
		return seconds(text, &w->from);
	case 'e':
		return seconds(text, &w->to);
	case 's':
		if (seconds(text, &w->split))
			return 2;
		return w->split < 1e-6 ? usage("a part is a microsecond at least, not", text) : 0;
	case 'T':
		w->thread = strtol(text, &end, 10);
		return *end || end == text || w->thread <= 0 ? usage("not a thread's number:", text)
							     : 0;
	default:
		w->filter = text;
		return 0;
	}
}

static int options(struct wish *w, int argc, char **argv)
{
	static const struct option opts[] = {{"text", 0, NULL, 't'}, {"raw", 0, NULL, 'r'},
		{"ctf", 1, NULL, 'c'}, {"chrome", 1, NULL, 'j'}, {"flame", 1, NULL, 'f'},
		{"from", 1, NULL, 'b'}, {"to", 1, NULL, 'e'}, {"split", 1, NULL, 's'},
		{"thread", 1, NULL, 'T'}, {"filter", 1, NULL, 'F'},
		{NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c == '?')
			return usage("no such option, or it wants a value:", argv[optind - 1]);
		if (strchr("besTF", c)) {
			int r = limit(w, c, optarg);

			if (r)
				return r;
			continue;
		}
		if (w->format)
			return usage("one format at a time", NULL);
		w->format = (char)c;
		w->out = optarg;
	}
	if (!w->format)
		return usage("say which format", NULL);
	if (w->split > 0 && w->format != 'j')
		return usage("--split is for --chrome", NULL);
	if (argc - optind > 1)
		return usage("one directory at a time, not also", argv[optind + 1]);
	return 0;
}

static int write_out(struct trace *t, const struct wish *w)
{
	switch (w->format) {
	case 'c':
		return shunt_format_ctf(t, w->out);
	case 'j':
		return shunt_format_chrome(t, w->out, (uint64_t)(w->split * 1e9));
	case 'f':
		return shunt_format_flame(t, w->out);
	default:
		return shunt_format_text(t, stdout, w->format == 'r');
	}
}

/* Leaves only this thread's streams. False: it has none. */
static bool only_thread(struct trace *t, long tid)
{
	size_t n = 0;

	for (size_t i = 0; i < t->nstreams; i++)
		if (t->streams[i].tid == tid)
			t->streams[n++] = t->streams[i];
	t->nstreams = n;
	return n > 0;
}

/* Leaves only functions and tracepoints of this name. False: there is none. */
static bool only_named(struct trace *t, const char *glob)
{
	char buf[4096];
	bool any = false;

	for (size_t k = 0; k < t->nobjects; k++) {
		struct trace_object *o = &t->objects[k];

		for (uint32_t i = 0; i < o->n; i++) {
			trace_name(t, o->image, o->first_id + i, buf, sizeof buf);
			o->functions[i].hidden = fnmatch(glob, buf, 0) != 0;
			any = any || !o->functions[i].hidden;
		}
	}
	for (size_t i = 0; i < t->npoints; i++) {
		t->points[i].hidden = fnmatch(glob, t->points[i].name, 0) != 0;
		any = any || !t->points[i].hidden;
	}
	t->some_hidden = true;
	return any;
}

/* 0, or what to exit with. */
static int narrow(struct trace *t, const struct wish *w, const char *dir)
{
	t->from_ns = (uint64_t)(w->from * 1e9);
	t->to_ns = (uint64_t)(w->to * 1e9);
	if (w->thread && !only_thread(t, w->thread)) {
		fprintf(stderr, "shunt dump: thread %ld wrote nothing into %s: 'shunt report "
				"--by-thread' has those that did\n", w->thread, dir);
		return 1;
	}
	if (w->filter && !only_named(t, w->filter)) {
		fprintf(stderr, "shunt dump: nothing in %s is called '%s': 'shunt report' has "
				"the names\n", dir, w->filter);
		return 1;
	}
	return 0;
}

int shunt_cmd_dump(int argc, char **argv)
{
	struct wish w = {0};
	const char *dir;
	struct trace t;
	int r = options(&w, argc, argv);

	if (r)
		return r;
	dir = optind < argc ? argv[optind] : "shunt.trace";
	r = trace_open(&t, dir, say);
	if (r) {
		fprintf(stderr, "shunt dump: %s: %s: name a directory that 'shunt record' made\n",
			dir, strerror(-r));
		return 1;
	}
	if (narrow(&t, &w, dir)) {
		trace_close(&t);
		return 1;
	}
	r = write_out(&t, &w);
	if (r == -E2BIG)
		fprintf(stderr, "shunt dump: more than 512 parts: give --split a longer time\n");
	else if (r == -EEXIST)
		fprintf(stderr, "shunt dump: %s exists: remove it, or name another\n", w.out);
	else if (r)
		fprintf(stderr, "shunt dump: %s: %s\n", w.out ? w.out : "standard output",
			strerror(-r));
	if (!r && !t.npages && t.size)
		r = 1;
	trace_close(&t);
	return r ? 1 : 0;
}
