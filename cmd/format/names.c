/* SPDX-License-Identifier: MIT */
/* names.c - what the formats share. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

int names_init(struct names *n, struct trace *t)
{
	n->t = t;
	n->object = calloc(t->nobjects + 1, sizeof *n->object);
	return n->object ? 0 : -ENOMEM;
}

const char *names_get(struct names *n, uint32_t image, uint32_t id)
{
	const struct trace_object *o;
	const struct trace_function *f = trace_function(n->t, image, id, &o);
	char buf[4096], **place;
	size_t k;

	if (!f)
		return "(no list of functions)";
	k = (size_t)(o - n->t->objects);
	if (!n->object[k])
		n->object[k] = calloc(o->n, sizeof **n->object);
	if (!n->object[k])
		return "?";
	place = &n->object[k][f - o->functions];
	if (!*place)
		*place = strdup(trace_name(n->t, image, id, buf, sizeof buf));
	return *place ? *place : "?";
}

void names_free(struct names *n)
{
	for (size_t k = 0; n->object && k < n->t->nobjects; k++) {
		for (uint32_t i = 0; n->object[k] && i < n->t->objects[k].n; i++)
			free(n->object[k][i]);
		free(n->object[k]);
	}
	free(n->object);
	n->object = NULL;
}
