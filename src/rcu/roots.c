/* SPDX-License-Identifier: MIT */
/*
 * roots.c - coroutines: stacks that no thread may be running on.
 *
 * A context may move from a thread that is yet to be looked at to one that has been. So
 * each context that there is at the beginning of a look has to be seen once on its own
 * account: while it stands still, its stack is read; or while a thread that is being
 * looked at runs on it. Who was seen outside stays outside, on whatever thread.
 */
#include <errno.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "rcu/roots.h"

/* How often a context may be found running before all threads are looked at again. */
#define PATIENCE 4

struct shunt_context {
	uintptr_t lo, hi;
	bool seen, there;
};

static struct shunt_rcu_roots *roots; /* under the look's lock */

int shunt_rcu_tasks_roots_add(struct shunt_rcu_roots *r)
{
	if (!r->each)
		return -EINVAL;
	shunt_look_lock();
	r->next = roots;
	roots = r;
	shunt_look_unlock();
	return 0;
}

int shunt_rcu_tasks_roots_remove(struct shunt_rcu_roots *r)
{
	struct shunt_rcu_roots **at = &roots;
	int found = -ENOENT;

	shunt_look_lock();
	while (*at && *at != r)
		at = &(*at)->next;
	if (*at) {
		*at = r->next;
		found = 0;
	}
	shunt_look_unlock();
	return found;
}

static int add(struct shunt_look *l, uintptr_t lo, uintptr_t hi)
{
	if (l->ncontexts == l->context_room) {
		size_t room = l->context_room ? l->context_room * 2 : 256;
		size_t size = sizeof *l->context;
		long p = l->context_room
				 ? shunt_sys(SYS_mremap, l->context, l->context_room * size,
					   room * size, MREMAP_MAYMOVE)
				 : shunt_sys(SYS_mmap, 0, room * size, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (shunt_sys_failed(p))
			return (int)p;
		l->context = (struct shunt_context *)p;
		l->context_room = room;
	}
	l->context[l->ncontexts++] = (struct shunt_context){lo, hi, false, true};
	return 0;
}

static struct shunt_context *find(struct shunt_look *l, uintptr_t lo, uintptr_t hi)
{
	for (size_t i = 0; i < l->ncontexts; i++)
		if (l->context[i].lo == lo && l->context[i].hi == hi)
			return &l->context[i];
	return NULL;
}

struct visit {
	struct shunt_look *l;
	int err;
};

static void visit(void *arg, uintptr_t lo, uintptr_t hi, uintptr_t sp)
{
	struct visit *v = arg;
	struct shunt_look *l = v->l;
	struct shunt_context *c = find(l, lo, hi);

	/* One that has come since the beginning began outside. */
	if (v->err || (!c && l->contexts_known))
		return;
	if (!c) {
		v->err = add(l, lo, hi);
		if (v->err)
			return;
		c = &l->context[l->ncontexts - 1];
	}
	c->there = true;
	if (!c->seen && sp)
		c->seen = !shunt_look_context(l, sp, hi);
}

int shunt_roots_look(struct shunt_look *l)
{
	struct visit v = {.l = l};
	size_t unseen = 0;

	if (!roots)
		return 0;
	for (size_t i = 0; i < l->ncontexts; i++)
		l->context[i].there = false;
	for (struct shunt_rcu_roots *r = roots; r && !v.err; r = r->next)
		r->each(r, visit, &v);
	l->contexts_known = !v.err;
	for (size_t i = 0; i < l->ncontexts; i++)
		unseen += l->context[i].there && !l->context[i].seen;
	if (unseen && ++l->context_rounds % PATIENCE == 0)
		shunt_look_again(l);
	return v.err ? v.err : unseen ? -EAGAIN : 0;
}

void shunt_roots_on(struct shunt_look *l, uintptr_t sp)
{
	for (size_t i = 0; i < l->ncontexts; i++)
		if (sp >= l->context[i].lo && sp <= l->context[i].hi)
			l->context[i].seen = true;
}

void shunt_roots_end(struct shunt_look *l)
{
	if (l->context)
		shunt_sys(SYS_munmap, l->context, l->context_room * sizeof *l->context);
	l->context = NULL;
}
