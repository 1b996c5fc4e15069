/* SPDX-License-Identifier: MIT */
/*
 * site.c - which instructions belong to which variable, and changing them.
 *
 * Each object's records are grouped by variable when the object is loaded; a
 * variable has a list of its groups. A group remembers the value that its sites
 * hold: that is the variable's value, unless bringing them to it has failed.
 *
 * One mutex: whoever loads an object while a value is being set finds it either
 * before, and sees to the new sites itself, or after. It is held over
 * shunt_text_apply(), which takes no lock of the dynamic linker, for a
 * constructor comes with that one held.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shunt/key.h>
#include <shunt/ops.h>
#include <shunt/text.h>

#include "base/hold.h"
#include "base/log.h"
#include "encode.h"
#include "site.h"
#include "text/text_internal.h"
#include "trace/point.h"

struct entry {
	struct shunt_var *var;
	const struct shunt_site *s;
};

struct shunt_sites {
	struct shunt_sites *next; /* of the same variable, in another object */
	struct shunt_var *var;
	const struct entry *entry;
	size_t n;
	uint64_t held; /* bits of the value that they hold */
};

/* An object. */
struct table {
	struct table *next;
	struct shunt_object_sites object;
	char file[64]; /* its name */
	bool program;  /* not a library's */
	struct entry *entry; /* in the order of their variables */
	struct shunt_sites *group;
	size_t nentries, ngroups;
	size_t strange; /* sites whose variable is not found, or of another type */
};

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct table *tables;

/* --- the lock, and fork ----------------------------------------------------------- */

void shunt_sites_lock(void)
{
	shunt_hold_take(&lock);
}

void shunt_sites_unlock(void)
{
	shunt_hold_give(&lock);
}

static void once_begun(void)
{
	shunt_text_at_fork(); /* the innermost lock first */
	pthread_atfork(shunt_sites_lock, shunt_sites_unlock, shunt_sites_unlock);
}

void shunt_sites_at_fork(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, once_begun);
}

/* --- variables -------------------------------------------------------------------- */

void *shunt_var_at(const struct shunt_var *v)
{
	return v->at ? v->at : (void *)(v + 1);
}

static size_t size_of(const struct shunt_var *v)
{
	return v->kind == SHUNT_KIND_IMV ? v->size : sizeof(uint64_t);
}

uint64_t shunt_var_get(const struct shunt_var *v)
{
	uint64_t bits = 0;

	memcpy(&bits, shunt_var_at(v), size_of(v));
	return bits;
}

/* By one store: where instructions hold no values, others are loading it. */
static void put(struct shunt_var *v, uint64_t bits)
{
	void *at = shunt_var_at(v);

	switch (size_of(v)) {
	case 1:
		__atomic_store_n((uint8_t *)at, (uint8_t)bits, __ATOMIC_RELEASE);
		break;
	case 2:
		__atomic_store_n((uint16_t *)at, (uint16_t)bits, __ATOMIC_RELEASE);
		break;
	case 4:
		__atomic_store_n((uint32_t *)at, (uint32_t)bits, __ATOMIC_RELEASE);
		break;
	default:
		__atomic_store_n((uint64_t *)at, bits, __ATOMIC_RELEASE);
	}
}

/* --- edits ------------------------------------------------------------------------ */

static size_t add_edits(const struct shunt_sites *g, uint64_t bits, struct shunt_edit *e)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n; i++) {
		const struct shunt_site *s = g->entry[i].s;

		if (shunt_site_same(s, g->held, bits))
			continue;
		e[n] = (struct shunt_edit){.addr = shunt_site_at(s), .len = s->len,
			.act = SHUNT_TEXT_RETRY};
		if (shunt_site_kind(s) == SHUNT_KIND_KEY) {
			e[n].act = SHUNT_TEXT_JUMP;
			e[n].target = shunt_site_target(s);
		} else if (shunt_site_kind(s) == SHUNT_KIND_CHOICE) { /* one of the two is no NOP */
			e[n].act = SHUNT_TEXT_JUMP;
			e[n].target = shunt_site_choice_target(s, shunt_site_variant(s, bits) ? bits : g->held);
		}
		shunt_site_encode(s, g->var, g->held, e[n].old);
		shunt_site_encode(s, g->var, bits, e[n].new_);
		n++;
	}
	return n;
}

