/* SPDX-License-Identifier: MIT */
/*
 * tasks.c - grace periods for code.
 *
 * Zones wait on a list; a background thread takes all there are, with the freed ranges
 * of code.c, and looks at all threads once for the lot. Those that nobody was found in
 * are called back; the others stay for the next look, which takes what has come
 * meanwhile along. So one visitor delays its own zone only, and the number of zones
 * does not multiply the work.
 *
 * A zone that counts its visitors has to have equal sums, the same ones, before and
 * after the look: then nobody was between the counts in all that time, so nobody
 * can have been switched to another thread inside of it (a coroutine), and the
 * instructions before and after the counts are covered by the look. The sum of those who
 * left is read first: who comes between the two reads makes them differ.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/hold.h"
#include "base/log.h"
#include "base/worker.h"
#include "rcu/inquire.h"
#include "rcu/look.h"

#define TRY_MS	    10
#define GATHER_NS   500000L
#define LONGEST_MS  1000 /* until who is in a zone is looked for again */
#define UNSEEN_MS   50	 /* ... who was not seen */
#define REPORT_MOST 16

/* A zone's priv[]. */
enum { HEAD, NEXT, NUMBER, SINCE };

unsigned shunt_tasks_test_off;

static int pass(void);
static struct shunt_worker worker = SHUNT_WORKER(pass, "shunt-tasks");

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct shunt_zone *fresh;  /* handed in; under the lock, as are: */
static uint64_t handed_in;	  /* number of the last one */
static struct shunt_zone *waiting; /* taken by the thread; written by it alone */
static uint64_t called_up_to;	  /* all callbacks up to this number have returned */
static uint32_t called_futex, expedite, kicked;

static struct shunt_rcu_tasks_stats stats;
static uint64_t stall_ns = 10000000000u, last_report;

static void pending_lock(void)
{
	shunt_hold_take(&lock);
}

static void pending_unlock(void)
{
	shunt_hold_give(&lock);
}

/* --- spots ----------------------------------------------------------------------------- */

