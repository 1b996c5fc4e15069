/* SPDX-License-Identifier: MIT */
/*
 * arm.c - puts places' detours and jumps in place and takes them out again.
 *
 * A place is armed in one of four forms:
 *   jump         its first instruction has five bytes or more: a jump in its stead;
 *   shared jump  it has fewer: a jump whose last bytes are the next instruction's
 *                first. These stay as they are, and so does whoever jumps to them;
 *                it is they that say where the jump leads (window.c);
 *   many         a jump in the place of several instructions, where the function
 *                shows that nobody jumps between them (insn.h) and no thread is
 *                found there (tasks RCU);
 *   breakpoint   the first byte; SIGTRAP's handler leads to the detour.
 * Of a change, a thread sees one instruction become another, whatever it does: but for
 * `many`, which are breakpoints until nobody is between their instructions.
 *
 * Invariant: a shared jump's last bytes are what the text there holds. Whoever changes
 * those bytes changes the jump in the same batch; and a `many` has no
 * other place within. So a change of a place brings those before it along
 * (bring_others), and bytes are planned from the highest address down.
 *
 * Order of a change:
 *   1. detours are written, and serialized; hooks and tails are published;
 *   2. the text is changed, in one batch;
 *   3. tails of places that went off are taken away;
 *   4. after the grace periods, hooks and detours are freed (shunt_arming_done).
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <shunt/text.h>

#include "arch/x86_64/text_sys.h"
#include "base/log.h"
#include "object/object.h"
#include "probe/detour.h"
#include "probe/place.h"
#include "probe/targets.h"
#include "rcu/reader.h"
#include "rcu/tasks.h"
#include "text/text_internal.h"
#include "text/trap.h"

#define JUMP 5
#define SPAN_MAX 20
/* Up to so many places a page each for shared jumps is no matter. */
#define FEW 64
/* How long a place may stay a breakpoint because a thread is within. */
#define CLEAR_MS 100
/* Before breakpoints are put where they may kill. */
#define STOP_TRIES 8

/* What is done about one place. */
struct shunt_work {
	struct shunt_place *p;
	bool want;	  /* armed, afterwards */
	bool only_trap;	  /* a user insists */
	bool planned;
	bool rebuild;	  /* the detour is made anew */
	uint8_t form, held, span;
	uint8_t bytes[JUMP];
	uint32_t flags;	  /* SHUNT_HOOK_* */
	struct shunt_probe_hook *hook;
	const struct shunt_probe_hook *old_hook;
	struct shunt_detour *detour, *old_detour;
	uintptr_t tail, behind, old_tail, old_behind;
	size_t slot;	  /* in the run that is written in one go */
	bool published;
	bool later;	  /* a breakpoint first, then: */
	uint8_t jump[JUMP];
};

/* Places whose breakpoints are in the text, for SIGTRAP's handler. */
static struct shunt_trap_table *standing;
static size_t standing_size; /* of its memory */

void (*shunt_probe_test_between)(void);

static int fail(struct shunt_arming *a, int err, uintptr_t where, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static int fail(struct shunt_arming *a, int err, uintptr_t where, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->reason, sizeof a->reason, fmt, ap);
	va_end(ap);
	a->where = where;
	return err;
}

/* --- the work ------------------------------------------------------------------------ */

static struct shunt_probe_hook *make_hook(const struct shunt_place *p)
{
	struct shunt_probe_hook *h;
	uint32_t n = 0;

	for (const struct shunt_probe_user *u = p->users; u; u = u->next)
		n += u->on;
	h = calloc(1, sizeof *h + n * sizeof h->call[0]);
	if (!h)
		return NULL;
	for (const struct shunt_probe_user *u = p->users; u; u = u->next) {
		struct shunt_probe *q = u->probe;

		if (!u->on)
			continue;
		h->call[h->n++] = (struct shunt_probe_call){q, q->pre, q->post, q->ret,
			q->flags & SHUNT_PROBE_GENERAL_REGS};
		h->flags |= (q->post ? SHUNT_HOOK_POST : 0) | (q->ret ? SHUNT_HOOK_RET : 0) |
			    (q->flags & SHUNT_PROBE_GENERAL_REGS ? 0 : SHUNT_HOOK_VEC);
	}
	return h;
}

static bool wants_trap(const struct shunt_place *p)
{
	for (const struct shunt_probe_user *u = p->users; u; u = u->next)
		if (u->on && (u->probe->flags & SHUNT_PROBE_BREAKPOINT_ONLY))
			return true;
	return false;
}

/* The array may move: places' pointers into it are set when all are there. */
static struct shunt_work *add(struct shunt_arming *a, struct shunt_place *p)
{
	struct shunt_work *w;

