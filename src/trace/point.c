/* SPDX-License-Identifier: MIT */
/*
 * point.c - tracepoints (trace.h): which there are, who asks for them, what they write.
 *
 * What changes them goes through the lock of src/site, under which their keys are set.
 * What the running tracepoint looks at, its probes and its filter, is replaced as a whole
 * and freed after a grace period, for which no lock is held: a probe may set keys.
 *
 * Rules (a glob, on or off, a filter) are kept, for objects yet to come; the last one that
 * matches decides, as for functions.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "base/log.h"
#include "filter.h"
#include "object/object.h"
#include "point.h"
#include "rcu/reader.h"
#include "site/site.h"

struct rule {
	struct rule *next;
	struct shunt_ring *ring;
	bool on;
	char *filter; /* NULL: none */
	char glob[];
};

static struct shunt_point *points;
static struct rule *rules;
static struct shunt_ring *recorders_ring;
/* Kinds of events: "provider:name", a tab, the fields. An id is an index + 1. */
static char **kinds;
static uint32_t nkinds, exported;
static void (*export_hook)(void), (*complain_hook)(const char *);

static __thread char error[192];

SHUNT_API const char *shunt_trace_error(void)
{
	return error;
}

/* --- sections ------------------------------------------------------------------------ */

static bool on_altstack(uintptr_t addr)
{
	stack_t ss;

	return !syscall(SYS_sigaltstack, NULL, &ss) && !(ss.ss_flags & SS_DISABLE) &&
	       addr - (uintptr_t)ss.ss_sp < ss.ss_size;
}

/*
 * A signal handler may have jumped away from the middle of a section, for siglongjmp()
 * asks nobody. A section whose frame is not above `sp` on its stack is such a one.
 *
 * `npoints` is raised before the section is entered and lowered after it is left, so
 * whatever instruction the jump was at, the nesting is at most that.
 */
__attribute__((noinline, cold)) static void forget_left(struct shunt_reader *r, uintptr_t sp)
{
	int saved = errno;
	bool alt = on_altstack(sp);

	while (r->npoints && r->npoints <= 8) {
		uintptr_t at = r->point[r->npoints - 1];

		if (sp < at || (alt && !on_altstack(at)))
			break;
		*(volatile uint32_t *)&r->npoints = r->npoints - 1;
	}
	if ((r->points & SHUNT_READER_NEST) > r->npoints)
		*(volatile uint64_t *)&r->points = (r->points & ~SHUNT_READER_NEST) | r->npoints;
	errno = saved;
}

/* NULL: no memory. `sp` is the address of the caller's frame. Any context. */
static inline struct shunt_reader *enter(uintptr_t sp)
{
	struct shunt_reader *r = shunt_reader_self;

	if (__builtin_expect(!r, 0))
		r = shunt_reader_get();
	if (!r)
		return NULL;
	if (__builtin_expect(r->npoints || r->points & SHUNT_READER_NEST, 0))
		forget_left(r, sp);
	if (r->npoints < 8)
		r->point[r->npoints] = sp;
	*(volatile uint32_t *)&r->npoints = r->npoints + 1;
	shunt_section_enter(&r->points);
	return r;
}

static inline void leave(struct shunt_reader *r)
{
	shunt_section_leave(&r->points);
	*(volatile uint32_t *)&r->npoints = r->npoints - 1;
}

/* Whether the caller, whose frame is at `sp`, is called by a probe. */
static bool inside(uintptr_t sp)
{
	if (shunt_reader_self && (shunt_reader_self->npoints || shunt_reader_self->points & SHUNT_READER_NEST))
		forget_left(shunt_reader_self, sp);
	return shunt_reader_inside();
}

#define HERE ((uintptr_t)__builtin_frame_address(0))

/* --- events ------------------------------------------------------------------------- */

