/* SPDX-License-Identifier: MIT */
/* trace.c - opening a trace directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

#define WARNINGS_MAX 20

__attribute__((format(printf, 2, 3))) static void warn(struct trace *t, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!t->warn || t->warnings++ > WARNINGS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	t->warn(t->warnings > WARNINGS_MAX ? "and more of that kind" : line);
}

void trace_init(struct trace *t, void (*fn)(const char *line))
{
	memset(t, 0, sizeof *t);
	t->warn = fn;
	t->fd = -1;
	t->page_size = 16384;
	t->hz = 1000000000;
	t->has_clock = true;
}

/* --- texts -------------------------------------------------------------------------- */

/* The next line of *p, without its newline; NULL at the end. */
static char *line_of(char **p)
{
	char *line = *p, *end;

	if (!*line)
		return NULL;
	end = strchr(line, '\n');
	if (end)
		*end++ = 0;
	*p = end ? end : line + strlen(line);
	return line;
}

/* "key value": the value if the line has that key. */
static char *value_of(char *line, const char *key)
{
	size_t n = strlen(key);

	return strncmp(line, key, n) || line[n] != ' ' ? NULL : line + n + 1;
}

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

static void info_line(struct trace *t, char *line)
{
	char *v;

	if ((v = value_of(line, "page-size")))
		t->page_size = (uint32_t)strtoul(v, NULL, 10);
	else if ((v = value_of(line, "clock-hz")))
		t->hz = strtoull(v, NULL, 10);
	else if ((v = value_of(line, "clock-base-ticks")))
		t->base_ticks = strtoull(v, NULL, 10);
	else if ((v = value_of(line, "clock-base-ns")))
		t->base_ns = strtoull(v, NULL, 10);
	else if ((v = value_of(line, "clock")))
		t->has_clock = strcmp(v, "none") != 0;
	else if ((v = value_of(line, "mode")))
		t->overwrite = !strcmp(v, "overwrite");
	else if ((v = value_of(line, "complete")))
		t->complete = !strcmp(v, "yes");
	else if ((v = value_of(line, "command")))
		copy(t->command, sizeof t->command, v);
	else if ((v = value_of(line, "hostname")))
		copy(t->host, sizeof t->host, v);
	else if ((v = value_of(line, "started")))
		copy(t->started, sizeof t->started, v);
	else if ((v = value_of(line, "shm")))
		copy(t->shm, sizeof t->shm, v);
}

int trace_parse_info(struct trace *t, char *text)
{
	char *line = line_of(&text), *v = line ? value_of(line, "shunt-trace") : NULL;

	if (!v || strcmp(v, "1"))
		return -EINVAL;
	while ((line = line_of(&text)))
		info_line(t, line);
	if (t->page_size < 1024 || t->page_size > 65536 || (t->page_size & (t->page_size - 1))) {
		warn(t, "info: page-size %u is none: taking 16384", t->page_size);
		t->page_size = 16384;
	}
	if (!t->hz) {
		warn(t, "info: the clock has no rate: times are in ticks");
		t->hz = 1000000000;
	}
	return 0;
}

static uint64_t number(const char *s)
{
	return s ? strtoull(s, NULL, 10) : 0;
}

/* "offset size name" in hex, hex, text. */
static int function_line(char *line, struct trace_function *f)
{
	char *p;

	f->offset = strtoull(line, &p, 16);
	if (p == line || *p != ' ')
		return -EINVAL;
	line = p + 1;
	f->size = strtoull(line, &p, 16);
	if (p == line || *p != ' ')
		return -EINVAL;
	f->name = strcmp(p + 1, "?") ? p + 1 : NULL;
	return 0;
}

static int functions(struct trace *t, struct trace_object *o, uint64_t count, char *text,
	const char *what)
{
	char *line;

	if (count > 1u << 24 || count > strlen(text)) {
		warn(t, "%s: %llu functions cannot be in it", what, (unsigned long long)count);
		return -EINVAL;
	}
	o->functions = calloc(count ? count : 1, sizeof *o->functions);
	if (!o->functions)
		return -ENOMEM;
	while (o->n < count && (line = line_of(&text)))
		if (function_line(line, &o->functions[o->n++])) {
			o->n--;
			break;
		}
	if (o->n < count)
		warn(t, "%s: ends after %u of %llu functions", what, o->n,
			(unsigned long long)count);
	return 0;
}

