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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/ring.h>

#include "base/log.h"
#include "filter.h"
#include "kind.h"
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
static void (*export_hook)(void), (*complain_hook)(const char *);

static __thread char error[192];

SHUNT_API const char *shunt_trace_error(void)
{
	return error;
}

/* --- sections ------------------------------------------------------------------------ */

/*
 * A signal handler may have jumped away from the middle of a section. One whose frame is not above
 * `sp` on its stack is such a one.
 */
__attribute__((noinline, cold)) static void forget_left(struct shunt_reader *r, uintptr_t sp)
{
	struct shunt_levels *l = &r->points;
	int saved = errno;
	bool alt = shunt_on_altstack(sp);

	while (l->top) {
		uintptr_t at = shunt_levels_frame(l);

		if (sp < at || (alt && !shunt_on_altstack(at)))
			break;
		shunt_level_drop(r, l, &shunt_points);
	}
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
	if (__builtin_expect(r->points.top != 0, 0))
		forget_left(r, sp);
	shunt_level_enter(r, &r->points, &shunt_points, sp);
	return r;
}

static inline void leave(struct shunt_reader *r)
{
	shunt_level_leave(r, &r->points);
}

/* Whether the caller, whose frame is at `sp`, is called by a probe. */
static bool inside(uintptr_t sp)
{
	if (shunt_reader_self && shunt_reader_self->points.top)
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

SHUNT_API const struct shunt_point_probe *shunt_point_enter(const struct shunt_point *p)
{
	return enter(HERE) ? __atomic_load_n(&p->probes, __ATOMIC_ACQUIRE) : NULL;
}

SHUNT_API void shunt_point_leave(void)
{
	if (shunt_reader_self && shunt_reader_self->points.top)
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
	if ((!g && !wait) || shunt_reader_synchronize(&shunt_points))
		return;
	while (g) {
		struct garbage *next = g->next;

		free(g);
		g = next;
	}
}

static size_t count_probes(const struct shunt_point_probe *q)
{
	size_t n = 0;

	while (q && q[n].fn)
		n++;
	return n;
}

static size_t find_probe(const struct shunt_point_probe *q, void (*fn)(void), void *data)
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
static struct shunt_point_probe *changed(const struct shunt_point_probe *old, size_t n, size_t without,
	const struct shunt_point_probe *with, int *err)
{
	struct shunt_point_probe *q;
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
	const struct shunt_point_probe one = {fn, data}, *old;
	struct shunt_point_probe *q;
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
	const struct shunt_point_probe *old;
	struct shunt_point_probe *q = NULL;
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

/* --- rules ------------------------------------------------------------------------------ */

static bool matches(const char *glob, const struct shunt_point *p)
{
	char name[256];

	snprintf(name, sizeof name, "%s:%s", p->provider, p->name);
	return shunt_glob_match(glob, name);
}

/* The last one that matches decides. NULL: none does. */
static const struct rule *rule_for(const struct shunt_point *p)
{
	const struct rule *last = NULL;

	for (const struct rule *r = rules; r; r = r->next)
		if (matches(r->glob, p))
			last = r;
	return last;
}

/* What a tracepoint is to become. */
struct wish {
	struct shunt_point *p;
	const struct shunt_filter *filter;
};

static int give_id(struct shunt_point *p)
{
	int id = p->id ? (int)p->id : shunt_kind_find(p, error, sizeof error);

	if (id < 0)
		return id;
	p->id = (uint32_t)id;
	return 0;
}

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
	/* Also without filters: nobody writes any more into a ring that is closed next. */
	if (inside(HERE) || shunt_reader_synchronize(&shunt_points))
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

struct shunt_ring *shunt_points_recorder(void)
{
	return __atomic_load_n(&recorders_ring, __ATOMIC_ACQUIRE);
}

/* --- objects ------------------------------------------------------------------------------- */

/* Its sites are not up to date yet: the key's count decides what they will be. */
static void apply_rules(struct shunt_point *p)
{
	const struct rule *last = rule_for(p);
	static bool full;
	const void *none;
	struct wish w;
	int err;

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
	const struct shunt_point_probe *probes;
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
	if (export_hook && shunt_kinds_new())
		export_hook();
}

const char *shunt_points_filter(const struct shunt_point *p)
{
	const struct rule *last = rule_for(p);

	return last && last->on && last->filter ? last->filter : "";
}

int shunt_points_each(int (*fn)(const struct shunt_point *p, void *arg), void *arg)
{
	int r = 0;

	for (const struct shunt_point *p = points; p && !r; p = p->next)
		r = fn(p, arg);
	return r;
}