SHUNT_API void shunt_point_write(const struct shunt_point *p, const void *data, size_t len)
{
	struct shunt_ring *ring = __atomic_load_n(&p->ring, __ATOMIC_RELAXED);
	const struct shunt_filter *f = __atomic_load_n(&p->filter, __ATOMIC_RELAXED);
	struct shunt_reader *r;

	if (__builtin_expect(!ring && !f, 1)) {
		ring = __atomic_load_n(&recorders_ring, __ATOMIC_ACQUIRE);
		if (ring)
			shunt_ring_write(ring, p->id, data, len);
		return;
	}
	r = enter(HERE);
	if (!r)
		return;
	/* Anew: a filter that was replaced is freed, and a ring closed, when we have left. */
	if (__atomic_load_n(&p->recording, __ATOMIC_ACQUIRE)) {
		ring = __atomic_load_n(&p->ring, __ATOMIC_ACQUIRE);
		f = __atomic_load_n(&p->filter, __ATOMIC_ACQUIRE);
		if (!ring)
			ring = __atomic_load_n(&recorders_ring, __ATOMIC_ACQUIRE);
		if (ring && (!f || shunt_filter_match(f, data, len)))
			shunt_ring_write(ring, p->id, data, len);
	}
	leave(r);
}

SHUNT_API void shunt_mark_write(const struct shunt_point *p, const char *format, ...)
{
	char text[SHUNT_FIELD_MAX];
	va_list ap;
	int n;

	if (!__atomic_load_n(&p->recording, __ATOMIC_RELAXED))
		return;
	va_start(ap, format);
	n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (n >= 0)
		shunt_point_write(p, text, strlen(text) + 1);
}

/* --- probes ------------------------------------------------------------------------- */

SHUNT_API const struct shunt_probe *shunt_point_enter(const struct shunt_point *p)
{
	return enter(HERE) ? __atomic_load_n(&p->probes, __ATOMIC_ACQUIRE) : NULL;
}

SHUNT_API void shunt_point_leave(void)
{
	if (shunt_reader_self)
		leave(shunt_reader_self);
}

/* What nobody finds any more; freed at the next chance when one is in a probe. */
static void *later;

struct garbage {
	struct garbage *next;
};

/* `wait`: returns after a grace period, whoever frees. No lock held. */
static void free_later(void *old, bool wait)
{
	struct garbage *g = old;

	if (g)
		do
			g->next = __atomic_load_n(&later, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&later, (void **)&g->next, g, false, __ATOMIC_SEQ_CST,
			__ATOMIC_RELAXED));
	if (inside(HERE))
		return;
	g = __atomic_exchange_n(&later, NULL, __ATOMIC_SEQ_CST);
	/* Another thread may have taken ours, and still be waiting. */
	if ((!g && !wait) || shunt_reader_synchronize())
		return;
	while (g) {
		struct garbage *next = g->next;

		free(g);
		g = next;
	}
}

static size_t count_probes(const struct shunt_probe *q)
{
	size_t n = 0;

	while (q && q[n].fn)
		n++;
	return n;
}

static size_t find_probe(const struct shunt_probe *q, void (*fn)(void), void *data)
{
	size_t i = 0;

	while (q && q[i].fn && (q[i].fn != fn || q[i].data != data))
		i++;
	return i;
}

static int count_key(struct shunt_point *p, int by)
{
	struct shunt_change c = {&p->key->var, p->key->enabled + (uint64_t)(int64_t)by};

	return shunt_vars_set(&c, 1);
}

