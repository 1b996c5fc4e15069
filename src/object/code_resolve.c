/* SPDX-License-Identifier: MIT */
/*
 * code_resolve.c - what a person means by "libc.so.6:malloc".
 *
 * Objects are asked in sets: the ones that are named; or the program, and then all
 * others. In the first set that knows the name it must mean one function; which of
 * several is never guessed. Raw names come before demangled ones.
 *
 * An IFUNC's symbol leads to its resolver. Calling that is not for us: it may be
 * anything. But the loader has called it and left the choice in a slot: of the
 * IRELATIVE relocation that the object has if it uses the function itself, or
 * of a relocation of whoever imports it. A slot is believed if what it holds is
 * where a function of the same object begins, other than a resolver or PLT entry
 * (which is what a slot holds that is not bound yet).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code.h"
#include "elf_code.h"
#include "elf_file.h"
#include "object_internal.h"

#define MAX_FOUND 5  /* that are told to the user */
#define MAX_NEAR  64 /* the longest name that another is searched for */
#define MAX_SLOTS 8

struct hit {
	struct shunt_object *obj;
	const struct shunt_code_list *list;
	const struct shunt_code_name *name;
};

struct query {
	char *object;	  /* NULL: none was named */
	const char *func; /* what is behind the colon */
	struct hit hits[MAX_FOUND];
	unsigned nhits; /* all of them */
	bool only_exported, by_soname;
	const char *real;	       /* the object's path without links, or NULL */
	const struct shunt_object *own; /* what this library is in */
	char near[128];
	unsigned distance; /* of near */
	char *why;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct query *q, int err,
	const char *fmt, ...)
{
	va_list ap;

	if (!q->size)
		return err;
	va_start(ap, fmt);
	vsnprintf(q->why, q->size, fmt, ap);
	va_end(ap);
	return err;
}

static const char *file_of(const struct shunt_object *o)
{
	const char *slash = strrchr(o->path, '/');

	return slash ? slash + 1 : o->path;
}

/* --- the nearest name --------------------------------------------------------- */

/* How many characters to change, add or leave out; more than `most` is all one. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb, unsigned most)
{
	unsigned row[MAX_NEAR + 1];

	if (na > MAX_NEAR || nb > MAX_NEAR || na > nb + most || nb > na + most)
		return most + 1;
	for (unsigned k = 0; k <= nb; k++)
		row[k] = k;
	for (unsigned i = 1; i <= na; i++) {
		unsigned diagonal = row[0], least = row[0] = i;

		for (unsigned k = 1; k <= nb; k++) {
			unsigned v = diagonal + (a[i - 1] != b[k - 1]);

			v = row[k] + 1 < v ? row[k] + 1 : v;
			v = row[k - 1] + 1 < v ? row[k - 1] + 1 : v;
			diagonal = row[k];
			row[k] = v;
			least = v < least ? v : least;
		}
		if (least > most)
			return most + 1;
	}
	return row[nb];
}

static void is_near(struct query *q, const char *wanted, const char *name, const char *file)
{
	size_t n = strlen(wanted), len = strnlen(name, MAX_NEAR + 1);
	unsigned most = n < 4 ? 1 : n < 9 ? 2 : (unsigned)n / 4, d;

	most = q->near[0] && q->distance <= most ? q->distance - 1 : most;
	if (!n || n > MAX_NEAR || len > MAX_NEAR)
		return;
	d = distance(wanted, n, name, len, most);
	if (d > most)
		return;
	q->distance = d;
	snprintf(q->near, sizeof q->near, "%s%s%s", file ? file : "", file ? ":" : "", name);
}

static void near_function(struct query *q, const struct shunt_object *o,
	const struct shunt_code_list *l)
{
	for (uint32_t i = 0; i < l->nnames && (!q->near[0] || q->distance > 1); i++)
		is_near(q, q->func, l->strings + l->names[i].name, file_of(o));
}

/* --- which objects -------------------------------------------------------------- */