	if (a->n == a->room) {
		size_t room = a->room ? 2 * a->room : 16;

		w = realloc(a->w, room * sizeof *w);
		if (!w)
			return NULL;
		a->w = w;
		a->room = room;
		for (size_t i = 0; i < a->n; i++)
			a->w[i].p->work = &a->w[i];
	}
	w = &a->w[a->n++];
	*w = (struct shunt_work){.p = p, .form = p->form, .held = p->held, .span = p->span};
	p->work = w;
	return w;
}

int shunt_arming_add(struct shunt_arming *a, struct shunt_place *p)
{
	struct shunt_work *w = p->work ? p->work : add(a, p);

	return w ? 0 : -ENOMEM;
}

void shunt_arming_forget(struct shunt_arming *a, size_t i)
{
	a->w[i].p->work = NULL;
}

struct shunt_place *shunt_arming_place(const struct shunt_arming *a, size_t i)
{
	return a->w[i].p;
}

/* What its users want by now. */
static int want(struct shunt_arming *a, struct shunt_work *w)
{
	struct shunt_place *p = w->p;

	/* Unmapped by who had it made: there is nothing left to put back. */
	if (!p->object && p->held && !shunt_place_there(p))
		p->lost = true;
	w->hook = make_hook(p);
	if (!w->hook)
		return fail(a, -ENOMEM, p->addr, "no memory");
	/* One that cannot be taken out now stays, without handlers. */
	w->want = (w->hook->n || (a->keep && p->form)) && !shunt_place_gone(p);
	w->flags = w->hook->flags;
	w->only_trap = wants_trap(p);
	/* A detour that can do more than is asked will do. */
	w->rebuild = w->want && w->hook->n && (!p->form || (w->flags & ~p->built & (SHUNT_HOOK_POST |
			SHUNT_HOOK_VEC)) || (w->only_trap && p->form != SHUNT_PROBE_BREAKPOINT));
	return 0;
}

/* Places before this one whose jumps would not survive its change. */
static int bring_others(struct shunt_arming *a, struct shunt_place *p)
{
	for (uintptr_t addr = p->addr - SPAN_MAX + 1; addr < p->addr; addr++) {
		struct shunt_place *q = shunt_place_find(addr);
		struct shunt_work *w;

		if (!q || !q->held || shunt_place_gone(q))
			continue;
		if (!(q->form == SHUNT_PROBE_JUMP_SHARED && p->addr < addr + JUMP) &&
			!(q->span > q->text.len && p->addr < addr + q->span))
			continue;
		if (q->work) {
			/* It is among those that change, but might have stayed as it is. */
			if (q->work->want && !q->work->rebuild) {
				q->work->rebuild = true;
				if (bring_others(a, q))
					return -ENOMEM;
			}
			continue;
		}
		w = add(a, q);
		if (!w)
			return fail(a, -ENOMEM, addr, "no memory");
		if (want(a, w))
			return -ENOMEM;
		w->rebuild = w->want;
	}
	return 0;
}

static int by_address(const void *x, const void *y)
{
	const struct shunt_work *a = x, *b = y;

	return a->p->addr < b->p->addr ? -1 : a->p->addr > b->p->addr;
}

/* --- bytes ---------------------------------------------------------------------------- */

/* What the text at addr will hold, as far as is planned: higher addresses first. */
static uint8_t planned_byte(uintptr_t addr)
{
	const uint8_t *own = (const uint8_t *)addr;

	for (uintptr_t at = addr; at > addr - JUMP; at--) {
		const struct shunt_place *p = shunt_place_find(at);
		const struct shunt_work *w = p ? p->work : NULL;

		if (!p || shunt_place_gone(p))
			continue;
		if (w && w->planned && w->want && addr - at < w->held)
			return w->bytes[addr - at];
		if (w && addr - at < p->held)
			own = &p->text.old[addr - at];
	}
	return *(const volatile uint8_t *)own;
}

/* What the text should hold now. */
static uint8_t expected_byte(uintptr_t addr)
{
	for (uintptr_t at = addr; at > addr - JUMP; at--) {
		const struct shunt_place *p = shunt_place_find(at);

		if (p && !shunt_place_gone(p) && addr - at < p->held)
			return p->bytes[addr - at];
	}
	for (uintptr_t at = addr; at > addr - JUMP; at--) {
		const struct shunt_place *p = shunt_place_find(at);

		if (p && p->work && addr - at < p->text.n)
			return p->text.old[addr - at];
	}
	return *(const volatile uint8_t *)addr;
}

/* Another place between the first byte of this one and the end of what a jump takes. */
static bool others_within(const struct shunt_place *p, size_t n)
{
	for (uintptr_t addr = p->addr + 1; addr < p->addr + n; addr++) {
		const struct shunt_place *q = shunt_place_find(addr);

		if (q && (q->held || (q->work && q->work->want)))
			return true;
	}
	return false;
}

static void jump_to(struct shunt_work *w, uintptr_t to)
{
	int32_t rel = (int32_t)(to - (w->p->addr + JUMP));

	w->bytes[0] = 0xe9;
	memcpy(w->bytes + 1, &rel, 4);
}

