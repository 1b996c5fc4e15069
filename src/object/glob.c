/* SPDX-License-Identifier: MIT */
/*
 * glob.c - which functions a pattern means.
 *
 * The matcher keeps one place to come back to, the last `*`: whatever an
 * earlier `*` could have taken instead, the last one can take as well, so time
 * is at most the product of both lengths, and no memory is needed. (fnmatch
 * would depend on the program's locale and may allocate for each name.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "code.h"
#include "object.h"
#include "object_internal.h"

/* Matches one of [...] at g; where the set ends through *end, NULL if it does not. */
static bool in_set(const char *g, unsigned char c, const char **end)
{
	bool not = g[1] == '!' || g[1] == '^', hit = false;
	const char *p = g + 1 + not, *first = p;

	while (*p && (*p != ']' || p == first)) {
		unsigned char lo = (unsigned char)*p, hi = lo;

		if (p[1] == '-' && p[2] && p[2] != ']') {
			hi = (unsigned char)p[2];
			p += 2;
		}
		hit |= c >= lo && c <= hi;
		p++;
	}
	*end = *p ? p + 1 : NULL;
	return hit != not;
}

/* Matches the one character c at g; what comes next in g through *next. */
static bool one(const char *g, char c, const char **next)
{
	const char *end;
	bool hit;

	switch (*g) {
	case 0:
		return false;
	case '?':
		*next = g + 1;
		return true;
	case '[':
		hit = in_set(g, (unsigned char)c, &end);
		if (end) {
			*next = end;
			return hit;
		}
		break;
	case '\\':
		if (g[1])
			g++;
	}
	*next = g + 1;
	return *g == c;
}

bool shunt_glob_match(const char *g, const char *t)
{
	const char *star = NULL, *from = NULL, *next;

	while (*t) {
		if (*g == '*') {
			star = ++g;
			from = t;
		} else if (one(g, *t, &next)) {
			g = next;
			t++;
		} else if (star) {
			g = star;
			t = ++from;
		} else {
			return false;
		}
	}
	while (*g == '*')
		g++;
	return !*g;
}

/* The colon between an object and a function: one that is not of a pair. */
static const char *colon(const char *g)
{
	for (; *g; g++) {
		if (*g == '\\' && g[1]) {
			g++;
		} else if (*g == ':') {
			if (g[1] != ':')
				return g;
			g++;
		}
	}
	return NULL;
}

int shunt_glob_check(const char *g)
{
	const char *c = colon(g), *end;

	if (!*g || c == g || (c && !c[1]))
		return -EINVAL;
	for (; *g; g++) {
		if (*g == '\\' && !*++g)
			return -EINVAL;
		if (*g == '[') {
			in_set(g, 0, &end);
			if (!end)
				return -EINVAL;
			g = end - 1;
		}
	}
	return 0;
}

/* --- names ------------------------------------------------------------------ */

struct demangled {
	char *buf; /* of malloc, as __cxa_demangle wants it */
	size_t size;
};

static const char *demangle(const char *name, struct demangled *d)
{
	char *(*fn)(const char *, char *, size_t *, int *) =
		__atomic_load_n(&shunt_object_demangler, __ATOMIC_ACQUIRE);
	int status = 0;
	char *p;

	if (!fn || strncmp(name, "_Z", 2))
		return NULL;
	if (!d->buf) {
		d->size = 512;
		d->buf = malloc(d->size);
		if (!d->buf)
			return NULL;
	}
	p = fn(name, d->buf, &d->size, &status);
	if (!p || status)
		return NULL;
	return d->buf = p;
}

const char *shunt_object_demangle(const char *name, char *buf, size_t size)
{
	struct demangled d = {0};
	const char *p = demangle(name, &d);

	if (size) {
		buf[0] = 0;
		strncat(buf, p ? p : name, size - 1);
	}
	free(d.buf);
	return buf;
}

/* --- the functions of an object ---------------------------------------------- */

static bool object_matches(const struct shunt_object *o, const char *glob, size_t n, bool *bad)
{
	const char *file = strrchr(o->path, '/');
	char *part = strndup(glob, n);
	bool hit = part && shunt_glob_match(part, file ? file + 1 : o->path);

	*bad = !part;
	free(part);
	return hit;
}

static bool func_matches(const char *name, const char *glob, struct demangled *d)
{
	const char *plain;

	if (shunt_glob_match(glob, name))
		return true;
	plain = demangle(name, d);
	return plain && shunt_glob_match(glob, plain);
}

bool shunt_glob_names(const char *glob, const struct shunt_object *o)
{
	const char *c = colon(glob);
	bool bad;

	return c && object_matches(o, glob, (size_t)(c - glob), &bad);
}

/* Any name of the function i; *at is its first in l->names, and is moved behind the last. */
static bool any_name_matches(const struct shunt_code_list *l, uint32_t i, uint32_t *at,
	const char *glob, struct demangled *d)
{
	bool hit = false;
	char buf[32];

	if (!l->funcs[i].name)
		hit = shunt_glob_match(glob,
			shunt_code_name(l, &l->funcs[i], buf, sizeof buf));
	for (; *at < l->nnames && l->names[*at].func == i; ++*at)
		hit = hit || func_matches(l->strings + l->names[*at].name, glob, d);
	return hit;
}

/* The same for a function of a part; they come in the order of the list's. */
static bool part_matches(const struct shunt_object *o, uint32_t i, const char *glob, uint32_t *at,
	struct demangled *d)
{
	const struct shunt_code_list *l = o->of->code;
	uint32_t func = o->code_index[i];

	while (*at < l->nnames && l->names[*at].func < func)
		++*at;
	return any_name_matches(l, func, at, glob, d);
}

/*
 * The part of a pattern that is for functions' names: 0. 1: it means other objects;
 * -EINVAL, -ENOMEM.
 */
static int names_part(const struct shunt_object *o, const char **glob)
{
	const char *c = colon(*glob);
	int r = shunt_glob_check(*glob);
	bool bad = false;

	if (r)
		return r;
	if (c && !object_matches(o, *glob, (size_t)(c - *glob), &bad))
		return bad ? -ENOMEM : 1;
	*glob = c ? c + 1 : *glob;
	return 0;
}

int shunt_object_glob(const struct shunt_object *o, const char *glob,
	shunt_object_match_fn fn, void *arg)
{
	struct demangled d = {0};
	int r = names_part(o, &glob);
	uint32_t n = 0;
	bool any;

	if (r)
		return r < 0 ? r : 0;
	any = !strcmp(glob, "*");
	for (uint32_t i = 0; i < o->nfuncs && !r; i++)
		if (any || (o->of ? part_matches(o, i, glob, &n, &d)
				  : func_matches(o->strings + o->funcs[i].name, glob, &d)))
			r = fn(o, i, arg);
	free(d.buf);
	return r;
}

int shunt_code_glob(struct shunt_object *o, const char *glob, shunt_code_match_fn fn, void *arg)
{
	const struct shunt_code_list *l;
	struct demangled d = {0};
	int r = names_part(o, &glob);
	uint32_t at = 0;

	if (r)
		return r < 0 ? r : 0;
	r = shunt_code_of(o, &l);
	for (uint32_t i = 0; !r && i < l->nfuncs; i++)
		if (any_name_matches(l, i, &at, glob, &d))
			r = fn(l, &l->funcs[i], arg);
	free(d.buf);
	return r;
}
