/* SPDX-License-Identifier: MIT */
/*
 * reader.c - taking pages out, and the account.
 *
 * A page's state is trusted; whoever can map the pool could write anything
 * anyway.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pool.h"

/* --- pages --------------------------------------------------------------------- */

static int by_instance(const void *a, const void *b)
{
	const struct pool_full *x = a, *y = b;

	return x->instance < y->instance ? -1 : x->instance > y->instance;
}

/*
 * All pages that are full now, oldest first. In two looks: a thread may hand
 * over a page just behind the first look and the next one just before it. What
 * the first look saw bounds the second, and whatever a thread handed over
 * before one of those pages is full by then, so no page overtakes another.
 */
static int gather(struct shunt_ring *r)
{
	struct pool_full *s;
	uint64_t last = 0;
	bool any = false;

	for (uint32_t i = 0; i < r->npages; i++) {
		if (__atomic_load_n(&r->descs[i].state, __ATOMIC_ACQUIRE) != PAGE_FULL)
			continue;
		any = true;
		if (r->descs[i].instance > last)
			last = r->descs[i].instance;
	}
	r->nbatch = r->batch_at = 0;
	if (!any)
		return -EAGAIN;
	s = malloc(r->npages * sizeof *s);
	if (!r->batch)
		r->batch = malloc(r->npages * sizeof *r->batch);
	if (!s || !r->batch) {
		free(s);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < r->npages; i++) {
		/* Once: in overwrite mode it may be another by the next look. */
		uint64_t instance = __atomic_load_n(&r->descs[i].instance, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&r->descs[i].state, __ATOMIC_ACQUIRE) == PAGE_FULL &&
			instance <= last)
			s[r->nbatch++] = (struct pool_full){instance, i};
	}
	qsort(s, r->nbatch, sizeof *s, by_instance);
	memcpy(r->batch, s, r->nbatch * sizeof *s);
	free(s);
	return 0;
}