int shunt_spots_add(struct shunt_spots *s, struct shunt_spot spot)
{
	if (s->n == s->room) {
		size_t room = s->room ? s->room * 2 : 64;
		long p = s->room ? shunt_sys(SYS_mremap, s->s, s->room * sizeof spot,
					   room * sizeof spot, MREMAP_MAYMOVE)
				 : shunt_sys(SYS_mmap, 0, room * sizeof spot, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (shunt_sys_failed(p))
			return (int)p;
		s->s = (struct shunt_spot *)p;
		s->room = room;
	}
	s->s[s->n++] = spot;
	return 0;
}

static void sift(struct shunt_spot *s, size_t i, size_t n)
{
	struct shunt_spot down = s[i];
	size_t child;

	for (; (child = 2 * i + 1) < n; i = child) {
		child += child + 1 < n && s[child + 1].start > s[child].start;
		if (s[child].start <= down.start)
			break;
		s[i] = s[child];
	}
	s[i] = down;
}

void shunt_spots_sort(struct shunt_spots *s)
{
	bool sorted = true;

	for (size_t i = 1; i < s->n && sorted; i++)
		sorted = s->s[i - 1].start <= s->s[i].start;
	if (sorted)
		return;
	for (size_t i = s->n / 2; i-- > 0;)
		sift(s->s, i, s->n);
	for (size_t n = s->n; n-- > 1;) {
		struct shunt_spot largest = s->s[0];

		s->s[0] = s->s[n];
		s->s[n] = largest;
		sift(s->s, 0, n);
	}
}

void shunt_spots_free(struct shunt_spots *s)
{
	if (s->room)
		shunt_sys(SYS_munmap, s->s, s->room * sizeof *s->s);
	*s = (struct shunt_spots){0};
}

/* --- handing in -------------------------------------------------------------------------- */

static struct shunt_zone *next_of(const struct shunt_zone *z)
{
	return z->priv[NEXT];
}

void shunt_tasks_kick(void)
{
	if (!__atomic_exchange_n(&kicked, 1, __ATOMIC_SEQ_CST))
		shunt_worker_kick(&worker);
}

/* Takes it back, unless the thread has it already. */
static bool withdraw(struct shunt_zone *zone)
{
	struct shunt_zone **at = &fresh;
	bool found;

	pending_lock();
	while (*at && *at != zone)
		at = (struct shunt_zone **)&(*at)->priv[NEXT];
	found = *at;
	if (found)
		*at = next_of(zone);
	pending_unlock();
	return found;
}

int shunt_call_rcu_tasks(struct shunt_rcu_head *head, struct shunt_zone *zone,
	void (*func)(struct shunt_rcu_head *head))
{
	int r = 0;

	if (!func || zone->start >= zone->end)
		return -EINVAL;
	head->func = func;
	zone->priv[HEAD] = head;
	zone->priv[SINCE] = (void *)shunt_now_ns();
	pending_lock();
	zone->priv[NUMBER] = (void *)++handed_in;
	zone->priv[NEXT] = fresh;
	fresh = zone;
	pending_unlock();
	/* Pairs with the exchange in pass(): the zone is on the list before. */
	if (!__atomic_exchange_n(&kicked, 1, __ATOMIC_SEQ_CST)) {
		r = shunt_worker_kick(&worker);
		if (r)
			__atomic_store_n(&kicked, 0, __ATOMIC_SEQ_CST);
	}
	return r && withdraw(zone) ? -EAGAIN : 0;
}

/* --- a pass ------------------------------------------------------------------------------- */

static struct {
	bool active;
	struct shunt_spots spots;
	struct shunt_look look;
	struct shunt_zone *calling; /* clear, and not called back yet */
	int delay_ms;
	bool again; /* somebody has kicked since the look began */
} now;

static void take_fresh(void)
{
	struct shunt_zone *z, *next;

	pending_lock();
	z = fresh;
	fresh = NULL;
	for (; z; z = next) {
		next = next_of(z);
		z->priv[NEXT] = waiting;
		waiting = z;
	}
	pending_unlock();
}

/* Those that differ are kept without looking; ended first, see above. */
static struct shunt_spot spot_of(struct shunt_zone *z)
{
	uint64_t ended = __atomic_load_n(&z->ended, __ATOMIC_ACQUIRE);
	uint64_t begun = __atomic_load_n(&z->begun, __ATOMIC_ACQUIRE);

	return (struct shunt_spot){.start = z->start, .end = z->end, .zone = z, .name = z->name,
		.tid = begun == ended ? 0 : -1, .begun = begun};
}

static int begin(void)
{
	int r = 0;

	take_fresh();
	now.spots.n = 0;
	for (struct shunt_zone *z = waiting; z && !r; z = next_of(z))
		r = shunt_spots_add(&now.spots, spot_of(z));
	if (!r)
		r = shunt_code_collect(&now.spots);
	if (r || !now.spots.n)
		return r;
	shunt_spots_sort(&now.spots);
	r = shunt_look_begin(&now.look, &now.spots);
	now.active = !r;
	return r;
}

static void check_counts(void)
{
	for (size_t i = 0; i < now.spots.n; i++) {
		struct shunt_spot *s = &now.spots.s[i];

		if (s->zone && !s->tid &&
			(__atomic_load_n(&s->zone->ended, __ATOMIC_ACQUIRE) != s->begun ||
				__atomic_load_n(&s->zone->begun, __ATOMIC_ACQUIRE) != s->begun))
			s->tid = -1;
	}
}

/* Parts the zones: those that are clear are called back, the others held. */
static void take_clear(void)
{
	struct shunt_zone *kept = NULL;
	uint64_t held = 0;

	pending_lock();
	for (size_t i = 0; i < now.spots.n; i++) {
		struct shunt_zone *z = now.spots.s[i].zone;
		struct shunt_zone **list = now.spots.s[i].tid ? &kept : &now.calling;

		held += now.spots.s[i].tid != 0;
		if (!z)
			continue;
		z->priv[NEXT] = *list;
		*list = z;
	}
	waiting = kept;
	stats.held = held;
	stats.passes++;
	pending_unlock();
}

/* Off the list first: a fork child goes on with the rest. */
static void call_back(void)
{
	struct shunt_zone *z;

	while ((z = now.calling)) {
		struct shunt_rcu_head *head = z->priv[HEAD];

		__atomic_store_n(&now.calling, next_of(z), __ATOMIC_RELEASE);
		head->func(head); /* may free both */
		__atomic_add_fetch(&stats.called, 1, __ATOMIC_RELAXED);
	}
}

static uint64_t least_number(const struct shunt_zone *z, uint64_t least)
{
	for (; z; z = next_of(z))
		if ((uint64_t)z->priv[NUMBER] < least)
			least = (uint64_t)z->priv[NUMBER];
	return least;
}

static void say_called(void)
{
	uint64_t least;

	pending_lock();
	least = least_number(fresh, least_number(waiting, handed_in + 1));
	__atomic_store_n(&called_up_to, least - 1, __ATOMIC_RELEASE);
	pending_unlock();
	__atomic_add_fetch(&called_futex, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &called_futex, FUTEX_WAKE_PRIVATE, 0x7fffffff);
}

static void finish(void)
{
	check_counts();
	shunt_code_settle(&now.spots);
	take_clear();
	shunt_look_end(&now.look);
	now.active = false;
	call_back();
	say_called();
}

/* --- stalls -------------------------------------------------------------------------------- */

static void report(int tid, uintptr_t pc, const char *why, uint64_t since, const char *zone)
{
	unsigned long ms = (unsigned long)((shunt_now_ns() - since) / 1000000);

	stats.stalls++;
	stats.stalled_tid = tid;
	stats.stalled_pc = pc;
	if (tid < 0)
		shunt_log(SHUNT_LOG_WARNING, "tasks RCU: %s is visited by a coroutine, for %lu ms",
			zone, ms);
	else
		shunt_log(SHUNT_LOG_WARNING, "tasks RCU: thread %d %s, for %lu ms, PC 0x%lx; it keeps %s",
			tid, why, ms, (unsigned long)pc, zone);
}

static void report_unseen(uint64_t at)
{
	char zones[64];
	int n = 0;

	snprintf(zones, sizeof zones, "all of %zu zones", now.spots.n);
	for (size_t i = 0; i < now.look.room && n < REPORT_MOST; i++) {
		const struct shunt_looked *t = &now.look.t[i];

		if (t->tid && t->mark == now.look.mark && t->why && at - t->since > stall_ns && ++n)
			report(t->tid, t->pc, shunt_look_why(t->why), t->since, zones);
	}
}

static void report_held(uint64_t at)
{
	int n = 0;

	for (size_t i = 0; i < now.spots.n && n < REPORT_MOST; i++) {
		const struct shunt_spot *s = &now.spots.s[i];
		uint64_t since = s->zone ? (uint64_t)s->zone->priv[SINCE] : s->since;
		char zone[128];

		if (!s->tid || at - since < stall_ns)
			continue;
		n++;
		snprintf(zone, sizeof zone, "%s [0x%lx, 0x%lx)", s->name ? s->name : "code",
			(unsigned long)s->start, (unsigned long)s->end);
		report(s->tid, s->pc, "is in a zone", since, zone);
	}
}

static void report_stalls(void (*which)(uint64_t at))
{
	uint64_t at = shunt_now_ns();

	if (!stall_ns || at - last_report < stall_ns)
		return;
	last_report = at;
	which(at);
}

/* --- the thread ------------------------------------------------------------------------------ */

/* A moment for more to come, unless somebody waits. */
static void gather(void)
{
	struct timespec t = {.tv_nsec = GATHER_NS};

	shunt_sys(SYS_futex, &expedite, FUTEX_WAIT_PRIVATE, 0, &t);
}

/* Who is in a zone is looked for again: seldom, after a while, in an idle process. */
static int back_off(uint64_t took_ns, int most)
{
	int least = (int)(took_ns / 1000000 * 50);

	now.delay_ms = now.delay_ms ? now.delay_ms * 2 : 1;
	if (now.delay_ms < least)
		now.delay_ms = least;
	if (now.delay_ms > most)
		now.delay_ms = most;
	return now.delay_ms;
}

static int look_on(void)
{
	uint64_t began = shunt_now_ns(), took;
	int r = shunt_look_try(&now.look, TRY_MS);

	took = shunt_now_ns() - began;
	if (r) {
		report_stalls(report_unseen);
		return back_off(0, UNSEEN_MS);
	}
	report_stalls(report_held);
	finish();
	if (now.again) {
		now.again = false;
		now.delay_ms = 0;
		return 0;
	}
	if (!__atomic_load_n(&stats.held, __ATOMIC_RELAXED)) {
		now.delay_ms = 0;
		return -1;
	}
	return back_off(took, LONGEST_MS);
}

static int pass(void)
{
	int r;

	if (__atomic_exchange_n(&kicked, 0, __ATOMIC_SEQ_CST)) {
		gather();
		/* A look that has begun knows nothing of who has come since. */
		now.again |= now.active;
		if (!now.active)
			now.delay_ms = 0;
	}
	if (!now.active) {
		r = begin();
		if (r)
			return 100; /* no memory: another time */
		if (!now.active) {
			say_called();
			return -1;
		}
	}
	return look_on();
}

/* --- waiting --------------------------------------------------------------------------------- */

int shunt_rcu_tasks_barrier(void)
{
	uint64_t number;
	int r;

	if (shunt_worker_self(&worker))
		return -EDEADLK;
	pending_lock();
	number = handed_in;
	pending_unlock();
	__atomic_add_fetch(&expedite, 1, __ATOMIC_SEQ_CST);
	shunt_sys(SYS_futex, &expedite, FUTEX_WAKE_PRIVATE, 1);
	__atomic_store_n(&kicked, 1, __ATOMIC_SEQ_CST);
	r = shunt_worker_kick(&worker);
	while (!r) {
		uint32_t seen = __atomic_load_n(&called_futex, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&called_up_to, __ATOMIC_ACQUIRE) >= number)
			break;
		shunt_sys(SYS_futex, &called_futex, FUTEX_WAIT_PRIVATE, seen, 0);
	}
	__atomic_sub_fetch(&expedite, 1, __ATOMIC_SEQ_CST);
	return r ? -EAGAIN : 0;
}

