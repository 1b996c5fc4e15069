/* SPDX-License-Identifier: MIT */
/*
 * text.c - a trace as text, all threads merged by time: the way function_graph
 * prints it, or one event a line.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "out.h"

struct lane {
	struct trace_reader in;
	struct trace_calls calls;
	struct trace_event next;
	const struct trace_stream *s;
	struct text *text;
};

struct text {
	struct trace *t;
	struct names names;
	FILE *out;
	bool raw;
	struct lane *lanes;
	size_t *heap, n; /* lanes, the earliest first */
};

static bool earlier(const struct text *x, size_t a, size_t b)
{
	uint64_t u = x->lanes[a].next.ts, v = x->lanes[b].next.ts;

	return u < v || (u == v && a < b);
}

static void sift(struct text *x, size_t i)
{
	for (;;) {
		size_t l = 2 * i + 1, m = i, t;

		if (l < x->n && earlier(x, x->heap[l], x->heap[m]))
			m = l;
		if (l + 1 < x->n && earlier(x, x->heap[l + 1], x->heap[m]))
			m = l + 1;
		if (m == i)
			return;
		t = x->heap[i];
		x->heap[i] = x->heap[m];
		x->heap[m] = t;
		i = m;
	}
}

static void stamp(const struct lane *l, uint64_t ts)
{
	uint64_t ns = trace_ns(l->text->t, ts);

	size_t len = strlen(l->s->comm);

	fprintf(l->text->out, "%6llu.%09llu %7u ", (unsigned long long)(ns / 1000000000),
		(unsigned long long)(ns % 1000000000), l->s->tid);
	shunt_out_plain(l->text->out, l->s->comm, len);
	fprintf(l->text->out, "%*s ", len < 15 ? (int)(15 - len) : 0, "");
}

static void print_name(const struct lane *l, uint32_t id)
{
	const char *name = names_get(&l->text->names, l->s->image, id);

	shunt_out_plain(l->text->out, name, strlen(name));
}

static void indent(FILE *f, size_t depth)
{
	fprintf(f, "| %*s", (int)(depth < 60 ? depth * 2 : 120), "");
}

static void on_enter(struct trace_calls *c, const struct trace_frame *f, size_t depth)
{
	struct lane *l = c->arg;

	stamp(l, f->ts);
	indent(l->text->out, depth);
	print_name(l, f->id);
	fputs("() {\n", l->text->out);
}

static void on_leave(struct trace_calls *c, const struct trace_frame *f, size_t depth, uint64_t ts,
	enum trace_how how)
{
	static const char *const hows[] = {"", " (left)", " (unfinished)"};
	struct lane *l = c->arg;
	uint64_t ns = trace_duration(l->text->t, ts - f->ts);

	stamp(l, ts);
	indent(l->text->out, depth);
	fputs("} /* ", l->text->out);
	print_name(l, f->id);
	fprintf(l->text->out, " %llu.%03llu us%s */\n", (unsigned long long)(ns / 1000),
		(unsigned long long)(ns % 1000), hows[how]);
}

/* In its place between the functions: "provider:name: a=1, b=2". */
static void print_point(const struct lane *l)
{
	const struct trace_event *e = &l->next;
	FILE *out = l->text->out;

	stamp(l, e->ts);
	if (!l->text->raw)
		indent(out, l->calls.n);
	else
		fputs("point ", out);
	if (e->point) {
		fprintf(out, "%s%s", e->point->name, e->point->nfields ? ": " : "");
		trace_point_print(out, e->point, e->data, e->len, false);
	} else {
		fprintf(out, "tracepoint-%u: %zu bytes", e->id, e->len);
	}
	putc('\n', out);
}

static int start(struct text *x)
{
	int r = 0;

	x->lanes = calloc(x->t->nstreams + 1, sizeof *x->lanes);
	x->heap = calloc(x->t->nstreams + 1, sizeof *x->heap);
	if (!x->lanes || !x->heap)
		return -ENOMEM;
	for (size_t i = 0; i < x->t->nstreams && !r; i++) {
		struct lane *l = &x->lanes[i];

		l->s = &x->t->streams[i];
		l->text = x;
		l->calls = (struct trace_calls){.enter = on_enter, .leave = on_leave, .arg = l};
		r = trace_reader_init(&l->in, x->t, l->s);
		l->in.points = true;
		if (!r && trace_reader_next(&l->in, &l->next) == 1)
			x->heap[x->n++] = i;
	}
	for (size_t i = x->n / 2 + 1; i-- > 0;)
		sift(x, i);
	return r;
}

static int one(struct text *x)
{
	struct lane *l = &x->lanes[x->heap[0]];
	int r = 0;

	if (l->next.is_point) {
		print_point(l);
	} else if (x->raw) {
		stamp(l, l->next.ts);
		fputs(l->next.exit ? "exit  " : "entry ", x->out);
		print_name(l, l->next.id);
		putc('\n', x->out);
	} else {
		r = trace_calls_event(&l->calls, &l->next);
	}
	if (trace_reader_next(&l->in, &l->next) != 1) {
		trace_calls_end(&l->calls);
		x->heap[0] = x->heap[--x->n];
	}
	sift(x, 0);
	return r;
}

int shunt_format_text(struct trace *t, FILE *out, bool raw)
{
	struct text x = {.t = t, .out = out, .raw = raw};
	int r = names_init(&x.names, t);

	if (!r)
		r = start(&x);
	while (!r && x.n && !ferror(out))
		r = one(&x);
	for (size_t i = 0; x.lanes && i < t->nstreams; i++)
		trace_reader_end(&x.lanes[i].in);
	free(x.lanes);
	free(x.heap);
	names_free(&x.names);
	if (!r && (fflush(out) || ferror(out)))
		r = -EIO;
	return r;
}
