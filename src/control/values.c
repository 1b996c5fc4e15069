/* SPDX-License-Identifier: MIT */
/*
 * values.c - immediate values, keys, calls and choices from outside, and tracepoints: the
 * requests values, set, changes and points (request.h). On the control thread.
 *
 * All of a request is done under the lock of src/site: what was found is still there
 * when it is set.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object/object.h"
#include "serve.h"
#include "site/site.h"
#include "trace/kind.h"
#include "trace/point.h"
#include "value.h"

/* --- names ------------------------------------------------------------------------ */

static void name_of(const struct shunt_defined *d, char *to, size_t size)
{
	char name[192];

	shunt_answer_printable(name, sizeof name, d->def->name);
	if (d->def->count == 1)
		snprintf(to, size, "%s", name);
	else
		snprintf(to, size, "%s[%zu]", name, d->element);
}

/* Looks for an offered function. */
struct find_offer {
	uint64_t target;
	const char *text;
	char *names;
	size_t room;
};

static const struct shunt_choice *choice_of(const struct shunt_var *v)
{
	return v->kind == SHUNT_KIND_CHOICE ? (const struct shunt_choice *)(const void *)v : NULL;
}

static void format(const struct shunt_var *v, uint64_t bits, char *text, size_t size)
{
	const struct shunt_choice *choice = choice_of(v);

	if (v->kind == SHUNT_KIND_CALL)
		shunt_answer_printable(text, size, shunt_call_name(v, bits));
	else if (choice && bits < choice->count)
		shunt_answer_printable(text, size, choice->states[bits]);
	else
		shunt_value_format(v, bits, text, size);
}

/* --- values ----------------------------------------------------------------------- */

struct listing {
	struct shunt_answer *a;
	uint32_t first, at;
	const char *glob;
};

static int list_one(const struct shunt_defined *d, void *arg)
{
	struct listing *l = arg;
	const struct shunt_var *v = d->var;
	char object[128], name[256], value[256];
	uint32_t at = l->at++;

	if (at < l->first || d->def->point)
		return 0;
	name_of(d, name, sizeof name);
	if (!shunt_glob_match(l->glob, name))
		return 0;
	shunt_answer_printable(object, sizeof object, d->object);
	format(v, shunt_var_get(v), value, sizeof value);
	/* leave room for the line that says where to go on */
	if (l->a->len + strlen(object) + strlen(name) + strlen(value) + 128 > sizeof l->a->text) {
		shunt_answer_say(l->a, "next %u\n", at);
		return 1;
	}
	shunt_answer_say(l->a, "val %u %s %s %u %zu %s %llx\t%s\t%s\t%s\n", at, shunt_value_kind(v),
		shunt_value_type(v), v->size, shunt_var_sites(v),
		d->def->var->flags & SHUNT_VAR_PRIVATE ? "private" : "-",
		(unsigned long long)(uintptr_t)v, object, name, value);
	return 0;
}

static void answer_values(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	struct listing l = {a, req->first, 0, req->nglobs ? req->globs[0] : "*"};

	shunt_answer_say(a, "ok\n");
	shunt_sites_lock();
	shunt_defined_each(list_one, &l);
	shunt_sites_unlock();
}

/* --- tracepoints ------------------------------------------------------------------- */