/* The same but one more or less. NULL: none, or (with *err) no memory. */
static struct shunt_probe *changed(const struct shunt_probe *old, size_t n, size_t without,
	const struct shunt_probe *with, int *err)
{
	struct shunt_probe *q;
	size_t k = 0;

	*err = 0;
	if (n == 1 && !with)
		return NULL;
	q = malloc((n + 2) * sizeof *q);
	if (!q) {
		*err = -ENOMEM;
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		if (i != without)
			q[k++] = old[i];
	if (with)
		q[k++] = *with;
	q[k].fn = NULL;
	return q;
}

SHUNT_API int shunt_point_register(struct shunt_point *p, void (*fn)(void), void *data)
{
	const struct shunt_probe one = {fn, data}, *old;
	struct shunt_probe *q;
	size_t n;
	int err;

	shunt_sites_lock();
	old = p->probes;
	n = count_probes(old);
	err = find_probe(old, fn, data) < n ? -EEXIST : 0;
	q = err ? NULL : changed(old, n, n, &one, &err);
	if (!err) {
		__atomic_store_n(&p->probes, q, __ATOMIC_RELEASE);
		err = count_key(p, 1);
		if (err)
			__atomic_store_n(&p->probes, old, __ATOMIC_RELEASE);
	}
	shunt_sites_unlock();
	free_later(err ? (void *)q : (void *)(uintptr_t)old, false);
	return err;
}

SHUNT_API int shunt_point_unregister(struct shunt_point *p, void (*fn)(void), void *data)
{
	const struct shunt_probe *old;
	struct shunt_probe *q = NULL;
	size_t n, i;
	int err;

	if (inside(HERE))
		return -EDEADLK;
	shunt_sites_lock();
	old = p->probes;
	n = count_probes(old);
	i = find_probe(old, fn, data);
	err = i == n ? -ENOENT : 0;
	if (!err)
		q = changed(old, n, i, NULL, &err);
	if (!err)
		err = count_key(p, -1);
	if (!err)
		__atomic_store_n(&p->probes, q, __ATOMIC_RELEASE);
	shunt_sites_unlock();
	if (err) {
		free(q);
		return err;
	}
	free_later((void *)(uintptr_t)old, true);
	return 0;
}

/* --- kinds of events ------------------------------------------------------------------ */

static void word_of(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n + 1 < size; n++)
		to[n] = (from[n] >= 'a' && from[n] <= 'z') || (from[n] >= 'A' && from[n] <= 'Z') ||
				(from[n] >= '0' && from[n] <= '9')
			? from[n]
			: '_';
	to[n] = 0;
}

struct line {
	char *at;
	size_t left;
	bool cut;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->at, l->left, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= l->left) {
		l->cut = true;
		n = 0;
	}
	l->at += n;
	l->left -= (size_t)n;
}

/* Names that are alike when they are words get their number. */
static void field_name(const struct shunt_point *p, uint32_t i, char *name, size_t size)
{
	char other[64];

	word_of(name, 64, p->fields[i].name);
	for (uint32_t k = 0; k < p->nfields; k++) {
		word_of(other, sizeof other, p->fields[k].name);
		if (k != i && !strcmp(name, other)) {
			snprintf(name + strlen(name), size - strlen(name), "_%u", i + 1);
			return;
		}
	}
}

static void add_field(struct line *l, const struct shunt_point *p, uint32_t i)
{
	static const char letter[] = {'u', 's', 'f', 'p', 'b'};
	const struct shunt_field *f = &p->fields[i];
	char name[80];

	field_name(p, i, name, sizeof name);
	if (f->shape == SHUNT_FIELD_STRING) {
		add(l, "string %s", name);
		return;
	}
	add(l, "%c%u", letter[f->type < 5 ? f->type : 0], f->size * 8u);
	for (const struct shunt_label *b = f->labels; b && b->name; b++) {
		char label[64];

		word_of(label, sizeof label, b->name);
		add(l, "%c%s=%lld", b == f->labels ? '{' : ',', label, (long long)b->value);
	}
	if (f->labels && f->labels->name)
		add(l, "}");
	if (f->shape == SHUNT_FIELD_ARRAY)
		add(l, "[%u]", f->count);
	if (f->shape == SHUNT_FIELD_SEQUENCE)
		add(l, "[]");
	add(l, " %s", name);
}

int shunt_fields_text(const struct shunt_point *p, char *to, size_t size)
{
	struct line l = {to, size, false};

	*to = 0;
	for (uint32_t i = 0; i < p->nfields; i++) {
		if (i)
			add(&l, "\t");
		add_field(&l, p, i);
	}
	return l.cut ? -ENOSPC : 0;
}

static int kind_text(const struct shunt_point *p, char *to, size_t size)
{
	char provider[64], name[128];
	int n;

	word_of(provider, sizeof provider, p->provider);
	word_of(name, sizeof name, p->name);
	n = snprintf(to, size, "%s:%s%s", provider, name, p->nfields ? "\t" : "");
	return shunt_fields_text(p, to + n, size - (size_t)n);
}