static char reason[192];

const char *shunt_sites_reason(void)
{
	return reason;
}

static int apply(const struct shunt_edit *e, size_t n, const char *name)
{
	struct shunt_text_result res;
	int err = n ? shunt_text_apply(e, n, NULL, &res) : 0;

	memcpy(reason, err ? res.reason : "", err ? sizeof reason : 1);
	if (err)
		shunt_log(SHUNT_LOG_ERROR, "%s: %zu sites cannot be changed: %s%s%s",
			name ? name : "a variable", n, strerror(-err), res.reason[0] ? ": " : "",
			res.reason);
	return err;
}

/* --- what has changed -------------------------------------------------------------- */

/* The offer of that name. */
struct sought {
	uint64_t target;
	const char *name;
};

static int is_target(const struct shunt_offer *o, void *arg)
{
	struct sought *s = arg;

	s->name = o->name;
	return (uintptr_t)o->target == s->target;
}

const char *shunt_call_name(const struct shunt_var *v, uint64_t target)
{
	static char number[32];
	struct sought s = {target, NULL};

	if (!target)
		return "null";
	if (target == (uintptr_t)shunt_return_0)
		return "return-0";
	if (shunt_offers_each(v, is_target, &s))
		return s.name;
	snprintf(number, sizeof number, "0x%llx", (unsigned long long)target);
	return number;
}

static struct shunt_changed changed[SHUNT_CHANGES];
static uint64_t changes; /* in all */

static void remember(const struct shunt_var *v, uint64_t bits)
{
	struct shunt_changed *c = &changed[changes++ % SHUNT_CHANGES];

	c->var = *v;
	c->bits = bits;
	c->name[0] = 0;
	c->state[0] = 0;
	strncat(c->name, v->name ? v->name : "", sizeof c->name - 1);
	if (v->kind == SHUNT_KIND_CHOICE)
		strncat(c->state, ((const struct shunt_choice *)(const void *)v)->states[bits],
			sizeof c->state - 1);
	if (v->kind == SHUNT_KIND_CALL)
		strncat(c->state, shunt_call_name(v, bits), sizeof c->state - 1);
}

uint64_t shunt_changes_each(uint64_t from, int (*fn)(const struct shunt_changed *c, uint64_t n, void *arg),
	void *arg)
{
	uint64_t n = changes > SHUNT_CHANGES ? changes - SHUNT_CHANGES : 0;

	if (from > n + 1)
		n = from - 1;
	for (; n < changes; n++)
		if (fn(&changed[n % SHUNT_CHANGES], n + 1, arg))
			break;
	return n + 1;
}

int shunt_vars_set(const struct shunt_change *c, size_t n)
{
	struct shunt_edit *e;
	struct shunt_sites *g;
	size_t sites = 0, edits = 0;
	int err;

	for (size_t i = 0; i < n; i++)
		for (g = c[i].var->sites; g; g = g->next)
			sites += g->n;
	e = calloc(sites + 1, sizeof *e);
	if (!e)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (g = c[i].var->sites; g; g = g->next)
			edits += add_edits(g, c[i].bits, e + edits);
	err = apply(e, edits, n ? c[0].var->name : NULL);
	free(e);
	if (err)
		return err;
	for (size_t i = 0; i < n; i++) {
		for (g = c[i].var->sites; g; g = g->next)
			g->held = c[i].bits;
		if (shunt_var_get(c[i].var) != c[i].bits && !(c[i].var->flags & SHUNT_VAR_POINT))
			remember(c[i].var, c[i].bits);
		put(c[i].var, c[i].bits);
	}
	return 0;
}

/* --- objects ------------------------------------------------------------------------ */