static int list_point(const struct shunt_point *p, void *arg)
{
	struct listing *l = arg;
	char object[128], name[256], raw[256], filter[512], fields[1400];
	const struct shunt_point_probe *q = p->probes;
	uint32_t at = l->at++;
	unsigned probes = 0;

	if (at < l->first)
		return 0;
	snprintf(raw, sizeof raw, "%s:%s", p->provider, p->name);
	if (!shunt_glob_match(l->glob, raw))
		return 0;
	shunt_answer_printable(name, sizeof name, raw);
	shunt_answer_printable(filter, sizeof filter, shunt_points_filter(p));
	shunt_answer_printable(object, sizeof object, p->object);
	if (shunt_fields_text(p, fields, sizeof fields))
		strcpy(fields, "...");
	for (char *c = fields; *c; c++)
		if (*c == '\t')
			*c = ';';
	for (; q && q->fn; q++)
		probes++;
	if (l->a->len + strlen(object) + strlen(name) + strlen(filter) + strlen(fields) + 128 >
		sizeof l->a->text) {
		shunt_answer_say(l->a, "next %u\n", at);
		return 1;
	}
	shunt_answer_say(l->a, "pt %u %s %zu %u\t%s\t%s\t%s\t%s\n", at, p->recording ? "on" : "off",
		shunt_var_sites(&p->key->var), probes, object, name, filter, fields);
	return 0;
}

static void answer_points(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	struct listing l = {a, req->first, 0, req->nglobs ? req->globs[0] : "*"};

	shunt_answer_say(a, "ok\n");
	shunt_sites_lock();
	shunt_points_each(list_point, &l);
	shunt_sites_unlock();
}

/* --- set ---------------------------------------------------------------------------- */

/* [OBJECT:]NAME[@ADDRESS]=VALUE, cut. */
struct wanted {
	const char *object, *name, *value;
	uint64_t address; /* 0: any */
	struct shunt_defined found;
	unsigned n;
	char where[2][160]; /* the first two */
};

static int cut(char *text, struct wanted *w)
{
	char *value = strchr(text, '='), *colon, *at, *end;

	if (!value || value == text)
		return -EINVAL;
	*value++ = 0;
	w->value = value;
	colon = strrchr(text, ':');
	w->object = colon ? text : NULL;
	w->name = colon ? colon + 1 : text;
	if (colon)
		*colon = 0;
	at = strchr(w->name, '@');
	if (!at)
		return 0;
	*at++ = 0;
	w->address = strtoull(at, &end, 16);
	return *end || !w->address ? -EINVAL : 0;
}

static int match(const struct shunt_defined *d, void *arg)
{
	struct wanted *w = arg;
	char name[256], object[128];

	if (d->def->point)
		return 0;
	name_of(d, name, sizeof name);
	if (strcmp(name, w->name) || (w->address && w->address != (uintptr_t)d->var))
		return 0;
	shunt_answer_printable(object, sizeof object, d->object);
	if (w->object && strcmp(object, w->object))
		return 0;
	if (w->n && w->found.var == d->var) /* defined in two objects, and one for both */
		return 0;
	if (w->n < 2)
		snprintf(w->where[w->n], sizeof w->where[0], "%.100s:%s@%llx", object, "",
			(unsigned long long)(uintptr_t)d->var);
	w->found = *d;
	w->n++;
	return 0;
}

static int offer_named(const struct shunt_offer *o, void *arg)
{
	struct find_offer *f = arg;
	size_t n = strlen(f->names);

	snprintf(f->names + n, f->room - n, "%s%s", n ? ", " : "", o->name);
	if (strcmp(o->name, f->text))
		return 0;
	f->target = (uintptr_t)o->target;
	return 1;
}

static int parse_call(const struct shunt_var *v, const char *text, uint64_t *bits, const char **why)
{
	static char sentence[400];
	char names[256] = "";
	struct find_offer f = {.text = text, .names = names, .room = sizeof names};

	*why = sentence;
	if (shunt_offers_each(v, offer_named, &f)) {
		*bits = f.target;
		return 0;
	}
	snprintf(sentence, sizeof sentence, "%s%s",
		*names ? "it is not among what the program offers (SHUNT_CALL_OFFER): "
		       : "the program offers no targets for this call (SHUNT_CALL_OFFER)",
		names);
	return -EINVAL;
}

