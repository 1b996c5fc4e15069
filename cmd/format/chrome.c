/* SPDX-License-Identifier: MIT */
/*
 * chrome.c - Chrome's trace event format, for Perfetto and chrome://tracing:
 * B and E events, which nest by construction, in microseconds since the start, and an
 * instant event for each tracepoint's.
 *
 * Viewers take some hundred megabytes, so the trace may be cut into parts of equal
 * time, each a file of its own. What a thread is in at a cut ends in the one part
 * and begins in the next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "out.h"

#define PARTS_MAX 512

struct part {
	FILE *out;
	const struct trace_stream *named; /* the last thread that is introduced in it */
	bool any;
};

struct chrome {
	struct trace *t;
	struct names names;
	const struct trace_stream *s;
	const char *path;
	uint64_t width; /* of a part in ns, 0: one part */
	struct part *parts;
	size_t nparts, now; /* now: where the thread is */
	uint32_t *open;	    /* functions that the thread is in */
	size_t depth, room;
	int err;
};

/* --- parts ---------------------------------------------------------------------- */

/* out.json is out-001.json, and so on. */
static FILE *part_file(const struct chrome *c, size_t i)
{
	const char *dot = strrchr(c->path, '.');
	size_t stem = dot && !strchr(dot, '/') ? (size_t)(dot - c->path) : strlen(c->path);
	char path[4200];

	if (!c->width)
		return fopen(c->path, "we");
	snprintf(path, sizeof path, "%.*s-%03zu%s", (int)stem, c->path, i + 1, c->path + stem);
	return fopen(path, "we");
}

static int part_begin(struct chrome *c, size_t i)
{
	struct part *p = &c->parts[i];

	p->out = part_file(c, i);
	if (!p->out)
		return -errno;
	fprintf(p->out, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"command\":");
	shunt_out_json(p->out, c->t->command, strlen(c->t->command));
	fprintf(p->out, "},\"traceEvents\":[");
	return 0;
}

static struct part *part(struct chrome *c, size_t i)
{
	struct part *more;

	if (c->err)
		return NULL;
	if (i >= PARTS_MAX) {
		c->err = -E2BIG;
		return NULL;
	}
	if (i >= c->nparts) {
		more = realloc(c->parts, (i + 1) * sizeof *more);
		if (!more) {
			c->err = -ENOMEM;
			return NULL;
		}
		memset(more + c->nparts, 0, (i + 1 - c->nparts) * sizeof *more);
		c->parts = more;
		c->nparts = i + 1;
	}
	if (!c->parts[i].out)
		c->err = part_begin(c, i);
	return c->err ? NULL : &c->parts[i];
}

static int parts_end(struct chrome *c)
{
	for (size_t i = 0; i < c->nparts; i++) {
		FILE *f = c->parts[i].out;

		if (!f)
			continue;
		fprintf(f, "\n]}\n");
		if (ferror(f) && !c->err)
			c->err = -EIO;
		if (fclose(f) && !c->err)
			c->err = -errno;
	}
	free(c->parts);
	return c->err;
}

/* --- events --------------------------------------------------------------------- */

static void metadata(struct chrome *c, struct part *p, const char *what, const char *name)
{
	fprintf(p->out, "%s\n{\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"name\":\"%s\",\"args\":{\"name\":",
		p->any ? "," : "", c->s->pid, c->s->tid, what);
	shunt_out_json(p->out, name, strlen(name));
	fprintf(p->out, "}}");
	p->any = true;
}

static const char *process_name(const struct chrome *c)
{
	const char *slash;

	/* A program's own object is its image's first. */
	for (size_t i = 0; i < c->t->nobjects; i++) {
		if (c->t->objects[i].image != c->s->image || !c->t->objects[i].path)
			continue;
		slash = strrchr(c->t->objects[i].path, '/');
		return slash ? slash + 1 : c->t->objects[i].path;
	}
	return c->s->comm;
}

static void introduce(struct chrome *c, struct part *p)
{
	if (p->named == c->s)
		return;
	p->named = c->s;
	metadata(c, p, "process_name", process_name(c));
	metadata(c, p, "thread_name", c->s->comm);
}