static int by_ref(const void *a, const void *b)
{
	uintptr_t p = (uintptr_t)((const struct shunt_def *)a)->ref;
	uintptr_t q = (uintptr_t)((const struct shunt_def *)b)->ref;

	return p < q ? -1 : p > q;
}

/* A declaration may have another type than the definition: then it is nobody's. */
static bool fits(const struct shunt_site *s, const struct shunt_var *v)
{
	enum shunt_kind kind = shunt_site_kind(s) == SHUNT_KIND_OP ? SHUNT_KIND_CHOICE : shunt_site_kind(s);

	return kind == v->kind &&
	       (kind != SHUNT_KIND_IMV || !(s->kind & SHUNT_SITE_WIDE) == (v->size != 8));
}

/* C++ has no names for the elements of an array. */
static void name_elements(const struct shunt_def *d)
{
	struct shunt_key *k = (struct shunt_key *)(void *)d->var;

	for (size_t i = 0; d->count > 1 && i < d->count; i++)
		if (!k[i].var.name)
			k[i].var.name = d->name;
}

/* Whose each site is: refs that say NULL are their definitions'. */
static int find_vars(const struct shunt_object_sites *o, struct table *t, size_t n)
{
	size_t ndefs = (size_t)(o->defs_end - o->defs);
	struct shunt_def *defs = malloc(ndefs * sizeof *defs + 1);

	if (!defs)
		return -ENOMEM;
	if (ndefs)
		memcpy(defs, o->defs, ndefs * sizeof *defs);
	qsort(defs, ndefs, sizeof *defs, by_ref);
	for (size_t i = 0; i < n; i++) {
		const struct shunt_site *s = &o->sites[i];
		struct shunt_def key = {.ref = (const char *)&s->ref + s->ref}, *d;
		char *first = *(char *const *)key.ref;

		d = first ? NULL : bsearch(&key, defs, ndefs, sizeof *defs, by_ref);
		if (d)
			first = (char *)d->var;
		if (first && shunt_site_kind(s) == SHUNT_KIND_KEY) /* may be an array's element */
			first += s->index * sizeof(struct shunt_key);
		if (first && fits(s, (void *)first))
			t->entry[t->nentries++] = (struct entry){(void *)first, s};
		else
			t->strange++;
	}
	for (const struct shunt_def *d = o->defs; d < o->defs_end; d++)
		name_elements(d);
	free(defs);
	return 0;
}

static int by_var(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	uintptr_t p = (uintptr_t)x->var, q = (uintptr_t)y->var;

	if (p == q) {
		p = shunt_site_compiled(x->s);
		q = shunt_site_compiled(y->s);
	}
	if (p == q) {
		p = (uintptr_t)shunt_site_at(x->s);
		q = (uintptr_t)shunt_site_at(y->s);
	}
	return p < q ? -1 : p > q;
}

/* Groups hold sites that were compiled alike: those of a key may be of two sorts. */
static void make_groups(struct table *t)
{
	for (size_t i = 0; i < t->nentries; i++) {
		const struct entry *e = &t->entry[i];
		struct shunt_sites *g = t->ngroups ? &t->group[t->ngroups - 1] : NULL;

		if (!g || g->var != e->var || g->held != shunt_site_compiled(e->s)) {
			g = &t->group[t->ngroups++];
			g->entry = e;
			g->var = e->var;
			g->held = shunt_site_compiled(e->s);
		}
		g->n++;
	}
}

static void table_free(struct table *t)
{
	if (!t)
		return;
	free(t->entry);
	free(t->group);
	free(t);
}

/* Something that lies in the object; NULL: it has nothing. */
static const void *anything_of(const struct shunt_object_sites *o)
{
	return o->sites != o->sites_end ? (const void *)o->sites
	       : o->defs != o->defs_end ? (const void *)o->defs
	       : o->offers != o->offers_end ? (const void *)o->offers
					    : NULL;
}

/*
 * The name of an object's file, and whether it is the program's. In its constructor, for
 * the dynamic linker's lock, which this needs, is the caller's then; it must not be
 * waited for with ours held.
 */