/* Equal ones have one id, for a library may be loaded again and again. */
static int give_id(struct shunt_point *p)
{
	char text[2048], **more;

	if (p->id)
		return 0;
	if (kind_text(p, text, sizeof text)) {
		snprintf(error, sizeof error, "the fields of %.40s:%.60s have too long a description",
			p->provider, p->name);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < nkinds; i++)
		if (!strcmp(kinds[i], text)) {
			p->id = i + 1;
			return 0;
		}
	if (nkinds == SHUNT_POINT_IDS) {
		snprintf(error, sizeof error, "more than %d different tracepoints", SHUNT_POINT_IDS);
		return -ENOSPC;
	}
	more = realloc(kinds, (nkinds + 1) * sizeof *kinds);
	if (!more)
		return -ENOMEM;
	kinds = more;
	kinds[nkinds] = strdup(text);
	if (!kinds[nkinds])
		return -ENOMEM;
	p->id = ++nkinds;
	return 0;
}

int shunt_points_export(const char *dir, uint32_t image)
{
	char path[1100];
	int fd, err = 0;
	FILE *f;

	shunt_sites_lock();
	if (exported < nkinds) {
		snprintf(path, sizeof path, "%s/points-%u", dir, image);
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
		f = fd < 0 ? NULL : fdopen(fd, "a");
		if (!f)
			err = -errno;
		for (; f && exported < nkinds; exported++)
			fprintf(f, "%u %s\n", exported + 1, kinds[exported]);
		if (f && fclose(f))
			err = -errno;
	}
	if (!err)
		err = (int)exported;
	shunt_sites_unlock();
	return err;
}

void shunt_points_exported_none(void)
{
	exported = 0;
}

SHUNT_API int shunt_trace_describe(const char *provider, const char *name, uint32_t *type, char *text,
	size_t size)
{
	char start[256];
	size_t n = (size_t)snprintf(start, sizeof start, "%s:%s", provider, name);
	int err = -ENOENT;

	shunt_sites_lock();
	for (uint32_t i = 0; i < nkinds && n < sizeof start; i++) {
		const char *rest = kinds[i] + n;

		if (strncmp(kinds[i], start, n) || (*rest && *rest != '\t'))
			continue;
		rest += *rest == '\t';
		err = strlen(rest) < size ? 0 : -ENOSPC;
		if (!err)
			strcpy(text, rest);
		*type = i + 1;
	}
	shunt_sites_unlock();
	return err;
}

/* --- rules ------------------------------------------------------------------------------ */

static bool matches(const char *glob, const struct shunt_point *p)
{
	char name[256];

	snprintf(name, sizeof name, "%s:%s", p->provider, p->name);
	return shunt_glob_match(glob, name);
}

/* What a tracepoint is to become. */
struct wish {
	struct shunt_point *p;
	const struct shunt_filter *filter;
};

static int make_wish(struct shunt_point *p, const struct rule *r, struct wish *w)
{
	struct shunt_filter *f = NULL;
	char why[160];
	int err = r->on ? give_id(p) : 0;

	if (!err && r->on && r->filter) {
		err = shunt_filter_parse(r->filter, p->fields, p->nfields, &f, why, sizeof why);
		if (err == -EINVAL)
			snprintf(error, sizeof error, "%.30s:%.30s: %.120s", p->provider, p->name, why);
	}
	w->p = p;
	w->filter = f;
	return err;
}

/*
 * A thread that has taken the branch may come here late: when recording ends, its filter stays
 * until there is another one, or what it has would pass without.
 */
static void grant(const struct wish *w, const struct rule *r, const void **old)
{
	*old = NULL;
	if (!r->on) {
		__atomic_store_n(&w->p->recording, 0, __ATOMIC_RELEASE);
		return;
	}
	*old = w->p->filter;
	__atomic_store_n(&w->p->filter, w->filter, __ATOMIC_RELEASE);
	__atomic_store_n(&w->p->ring, r->ring, __ATOMIC_RELEASE);
	__atomic_store_n(&w->p->recording, 1, __ATOMIC_RELEASE);
}

