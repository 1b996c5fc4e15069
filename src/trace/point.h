/* SPDX-License-Identifier: MIT */
/*
 * point.h - which tracepoints there are, and which of them write into a ring. Called with
 * the lock of src/site held, except where said.
 */
#ifndef SHUNT_TRACE_POINT_H
#define SHUNT_TRACE_POINT_H

#include <shunt/trace.h>

/* site.c: an object's definitions come, and go. Those that come get what the rules say. */
void shunt_points_add(const struct shunt_def *defs, const struct shunt_def *end, const char *object);
void shunt_points_remove(const struct shunt_def *defs, const struct shunt_def *end);

/* Calls fn for each, until it does not return 0. */
int shunt_points_each(int (*fn)(const struct shunt_point *p, void *arg), void *arg);

/*
 * What the recorder's points write into; NULL: nowhere. In a fork child: the child's. No
 * lock held.
 */
void shunt_points_ring(struct shunt_ring *ring);
/* That ring. Any context. */
struct shunt_ring *shunt_points_recorder(void);

/* shunt_trace_enable() and shunt_trace_disable(). No lock held. */
int shunt_points_switch(const char *glob, const char *filter, struct shunt_ring *ring, bool on);

/*
 * `export` is called when there is something to export, with no lock of ours held;
 * `complain` with a sentence, when a new object's tracepoint cannot be switched on.
 */
void shunt_points_hooks(void (*export)(void), void (*complain)(const char *sentence));
/* site.c: after an object was added. No lock held. */
void shunt_points_told(void);

/* The filter that it was switched on with, "" if none. */
const char *shunt_points_filter(const struct shunt_point *p);

#endif
