/* SPDX-License-Identifier: MIT */
/*
 * tracer.c - the tracer's objects, and changing what their sites hold.
 *
 * Order of a change, which keeps every thread on valid ground at any moment:
 *   1. hooks of functions that go on (or change hands) are published;
 *   2. the sites are switched, in one batch of the text engine;
 *   3. hooks of functions that went off are taken away;
 *   4. after a grace period, replaced hooks are freed (shunt_change_done).
 * A thread that took the old jump finds the new hook, or none: both are right
 * for a call that began while the change was under way.
 *
 * Locks: tracer -> (loader -> objects) -> text. The batch runs inside a
 * dl_iterate_phdr callback, so that no object can be unloaded meanwhile.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shunt/text.h>

#include "arch/x86_64/trampoline_c.h"
#include "base/clock.h"
#include "base/hold.h"
#include "base/log.h"
#include "rcu/reader.h"
#include "text/text_internal.h"
#include "tracer.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shunt_tracer_object *objects, **objects_end = &objects;

struct shunt_tracer_totals shunt_tracer_totals;

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0, 0};
static const uint8_t nop6[6] = {0x66, 0x0f, 0x1f, 0x44, 0, 0};

/* --- the lock, held over fork -------------------------------------------- */

static sigset_t held_back; /* the lock holder's mask before it */

void shunt_tracer_lock(void)
{
	sigset_t before;

	shunt_hold_signals(&before);
	pthread_mutex_lock(&lock);
	held_back = before;
}

void shunt_tracer_unlock(void)
{
	sigset_t before = held_back;

	pthread_mutex_unlock(&lock);
	shunt_release_signals(&before);
}

/* An unloaded object may come back at the same place: then our jumps are gone. */
static bool intact(const struct shunt_object *obj, void *data)
{
	const struct shunt_tracer_object *o = obj->trace;

	(void)data;
	for (uint32_t i = 0; o && i < o->n; i++) {
		const uint8_t *site = (const uint8_t *)obj->funcs[i].site;

		if (o->funcs[i].now || o->funcs[i].merged)
			return *site == (o->funcs[i].now ? 0xe9 : o->funcs[i].nop[0]);
	}
	return true;
}

static void start(void)
{
	static struct shunt_object_listener listener = {.intact = intact};

	shunt_text_at_fork(); /* the innermost lock first */
	shunt_objects_at_fork();
	pthread_atfork(shunt_tracer_lock, shunt_tracer_unlock, shunt_tracer_unlock);
	shunt_object_listen(&listener);
	shunt_arch_trampoline_init();
}

/* --- hooks ---------------------------------------------------------------- */

static uint32_t hook_flags(struct shunt_ftrace_ops *const *users, uint32_t n)
{
	uint32_t flags = SHUNT_HOOK_GPR;

	for (uint32_t i = 0; i < n; i++) {
		if (users[i]->exit)
			flags |= SHUNT_HOOK_EXIT;
		if (users[i]->max_depth)
			flags |= SHUNT_HOOK_DEPTH | SHUNT_HOOK_STATE;
		if (users[i] == &shunt_recorder_ops)
			flags |= SHUNT_HOOK_STATE;
		if (!(users[i]->flags & SHUNT_FTRACE_GENERAL_REGS))
			flags &= ~SHUNT_HOOK_GPR;
	}
	return flags;
}

void shunt_hook_single_init(struct shunt_hook *h, struct shunt_ftrace_ops *ops)
{
	h->entry = ops->entry ? ops->entry : shunt_hook_nothing;
	h->ops = ops;
	h->n = 1;
	h->users[0] = ops;
	h->flags = hook_flags(h->users, 1);
}

static struct shunt_hook *hook_list(struct shunt_ftrace_ops *const *users, uint32_t n)
{
	struct shunt_hook *h = malloc(sizeof *h + n * sizeof *users);

	if (!h)
		return NULL;
	h->entry = shunt_hook_list_entry;
	h->ops = (struct shunt_ftrace_ops *)(void *)h;
	h->n = n;
	memcpy(h->users, users, n * sizeof *users);
	h->flags = hook_flags(users, n);
	return h;
}

static void hook_free(struct shunt_hook *h)
{
	if (h && h->n > 1)
		free(h);
}

