/* SPDX-License-Identifier: MIT */
/*
 * srcu.c - sleepable RCU (srcu.h): who waits, and who calls back.
 *
 * Invariant. For each domain and phase (0 or 1) there are two sums over all threads: of sections
 * entered (L) and left (U). Each is made of parts that only grow, one for each thread. A
 * section belongs to the phase that it found when it was entered, and adds to the sums of that
 * phase on whatever threads it begins and ends.
 *
 *	reader:	    p = phase; L[p]++;	(compiler barrier)  use  (compiler barrier)  U[p]++
 *	who waits:  unpublish
 *		    u[p] = sum of U[p], for both phases			(1)
 *		    membarrier						(2)
 *		    l[p] = sum of L[p]					(3)
 *		    where u == l, that phase's sections are over: done if both
 *		    else wait, looking at u and then l again, for the phase that is not
 *		    in use; change the phase; wait for the other one	(4)
 *
 * Why it holds. Take a section, and the point at which (2) makes its thread do a full barrier.
 *
 * - If L++ comes behind that point, so does all that the section reads: it sees what was
 *   unpublished before. It need not be waited for.
 * - If L++ comes before it, L++ is seen by (3), whatever the processor did with its store; and by
 *   each later l. Such sections are waited for: u is taken before l, so whoever's end is in u has
 *   its beginning in l (below), so u <= l always, and u == l only if of each section in
 *   l the end is in u, too.
 * - Whose end is in u has its beginning in l: a thread's stores are seen in their order (x86-64
 *   manuals: stores are not reordered with stores, and loads not with loads), and the thread that
 *   ends another's section has been told of it by a store behind L++. On a machine where
 *   this is not so, each look of (4) needs a membarrier between u and l, as (2) is.
 * - What a section read and wrote comes before its U++, for the same reason (stores are not
 *   reordered with earlier loads or stores). So who has seen U++ may free.
 *
 * Phases are for who waits to have an end: if new sections came into the sums that are looked at, u
 * would never be l. A reader may take the phase, be preempted, and count later, in a phase that
 * is not in use: the one that the next change would bring into use; so it is looked
 * at before. Such a reader is not waited for (its L++ is behind (2)) or is (before it), as any
 * other: that the same one is not in both phases' looks is no matter.
 * models/srcu.pml has it with store buffers.
 *
 * Grace periods. `seq` is even while there is none and is raised by one at the beginning, before
 * (1), and by one at the end. So who has stored, and then, behind a fence, read an even seq, is
 * served when it is two more; an odd one, three more: the one under way may be past (2).
 * They are taken forward by whoever needs one, in small steps, one at a time (`driver`); so
 * a thread that is stopped while waiting stops nobody, and the library's thread serves all domains
 * in turn. Nothing but that flag has to be repaired in a fork child: a grace period that was under
 * way begins again, since the flag is of an older generation.
 *
 * Callbacks: `incoming` until no other is waiting, then they are all `waiting` for `due`. `armed`: in
 * the list of the library's thread, which alone takes domains off it. One lock for all
 * that, held for some stores: fork() takes it, so that a child finds lists that can be used.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shunt/srcu.h>

#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/hold.h"
#include "base/log.h"
#include "base/worker.h"
#include "reader.h"

#define STALL_NS      10000000000u
#define MOST_PAUSE_NS 2000000u

_Static_assert(SHUNT_SRCU_DOMAINS <= SHUNT_INDEXES - SHUNT_INDEX_USERS, "documented");
_Static_assert(offsetof(struct shunt_srcu, word) == 0, "ABI");
_Static_assert(sizeof(struct shunt_srcu) == 192, "ABI");

/* --- sums ----------------------------------------------------------------------- */