static int existing(struct shunt_spots *spots)
{
	int r = shunt_code_existing(spots);

	pending_lock();
	for (int i = 0; i < 2; i++)
		for (struct shunt_zone *z = i ? waiting : fresh; z && !r; z = next_of(z))
			r = shunt_spots_add(spots, (struct shunt_spot){.start = z->start, .end = z->end});
	pending_unlock();
	shunt_spots_sort(spots);
	return r;
}

static void nap(unsigned ms)
{
	struct timespec t = {.tv_nsec = ms * 1000000L};

	shunt_sys(SYS_nanosleep, &t, 0);
}

int shunt_synchronize_rcu_tasks(void)
{
	struct shunt_spots spots = {0};
	struct shunt_look look;
	int r = existing(&spots);

	if (!r) {
		shunt_look_begin(&look, &spots);
		look.outside = true;
		look.self = (uintptr_t)__builtin_frame_address(0);
		for (unsigned ms = 1;; ms = ms < 64 ? ms * 2 : ms) {
			r = shunt_look_try(&look, TRY_MS);
			if (look.own)
				r = -EDEADLK;
			if (r != -EAGAIN)
				break;
			nap(ms);
		}
		shunt_look_end(&look);
	}
	shunt_spots_free(&spots);
	return r;
}

static int ranges_to_spots(const struct shunt_range *range, size_t n, const uint8_t *hit,
	struct shunt_spots *spots)
{
	int r = 0;