/* --- detours -------------------------------------------------------------------------- */

static struct shunt_detour *detour_new(struct shunt_place *p, bool window)
{
	struct shunt_detour *d = calloc(1, sizeof *d);

	if (d) {
		d->place = p;
		d->window = window;
		d->zone.name = "probe";
	}
	return d;
}

static void take_detour(struct shunt_work *w, struct shunt_detour *d,
	const struct shunt_detour_code *c)
{
	w->detour = d;
	w->tail = d->zone.start + c->tail;
	w->behind = d->zone.start + c->behind;
}

/* A jump of fewer bytes than five of its own. Quiet when it cannot be. */
static bool plan_shared(struct shunt_work *w)
{
	struct shunt_detour_plan plan = {w->p, w->p->text.len, w->flags};
	unsigned own = w->p->text.len - 1u; /* bytes of the distance that are free */
	struct shunt_detour_code c;
	struct shunt_detour *d;
	uint32_t rel = 0;
	uintptr_t lo, hi;
	const char *why;

	if (w->p->addr + JUMP > w->p->hi || (shunt_probe_test_off & SHUNT_PROBE_NO_SHARED) ||
		shunt_place_others(w->p->addr + w->p->text.len, w->p->addr + JUMP))
		return false;
	for (unsigned i = own; i < 4; i++)
		rel |= (uint32_t)planned_byte(w->p->addr + 1 + i) << (8 * i);
	lo = w->p->addr + JUMP + (uintptr_t)(intptr_t)(int32_t)rel;
	hi = lo + (1ul << (8 * own)) - 1;
	if (shunt_detour_make(&plan, lo, &c, &why))
		return false;
	d = detour_new(w->p, true);
	if (!d)
		return false;
	if (shunt_window_alloc(&d->zone, lo, hi, c.size)) {
		free(d);
		return false;
	}
	if (shunt_detour_make(&plan, d->zone.start, &c, &why) ||
		c.size > d->zone.end - d->zone.start ||
		shunt_text_write_private((void *)d->zone.start, c.bytes, c.size)) {
		shunt_window_free(&d->zone);
		free(d);
		return false;
	}
	take_detour(w, d, &c);
	jump_to(w, d->zone.start);
	w->form = SHUNT_PROBE_JUMP_SHARED;
	w->held = w->span = w->p->text.len;
	return true;
}

/* Whether the place's bytes may be shared by a jump before it. */
static bool has_sharer(const struct shunt_place *p)
{
	for (uintptr_t addr = p->addr - JUMP + 1; addr < p->addr; addr++) {
		const struct shunt_place *q = shunt_place_find(addr);

		if (q && (q->work ? q->work->want : q->held))
			return true;
	}
	return false;
}

static bool many_possible(const struct shunt_work *w)
{
	uint8_t many = w->p->text.many;

	return many && w->p->object &&
	       shunt_targets_none(w->p->object, w->p->addr + 1, w->p->addr + JUMP) && !others_within(w->p, many) && !has_sharer(w->p) &&
	       !shunt_place_others(w->p->addr, w->p->addr + many);
}

static int near_run(struct shunt_arming *a, struct shunt_work **list, size_t n);

/*
 * The C library runs code of its own with all signals blocked, or with their handlers reset:
 * the first of a new thread, the child of posix_spawn(), of system() too. There
 * a breakpoint kills, and nobody who looks at masks beforehand can know.
 */
static bool in_libc(const struct shunt_place *p)
{
	const char *name = p->object ? strrchr(p->object->path, '/') : NULL;

	return name && !strncmp(name, "/libc.so", 8);
}

/*
 * The form of one place. Those that want memory near their object get it afterwards, in
 * one go, but for those whose bytes another jump shares.
 */
static int plan(struct shunt_arming *a, struct shunt_work *w, bool few)
{
	const struct shunt_place_text *t = &w->p->text;

	w->planned = true;
	if (!w->want || !w->rebuild) {
		w->held = w->want ? w->p->held : 0;
		w->form = w->want ? w->p->form : SHUNT_PROBE_OFF;
		memcpy(w->bytes, w->p->bytes, sizeof w->bytes);
		return 0;
	}
	w->held = 0; /* its own bytes are the program's, as long as nothing is decided */
	w->span = t->len;
	if (w->only_trap)
		w->form = SHUNT_PROBE_BREAKPOINT;
	else if (t->len >= JUMP)
		w->form = SHUNT_PROBE_JUMP;
	else if (few && plan_shared(w))
		return 0;
	else if (many_possible(w))
		w->form = SHUNT_PROBE_JUMP_MANY, w->span = t->many;
	else if (!few && plan_shared(w))
		return 0;
	else
		w->form = SHUNT_PROBE_BREAKPOINT;
	w->held = w->form == SHUNT_PROBE_BREAKPOINT ? 1 : JUMP;
	w->bytes[0] = 0xcc;
	if (w->form == SHUNT_PROBE_BREAKPOINT && !w->only_trap && in_libc(w->p))
		return fail(a, -ENOTSUP, w->p->addr,
			"only a breakpoint fits at %#lx (%s), and kills where libc blocks all signals; "
			"SHUNT_PROBE_BREAKPOINT_ONLY insists",
			w->p->addr, t->why_not_many ? t->why_not_many : "others are too close");
	if (w->form == SHUNT_PROBE_BREAKPOINT && shunt_trap_possible(false, a->trouble, sizeof a->trouble))
		return fail(a, -EAGAIN, w->p->addr, "no jump can be put at %#lx (%s), and %s",
			w->p->addr, t->why_not_many ? t->why_not_many : "others are too close",
			a->trouble);
	/* One before it wants to know its bytes. */
	return w->form == SHUNT_PROBE_JUMP && has_sharer(w->p) ? near_run(a, &w, 1) : 0;
}