static bool is_vdso(const char *name)
{
	return !strcmp(name, "[vdso]") || !strcmp(name, "vdso")
		|| !strcmp(name, "linux-vdso.so.1") || !strcmp(name, "linux-gate.so.1");
}

static bool is_object(const struct query *q, struct shunt_object *o)
{
	const struct shunt_code_list *l;

	if (o->gone)
		return false;
	if (q->by_soname) /* asked last: all lists have to be read for it */
		return !shunt_code_of(o, &l) && !strcmp(l->soname, q->object);
	return !strcmp(o->path, q->object) || !strcmp(file_of(o), q->object)
		|| (q->real && !strcmp(o->path, q->real));
}

enum set { NAMED, PROGRAM, OTHERS };

/* The next one of a set after o (NULL: the first). */
static struct shunt_object *next_of(const struct query *q, enum set set, struct shunt_object *o)
{
	struct shunt_object *first = shunt_objects_first();

	if (set == PROGRAM)
		return o ? NULL : first;
	for (o = o ? o->next : first; o; o = o->next) {
		if (!o->of && (set == NAMED ? is_object(q, o)
				       : !o->gone && o != first && o != q->own))
			break;
	}
	return o;
}

static int no_object(struct query *q)
{
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		if (!o->gone)
			is_near(q, q->object, file_of(o), NULL);
	if (q->near[0])
		return refuse(q, -ENOENT, "no object %s is loaded; did you mean %s?", q->object,
			q->near);
	return refuse(q, -ENOENT, "no object %s is loaded", q->object);
}

/* --- by name -------------------------------------------------------------------- */

static void add_hit(struct query *q, struct shunt_object *o, const struct shunt_code_list *l,
	const struct shunt_code_name *name)
{
	for (unsigned i = 0; i < q->nhits && i < MAX_FOUND; i++)
		if (q->hits[i].list == l && q->hits[i].name->func == name->func)
			return;
	if (q->nhits < MAX_FOUND)
		q->hits[q->nhits] = (struct hit){o, l, name};
	q->nhits++;
}

static void by_raw_name(struct query *q, struct shunt_object *o, const struct shunt_code_list *l)
{
	const struct shunt_code_name *n = NULL;
	bool current = false;

	while ((n = shunt_code_named(l, q->func, n)))
		current |= n->rank != SHUNT_CODE_OLD;
	while ((n = shunt_code_named(l, q->func, n)))
		if ((!current || n->rank != SHUNT_CODE_OLD) && (n->exported || !q->only_exported))
			add_hit(q, o, l, n);
}

/* Behind the template arguments at s, or s. */
static const char *behind_template(const char *s)
{
	const char *p = s;
	unsigned depth = 0;

	if (*s != '<')
		return s;
	do
		depth += (*p == '<') - (*p == '>');
	while (depth && *++p);
	return depth ? s : p + 1;
}

/* Whether the name at `name` is `wanted`, which may leave out template and arguments. */
static bool begins(const char *name, const char *wanted)
{
	size_t n = strlen(wanted);
	const char *end = name + n;

	if (strncmp(name, wanted, n))
		return false;
	if (!strpbrk(wanted, "<("))
		end = behind_template(end);
	return !*end || (*end == '(' && !strchr(wanted, '('));
}

/* The demangled name of a template begins with the type that it returns. */
static bool is_demangled(const char *name, const char *wanted)
{
	unsigned depth = 0;

	if (begins(name, wanted))
		return true;
	for (const char *p = name; *p && !(*p == '(' && !depth); p++) {
		depth += *p == '<' || *p == '(';
		depth -= depth && (*p == '>' || *p == ')');
		if (*p == ' ' && !depth && strncmp(name, "operator", 8) && begins(p + 1, wanted))
			return true;
	}
	return false;
}

/*
 * A part of every raw name of what is wanted, or "": demangling all would take long.
 * The last word is one, but for templates, operators and what std:: abbreviates.
 */