/*
 * The hook for a function's users: those it had, without `drop`, with `add`,
 * and with the recorder in front where it cannot stand alone.
 */
static int hook_make(const struct shunt_hook *old, bool record, struct shunt_ftrace_ops *add,
	struct shunt_ftrace_ops *drop, struct shunt_hook **hook)
{
	uint32_t room = (old ? old->n : 0) + 2, n = 0;
	struct shunt_ftrace_ops *few[8];
	struct shunt_ftrace_ops **users = few;
	bool others = add != NULL;

	if (room > 8) {
		users = malloc(room * sizeof *users);
		if (!users)
			return -ENOMEM;
	}
	for (uint32_t i = 0; old && i < old->n; i++)
		if (old->users[i] != drop && old->users[i] != &shunt_recorder_ops)
			others = true;
	if (record && (others || shunt_recorder_ops.max_depth))
		users[n++] = &shunt_recorder_ops;
	for (uint32_t i = 0; old && i < old->n; i++)
		if (old->users[i] != drop && old->users[i] != add &&
			old->users[i] != &shunt_recorder_ops)
			users[n++] = old->users[i];
	if (add)
		users[n++] = add;
	*hook = NULL;
	if (n == 1)
		*hook = shunt_hook_single(users[0]);
	else if (n > 1)
		*hook = hook_list(users, n);
	if (users != few)
		free(users);
	return n && !*hook ? -ENOMEM : 0;
}

static enum shunt_target target_of(const struct shunt_hook *hook, bool record)
{
	if (!hook)
		return record ? SHUNT_TARGET_RECORD : SHUNT_TARGET_NOP;
	return hook->flags & SHUNT_HOOK_GPR ? SHUNT_TARGET_CALL_GPR : SHUNT_TARGET_CALL_VEC;
}

/* --- slots ---------------------------------------------------------------- */

static uintptr_t slot_of(const struct shunt_tracer_object *o, uint32_t i, enum shunt_target t)
{
	uintptr_t page = o->bank[t] + (uintptr_t)(i / SHUNT_SLOTS_A_PAGE) * 4096;

	return shunt_arch_slot(page, i % SHUNT_SLOTS_A_PAGE);
}

/* The slots of one kind for all functions of an object, made when first needed. */
static int bank_make(struct shunt_tracer_object *o, enum shunt_target t)
{
	static void (*const entries[SHUNT_TARGETS])(void) = {
		[SHUNT_TARGET_RECORD] = shunt_record_entry,
		[SHUNT_TARGET_CALL_GPR] = shunt_call_entry_gpr,
		[SHUNT_TARGET_CALL_VEC] = shunt_call_entry_vec,
	};
	size_t pages = (o->n + SHUNT_SLOTS_A_PAGE - 1) / SHUNT_SLOTS_A_PAGE;
	struct shunt_arch_site sites[SHUNT_SLOTS_A_PAGE];
	void *at;
	uint8_t *buf;
	int r;

	if (o->bank[t])
		return 0;
	r = shunt_text_alloc_near(o->object->text_lo, o->object->text_hi, pages * 4096, &at);
	if (r)
		return r;
	buf = malloc(pages * 4096);
	if (!buf)
		return -ENOMEM; /* the room stays: it is tried again */
	for (size_t p = 0; p < pages; p++) {
		uint32_t first = (uint32_t)(p * SHUNT_SLOTS_A_PAGE);
		uint32_t n = o->n - first;

		if (n > SHUNT_SLOTS_A_PAGE)
			n = SHUNT_SLOTS_A_PAGE;
		for (uint32_t i = 0; i < n; i++) {
			sites[i].addr = o->object->funcs[first + i].site;
			sites[i].len = o->object->funcs[first + i].len;
		}
		shunt_arch_slots_fill(buf + p * 4096, (uintptr_t)at + p * 4096, entries[t],
			o->hooks + first, o->object->first_id + first, sites, n);
	}
	r = shunt_text_write_private(at, buf, pages * 4096);
	free(buf);
	if (r)
		return r;
	o->bank[t] = (uintptr_t)at;
	shunt_tracer_totals.memory += pages * 4096;
	return 0;
}

