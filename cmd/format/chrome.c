/* SPDX-License-Identifier: MIT */
/*
 * chrome.c - Chrome's trace event format, for Perfetto and chrome://tracing:
 * B and E events, which nest by construction, in microseconds since the start.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

struct chrome {
	struct trace *t;
	struct names names;
	FILE *out;
	const struct trace_stream *s;
	bool any;
};

static void event(struct chrome *c, char phase, uint64_t ts, uint32_t id)
{
	uint64_t ns = trace_ns(c->t, ts);

	fprintf(c->out, "%s\n{\"ph\":\"%c\",\"ts\":%llu.%03llu,\"pid\":%u,\"tid\":%u",
		c->any ? "," : "", phase, (unsigned long long)(ns / 1000),
		(unsigned long long)(ns % 1000), c->s->pid, c->s->tid);
	fprintf(c->out, ",\"name\":");
	print_json_string(c->out, names_get(&c->names, c->s->image, id));
	putc('}', c->out);
	c->any = true;
}

static void on_enter(struct trace_calls *c, const struct trace_frame *f, size_t depth)
{
	(void)depth;
	event(c->arg, 'B', f->ts, f->id);
}

static void on_leave(struct trace_calls *c, const struct trace_frame *f, size_t depth, uint64_t ts,
	enum trace_how how)
{
	(void)depth;
	(void)how;
	event(c->arg, 'E', ts, f->id);
}

static void name_thread(struct chrome *c)
{
	fprintf(c->out, "%s\n{\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"name\":\"thread_name\",\"args\":"
			"{\"name\":",
		c->any ? "," : "", c->s->pid, c->s->tid);
	print_json_string(c->out, c->s->comm);
	fprintf(c->out, "}}");
	c->any = true;
}

static int stream(struct chrome *c)
{
	struct trace_calls calls = {.enter = on_enter, .leave = on_leave, .arg = c};
	struct trace_reader in;
	struct trace_event e;
	int r = trace_reader_init(&in, c->t, c->s);

	name_thread(c);
	while (!r && trace_reader_next(&in, &e) == 1)
		r = trace_calls_event(&calls, &e);
	trace_calls_end(&calls);
	trace_reader_end(&in);
	return r;
}

int shunt_format_chrome(struct trace *t, const char *path)
{
	struct chrome c = {.t = t, .out = fopen(path, "we")};
	int r;

	if (!c.out)
		return -errno;
	r = names_init(&c.names, t);
	fprintf(c.out, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"command\":");
	print_json_string(c.out, t->command);
	fprintf(c.out, "},\"traceEvents\":[");
	for (size_t i = 0; i < t->nstreams && !r; i++) {
		c.s = &t->streams[i];
		r = stream(&c);
	}
	fprintf(c.out, "\n]}\n");
	names_free(&c.names);
	if (ferror(c.out) && !r)
		r = -EIO;
	if (fclose(c.out) && !r)
		r = -errno;
	return r;
}
