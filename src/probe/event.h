/* SPDX-License-Identifier: MIT */
/*
 * event.h - tracepoints made at run time: what a probe's events are called and made of. All
 * that is true of a tracepoint (trace/point.h) is true of them: patterns and filters switch
 * them, a number stands for them in the ring, the trace describes them.
 */
#ifndef SHUNT_PROBE_EVENT_H
#define SHUNT_PROBE_EVENT_H

#include "fetch.h"

struct shunt_point;

struct shunt_event {
	struct shunt_point *point;
	const uint32_t *recording; /* whether anybody asks */
};

/*
 * Makes probe:NAME, which writes into the recorder's ring: as the rules say that there are
 * for such a name, else all of its events. Described in the trace when it returns. Any
 * thread, no signal handlers; takes the lock of src/site. 0; -ENOMEM, or what
 * shunt_trace_enable() says, with a sentence in `why`.
 */
int shunt_event_make(struct shunt_event *e, const char *name, const char *object,
	const struct shunt_fetch *f, char *why, size_t why_size);

/*
 * Writes one, if it passes. In the place of any instruction: general registers only, the others
 * are saved where a filter has to be asked. Any context.
 */
void shunt_event_write(const struct shunt_event *e, const void *data, size_t len);

/* Nobody writes it any more. As shunt_event_make(). */
void shunt_event_free(struct shunt_event *e);

#endif
