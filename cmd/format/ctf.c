/* SPDX-License-Identifier: MIT */
/*
 * ctf.c - Common Trace Format 1.8, as babeltrace2 and Trace Compass read it: a
 * stream file for each thread, in packets of up to 256 KiB. Events are named as
 * LTTng-UST's function tracing, for which Trace Compass draws flame charts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"

#define MAGIC 0xC1FC1FC1u
/* The packet's header and context, bytes: see metadata(). */
#define HEAD (4 + 16 + 4 + 6 * 8 + 4)

struct ctf {
	struct trace *t;
	struct names names;
	const char *dir;
	uint8_t uuid[16];
	const struct trace_stream *s;
	FILE *out;
	char *buf;
	size_t n, room;
	uint64_t begin, end, packets, discarded;
};

static void put(struct ctf *c, const void *data, size_t size)
{
	if (c->n + size > c->room) {
		size_t room = c->room ? c->room * 2 : 1 << 16;
		char *more = realloc(c->buf, room);

		if (!more)
			return;
		c->buf = more;
		c->room = room;
	}
	memcpy(c->buf + c->n, data, size);
	c->n += size;
}

static void put32(struct ctf *c, uint32_t v)
{
	put(c, &v, 4);
}

static void put64(struct ctf *c, uint64_t v)
{
	put(c, &v, 8);
}

static void packet_end(struct ctf *c)
{
	size_t n = c->n;
	uint64_t bits = (uint64_t)n * 8;

	if (n <= HEAD)
		return;
	c->n = 0;
	put32(c, MAGIC);
	put(c, c->uuid, 16);
	put32(c, 0);
	put64(c, c->begin);
	put64(c, c->end);
	put64(c, bits);
	put64(c, bits);
	put64(c, c->packets++);
	put64(c, c->discarded);
	put32(c, 0); /* cpu_id: a thread is not bound to one */
	fwrite(c->buf, 1, n, c->out);
	c->n = HEAD;
}

/* Of an event's class: entries, exits, what is not described, and each tracepoint. */
enum { ENTRY, EXIT, UNKNOWN, POINTS };

/* Equal tracepoints of several process images are one class. */
static uint16_t class_of(const struct trace_point *p)
{
	return p->first < UINT16_MAX - POINTS ? (uint16_t)(POINTS + p->first) : UNKNOWN;
}

static void point_fields(struct ctf *c, const struct trace_event *e)
{
	if (!e->point || class_of(e->point) == UNKNOWN) {
		put32(c, e->id);
		put32(c, (uint32_t)e->len);
	}
	put(c, e->data, e->len); /* CTF's own layout */
}

static void function_fields(struct ctf *c, const struct trace_event *e)
{
	const struct trace_object *o = NULL;
	const struct trace_function *f = trace_function(c->t, c->s->image, e->id, &o);
	const char *name = names_get(&c->names, c->s->image, e->id);

	put64(c, f ? o->base + f->offset : e->id);
	put(c, name, strlen(name) + 1);
}

static void event(struct ctf *c, const struct trace_event *e)
{
	uint64_t ns = trace_ns(c->t, e->ts);
	uint16_t id = !e->is_point ? e->exit : e->point ? class_of(e->point) : UNKNOWN;

	if (ns < c->end)
		ns = c->end; /* damaged pages only: a clock does not go back */
	if (c->n == HEAD)
		c->begin = ns;
	c->end = ns;
	put(c, &id, 2);
	put64(c, ns);
	put32(c, c->s->pid);
	put32(c, c->s->tid);
	put(c, c->s->comm, strlen(c->s->comm) + 1);
	if (e->is_point)
		point_fields(c, e);
	else
		function_fields(c, e);
	if (c->n > 1 << 18)
		packet_end(c);
}

/* A thread's losses only grow: readers take a smaller number for an overflow. */
static void lost(struct ctf *c, uint64_t discarded)
{
	if (discarded > c->discarded)
		c->discarded = discarded;
}