static void event(struct chrome *c, size_t where, char phase, uint64_t ns, uint32_t id)
{
	struct part *p = part(c, where);
	const char *name;

	if (!p)
		return;
	introduce(c, p);
	fprintf(p->out, ",\n{\"ph\":\"%c\",\"ts\":%llu.%03llu,\"pid\":%u,\"tid\":%u,\"name\":", phase,
		(unsigned long long)(ns / 1000), (unsigned long long)(ns % 1000), c->s->pid,
		c->s->tid);
	name = names_get(&c->names, c->s->image, id);
	shunt_out_json(p->out, name, strlen(name));
	putc('}', p->out);
}

/* Instant events of a thread. */
static void point(struct chrome *c, size_t where, uint64_t ns, const struct trace_event *e)
{
	struct part *p = part(c, where);

	if (!p)
		return;
	introduce(c, p);
	fprintf(p->out, ",\n{\"ph\":\"i\",\"s\":\"t\",\"ts\":%llu.%03llu,\"pid\":%u,\"tid\":%u,\"name\":",
		(unsigned long long)(ns / 1000), (unsigned long long)(ns % 1000), c->s->pid, c->s->tid);
	if (e->point)
		fprintf(p->out, "\"%s\",\"args\":{", e->point->name);
	else
		fprintf(p->out, "\"tracepoint-%u\",\"args\":{", e->id);
	if (e->point)
		trace_point_print(p->out, e->point, e->data, e->len, true);
	fputs("}}", p->out);
}

/* The part that `ns` is in; what the thread is in is carried over each cut. */
static size_t go_to(struct chrome *c, uint64_t ns)
{
	size_t to = c->width ? ns / c->width : 0;

	for (; c->depth && c->now < to && !c->err; c->now++) {
		uint64_t cut = (c->now + 1) * c->width;

		for (size_t i = c->depth; i-- > 0;)
			event(c, c->now, 'E', cut, c->open[i]);
		for (size_t i = 0; i < c->depth; i++)
			event(c, c->now + 1, 'B', cut, c->open[i]);
	}
	/* A thread's times only ascend. */
	if (to > c->now)
		c->now = to;
	return c->now;
}

static void on_enter(struct trace_calls *calls, const struct trace_frame *f, size_t depth)
{
	struct chrome *c = calls->arg;
	uint64_t ns = trace_ns(c->t, f->ts);
	size_t where = go_to(c, ns);
	uint32_t *more;

	(void)depth;
	if (c->depth == c->room) {
		c->room = c->room ? c->room * 2 : 256;
		more = realloc(c->open, c->room * sizeof *more);
		if (!more) {
			c->err = -ENOMEM;
			c->room = c->depth;
			return;
		}
		c->open = more;
	}
	c->open[c->depth++] = f->id;
	event(c, where, 'B', ns, f->id);
}

static void on_leave(struct trace_calls *calls, const struct trace_frame *f, size_t depth,
	uint64_t ts, enum trace_how how)
{
	struct chrome *c = calls->arg;
	uint64_t ns = trace_ns(c->t, ts);
	size_t where = go_to(c, ns);

	(void)depth;
	(void)how;
	if (c->depth)
		c->depth--;
	event(c, where, 'E', ns, f->id);
}

static int stream(struct chrome *c)
{
	struct trace_calls calls = {.enter = on_enter, .leave = on_leave, .arg = c};
	struct trace_reader in;
	struct trace_event e;
	int r = trace_reader_init(&in, c->t, c->s);

	c->now = c->depth = 0;
	in.points = true;
	while (!r && !c->err && trace_reader_next(&in, &e) == 1) {
		uint64_t ns = trace_ns(c->t, e.ts);

		if (e.is_point)
			point(c, go_to(c, ns), ns, &e);
		else
			r = trace_calls_event(&calls, &e);
	}
	trace_calls_end(&calls);
	trace_reader_end(&in);
	return r ? r : c->err;
}

int shunt_format_chrome(struct trace *t, const char *path, uint64_t width)
{
	struct chrome c = {.t = t, .path = path, .width = width};
	int r = names_init(&c.names, t), end;

	if (!r && !width && !part(&c, 0))
		r = c.err;
	for (size_t i = 0; i < t->nstreams && !r; i++) {
		c.s = &t->streams[i];
		r = stream(&c);
	}
	end = parts_end(&c);
	free(c.open);
	names_free(&c.names);
	return r ? r : end;
}