SHUNT_API int shunt_ring_page_next(struct shunt_ring *r, struct shunt_ring_page_ref *ref)
{
	for (;;) {
		uint32_t full = PAGE_FULL, i;
		struct pool_full f;

		if (r->batch_at == r->nbatch) {
			int e = gather(r);

			if (e)
				return e;
			/* All that the first look saw may have been overwritten. */
			if (!r->nbatch)
				return -EAGAIN;
		}
		f = r->batch[r->batch_at++];
		i = f.index;
		/* In overwrite mode a writer may have been faster ... */
		if (!__atomic_compare_exchange_n(&r->descs[i].state, &full, PAGE_READING, false,
			    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			continue;
		/* ... and have filled it again: its turn comes later. */
		if (r->descs[i].instance != f.instance) {
			__atomic_store_n(&r->descs[i].state, PAGE_FULL, __ATOMIC_RELEASE);
			continue;
		}
		ref->page = page_at(r, i);
		ref->index = i;
		return 0;
	}
}

void shunt_ring_page_free(struct shunt_ring *r, uint32_t i)
{
	struct pool_slot *s = &r->slots[r->descs[i].slot % r->nslots];

	/* Only a reader writes it, and there is one. */
	__atomic_store_n(&s->a.read, page_at(r, i)->discarded, __ATOMIC_RELAXED);
	__atomic_store_n(&r->descs[i].state, PAGE_FREE, __ATOMIC_RELEASE);
	__atomic_fetch_add(&r->super->free, 1, __ATOMIC_RELEASE);
}

SHUNT_API void shunt_ring_page_release(struct shunt_ring *r, struct shunt_ring_page_ref *ref)
{
	struct pool_slot *s = &r->slots[r->descs[ref->index].slot % r->nslots];
	uint64_t events, torn;

	shunt_ring_count(ref->page, r->page_size, &events, &torn);
	__atomic_fetch_add(&s->a.torn, torn, __ATOMIC_RELAXED);
	page_at(r, ref->index)->discarded = s->a.read + events;
	__atomic_store_n(&r->descs[ref->index].state, PAGE_READ, __ATOMIC_RELEASE);
	shunt_ring_page_free(r, ref->index);
	ref->page = NULL;
}

static int thread_gone(uint32_t pid, uint32_t tid)
{
	return syscall(SYS_tgkill, pid, tid, 0) < 0 && errno == ESRCH;
}

/* The pages of one slot that only its thread could have handed over. */
static int take_over(struct shunt_ring *r, uint32_t slot)
{
	int n = 0;

	for (uint32_t i = 0; i < r->npages; i++) {
		uint32_t state = __atomic_load_n(&r->descs[i].state, __ATOMIC_ACQUIRE);

		if (r->descs[i].slot != slot)
			continue;
		if (state == PAGE_PINNED)
			__atomic_store_n(&r->descs[i].state, PAGE_FULL, __ATOMIC_RELEASE);
		else if (state == PAGE_OPEN && page_at(r, i)->magic == SHUNT_RING_PAGE_MAGIC &&
			 page_at(r, i)->slot == slot)
			shunt_ring_seal(r, i);
		else
			continue;
		n++;
	}
	return n;
}

/* Pages that a thread took and did not come to fill in before it died. */
static void free_unfinished(struct shunt_ring *r)
{
	for (uint32_t i = 0; i < r->npages; i++) {
		uint32_t state = __atomic_load_n(&r->descs[i].state, __ATOMIC_ACQUIRE);

		if (state != PAGE_OPEN && state != PAGE_TAKEN)
			continue;
		__atomic_store_n(&r->descs[i].state, PAGE_FREE, __ATOMIC_RELEASE);
		__atomic_fetch_add(&r->super->free, 1, __ATOMIC_RELEASE);
	}
}

SHUNT_API int shunt_ring_reap(struct shunt_ring *r, int all)
{
	int n = 0;

	for (uint32_t i = 0; i < r->nslots; i++) {
		struct pool_slot *s = &r->slots[i];
		uint32_t state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);

		if (state == SLOT_FREE || (!all && state != SLOT_LIVE))
			continue;
		if (!all && !thread_gone(s->pid, s->tid))
			continue;
		n += take_over(r, i);
		s->current = 0;
		__atomic_store_n(&s->state, SLOT_ENDED, __ATOMIC_RELEASE);
	}
	if (all)
		free_unfinished(r);
	return n;
}

/* --- account ------------------------------------------------------------------- */

static void add(struct shunt_ring_thread *t, const struct pool_account *a)
{
	t->written += __atomic_load_n(&a->written, __ATOMIC_RELAXED);
	t->discarded += __atomic_load_n(&a->discarded, __ATOMIC_RELAXED);
	t->overwritten += __atomic_load_n(&a->overwritten, __ATOMIC_RELAXED);
	t->read += __atomic_load_n(&a->read, __ATOMIC_RELAXED);
	t->torn += __atomic_load_n(&a->torn, __ATOMIC_RELAXED);
}

SHUNT_API void shunt_ring_account(struct shunt_ring *r, struct shunt_ring_thread *total,
	void (*fn)(const struct shunt_ring_thread *thread, void *arg), void *arg)
{
	memset(total, 0, sizeof *total);
	add(total, &r->super->retired);
	total->discarded += __atomic_load_n(&r->super->homeless, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < r->nslots; i++) {
		const struct pool_slot *s = &r->slots[i];
		uint32_t state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
		struct shunt_ring_thread t = {.slot = i};

		if (state != SLOT_LIVE && state != SLOT_ENDED)
			continue;
		add(&t, &s->a);
		add(total, &s->a);
		t.tag = s->tag;
		t.pid = s->pid;
		t.tid = s->tid;
		memcpy(t.comm, s->comm, sizeof t.comm);
		t.comm[sizeof t.comm - 1] = 0;
		t.live = state == SLOT_LIVE;
		if (fn)
			fn(&t, arg);
	}
}

SHUNT_API uint64_t shunt_ring_held(struct shunt_ring *r)
{
	uint64_t held = 0;

	for (uint32_t i = 0; i < r->npages; i++) {
		uint64_t events, torn;

		uint32_t state = __atomic_load_n(&r->descs[i].state, __ATOMIC_ACQUIRE);

		if (state == PAGE_FREE || state == PAGE_TAKEN ||
			page_at(r, i)->magic != SHUNT_RING_PAGE_MAGIC)
			continue;
		shunt_ring_count(page_at(r, i), r->page_size, &events, &torn);
		held += events;
	}
	return held;
}
