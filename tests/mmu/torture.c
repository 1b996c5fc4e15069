/* SPDX-License-Identifier: MIT */
/*
 * torture.c [rounds [seed]] - changes, made by hand, beside those who register and leave at any time.
 *
 * `version` is the page table: what each page is now. Changers announce a range, make its pages
 * other ones and announce the end; some of them as if from inside of libc, with a lock held that
 * the callbacks on the library's thread want now and then. Clients keep translations, and
 * lookers do by intervals' sequences. The oracle is who changes: between its start and its end nobody
 * keeps a translation of its pages, registered or leaving or gone. What comes from inside of libc
 * may be late; whoever asks shunt_mmu_sync(), or read_begin, first, must not be deceived either.
 * All that callbacks are given is poisoned and freed when unregister has returned.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "mmu/core.h"
#include "tap.h"

#define PAGES	 64
#define STRICT	 32 /* pages below are not changed from inside of libc */
#define BASE	 0x700000000000ull
#define PAGE	 4096ull
#define CHANGERS 4
#define CLIENTS	 5
#define LOOKERS	 3
#define GOOD	 0x600d600du

static atomic_ulong version[PAGES];
static pthread_mutex_t libc_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seed;
static unsigned long rounds = 10000;
static atomic_bool stop;
/* Of either part. On a busy machine, where who yields comes back after milliseconds, not all rounds are made. */
static uint64_t limit = 30 * 1000000000ull, until;

static bool in_time(void)
{
	return shunt_now_ns() < until;
}

/* What went wrong, by kind; and what was done at all. */
static struct {
	atomic_ulong kept, stale, half, after, release, said, looked;
} bad;
static atomic_ulong changes, in_libc, nested, left_inside, left_handed, cycles, inserted, late, lookups, retries;

static uint64_t random_of(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x * 0x2545f4914f6cdd1du >> 16;
}

static _Thread_local uint64_t mine; /* this thread's dice */

static uint64_t dice(uint64_t n)
{
	if (!mine)
		mine = seed * 77 + (uint64_t)(uintptr_t)&mine;
	return random_of(&mine) % n;
}

static void linger(void)
{
	struct timespec t = {.tv_nsec = (long)dice(60000)};

	uint64_t way = dice(64);

	if (way == 0)
		nanosleep(&t, NULL);
	else if (way < 7)
		sched_yield();
}

/* --- clients ---------------------------------------------------------------------- */

/* What is registered, once: freed when it has gone. */
struct handle {
	struct shunt_mmu_notifier n;
	uint32_t magic;
	struct client *of;
	atomic_uint inside, released;
	atomic_bool left; /* a callback unregistered it */
	atomic_bool gone; /* unregister has returned, to who did not call it in a callback */
	int busy[PAGES];
};

/* Stays; the cache. */
struct client {
	pthread_mutex_t lock;
	struct handle *now;
	atomic_ulong cache[PAGES];
} client[CLIENTS];

/* What libc and the loader change meanwhile is told, too: none of the table's pages, or (fork) all of them. */
static size_t page_of(uintptr_t at)
{
	return at < BASE ? 0 : at > BASE + PAGES * PAGE ? PAGES : (at - BASE) / PAGE;
}

#define PAGES_OF(p, e) for (size_t p = page_of((e)->start); p < page_of((e)->end); p++)

static struct handle *enter(struct shunt_mmu_notifier *n)
{
	struct handle *h = (struct handle *)n;

	bad.after += h->magic != GOOD || h->gone || h->left;
	h->inside++;
	return h;
}

/* Another change, which it is not told of itself. */
static void nest(struct handle *h)
{
	struct client *c = h->of;
	struct shunt_mmu_change ch;
	size_t p = dice(STRICT);

	pthread_mutex_lock(&c->lock);
	h->busy[p]++;
	c->cache[p] = 0;
	pthread_mutex_unlock(&c->lock);
	shunt_mmu_change_begin(&ch, SHUNT_MMU_DISCARD, BASE + p * PAGE, BASE + (p + 1) * PAGE, 0);
	version[p]++;
	shunt_mmu_change_end(&ch, false, 0);
	pthread_mutex_lock(&c->lock);
	h->busy[p]--;
	pthread_mutex_unlock(&c->lock);
	nested++;
}

