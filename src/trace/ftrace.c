/* SPDX-License-Identifier: MIT */
/* ftrace.c - users' callbacks: filters, registration (shunt/ftrace.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/ftrace.h>

#include "rcu/reader.h"
#include "displace.h"
#include "tracer.h"

struct glob {
	struct glob *next;
	bool not;
	char text[];
};

/* ops->priv */
struct user {
	struct user *next; /* registered ones, in that order */
	struct shunt_ftrace_ops *ops;
	struct glob *globs;
	bool registered;
	/* a struct shunt_hook with one user */
	uintptr_t single[(sizeof(struct shunt_hook) + sizeof(void *)) / sizeof(uintptr_t)];
};

static struct user *users, **users_end = &users;

static uintptr_t recorder[(sizeof(struct shunt_hook) + sizeof(void *)) / sizeof(uintptr_t)];

static struct shunt_hook *single_of(struct user *u)
{
	return (struct shunt_hook *)(void *)u->single;
}

struct shunt_hook *shunt_hook_single(struct shunt_ftrace_ops *ops)
{
	if (ops == &shunt_recorder_ops) {
		struct shunt_hook *h = (struct shunt_hook *)(void *)recorder;

		shunt_hook_single_init(h, ops);
		return h;
	}
	return single_of(ops->priv);
}

static struct user *user_of(struct shunt_ftrace_ops *ops)
{
	struct user *u = ops->priv;

	if (u)
		return u;
	u = calloc(1, sizeof *u);
	if (u) {
		u->ops = ops;
		ops->priv = u;
	}
	return u;
}

static int glob_add(struct shunt_ftrace_ops *ops, const char *text, bool not)
{
	struct glob *g, **end;
	struct user *u;
	int r = -ENOMEM;

	if (!ops || !text || !*text)
		return -EINVAL;
	g = malloc(sizeof *g + strlen(text) + 1);
	if (!g)
		return -ENOMEM;
	g->next = NULL;
	g->not = not;
	strcpy(g->text, text);
	shunt_tracer_lock();
	u = user_of(ops);
	if (u) {
		for (end = &u->globs; *end; end = &(*end)->next)
			;
		*end = g;
		r = 0;
	}
	shunt_tracer_unlock();
	if (r)
		free(g);
	return r;
}

SHUNT_API int shunt_ftrace_filter(struct shunt_ftrace_ops *ops, const char *glob)
{
	return glob_add(ops, glob, false);
}

SHUNT_API int shunt_ftrace_notrace(struct shunt_ftrace_ops *ops, const char *glob)
{
	return glob_add(ops, glob, true);
}

/* --- matching --------------------------------------------------------------- */

struct match {
	uint8_t *on;
	uint8_t value;
};

static int match_one(const struct shunt_object *o, uint32_t i, void *arg)
{
	struct match *m = arg;

	(void)o;
	m->on[i] = m->value;
	return 0;
}

/* Sets on[i] for each function of an object that the user wants. */
static int match_object(const struct user *u, const struct shunt_object *o, uint8_t *on)
{
	struct match m = {on, 1};
	bool any = false;
	int r = 0;

	for (const struct glob *g = u->globs; g; g = g->next)
		any |= !g->not;
	/* Functions that were not compiled for it are meant where their object is named. */
	memset(on, any || o->of ? 0 : 1, o->nfuncs);
	for (const struct glob *g = u->globs; g && r >= 0; g = g->next)
		if (!g->not && (!o->of || shunt_glob_names(g->text, o)))
			r = shunt_object_glob(o, g->text, match_one, &m);
	m.value = 0;
	for (const struct glob *g = u->globs; g && r >= 0; g = g->next)
		if (g->not)
			r = shunt_object_glob(o, g->text, match_one, &m);
	return r < 0 ? r : 0;
}

static int want_object(struct shunt_change *c, const struct user *u,
	struct shunt_tracer_object *o)
{
	uint8_t *on = malloc(o->n ? o->n : 1);
	int r;

	if (!on)
		return -ENOMEM;
	r = match_object(u, o->object, on);
	for (uint32_t i = 0; i < o->n && !r; i++)
		if (on[i])
			r = shunt_change_add(c, o, i, o->funcs[i].record, u->ops, NULL);
	free(on);
	return r;
}

/*
 * Each registered user in turn: the wish of one replaces what the site leads
 * to, so every user needs a change of its own.
 */
int shunt_ftrace_new_object(struct shunt_change *c, struct shunt_tracer_object *o)
{
	int r = 0;

	for (struct user *u = users; u && !r; u = u->next) {
		struct shunt_change *one = calloc(1, sizeof *one);

		if (!one)
			return -ENOMEM;
		one->skip_bad = true;
		one->later = c->later;
		c->later = one;
		r = want_object(one, u, o);
		if (!r)
			r = shunt_change_apply(one);
	}
	return r;
}

/* --- registration ------------------------------------------------------------ */

