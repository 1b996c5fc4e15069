/* SPDX-License-Identifier: MIT */
/* record.c - the recorder's rules (record.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/trampoline_c.h"
#include "displace.h"
#include "record.h"
#include "tracer.h"

struct rule {
	struct rule *next;
	bool on;
	char glob[];
};

static struct rule *rules, **rules_end = &rules;
static bool started;

/* Objects whose unmodified functions are like others. */
struct name {
	struct name *next;
	char glob[];
};
static struct name *unmodified;
static bool program_too = true;

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

/* --- functions that nobody compiled for it ------------------------------------------ */

int shunt_record_unmodified(const char *glob)
{
	struct name *n;

	if (!glob) {
		program_too = false;
		return 0;
	}
	if (shunt_glob_check(glob))
		return -EINVAL;
	n = malloc(sizeof *n + strlen(glob) + 1);
	if (!n)
		return -ENOMEM;
	strcpy(n->glob, glob);
	n->next = unmodified;
	unmodified = n;
	return 0;
}

static const char *file_of(const struct shunt_object *o)
{
	const char *slash = strrchr(o->path, '/');

	return slash ? slash + 1 : o->path;
}

/* All of an object's unmodified functions are wanted, as far as rules go. */
static bool is_included(const struct shunt_object *o)
{
	for (const struct name *n = unmodified; n; n = n->next)
		if (shunt_glob_match(n->glob, file_of(o)))
			return true;
	return program_too && !o->id && !o->nfuncs;
}

static bool may_be_named(const struct shunt_object *o, const char *const *globs, size_t n)
{
	if (o->nfuncs)
		return false;
	for (const struct rule *r = rules; r; r = r->next)
		if (r->on && shunt_glob_names(r->glob, o))
			return true;
	for (size_t i = 0; i < n; i++)
		if (shunt_glob_names(globs[i], o))
			return true;
	return false;
}

/* The next object after `from` of which a part is wanted and is not there yet. */
static struct shunt_object *lacking(struct shunt_object *from, const char *const *globs, size_t n)
{
	struct shunt_object *o = from ? from->next : shunt_objects_first();

	for (; o; o = o->next)
		if (!o->gone && !o->of && !o->part && shunt_displace_may(o) &&
			(is_included(o) || may_be_named(o, globs, n)))
			break;
	return o;
}

int shunt_record_look(const char *const *globs, size_t n, const char **why)
{
	struct shunt_object *o = NULL;
	int r = shunt_objects_refresh();

	while (!r) {
		shunt_tracer_lock(); /* the rules' */
		o = started ? lacking(o, globs, n) : NULL;
		shunt_tracer_unlock();
		if (!o)
			break;
		r = shunt_displace_init(why);
		if (!r && !shunt_object_part(o) && errno == ENOMEM)
			r = -ENOMEM;
	}
	return r;
}

/* Whether a rule may say anything of an object. */
static bool applies(const char *glob, bool on, const struct shunt_object *o)
{
	return !o->of || !on || is_included(o->of) || shunt_glob_names(glob, o);
}

int shunt_record_left_out(int (*fn)(const struct shunt_record_left_out *f, void *arg), void *arg)
{
	int r = 0;

	shunt_tracer_lock();
	for (struct shunt_tracer_object *o = shunt_tracer_objects(); o && !r; o = o->next)
		for (uint32_t i = 0; o->displaced && i < o->n && !r; i++)
			if (o->displaced[i].state == SHUNT_DISPLACED_LEFT_OUT)
				r = fn(&(struct shunt_record_left_out){o->object, i,
					o->displaced[i].why}, arg);
	shunt_tracer_unlock();
	return r;
}

/* --- what the rules say --------------------------------------------------------- */

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
		if (applies(rule->glob, rule->on, o->object))
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
		if (applies(globs[k], on, o->object))
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
	res->left_out = c->left_out;
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
	int r;

	shunt_record_look(NULL, 0, NULL);
	r = shunt_tracer_catch_up(&c);
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
	int r;

	shunt_record_look(on ? globs : NULL, on ? n : 0, NULL);
	r = shunt_tracer_catch_up(&news);
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
		st->unmodified += o->displaced ? o->n : 0;
		for (uint32_t i = 0; i < o->n; i++) {
			st->on += o->funcs[i].record;
			st->left_out += o->displaced &&
				o->displaced[i].state == SHUNT_DISPLACED_LEFT_OUT;
		}
	}
	st->batches = shunt_tracer_totals.batches;
	st->toggled = shunt_tracer_totals.toggled;
	st->last_ns = shunt_tracer_totals.last_ns;
	st->memory = shunt_tracer_totals.memory + shunt_displace_memory();
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