static void needle_of(const char *wanted, char *needle, size_t size)
{
	size_t n = strcspn(wanted, "("), at;

	*needle = 0;
	if (memchr(wanted, '<', n) || memchr(wanted, ' ', n) || !strncmp(wanted, "std::", 5)
		|| strstr(wanted, "operator"))
		return;
	for (at = n; at && wanted[at - 1] != ':' && wanted[at - 1] != '~'; at--)
		;
	if (n - at < size) {
		memcpy(needle, wanted + at, n - at);
		needle[n - at] = 0;
	}
}

static void by_demangled_name(struct query *q, struct shunt_object *o,
	const struct shunt_code_list *l)
{
	char needle[128], buf[2048];

	needle_of(q->func, needle, sizeof needle);
	for (uint32_t i = 0; i < l->nnames; i++) {
		const char *raw = l->strings + l->names[i].name;

		if (strncmp(raw, "_Z", 2) || !strstr(raw, needle)
			|| l->funcs[l->names[i].func].flags & (SHUNT_CODE_COLD | SHUNT_CODE_PART))
			continue;
		if (is_demangled(shunt_object_demangle(raw, buf, sizeof buf), q->func))
			add_hit(q, o, l, &l->names[i]);
	}
}

static int search_raw(struct query *q, enum set set)
{
	const struct shunt_code_list *l;
	struct shunt_object *o = NULL;
	int err = 0;

	while (!err && (o = next_of(q, set, o))) {
		err = shunt_code_of(o, &l);
		if (!err)
			by_raw_name(q, o, l);
	}
	return err;
}

static int search(struct query *q, enum set set)
{
	const struct shunt_code_list *l;
	struct shunt_object *o;
	int err = 0;

	q->only_exported = set == OTHERS;
	err = search_raw(q, set);
	if (!err && !q->nhits && q->only_exported) {
		q->only_exported = false;
		err = search_raw(q, set);
	}
	if (!__atomic_load_n(&shunt_object_demangler, __ATOMIC_ACQUIRE))
		return err;
	for (o = NULL; !err && !q->nhits && (o = next_of(q, set, o));) {
		err = shunt_code_of(o, &l);
		if (!err)
			by_demangled_name(q, o, l);
	}
	return err;
}

static int not_found(struct query *q, enum set first)
{
	struct shunt_object *only = NULL, *o = NULL;
	const struct shunt_code_list *l;

	if (!strncmp(q->func, "__vdso_", 7))
		return refuse(q, -ENOTSUP, "%s is the kernel's: it cannot be changed", q->func);
	for (enum set s = first; s <= OTHERS; s = s == NAMED ? OTHERS + 1 : s + 1)
		while ((o = next_of(q, s, o))) {
			only = o;
			if (!shunt_code_of(o, &l))
				near_function(q, o, l);
		}
	if (q->near[0])
		return refuse(q, -ENOENT, "no function %s; did you mean %s?", q->func, q->near);
	if (first == NAMED && !shunt_code_of(only, &l) && l->why)
		return refuse(q, -ENOENT, "no functions of %s are known: %s", q->object, l->why);
	return refuse(q, -ENOENT, "no function %s%s%s", q->func, q->object ? " in " : "",
		q->object ? q->object : "");
}

static int not_unique(const struct query *q)
{
	char text[512];
	int n = 0;

	for (unsigned i = 0; i < q->nhits && i < MAX_FOUND && n < (int)sizeof text; i++) {
		const struct hit *h = &q->hits[i];

		n += snprintf(text + n, sizeof text - (size_t)n, "%s%s:%#lx", i ? ", " : "",
			file_of(h->obj), h->list->funcs[h->name->func].start - h->list->base);
	}
	return refuse(q, -ENOTUNIQ, "%s is the name of %u functions: %s%s", q->func, q->nhits,
		text, q->nhits > MAX_FOUND ? ", .." : "");
}

/* --- what was chosen for an IFUNC -------------------------------------------------- */