static int make_near(struct shunt_arming *a, const struct shunt_work *w, uintptr_t at,
	struct shunt_detour_code *c)
{
	struct shunt_detour_plan plan = {w->p, w->span, w->flags};
	const char *why = "it is not understood";
	int r = shunt_detour_make(&plan, at, c, &why);

	return r ? fail(a, r, w->p->addr, "the code at %#lx cannot be displaced: %s", w->p->addr,
			   why) : 0;
}

#define GRANULE 64ul

static size_t slot_size(const struct shunt_detour_code *c)
{
	return (c->size + GRANULE - 1) & -GRANULE;
}

/* One run of memory for works [from, to), which are in one object. */
static int near_run(struct shunt_arming *a, struct shunt_work **list, size_t n)
{
	const struct shunt_place *p = list[0]->p;
	uintptr_t lo = p->object ? p->object->text_lo : p->lo;
	uintptr_t hi = p->object ? p->object->text_hi : p->hi;
	struct shunt_zone run = {.name = "probes"};
	struct shunt_detour_code c;
	size_t size = 0, at = 0;
	uint8_t *buf;
	int r;

	for (size_t i = 0; i < n; i++) {
		r = make_near(a, list[i], list[i]->p->addr, &c);
		if (r)
			return r;
		list[i]->slot = slot_size(&c);
		size += list[i]->slot;
	}
	r = shunt_code_alloc(&run, lo, hi, size);
	if (r)
		return fail(a, r, p->addr, "no memory that a jump from %#lx reaches: %s", p->addr,
			strerror(-r));
	buf = malloc(size);
	if (!buf)
		r = fail(a, -ENOMEM, p->addr, "no memory");
	else
		memset(buf, 0xcc, size);
	for (size_t i = 0; i < n && !r; i++) {
		struct shunt_work *w = list[i];
		struct shunt_detour *d = detour_new(w->p, false);

		r = d ? make_near(a, w, run.start + at, &c) : -ENOMEM;
		if (!r && slot_size(&c) > w->slot)
			r = fail(a, -ERANGE, w->p->addr, "code moved is longer than it was");
		if (r) {
			free(d);
			break;
		}
		memcpy(buf + at, c.bytes, c.size);
		d->zone.start = run.start + at;
		d->zone.end = d->zone.start + w->slot;
		at += w->slot;
		take_detour(w, d, &c);
		if (w->form != SHUNT_PROBE_BREAKPOINT)
			jump_to(w, d->zone.start);
	}
	if (!r)
		r = shunt_code_write(&run, 0, buf, size);
	free(buf);
	if (r) /* what has been given to works is given back with them */
		shunt_code_release(run.start + at, run.start + size);
	return r;
}

static bool wants_near(const struct shunt_work *w)
{
	return w->want && w->rebuild && !w->detour;
}

static int make_detours(struct shunt_arming *a)
{
	struct shunt_work **list = malloc((a->n + 1) * sizeof *list);
	int r = 0;

	if (!list)
		return fail(a, -ENOMEM, 0, "no memory");
	for (size_t i = 0; i < a->n && !r;) {
		const struct shunt_object *obj = a->w[i].p->object;
		size_t n = 0;

		/* Ascending addresses: an object's places are neighbours. */
		for (; i < a->n && a->w[i].p->object == obj && n < 512 && (obj || !n); i++)
			if (wants_near(&a->w[i]))
				list[n++] = &a->w[i];
		if (n)
			r = near_run(a, list, n);
	}
	free(list);
	return r;
}

/* --- the text ------------------------------------------------------------------------- */

struct change {
	struct shunt_arming *a;
	struct shunt_edit *edits;
	size_t n;
	struct shunt_text_options opts;
	struct shunt_text_result res;
};