/* What it lost after its last page was begun is only in the account. */
static void lost_at_end(struct ctf *c)
{
	for (size_t i = 0; i < c->t->nthreads; i++) {
		const struct trace_thread *th = &c->t->threads[i];

		if (th->slot == c->s->slot && th->image == c->s->image &&
			th->pid == c->s->pid && th->tid == c->s->tid)
			lost(c, th->account.discarded);
	}
}

static int stream(struct ctf *c, size_t k)
{
	struct trace_reader in;
	struct trace_event e;
	char path[4608];
	int r = trace_reader_init(&in, c->t, c->s);

	snprintf(path, sizeof path, "%s/thread_%u_%u_%zu", c->dir, c->s->pid, c->s->tid, k);
	c->out = r ? NULL : fopen(path, "we");
	if (!c->out) {
		trace_reader_end(&in);
		return r ? r : -errno;
	}
	c->n = 0;
	c->end = 0;
	c->packets = 0;
	c->discarded = 0;
	put(c, (char[HEAD]){0}, HEAD);
	in.points = true;
	while (trace_reader_next(&in, &e) == 1) {
		lost(c, c->t->pages[c->s->first + in.page - 1].discarded);
		event(c, &e);
	}
	lost_at_end(c);
	packet_end(c);
	trace_reader_end(&in);
	if (ferror(c->out))
		r = -EIO;
	if (fclose(c->out) && !r)
		r = -errno;
	return r;
}

static void quoted(FILE *f, const char *s)
{
	putc('"', f);
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s >= 0x20 && (unsigned char)*s < 0x7f)
			putc(*s, f);
	putc('"', f);
}

static const char types[] =
	"typealias integer { size = 64; align = 8; signed = false; map = clock.shunt.value; } := "
	"stamp;\n"
	"typealias integer { size = 64; align = 8; signed = false; } := u64;\n"
	"typealias integer { size = 64; align = 8; signed = false; base = 16; } := addr64;\n"
	"typealias integer { size = 32; align = 8; signed = false; } := u32;\n"
	"typealias integer { size = 16; align = 8; signed = false; } := u16;\n"
	"typealias integer { size = 8; align = 8; signed = false; } := u8;\n\n";

/* Names get an underscore before them, which readers take off: they may be words of TSDL. */
static void field_metadata(FILE *f, const struct trace_field *x, size_t at)
{
	char type[200];

	fputs("\t\t", f);
	if (x->shape == TRACE_STRING) {
		fprintf(f, "string _%s;\n", x->name);
		return;
	}
	if (x->type == 'f')
		snprintf(type, sizeof type, "floating_point { exp_dig = %d; mant_dig = %d; align = 8; }",
			x->size == 8 ? 11 : 8, x->size == 8 ? 53 : 24);
	else
		snprintf(type, sizeof type, "integer { size = %d; align = 8; signed = %s;%s }", x->size * 8,
			x->type == 's' ? "true" : "false", x->type == 'p' ? " base = 16;" : "");
	if (x->shape == TRACE_SEQUENCE)
		fprintf(f, "u32 n%zu;\n\t\t", at); /* no field has such a name */
	if (x->nlabels) {
		fprintf(f, "enum : %s {", type);
		for (size_t i = 0; i < x->nlabels; i++)
			fprintf(f, "%s \"%s\" = %lld", i ? "," : "", x->labels[i].name,
				(long long)x->labels[i].value);
		fprintf(f, " } _%s", x->name);
	} else {
		fprintf(f, "%s _%s", type, x->name);
	}
	if (x->shape == TRACE_ARRAY)
		fprintf(f, "[%u]", x->count);
	if (x->shape == TRACE_SEQUENCE)
		fprintf(f, "[n%zu]", at);
	fputs(";\n", f);
}