static int grant_all(struct wish *w, size_t n, const struct rule *r)
{
	struct shunt_change *c = calloc(n + 1, sizeof *c);
	size_t changes = 0;
	int err;

	if (!c)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (w[i].p->recording != r->on)
			c[changes++] = (struct shunt_change){&w[i].p->key->var,
				r->on ? w[i].p->key->enabled + 1 : w[i].p->key->enabled - 1};
	err = shunt_vars_set(c, changes);
	free(c);
	if (err)
		snprintf(error, sizeof error, "%s%s%s", strerror(-err), *shunt_sites_reason() ? ": " : "",
			shunt_sites_reason());
	return err;
}

/* Waits for who is still writing, and frees filters that are not needed any more. No lock held. */
static void free_filters(const void **old, size_t n)
{
	if (inside(HERE))
		return;
	/* Also without filters: nobody writes any more into a ring that is closed next. */
	if (shunt_reader_synchronize())
		return; /* in a probe: lost */
	for (size_t i = 0; i < n; i++)
		shunt_filter_free(old[i]);
}

static struct rule *rule_make(const char *glob, const char *filter, struct shunt_ring *ring, bool on)
{
	struct rule *r = calloc(1, sizeof *r + strlen(glob) + 1);

	if (!r)
		return NULL;
	strcpy(r->glob, glob);
	r->ring = ring;
	r->on = on;
	if (filter && *filter) {
		r->filter = strdup(filter);
		if (!r->filter) {
			free(r);
			return NULL;
		}
	}
	return r;
}

static void rule_free(struct rule *r)
{
	if (r)
		free(r->filter);
	free(r);
}

/* At the end; the same glob's older one goes. */
static void rule_keep(struct rule *r)
{
	struct rule **at = &rules, *old;

	while ((old = *at)) {
		if (!strcmp(old->glob, r->glob) || !strcmp(r->glob, "*")) {
			*at = old->next;
			rule_free(old);
		} else {
			at = &old->next;
		}
	}
	*at = r;
}

/* Locked. The number of points that matched, or an error. */
static int switch_points(struct rule *r, struct wish *w, const void **old)
{
	size_t n = 0;
	int err = 0;

	for (struct shunt_point *p = points; p && !err; p = p->next)
		if (matches(r->glob, p))
			err = make_wish(p, r, &w[n++]);
	if (!err && n)
		err = grant_all(w, n, r);
	if (err) {
		for (size_t i = 0; i < n; i++)
			shunt_filter_free(w[i].filter);
		return err;
	}
	for (size_t i = 0; i < n; i++)
		grant(&w[i], r, &old[i]);
	return (int)n;
}

int shunt_points_switch(const char *glob, const char *filter, struct shunt_ring *ring, bool on)
{
	struct rule *r = NULL;
	struct wish *w;
	const void **old;
	size_t n = 0;
	int got = 0;

	error[0] = 0;
	if (shunt_glob_check(glob)) {
		snprintf(error, sizeof error, "'%.80s' is not a pattern", glob);
		return -EINVAL;
	}
	if (filter && *filter && shunt_filter_check(filter, error, sizeof error) == -EINVAL)
		return -EINVAL;
	if (on && !ring && !__atomic_load_n(&recorders_ring, __ATOMIC_ACQUIRE)) {
		snprintf(error, sizeof error, "there is no ring to write into");
		return -ENXIO;
	}
	shunt_sites_lock();
	for (struct shunt_point *p = points; p; p = p->next)
		n++;
	w = calloc(n + 1, sizeof *w);
	old = calloc(n + 1, sizeof *old);
	r = rule_make(glob, filter, ring, on);
	got = w && old && r ? switch_points(r, w, old) : -ENOMEM;
	if (got >= 0)
		rule_keep(r);
	else
		rule_free(r);
	shunt_sites_unlock();
	shunt_points_told();
	if (got > 0)
		free_filters(old, (size_t)got);
	free(w);
	free(old);
	return got ? got : -ENOENT;
}