static void file_of(struct table *t)
{
	const char *name = NULL, *slash = NULL;
	Dl_info info, program;

	if (dladdr(anything_of(&t->object), &info)) {
		name = info.dli_fname;
		slash = name ? strrchr(name, '/') : NULL;
		t->program = dladdr((void *)getauxval(AT_PHDR), &program) &&
			     info.dli_fbase == program.dli_fbase;
	}
	snprintf(t->file, sizeof t->file, "%s", slash ? slash + 1 : name && *name ? name : "?");
}

/* The object's constructor is what calls, so nobody else makes its table now. */
static struct table *table_make(const struct shunt_object_sites *o)
{
	size_t n = (size_t)(o->sites_end - o->sites);
	struct table *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	t->object = *o;
	t->entry = malloc(n * sizeof *t->entry + 1);
	t->group = calloc(n + 1, sizeof *t->group);
	if (!t->entry || !t->group || find_vars(o, t, n)) {
		table_free(t);
		return NULL;
	}
	qsort(t->entry, t->nentries, sizeof *t->entry, by_var);
	make_groups(t);
	file_of(t);
	return t;
}

/* Where the object's code is run by nobody yet, it can simply be written. */
static int write_plainly(const struct shunt_edit *e, size_t n)
{
	uintptr_t mask = ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);

	for (size_t i = 0; i < n; i++) {
		uintptr_t at = (uintptr_t)e[i].addr & mask;
		size_t len = (uintptr_t)e[i].addr + e[i].len - at;

		if (memcmp(e[i].addr, e[i].old, e[i].len))
			return -EBUSY;
		if (mprotect((void *)at, len, PROT_READ | PROT_WRITE))
			return -errno;
		memcpy(e[i].addr, e[i].new_, e[i].len);
		if (mprotect((void *)at, len, PROT_READ | PROT_EXEC))
			return -errno;
	}
	return 0;
}

/* What is wrong with a program before its main() nobody is there to hear. */
static void say_stale(const struct table *t, size_t sites, int err)
{
	char line[512];
	int n = snprintf(line, sizeof line,
		"shunt: %s: %zu instructions do not hold the values of their variables: %s%s%s: compile it "
		"with -DSHUNT_GENERIC to run it here\n",
		t->file, sites, err ? strerror(-err) : "a variable is not found, or of another type",
		err && *reason ? ": " : "", err ? reason : "");

	shunt_log(SHUNT_LOG_ERROR, "%.*s", n - 1, line);
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0)
		return;
}

/* One group, when all together cannot be done. The number of sites that stay stale. */
static size_t update_group(struct shunt_sites *g, struct shunt_edit *e, int *err)
{
	uint64_t bits = shunt_var_get(g->var);
	size_t n = add_edits(g, bits, e);
	int r = apply(e, n, g->var->name);

	if (r && r != -EBUSY)
		r = write_plainly(e, n);
	if (r) {
		*err = r;
		return n;
	}
	g->held = bits;
	return 0;
}

/* Brings a new object's sites to their variables' values. */
static void table_update(struct table *t)
{
	struct shunt_edit *e = malloc(t->nentries * sizeof *e + 1);
	size_t edits = 0, stale = 0;
	int err = e ? 0 : -ENOMEM;

	for (size_t i = 0; e && i < t->ngroups; i++)
		edits += add_edits(&t->group[i], shunt_var_get(t->group[i].var), e + edits);
	if (e)
		err = apply(e, edits, "an object's first values");
	for (size_t i = 0; i < t->ngroups; i++)
		if (!err)
			t->group[i].held = shunt_var_get(t->group[i].var);
		else if (e)
			stale += update_group(&t->group[i], e, &err);
	free(e);
	if (stale || !e)
		say_stale(t, stale, err);
	if (t->strange)
		say_stale(t, t->strange, 0);
}

static struct table **table_of(const struct shunt_object_sites *o)
{
	struct table **at = &tables;

	/* An object has all of its sections, each in the place of no other one's. */
	while (*at && ((*at)->object.sites != o->sites || (*at)->object.defs != o->defs ||
			      (*at)->object.offers != o->offers))
		at = &(*at)->next;
	return at;
}

