/* SPDX-License-Identifier: MIT */
/*
 * event.c - see event.h. A tracepoint of a program is a constant of it; one of these has the
 * same parts in memory of its own, and a key without an instruction anywhere.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/trace.h>

#include "event.h"
#include "site/site.h"
#include "trace/point.h"

/* Everything that the tracepoint refers to. */
struct made {
	struct shunt_key key;
	struct shunt_point point;
	struct shunt_def def;
	struct shunt_field fields[SHUNT_FETCH_ARGS + 1];
	struct shunt_label faults[SHUNT_FETCH_ARGS + 2];
	char names[SHUNT_FETCH_ARGS][sizeof((struct shunt_fetch_arg *)0)->name];
	char name[64], object[128];
};

static uint8_t type_of(const struct shunt_fetch_arg *a)
{
	return a->type == SHUNT_FETCH_SIGNED ? SHUNT_TYPE_SIGNED
	       : a->type == SHUNT_FETCH_HEX  ? SHUNT_TYPE_POINTER
					     : SHUNT_TYPE_UNSIGNED;
}

static void describe(struct made *m, const struct shunt_fetch *f, uint32_t i)
{
	const struct shunt_fetch_arg *a = &f->arg[i];
	struct shunt_field *to = &m->fields[i];

	strcpy(m->names[i], a->name);
	to->name = m->names[i];
	to->type = type_of(a);
	to->size = a->size;
	to->count = a->count ? a->count : 1;
	to->shape = a->count ? SHUNT_FIELD_ARRAY : SHUNT_FIELD_SCALAR;
	if (a->type == SHUNT_FETCH_TEXT) {
		to->shape = SHUNT_FIELD_STRING;
		to->count = 1;
	}
}

/* One that could not be read is shown by its name; several, by their bits. */
static void describe_faults(struct made *m, const struct shunt_fetch *f)
{
	struct shunt_field *to = &m->fields[f->nargs];
	size_t n = 0;

	*to = (struct shunt_field){"fault", SHUNT_FIELD_SCALAR, SHUNT_TYPE_UNSIGNED, f->faults, 1, m->faults};
	m->faults[n++] = (struct shunt_label){"none", 0};
	for (uint32_t i = 0; i < f->nargs; i++)
		if (f->arg[i].nderefs)
			m->faults[n++] = (struct shunt_label){m->names[i], 1 << i};
}

static void fill(struct made *m, const char *name, const char *object, const struct shunt_fetch *f)
{
	snprintf(m->name, sizeof m->name, "%s", name);
	snprintf(m->object, sizeof m->object, "%s", object);
	for (uint32_t i = 0; i < f->nargs; i++)
		describe(m, f, i);
	if (f->faults)
		describe_faults(m, f);
	m->key.var = (struct shunt_var){.name = m->name, .kind = SHUNT_KIND_KEY, .size = 8,
		.flags = SHUNT_VAR_PRIVATE};
	m->point.key = &m->key;
	m->point.provider = "probe";
	m->point.name = m->name;
	m->point.fields = m->fields;
	m->point.nfields = f->nargs + (f->faults != 0);
	m->def.var = &m->key.var;
	m->def.name = m->name;
	m->def.count = 1;
	m->def.point = &m->point;
}

/* What the rules have not switched on. */
static int switch_on(struct made *m, char *why, size_t why_size)
{
	char glob[96];
	int r;

	snprintf(glob, sizeof glob, "probe:%s", m->name);
	r = shunt_points_switch(glob, NULL, NULL, true);
	if (r >= 0)
		return 0;
	snprintf(why, why_size, "%s", *shunt_trace_error() ? shunt_trace_error() : strerror(-r));
	return r;
}

int shunt_event_make(struct shunt_event *e, const char *name, const char *object,
	const struct shunt_fetch *f, char *why, size_t why_size)
{
	struct made *m = calloc(1, sizeof *m);
	int err;

	if (!m) {
		snprintf(why, why_size, "no memory");
		return -ENOMEM;
	}
	fill(m, name, object, f);
	shunt_sites_lock();
	shunt_points_add(&m->def, &m->def + 1, m->object);
	err = m->point.recording;
	shunt_sites_unlock();
	e->point = &m->point;
	e->recording = &m->point.recording;
	err = err ? 0 : switch_on(m, why, why_size);
	if (err)
		shunt_event_free(e);
	else
		shunt_points_told();
	return err;
}

void shunt_event_free(struct shunt_event *e)
{
	struct made *m = e->point ? (struct made *)(void *)((char *)e->point - offsetof(struct made, point))
				  : NULL;

	e->point = NULL;
	if (!m)
		return;
	shunt_sites_lock();
	shunt_points_remove(&m->def, &m->def + 1);
	shunt_sites_unlock();
	free(m);
}