	spots->n = 0;
	for (size_t i = 0; i < n && !r; i++) {
		if (range[i].start >= range[i].end || (i && range[i].start < range[i - 1].end))
			r = -EINVAL;
		else if (!hit || hit[i])
			r = shunt_spots_add(spots, (struct shunt_spot){
				.start = range[i].start, .end = range[i].end, .number = i});
	}
	return r;
}

/* What nobody was found in need not be looked at again: nothing leads into it. */
static bool drop_clear(struct shunt_spots *spots)
{
	size_t n = 0;

	for (size_t i = 0; i < spots->n; i++)
		if (spots->s[i].tid) {
			spots->s[n] = spots->s[i];
			spots->s[n++].tid = 0;
		}
	spots->n = n;
	return n;
}

int shunt_tasks_ranges_clear_above(uintptr_t self, const struct shunt_range *sorted, size_t n,
	uint8_t *hit, unsigned timeout_ms)
{
	uint64_t deadline = shunt_now_ns() + timeout_ms * 1000000ull;
	struct shunt_spots spots = {0};
	struct shunt_look look;
	int r = ranges_to_spots(sorted, n, NULL, &spots);
	unsigned ms = 1;

	while (!r && spots.n) {
		shunt_look_begin(&look, &spots);
		look.self = self;
		while ((r = shunt_look_try(&look, ms)) == -EAGAIN && shunt_now_ns() < deadline)
			nap(ms = ms < 8 ? ms * 2 : ms);
		shunt_look_end(&look);
		if (r || !drop_clear(&spots))
			break;
		/* What the caller is in it will not leave meanwhile; the others are clear. */
		if (look.own) {
			r = -EDEADLK;
			break;
		}
		if (shunt_now_ns() >= deadline)
			r = -EAGAIN;
		else
			nap(ms = ms < 8 ? ms * 2 : ms);
	}
	if (hit && r != -EINVAL) {
		memset(hit, 0, n);
		for (size_t i = 0; i < spots.n && r; i++)
			hit[spots.s[i].number] = 1;
	}
	shunt_spots_free(&spots);
	return r;
}