static void leave_inside(struct handle *h, const struct shunt_mmu_event *e)
{
	if (!shunt_mmu_notifier_unregister(&h->n)) {
		bad.release += h->released != 1;
		/* Only the one that this is. */
		bad.after += h->inside != 1;
		left_inside++;
		left_handed += !!(e->flags & SHUNT_MMU_HANDED);
		h->left = true;
	}
}

static void wander(struct handle *h, const struct shunt_mmu_event *e)
{
	struct shunt_mmu_notifier other = {.ops = h->n.ops};

	linger();
	/* malloc() and the like. */
	if ((e->flags & SHUNT_MMU_HANDED) && !dice(256)) {
		pthread_mutex_lock(&libc_lock);
		pthread_mutex_unlock(&libc_lock);
	}
	if ((e->flags & SHUNT_MMU_BLOCK) && !(e->flags & (SHUNT_MMU_NESTED | SHUNT_MMU_HANDED)) && !dice(32))
		nest(h);
	if (!dice(64))
		bad.said += shunt_mmu_notifier_register(&other) != -EDEADLK;
	/* Not where the callback that it would wait for may be further out. */
	if ((e->flags & SHUNT_MMU_BLOCK) && !(e->flags & SHUNT_MMU_NESTED) && !dice(200))
		leave_inside(h, e);
}

static void on_start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct handle *h = enter(n);

	pthread_mutex_lock(&h->of->lock);
	PAGES_OF(p, e) {
		h->busy[p]++;
		h->of->cache[p] = 0;
	}
	pthread_mutex_unlock(&h->of->lock);
	late += !!(e->flags & SHUNT_MMU_LATE);
	wander(h, e);
	h->inside--;
}

static void on_end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	struct handle *h = enter(n);

	wander(h, e);
	pthread_mutex_lock(&h->of->lock);
	PAGES_OF(p, e)
		bad.half += --h->busy[p] < 0;
	pthread_mutex_unlock(&h->of->lock);
	h->inside--;
}

static void on_release(struct shunt_mmu_notifier *n)
{
	struct handle *h = enter(n);
	struct timespec t = {.tv_nsec = 200000};

	/* Long enough for unregister and exit to meet in. */
	if (!dice(4))
		nanosleep(&t, NULL);
	bad.release += h->released++ != 0;
	pthread_mutex_lock(&h->of->lock);
	for (int p = 0; p < PAGES; p++)
		h->of->cache[p] = 0;
	pthread_mutex_unlock(&h->of->lock);
	h->inside--;
}

static const struct shunt_mmu_notifier_ops ops = {
	.release = on_release, .invalidate_range_start = on_start, .invalidate_range_end = on_end,
};

/* Puts a translation in, and uses one. */
static void use(struct client *c, struct handle *h)
{
	size_t p = dice(PAGES);
	uint64_t before = version[p], kept;

	shunt_mmu_sync();
	pthread_mutex_lock(&c->lock);
	kept = c->cache[p];
	bad.stale += kept && kept < before;
	if (p < STRICT)
		bad.stale += kept && kept != version[p];
	/* Who is released may not. */
	if (!h->busy[p] && !h->released)
		c->cache[p] = version[p];
	pthread_mutex_unlock(&c->lock);
	lookups++;
}

static void look_even(const struct handle *h)
{
	for (int p = 0; p < PAGES; p++)
		bad.half += h->busy[p] != 0;
}

static void *be_client(void *arg)
{
	struct client *c = arg;

	while (!stop) {
		struct handle *h = calloc(1, sizeof *h);

		h->n.ops = &ops;
		h->n.flags = dice(4) ? 0 : SHUNT_MMU_DIRECT;
		h->magic = GOOD;
		h->of = c;
		bad.said += shunt_mmu_notifier_register(&h->n) != 0;
		for (uint64_t n = dice(300); n && !h->left; n--)
			use(c, h);
		if (shunt_mmu_notifier_unregister(&h->n)) {
			while (!h->left || h->inside)
				sched_yield();
		} else {
			h->gone = true;
			bad.after += h->inside != 0;
			look_even(h);
		}
		bad.release += h->released != 1;
		memset(h, 0xdd, sizeof *h);
		free(h);
		cycles++;
	}
	return NULL;
}

/* --- lookers ---------------------------------------------------------------------- */

struct looker {
	pthread_mutex_t lock;
	atomic_ulong kept[PAGES];
} looker[LOOKERS];

struct looking {
	struct shunt_mmu_interval i;
	uint32_t magic;
	struct looker *of;
	atomic_bool gone;
};

