/* SPDX-License-Identifier: MIT */
/*
 * tell.c - calling the callbacks of a change.
 *
 * All signals but the synchronous ones are held back from before the first start until after the last end: no
 * handler of the program's runs in between, so none can jump away from an open pair. So is cancellation. Nothing here
 * allocates or takes a lock of libc's: who makes the change may hold them all.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "mmu/core.h"
#include "mmu/guard.h"
#include "rcu/reader.h"

__thread struct shunt_mmu_frame *shunt_mmu_frames;
__thread struct shunt_mmu_op *shunt_mmu_under_way;
uint32_t shunt_mmu_small;

/* --- who is open ------------------------------------------------------------------ */

static bool open_for(uint32_t *open, const uint32_t *dead)
{
	__atomic_add_fetch(open, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(dead, __ATOMIC_SEQ_CST))
		return true;
	shunt_mmu_lower(open, dead);
	return false;
}

void shunt_mmu_lower(uint32_t *open, const uint32_t *dead)
{
	__atomic_sub_fetch(open, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(dead, __ATOMIC_SEQ_CST))
		shunt_sys(SYS_futex, open, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void shunt_mmu_wait_open(uint32_t *open, uint32_t own)
{
	uint32_t now;

	while ((now = __atomic_load_n(open, __ATOMIC_SEQ_CST)) != own)
		shunt_sys(SYS_futex, open, FUTEX_WAIT_PRIVATE, now, NULL);
}

bool shunt_mmu_sleep_until(uint32_t *at, uint32_t was, uint64_t end)
{
	uint64_t now = shunt_now_ns();
	struct timespec left = {(time_t)((end - now) / 1000000000u), (long)((end - now) % 1000000000u)};

	if (now >= end)
		return false;
	shunt_sys(SYS_futex, at, FUTEX_WAIT_PRIVATE, was, &left);
	return true;
}

uint32_t shunt_mmu_held_by_self(const void *who)
{
	uint32_t n = 0;

	for (struct shunt_mmu_frame *f = shunt_mmu_frames; f; f = f->outer)
		n += f->who == who && f->holds;
	return n;
}

static bool being_called(const void *who)
{
	for (struct shunt_mmu_frame *f = shunt_mmu_frames; f; f = f->outer)
		if (f->who == who)
			return true;
	return false;
}

static void enter(struct shunt_mmu_frame *f, const void *who, bool holds)
{
	f->outer = shunt_mmu_frames;
	f->who = who;
	f->holds = holds;
	f->releases = false;
	shunt_mmu_frames = f;
}

static void leave(struct shunt_mmu_frame *f)
{
	shunt_mmu_frames = f->outer;
}

/* A fork in a callback: what goes on in the child has nobody to tell. */
static bool is_child(const struct shunt_mmu_op *op)
{
	return __atomic_load_n(&shunt_mmu_page->owner, __ATOMIC_ACQUIRE) != op->owner;
}

/* --- members ---------------------------------------------------------------------- */

static struct shunt_mmu_member *first_member(void)
{
	return __atomic_load_n(&shunt_mmu_members, __ATOMIC_ACQUIRE);
}

static struct shunt_mmu_member *next_member(const struct shunt_mmu_member *m)
{
	return __atomic_load_n(&m->next, __ATOMIC_ACQUIRE);
}

static bool has(const uint64_t *set, uint32_t slot)
{
	return set[slot / 64] >> slot % 64 & 1;
}

static bool wants(const struct shunt_mmu_member *m, const struct shunt_mmu_op *op)
{
	for (uint32_t i = 0; i < op->n; i++)
		if (m->kinds >> op->range[i].kind & 1)
			return true;
	return false;
}

static void make_event(struct shunt_mmu_event *e, const struct shunt_mmu_range *r, uint32_t flags)
{
	e->start = r->start;
	e->end = r->end;
	e->new_start = r->new_start;
	e->kind = r->kind;
	e->flags = flags;
}

typedef void call_fn(struct shunt_mmu_notifier *, const struct shunt_mmu_event *);

/* A callback may begin, unless it was unregistered inside of a change. */
static bool may_begin(struct shunt_mmu_member *m)
{
	return open_for(&m->running, &m->cut);
}

static void ended(struct shunt_mmu_member *m)
{
	shunt_mmu_lower(&m->running, &m->cut);
}

/* All ranges of a call, one after the other, until a callback unregisters it. */
static void call_ranges(struct shunt_mmu_member *m, const struct shunt_mmu_op *op, call_fn *fn,
	uint32_t flags)
{
	for (uint32_t i = 0; i < op->n && !__atomic_load_n(&m->cut, __ATOMIC_SEQ_CST); i++) {
		struct shunt_mmu_guarded g = {.range_fn = fn, .notifier = m->user};

		make_event(&g.event, &op->range[i], flags);
		if (m->kinds >> op->range[i].kind & 1)
			shunt_mmu_guard(&g);
	}
}

static void call(struct shunt_mmu_member *m, const struct shunt_mmu_op *op, call_fn *fn, uint32_t flags)
{
	struct shunt_mmu_frame f;

	if (!fn || !may_begin(m))
		return;
	enter(&f, m, true);
	call_ranges(m, op, fn, flags);
	leave(&f);
	ended(m);
}

static bool handed_over(const struct shunt_mmu_op *op, bool direct)
{
	return (op->context & SHUNT_MMU_IN_LIBC) && !direct;
}

/* Calls start of those who are told at once; those who are not, into `others`. */
static bool start_members(struct shunt_mmu_op *op, uint64_t *others)
{
	bool any = false;

	op->limit = __atomic_load_n(&shunt_mmu_last, __ATOMIC_ACQUIRE);
	for (struct shunt_mmu_member *m = first_member(); m && m->number <= op->limit; m = next_member(m)) {
		if (!wants(m, op) || being_called(m) || !open_for(&m->open, &m->dead))
			continue;
		if (handed_over(op, m->direct)) {
			others[m->slot / 64] |= 1ull << m->slot % 64;
			any = true;
			continue;
		}
		op->started[m->slot / 64] |= 1ull << m->slot % 64;
		call(m, op, m->ops->invalidate_range_start, op->flags);
		if (is_child(op))
			break;
	}
	return any;
}

static void end_members(struct shunt_mmu_op *op)
{
	for (struct shunt_mmu_member *m = first_member(), *next; m && m->number <= op->limit; m = next) {
		next = next_member(m);
		if (!has(op->started, m->slot))
			continue;
		call(m, op, m->ops->invalidate_range_end, op->flags);
		if (is_child(op))
			break;
		op->started[m->slot / 64] &= ~(1ull << m->slot % 64);
		shunt_mmu_lower(&m->open, &m->dead);
	}
}

/* --- intervals --------------------------------------------------------------------- */

static void invalidate(struct shunt_mmu_node *n, const struct shunt_mmu_range *r, uint32_t flags)
{
	struct shunt_mmu_guarded g = {.interval_fn = n->ops->invalidate, .interval = n->user};
	struct shunt_mmu_frame f;

	if (being_called(n) || !open_for(&n->running, &n->dead))
		return;
	make_event(&g.event, r, flags);
	g.seq = __atomic_load_n(&n->seq, __ATOMIC_RELAXED);
	enter(&f, n, true);
	shunt_mmu_guard(&g);
	leave(&f);
	shunt_mmu_lower(&n->running, &n->dead);
}

/*
 * Each interval that overlaps has its sequence raised before its callback, also where that is
 * handed over: so whoever looks something up waits from now on.
 */
static bool start_intervals_of(struct shunt_mmu_op *op, const struct shunt_mmu_range *r, bool handed)
{
	struct shunt_mmu_node *n = NULL;
	uintptr_t start = 0;
	uint64_t number = 0;
	bool others = false;

	while (!is_child(op) && (n = shunt_mmu_tree_next(r->start, r->end, start, number))) {
		start = n->start;
		number = n->number;
		if (!(n->kinds >> r->kind & 1))
			continue;
		if (!handed) {
			if (!op->counted)
				shunt_mmu_active_raise();
			op->counted = true;
			__atomic_store_n(&n->seq, shunt_mmu_seq, __ATOMIC_SEQ_CST);
		}
		if (!handed && handed_over(op, n->direct))
			others = true;
		else if (!handed || !n->direct)
			invalidate(n, r, op->flags);
	}
	return others;
}

static bool start_intervals(struct shunt_mmu_op *op, bool handed)
{
	bool others = false;

	for (uint32_t i = 0; i < op->n; i++)
		others |= start_intervals_of(op, &op->range[i], handed);
	return others;
}

/* --- a change ----------------------------------------------------------------------- */

/*
 * A callback that was left by a jump leaves its frame behind, below where we are now. One that really runs, and
 * made this change, is above; or in the parent of a child that shares our memory, and stands on another stack.
 */
static void look_abandoned(void)
{
	uintptr_t frame = (uintptr_t)shunt_mmu_frames, here = (uintptr_t)__builtin_frame_address(0);

	if (frame && frame < here && here - frame < 1u << 20 && !shunt_on_altstack(here) &&
		shunt_mmu_is_owner())
		shunt_mmu_guard_broken("longjmp");
}

static uint32_t flags_of(const struct shunt_mmu_op *op)
{
	uint32_t flags = op->context & SHUNT_MMU_MADE ? SHUNT_MMU_LATE : 0;

	/* Asked only now: where nobody is concerned it costs nothing. */
	if (!(op->context & SHUNT_MMU_IN_LIBC) && shunt_sys(SYS_getpid) == op->owner)
		flags |= SHUNT_MMU_BLOCK;
	if (shunt_mmu_frames)
		flags |= SHUNT_MMU_NESTED;
	return flags;
}

static void push(struct shunt_mmu_op *op)
{
	look_abandoned();
	op->outer = shunt_mmu_under_way;
	shunt_mmu_under_way = op;
}

static void pop(struct shunt_mmu_op *op)
{
	shunt_mmu_under_way = op->outer;
}

/*
 * In open() and the like libc makes the type asynchronous, and a program may have done so. Then libc's signal for it may
 * have been sent and be held back, with the thread marked as one that is being cancelled: each cancellation point that
 * a callback comes through would wait for that signal, for ever. Not with the type as it is. So it stays, but
 * for this moment, in which the signal is let in: it ends nobody now.
 */
static void cancel_hold(struct shunt_mmu_op *op)
{
	uint64_t signal = 1ull << (SHUNT_MMU_SIGCANCEL - 1);

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &op->cancel_state);
	pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &op->cancel_type);
	if (op->cancel_type == PTHREAD_CANCEL_DEFERRED)
		return;
	if (!(op->mask & signal)) {
		shunt_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &signal, NULL, 8);
		shunt_sys(SYS_rt_sigprocmask, SIG_BLOCK, &signal, NULL, 8);
	}
	pthread_setcanceltype(op->cancel_type, NULL);
}