/* Adds bytes at an address that follow those of the last edit, or begin another. */
static void add_byte(struct change *c, uintptr_t addr, uint8_t old, uint8_t new_)
{
	struct shunt_edit *e = c->n ? &c->edits[c->n - 1] : NULL;
	size_t off = e ? addr - (uintptr_t)e->addr : SIZE_MAX;

	if (off < (e ? e->len : 0))
		return; /* an earlier place has brought it */
	if (!e || off != e->len || e->len == SHUNT_EDIT_MAX) {
		e = &c->edits[c->n++];
		*e = (struct shunt_edit){.addr = (void *)addr, .act = SHUNT_TEXT_RETRY};
	}
	e->old[e->len] = old;
	e->new_[e->len++] = new_;
}

static int apply_edits(void *arg)
{
	struct change *c = arg;
	struct shunt_arming *a = c->a;

	for (size_t i = 0; i < a->n; i++) {
		struct shunt_work *w = &a->w[i];
		size_t n = w->held > w->p->held ? w->held : w->p->held;
		uint8_t is[JUMP], to[JUMP];

		if (shunt_place_gone(w->p)) {
			w->want = false;
			w->held = 0;
			continue;
		}
		for (size_t k = 0; k < n; k++) {
			is[k] = expected_byte(w->p->addr + k);
			to[k] = planned_byte(w->p->addr + k);
		}
		if (!memcmp(is, to, n))
			continue;
		for (size_t k = 0; k < n; k++)
			add_byte(c, w->p->addr + k, is[k], to[k]);
	}
	return c->n ? shunt_text_apply(c->edits, c->n, &c->opts, &c->res) : 0;
}

static int change_text(struct shunt_arming *a, enum shunt_text_strategy strategy)
{
	struct change c = {.a = a, .opts.strategy = strategy};
	int r;

	c.edits = calloc(a->n + 1, sizeof *c.edits);
	if (!c.edits)
		return fail(a, -ENOMEM, 0, "no memory");
	r = shunt_objects_while_loaded(apply_edits, &c);
	free(c.edits);
	if (r)
		return fail(a, r, (uintptr_t)c.res.addr, "%s",
			c.res.reason[0] ? c.res.reason : strerror(-r));
	return 0;
}

/* --- breakpoints ------------------------------------------------------------------------ */

/* Memory of its own: malloc() may be what is being probed. */
static struct shunt_trap_table *table_new(size_t n, size_t *size)
{
	struct shunt_trap_table *t;
	long p;

	*size = (sizeof *t + n * sizeof t->e[0] + 4095) & -4096ul;
	p = shunt_sys(SYS_mmap, 0, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		0);
	return shunt_sys_failed(p) ? NULL : (struct shunt_trap_table *)p;
}

static bool table_entry(const struct shunt_work *w, const struct shunt_trap_entry *old,
	bool both, struct shunt_trap_entry *e)
{
	const struct shunt_place *p = w->p;

	e->addr = p->addr;
	if (both && w->want && w->form == SHUNT_PROBE_BREAKPOINT && w->detour) {
		e->next = w->detour->zone.start;
		return true;
	}
	if (both && old) {
		e->next = old->next;
		return true;
	}
	if (both || p->form != SHUNT_PROBE_BREAKPOINT)
		return false;
	e->next = p->detour->zone.start;
	return true;
}

/* What stands, and what is to (`both`); or what these works have left standing. */
static void table_fill(struct shunt_trap_table *t, const struct shunt_arming *a, bool both)
{
	size_t n = standing ? standing->n : 0, i = 0, k = 0;

	t->n = 0;
	while (i < a->n || k < n) {
		const struct shunt_work *w = i < a->n ? &a->w[i] : NULL;
		const struct shunt_trap_entry *old = k < n ? &standing->e[k] : NULL;

		if (!w || (old && old->addr < w->p->addr)) {
			t->e[t->n++] = *old;
			k++;
			continue;
		}
		if (old && old->addr != w->p->addr)
			old = NULL;
		t->n += table_entry(w, old, both, &t->e[t->n]);
		k += old != NULL;
		i++;
	}
}

static void stand(struct shunt_trap_table *t, size_t size)
{
	struct shunt_trap_table *old = standing;
	size_t old_size = standing_size;

	standing = t;
	standing_size = size;
	shunt_trap_standing(t->n ? t : NULL);
	while (!shunt_trap_idle()) {
		long ts[2] = {0, 20000};

		shunt_sys(SYS_nanosleep, ts, 0);
	}
	if (old)
		shunt_sys(SYS_munmap, old, old_size);
}

static bool has_traps(const struct shunt_arming *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->w[i].form == SHUNT_PROBE_BREAKPOINT ||
			a->w[i].p->form == SHUNT_PROBE_BREAKPOINT)
			return true;
	return false;
}

/* --- a change ----------------------------------------------------------------------------- */

static void lead_to_detour(struct shunt_work *w)
{
	__atomic_store_n(&w->p->tail, w->tail, __ATOMIC_RELEASE);
	__atomic_store_n(&w->p->behind, w->behind, __ATOMIC_RELEASE);
}