static void on_invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	struct looking *l = (struct looking *)i;

	bad.after += l->magic != GOOD || l->gone;
	linger();
	pthread_mutex_lock(&l->of->lock);
	bad.said += !shunt_mmu_interval_read_retry(i, seq - 2);
	PAGES_OF(p, e)
		l->of->kept[p] = 0;
	pthread_mutex_unlock(&l->of->lock);
	linger();
	bad.after += l->magic != GOOD || l->gone;
}

static const struct shunt_mmu_interval_ops interval_ops = {.invalidate = on_invalidate};

static void look(struct looking *l, size_t first, size_t n)
{
	size_t p = first + dice(n);
	uint64_t seq = shunt_mmu_interval_read_begin(&l->i), v = version[p];

	linger();
	pthread_mutex_lock(&l->of->lock);
	if (!shunt_mmu_interval_read_retry(&l->i, seq)) {
		uint64_t is = version[p];

		bad.looked += v != is || (l->of->kept[p] && l->of->kept[p] != is);
		l->of->kept[p] = v;
	} else {
		retries++;
	}
	pthread_mutex_unlock(&l->of->lock);
	lookups++;
}

static void *be_looker(void *arg)
{
	struct looker *k = arg;

	while (!stop) {
		struct looking *l = calloc(1, sizeof *l);
		size_t first = dice(PAGES), n = 1 + dice(PAGES - first);

		l->i.ops = &interval_ops;
		l->magic = GOOD;
		l->of = k;
		bad.said += shunt_mmu_interval_insert(&l->i, BASE + first * PAGE, n * PAGE) != 0;
		for (uint64_t times = dice(400); times; times--)
			look(l, first, n);
		/* There is no release: it lets go first. */
		pthread_mutex_lock(&k->lock);
		for (int p = 0; p < PAGES; p++)
			k->kept[p] = 0;
		pthread_mutex_unlock(&k->lock);
		bad.said += shunt_mmu_interval_remove(&l->i) != 0;
		l->gone = true;
		memset(l, 0xdd, sizeof *l);
		free(l);
		inserted++;
	}
	return NULL;
}

/* --- changers ---------------------------------------------------------------------- */

static void make(const struct shunt_mmu_op *op, bool strict)
{
	linger();
	for (uint32_t r = 0; r < op->n; r++) {
		PAGES_OF(p, &op->range[r]) {
			for (int i = 0; strict && i < CLIENTS; i++)
				bad.kept += client[i].cache[p] != 0;
			for (int i = 0; strict && i < LOOKERS; i++)
				bad.kept += looker[i].kept[p] != 0;
			version[p]++;
		}
	}
}

static void choose(struct shunt_mmu_op *op, size_t first, size_t n)
{
	op->n = 1 + (uint32_t)dice(2);
	for (uint32_t i = 0; i < op->n; i++) {
		/* Two ranges do not touch each other. */
		size_t from = first + i * n / 2 + dice(n / 2 - 4), pages = 1 + dice(4);

		op->range[i] = (struct shunt_mmu_range){.start = BASE + from * PAGE,
			.end = BASE + (from + pages) * PAGE, .kind = (uint32_t)dice(SHUNT_MMU_FORK)};
	}
}

static void change(bool inside)
{
	bool locks = inside && !dice(4);
	struct shunt_mmu_op op = {.context = inside ? SHUNT_MMU_IN_LIBC : 0};
	bool told;

	choose(&op, inside ? STRICT : 0, PAGES - STRICT);
	if (locks)
		pthread_mutex_lock(&libc_lock);
	told = shunt_mmu_op_begin(&op);
	make(&op, !inside);
	if (told)
		shunt_mmu_op_end(&op, dice(8) ? 0 : -ENOMEM);
	if (locks)
		pthread_mutex_unlock(&libc_lock);
	changes++;
	in_libc += inside;
}

static void *be_changer(void *arg)
{
	for (unsigned long n = 0; n < rounds && in_time(); n++)
		change(!dice(4));
	return arg;
}

/* --- all of them ------------------------------------------------------------------- */