int shunt_tasks_ranges_clear(const struct shunt_range *sorted, size_t n, uint8_t *hit,
	unsigned timeout_ms)
{
	return shunt_tasks_ranges_clear_above((uintptr_t)__builtin_frame_address(0), sorted, n, hit,
		timeout_ms);
}

/* --- settings and figures ---------------------------------------------------------------------- */

int shunt_rcu_tasks_set(enum shunt_rcu_tasks_option option, uint64_t value)
{
	switch (option) {
	case SHUNT_RCU_TASKS_STALL_MS:
		__atomic_store_n(&stall_ns, value * 1000000, __ATOMIC_RELAXED);
		return 0;
	case SHUNT_RCU_TASKS_SIGNAL:
		return shunt_look_set_signal(value);
	case SHUNT_RCU_TASKS_HELD_MAX:
		__atomic_store_n(&shunt_code_limit, (size_t)value, __ATOMIC_RELAXED);
		return 0;
	}
	return -EINVAL;
}

int shunt_rcu_tasks_stats(struct shunt_rcu_tasks_stats *out, size_t size)
{
	struct shunt_rcu_tasks_stats s;

	if (size > sizeof s)
		return -EINVAL;
	pending_lock();
	s = stats;
	s.waiting = handed_in - __atomic_load_n(&stats.called, __ATOMIC_RELAXED);
	pending_unlock();
	s.threads = __atomic_load_n(&shunt_look_threads, __ATOMIC_RELAXED);
	s.tries = __atomic_load_n(&shunt_look_tries, __ATOMIC_ACQUIRE);
	s.signals = __atomic_load_n(&shunt_inquire_sent, __ATOMIC_RELAXED);
	s.signal = shunt_inquire_signal;
	s.held_bytes = shunt_code_held();
	s.code_bytes = shunt_code_reserved();
	memcpy(out, &s, size);
	return 0;
}

/* --- fork ------------------------------------------------------------------------------------------ */

/*
 * One after the other, as they are never held together otherwise. A look that is under
 * way ends its attempt first. The child has no threads but the one that forked: what
 * waited goes on waiting there, and a look that had begun begins again.
 */
static void before_fork(void)
{
	shunt_look_lock();
	shunt_code_lock();
	pending_lock();
}

static void after_fork(void)
{
	pending_unlock();
	shunt_code_unlock();
	shunt_look_unlock();
}

static void in_child(void)
{
	struct shunt_zone *z;

	/* Its memory may have been being mapped: it is left alone. */
	memset(&now.spots, 0, sizeof now.spots);
	now.active = false;
	while ((z = now.calling)) {
		now.calling = next_of(z);
		z->priv[NEXT] = waiting;
		waiting = z;
	}
	kicked = 0;
	expedite = 0;
	shunt_inquire_forget();
	after_fork();
}

/* Before the text engine does the same: our locks are taken inside of its own. */
__attribute__((constructor(102))) static void at_fork(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}