static void link_groups(struct table *t)
{
	for (size_t i = 0; i < t->ngroups; i++) {
		struct shunt_sites *g = &t->group[i];

		g->next = g->var->sites;
		g->var->sites = g;
	}
}

static void unlink_groups(struct table *t)
{
	for (size_t i = 0; i < t->ngroups; i++) {
		struct shunt_sites **at = &t->group[i].var->sites;

		while (*at != &t->group[i])
			at = &(*at)->next;
		*at = t->group[i].next;
	}
}

static bool is_known(const struct shunt_object_sites *o)
{
	bool known;

	shunt_sites_lock();
	known = *table_of(o) != NULL;
	shunt_sites_unlock();
	return known;
}

SHUNT_API void shunt_sites_add(const struct shunt_object_sites *o)
{
	struct table *t;

	shunt_sites_at_fork();
	/* Each unit of an object says the same. */
	if (!anything_of(o) || is_known(o))
		return;
	t = table_make(o);
	if (!t) {
		shunt_log(SHUNT_LOG_ERROR, "no memory for the sites of an object");
		return;
	}
	shunt_sites_lock();
	t->next = tables;
	tables = t;
	link_groups(t);
	shunt_points_add(o->defs, o->defs_end, t->file);
	table_update(t);
	shunt_sites_unlock();
	shunt_points_told();
}

SHUNT_API void shunt_sites_remove(const struct shunt_object_sites *o)
{
	static bool ending;
	struct table **at, *t;

	shunt_sites_lock();
	at = table_of(o);
	t = *at;
	/* The program itself goes at the end only, before its libraries: nothing is taken back then. */
	ending = ending || (t && t->program);
	if (t && !ending) {
		*at = t->next;
		shunt_points_remove(o->defs, o->defs_end);
		unlink_groups(t);
		table_free(t);
	}
	shunt_sites_unlock();
}

/* --- looking around --------------------------------------------------------------- */

static size_t stride_of(const struct shunt_def *d)
{
	return d->var->kind == SHUNT_KIND_KEY ? sizeof(struct shunt_key) : 0;
}

static int each_of(const struct table *t, const struct shunt_def *def, int (*fn)(const struct shunt_defined *d, void *arg),
	void *arg)
{
	struct shunt_defined d = {.def = def, .object = t->file};
	int r = 0;

	for (; d.element < def->count && !r; d.element++) {
		d.var = (struct shunt_var *)(void *)((char *)def->var + d.element * stride_of(def));
		r = fn(&d, arg);
	}
	return r;
}

int shunt_defined_each(int (*fn)(const struct shunt_defined *d, void *arg), void *arg)
{
	int r = 0;

	for (struct table *t = tables; t && !r; t = t->next)
		for (const struct shunt_def *def = t->object.defs; def < t->object.defs_end && !r; def++)
			r = each_of(t, def, fn, arg);
	return r;
}

size_t shunt_var_sites(const struct shunt_var *v)
{
	size_t n = 0;

	for (const struct shunt_sites *g = v->sites; g; g = g->next)
		n += g->n;
	return n;
}

bool shunt_sites_within(uintptr_t lo, uintptr_t hi)
{
	bool found = false;

	shunt_sites_lock();
	for (const struct table *t = tables; t && !found; t = t->next)
		for (size_t i = 0; i < t->nentries && !found; i++) {
			uintptr_t at = (uintptr_t)shunt_site_at(t->entry[i].s);

			found = at < hi && at + t->entry[i].s->len > lo;
		}
	shunt_sites_unlock();
	return found;
}

int shunt_offers_each(const struct shunt_var *call, int (*fn)(const struct shunt_offer *o, void *arg),
	void *arg)
{
	int r = 0;

	for (struct table *t = tables; t && !r; t = t->next)
		for (const struct shunt_offer *o = t->object.offers; o < t->object.offers_end && !r; o++)
			if (o->var == call)
				r = fn(o, arg);
	return r;
}