struct peek {
	const struct shunt_object *obj; /* whose memory it is */
	const struct shunt_maps *maps;
	uintptr_t slot, value;
};

/* The maps were read before; an object that is not gone by now was there all the time. */
static int peek(void *arg)
{
	struct peek *p = arg;

	if (p->obj->gone || !shunt_maps_readable(p->maps, p->slot, p->slot + sizeof p->value))
		return -EFAULT;
	memcpy(&p->value, (const void *)p->slot, sizeof p->value);
	return 0;
}

struct choice {
	struct shunt_code_place *place;
	struct shunt_maps maps;
	bool vdso; /* it leads there */
};

/* Whether the slot holds an implementation: then place->func is that. */
static bool believe(struct choice *c, const struct shunt_object *holder, uintptr_t slot)
{
	const unsigned no = SHUNT_CODE_LINKER | SHUNT_CODE_IFUNC;
	struct peek p = {holder, &c->maps, slot, 0};
	const struct shunt_code_func *f;
	const struct shunt_map *m;

	if (slot % sizeof slot || shunt_objects_while_loaded(peek, &p))
		return false;
	m = shunt_maps_at(&c->maps, p.value);
	c->vdso |= m && !strcmp(m->path, "[vdso]");
	f = shunt_code_in(c->place->list, p.value);
	if (!f || f->start != p.value || f->flags & no)
		return false;
	c->place->func = f;
	return true;
}

static bool by_own_slot(struct choice *c)
{
	const struct shunt_code_list *l = c->place->list;
	uint64_t resolver = c->place->func->start - l->base;

	for (uint32_t i = 0; i + 1 < l->nslots; i += 2)
		if (l->slots[i] == resolver
			&& believe(c, c->place->obj, l->base + l->slots[i + 1]))
			return true;
	return false;
}

static bool by_import(struct choice *c, const struct shunt_object *o, const char *name)
{
	struct shunt_file file;
	struct shunt_elf_code code;
	uint64_t slot[MAX_SLOTS];
	bool hit = false;
	size_t n;

	if (shunt_file_read_code(o->path, &file))
		return false;
	if (!shunt_elf_code_read(file.image, file.size, &code)) {
		if (shunt_object_is_file(o, &file, code.build_id, code.build_id_len)) {
			n = shunt_elf_code_imports(file.image, file.size, name, slot, MAX_SLOTS);
			for (size_t i = 0; i < n && !hit; i++)
				hit = believe(c, o, o->base + slot[i]);
		}
		shunt_elf_code_free(&code);
	}
	shunt_file_free(&file);
	return hit;
}

static int choose(const struct query *q, struct shunt_code_place *place)
{
	struct choice c = {.place = place};
	bool hit;

	if (shunt_maps_read(&c.maps))
		return refuse(q, -ENOTSUP, "%s: /proc/self/maps cannot be read", q->func);
	hit = by_own_slot(&c);
	for (struct shunt_object *o = shunt_objects_first(); o && !hit && !c.vdso; o = o->next)
		hit = !o->gone && !o->of && by_import(&c, o, q->hits[0].list->strings + q->hits[0].name->name);
	shunt_maps_free(&c.maps);
	if (hit)
		return 0;
	if (c.vdso)
		return refuse(q, -ENOTSUP, "%s is in the vdso here, which is the kernel's", q->func);
	return refuse(q, -ENOTSUP, "%s is chosen when it is first bound (an IFUNC), and nobody "
		"here has bound it: name the implementation", q->func);
}

/* --- the place ------------------------------------------------------------------- */