/*
 * With the type asynchronous to let cancellation in again is to leave at once. With the type deferred it is not. The
 * type is given back at the very end (op.c).
 */
void shunt_mmu_cancel_unhold(void *arg)
{
	struct shunt_mmu_op *op = arg;

	pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &op->cancel_type);
	pthread_setcancelstate(op->cancel_state, NULL);
}

void shunt_mmu_tell_start(void *arg)
{
	struct shunt_mmu_op *op = arg;
	uint64_t others[SHUNT_MMU_NOTIFIERS / 64] = {0};
	bool hand;
	int err = errno;

	if (!(op->context & SHUNT_MMU_HELD))
		op->mask = shunt_mmu_hold();
	cancel_hold(op);
	memset(op->started, 0, sizeof op->started);
	op->task = NULL;
	op->counted = false;
	op->flags = flags_of(op);
	push(op);
	hand = start_members(op, others);
	if (!is_child(op))
		hand |= start_intervals(op, false);
	if (hand)
		shunt_mmu_hand_start(op, others);
	if (op->context & SHUNT_MMU_NO_HOLD) {
		shunt_mmu_cancel_unhold(op);
		shunt_mmu_unhold(op->mask);
	}
	errno = err;
}

void shunt_mmu_tell_end(void *arg)
{
	struct shunt_mmu_op *op = arg;
	int err = errno;

	if (op->context & SHUNT_MMU_NO_HOLD) {
		op->mask = shunt_mmu_hold();
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		pthread_setcanceltype(op->cancel_type, NULL);
	}
	if (!is_child(op)) {
		end_members(op);
		if (op->task)
			shunt_mmu_hand_end(op);
		if (op->counted)
			shunt_mmu_active_lower();
	}
	pop(op);
	shunt_mmu_cancel_unhold(op);
	errno = err;
}