static void publish(struct shunt_work *w)
{
	struct shunt_place *p = w->p;

	w->published = true;
	w->old_hook = p->hook;
	w->old_tail = p->tail;
	w->old_behind = p->behind;
	/* A detour that goes back to between instructions that a jump covers now is
	 * nothing for those who come by that jump: it is led to afterwards. */
	if (w->detour && (!p->form || w->span >= p->span ||
				 (shunt_probe_test_off & SHUNT_PROBE_EARLY_TAILS)))
		lead_to_detour(w);
	if (w->want)
		__atomic_store_n(&p->hook, w->hook, __ATOMIC_RELEASE);
}

/* As it was before publish(). */
static void take_back(struct shunt_work *w)
{
	__atomic_store_n(&w->p->hook, w->old_hook, __ATOMIC_RELEASE);
	__atomic_store_n(&w->p->tail, w->old_tail, __ATOMIC_RELEASE);
	__atomic_store_n(&w->p->behind, w->old_behind, __ATOMIC_RELEASE);
}

/* Nothing leads there any more, but somebody may be in it. */
static void leave_detour(struct shunt_work *w)
{
	struct shunt_detour *d = w->p->detour;

	if (!d)
		return;
	d->older = w->p->retired;
	w->p->retired = d;
	w->p->detour = NULL;
	w->old_detour = d;
}

/* It is so: what the place says from now on. */
static void commit(struct shunt_work *w)
{
	struct shunt_place *p = w->p;

	p->form = w->want ? w->form : SHUNT_PROBE_OFF;
	shunt_places_held -= p->held != 0;
	p->held = w->want ? w->held : 0;
	shunt_places_held += p->held != 0;
	memcpy(p->bytes, w->bytes, sizeof p->bytes);
	if (w->detour) {
		lead_to_detour(w);
		leave_detour(w);
		p->detour = w->detour;
		p->built = w->flags;
		p->span = w->span;
		w->detour = NULL;
	}
	if (w->want)
		return;
	/* The program's own code is back: who looks these up goes on there. */
	__atomic_store_n(&p->tail, p->addr, __ATOMIC_RELEASE);
	__atomic_store_n(&p->behind, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&p->hook, NULL, __ATOMIC_RELEASE);
	leave_detour(w);
	free(w->hook);
	w->hook = NULL;
}

/* One batch, with the breakpoints' table changed around it. */
static int switch_over(struct shunt_arming *a, enum shunt_text_strategy strategy)
{
	struct shunt_trap_table *both = NULL, *after = NULL;
	size_t both_size = 0, after_size = 0, n = (standing ? standing->n : 0) + a->n;
	bool traps = has_traps(a);
	int r = traps ? shunt_trap_install() : 0;

	if (r)
		return fail(a, r, 0, "no SIGTRAP handler can be set: %s", strerror(-r));
	if (traps) {
		both = table_new(n, &both_size);
		after = table_new(n, &after_size);
		if (!both || !after)
			r = fail(a, -ENOMEM, 0, "no memory");
	}
	if (!r && traps) {
		table_fill(both, a, true);
		stand(both, both_size);
		both = NULL;
	}
	if (!r)
		r = change_text(a, strategy);
	for (size_t i = 0; i < a->n && !r; i++)
		commit(&a->w[i]);
	if (traps && after && !both) {
		table_fill(after, a, false);
		stand(after, after_size);
		after = NULL;
	}
	if (both)
		shunt_sys(SYS_munmap, both, both_size);
	if (after)
		shunt_sys(SYS_munmap, after, after_size);
	return r;
}

/*
 * Memory that has held other code before: no core may have any of it. Whether this
 * is so on kernels without the barrier nobody says; a core that takes the jump
 * has taken at least the interrupt that made it see the jump.
 */
