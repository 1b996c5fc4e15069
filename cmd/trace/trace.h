/* SPDX-License-Identifier: MIT */
/*
 * trace.h - a trace directory, read without trusting it.
 *
 *	info      what was recorded, and the clock
 *	data      pages as the ring gave them (shunt/ring.h)
 *	objects/  the functions of each object of each process image
 *	points-N  the tracepoints of process image N
 *	threads   the account
 *
 * Memory grows with the number of pages (32 bytes each) and of functions, not
 * with the size of the data: pages are read as they are needed.
 *
 * What is wrong with a trace is said through trace->warn, a line each; what can
 * be read in spite of it is read.
 */
#ifndef SHUNT_CMD_TRACE_H
#define SHUNT_CMD_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shunt/ring.h>

#include "point.h"

struct trace_function {
	uint64_t offset; /* in its object */
	uint64_t size;
	const char *name; /* raw; NULL: unknown */
	bool hidden;	  /* its events are passed over, if trace->some_hidden */
};

struct trace_object {
	uint32_t image, pid, first_id, n;
	uint64_t base;
	const char *path;
	struct trace_function *functions;
	char *text; /* the file; names point into it */
};

struct trace_account {
	uint64_t written, discarded, overwritten, read, torn;
};

struct trace_thread {
	uint32_t slot, image, pid, tid;
	char comm[17];
	struct trace_account account;
};

struct trace_page {
	uint64_t at; /* in data */
	uint64_t seq;
	uint64_t ts;
	uint32_t stream;
	uint32_t discarded; /* the thread's until then, cut to 32 bits */
};

/* One thread's pages, in its own order. */
struct trace_stream {
	uint32_t image, pid, tid, slot;
	const char *comm;
	size_t first, n; /* in trace->pages */
};

struct trace {
	/* info */
	uint32_t page_size;
	bool has_clock;
	uint64_t hz, base_ticks, base_ns;
	bool overwrite, complete;
	char command[512], host[128], started[64], shm[256];

	struct trace_object *objects; /* by image, first_id */
	size_t nobjects;
	struct trace_point *points;
	size_t npoints;
	char **point_texts; /* names point into them */
	size_t npoint_texts;
	struct trace_thread *threads;
	size_t nthreads;
	struct trace_account total;
	bool has_total;

	struct trace_page *pages; /* by stream, seq */
	size_t npages;
	struct trace_stream *streams;
	size_t nstreams;

	/* Only events of [from, to), ns since the start; to 0: no end. */
	uint64_t from_ns, to_ns;
	bool some_hidden;

	uint64_t warnings;
	void (*warn)(const char *line);
	/* the data file: a descriptor, or memory */
	int fd;
	const void *memory;
	uint64_t size;
};

/* 0, or -errno when nothing at all can be read. `warn` may be NULL. */
int trace_open(struct trace *t, const char *dir, void (*warn)(const char *line));
void trace_close(struct trace *t);

/* The pieces, for tests and fuzzers: texts end with a NUL and are changed. */
void trace_init(struct trace *t, void (*warn)(const char *line));
int trace_parse_info(struct trace *t, char *text);
int trace_parse_object(struct trace *t, char *text, const char *what); /* takes text over */
void trace_parse_threads(struct trace *t, char *text);
int trace_index(struct trace *t); /* after fd or memory, size and info are set */

/* The function with this id; NULL: none known. `object` may be NULL. */
const struct trace_function *trace_function(const struct trace *t, uint32_t image, uint32_t id,
	const struct trace_object **object);

/* Its name for people: demangled, or object+offset, or a number. Into buf. */
const char *trace_name(const struct trace *t, uint32_t image, uint32_t id, char *buf,
	size_t size);

/* Nanoseconds since the recording began; of a duration in ticks. */
uint64_t trace_ns(const struct trace *t, uint64_t ts);
uint64_t trace_duration(const struct trace *t, uint64_t ticks);

/* --- events of a stream --------------------------------------------------------- */

struct trace_event {
	uint64_t ts;
	uint32_t id;
	uint8_t hash;
	bool exit;
	bool is_point; /* then id is its kind's, and: */
	const struct trace_point *point; /* NULL: not described, or its fields do not fit */
	const uint8_t *data;		 /* until the next event */
	size_t len;
};

struct trace_reader {
	struct trace *t;
	const struct trace_stream *s;
	size_t page; /* next */
	void *buf;
	struct shunt_ring_cursor cursor;
	bool in_page;
	bool points; /* set it to have tracepoints' events too */
	uint64_t torn, damaged;
};

int trace_reader_init(struct trace_reader *r, struct trace *t, const struct trace_stream *s);
void trace_reader_end(struct trace_reader *r);
/* 1: an event of a function, or a tracepoint; 0: the end. */
int trace_reader_next(struct trace_reader *r, struct trace_event *e);

/* --- calls ------------------------------------------------------------------------ */

enum trace_how {
	TRACE_RETURNED,
	TRACE_LEFT,	  /* by longjmp, an exception, or a switch to another stack */
	TRACE_UNFINISHED, /* when the recording ended */
};

struct trace_frame {
	uint64_t ts;
	uint64_t inside; /* ticks in functions that it called */
	uint32_t id;
	uint8_t hash;
};

/*
 * Puts entries and exits of one thread together. An exit belongs to the nearest
 * entry of the same function and stack slot; what lies above that was left.
 * What was left may still return, if it was a coroutine: `late`.
 */
struct trace_calls {
	struct trace_frame *frames;
	size_t n, room;
	struct trace_frame limbo[256];
	uint64_t limbo_left[256];
	unsigned nlimbo;
	uint64_t orphans; /* exits whose entry was not recorded */
	uint64_t last;
	void (*enter)(struct trace_calls *c, const struct trace_frame *f, size_t depth);
	void (*leave)(struct trace_calls *c, const struct trace_frame *f, size_t depth, uint64_t ts,
		enum trace_how how);
	void (*late)(struct trace_calls *c, const struct trace_frame *f, uint64_t left,
		uint64_t ts);
	void *arg;
};

int trace_calls_event(struct trace_calls *c, const struct trace_event *e);
void trace_calls_end(struct trace_calls *c);

char *shunt_demangle(const char *name); /* malloced, or NULL */

#endif