static void site_bytes(const struct shunt_tracer_object *o, uint32_t i, enum shunt_target t,
	uint8_t out[5])
{
	uintptr_t site = o->object->funcs[i].site;
	int32_t rel;

	if (t == SHUNT_TARGET_NOP) {
		memcpy(out, o->funcs[i].nop, 5);
		return;
	}
	rel = (int32_t)(slot_of(o, i, t) - (site + 5));
	out[0] = 0xe9;
	memcpy(out + 1, &rel, 4);
}

/* --- new objects ---------------------------------------------------------- */

static bool one_instruction(const struct shunt_func *f)
{
	return f->kind == SHUNT_SITE_NOP5 || f->kind == SHUNT_SITE_NOPLONG;
}

struct merge {
	struct shunt_tracer_object *o;
	struct shunt_edit *edits;
	struct shunt_text_result res;
	int merged; /* what became of the edits */
};

/* What makes one NOP of a site, if it is none yet. */
static bool merge_edit(const struct shunt_func *f, struct shunt_edit *e)
{
	bool six = f->kind == SHUNT_SITE_CALL_FENTRY && f->len == 6;

	if (one_instruction(f))
		return false;
	memset(e, 0, sizeof *e);
	e->addr = (void *)f->site;
	e->len = six ? 6 : 5;
	e->act = SHUNT_TEXT_SKIP;
	memcpy(e->old, e->addr, e->len);
	memcpy(e->new_, six ? nop6 : nop5, e->len);
	return true;
}

/*
 * With the loader's lock held, so that the object is there: makes one NOP of
 * what a compiler left at each site, five one-byte NOPs or a call of
 * __fentry__, and takes down what a site holds while it is off.
 */
static int merge_sites(void *arg)
{
	struct merge *m = arg;
	struct shunt_tracer_object *o = m->o;
	struct shunt_text_options opts = {0};
	bool one_byte = false;
	size_t n = 0;

	if (o->object->gone)
		return -ENOENT;
	for (uint32_t i = 0; i < o->n; i++)
		if (merge_edit(&o->object->funcs[i], &m->edits[n])) {
			one_byte |= o->object->funcs[i].kind == SHUNT_SITE_NOP1x5;
			n++;
		}
	/* Threads may stand between one-byte NOPs. */
	if (one_byte && !shunt_text_single_threaded())
		opts.strategy = SHUNT_TEXT_STOP;
	m->merged = n ? shunt_text_apply(m->edits, n, &opts, &m->res) : 0;
	for (uint32_t i = 0; i < o->n; i++) {
		bool other = !one_instruction(&o->object->funcs[i]);

		memcpy(o->funcs[i].nop, (void *)o->object->funcs[i].site, 5);
		o->funcs[i].merged = !m->merged && other;
		o->funcs[i].bad = m->merged && other;
	}
	return 0;
}

static void object_free(struct shunt_tracer_object *o)
{
	free(o->hooks);
	free(o->funcs);
	free(o);
}

static int object_add(struct shunt_object *obj)
{
	struct shunt_tracer_object *o = calloc(1, sizeof *o);
	struct merge m = {.o = o};
	int r = -ENOMEM;

	if (!o)
		return -ENOMEM;
	o->object = obj;
	o->n = obj->nfuncs;
	o->hooks = calloc(o->n, sizeof *o->hooks);
	o->funcs = calloc(o->n, sizeof *o->funcs);
	m.edits = malloc(o->n * sizeof *m.edits);
	if (o->hooks && o->funcs && m.edits)
		r = shunt_objects_while_loaded(merge_sites, &m);
	free(m.edits);
	if (r) {
		object_free(o);
		return r == -ENOENT ? 0 : r; /* unloaded before we came to it */
	}
	if (m.merged)
		shunt_log(SHUNT_LOG_WARNING, "%s: its sites cannot be made one NOP each: %s",
			obj->path, m.res.reason);
	shunt_tracer_totals.memory +=
		sizeof *o + o->n * (sizeof *o->hooks + sizeof *o->funcs + sizeof *obj->funcs);
	obj->trace = o;
	*objects_end = o;
	objects_end = &o->next;
	return 0;
}