static int check(const struct shunt_ftrace_ops *ops)
{
	if (!ops || (!ops->entry && !ops->exit))
		return -EINVAL;
	if (ops->flags & ~SHUNT_FTRACE_GENERAL_REGS)
		return -EINVAL;
	if (ops->max_depth > SHUNT_FTRACE_MAX_DEPTH)
		return -EINVAL;
	return 0;
}

/* None of them can be traced, which shows only now. */
static bool all_left_out(const struct shunt_change *c)
{
	for (size_t k = 0; k < c->n; k++)
		if (!c->wishes[k].o->funcs[c->wishes[k].i].bad)
			return false;
	return true;
}

static int register_locked(struct shunt_change *c, struct shunt_ftrace_ops *ops)
{
	struct user *u = user_of(ops);
	int r;

	if (!u)
		return -ENOMEM;
	if (u->registered)
		return -EALREADY;
	shunt_hook_single_init(single_of(u), ops);
	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o; o = o->next) {
		r = o->object->gone ? 0 : want_object(c, u, o);
		if (r)
			return r;
	}
	if (!c->n)
		return -ENOENT;
	r = shunt_change_apply(c);
	if (!r && c->left_out && all_left_out(c))
		r = -ENOENT;
	if (r)
		return r;
	u->registered = true;
	u->next = NULL;
	*users_end = u;
	users_end = &u->next;
	return 0;
}

/* Unmodified functions of objects that the filter names: they must be known. */
static int look(const struct user *u)
{
	int r = shunt_objects_refresh();

	for (const struct glob *g = u ? u->globs : NULL; g && !r; g = g->next)
		for (struct shunt_object *o = shunt_objects_first(); o && !g->not && !r; o = o->next) {
			if (o->gone || o->of || o->part || o->nfuncs || !shunt_displace_may(o) ||
				!shunt_glob_names(g->text, o))
				continue;
			r = shunt_displace_init(NULL);
			if (!r && !shunt_object_part(o) && errno == ENOMEM)
				r = -ENOMEM;
		}
	return r;
}

SHUNT_API int shunt_ftrace_register(struct shunt_ftrace_ops *ops)
{
	struct shunt_change c = {0}, news = {.skip_bad = true};
	int r = check(ops);

	if (!r)
		r = look(ops->priv);
	if (r)
		return r;
	r = shunt_tracer_catch_up(&news);
	shunt_change_done(&news);
	if (r)
		return r;
	shunt_tracer_lock();
	r = register_locked(&c, ops);
	shunt_tracer_unlock();
	shunt_change_done(&c);
	return r;
}

static bool uses(const struct shunt_hook *h, const struct shunt_ftrace_ops *ops)
{
	for (uint32_t i = 0; h && i < h->n; i++)
		if (h->users[i] == ops)
			return true;
	return false;
}

static int unregister_locked(struct shunt_change *c, struct user *u)
{
	struct user **p;
	int r = 0;

	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o; o = o->next)
		for (uint32_t i = 0; i < o->n && !r; i++)
			if (uses(o->hooks[i], u->ops))
				r = shunt_change_add(c, o, i, o->funcs[i].record, NULL,
					u->ops);
	if (!r)
		r = shunt_change_apply(c);
	if (r)
		return r;
	for (p = &users; *p != u; p = &(*p)->next)
		;
	*p = u->next;
	if (users_end == &u->next)
		users_end = p;
	u->registered = false;
	return 0;
}

static void user_free(struct shunt_ftrace_ops *ops)
{
	struct user *u = ops->priv;
	struct glob *next;

	for (struct glob *g = u->globs; g; g = next) {
		next = g->next;
		free(g);
	}
	free(u);
	ops->priv = NULL;
}

SHUNT_API int shunt_ftrace_unregister(struct shunt_ftrace_ops *ops)
{
	struct shunt_change c = {.skip_bad = true};
	struct user *u;
	int r = -ENOENT;

	if (!ops)
		return -EINVAL;
	if (shunt_dispatch_inside((uintptr_t)__builtin_frame_address(0)))
		return -EDEADLK;
	shunt_tracer_lock();
	shunt_tracer_refresh();
	u = ops->priv;
	if (u && u->registered)
		r = unregister_locked(&c, u);
	shunt_tracer_unlock();
	shunt_change_done(&c);
	if (r)
		return r;
	shunt_reader_synchronize(&shunt_callbacks);
	user_free(ops);
	return 0;
}

SHUNT_API int shunt_ftrace_refresh(void)
{
	struct shunt_change c = {.skip_bad = true};
	int r = shunt_tracer_catch_up(&c);

	shunt_change_done(&c);
	return r;
}

SHUNT_API int shunt_ftrace_name(uintptr_t ip, char *buf, size_t size)
{
	struct shunt_object *o;
	struct shunt_func *f;
	int r = -ENOENT;

	if (!size)
		return -ENOENT;
	buf[0] = 0;
	shunt_objects_lock();
	f = shunt_func_at(ip, &o);
	if (f && f->name) {
		strncat(buf, o->strings + f->name, size - 1);
		r = 0;
	}
	shunt_objects_unlock();
	return r;
}
