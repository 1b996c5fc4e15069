/* SPDX-License-Identifier: MIT */
/*
 * torture.c [rounds [seed]] - sections that sleep, nest, move to other threads and are entered by signal
 * handlers at any time, on threads that come and go; who takes things away poisons them after a
 * grace period, got in any of the ways there are. A section that sees poison was not waited for.
 */
#include <stdlib.h>
#include <sched.h>
#include <time.h>

#include "rcu_test.h"

#define READERS 6
#define WRITERS 2
#define SLOTS	8
#define DOMAINS 3
#define GOOD	0x600d600d600d600dull
#define POISON	0xdeaddeaddeaddeadull

struct object {
	struct shunt_rcu_head head;
	uint64_t magic, stamp;
	struct object *next;
};

static struct shunt_srcu domain[DOMAINS];
static struct object *slot[DOMAINS][SLOTS];
static struct object *unused[WRITERS];
static pthread_mutex_t unused_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_ulong sections, handled, moved, waited[4], bad, made;
static atomic_bool stop;
static uint64_t seed;

/* --- sections -------------------------------------------------------------------- */

struct section {
	int d, idx;
	const struct object *o;
	uint64_t stamp;
};

static uint64_t field(const uint64_t *at)
{
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static struct section enter(int d, unsigned i)
{
	struct section s = {.d = d, .idx = shunt_srcu_read_lock(&domain[d])};

	s.o = __atomic_load_n(&slot[d][i % SLOTS], __ATOMIC_ACQUIRE);
	s.stamp = field(&s.o->stamp);
	bad += field(&s.o->magic) != GOOD;
	return s;
}

static void leave(const struct section *s)
{
	bad += field(&s->o->magic) != GOOD || field(&s->o->stamp) != s->stamp;
	shunt_srcu_read_unlock(&domain[s->d], s->idx);
	sections++;
}

static void on_signal(int sig)
{
	static atomic_uint n;
	unsigned x = n++;
	struct section s = enter((int)(x % DOMAINS), x / DOMAINS);

	(void)sig;
	leave(&s);
	handled++;
}

/* Sections on their way from one thread to another. */
static struct section *passing[4];

static void pass_on(const struct section *s, unsigned at)
{
	struct section *copy = malloc(sizeof *copy);

	*copy = *s;
	copy = __atomic_exchange_n(&passing[at % 4], copy, __ATOMIC_ACQ_REL);
	if (!copy)
		return;
	leave(copy);
	free(copy);
	moved++;
}

static void wander(uint64_t *x)
{
	uint64_t r = random_of(x) % 64;
	struct timespec t = {.tv_nsec = (long)(r * 3000)};

	if (r < 2)
		nanosleep(&t, NULL);
	else if (r < 8)
		sched_yield();
}

static void *reads(void *arg)
{
	uint64_t x = seed * 77 + (uint64_t)(uintptr_t)arg * 1299709 + 1;

	/* Some hundred sections, and another thread takes over. */
	for (uint64_t n = 300 + random_of(&x) % 2000; n && !stop; n--) {
		uint64_t r = random_of(&x);
		struct section s = enter((int)(r % DOMAINS), (unsigned)(r >> 8)), t;

		wander(&x);
		if (r >> 16 & 1) {
			t = enter((int)((r >> 20) % DOMAINS), (unsigned)(r >> 24));
			wander(&x);
			leave(&t);
		}
		if ((r >> 32) % 16)
			leave(&s);
		else
			pass_on(&s, (unsigned)(r >> 40));
	}
	return NULL;
}

/* --- who takes away ------------------------------------------------------------------ */

static void put(struct object *o)
{
	__atomic_store_n(&o->magic, POISON, __ATOMIC_RELAXED);
	pthread_mutex_lock(&unused_lock);
	o->next = unused[0];
	unused[0] = o;
	pthread_mutex_unlock(&unused_lock);
}

static void put_back(struct shunt_rcu_head *head)
{
	put((struct object *)head);
}

static struct object *get(void)
{
	struct object *o;

	pthread_mutex_lock(&unused_lock);
	o = unused[0];
	if (o)
		unused[0] = o->next;
	pthread_mutex_unlock(&unused_lock);
	if (!o) {
		o = calloc(1, sizeof *o);
		made++;
	}
	__atomic_store_n(&o->stamp, o->stamp + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&o->magic, GOOD, __ATOMIC_RELAXED);
	return o;
}

static void take_away(int d, struct object *o, unsigned way)
{
	uint64_t s;

	waited[way % 4]++;
	switch (way % 4) {
	case 0:
		bad += shunt_srcu_synchronize(&domain[d]) != 0;
		break;
	case 1:
		bad += shunt_srcu_synchronize_expedited(&domain[d]) != 0;
		break;
	case 2:
		bad += shunt_srcu_call(&domain[d], &o->head, put_back) != 0;
		return;
	default:
		s = way & 4 ? shunt_srcu_start_poll(&domain[d]) : shunt_srcu_get_state(&domain[d]);
		while (!shunt_srcu_poll_state(&domain[d], s))
			sched_yield();
	}
	put(o);
}

static unsigned long rounds = 15000;

static void *writes(void *arg)
{
	uint64_t x = seed * 131 + (uint64_t)(uintptr_t)arg * 7919 + 3;

	for (unsigned long n = 0; n < rounds; n++) {
		uint64_t r = random_of(&x);
		int d = (int)(r % DOMAINS);
		struct object *o = get();

		o = __atomic_exchange_n(&slot[d][(r >> 8) % SLOTS], o, __ATOMIC_ACQ_REL);
		take_away(d, o, (unsigned)(r >> 16));
		if (n % 256 == 0)
			bad += shunt_srcu_barrier(&domain[d]) != 0;
	}
	return NULL;
}

/* --- all of them ----------------------------------------------------------------------- */

static void start_reader(pthread_t *t)
{
	static uintptr_t n;

	pthread_create(t, NULL, reads, (void *)++n);
}

/* Renews readers that have ended, and sends the others signals, until those who write have. */
static unsigned long run(void)
{
	pthread_t r[READERS], w[WRITERS];
	unsigned long renewed = 0;
	uint64_t x = seed;

	for (int i = 0; i < READERS; i++)
		start_reader(&r[i]);
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&w[i], NULL, writes, (void *)i);
	for (int ended = 0; ended < WRITERS;) {
		int k = (int)(random_of(&x) % READERS);

		if (!pthread_tryjoin_np(r[k], NULL)) {
			start_reader(&r[k]);
			renewed++;
		}
		pthread_kill(r[k], SIGUSR1);
		while (ended < WRITERS && !pthread_tryjoin_np(w[ended], NULL))
			ended++;
		sched_yield();
		/* They are not waited for by each other, but those on the way must be left. */
		for (int i = 0; i < 4; i++) {
			struct section *s = __atomic_exchange_n(&passing[i], NULL, __ATOMIC_ACQ_REL);

			if (s) {
				leave(s);
				free(s);
				moved++;
			}
		}
	}
	stop = true;
	for (int i = 0; i < READERS; i++)
		pthread_join(r[i], NULL);
	return renewed;
}

