/* SPDX-License-Identifier: MIT */
/*
 * code_list.c - one list of functions out of all that was said about them, and
 * looking things up in it.
 *
 * What was said is ordered by address and, of one address, from the best name to
 * none. Each address becomes one function; it keeps all its names. Its size is
 * that of its best symbol that has one, else that of its frame, else it
 * goes up to the next function; never beyond its section.
 *
 * Functions may lie within others (assembly does so). `outer` leads from each to
 * the closest one before it that reaches beyond its start, so that a lookup by
 * address is a binary search and, rarely, some steps outwards.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code.h"
#include "elf_code.h"

/* --- order ------------------------------------------------------------------ */

/* By address, 8 bits at a time from the lowest: linear, and stable. */
static int sort_by_addr(struct shunt_elf_code *c)
{
	struct shunt_elf_said *from = c->said, *to, *tmp;
	uint64_t span = c->text_hi - c->text_lo;

	if (!c->nsaid)
		return 0;
	tmp = to = malloc(c->nsaid * sizeof *to);
	if (!tmp)
		return -ENOMEM;
	for (unsigned shift = 0; shift < 64 && span >> shift; shift += 8) {
		size_t at[256] = {0}, sum = 0;
		struct shunt_elf_said *swap = from;

		for (size_t i = 0; i < c->nsaid; i++)
			at[(from[i].addr - c->text_lo) >> shift & 255]++;
		for (size_t i = 0; i < 256; i++) {
			size_t n = at[i];

			at[i] = sum;
			sum += n;
		}
		for (size_t i = 0; i < c->nsaid; i++)
			to[at[(from[i].addr - c->text_lo) >> shift & 255]++] = from[i];
		from = to;
		to = swap;
	}
	if (from == tmp)
		memcpy(c->said, tmp, c->nsaid * sizeof *tmp);
	free(tmp);
	return 0;
}

static size_t underscores(const struct shunt_elf_said *s)
{
	size_t n = 0;

	while (n < s->len && s->name[n] == '_')
		n++;
	return n;
}