/* Its memory is gone: nothing is on any more. */
static void object_gone(struct shunt_tracer_object *o)
{
	for (uint32_t i = 0; i < o->n; i++) {
		o->funcs[i].now = SHUNT_TARGET_NOP;
		o->funcs[i].record = 0;
		o->funcs[i].bad = 1;
		hook_free(o->hooks[i]); /* no thread can be in an unloaded function */
		o->hooks[i] = NULL;
	}
}

int shunt_tracer_refresh(void)
{
	static bool started;
	int r, first = 0;

	if (!started) {
		start();
		started = true;
	}
	r = shunt_objects_refresh();
	if (r)
		return r;
	for (struct shunt_object *obj = shunt_objects_lock(); obj; obj = obj->next) {
		struct shunt_tracer_object *o = obj->trace;

		if (o && obj->gone && !o->seen)
			continue;
		if (o && obj->gone)
			object_gone(o);
	}
	shunt_objects_unlock();
	for (struct shunt_object *obj = shunt_objects_first(); obj; obj = obj->next) {
		if (obj->trace || obj->gone || !obj->nfuncs)
			continue;
		r = object_add(obj);
		if (r && !first)
			first = r;
	}
	return first;
}

struct shunt_tracer_object *shunt_tracer_objects(void)
{
	return objects;
}

/* --- changes -------------------------------------------------------------- */

static struct shunt_wish *wish_of(struct shunt_change *c, struct shunt_tracer_object *o,
	uint32_t i)
{
	struct shunt_wish *w;

	if (c->n == c->room) {
		size_t room = c->room ? c->room * 2 : 64;

		w = realloc(c->wishes, room * sizeof *w);
		if (!w)
			return NULL;
		c->wishes = w;
		c->room = room;
	}
	w = &c->wishes[c->n];
	memset(w, 0, sizeof *w);
	w->o = o;
	w->i = i;
	w->old_hook = o->hooks[i];
	return w;
}

int shunt_change_add(struct shunt_change *c, struct shunt_tracer_object *o, uint32_t i,
	bool record, struct shunt_ftrace_ops *add, struct shunt_ftrace_ops *drop)
{
	struct shunt_wish *w;
	int r;

	if (o->funcs[i].bad) {
		c->refused++;
		return 0;
	}
	w = wish_of(c, o, i);
	if (!w)
		return -ENOMEM;
	w->record = record;
	r = hook_make(w->old_hook, record, add, drop, &w->hook);
	if (r)
		return r;
	w->target = (uint8_t)target_of(w->hook, record);
	c->n++;
	return 0;
}

static int make_banks(struct shunt_change *c)
{
	for (size_t k = 0; k < c->n; k++) {
		struct shunt_wish *w = &c->wishes[k];
		int r;

		if (!w->target || w->o->bank[w->target])
			continue;
		r = bank_make(w->o, w->target);
		if (r) {
			snprintf(c->reason, sizeof c->reason,
				"no room for trampolines near %s", w->o->object->path);
			return r;
		}
	}
	return 0;
}

struct batch {
	struct shunt_change *c;
	struct shunt_edit *edits;
	size_t n;
	struct shunt_text_result res;
};

/* With the loader's lock held: nothing is unloaded meanwhile. */
static int batch_apply(void *arg)
{
	struct batch *b = arg;
	struct shunt_text_options opts = {0};
	int r;

	b->n = 0;
	for (size_t k = 0; k < b->c->n; k++) {
		struct shunt_wish *w = &b->c->wishes[k];
		struct shunt_tracer_func *f = &w->o->funcs[w->i];
		struct shunt_edit *e = &b->edits[b->n];

		if (f->bad || w->o->object->gone || f->now == w->target)
			continue;
		memset(e, 0, sizeof *e);
		e->addr = (void *)w->o->object->funcs[w->i].site;
		e->len = 5;
		site_bytes(w->o, w->i, f->now, e->old);
		site_bytes(w->o, w->i, w->target, e->new_);
		e->act = w->target ? SHUNT_TEXT_JUMP : SHUNT_TEXT_SKIP;
		e->target = w->target ? (void *)slot_of(w->o, w->i, w->target) : NULL;
		b->n++;
	}
	r = b->n ? shunt_text_apply(b->edits, b->n, &opts, &b->res) : 0;
	/* Here, where intact() cannot look in between. */
	for (size_t k = 0; k < b->c->n && !r; k++) {
		struct shunt_wish *w = &b->c->wishes[k];

		if (!w->o->funcs[w->i].bad)
			w->o->funcs[w->i].now = w->target;
	}
	return r;
}

