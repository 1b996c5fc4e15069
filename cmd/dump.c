/* SPDX-License-Identifier: MIT */
/* dump.c - `shunt dump`: a trace in the formats of others. */
#include <errno.h>
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
		"--flame OUT.svg [--from SECONDS] [--to SECONDS] [DIR]\n",
		what, arg ? " " : "", arg ? arg : "");
	return 2;
}

struct wish {
	char format;
	const char *out;
	double from, to;
};

static int seconds(const char *text, double *s)
{
	char *end;

	*s = strtod(text, &end);
	return *end || end == text || !(*s >= 0 && *s < 1e9) ? usage("not a time in seconds:", text)
							     : 0;
}

static int options(struct wish *w, int argc, char **argv)
{
	static const struct option opts[] = {{"text", 0, NULL, 't'}, {"raw", 0, NULL, 'r'},
		{"ctf", 1, NULL, 'c'}, {"chrome", 1, NULL, 'j'}, {"flame", 1, NULL, 'f'},
		{"from", 1, NULL, 'b'}, {"to", 1, NULL, 'e'},
		{NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c == '?')
			return usage("no such option, or it wants a value:", argv[optind - 1]);
		if (c == 'b' || c == 'e') {
			int r = seconds(optarg, c == 'b' ? &w->from : &w->to);

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
		return shunt_format_chrome(t, w->out);
	case 'f':
		return shunt_format_flame(t, w->out);
	default:
		return shunt_format_text(t, stdout, w->format == 'r');
	}
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
	t.from_ns = (uint64_t)(w.from * 1e9);
	t.to_ns = (uint64_t)(w.to * 1e9);
	r = write_out(&t, &w);
	if (r == -EEXIST)
		fprintf(stderr, "shunt dump: %s exists: remove it, or name another\n", w.out);
	else if (r)
		fprintf(stderr, "shunt dump: %s: %s\n", w.out ? w.out : "standard output",
			strerror(-r));
	if (!r && !t.npages && t.size)
		r = 1;
	trace_close(&t);
	return r ? 1 : 0;
}
