/* SPDX-License-Identifier: MIT */
/* event_hit.c - see event_hit.h. */
#include "event_hit.h"

void shunt_hit(struct shunt_probe *p, struct shunt_regs *regs)
{
	struct shunt_hit *h = p->data;
	void *record;

	__atomic_fetch_add(&h->count, 1, __ATOMIC_RELAXED);
	if (!__atomic_load_n(h->event.recording, __ATOMIC_RELAXED))
		return;
	/* No more of the program's stack than this probe needs: it may be a small one. */
	record = __builtin_alloca(h->fetch.max + 1);
	shunt_event_write(&h->event, record, shunt_fetch_run(&h->fetch, regs, record));
}
