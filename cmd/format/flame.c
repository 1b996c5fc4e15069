/* SPDX-License-Identifier: MIT */
/*
 * flame.c - a flame graph: one SVG file that needs nothing else. All threads
 * are merged; a box's width is the time in that function under those callers.
 * Same input, same picture.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "out.h"

#define NODES_MAX (1u << 20)
#define BUCKETS	  (1u << 16)
#define DEPTH_MAX 400
#define WIDTH	  1200.0
#define ROW	  17
#define TOP	  44

struct node {
	const char *name;
	uint64_t ns, calls;
	uint32_t parent, child, sibling;
	uint32_t chain; /* next in its bucket */
};

struct flame {
	struct trace *t;
	struct names names;
	const struct trace_stream *s;
	struct node *nodes;
	uint32_t n, room;
	uint32_t path[DEPTH_MAX + 1];
	unsigned depth_max;
	FILE *out;
	uint32_t *bucket; /* by parent and name: a function may call thousands */
};

static uint32_t hash(uint32_t h, const char *name)
{
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

static uint32_t child_of(struct flame *f, uint32_t parent, const char *name)
{
	uint32_t h = hash(2166136261u ^ parent, name);
	uint32_t i, *bucket = &f->bucket[(h ^ h >> 16) % BUCKETS];

	for (i = *bucket; i; i = f->nodes[i].chain)
		if (f->nodes[i].parent == parent && !strcmp(f->nodes[i].name, name))
			return i;
	if (f->n == NODES_MAX)
		return parent;
	if (f->n == f->room) {
		struct node *more = realloc(f->nodes, f->room * 2 * sizeof *more);

		if (!more)
			return parent;
		f->nodes = more;
		f->room *= 2;
	}
	i = f->n++;
	f->nodes[i] = (struct node){.name = name, .parent = parent,
		.sibling = f->nodes[parent].child, .chain = *bucket};
	f->nodes[parent].child = i;
	*bucket = i;
	return i;
}

static void on_enter(struct trace_calls *c, const struct trace_frame *fr, size_t depth)
{
	struct flame *f = c->arg;

	if (depth >= DEPTH_MAX)
		return;
	f->path[depth + 1] = child_of(f, f->path[depth],
		names_get(&f->names, f->s->image, fr->id));
	if (depth + 1 > f->depth_max)
		f->depth_max = (unsigned)depth + 1;
}

static void on_leave(struct trace_calls *c, const struct trace_frame *fr, size_t depth,
	uint64_t ts, enum trace_how how)
{
	struct flame *f = c->arg;
	uint64_t ns = trace_duration(f->t, ts - fr->ts);

	(void)how;
	if (depth >= DEPTH_MAX)
		return;
	f->nodes[f->path[depth + 1]].ns += ns;
	f->nodes[f->path[depth + 1]].calls++;
	if (!depth)
		f->nodes[0].ns += ns;
}

static int stream(struct flame *f)
{
	struct trace_calls calls = {.enter = on_enter, .leave = on_leave, .arg = f};
	struct trace_reader in;
	struct trace_event e;
	int r = trace_reader_init(&in, f->t, f->s);

	while (!r && trace_reader_next(&in, &e) == 1)
		r = trace_calls_event(&calls, &e);
	trace_calls_end(&calls);
	trace_reader_end(&in);
	return r;
}

static void xml(FILE *out, const char *s, size_t n)
{
	size_t len = strlen(s), step;

	for (; len && n--; s += step, len -= step) {
		step = 1;
		switch (*s) {
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '&':
			fputs("&amp;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			step = shunt_out_character(out, s, len);
			if (!step)
				return; /* the file says why */
		}
	}
}

static unsigned colour(const char *name)
{
	uint32_t h = hash(2166136261u, name);

	return (205 + h % 50) << 16 | (80 + h / 64 % 120) << 8 | (30 + h / 4096 % 40);
}

static void box(struct flame *f, uint32_t i, double x, double w, unsigned depth)
{
	const struct node *d = &f->nodes[i];
	double y = TOP + (double)(f->depth_max - depth) * ROW;
	size_t fits = (size_t)(w / 7.2);

	fprintf(f->out, "<g><title>");
	xml(f->out, d->name, 400);
	fprintf(f->out, ": %.3f ms, %llu calls, %.2f%%</title>", (double)d->ns / 1e6,
		(unsigned long long)d->calls, 100.0 * (double)d->ns / (double)f->nodes[0].ns);
	fprintf(f->out, "<rect x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"%d\" fill=\"#%06x\"/>",
		x, y, w, ROW - 1, colour(d->name));
	if (fits >= 4) {
		fprintf(f->out, "<text x=\"%.1f\" y=\"%.0f\">", x + 3, y + 12);
		xml(f->out, d->name, fits - 1);
		fprintf(f->out, "</text>");
	}
	fprintf(f->out, "</g>\n");
}

static const struct node *sort_nodes;

static int by_name(const void *a, const void *b)
{
	return strcmp(sort_nodes[*(const uint32_t *)a].name, sort_nodes[*(const uint32_t *)b].name);
}

/* Boxes of a node's children, by name; what would be narrower than a pixel's fifth is left out. */
static int children(struct flame *f, uint32_t parent, double x, unsigned depth)
{
	uint32_t n = 0, *list;
	double unit = WIDTH / (double)f->nodes[0].ns;
	int r = 0;

	for (uint32_t i = f->nodes[parent].child; i; i = f->nodes[i].sibling)
		n += (double)f->nodes[i].ns * unit >= 0.2;
	list = malloc((n + 1) * sizeof *list);
	if (!list)
		return -ENOMEM;
	n = 0;
	for (uint32_t i = f->nodes[parent].child; i; i = f->nodes[i].sibling)
		if ((double)f->nodes[i].ns * unit >= 0.2)
			list[n++] = i;
	sort_nodes = f->nodes;
	if (n)
		qsort(list, n, sizeof *list, by_name);
	for (uint32_t k = 0; k < n && !r; k++) {
		double w = (double)f->nodes[list[k]].ns * unit;

		box(f, list[k], x, w, depth);
		r = children(f, list[k], x, depth + 1);
		x += w;
	}
	free(list);
	return r;
}

static void head(struct flame *f)
{
	unsigned height = TOP + (f->depth_max + 1) * ROW + 8;

	fprintf(f->out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%u\" "
		"viewBox=\"0 0 %.0f %u\">\n",
		WIDTH, height, WIDTH, height);
	fprintf(f->out, "<style>text{font:12px monospace;fill:#000;pointer-events:none}"
			"rect{stroke:#fff;stroke-width:.3}g:hover rect{stroke:#000;stroke-width:1}"
			"</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff8ee\"/>\n"
			"<text x=\"8\" y=\"18\">");
	xml(f->out, f->t->command, 140);
	fprintf(f->out, "</text>\n<text x=\"8\" y=\"34\">%.3f ms in traced functions, %zu threads"
			"</text>\n",
		(double)f->nodes[0].ns / 1e6, f->t->nstreams);
}

int shunt_format_flame(struct trace *t, const char *path)
{
	struct flame f = {.t = t, .room = 4096, .n = 1};
	int r = names_init(&f.names, t);

	f.nodes = calloc(f.room, sizeof *f.nodes);
	f.bucket = calloc(BUCKETS, sizeof *f.bucket);
	if (!f.nodes || !f.bucket)
		r = -ENOMEM;
	for (size_t i = 0; i < t->nstreams && !r; i++) {
		f.s = &t->streams[i];
		r = stream(&f);
	}
	f.out = r ? NULL : fopen(path, "we");
	if (!r && !f.out)
		r = -errno;
	if (f.out) {
		f.nodes[0].ns += !f.nodes[0].ns;
		head(&f);
		r = children(&f, 0, 0, 1);
		fprintf(f.out, "</svg>\n");
		if (ferror(f.out) && !r)
			r = -EIO;
		if (fclose(f.out) && !r)
			r = -errno;
	}
	free(f.nodes);
	free(f.bucket);
	names_free(&f.names);
	return r;
}
