/* SPDX-License-Identifier: MIT */
/*
 * part.c - an object's functions that nobody compiled for tracing, as an object of
 * their own (object.h).
 *
 * They come from the list of all functions (code.h); what begins with a site for the
 * tracer is not among them, nor what is not entered by a call. A function without a
 * name is called by its address relative to the object, as in `0x41c30`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "code.h"
#include "object.h"
#include "object_internal.h"

/* Both ascend: `next` is the first site that may still belong to a later function. */
static bool has_site(const struct shunt_object *obj, const struct shunt_code_func *f,
	uint32_t *next)
{
	while (*next < obj->nfuncs && obj->funcs[*next].site < f->start)
		++*next;
	if (*next && obj->funcs[*next - 1].start == f->start)
		return true;
	return *next < obj->nfuncs && obj->funcs[*next].site - f->start < f->size;
}

static bool wanted(const struct shunt_object *obj, const struct shunt_code_func *f, uint32_t *next)
{
	return !(f->flags & (SHUNT_CODE_NO_ENTRY | SHUNT_CODE_IFUNC)) && !has_site(obj, f, next);
}

/* Fills in the indices of those wanted; the bytes that their names take. */
static size_t choose(const struct shunt_object *obj, const struct shunt_code_list *list,
	uint32_t *index, uint32_t *n)
{
	uint32_t next = 0;
	size_t names = 1;
	char buf[32];

	*n = 0;
	for (uint32_t i = 0; i < list->nfuncs; i++) {
		const struct shunt_code_func *f = &list->funcs[i];

		if (!wanted(obj, f, &next))
			continue;
		index[(*n)++] = i;
		names += strlen(shunt_code_name(list, f, buf, sizeof buf)) + 1;
	}
	return names;
}

static void fill(struct shunt_object *part, const struct shunt_code_list *list)
{
	size_t at = 1;
	char buf[32];

	part->strings[0] = 0;
	for (uint32_t i = 0; i < part->nfuncs; i++) {
		const struct shunt_code_func *f = &list->funcs[part->code_index[i]];
		const char *name = shunt_code_name(list, f, buf, sizeof buf);
		size_t len = strlen(name) + 1;

		part->funcs[i] = (struct shunt_func){.site = f->start, .start = f->start,
			.size = f->size, .name = (uint32_t)at, .kind = SHUNT_SITE_DISPLACED};
		memcpy(part->strings + at, name, len);
		at += len;
	}
}

static void part_free(struct shunt_object *part)
{
	if (!part)
		return;
	free((void *)(uintptr_t)part->code_index);
	free(part->funcs);
	free(part->strings);
	free(part);
}

/* All but its place in the list. */
static struct shunt_object *part_make(struct shunt_object *obj, const struct shunt_code_list *list)
{
	struct shunt_object *part = calloc(1, sizeof *part);
	uint32_t *index = malloc((list->nfuncs + 1) * sizeof *index);
	size_t names;

	if (!part || !index) {
		free(index);
		free(part);
		return NULL;
	}
	*part = *obj;
	part->next = part->part = NULL;
	part->trace = NULL;
	part->code = NULL;
	part->of = obj;
	part->missed = part->refused = 0;
	part->code_index = index;
	names = choose(obj, list, index, &part->nfuncs);
	part->funcs = calloc(part->nfuncs + 1, sizeof *part->funcs);
	part->strings = names < UINT32_MAX ? malloc(names) : NULL;
	if (!part->funcs || !part->strings) {
		part_free(part);
		return NULL;
	}
	fill(part, list);
	return part;
}

static int part_add(struct shunt_object *obj)
{
	const struct shunt_code_list *list;
	struct shunt_object *part;
	int r = shunt_code_of(obj, &list);

	if (r)
		return r;
	if (!list->nfuncs)
		return -ENOENT;
	part = part_make(obj, list);
	if (!part)
		return -ENOMEM;
	r = part->nfuncs ? shunt_objects_add_part(part) : -ENOENT;
	if (r)
		part_free(part);
	return r;
}

struct shunt_object *shunt_object_part(struct shunt_object *obj)
{
	int r = 0;

	shunt_objects_lock();
	if (!obj->part)
		r = part_add(obj);
	shunt_objects_unlock();
	if (r)
		errno = -r;
	return obj->part;
}