static void serialize(void)
{
	if (shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == -EPERM &&
		!shunt_sys(SYS_membarrier,
			MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

/* It is to be a jump over several instructions, and is not yet. */
static bool becomes_many(const struct shunt_work *w)
{
	return w->want && w->rebuild && w->form == SHUNT_PROBE_JUMP_MANY;
}

static bool wants_many(const struct shunt_arming *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (becomes_many(&a->w[i]))
			return true;
	return false;
}

/* Those that become jumps over several instructions are breakpoints first. */
static void hold_back(struct shunt_arming *a)
{
	for (size_t i = 0; i < a->n; i++) {
		struct shunt_work *w = &a->w[i];

		w->later = becomes_many(w);
		if (!w->later)
			continue;
		memcpy(w->jump, w->bytes, JUMP);
		w->form = SHUNT_PROBE_BREAKPOINT;
		w->held = 1;
		w->bytes[0] = 0xcc;
	}
}

/* Where threads are that could come to between the instructions: there, and on the way. */
static size_t add_ranges(const struct shunt_place *p, bool text, struct shunt_range *r,
	size_t *owner, size_t i)
{
	size_t n;

	text = text && !(shunt_probe_test_off & SHUNT_PROBE_NO_INSIDE);
	n = text;
	if (r && text) {
		/* Its start is no place to be in the way, and a word that is it does not
		 * count; one that is the next byte does: what a handler goes back to. */
		r[0] = (struct shunt_range){p->addr, p->addr + JUMP};
		owner[0] = i;
	}
	/* What goes back from a detour of before goes to behind one instruction. */
	for (uintptr_t addr = p->addr - SPAN_MAX + 1; addr < p->addr + JUMP; addr++) {
		const struct shunt_place *q = shunt_place_find(addr);

		if (shunt_probe_test_off & SHUNT_PROBE_NO_RETIRED)
			q = NULL;
		for (const struct shunt_detour *d = q ? q->retired : NULL; d; d = d->older, n++)
			if (r) {
				r[n] = (struct shunt_range){d->zone.start, d->zone.end};
				owner[n] = i;
			}
	}
	return n;
}

/* A retired detour may be in the way of several works: then it is one range of all. */
struct ranges {
	size_t n, all;
	struct shunt_range *r;
	size_t *owner; /* of each of all: index of the work, */
	size_t *range; /* and of the range in r */
	uint8_t *hit;
};

static int by_start(const void *x, const void *y, void *arg)
{
	const struct shunt_range *r = arg;
	uintptr_t a = r[*(const size_t *)x].start, b = r[*(const size_t *)y].start;

	return a < b ? -1 : a > b;
}

/* In the order of their starts, each once. */
static int sort_ranges(struct ranges *v)
{
	struct shunt_range *r = malloc(v->all * sizeof *r);
	size_t *order = malloc(v->all * sizeof *order);

	v->range = malloc(v->all * sizeof *v->range);
	for (size_t i = 0; i < v->all && r && order && v->range; i++)
		order[i] = i;
	if (r && order && v->range) {
		qsort_r(order, v->all, sizeof *order, by_start, v->r);
		for (size_t i = 0; i < v->all; i++) {
			if (!v->n || r[v->n - 1].start != v->r[order[i]].start)
				r[v->n++] = v->r[order[i]];
			v->range[order[i]] = v->n - 1;
		}
		memcpy(v->r, r, v->n * sizeof *r);
	}
	free(r);
	free(order);
	return v->n ? 0 : -ENOMEM;
}

static bool waits(const struct shunt_work *w)
{
	return w->later && (!w->p->form || w->p->form == SHUNT_PROBE_BREAKPOINT);
}

/*
 * Marks those of the works that wait and that somebody is in the way of; `text`: also
 * between the instructions themselves.
 */
static int look_for_threads(struct shunt_arming *a, bool text, bool *busy)
{
	struct ranges v = {0};
	size_t n = 0;
	int r;

	for (size_t i = 0; i < a->n; i++)
		n += waits(&a->w[i]) ? add_ranges(a->w[i].p, text, NULL, NULL, i) : 0;
	v.r = malloc((n + 1) * sizeof *v.r);
	v.owner = malloc((n + 1) * sizeof *v.owner);
	v.hit = calloc(n + 1, 1);
	for (size_t i = 0; i < a->n && v.r && v.owner && v.hit; i++)
		if (waits(&a->w[i]))
			v.all += add_ranges(a->w[i].p, text, v.r + v.all, v.owner + v.all, i);
	r = !v.r || !v.owner || !v.hit ? -ENOMEM : v.all ? sort_ranges(&v) : 0;
	if (!r && v.n)
		r = shunt_tasks_ranges_clear_above(a->self, v.r, v.n, v.hit, CLEAR_MS);
	/* -EDEADLK: our caller is in one, or has its address on its stack. */
	r = r == -EDEADLK ? -EAGAIN : r;
	for (size_t i = 0; i < v.all && r == -EAGAIN; i++)
		busy[v.owner[i]] |= v.hit[v.range[i]];
	free(v.r);
	free(v.owner);
	free(v.range);
	free(v.hit);
	return r == -EAGAIN ? 0 : r;
}

/*
 * Nobody can get between the instructions any more but who is there, or on the way
 * from an earlier detour: when nobody is, the jumps. A place with a thread in it
 * stays a breakpoint.
 */
static void optimise(struct shunt_arming *a)
{
	bool *busy = calloc(a->n + 1, sizeof *busy);
	size_t left = 0;
	int r = busy ? look_for_threads(a, true, busy) : -ENOMEM;

	for (size_t i = 0; i < a->n; i++) {
		struct shunt_work *w = &a->w[i];
		bool jump = waits(w) && !r && !busy[i];

		w->later = false;
		if (!jump)
			continue;
		memcpy(w->bytes, w->jump, JUMP);
		w->form = SHUNT_PROBE_JUMP_MANY;
		w->held = JUMP;
		left++;
	}
	if (left && switch_over(a, SHUNT_TEXT_AUTO))
		shunt_log(SHUNT_LOG_INFO, "%zu probes stay breakpoints: %s", left, a->reason);
	free(busy);
}

static bool any_later(const struct shunt_arming *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->w[i].later)
			return true;
	return false;
}

static int plan_all(struct shunt_arming *a)
{
	bool few = a->n <= FEW;
	int r = 0;

	for (size_t i = 0; i < a->n && !r; i++)
		r = want(a, &a->w[i]);
	for (size_t i = 0; i < a->n && !r; i++)
		if (a->w[i].rebuild || !a->w[i].want)
			r = bring_others(a, a->w[i].p);
	if (r)
		return r;
	qsort(a->w, a->n, sizeof *a->w, by_address);
	for (size_t i = 0; i < a->n; i++)
		a->w[i].p->work = &a->w[i];
	for (size_t i = a->n; i-- > 0 && !r;)
		r = plan(a, &a->w[i], few);
	return r ? r : make_detours(a);
}

/* Whether changes of one place are right only together with another's. */
static bool entangled(const struct shunt_arming *a)
{
	for (size_t i = 1; i < a->n; i++)
		if (a->w[i].p->addr - a->w[i - 1].p->addr < JUMP)
			return true;
	return false;
}

/*
 * All threads stopped, and nobody between the instructions: that leaves those who are on
 * the way there from an earlier detour.
 */
static int stop_and_switch(struct shunt_arming *a, const char *why)
{
	bool *busy = calloc(a->n + 1, sizeof *busy);
	int r = busy ? 0 : -ENOMEM;

	for (size_t i = 0; i < a->n && !r; i++) {
		struct shunt_work *w = &a->w[i];

		w->later = becomes_many(w);
		if (w->later && w->p->detour)
			r = fail(a, -EAGAIN, w->p->addr, "%s", why);
	}
	if (!r)
		r = look_for_threads(a, false, busy);
	for (size_t i = 0; i < a->n; i++) {
		a->w[i].later = false;
		if (!r && busy[i])
			r = fail(a, -EAGAIN, a->w[i].p->addr, "%s", why);
	}
	free(busy);
	return r ? r : switch_over(a, SHUNT_TEXT_STOP);
}

static bool wants_many_in_libc(const struct shunt_arming *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (becomes_many(&a->w[i]) && in_libc(a->w[i].p))
			return true;
	return false;
}

static int run(struct shunt_arming *a)
{
	char why[160];
	bool alone = shunt_text_single_threaded() && !shunt_reader_inside();
	int r = plan_all(a);

	if (r)
		return r;
	serialize();
	for (size_t i = 0; i < a->n; i++)
		publish(&a->w[i]);
	if (shunt_probe_test_between)
		shunt_probe_test_between();
	if (wants_many(a) && !alone) {
		if (shunt_trap_possible(false, why, sizeof why))
			return stop_and_switch(a, why);
		r = wants_many_in_libc(a) ? -EAGAIN : -ENOTSUP;
		for (int i = 0; i < STOP_TRIES && r == -EAGAIN; i++)
			r = stop_and_switch(a, "a thread is on its way there");
		if (!r)
			return 0;
		hold_back(a);
	}
	r = switch_over(a, entangled(a) && !alone ? SHUNT_TEXT_FLIP : SHUNT_TEXT_AUTO);
	if (r && r != -EBUSY && r != -EIO && entangled(a) && !alone)
		r = switch_over(a, SHUNT_TEXT_STOP);
	if (!r && any_later(a))
		optimise(a);
	return r;
}

int shunt_arming_apply(struct shunt_arming *a)
{
	int r = a->n ? run(a) : 0;

	for (size_t i = 0; i < a->n; i++) {
		struct shunt_work *w = &a->w[i];

		w->p->work = NULL;
		if (!r)
			continue;
		if (w->published)
			take_back(w);
		w->old_hook = w->hook; /* what is to be freed */
		w->old_detour = w->detour;
		if (w->detour) {
			w->detour->older = w->p->retired;
			w->p->retired = w->detour;
		}
	}
	return r;
}

int shunt_arming_done(struct shunt_arming *a)
{
	bool any = false;
	int r = 0;

	for (size_t i = 0; i < a->n; i++)
		any |= a->w[i].old_hook != NULL;
	if (any && !(shunt_probe_test_off & SHUNT_PROBE_NO_WAIT))
		r = shunt_reader_synchronize(&shunt_callbacks);
	for (size_t i = 0; i < a->n; i++) {
		/* From inside a handler nothing can be waited for: they are left. */
		if (!r)
			free((void *)a->w[i].old_hook);
		shunt_detour_retire(a->w[i].old_detour);
	}
	free(a->w);
	memset(a, 0, sizeof *a);
	return r;
}