int trace_parse_object(struct trace *t, char *text, const char *what)
{
	struct trace_object o = {.text = text, .path = "?"}, *more;
	char *line = line_of(&text), *v = line ? value_of(line, "shunt-object") : NULL;
	int r = -EINVAL;

	if (!v || strcmp(v, "1"))
		warn(t, "%s: no list of functions", what);
	else
		while ((line = line_of(&text))) {
			if ((v = value_of(line, "image")))
				o.image = (uint32_t)number(v);
			else if ((v = value_of(line, "pid")))
				o.pid = (uint32_t)number(v);
			else if ((v = value_of(line, "path")))
				o.path = v;
			else if ((v = value_of(line, "base")))
				o.base = strtoull(v, NULL, 16);
			else if ((v = value_of(line, "first-id")))
				o.first_id = (uint32_t)number(v);
			else if ((v = value_of(line, "functions"))) {
				r = functions(t, &o, number(v), text, what);
				break;
			}
		}
	more = r ? NULL : realloc(t->objects, (t->nobjects + 1) * sizeof o);
	if (!more) {
		free(o.functions);
		free(o.text);
		return r ? r : -ENOMEM;
	}
	t->objects = more;
	t->objects[t->nobjects++] = o;
	return 0;
}

static void account_of(struct trace_account *a, char **save)
{
	a->written = number(strtok_r(NULL, " ", save));
	a->discarded = number(strtok_r(NULL, " ", save));
	a->overwritten = number(strtok_r(NULL, " ", save));
	a->read = number(strtok_r(NULL, " ", save));
	a->torn = number(strtok_r(NULL, " ", save));
}

/* \xNN is a byte. */
static void unescape(char *to, size_t size, const char *from)
{
	size_t n = 0;

	while (*from && n + 1 < size) {
		unsigned c;

		if (from[0] == '\\' && from[1] == 'x' && sscanf(from + 2, "%2x", &c) == 1 &&
			from[2] && from[3]) {
			to[n++] = (char)c;
			from += 4;
		} else {
			to[n++] = *from++;
		}
	}
	to[n] = 0;
}

void trace_parse_threads(struct trace *t, char *text)
{
	char *line = line_of(&text); /* the heading */

	while ((line = line_of(&text))) {
		char *save = NULL, *word = strtok_r(line, " ", &save);
		struct trace_thread th = {0}, *more;

		if (!word)
			continue;
		if (!strcmp(word, "total")) {
			account_of(&t->total, &save);
			t->has_total = true;
			continue;
		}
		th.slot = (uint32_t)number(word);
		th.image = (uint32_t)number(strtok_r(NULL, " ", &save));
		th.pid = (uint32_t)number(strtok_r(NULL, " ", &save));
		th.tid = (uint32_t)number(strtok_r(NULL, " ", &save));
		word = strtok_r(NULL, " ", &save);
		unescape(th.comm, sizeof th.comm, word ? word : "");
		account_of(&th.account, &save);
		more = realloc(t->threads, (t->nthreads + 1) * sizeof th);
		if (!more)
			return;
		t->threads = more;
		t->threads[t->nthreads++] = th;
	}
}

/* --- pages ---------------------------------------------------------------------------- */

static long read_at(struct trace *t, uint64_t at, void *buf, size_t n)
{
	if (at >= t->size)
		return 0;
	if (n > t->size - at)
		n = t->size - at;
	if (t->memory) {
		memcpy(buf, (const char *)t->memory + at, n);
		return (long)n;
	}
	return pread(t->fd, buf, n, (off_t)at);
}

