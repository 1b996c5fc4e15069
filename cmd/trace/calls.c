/* SPDX-License-Identifier: MIT */
/* calls.c - from entries and exits to calls (the rules are in trace.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

#define DEPTH_MAX (1u << 20)

static int push(struct trace_calls *c, const struct trace_event *e)
{
	struct trace_frame *f;

	if (c->n == DEPTH_MAX)
		return 0; /* garbage: nobody's stack is that deep */
	if (c->n == c->room) {
		size_t room = c->room ? c->room * 2 : 256;

		f = realloc(c->frames, room * sizeof *f);
		if (!f)
			return -ENOMEM;
		c->frames = f;
		c->room = room;
	}
	f = &c->frames[c->n++];
	*f = (struct trace_frame){.ts = e->ts, .id = e->id, .hash = e->hash};
	if (c->enter)
		c->enter(c, f, c->n - 1);
	return 0;
}

static void to_limbo(struct trace_calls *c, const struct trace_frame *f, uint64_t ts)
{
	if (c->nlimbo == 256) {
		memmove(c->limbo, c->limbo + 128, 128 * sizeof *c->limbo);
		memmove(c->limbo_left, c->limbo_left + 128, 128 * sizeof *c->limbo_left);
		c->nlimbo = 128;
	}
	c->limbo[c->nlimbo] = *f;
	c->limbo_left[c->nlimbo++] = ts;
}

static void pop(struct trace_calls *c, uint64_t ts, enum trace_how how)
{
	struct trace_frame *f = &c->frames[--c->n];

	if (c->leave)
		c->leave(c, f, c->n, ts, how);
	if (c->n)
		c->frames[c->n - 1].inside += ts - f->ts;
	if (how == TRACE_LEFT)
		to_limbo(c, f, ts);
}

static size_t find(const struct trace_calls *c, const struct trace_event *e)
{
	size_t look = c->n < 4096 ? c->n : 4096;

	for (size_t k = 1; k <= look; k++)
		if (c->frames[c->n - k].id == e->id && c->frames[c->n - k].hash == e->hash)
			return k;
	return 0;
}

static bool from_limbo(struct trace_calls *c, const struct trace_event *e)
{
	for (unsigned i = c->nlimbo; i-- > 0;) {
		if (c->limbo[i].id != e->id || c->limbo[i].hash != e->hash)
			continue;
		if (c->late)
			c->late(c, &c->limbo[i], c->limbo_left[i], e->ts);
		c->nlimbo--;
		memmove(c->limbo + i, c->limbo + i + 1, (c->nlimbo - i) * sizeof *c->limbo);
		memmove(c->limbo_left + i, c->limbo_left + i + 1,
			(c->nlimbo - i) * sizeof *c->limbo_left);
		return true;
	}
	return false;
}

int trace_calls_event(struct trace_calls *c, const struct trace_event *e)
{
	size_t k;

	c->last = e->ts;
	if (!e->exit)
		return push(c, e);
	k = find(c, e);
	if (!k) {
		c->orphans += !from_limbo(c, e);
		return 0;
	}
	while (--k)
		pop(c, e->ts, TRACE_LEFT);
	pop(c, e->ts, TRACE_RETURNED);
	return 0;
}

void trace_calls_end(struct trace_calls *c)
{
	while (c->n)
		pop(c, c->last, TRACE_UNFINISHED);
	free(c->frames);
	c->frames = NULL;
	c->room = 0;
}