static int by_name(struct query *q, uint64_t offset, struct shunt_code_place *place)
{
	enum set first = q->object ? NAMED : PROGRAM;
	const struct shunt_code_func *f;
	int err = search(q, first);

	if (!err && !q->nhits && first == PROGRAM)
		err = search(q, OTHERS);
	if (!err && !q->nhits)
		err = not_found(q, first);
	else if (!err && q->nhits > 1)
		err = not_unique(q);
	if (err)
		return err;
	place->obj = q->hits[0].obj;
	place->list = q->hits[0].list;
	place->func = f = &place->list->funcs[q->hits[0].name->func];
	if (q->hits[0].name->ifunc)
		err = choose(q, place);
	f = place->func;
	place->addr = f->start + offset;
	if (!err && offset >= f->size)
		return refuse(q, -ERANGE, "%s has %#x bytes: +%#lx is not in it", q->func, f->size,
			(unsigned long)offset);
	return err;
}

static int by_address(struct query *q, uint64_t offset, struct shunt_code_place *place)
{
	struct shunt_object *o = next_of(q, q->object ? NAMED : PROGRAM, NULL);
	uint64_t addr;
	char *end;
	int err;

	errno = 0;
	addr = strtoull(q->func + 2, &end, 16);
	if (errno || *end || end == q->func + 2)
		return refuse(q, -EINVAL, "%s is no address", q->func);
	place->obj = o;
	place->addr = o->base + addr + offset;
	if (addr + offset < addr || place->addr - o->text_lo >= o->text_hi - o->text_lo)
		return refuse(q, -ERANGE, "%s:%#lx is not in its code, which is %#lx to %#lx",
			file_of(o), (unsigned long)(addr + offset), o->text_lo - o->base,
			o->text_hi - o->base);
	err = shunt_code_of(o, &place->list);
	if (err)
		return err;
	place->func = shunt_code_in(place->list, place->addr);
	if (!place->func)
		return refuse(q, -ENOENT, "no function is known at %s:%#lx", file_of(o),
			(unsigned long)(addr + offset));
	return 0;
}

/* The colon between an object and a function: one that is not of a pair. */
static const char *colon(const char *s)
{
	for (; *s; s++)
		if (*s == ':') {
			if (s[1] != ':')
				return s;
			s++;
		}
	return NULL;
}

/* With the objects lock held, so that no object goes between being found and asked. */
static int find(struct query *q, uint64_t offset, struct shunt_code_place *place)
{
	q->own = shunt_object_of((uintptr_t)shunt_code_resolve);
	if (q->object && !next_of(q, NAMED, NULL)) {
		q->by_soname = true;
		if (!next_of(q, NAMED, NULL))
			return no_object(q);
	}
	if (!strncmp(q->func, "0x", 2))
		return by_address(q, offset, place);
	return by_name(q, offset, place);
}

static int resolve(struct query *q, const char *text, uint64_t offset,
	struct shunt_code_place *place)
{
	const char *c = colon(text);
	char *real = NULL;
	int err;

	if (c == text || (c && !c[1]) || !*text)
		return refuse(q, -EINVAL, "\"%s\" is neither FUNCTION nor OBJECT:FUNCTION", text);
	q->func = c ? c + 1 : text;
	q->object = c ? strndup(text, (size_t)(c - text)) : NULL;
	if (c && !q->object)
		return -ENOMEM;
	if (q->object && is_vdso(q->object))
		return refuse(q, -ENOTSUP, "%s is the kernel's: it cannot be changed", q->object);
	err = shunt_objects_refresh();
	if (err)
		return err;
	if (q->object && strchr(q->object, '/'))
		q->real = real = realpath(q->object, NULL);
	shunt_objects_lock();
	err = find(q, offset, place);
	shunt_objects_unlock();
	free(real);
	return err;
}

int shunt_code_resolve(const char *text, uint64_t offset, struct shunt_code_place *place,
	char *why, size_t size)
{
	struct query q = {.why = why, .size = size};
	int e = errno, err;

	memset(place, 0, sizeof *place);
	if (size)
		*why = 0;
	err = resolve(&q, text, offset, place);
	if (err == -ENOMEM)
		refuse(&q, err, "no memory");
	if (err)
		memset(place, 0, sizeof *place);
	free(q.object);
	errno = e;
	return err;
}