static void run(void)
{
	pthread_t t[CHANGERS], others[CLIENTS + LOOKERS];

	until = shunt_now_ns() + limit;
	for (int i = 0; i < PAGES; i++)
		version[i] = 1;
	for (int i = 0; i < CLIENTS; i++) {
		pthread_mutex_init(&client[i].lock, NULL);
		pthread_create(&others[i], NULL, be_client, &client[i]);
	}
	for (int i = 0; i < LOOKERS; i++) {
		pthread_mutex_init(&looker[i].lock, NULL);
		pthread_create(&others[CLIENTS + i], NULL, be_looker, &looker[i]);
	}
	for (int i = 0; i < CHANGERS; i++)
		pthread_create(&t[i], NULL, be_changer, NULL);
	for (int i = 0; i < CHANGERS; i++)
		pthread_join(t[i], NULL);
	stop = true;
	for (int i = 0; i < CLIENTS + LOOKERS; i++)
		pthread_join(others[i], NULL);
}

static void report(void)
{
	ok(!bad.kept, "%lu changes, %lu of them from inside of libc: none while a translation was kept (%lu)",
		changes, in_libc, bad.kept);
	ok(!bad.stale, "after sync nothing stale is used (%lu)", bad.stale);
	ok(!bad.looked, "who passed read_retry has what is there: %lu lookups, %lu again (%lu)", lookups,
		retries, bad.looked);
	ok(!bad.half, "no half pairs (%lu)", bad.half);
	ok(!bad.after, "%lu times registered and %lu inserted: no callback after it (%lu)", cycles, inserted,
		bad.after);
	ok(!bad.release, "each is released once (%lu)", bad.release);
	ok(!bad.said, "what was said is what should be (%lu)", bad.said);
	diag("%lu nested, %lu left in callbacks, %lu of those on the library's thread, %lu starts were late",
		nested, left_inside, left_handed, late);
}

/* --- exit ---------------------------------------------------------------------------- */

/* The process exits while all of it goes on: in children, as that can be done once. */
static int exit_once(unsigned n)
{
	pthread_t t[CHANGERS], c[CLIENTS];
	uint64_t soon;

	mine = seed + n * 7919;
	alarm(30);
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&c[i], NULL, be_client, &client[i]);
	for (int i = 0; i < CHANGERS; i++)
		pthread_create(&t[i], NULL, be_changer, NULL);
	soon = shunt_now_ns() + dice(5000000);
	for (uint64_t i = dice(4000); i && shunt_now_ns() < soon; i--)
		sched_yield();
	shunt_mmu_exiting();
	stop = true;
	for (int i = 0; i < CHANGERS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(c[i], NULL);
	return (bad.release ? 1 : 0) | (bad.after ? 2 : 0) | (bad.kept ? 4 : 0) | (bad.half ? 8 : 0);
}

static void exits(unsigned times)
{
	unsigned wrong = 0, n;
	int status, first = 0;
	unsigned long all = rounds;

	rounds = 40;
	until = shunt_now_ns() + limit;
	for (n = 1; n <= times && in_time(); n++) {
		pid_t pid = fork();

		if (!pid)
			_exit(exit_once(n));
		waitpid(pid, &status, 0);
		wrong += status != 0;
		if (status && !first)
			first = status;
	}
	rounds = all;
	ok(!wrong, "%u exits while clients leave: released once, before anything changes untold (%u, 0x%x)",
		n - 1, wrong, first);
}

/* --- a change that began while nobody listened ------------------------------------------ */

static atomic_bool registered;

static void *registers(void *arg)
{
	struct handle *h = arg;

	bad.said += shunt_mmu_notifier_register(&h->n) != 0;
	registered = true;
	bad.said += shunt_mmu_notifier_unregister(&h->n) != 0;
	return NULL;
}

static void begun_before(void)
{
	static struct handle h = {.n = {.ops = &ops}, .magic = GOOD, .of = &client[0]};
	struct shunt_mmu_change c;
	struct timespec t = {.tv_nsec = 20000000};
	pthread_t other;
	bool early;

	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, BASE, BASE + PAGE, 0);
	pthread_create(&other, NULL, registers, &h);
	/* The time that it has to be wrong in; no time is too short to be right. */
	nanosleep(&t, NULL);
	early = registered;
	shunt_mmu_change_end(&c, false, 0);
	pthread_join(other, NULL);
	ok(!early && registered && !bad.said && !bad.half,
		"register waits for a change that began when nobody was told");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		rounds = strtoul(argv[1], NULL, 0);
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : (uint64_t)time(NULL) | 1;
	diag("seed %lu", (unsigned long)seed);
	alarm(argc > 1 ? 3000 : 250);
	if (argc > 1)
		limit *= 1000;
	exits((unsigned)(rounds / 100));
	run();
	report();
	begun_before();
	return done();
}