/* --- what was handed over ------------------------------------------------------------ */

void shunt_mmu_tell_handed_start(struct shunt_mmu_op *op)
{
	int section = shunt_srcu_read_lock(shunt_mmu_ops);

	push(op);
	for (struct shunt_mmu_member *m = first_member(); m && m->number <= op->limit; m = next_member(m))
		if (has(op->started, m->slot))
			call(m, op, m->ops->invalidate_range_start, op->flags);
	start_intervals(op, true);
	pop(op);
	shunt_srcu_read_unlock(shunt_mmu_ops, section);
}

void shunt_mmu_tell_handed_end(struct shunt_mmu_op *op)
{
	int section = shunt_srcu_read_lock(shunt_mmu_ops);

	push(op);
	end_members(op);
	pop(op);
	shunt_srcu_read_unlock(shunt_mmu_ops, section);
}

/* --- what is not a range of a call ----------------------------------------------------- */

static bool releasing(const struct shunt_mmu_member *m)
{
	for (struct shunt_mmu_frame *f = shunt_mmu_frames; f; f = f->outer)
		if (f->who == m && f->releases)
			return true;
	return false;
}

static void mark_dead(struct shunt_mmu_member *m)
{
	__atomic_store_n(&m->dead, 1, __ATOMIC_SEQ_CST);
	shunt_sys(SYS_futex, &m->dead, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static void call_release(struct shunt_mmu_member *m)
{
	struct shunt_mmu_guarded g = {.release_fn = m->ops->release, .notifier = m->user};

	if (g.release_fn)
		shunt_mmu_guard(&g);
}

/* Whether it was the caller who did it. */
static bool release_first(struct shunt_mmu_member *m)
{
	struct shunt_mmu_frame f;
	bool first;

	/* The frame before the mark: a handler that exits here must not wait for the thread that it interrupted. */
	enter(&f, m, false);
	f.releases = true;
	first = !__atomic_exchange_n(&m->released, 1, __ATOMIC_SEQ_CST);
	if (first) {
		call_release(m);
		mark_dead(m);
	}
	leave(&f);
	return first;
}

/* Marked dead behind it: until it has dropped its translations it must be told what becomes of them. */
void shunt_mmu_release(struct shunt_mmu_member *m)
{
	if (release_first(m))
		return;
	if (releasing(m)) {
		mark_dead(m);
	} else {
		while (!__atomic_load_n(&m->dead, __ATOMIC_SEQ_CST))
			shunt_sys(SYS_futex, &m->dead, FUTEX_WAIT_PRIVATE, 0, NULL);
	}
}

static void exit_interval(struct shunt_mmu_node *n)
{
	struct shunt_mmu_range r = {n->start, n->end, 0, SHUNT_MMU_EXIT};

	if (n->kinds >> SHUNT_MMU_EXIT & 1)
		invalidate(n, &r, SHUNT_MMU_BLOCK);
}

/*
 * Other threads go on until the process has gone: what they change still is told to those whose
 * turn has not come.
 */
static void exiting(void *unused)
{
	struct shunt_mmu_node *n;
	uintptr_t start = 0;
	uint64_t number = 0;

	(void)unused;
	for (struct shunt_mmu_member *m = first_member(); m; m = next_member(m)) {
		shunt_mmu_release(m);
	}
	while ((n = shunt_mmu_tree_next(0, UINTPTR_MAX, start, number))) {
		start = n->start;
		number = n->number;
		exit_interval(n);
	}
}

#define EXIT_WAIT_NS 1000000000u

static int32_t exited;	       /* the process that has begun to exit */
static int32_t exiting_thread; /* of it */
static uint32_t releases_done; /* futex: the process that has released all */

/* Another thread is at it. It may need what we hold: no longer than a second. */
static void wait_released(int32_t self)
{
	uint64_t end = shunt_now_ns() + EXIT_WAIT_NS;
	uint32_t done;

	if (__atomic_load_n(&exiting_thread, __ATOMIC_SEQ_CST) == shunt_sys(SYS_gettid) || shunt_mmu_inside())
		return;
	while ((done = __atomic_load_n(&releases_done, __ATOMIC_SEQ_CST)) != (uint32_t)self &&
		shunt_mmu_sleep_until(&releases_done, done, end))
		;
}

void shunt_mmu_exiting(void)
{
	int32_t self = shunt_mmu_page->owner;
	int section;

	if (!__atomic_load_n(&shunt_mmu_page->armed, __ATOMIC_ACQUIRE))
		return;
	if (__atomic_exchange_n(&exited, self, __ATOMIC_SEQ_CST) == self) {
		wait_released(self);
		return;
	}
	__atomic_store_n(&exiting_thread, (int32_t)shunt_sys(SYS_gettid), __ATOMIC_SEQ_CST);
	section = shunt_srcu_read_lock(shunt_mmu_ops);
	shunt_arch_mmu_call(exiting, NULL);
	shunt_srcu_read_unlock(shunt_mmu_ops, section);
	__atomic_store_n(&releases_done, (uint32_t)self, __ATOMIC_SEQ_CST);
	shunt_sys(SYS_futex, &releases_done, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void shunt_mmu_tell_late(const struct shunt_mmu_range *r)
{
	struct shunt_mmu_op op = {.range = {*r}, .n = 1, .context = SHUNT_MMU_MADE};

	if (shunt_mmu_op_begin(&op))
		shunt_mmu_op_end(&op, 0);
}

/* --- one page -------------------------------------------------------------------------- */

static void page_changed(struct shunt_mmu_member *m, const struct shunt_mmu_event *e)
{
	struct shunt_mmu_guarded g = {.notifier = m->user, .event = *e};
	struct shunt_mmu_frame f;

	if (!(m->kinds >> e->kind & 1) || being_called(m) || !open_for(&m->open, &m->dead))
		return;
	if (!may_begin(m)) {
		shunt_mmu_lower(&m->open, &m->dead);
		return;
	}
	enter(&f, m, true);
	if (m->ops->invalidate_page) {
		g.page_fn = m->ops->invalidate_page;
		shunt_mmu_guard(&g);
	} else {
		g.range_fn = m->ops->invalidate_range_start;
		shunt_mmu_guard(&g);
		g.range_fn = m->ops->invalidate_range_end;
		if (g.range_fn && !__atomic_load_n(&m->cut, __ATOMIC_SEQ_CST))
			shunt_mmu_guard(&g);
	}
	leave(&f);
	ended(m);
	shunt_mmu_lower(&m->open, &m->dead);
}

static void tell_page(struct shunt_mmu_op *op)
{
	struct shunt_mmu_event e;

	make_event(&e, &op->range[0], flags_of(op) & ~SHUNT_MMU_BLOCK);
	op->limit = __atomic_load_n(&shunt_mmu_last, __ATOMIC_ACQUIRE);
	for (struct shunt_mmu_member *m = first_member(); m && m->number <= op->limit; m = next_member(m))
		page_changed(m, &e);
	op->flags = e.flags;
	start_intervals(op, false);
	if (op->counted)
		shunt_mmu_active_lower();
}

SHUNT_API int shunt_mmu_invalidate_page(uintptr_t page)
{
	struct shunt_mmu_op op = {.range = {{page, page + 4096, 0, SHUNT_MMU_UNMAP}}, .n = 1,
		.owner = shunt_mmu_page->owner, .domain = shunt_mmu_ops};
	uint64_t mask;
	int section, err = errno;

	if (page % 4096 || page + 4096 < page)
		return -EINVAL;
	if (!__atomic_load_n(&shunt_mmu_page->armed, __ATOMIC_ACQUIRE))
		return 0;
	mask = shunt_mmu_hold();
	section = shunt_srcu_read_lock(op.domain);
	push(&op);
	tell_page(&op);
	pop(&op);
	shunt_srcu_read_unlock(op.domain, section);
	shunt_mmu_unhold(mask);
	errno = err;
	return 0;
}

/* --- ageing ---------------------------------------------------------------------------- */

struct young {
	uintptr_t start, end;
	bool yes;
};

static void ask_young(void *arg)
{
	struct young *y = arg;

	for (struct shunt_mmu_member *m = first_member(); m; m = next_member(m)) {
		struct shunt_mmu_guarded g = {.young_fn = m->ops->clear_flush_young, .notifier = m->user,
			.event = {.start = y->start, .end = y->end}};
		struct shunt_mmu_frame f;

		if (!g.young_fn || being_called(m) || !open_for(&m->open, &m->dead))
			continue;
		if (may_begin(m)) {
			enter(&f, m, true);
			shunt_mmu_guard(&g);
			leave(&f);
			ended(m);
			y->yes |= g.young != 0;
		}
		shunt_mmu_lower(&m->open, &m->dead);
	}
}

bool shunt_mmu_ask_young(uintptr_t start, uintptr_t end)
{
	struct young y = {start, end, false};
	int section;

	if (!__atomic_load_n(&shunt_mmu_page->armed, __ATOMIC_ACQUIRE))
		return false;
	section = shunt_srcu_read_lock(shunt_mmu_ops);
	ask_young(&y);
	shunt_srcu_read_unlock(shunt_mmu_ops, section);
	return y.yes;
}
