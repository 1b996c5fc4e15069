/* SPDX-License-Identifier: MIT */
/* guard.c - calling a callback that may not be left but by returning (guard.h). */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/text_sys.h"
#include "mmu/guard.h"
#include "mmu/mmu_internal.h"

static void say(const char *s)
{
	shunt_sys(SYS_write, 2, s, strlen(s));
}

void shunt_mmu_guard_broken(const char *how)
{
	say("libshunt: a callback of an MMU notifier was left by ");
	say(how);
	say(": its change cannot be ended (see <shunt/mmu.h>)\n");
	abort();
}

/* Runs when the frame is unwound, too: then the callback has not returned. */
static void left(const bool *returned)
{
	if (!*returned)
		shunt_mmu_guard_broken("an exception or the end of its thread");
}

static void close_opened(const int *fd)
{
	if (*fd >= 0)
		shunt_sys(SYS_close, *fd);
}

void shunt_mmu_guard_cancel(void *arg)
{
	const struct shunt_mmu_op *op = arg;
	__attribute__((cleanup(close_opened))) int fd = op->opened;

	pthread_setcanceltype(op->cancel_type, NULL);
	fd = -1;
}

/*
 * A thread that has been cancelled is not to end in a callback that writes or sleeps. In a change that is held back already
 * (tell.c); not where a notifier is released, or asked, or told of one page.
 */
void shunt_mmu_guard(struct shunt_mmu_guarded *g)
{
	__attribute__((cleanup(left))) bool returned = false;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if (g->range_fn)
		g->range_fn(g->notifier, &g->event);
	else if (g->interval_fn)
		g->interval_fn(g->interval, &g->event, g->seq);
	else if (g->release_fn)
		g->release_fn(g->notifier);
	else if (g->page_fn)
		g->page_fn(g->notifier, g->event.start);
	else if (g->young_fn)
		g->young = g->young_fn(g->notifier, g->event.start, g->event.end);
	returned = true;
	pthread_setcancelstate(cancel, NULL);
}