SHUNT_API int shunt_trace_enable(const char *glob, const char *filter, struct shunt_ring *ring)
{
	return shunt_points_switch(glob, filter, ring, true);
}

SHUNT_API int shunt_trace_disable(const char *glob)
{
	return shunt_points_switch(glob, NULL, NULL, false);
}

void shunt_points_ring(struct shunt_ring *ring)
{
	__atomic_store_n(&recorders_ring, ring, __ATOMIC_RELEASE);
}

/* --- objects ------------------------------------------------------------------------------- */

/* Its sites are not up to date yet: the key's count decides what they will be. */
static void apply_rules(struct shunt_point *p)
{
	const struct rule *last = NULL;
	static bool full;
	const void *none;
	struct wish w;
	int err;

	for (const struct rule *r = rules; r; r = r->next)
		if (matches(r->glob, p))
			last = r;
	if (!last || !last->on)
		return;
	error[0] = 0;
	err = make_wish(p, last, &w);
	if (err) {
		shunt_log(SHUNT_LOG_ERROR, "tracepoint %s:%s of a new object is not switched on: %s",
			p->provider, p->name, *error ? error : strerror(-err));
		/* Once is enough for what holds for thousands. */
		if (complain_hook && (err != -ENOSPC || !full))
			complain_hook(*error ? error : strerror(-err));
		full = full || err == -ENOSPC;
		return;
	}
	grant(&w, last, &none);
	p->key->enabled++;
}

/* What objects that went had. At the program's end they go too, but other threads still run
 * their code: so it is freed when the next object comes. */
struct retired {
	struct retired *next;
	const struct shunt_probe *probes;
	const struct shunt_filter *filter;
};
static struct retired *retired;

static void retire(const struct shunt_point *p)
{
	struct retired *r = p->probes || p->filter ? malloc(sizeof *r) : NULL;

	if (!r)
		return;
	*r = (struct retired){retired, p->probes, p->filter};
	retired = r;
}

static void free_retired(void)
{
	struct retired *r;

	while ((r = retired)) {
		retired = r->next;
		free((void *)(uintptr_t)r->probes);
		shunt_filter_free(r->filter);
		free(r);
	}
}

void shunt_points_add(const struct shunt_def *def, const struct shunt_def *end, const char *object)
{
	free_retired();
	for (; def < end; def++) {
		struct shunt_point *p = def->point;

		if (!p || p->linked) /* a definition in each unit, for one variable */
			continue;
		p->linked = 1;
		p->object = object;
		p->key->var.flags |= SHUNT_VAR_POINT;
		p->next = points;
		points = p;
		apply_rules(p);
	}
}

void shunt_points_remove(const struct shunt_def *def, const struct shunt_def *end)
{
	for (; def < end; def++) {
		struct shunt_point **at = &points, *p = def->point;

		if (!p || !p->linked)
			continue;
		while (*at != p)
			at = &(*at)->next;
		*at = p->next;
		p->linked = 0;
		retire(p);
	}
}

void shunt_points_hooks(void (*export)(void), void (*complain)(const char *sentence))
{
	export_hook = export;
	complain_hook = complain;
}

void shunt_points_told(void)
{
	if (export_hook && exported < nkinds)
		export_hook();
}

const char *shunt_points_filter(const struct shunt_point *p)
{
	const struct rule *last = NULL;

	for (const struct rule *r = rules; r; r = r->next)
		if (matches(r->glob, p))
			last = r;
	return last && last->on && last->filter ? last->filter : "";
}

int shunt_points_each(int (*fn)(const struct shunt_point *p, void *arg), void *arg)
{
	int r = 0;

	for (const struct shunt_point *p = points; p && !r; p = p->next)
		r = fn(p, arg);
	return r;
}

unsigned shunt_points_count(void)
{
	unsigned n = 0;

	shunt_sites_lock();
	for (const struct shunt_point *p = points; p; p = p->next)
		n++;
	shunt_sites_unlock();
	return n;
}