static int by_stream(const void *a, const void *b)
{
	const struct trace_page *x = a, *y = b;

	if (x->stream != y->stream)
		return x->stream < y->stream ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Streams while they are found: a hash of their identities. */
struct finder {
	uint32_t *bucket; /* stream + 1 */
	size_t mask, room;
};

static int grow_streams(struct trace *t, struct finder *f)
{
	struct trace_stream *more;

	if (t->nstreams < f->room)
		return 0;
	f->room = f->room ? f->room * 2 : 64;
	more = realloc(t->streams, f->room * sizeof *more);
	if (!more)
		return -ENOMEM;
	t->streams = more;
	free(f->bucket);
	f->mask = f->room * 4 - 1;
	f->bucket = calloc(f->mask + 1, sizeof *f->bucket);
	if (!f->bucket)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->nstreams; i++) {
		const struct trace_stream *s = &t->streams[i];
		size_t k = s->tid * 2654435761u + s->slot * 40503u + s->image;

		while (f->bucket[k & f->mask])
			k++;
		f->bucket[k & f->mask] = i + 1;
	}
	return 0;
}

static int stream_of(struct trace *t, struct finder *f, const struct shunt_ring_page *h,
	uint32_t *out)
{
	struct trace_stream *s;
	size_t k;

	if (grow_streams(t, f))
		return -ENOMEM;
	for (k = h->tid * 2654435761u + h->slot * 40503u + h->tag; f->bucket[k & f->mask]; k++) {
		s = &t->streams[f->bucket[k & f->mask] - 1];
		if (s->tid == h->tid && s->slot == h->slot && s->image == h->tag &&
			s->pid == h->pid) {
			*out = f->bucket[k & f->mask] - 1;
			return 0;
		}
	}
	s = &t->streams[t->nstreams];
	memset(s, 0, sizeof *s);
	s->image = h->tag;
	s->pid = h->pid;
	s->tid = h->tid;
	s->slot = h->slot;
	s->comm = "?";
	*out = (uint32_t)t->nstreams++;
	f->bucket[k & f->mask] = *out + 1;
	return 0;
}

static void name_streams(struct trace *t)
{
	for (size_t i = 0; i < t->nstreams; i++)
		for (size_t k = 0; k < t->nthreads; k++)
			if (t->threads[k].tid == t->streams[i].tid &&
				t->threads[k].image == t->streams[i].image) {
				t->streams[i].comm = t->threads[k].comm;
				break;
			}
}

static int by_id(const void *a, const void *b)
{
	const struct trace_object *x = a, *y = b;

	if (x->image != y->image)
		return x->image < y->image ? -1 : 1;
	return x->first_id < y->first_id ? -1 : x->first_id > y->first_id;
}

static int add_page(struct trace *t, size_t *room, const struct shunt_ring_page *h,
	uint64_t at, uint32_t stream)
{
	if (t->npages == *room) {
		struct trace_page *more;

		*room = *room ? *room * 2 : 1024;
		more = realloc(t->pages, *room * sizeof *more);
		if (!more)
			return -ENOMEM;
		t->pages = more;
	}
	t->pages[t->npages++] = (struct trace_page){at, h->seq, h->ts, stream,
		(uint32_t)h->discarded};
	return 0;
}

int trace_index(struct trace *t)
{
	struct finder f = {0};
	size_t room = 0;
	int r = 0;

	for (uint64_t at = 0; at < t->size && !r; at += t->page_size) {
		struct shunt_ring_page h;
		uint32_t stream;

		if (read_at(t, at, &h, sizeof h) != (long)sizeof h) {
			warn(t, "data: ends in the middle of a page, at byte %llu",
				(unsigned long long)at);
			break;
		}
		if (h.magic != SHUNT_RING_PAGE_MAGIC) {
			warn(t, "data: no page at byte %llu: passed over", (unsigned long long)at);
			continue;
		}
		if (t->size - at < t->page_size)
			warn(t, "data: the last page, at byte %llu, is cut off",
				(unsigned long long)at);
		r = stream_of(t, &f, &h, &stream);
		if (!r)
			r = add_page(t, &room, &h, at, stream);
	}
	free(f.bucket);
	if (r)
		return r;
	if (t->npages)
		qsort(t->pages, t->npages, sizeof *t->pages, by_stream);
	for (size_t i = 0; i < t->npages; i++) {
		struct trace_stream *s = &t->streams[t->pages[i].stream];

		if (!s->n++)
			s->first = i;
	}
	if (t->nobjects)
		qsort(t->objects, t->nobjects, sizeof *t->objects, by_id);
	name_streams(t);
	return 0;
}

