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
#include "displace.h"
#include "tracer.h"

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct shunt_tracer_object *objects, **objects_end = &objects;

struct shunt_tracer_totals shunt_tracer_totals;

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0, 0};
static const uint8_t nop6[6] = {0x66, 0x0f, 0x1f, 0x44, 0, 0};

/* --- the lock, held over fork -------------------------------------------- */

void shunt_tracer_lock(void)
{
	shunt_hold_take(&lock);
}

void shunt_tracer_unlock(void)
{
	shunt_hold_give(&lock);
}

/* An unloaded object may come back at the same place: then our jumps are gone. */
static bool intact(const struct shunt_object *obj, void *data)
{
	const struct shunt_tracer_object *o = obj->trace;

	if (obj->part && !intact(obj->part, data))
		return false;
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

static size_t pages_of(const struct shunt_tracer_object *o)
{
	return (o->n + SHUNT_SLOTS_A_PAGE - 1) / SHUNT_SLOTS_A_PAGE;
}

static struct shunt_arch_site arch_site(const struct shunt_tracer_object *o, uint32_t i)
{
	const struct shunt_func *f = &o->object->funcs[i];

	if (o->displaced && o->displaced[i].body)
		return (struct shunt_arch_site){.addr = o->displaced[i].body};
	return (struct shunt_arch_site){.addr = f->site, .len = f->len};
}

/* One page of slots, which will be at `at`. */
static void fill_page(const struct shunt_tracer_object *o, enum shunt_target t, size_t p,
	uintptr_t at, uint8_t *page)
{
	static void (*const entries[2][SHUNT_TARGETS])(void) = {
		{
			[SHUNT_TARGET_RECORD] = shunt_record_entry,
			[SHUNT_TARGET_CALL_GPR] = shunt_call_entry_gpr,
			[SHUNT_TARGET_CALL_VEC] = shunt_call_entry_vec,
		}, {
			[SHUNT_TARGET_RECORD] = shunt_record_entry_flags,
			[SHUNT_TARGET_CALL_GPR] = shunt_call_entry_flags_gpr,
			[SHUNT_TARGET_CALL_VEC] = shunt_call_entry_flags_vec,
		},
	};
	uint32_t first = (uint32_t)(p * SHUNT_SLOTS_A_PAGE), n = o->n - first;
	struct shunt_arch_site sites[SHUNT_SLOTS_A_PAGE];

	if (n > SHUNT_SLOTS_A_PAGE)
		n = SHUNT_SLOTS_A_PAGE;
	for (uint32_t i = 0; i < n; i++)
		sites[i] = arch_site(o, first + i);
	shunt_arch_slots_fill(page, at, entries[o->displaced != NULL][t], o->hooks + first,
		o->object->first_id + first, sites, n);
}

/*
 * Slots of functions that have got a body since. Threads may be in other slots of the page,
 * which are written as they are.
 */
static int bank_freshen(struct shunt_tracer_object *o, enum shunt_target t)
{
	uint8_t *page = NULL;
	int r = 0;

	for (size_t p = 0; o->stale && p < pages_of(o) && !r; p++) {
		uintptr_t at = o->bank[t] + p * 4096;

		if (!(o->stale[p] >> t & 1))
			continue;
		page = page ? page : malloc(4096);
		if (!page)
			return -ENOMEM;
		fill_page(o, t, p, at, page);
		r = shunt_text_write_private((void *)at, page, 4096);
		if (!r)
			o->stale[p] &= (uint8_t)~(1u << t);
	}
	free(page);
	return r;
}

/* The slots of one kind for all functions of an object, made when first needed. */
static int bank_make(struct shunt_tracer_object *o, enum shunt_target t)
{
	size_t pages = pages_of(o);
	void *at;
	uint8_t *buf;
	int r;

	if (o->bank[t])
		return bank_freshen(o, t);
	r = shunt_text_alloc_near(o->object->text_lo, o->object->text_hi, pages * 4096, &at);
	if (r)
		return r;
	buf = malloc(pages * 4096);
	if (!buf)
		return -ENOMEM; /* the room stays: it is tried again */
	for (size_t p = 0; p < pages; p++)
		fill_page(o, t, p, (uintptr_t)at + p * 4096, buf + p * 4096);
	r = shunt_text_write_private(at, buf, pages * 4096);
	free(buf);
	if (r)
		return r;
	for (size_t p = 0; p < pages && o->stale; p++)
		o->stale[p] &= (uint8_t)~(1u << t);
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
	return f->kind == SHUNT_SITE_NOP5 || f->kind == SHUNT_SITE_NOPLONG ||
	       f->kind == SHUNT_SITE_DISPLACED;
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
	if (o->displaced) /* each is looked at when it is asked for */
		return 0;
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
	free(o->displaced);
	free(o->stale);
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
	if (obj->of) {
		o->displaced = calloc(o->n, sizeof *o->displaced);
		o->stale = calloc(pages_of(o), 1);
	}
	if (o->hooks && o->funcs && m.edits && !obj->of == !(o->displaced && o->stale))
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
		sizeof *o + o->n * (sizeof *o->hooks + sizeof *o->funcs + sizeof *obj->funcs +
					   (obj->of ? sizeof *o->displaced : 0));
	/* Pairs with displaced_at(). */
	__atomic_store_n(&obj->trace, o, __ATOMIC_RELEASE);
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
		c->refused += !o->displaced;
		c->left_out += o->displaced != NULL;
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

		if (!w->target || (w->o->bank[w->target] && !w->o->stale))
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

static int by_function(const void *x, const void *y)
{
	const uint32_t *a = x, *b = y;

	return *a < *b ? -1 : *a > *b;
}

/* Those of one part that nobody has looked at yet. */
static int displace_some(struct shunt_change *c, struct shunt_tracer_object *o, size_t from)
{
	uint32_t *index = malloc((c->n - from) * sizeof *index), n = 0;
	int r;

	if (!index)
		return -ENOMEM;
	for (size_t k = from; k < c->n; k++) {
		const struct shunt_wish *w = &c->wishes[k];

		if (w->o == o && w->target && o->displaced[w->i].state == SHUNT_DISPLACED_UNKNOWN)
			index[n++] = w->i;
	}
	qsort(index, n, sizeof *index, by_function);
	r = shunt_displace(o->object, o->displaced, index, n);
	for (uint32_t k = 0; k < n && !r; k++) {
		const struct shunt_displaced *d = &o->displaced[index[k]];

		if (d->state == SHUNT_DISPLACED_LEFT_OUT) {
			o->funcs[index[k]].bad = 1;
			c->left_out++;
			continue;
		}
		memcpy(o->funcs[index[k]].nop, d->old, 5);
		o->stale[index[k] / SHUNT_SLOTS_A_PAGE] = 0xff;
	}
	free(index);
	return r;
}

/* Makes room in functions that were not compiled for it. */
static int displace(struct shunt_change *c)
{
	int r = 0;

	for (size_t k = 0; k < c->n && !r; k++) {
		const struct shunt_wish *w = &c->wishes[k];

		if (w->o->displaced && w->target &&
			w->o->displaced[w->i].state == SHUNT_DISPLACED_UNKNOWN)
			r = displace_some(c, w->o, k);
	}
	return r;
}

struct batch {
	struct shunt_change *c;
	struct shunt_edit *edits;
	size_t n;
	uint32_t taken; /* left out, for now: one of them at `where` */
	uintptr_t where;
	bool several;	 /* some take the place of several instructions ... */
	bool no_several; /* ... which cannot be done just now */
	struct shunt_text_result res;
};

/*
 * Whether the first instructions of an unmodified function are not what its file says: a
 * probe's, a debugger's, or somebody else's. They may go away again.
 */
static bool is_taken(const struct shunt_wish *w)
{
	const struct shunt_displaced *d = w->o->displaced ? &w->o->displaced[w->i] : NULL;

	return d && !w->o->funcs[w->i].now &&
	       memcmp((const void *)w->o->object->funcs[w->i].site, d->old, d->held);
}

/* Several instructions become one: threads may stand between them. */
static bool takes_several(const struct shunt_wish *w)
{
	return w->o->displaced && !w->o->funcs[w->i].now && w->o->displaced[w->i].first < 5;
}

/* With the loader's lock held: nothing is unloaded meanwhile. */
static int batch_apply(void *arg)
{
	struct batch *b = arg;
	struct shunt_text_options opts = {0};
	int r;

	b->n = 0;
	b->several = false;
	for (size_t k = 0; k < b->c->n; k++) {
		struct shunt_wish *w = &b->c->wishes[k];
		struct shunt_tracer_func *f = &w->o->funcs[w->i];
		struct shunt_edit *e = &b->edits[b->n];

		if (f->bad || w->o->object->gone || f->now == w->target)
			continue;
		w->taken = is_taken(w) || (b->no_several && takes_several(w));
		if (w->taken) {
			b->taken++;
			b->where = w->o->object->funcs[w->i].site;
			continue;
		}
		b->several |= takes_several(w);
		memset(e, 0, sizeof *e);
		e->addr = (void *)w->o->object->funcs[w->i].site;
		e->len = 5;
		site_bytes(w->o, w->i, f->now, e->old);
		site_bytes(w->o, w->i, w->target, e->new_);
		e->act = w->target ? SHUNT_TEXT_JUMP : SHUNT_TEXT_SKIP;
		e->target = w->target ? (void *)slot_of(w->o, w->i, w->target) : NULL;
		b->n++;
	}
	if (b->taken && !b->c->skip_bad)
		return -EBUSY;
	if (b->several && !shunt_text_single_threaded())
		opts.strategy = SHUNT_TEXT_STOP;
	r = b->n ? shunt_text_apply(b->edits, b->n, &opts, &b->res) : 0;
	/* Here, where intact() cannot look in between. */
	for (size_t k = 0; k < b->c->n && !r; k++) {
		struct shunt_wish *w = &b->c->wishes[k];

		if (!w->o->funcs[w->i].bad && !w->taken)
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

/* Threads cannot be stopped: what needs that stays off, for now. */
static bool leave_several(struct shunt_change *c, struct batch *b, int r)
{
	if (!r || r == -EIO || r == -ENOMEM || !b->several || b->no_several)
		return false;
	b->no_several = true;
	snprintf(c->reason, sizeof c->reason, "%s", b->res.reason);
	return true;
}

static int switch_sites(struct shunt_change *c)
{
	struct batch b = {.c = c, .edits = calloc(c->n, sizeof *b.edits)};
	uint64_t t = shunt_now_ns();
	int r;

	if (!b.edits)
		return -ENOMEM;
	do {
		b.taken = 0;
		r = shunt_objects_while_loaded(batch_apply, &b);
	} while (c->skip_bad && (r == -EBUSY ? mark_bad(c, (uintptr_t)b.res.addr)
					     : leave_several(c, &b, r)));
	c->ns = shunt_now_ns() - t;
	c->switched = r ? 0 : (uint32_t)b.n;
	c->refused += r ? 0 : b.taken;
	if (r == -EBUSY && b.taken) {
		c->where = b.where;
		snprintf(c->reason, sizeof c->reason,
			"a probe or somebody else has changed the function's first bytes");
	} else if (r) {
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
	r = displace(c);
	if (!r)
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

		if (r || f->bad || w->taken) {
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

/* --- for probes ------------------------------------------------------------- */

/* The tracer's part of the object at addr, or NULL. */
static const struct shunt_tracer_object *part_at(uintptr_t addr)
{
	struct shunt_object *obj = shunt_object_of(addr);
	struct shunt_object *part = obj ? __atomic_load_n(&obj->part, __ATOMIC_ACQUIRE) : NULL;

	return part ? __atomic_load_n(&part->trace, __ATOMIC_ACQUIRE) : NULL;
}

/* The first function that begins above addr. */
static uint32_t first_above(const struct shunt_tracer_object *o, uintptr_t addr)
{
	uint32_t lo = 0, hi = o->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (o->object->funcs[mid].site <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_ready(const struct shunt_tracer_object *o, uint32_t i)
{
	return __atomic_load_n(&o->displaced[i].state, __ATOMIC_ACQUIRE) == SHUNT_DISPLACED_READY;
}

bool shunt_displaced_within(uintptr_t lo, uintptr_t hi)
{
	const struct shunt_tracer_object *o = part_at(lo);

	for (uint32_t i = o ? first_above(o, lo - 5) : 0; o && i < o->n; i++) {
		if (o->object->funcs[i].site >= hi)
			return false;
		if (is_ready(o, i) && __atomic_load_n(&o->funcs[i].now, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

void shunt_displaced_original(uintptr_t from, uint8_t *copy, size_t n)
{
	const struct shunt_tracer_object *o = part_at(from);

	for (uint32_t i = o ? first_above(o, from - 5) : 0; o && i < o->n; i++) {
		uintptr_t site = o->object->funcs[i].site;

		if (site >= from + n)
			return;
		/* On or off: what the program has there does not change. */
		for (unsigned k = 0; k < 5 && is_ready(o, i); k++)
			if (site + k - from < n)
				copy[site + k - from] = o->displaced[i].old[k];
	}
}