static void set_found(struct wanted *w, struct shunt_answer *a)
{
	struct shunt_var *v = w->found.var;
	const struct shunt_choice *choice = choice_of(v);
	struct shunt_change c = {v, 0};
	char before[256], after[256], states[256] = "";
	const char *why = "";
	int err;

	if (w->found.def->var->flags & SHUNT_VAR_PRIVATE) {
		shunt_answer_say(a, "error %s is private: only the program can set it\n", w->name);
		return;
	}
	err = v->kind == SHUNT_KIND_CALL
		? parse_call(v, w->value, &c.bits, &why)
		: shunt_value_parse(v, w->value, choice ? choice->states : NULL,
			  choice ? choice->count : 0, &c.bits, &why);
	if (err) {
		for (uint64_t i = 0; choice && i < choice->count; i++)
			snprintf(states + strlen(states), sizeof states - strlen(states), "%s%s",
				i ? ", " : ": ", choice->states[i]);
		shunt_answer_say(a, "error %s (%s) cannot be '%.200s': %s%s\n", w->name,
			shunt_value_type(v), w->value, why, states);
		return;
	}
	if (v->kind == SHUNT_KIND_KEY && c.bits && shunt_var_get(v))
		c.bits = shunt_var_get(v); /* a count, not to be lost */
	format(v, shunt_var_get(v), before, sizeof before);
	err = shunt_vars_set(&c, 1);
	if (err) {
		shunt_answer_say(a, "error %s stays %s: %s%s%s\n", w->name, before,
			err == -EBUSY ? "another tool has changed an instruction of it" : strerror(-err),
			*shunt_sites_reason() ? ": " : "", shunt_sites_reason());
		return;
	}
	format(v, c.bits, after, sizeof after);
	shunt_answer_say(a, "ok\nbefore %s\nafter %s\nsites %zu\n", before, after, shunt_var_sites(v));
}

static void answer_set(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	static char text[SHUNT_CTL_REQUEST + 1];
	struct wanted w = {0};

	snprintf(text, sizeof text, "%s", req->globs[0]);
	if (cut(text, &w)) {
		shunt_answer_say(a, "error write NAME=VALUE, OBJECT:NAME=VALUE or NAME@ADDRESS=VALUE\n");
		return;
	}
	shunt_sites_lock();
	shunt_defined_each(match, &w);
	if (!w.n)
		shunt_answer_say(a, "error nothing is called %.200s: 'shunt list' shows what there is\n",
			w.name);
	else if (w.n > 1)
		shunt_answer_say(a, "error %u variables are called %.200s: write OBJECT:NAME or "
			"NAME@ADDRESS, of %s and %s%s\n", w.n, w.name, w.where[0], w.where[1],
			w.n > 2 ? " and so on" : "");
	else
		set_found(&w, a);
	shunt_sites_unlock();
}

/* --- changes ------------------------------------------------------------------------- */

static int change_one(const struct shunt_changed *c, uint64_t n, void *arg)
{
	struct shunt_answer *a = arg;
	char name[sizeof c->name], value[256];

	shunt_answer_printable(name, sizeof name, c->name);
	if (*c->state)
		shunt_answer_printable(value, sizeof value, c->state);
	else
		shunt_value_format(&c->var, c->bits, value, sizeof value);
	return a->len + 512 > sizeof a->text ||
	       !shunt_answer_say(a, "chg %llu\t%s\t%s\n", (unsigned long long)n, name, value);
}

static void answer_changes(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	uint64_t next;

	shunt_answer_say(a, "ok\n");
	shunt_sites_lock();
	next = shunt_changes_each(req->first, change_one, a);
	shunt_sites_unlock();
	shunt_answer_say(a, "next %llu\n", (unsigned long long)next);
}

void shunt_values_carry_out(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	switch (req->verb) {
	case SHUNT_CTL_VALUES:
		answer_values(req, a);
		break;
	case SHUNT_CTL_POINTS:
		answer_points(req, a);
		break;
	case SHUNT_CTL_SET:
		answer_set(req, a);
		break;
	case SHUNT_CTL_CHANGES:
		answer_changes(req, a);
		break;
	default:
		shunt_answer_say(a, "error this process is not recorded: start it under 'shunt record'\n");
	}
}