/* The public name before the internal one: malloc before __libc_malloc. */
static int by_name(const void *a, const void *b)
{
	const struct shunt_elf_said *x = a, *y = b;
	size_t i, k, n;
	int r;

	/* A resolver's own name before the name of what it chooses. */
	r = !!(x->flags & SHUNT_CODE_IFUNC) - !!(y->flags & SHUNT_CODE_IFUNC);
	if (r && x->name && y->name)
		return r;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (!x->name || !y->name)
		return (x->name == NULL) - (y->name == NULL);
	i = underscores(x);
	k = underscores(y);
	if (i != k)
		return i < k ? -1 : 1;
	n = x->len < y->len ? x->len : y->len;
	r = memcmp(x->name, y->name, n);
	if (!r)
		r = (x->len > y->len) - (x->len < y->len);
	/* Of two tables that have it, .dynsym: it says that the name is exported. */
	return r ? r : !(x->flags & SHUNT_CODE_DYNSYM) - !(y->flags & SHUNT_CODE_DYNSYM);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* --- making it ---------------------------------------------------------------- */

struct maker {
	struct shunt_elf_code *code;
	struct shunt_code_list *list;
	size_t strings, room; /* bytes */
};

static size_t end_of_group(const struct shunt_elf_code *c, size_t i)
{
	size_t k = i + 1;

	while (k < c->nsaid && c->said[k].addr == c->said[i].addr)
		k++;
	return k;
}

static bool same_name(const struct shunt_elf_said *a, const struct shunt_elf_said *b)
{
	return a->name && b->name && a->len == b->len && !memcmp(a->name, b->name, a->len);
}

/* 0: no room, as only a damaged file can make it. */
static uint32_t intern(struct maker *m, const struct shunt_elf_said *s)
{
	size_t at = m->strings;

	if (m->room - at < (size_t)s->len + 1)
		return 0;
	memcpy(m->list->strings + at, s->name, s->len);
	m->list->strings[at + s->len] = 0;
	m->strings += s->len + 1u;
	return (uint32_t)at;
}

static void add_name(struct maker *m, const struct shunt_elf_said *s, struct shunt_code_func *f)
{
	bool exported = s->flags & SHUNT_CODE_DYNSYM && s->rank < SHUNT_CODE_LOCAL;
	bool ifunc = s->flags & SHUNT_CODE_IFUNC;
	struct shunt_code_list *l = m->list;
	uint32_t name = intern(m, s);

	if (!name)
		return;
	l->names[l->nnames++] = (struct shunt_code_name){name, l->nfuncs, 0, s->rank,
		exported, ifunc};
	if (!f->name) {
		f->name = name;
		f->rank = s->rank;
	}
}

static uint32_t clamp_size(const struct shunt_elf_code *c, const struct shunt_elf_said *s,
	uint64_t size)
{
	uint64_t most = shunt_elf_part_of(c, s->addr)->hi - s->addr;

	size = size < most ? size : most;
	return size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
}

/* One function of what was said in first..end about its address. */
static void add_func(struct maker *m, size_t first, size_t end)
{
	struct shunt_elf_code *c = m->code;
	struct shunt_elf_said *s = &c->said[first];
	struct shunt_code_list *l = m->list;
	struct shunt_code_func *f = &l->funcs[l->nfuncs];
	uint64_t size = 0;

	*f = (struct shunt_code_func){.start = l->base + s->addr, .outer = SHUNT_CODE_NONE,
		.rank = SHUNT_CODE_NAMELESS};
	if (end - first > 1)
		qsort(s, end - first, sizeof *s, by_name);
	for (size_t i = first; i < end; i++) {
		f->flags |= c->said[i].flags;
		size = size ? size : c->said[i].size;
		if (c->said[i].name && (i == first || !same_name(&c->said[i], &c->said[i - 1])))
			add_name(m, &c->said[i], f);
	}
	if (!size) {
		f->flags |= SHUNT_CODE_GUESSED;
		size = (end < c->nsaid ? c->said[end].addr : c->text_hi) - s->addr;
	}
	f->size = clamp_size(c, s, size);
	l->nfuncs++;
}

static uintptr_t end_of(const struct shunt_code_func *f)
{
	return f->start + f->size;
}

static void nest(struct shunt_code_list *l)
{
	for (uint32_t i = 1; i < l->nfuncs; i++) {
		struct shunt_code_func *f = &l->funcs[i];
		uint32_t o = i - 1;

		/* Those that end before this one are passed by here, and never again. */
		while (o != SHUNT_CODE_NONE && end_of(&l->funcs[o]) <= f->start)
			o = l->funcs[o].outer;
		f->outer = o;
		if (o != SHUNT_CODE_NONE && !f->name)
			f->flags |= SHUNT_CODE_INNER;
	}
}

static uint32_t hash_of(const char *s)
{
	uint32_t h = 2166136261u;

	while (*s)
		h = (h ^ (uint8_t)*s++) * 16777619u;
	return h ^ h >> 15;
}

/* The slot of the name, or the free one for it. */
static uint32_t *slot_of(const struct shunt_code_list *l, const char *name)
{
	uint32_t at = hash_of(name) & l->hash_mask, i;

	for (; (i = l->hash[at]); at = (at + 1) & l->hash_mask)
		if (!strcmp(l->strings + l->names[i - 1].name, name))
			break;
	return &l->hash[at];
}

/* Those of one name are a chain, not a row of slots: statics may have it by the thousand. */
static int make_hash(struct shunt_code_list *l)
{
	uint32_t n = 16;

	while (n < l->nnames * 2ull)
		n *= 2;
	l->hash = calloc(n, sizeof *l->hash);
	if (!l->hash)
		return -ENOMEM;
	l->hash_mask = n - 1;
	for (uint32_t i = l->nnames; i--;) { /* so that chains ascend */
		uint32_t *slot = slot_of(l, l->strings + l->names[i].name);

		l->names[i].next = *slot;
		*slot = i + 1;
	}
	return 0;
}

static int make_pads(struct shunt_elf_code *c, struct shunt_code_list *l)
{
	if (c->npads)
		qsort(c->pads, c->npads, sizeof *c->pads, by_value);
	l->pads = malloc((c->npads + 1) * sizeof *l->pads);
	if (!l->pads)
		return -ENOMEM;
	for (size_t i = 0; i < c->npads; i++)
		if (!i || c->pads[i] != c->pads[i - 1])
			l->pads[l->npads++] = l->base + c->pads[i];
	return 0;
}

static void *shrink(void *p, size_t size)
{
	void *q = realloc(p, size + 1);

	return q ? q : p;
}

static void account(struct shunt_code_list *l, size_t strings)
{
	l->funcs = shrink(l->funcs, l->nfuncs * sizeof *l->funcs);
	l->names = shrink(l->names, l->nnames * sizeof *l->names);
	l->strings = shrink(l->strings, strings);
	l->pads = shrink(l->pads, l->npads * sizeof *l->pads);
	l->bytes = sizeof *l + l->nfuncs * sizeof *l->funcs + l->nnames * sizeof *l->names
		+ strings + l->npads * sizeof *l->pads + l->nslots * sizeof *l->slots
		+ (l->hash_mask + 1ull) * sizeof *l->hash;
}

static int fill(struct maker *m)
{
	struct shunt_elf_code *c = m->code;
	struct shunt_code_list *l = m->list;

	l->funcs = malloc((c->nsaid + 1) * sizeof *l->funcs);
	l->names = malloc((c->nsaid + 1) * sizeof *l->names);
	l->strings = malloc(m->room);
	if (!l->funcs || !l->names || !l->strings)
		return -ENOMEM;
	l->strings[0] = 0;
	for (size_t i = 0, end; i < c->nsaid; i = end) {
		end = end_of_group(c, i);
		add_func(m, i, end);
	}
	nest(l);
	return make_hash(l);
}

static int make(struct shunt_elf_code *c, struct shunt_code_list *l)
{
	struct maker m = {c, l, 1, 0};
	int r;

	if (c->nsaid >= SHUNT_CODE_NONE || c->strings >= UINT32_MAX)
		return -ENOMEM;
	/* Linkers let one name be the end of another, which takes some room here. */
	m.room = 4 * c->strings + 4096 < UINT32_MAX ? 4 * c->strings + 4096 : UINT32_MAX;
	r = sort_by_addr(c);
	r = r ? r : fill(&m);
	r = r ? r : make_pads(c, l);
	if (r)
		return r;
	l->soname = strdup(c->soname);
	l->slots = malloc((c->nslots + 1) * sizeof *l->slots);
	if (!l->soname || !l->slots)
		return -ENOMEM;
	if (c->nslots)
		memcpy(l->slots, c->slots, c->nslots * sizeof *l->slots);
	l->nslots = (uint32_t)c->nslots;
	l->bad_frames = c->bad_frames;
	l->bad_pads = c->bad_pads;
	account(l, m.strings);
	return 0;
}

int shunt_code_list_make(struct shunt_elf_code *c, uintptr_t base,
	struct shunt_code_list **list)
{
	struct shunt_code_list *l = calloc(1, sizeof *l);
	int r = -ENOMEM;

	if (l) {
		l->base = base;
		r = make(c, l);
	}
	if (r)
		shunt_code_list_free(l);
	else
		*list = l;
	return r;
}

void shunt_code_list_free(struct shunt_code_list *l)
{
	if (!l)
		return;
	free(l->funcs);
	free(l->names);
	free(l->strings);
	free(l->hash);
	free(l->pads);
	free(l->slots);
	free(l->soname);
	free(l->debug);
	free(l);
}

/* --- looking up --------------------------------------------------------------- */

const struct shunt_code_func *shunt_code_in(const struct shunt_code_list *l, uintptr_t addr)
{
	uint32_t lo = 0, hi = l->nfuncs, i;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (l->funcs[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (i = lo ? lo - 1 : SHUNT_CODE_NONE; i != SHUNT_CODE_NONE; i = l->funcs[i].outer)
		if (addr - l->funcs[i].start < l->funcs[i].size)
			return &l->funcs[i];
	return NULL;
}

static uint32_t pads_below(const struct shunt_code_list *l, uintptr_t addr)
{
	uint32_t lo = 0, hi = l->npads;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (l->pads[mid] < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

size_t shunt_code_pads(const struct shunt_code_list *l, uintptr_t lo, uintptr_t hi,
	const uintptr_t **pads)
{
	uint32_t first = pads_below(l, lo), end = pads_below(l, hi);

	*pads = l->pads + first;
	return end > first ? end - first : 0;
}

const char *shunt_code_name(const struct shunt_code_list *l, const struct shunt_code_func *f,
	char *buf, size_t size)
{
	if (f->name)
		return l->strings + f->name;
	snprintf(buf, size, "%#lx", (unsigned long)(f->start - l->base));
	return buf;
}

const struct shunt_code_name *shunt_code_named(const struct shunt_code_list *l,
	const char *name, const struct shunt_code_name *from)
{
	uint32_t i = from ? from->next : *slot_of(l, name);

	return i ? &l->names[i - 1] : NULL;
}
