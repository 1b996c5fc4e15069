/* SPDX-License-Identifier: MIT */
/* event_hit.h - what a named probe does when the program comes by. */
#ifndef SHUNT_PROBE_EVENT_HIT_H
#define SHUNT_PROBE_EVENT_HIT_H

#include <shunt/probe.h>

#include "event.h"

/* A probe's data. Does not change while the probe is registered, but for the count. */
struct shunt_hit {
	uint64_t count;
	struct shunt_event event;
	struct shunt_fetch fetch;
};

/* Counts, and records the event. Any context; p->data is a struct shunt_hit. */
void shunt_hit(struct shunt_probe *p, struct shunt_regs *regs);

#endif