static bool mark_bad(struct shunt_change *c, uintptr_t where)
{
	for (size_t k = 0; k < c->n; k++) {
		struct shunt_wish *w = &c->wishes[k];
		uintptr_t site = w->o->object->funcs[w->i].site;

		if (where - site < 5 && !w->o->funcs[w->i].bad) {
			w->o->funcs[w->i].bad = 1;
			c->refused++;
			return true;
		}
	}
	return false;
}

static int switch_sites(struct shunt_change *c)
{
	struct batch b = {.c = c, .edits = calloc(c->n, sizeof *b.edits)};
	uint64_t t = shunt_now_ns();
	int r;

	if (!b.edits)
		return -ENOMEM;
	do
		r = shunt_objects_while_loaded(batch_apply, &b);
	while (r == -EBUSY && c->skip_bad && mark_bad(c, (uintptr_t)b.res.addr));
	c->ns = shunt_now_ns() - t;
	c->switched = r ? 0 : (uint32_t)b.n;
	if (r) {
		c->where = (uintptr_t)b.res.addr;
		snprintf(c->reason, sizeof c->reason, "%s", b.res.reason);
	}
	free(b.edits);
	return r;
}

static void publish(struct shunt_wish *w, struct shunt_hook *hook)
{
	/* Pairs with hook_at(): whoever sees the hook sees what is in it. */
	__atomic_store_n(&w->o->hooks[w->i], hook, __ATOMIC_RELEASE);
}

int shunt_change_apply(struct shunt_change *c)
{
	int r;

	if (!c->n)
		return 0;
	r = make_banks(c);
	if (r)
		return r;
	for (size_t k = 0; k < c->n; k++)
		if (c->wishes[k].hook)
			publish(&c->wishes[k], c->wishes[k].hook);
	r = switch_sites(c);
	for (size_t k = 0; k < c->n; k++) {
		struct shunt_wish *w = &c->wishes[k];
		struct shunt_tracer_func *f = &w->o->funcs[w->i];

		if (r || f->bad) {
			publish(w, w->old_hook);
			w->old_hook = w->hook; /* what is to be freed */
			continue;
		}
		f->record = w->record;
		if (!w->hook)
			publish(w, NULL);
	}
	if (r)
		return r;
	shunt_tracer_totals.batches++;
	shunt_tracer_totals.toggled += c->switched;
	shunt_tracer_totals.last_ns = c->ns;
	return 0;
}

void shunt_change_done(struct shunt_change *c)
{
	bool lists = false;

	while (c->later) {
		struct shunt_change *one = c->later;

		c->later = one->later;
		one->later = NULL;
		shunt_change_done(one);
		free(one);
	}

	for (size_t k = 0; k < c->n; k++)
		lists |= c->wishes[k].old_hook && c->wishes[k].old_hook->n > 1;
	if (lists && shunt_reader_synchronize(&shunt_callbacks) == 0)
		for (size_t k = 0; k < c->n; k++)
			hook_free(c->wishes[k].old_hook);
	/* From inside a callback nothing can be waited for: they are left. */
	free(c->wishes);
	memset(c, 0, sizeof *c);
}

int shunt_tracer_catch_up(struct shunt_change *c)
{
	struct shunt_change calls = {0};
	int r;

	shunt_tracer_lock();
	r = shunt_tracer_refresh();
	for (struct shunt_tracer_object *o = objects; o && !r; o = o->next)
		if (!o->seen && !o->object->gone)
			r = shunt_record_new_object(c, o);
	if (!r)
		r = shunt_change_apply(c);
	for (struct shunt_tracer_object *o = objects; o && !r; o = o->next) {
		if (!o->seen && !o->object->gone)
			r = shunt_ftrace_new_object(&calls, o);
		o->seen = true;
	}
	shunt_tracer_unlock();
	shunt_change_done(&calls);
	return r;
}
