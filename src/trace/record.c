/* SPDX-License-Identifier: MIT */
/* record.c - the recorder's rules (record.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/trampoline_c.h"
#include "record.h"
#include "tracer.h"

struct rule {
	struct rule *next;
	bool on;
	char glob[];
};

static struct rule *rules, **rules_end = &rules;
static bool started;

void shunt_record_depth(unsigned depth)
{
	shunt_recorder_ops.max_depth =
		depth > SHUNT_FTRACE_MAX_DEPTH ? SHUNT_FTRACE_MAX_DEPTH : depth;
}

/* --- rules -------------------------------------------------------------------- */

static int rule_add(const char *glob, bool on)
{
	struct rule *r;

	if (!glob || !*glob)
		return -EINVAL;
	/* '*' decides everything: what was said before it is void. */
	if (!strcmp(glob, "*"))
		while (rules) {
			struct rule *next = rules->next;

			free(rules);
			rules = next;
		}
	if (!rules)
		rules_end = &rules;
	/* The same words again move to the end. */
	for (struct rule **p = &rules; *p; p = &(*p)->next)
		if (!strcmp((*p)->glob, glob)) {
			struct rule *old = *p;

			*p = old->next;
			if (rules_end == &old->next)
				rules_end = p;
			free(old);
			break;
		}
	r = malloc(sizeof *r + strlen(glob) + 1);
	if (!r)
		return -ENOMEM;
	r->next = NULL;
	r->on = on;
	strcpy(r->glob, glob);
	*rules_end = r;
	rules_end = &r->next;
	return 0;
}

int shunt_record_rule(const char *glob, bool on)
{
	int r;

	shunt_tracer_lock();
	r = rule_add(glob, on);
	shunt_tracer_unlock();
	return r;
}

struct verdict {
	uint8_t *on;
	uint8_t value;
	uint32_t matched;
};

static int judge(const struct shunt_object *o, uint32_t i, void *arg)
{
	struct verdict *v = arg;

	(void)o;
	v->on[i] = v->value;
	v->matched++;
	return 0;
}

static int want(struct shunt_change *c, struct shunt_tracer_object *o, const uint8_t *on)
{
	int r = 0;

	for (uint32_t i = 0; i < o->n && !r; i++)
		if (on[i] != o->funcs[i].record)
			r = shunt_change_add(c, o, i, on[i], NULL, NULL);
	return r;
}

/* All rules, in order, for one object. */
int shunt_record_new_object(struct shunt_change *c, struct shunt_tracer_object *o)
{
	struct verdict v = {.on = calloc(o->n ? o->n : 1, 1)};
	int r = 0;

	if (!v.on)
		return -ENOMEM;
	for (struct rule *rule = started ? rules : NULL; rule && r >= 0; rule = rule->next) {
		v.value = rule->on;
		r = shunt_object_glob(o->object, rule->glob, judge, &v);
	}
	r = r < 0 ? r : want(c, o, v.on);
	free(v.on);
	return r;
}

/* Some new rules for one object: the others have been applied. */
static int rejudge(struct shunt_change *c, struct shunt_tracer_object *o,
	const char *const *globs, size_t n, bool on, uint32_t *matched)
{
	struct verdict v = {.on = malloc(o->n ? o->n : 1), .value = on};
	int r = 0;

	if (!v.on)
		return -ENOMEM;
	for (uint32_t i = 0; i < o->n; i++)
		v.on[i] = o->funcs[i].record;
	for (size_t k = 0; k < n && r >= 0; k++)
		r = shunt_object_glob(o->object, globs[k], judge, &v);
	r = r < 0 ? r : want(c, o, v.on);
	*matched += v.matched;
	free(v.on);
	return r;
}

/* --- the recorder --------------------------------------------------------------- */

static void result(const struct shunt_change *c, uint32_t matched,
	struct shunt_record_change *res)
{
	if (!res)
		return;
	memset(res, 0, sizeof *res);
	res->matched = matched;
	res->changed = c->switched;
	res->refused = c->refused;
	res->ns = c->ns;
	snprintf(res->reason, sizeof res->reason, "%s", c->reason);
	if (c->refused && !c->reason[0])
		snprintf(res->reason, sizeof res->reason,
			"%u sites do not hold what was recorded (a debugger's "
			"breakpoint, or somebody else's hook)",
			c->refused);
}

int shunt_record_refresh(struct shunt_record_change *res)
{
	struct shunt_change c = {.skip_bad = true};
	int r = shunt_tracer_catch_up(&c);

	result(&c, (uint32_t)c.n, res);
	shunt_change_done(&c);
	return r;
}

int shunt_record_start(struct shunt_ring *ring)
{
	int r = 0;

	if (!ring)
		return -EINVAL;
	shunt_tracer_lock();
	if (started)
		r = -EALREADY;
	started = true;
	if (!r) {
		__atomic_store_n(&shunt_trace_ring, ring, __ATOMIC_RELEASE);
		r = shunt_tracer_refresh();
	}
	shunt_tracer_unlock();
	return r;
}

int shunt_record_set(const char *const *globs, size_t n, bool on,
	struct shunt_record_change *res)
{
	struct shunt_change c = {.skip_bad = true}, news = {.skip_bad = true};
	uint32_t matched = 0;
	int r = shunt_tracer_catch_up(&news);

	shunt_change_done(&news);
	shunt_tracer_lock();
	for (size_t k = 0; k < n && !r; k++)
		r = rule_add(globs[k], on);
	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o && !r; o = o->next)
		if (!o->object->gone)
			r = rejudge(&c, o, globs, n, on, &matched);
	if (!r)
		r = shunt_change_apply(&c);
	shunt_tracer_unlock();
	result(&c, matched, res);
	shunt_change_done(&c);
	return !r && !matched ? -ENOENT : r;
}

bool shunt_record_is_on(uint32_t id)
{
	bool on = false;

	shunt_tracer_lock();
	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o; o = o->next)
		if (id - o->object->first_id < o->n)
			on = o->funcs[id - o->object->first_id].record;
	shunt_tracer_unlock();
	return on;
}

void shunt_record_stats(struct shunt_record_stats *st)
{
	memset(st, 0, sizeof *st);
	shunt_tracer_lock();
	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o; o = o->next) {
		if (o->object->gone)
			continue;
		st->objects++;
		st->functions += o->n;
		for (uint32_t i = 0; i < o->n; i++)
			st->on += o->funcs[i].record;
	}
	st->batches = shunt_tracer_totals.batches;
	st->toggled = shunt_tracer_totals.toggled;
	st->last_ns = shunt_tracer_totals.last_ns;
	st->memory = shunt_tracer_totals.memory;
	shunt_tracer_unlock();
	shunt_stub_usage(&st->stubs, &st->stubs_max, &st->no_exit);
	/* A row and about two entries of the hash each. */
	st->memory += (uint64_t)st->stubs *
		      (sizeof(struct shunt_stub) + 2 * sizeof(struct shunt_hash_entry));
}

int shunt_record_in_child(struct shunt_ring *ring)
{
	__atomic_store_n(&shunt_trace_ring, ring, __ATOMIC_RELEASE);
	shunt_trace_writer_reset();
	return 0;
}