/* --- the directory ------------------------------------------------------------------ */

static char *slurp(const char *path)
{
	struct stat st;
	char *text = NULL;
	ssize_t n = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size < (off_t)1 << 30)
		text = malloc((size_t)st.st_size + 1);
	if (text)
		n = read(fd, text, (size_t)st.st_size);
	close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	return text;
}

static void read_objects(struct trace *t, const char *dir)
{
	char path[4608];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "%s/objects", dir);
	d = opendir(path);
	if (!d) {
		warn(t, "objects: not there: functions have no names");
		return;
	}
	while ((e = readdir(d))) {
		char *text;

		if (e->d_name[0] == '.' || strchr(e->d_name, '~') || strstr(e->d_name, ".tmp"))
			continue;
		snprintf(path, sizeof path, "%s/objects/%s", dir, e->d_name);
		text = slurp(path);
		if (text)
			trace_parse_object(t, text, path + strlen(dir) + 1);
		else
			warn(t, "objects/%s: cannot be read", e->d_name);
	}
	closedir(d);
}

/* points-IMAGE */
static void read_points(struct trace *t, const char *dir)
{
	char path[4608];
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d))) {
		unsigned image;
		char end, *text;

		if (sscanf(e->d_name, "points-%u%c", &image, &end) != 1)
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		text = slurp(path);
		if (text)
			trace_parse_points(t, image, text);
		else
			warn(t, "%s: cannot be read", e->d_name);
	}
	if (d)
		closedir(d);
	if (trace_points_sort(t))
		trace_points_free(t);
}

int trace_open(struct trace *t, const char *dir, void (*fn)(const char *line))
{
	char path[4608];
	struct stat st;
	char *text;
	int r;

	trace_init(t, fn);
	snprintf(path, sizeof path, "%s/info", dir);
	text = slurp(path);
	if (!text || trace_parse_info(t, text))
		warn(t, "info: %s: taking what is usual", text ? "damaged" : "not there");
	free(text);
	snprintf(path, sizeof path, "%s/data", dir);
	t->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st)) {
		r = -errno;
		trace_close(t);
		return r;
	}
	t->size = (uint64_t)st.st_size;
	read_objects(t, dir);
	read_points(t, dir);
	snprintf(path, sizeof path, "%s/threads", dir);
	text = slurp(path);
	if (text)
		trace_parse_threads(t, text);
	else
		warn(t, "threads: not there: the recording did not end well, 'shunt record "
			"--recover DIR' completes it");
	free(text);
	r = trace_index(t);
	if (r)
		trace_close(t);
	return r;
}

void trace_close(struct trace *t)
{
	for (size_t i = 0; i < t->nobjects; i++) {
		free(t->objects[i].functions);
		free(t->objects[i].text);
	}
	free(t->objects);
	trace_points_free(t);
	free(t->threads);
	free(t->pages);
	free(t->streams);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* --- functions and time --------------------------------------------------------------- */

const struct trace_function *trace_function(const struct trace *t, uint32_t image, uint32_t id,
	const struct trace_object **object)
{
	size_t lo = 0, hi = t->nobjects;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct trace_object *o = &t->objects[mid];

		if (o->image < image || (o->image == image && o->first_id <= id))
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || t->objects[lo - 1].image != image ||
		id - t->objects[lo - 1].first_id >= t->objects[lo - 1].n)
		return NULL;
	if (object)
		*object = &t->objects[lo - 1];
	return &t->objects[lo - 1].functions[id - t->objects[lo - 1].first_id];
}