static void point_metadata(struct ctf *c, FILE *f)
{
	fprintf(f,
		"event {\n\tname = \"shunt:unknown\";\n\tid = %d;\n\tstream_id = 0;\n"
		"\tfields := struct { u32 _kind; u32 __data_length; u8 _data[__data_length]; };\n};\n\n",
		UNKNOWN);
	for (size_t i = 0; i < c->t->npoints; i++) {
		const struct trace_point *p = &c->t->points[i];

		if (class_of(p) != POINTS + i)
			continue;
		fprintf(f, "event {\n\tname = \"%s\";\n\tid = %zu;\n\tstream_id = 0;\n\tfields := struct {\n",
			p->name, POINTS + i);
		for (size_t k = 0; k < p->nfields; k++)
			field_metadata(f, &p->fields[k], k);
		fprintf(f, "\t};\n};\n\n");
	}
}

static int metadata(struct ctf *c)
{
	char path[4608], uuid[40];
	const uint8_t *u = c->uuid;
	FILE *f;

	snprintf(path, sizeof path, "%s/metadata", c->dir);
	f = fopen(path, "we");
	if (!f)
		return -errno;
	snprintf(uuid, sizeof uuid,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		u[15]);
	fprintf(f, "/* CTF 1.8 */\n\n%s", types);
	fprintf(f,
		"trace {\n\tmajor = 1;\n\tminor = 8;\n\tuuid = \"%s\";\n\tbyte_order = le;\n"
		"\tpacket.header := struct { u32 magic; u8 uuid[16]; u32 stream_id; };\n};\n\n",
		uuid);
	fprintf(f, "env {\n\tdomain = \"ust\";\n\ttracer_name = \"shunt\";\n\thostname = ");
	quoted(f, c->t->host);
	fprintf(f, ";\n\tcommand = ");
	quoted(f, c->t->command);
	fprintf(f, ";\n};\n\n");
	fprintf(f,
		"clock {\n\tname = \"shunt\";\n\tfreq = 1000000000;\n\toffset_s = %llu;\n"
		"\toffset = %llu;\n};\n\n",
		(unsigned long long)(c->t->base_ns / 1000000000),
		(unsigned long long)(c->t->base_ns % 1000000000));
	fprintf(f, "stream {\n\tid = 0;\n"
		   "\tpacket.context := struct { stamp timestamp_begin; stamp timestamp_end; "
		   "u64 content_size; u64 packet_size; u64 packet_seq_num; "
		   "u64 events_discarded; u32 cpu_id; };\n"
		   "\tevent.header := struct { u16 id; stamp timestamp; };\n"
		   "\tevent.context := struct { u32 _vpid; u32 _vtid; string _procname; };\n"
		   "};\n\n");
	for (int exit_ = 0; exit_ < 2; exit_++)
		fprintf(f,
			"event {\n\tname = \"lttng_ust_cyg_profile:func_%s\";\n\tid = %d;\n"
			"\tstream_id = 0;\n"
			"\tfields := struct { addr64 addr; string _name; };\n};\n\n",
			exit_ ? "exit" : "entry", exit_);
	point_metadata(c, f);
	return fclose(f) ? -errno : 0;
}

static void make_uuid(uint8_t u[16])
{
	FILE *f = fopen("/dev/urandom", "re");

	if (!f || fread(u, 1, 16, f) != 16)
		memset(u, 0x5a, 16);
	if (f)
		fclose(f);
	u[6] = (u[6] & 0x0f) | 0x40; /* RFC 4122, 4.4 */
	u[8] = (u[8] & 0x3f) | 0x80;
}

int shunt_format_ctf(struct trace *t, const char *dir)
{
	struct ctf c = {.t = t, .dir = dir};
	int r = names_init(&c.names, t);

	if (!r && mkdir(dir, 0777))
		r = -errno;
	make_uuid(c.uuid);
	if (!r)
		r = metadata(&c);
	for (size_t i = 0; i < t->nstreams && !r; i++) {
		c.s = &t->streams[i];
		r = stream(&c, i);
	}
	free(c.buf);
	names_free(&c.names);
	return r;
}
