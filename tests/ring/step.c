/* SPDX-License-Identifier: MIT */
/*
 * step.c - a signal handler that writes comes at every single instruction of a
 * write: the trap flag makes the processor stop after each, and at the one that
 * is due the handler writes a page and a half. For short and long events, with
 * the page empty, nearly full and full, for a thread's first event too. And in
 * pools so small that the handler leaves the page and comes to have it again.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "../step.h"
#include "ring_test.h"

static struct shunt_ring *ring;
static uint32_t seq; /* each event carries the next number when it is written */
static uint64_t nested;
static int burst = 160; /* events of the handler */

static void short_event(void)
{
	shunt_ring_put(ring, 0x1000000);
}

static void long_event(void)
{
	uint32_t d[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

	shunt_ring_write(ring, 5, d, sizeof d);
}

/* What a reader finds that comes while the writer is interrupted. */
static volatile int reading;
static uint64_t tally[3];

static void count(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	(void)p;
	(void)arg;
	if (e->kind == SHUNT_RING_EVENT_TORN)
		tally[2]++;
	else
		tally[e->kind == SHUNT_RING_EVENT_SHORT ? e->tag != 0x1000000 : e->tag != 5]++;
}

static void write_there(void)
{
	for (int i = 0; i < burst; i++)
		if (i % 5)
			shunt_ring_put(ring, seq++), nested++;
		else
			shunt_ring_write(ring, 6, &seq, 4), seq++, nested++;
	if (reading)
		consume(ring, count, NULL);
}

struct seen {
	uint64_t outer, inner, bad, last;
	uint32_t next;
};

static void look(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	static const uint32_t d[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	struct seen *s = arg;
	uint32_t n;

	(void)p;
	s->bad += e->ts < s->last || e->kind == SHUNT_RING_EVENT_TORN;
	s->last = e->ts;
	if (e->kind == SHUNT_RING_EVENT_SHORT ? e->tag == 0x1000000 : e->tag == 5) {
		s->bad += e->kind == SHUNT_RING_EVENT_LONG &&
			  (e->len != sizeof d || memcmp(e->data, d, sizeof d));
		s->outer++;
		return;
	}
	n = e->kind == SHUNT_RING_EVENT_SHORT ? e->tag : *(const uint32_t *)e->data;
	s->bad += n != s->next;
	s->next = n + 1;
	s->inner++;
}

/* `fill` events, then one with a handler at instruction `at`. */
static void interrupted(void (*write_one)(void), int fill, long at)
{
	for (int i = 0; i < fill; i++)
		shunt_ring_put(ring, seq++), nested++;
	step = 0;
	due = at;
	stepping = true;
	step_flag();
	write_one();
	stepping = false;
}

/* One round: `fill` events, then one with a handler at instruction `at`. */
static bool round_of(void (*write_one)(void), int fill, long at, struct seen *s, uint64_t *outer)
{
	struct shunt_ring_thread t;

	interrupted(write_one, fill, at);
	++*outer;
	if (fill < 0)
		return step >= at;
	shunt_ring_account(ring, &t, NULL, NULL);
	s->bad += t.written + t.discarded != nested + *outer || t.discarded;
	s->bad += t.written != t.read + shunt_ring_held(ring);
	consume(ring, look, s);
	return step >= at;
}

static void every_instruction(void (*write_one)(void), const char *name)
{
	struct sigaction sa = {.sa_sigaction = step_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
	static const int fills[] = {0, 1, 60, 110, 112, 113, 114, 115, 116, 117, 118, 119};
	struct seen s = {0};
	uint64_t outer = 0;
	long most = 0;

	ring = make(1 << 20, 1024, SHUNT_RING_DISCARD, 0);
	seq = 0;
	nested = 0;
	at_due = write_there;
	sigaction(SIGTRAP, &sa, NULL);
	for (size_t f = 0; f < sizeof fills / sizeof *fills; f++)
		for (long at = 1; round_of(write_one, fills[f], at, &s, &outer); at++)
			most = at > most ? at : most;
	shunt_ring_reap(ring, 1);
	consume(ring, look, &s);
	ok(most > 20, "%s: up to %ld instructions, a handler at each", name, most);
	ok(s.outer == outer && s.inner == nested, "%s: all of %lu + %lu events are there", name,
		(unsigned long)outer, (unsigned long)nested);
	ok(!s.bad, "%s: in order, whole, and the account right at every step (%lu)", name,
		(unsigned long)s.bad);
	drop(ring);
}

/*
 * A reader comes while the writer is interrupted by a handler that fills pages:
 * the page with the unfinished event must wait for it.
 */
static void read_between(void (*write_one)(void), const char *name)
{
	uint64_t outer = 0;

	ring = make(1 << 20, 1024, SHUNT_RING_DISCARD, 0);
	seq = 0;
	nested = 0;
	memset(tally, 0, sizeof tally);
	reading = 1;
	for (long at = 1; outer < 1000; at++) {
		step = 0;
		due = at;
		stepping = true;
		step_flag();
		write_one();
		stepping = false;
		outer++;
		consume(ring, count, NULL);
		if (step < at)
			break;
	}
	reading = 0;
	shunt_ring_reap(ring, 1);
	consume(ring, count, NULL);
	ok(tally[0] == outer && tally[1] == nested && !tally[2],
		"%s: a reader in between takes no page with an unfinished event (%lu of %lu, %lu torn)",
		name, (unsigned long)tally[0], (unsigned long)outer, (unsigned long)tally[2]);
	drop(ring);
}

/*
 * The same page again: the handler fills all pages of a pool of two or three in
 * overwrite mode, so that the page it has interrupted the writer in is current
 * again, in another use, when it returns.
 */
static void in_turn(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	struct seen *s = arg;
	uint32_t n;

	(void)p;
	s->bad += e->ts < s->last || e->kind == SHUNT_RING_EVENT_TORN;
	s->last = e->ts;
	if (e->kind == SHUNT_RING_EVENT_SHORT ? e->tag == 0x1000000 : e->tag == 5)
		return;
	n = e->kind == SHUNT_RING_EVENT_SHORT ? e->tag : *(const uint32_t *)e->data;
	s->bad += n < s->next;
	s->next = n + 1;
}

static bool round_again(void (*write_one)(void), int fill, long at, struct seen *s)
{
	struct shunt_ring_thread t;

	interrupted(write_one, fill, at);
	s->outer++;
	for (int i = 0; i < 3; i++)
		shunt_ring_put(ring, seq++), nested++;
	shunt_ring_account(ring, &t, NULL, NULL);
	s->bad += t.written + t.discarded != nested + s->outer;
	s->bad += t.written != t.read + t.overwritten + shunt_ring_held(ring);
	if (at % 2)
		consume(ring, in_turn, s);
	return step >= at;
}

static void same_page_again(void (*write_one)(void), unsigned pages, const char *name)
{
	static const int fills[] = {0, 57, 112, 118};
	struct seen s = {0};
	struct shunt_ring_thread t;
	long rounds = 0;

	ring = make(pages * 1024, 1024, SHUNT_RING_OVERWRITE, 0);
	seq = 0;
	nested = 0;
	for (size_t f = 0; f < sizeof fills / sizeof *fills; f++)
		for (burst = 60 + 40 * (int)pages; burst < 60 + 130 * (int)pages; burst += 37)
			for (long at = 1; round_again(write_one, fills[f], at, &s); at++)
				rounds++;
	burst = 160;
	shunt_ring_reap(ring, 1);
	consume(ring, in_turn, &s);
	shunt_ring_account(ring, &t, NULL, NULL);
	ok(rounds > 100 && t.written == t.read + t.overwritten && !s.bad,
		"%s: the same page again, %u pages, %ld rounds: none lost, in order (%lu of %lu, %lu)",
		name, pages, rounds, (unsigned long)(t.read + t.overwritten),
		(unsigned long)t.written, (unsigned long)s.bad);
	drop(ring);
}

/* The first event of a thread: block, slot, page, all with a handler in between. */
static volatile long first_at;

static void *first_event(void *arg)
{
	(void)arg;
	step = 0;
	due = first_at;
	stepping = true;
	step_flag();
	short_event();
	stepping = false;
	return NULL;
}

static void every_first(void)
{
	struct shunt_ring_thread t;
	uint64_t outer = 0;
	pthread_t th;

	ring = make(16 << 20, 1024, SHUNT_RING_DISCARD, 0);
	seq = 0;
	nested = 0;
	do {
		/* Each of the first, then some: a slot is looked for at length. */
		first_at += first_at < 200 ? 1 : 1 + first_at / 20;
		pthread_create(&th, NULL, first_event, NULL);
		pthread_join(th, NULL);
		outer++;
	} while (step >= first_at && first_at < 3000);
	shunt_ring_account(ring, &t, NULL, NULL);
	ok(first_at > 100 && t.written + t.discarded == nested + outer && !t.discarded &&
			t.written == shunt_ring_held(ring),
		"a thread's first event, a handler within %ld instructions", first_at);
	drop(ring);
}

int main(void)
{
	every_instruction(short_event, "short");
	every_instruction(long_event, "long");
	read_between(short_event, "short");
	read_between(long_event, "long");
	for (unsigned pages = 2; pages < 4; pages++) {
		same_page_again(short_event, pages, "short");
		same_page_again(long_event, pages, "long");
	}
	every_first();
	return done();
}