static uint64_t load(const uint64_t *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static uint64_t sum_locks(const struct shunt_srcu *d, int p)
{
	uint64_t sum = load(&d->lock[p]);

	for (struct shunt_reader *r = d->index ? shunt_reader_first() : NULL; r; r = r->next)
		sum += load(&shunt_reader_counts(r, d->index)->lock[p]);
	return sum;
}

static uint64_t sum_unlocks(const struct shunt_srcu *d, int p)
{
	uint64_t sum = load(&d->unlock[p]);

	for (struct shunt_reader *r = d->index ? shunt_reader_first() : NULL; r; r = r->next)
		sum += load(&shunt_reader_counts(r, d->index)->unlock[p]);
	return sum;
}

/* (4): those who entered before (2) can be seen without another membarrier. */
static bool inside(const struct shunt_srcu *d, int p)
{
	uint64_t u = sum_unlocks(d, p);

	return sum_locks(d, p) != u;
}

/* (1) to (3). 1: there are sections in some phase, 0: in none. */
static int first_look(const struct shunt_srcu *d)
{
	uint64_t u0 = sum_unlocks(d, 0), u1 = sum_unlocks(d, 1);
	int err = shunt_reader_barrier();

	return err ? err : sum_locks(d, 0) != u0 || sum_locks(d, 1) != u1;
}

/*
 * Whether all who are inside are the calling thread. If sections of other threads are in the sums, or
 * have been moved between them, it cannot be told.
 */
static bool only_own(const struct shunt_srcu *d)
{
	struct shunt_reader *self = shunt_reader_self;
	struct shunt_counts *mine = self && d->index ? shunt_reader_counts(self, d->index) : NULL;
	int64_t own = 0;

	if (!mine || mine->lock[0] + mine->lock[1] == mine->unlock[0] + mine->unlock[1])
		return false;
	for (int p = 0; p < 2; p++) {
		if (load(&d->lock[p]) != load(&d->unlock[p]))
			return false;
		for (struct shunt_reader *r = shunt_reader_first(); r; r = r->next) {
			struct shunt_counts *c = shunt_reader_counts(r, d->index);
			int64_t open = (int64_t)(c->lock[p] - c->unlock[p]);

			if (r == self ? open < 0 : open != 0)
				return false;
			own += open;
		}
	}
	return own > 0;
}

/* --- grace periods --------------------------------------------------------------- */

static bool reached(const struct shunt_srcu *d, uint64_t state)
{
	return __atomic_load_n(&d->seq, __ATOMIC_ACQUIRE) >= state;
}

static uint64_t state_of(struct shunt_srcu *d)
{
	/* Pairs with (2): what the caller stored is before, if the seq that it reads is. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return (__atomic_load_n(&d->seq, __ATOMIC_ACQUIRE) + 3) & ~1ull;
}

SHUNT_API uint64_t shunt_srcu_get_state(struct shunt_srcu *d)
{
	return state_of(d);
}

static void restart(struct shunt_srcu *d, uint32_t before)
{
	d->stage = 0;
	/* Of who had no place of its own nobody is left, as far as we know. */
	if (shunt_reader_self)
		for (int p = 0; p < 2; p++)
			d->unlock[p] = d->lock[p];
	if (before < shunt_generation_raw) {
		d->incoming = d->waiting = NULL;
		d->pending = 0;
		d->armed = 0;
	}
}

/* One at a time. Signals are held back: no handler finds the flag taken by its own thread. */
static bool drive(struct shunt_srcu *d)
{
	uint32_t free = __atomic_load_n(&d->driver, __ATOMIC_RELAXED);
	uint32_t mine = shunt_generation << 1 | 1;

	if (free == mine || !__atomic_compare_exchange_n(&d->driver, &free, mine, false,
				    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	if (free >> 1 != mine >> 1)
		restart(d, free >> 1);
	return true;
}

static void drive_end(struct shunt_srcu *d)
{
	__atomic_store_n(&d->driver, shunt_generation << 1, __ATOMIC_RELEASE);
}

static void end_grace(struct shunt_srcu *d)
{
	d->stage = 0;
	__atomic_store_n(&d->seq, d->seq + 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&d->waiters, __ATOMIC_SEQ_CST))
		shunt_sys(SYS_futex, &d->seq, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static void say_stalled(struct shunt_srcu *d)
{
	uint64_t now = shunt_now_ns();

	if (now < d->since + STALL_NS)
		return;
	d->since = now + 5 * STALL_NS; /* a minute until the next */
	for (struct shunt_reader *r = shunt_reader_first(); r && d->index; r = r->next) {
		struct shunt_counts *c = shunt_reader_counts(r, d->index);
		int64_t n = (int64_t)(c->lock[0] + c->lock[1] - c->unlock[0] - c->unlock[1]);

		if (n > 0)
			shunt_log(SHUNT_LOG_WARNING,
				"srcu: domain %p waits for %ld sections that thread %d entered",
				(void *)d, (long)n, r->tid);
	}
}

/* One step. 1: the grace period is over, 0: there are readers, or an error. */
static int step(struct shunt_srcu *d)
{
	uint32_t phase = !!(d->word & SHUNT_SRCU_PHASE);
	int r;

	if (!(d->seq & 1)) {
		__atomic_store_n(&d->seq, d->seq + 1, __ATOMIC_SEQ_CST);
		d->since = shunt_now_ns();
		d->stage = 0;
	}
	if (d->stage == 0) {
		r = first_look(d);
		if (r < 0)
			return r;
		if (r == 0) {
			end_grace(d);
			return 1;
		}
		d->stage = 1;
	}
	if (d->stage == 1) {
		if (inside(d, !phase))
			return 0;
		__atomic_fetch_xor(&d->word, SHUNT_SRCU_PHASE, __ATOMIC_SEQ_CST);
		phase = !phase;
		d->stage = 2;
	}
	if (inside(d, !phase))
		return 0;
	end_grace(d);
	return 1;
}

/* As far as it goes now; looks again so many times. 1: the state is reached, 0, or an error. */
static int advance(struct shunt_srcu *d, uint64_t state, int looks)
{
	sigset_t before;
	int r = 0;

	if (reached(d, state))
		return 1;
	shunt_hold_signals(&before);
	if (drive(d)) {
		while (!reached(d, state)) {
			r = step(d);
			if (r < 0 || (r == 0 && looks-- <= 0))
				break;
			if (r == 0)
				__builtin_ia32_pause();
		}
		if (r == 0)
			say_stalled(d);
		drive_end(d);
	}
	shunt_release_signals(&before);
	return r < 0 ? r : reached(d, state);
}

/* Until seq changes, or for so long. */
static void pause_for(struct shunt_srcu *d, uint64_t state, long ns)
{
	struct timespec t = {.tv_nsec = ns};
	uint32_t seen = (uint32_t)__atomic_load_n(&d->seq, __ATOMIC_ACQUIRE);

	__atomic_add_fetch(&d->waiters, 1, __ATOMIC_SEQ_CST);
	if (!reached(d, state))
		shunt_sys(SYS_futex, &d->seq, FUTEX_WAIT_PRIVATE, seen, &t);
	__atomic_sub_fetch(&d->waiters, 1, __ATOMIC_SEQ_CST);
}

static int wait_for(struct shunt_srcu *d, uint64_t state, bool hurry)
{
	long ns = 20000;
	int r;

	if (only_own(d))
		return -EDEADLK;
	for (int i = 0; !(r = advance(d, state, 32)); i++) {
		if (only_own(d))
			return -EDEADLK;
		if (i && d->index < SHUNT_INDEX_USERS)
			shunt_reader_close_ended(d);
		if (hurry && i < 1000) {
			sched_yield();
			continue;
		}
		pause_for(d, state, ns);
		if (!hurry && ns < (long)MOST_PAUSE_NS)
			ns *= 2;
	}
	/* What the sections did comes before what follows. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return r < 0 ? r : 0;
}

static void look(struct shunt_srcu *d)
{
	shunt_reader_look_forked();
	if (!__atomic_load_n(&d->index, __ATOMIC_ACQUIRE))
		shunt_srcu_settle(d);
}

SHUNT_API int shunt_srcu_synchronize(struct shunt_srcu *d)
{
	look(d);
	return wait_for(d, state_of(d), false);
}

SHUNT_API int shunt_srcu_synchronize_expedited(struct shunt_srcu *d)
{
	look(d);
	return wait_for(d, state_of(d), true);
}

int shunt_reader_synchronize(struct shunt_srcu *d)
{
	if (shunt_reader_inside())
		return -EDEADLK;
	shunt_reader_look_forked();
	return wait_for(d, state_of(d), false);
}

/* --- the library's thread ----------------------------------------------------------- */

static struct shunt_hold work_lock = SHUNT_HOLD_INIT;
static struct shunt_srcu *armed;
static struct shunt_srcu *called; /* whose callback is running */
static int serve_all(void);
static struct shunt_worker worker = SHUNT_WORKER(serve_all, "shunt-srcu");

static void lock_work(void)
{
	shunt_hold_take(&work_lock);
}

static void unlock_work(void)
{
	shunt_hold_give(&work_lock);
}

/* The thread is not there; it is started again by the next one who needs it. */
static void in_child(void)
{
	called = NULL;
	worker.process = 0;
	unlock_work();
}

__attribute__((constructor(102))) static void start(void)
{
	pthread_atfork(lock_work, unlock_work, in_child);
}

/* Half done, perhaps, in a child that fork() does not know of: what was under way is lost. */
static void look_work(struct shunt_srcu *d)
{
	static uint32_t seen;
	uint32_t raw;

	look(d);
	raw = __atomic_load_n(&shunt_generation_raw, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&seen, __ATOMIC_RELAXED) != raw) {
		seen = raw;
		pthread_mutex_init(&work_lock.mutex, NULL);
		armed = called = NULL;
		worker.process = 0;
	}
	if (d->driver >> 1 != shunt_generation && drive(d))
		drive_end(d);
}

/* Locked. Whether the thread has to be told, or to be started. */
static bool arm(struct shunt_srcu *d)
{
	if (d->armed)
		return worker.process <= 0;
	d->armed = 1;
	d->next = armed;
	armed = d;
	return true;
}

/* Locked. By the worker only. */
static void disarm(struct shunt_srcu *d)
{
	struct shunt_srcu **at = &armed;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	__atomic_store_n(&d->armed, 0, __ATOMIC_RELEASE);
}

/* Locked. */
static void append(struct shunt_srcu *d, struct shunt_rcu_head *head)
{
	head->next = NULL;
	if (!d->incoming)
		d->incoming_end = &d->incoming;
	*d->incoming_end = head;
	d->incoming_end = &head->next;
	d->pending++;
}

/* Locked. It was the last one but for others that came since. */
static void withdraw(struct shunt_srcu *d, struct shunt_rcu_head *head)
{
	struct shunt_rcu_head **at = &d->incoming;

	while (*at && *at != head)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = head->next;
	if (!head->next)
		d->incoming_end = at;
	d->pending--;
}

SHUNT_API int shunt_srcu_call(struct shunt_srcu *d, struct shunt_rcu_head *head,
	void (*func)(struct shunt_rcu_head *head))
{
	bool kick;
	int r = 0;

	look_work(d);
	head->func = func;
	lock_work();
	append(d, head);
	kick = arm(d);
	unlock_work();
	if (kick)
		r = shunt_worker_kick(&worker);
	if (r) {
		lock_work();
		withdraw(d, head);
		unlock_work();
	}
	return r;
}

SHUNT_API uint64_t shunt_srcu_start_poll(struct shunt_srcu *d)
{
	uint64_t state;
	bool kick;

	look_work(d);
	state = state_of(d);
	lock_work();
	if (d->wanted < state)
		d->wanted = state;
	kick = arm(d);
	unlock_work();
	if (kick)
		shunt_worker_kick(&worker); /* fails: the polls do it */
	return state;
}

SHUNT_API bool shunt_srcu_poll_state(struct shunt_srcu *d, uint64_t state)
{
	bool yes = reached(d, state);

	if (!yes) {
		look(d);
		yes = advance(d, state, 0) > 0;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return yes;
}

/* One callback after the other, none held while it runs: it may be the last that is seen of it. */
static void call_waiting(struct shunt_srcu *d)
{
	struct shunt_rcu_head *h;

	for (;;) {
		lock_work();
		h = d->waiting;
		if (h) {
			d->waiting = h->next;
			d->pending--;
		}
		called = h ? d : NULL;
		unlock_work();
		if (!h)
			return;
		h->func(h);
	}
}

/* What the domain waits for; 0: nothing any more, and it is off the list. */
static uint64_t next_state(struct shunt_srcu *d, struct shunt_srcu **next)
{
	uint64_t state = 0;

	lock_work();
	if (!d->waiting && d->incoming) {
		d->waiting = d->incoming;
		d->incoming = NULL;
		d->due = state_of(d);
	}
	if (d->waiting)
		state = d->due;
	else if (!reached(d, d->wanted))
		state = d->wanted;
	*next = d->next;
	if (!state)
		disarm(d);
	unlock_work();
	return state;
}

/* Returns the next one. */
static struct shunt_srcu *serve(struct shunt_srcu *d, bool *blocked, bool *again)
{
	struct shunt_srcu *next;
	uint64_t state = next_state(d, &next);

	if (!state)
		return next;
	if (advance(d, state, 32) <= 0) {
		*blocked = true;
		return next;
	}
	call_waiting(d);
	*again = true;
	return next;
}

static int serve_all(void)
{
	static int ms = 1;
	bool blocked = false, again = false;
	struct shunt_srcu *d;

	lock_work();
	d = armed;
	unlock_work();
	while (d)
		d = serve(d, &blocked, &again);
	if (again || !blocked) {
		ms = 1;
		return again ? 0 : -1;
	}
	ms = ms < 16 ? ms * 2 : 16;
	return ms / 2;
}

/* --- barrier, the end ------------------------------------------------------------------ */

/* Freed by who is last: the caller may be longer gone than the callback, or not. */
struct barrier {
	struct shunt_rcu_head head;
	uint32_t done, users;
};

static void barrier_put(struct barrier *b)
{
	if (!__atomic_sub_fetch(&b->users, 1, __ATOMIC_ACQ_REL))
		free(b);
}

static void barrier_reached(struct shunt_rcu_head *head)
{
	struct barrier *b = (struct barrier *)head;

	__atomic_store_n(&b->done, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &b->done, FUTEX_WAKE_PRIVATE, INT32_MAX);
	barrier_put(b);
}

SHUNT_API int shunt_srcu_barrier(struct shunt_srcu *d)
{
	struct barrier *b;
	bool any;
	int r;

	look_work(d);
	if (shunt_worker_self(&worker) || only_own(d))
		return -EDEADLK;
	lock_work();
	any = d->pending || called == d;
	unlock_work();
	if (!any)
		return 0;
	b = malloc(sizeof *b);
	if (!b)
		return -ENOMEM;
	b->done = 0;
	b->users = 2;
	r = shunt_srcu_call(d, &b->head, barrier_reached);
	if (r) {
		free(b);
		return r;
	}
	while (!__atomic_load_n(&b->done, __ATOMIC_ACQUIRE))
		shunt_sys(SYS_futex, &b->done, FUTEX_WAIT_PRIVATE, 0, NULL);
	barrier_put(b);
	return 0;
}

SHUNT_API int shunt_srcu_init(struct shunt_srcu *d)
{
	memset(d, 0, sizeof *d);
	shunt_reader_look_forked();
	d->driver = shunt_generation << 1;
	shunt_srcu_settle(d);
	return d->index ? 0 : -ENOSPC;
}

/* The library's thread has let go of it. */
static int await_disarmed(struct shunt_srcu *d)
{
	struct timespec t = {.tv_nsec = 50000};
	int r;

	while (__atomic_load_n(&d->armed, __ATOMIC_ACQUIRE)) {
		if (shunt_worker_self(&worker))
			return -EBUSY;
		r = shunt_worker_kick(&worker);
		if (r)
			return r;
		nanosleep(&t, NULL);
	}
	return 0;
}

SHUNT_API int shunt_srcu_cleanup(struct shunt_srcu *d)
{
	uint64_t pending;
	int r;

	look_work(d);
	lock_work();
	pending = d->pending;
	unlock_work();
	if (pending)
		return -EBUSY;
	r = first_look(d);
	if (r)
		return r < 0 ? r : -EBUSY;
	r = await_disarmed(d);
	if (r)
		return r;
	if (d->index)
		shunt_index_give(d->index);
	memset(d, 0, sizeof *d);
	return 0;
}