static void clean_up(void)
{
	int err = 0;

	for (int i = 0; i < 4; i++)
		if (passing[i]) {
			leave(passing[i]);
			free(passing[i]);
		}
	for (int d = 0; d < DOMAINS; d++) {
		err |= shunt_srcu_barrier(&domain[d]);
		err |= shunt_srcu_cleanup(&domain[d]);
		for (int i = 0; i < SLOTS; i++)
			free(slot[d][i]);
	}
	for (struct object *o; (o = unused[0]);) {
		unused[0] = o->next;
		free(o);
	}
	ok(!err, "all domains are empty at the end: no section was lost or counted twice (%d)", err);
}

/* --- one reader, one writer, as close as can be --------------------------------------------- */

/*
 * One section after the other, and grace periods as short as they get. (That a count may be in its
 * processor's store buffer when it is looked for is left to models/srcu.pml: the system calls
 * on the way there are longer than any buffer takes.)
 */
static SHUNT_SRCU_DEFINE(near);
static struct {
	_Alignas(128) uint64_t *at;
	_Alignas(128) uint64_t thing[2];
	_Alignas(128) atomic_bool stop;
	unsigned long sections, poison;
} close_up;

static void *reads_closely(void *arg)
{
	for (; !close_up.stop; close_up.sections++) {
		const uint64_t *p;
		bool saw = false;
		int idx;

		idx = shunt_srcu_read_lock(&near);
		p = __atomic_load_n(&close_up.at, __ATOMIC_ACQUIRE);

		for (int i = 0; i < 60; i++)
			saw |= field(p) != GOOD;
		shunt_srcu_read_unlock(&near, idx);
		close_up.poison += saw;
	}
	return arg;
}

static void closely(unsigned long n)
{
	uint64_t x = seed;
	pthread_t t;

	close_up.thing[0] = close_up.thing[1] = GOOD;
	close_up.at = &close_up.thing[0];
	pthread_create(&t, NULL, reads_closely, NULL);
	for (unsigned long i = 1; i <= n; i++) {
		uint64_t *old = close_up.at;

		__atomic_store_n(&close_up.thing[i & 1], GOOD, __ATOMIC_RELEASE);
		__atomic_store_n(&close_up.at, &close_up.thing[i & 1], __ATOMIC_RELEASE);
		bad += shunt_srcu_synchronize_expedited(&near) != 0;
		__atomic_store_n(old, POISON, __ATOMIC_RELEASE);
		for (uint64_t k = random_of(&x) % 64; k; k--)
			__builtin_ia32_pause();
	}
	close_up.stop = true;
	pthread_join(t, NULL);
	ok(!close_up.poison && !bad && !shunt_srcu_cleanup(&near),
		"%lu grace periods close by %lu sections: none saw poison (%lu)", n,
		close_up.sections, close_up.poison);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	unsigned long renewed;

	if (argc > 1)
		rounds = strtoul(argv[1], NULL, 0);
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : (uint64_t)time(NULL) | 1;
	diag("seed %lu", (unsigned long)seed);
	end_after(argc > 1 ? 3000 : 110);
	sigaction(SIGUSR1, &sa, NULL);
	for (int d = 0; d < DOMAINS; d++)
		for (int i = 0; i < SLOTS; i++)
			slot[d][i] = get();
	renewed = run();
	ok(!bad, "%lu sections, %lu of them by signal handlers, %lu moved: none saw poison (%lu)",
		sections, handled, moved, bad);
	ok(handled > 100 && moved > 20 && renewed > 5, "%lu threads came and went", renewed);
	diag("grace periods: %lu waited for, %lu in a hurry, %lu called, %lu polled; %lu objects",
		waited[0], waited[1], waited[2], waited[3], made);
	clean_up();
	closely(rounds * 2);
	return done();
}