const char *trace_name(const struct trace *t, uint32_t image, uint32_t id, char *buf, size_t size)
{
	const struct trace_object *o;
	const struct trace_function *f = trace_function(t, image, id, &o);
	const char *base;
	char *nice;

	if (!f) {
		snprintf(buf, size, "function-%u", id);
		return buf;
	}
	if (!f->name) {
		base = strrchr(o->path, '/');
		snprintf(buf, size, "%s+0x%llx", base ? base + 1 : o->path,
			(unsigned long long)f->offset);
		return buf;
	}
	nice = shunt_demangle(f->name);
	snprintf(buf, size, "%s", nice ? nice : f->name);
	free(nice);
	return buf;
}

uint64_t trace_duration(const struct trace *t, uint64_t ticks)
{
	return (uint64_t)((__extension__(unsigned __int128)ticks) * 1000000000u / t->hz);
}

uint64_t trace_ns(const struct trace *t, uint64_t ts)
{
	return ts > t->base_ticks ? trace_duration(t, ts - t->base_ticks) : 0;
}

/* --- events of a stream ----------------------------------------------------------------- */

int trace_reader_init(struct trace_reader *r, struct trace *t, const struct trace_stream *s)
{
	memset(r, 0, sizeof *r);
	r->t = t;
	r->s = s;
	r->buf = malloc(t->page_size);
	return r->buf ? 0 : -ENOMEM;
}

void trace_reader_end(struct trace_reader *r)
{
	free(r->buf);
	r->buf = NULL;
}

static bool next_page(struct trace_reader *r)
{
	while (r->page < r->s->n) {
		const struct trace_page *p = &r->t->pages[r->s->first + r->page++];
		long n = read_at(r->t, p->at, r->buf, r->t->page_size);

		if (n > 0 && !shunt_ring_events(r->buf, (size_t)n, &r->cursor))
			return true;
		r->damaged++;
	}
	return false;
}

static bool wanted(const struct trace *t, uint64_t ts)
{
	uint64_t ns;

	if (!t->from_ns && !t->to_ns)
		return true;
	ns = trace_ns(t, ts);
	return ns >= t->from_ns && (!t->to_ns || ns < t->to_ns);
}

static bool hidden(const struct trace_reader *r, uint32_t id)
{
	const struct trace_function *f = trace_function(r->t, r->s->image, id, NULL);

	return !f || f->hidden;
}

/* False: it is not to be shown. */
static bool point_event(struct trace_reader *r, const struct shunt_ring_event *ev, struct trace_event *e)
{
	const struct trace_point *p = trace_point_find(r->t, r->s->image, ev->tag);

	if (r->t->some_hidden && (!p || p->hidden))
		return false;
	if (p && !trace_point_fits(p, ev->data, ev->len)) {
		p = NULL;
		r->damaged++;
	}
	*e = (struct trace_event){.ts = ev->ts, .id = ev->tag, .is_point = true, .point = p,
		.data = ev->data, .len = ev->len};
	return true;
}

int trace_reader_next(struct trace_reader *r, struct trace_event *e)
{
	struct shunt_ring_event ev;
	int k;

	for (;;) {
		if (!r->in_page && !(r->in_page = next_page(r)))
			return 0;
		k = shunt_ring_event_next(&r->cursor, &ev);
		if (k <= 0) {
			if (k < 0) {
				r->damaged++;
				warn(r->t, "data: a page of thread %u is damaged: the rest of it "
					   "is passed over",
					r->s->tid);
			}
			r->in_page = false;
			continue;
		}
		r->torn += ev.kind == SHUNT_RING_EVENT_TORN;
		if (ev.kind == SHUNT_RING_EVENT_LONG && r->points && wanted(r->t, ev.ts) &&
			point_event(r, &ev, e))
			return 1;
		if (ev.kind != SHUNT_RING_EVENT_SHORT || !wanted(r->t, ev.ts))
			continue;
		if (r->t->some_hidden && hidden(r, ev.tag & 0xffffff))
			continue;
		e->is_point = false;
		e->ts = ev.ts;
		e->id = ev.tag & 0xffffff;
		e->hash = (ev.tag >> 24) & 0x3f;
		e->exit = ev.tag >> 30 & 1;
		return 1;
	}
}
