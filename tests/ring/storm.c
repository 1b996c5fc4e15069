/* SPDX-License-Identifier: MIT */
/*
 * storm.c - eight threads write while a timer's signal, 10,000 times a second,
 * makes whichever it hits write from its handler, short and long events, in the
 * middle of its own writing; a reader consumes meanwhile. Every event carries
 * its thread's and its context's count, so each one is accounted for.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "ring_test.h"

#define THREADS 8
#define EVENTS	3000000

static struct shunt_ring *ring;
static atomic_int running;

struct counts {
	uint32_t next[2]; /* normal, handler */
	uint64_t attempts, failed;
};
static struct counts counts[THREADS];
static __thread struct counts *mine;
static __thread long me;

struct payload {
	uint32_t thread, context, seq;
	uint32_t fill[16];
};

static void write_one(int context)
{
	uint32_t seq = mine->next[context]++;
	int r;

	if (seq % 3) {
		/* thread 3 bits, context 1 bit, seq 27 bits */
		r = shunt_ring_put(ring, (uint32_t)me << 28 | (uint32_t)context << 27 |
						 (seq & 0x7ffffff));
	} else {
		struct payload p = {(uint32_t)me, (uint32_t)context, seq, {0}};
		size_t n = sizeof p - 4 * (seq / 3 % 16);

		for (int i = 0; i < 16; i++)
			p.fill[i] = seq * 2654435761u + (uint32_t)i;
		r = shunt_ring_write(ring, 7, &p, n);
	}
	/* Nested ones may come in between: single instructions would do, but
	 * these are only counted with the signal's help held off. */
	__asm__ volatile("incq %0" : "+m"(mine->attempts) : : "cc");
	if (r)
		__asm__ volatile("incq %0" : "+m"(mine->failed) : : "cc");
}

static void handler(int sig)
{
	(void)sig;
	if (mine)
		for (int i = 0; i < 3; i++)
			write_one(1);
}

static void *writer(void *arg)
{
	sigset_t alarm;

	me = (long)arg;
	mine = &counts[me];
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	for (int i = 0; i < EVENTS; i++)
		write_one(0);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	mine = NULL;
	running--;
	return NULL;
}

struct seen {
	uint32_t last[THREADS][2];
	uint64_t n, bad, torn, disorder;
	uint64_t ts[THREADS];
};

static void look(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	struct seen *s = arg;
	uint32_t t, c, seq;

	(void)p;
	if (e->kind == SHUNT_RING_EVENT_TORN) {
		s->torn++;
		return;
	}
	if (e->kind == SHUNT_RING_EVENT_LONG) {
		const struct payload *d = e->data;
		size_t words = (e->len - 12) / 4;

		t = d->thread % THREADS, c = d->context & 1, seq = d->seq;
		s->bad += e->tag != 7;
		for (size_t i = 0; i < words; i++)
			s->bad += d->fill[i] != seq * 2654435761u + (uint32_t)i;
	} else {
		t = e->tag >> 28, c = e->tag >> 27 & 1, seq = e->tag & 0x7ffffff;
	}
	/* Within a context the count grows; discarded ones are missing. */
	s->disorder += seq + 1 <= s->last[t][c];
	s->last[t][c] = seq + 1;
	s->disorder += e->ts < s->ts[t];
	s->ts[t] = e->ts;
	s->n++;
}

static void storm(enum shunt_ring_mode mode, const char *name, uint64_t size, int read_ms)
{
	struct itimerval fast = {{0, 100}, {0, 100}}, off = {0};
	struct timespec nap = {.tv_nsec = read_ms * 1000000L};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	static struct seen seen;
	struct shunt_ring_thread total;
	pthread_t t[THREADS];
	uint64_t attempts = 0, failed = 0, handled = 0, n = 0;
	sigset_t alarm;

	memset(&seen, 0, sizeof seen);
	memset(counts, 0, sizeof counts);
	ring = make(size, 0, mode, 0);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	sigaction(SIGALRM, &sa, NULL);
	running = THREADS;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, writer, (void *)i);
	setitimer(ITIMER_REAL, &fast, NULL);
	while (running) {
		if (read_ms >= 0) {
			n += consume(ring, look, &seen);
			nanosleep(&nap, NULL);
		} else {
			sched_yield();
		}
	}
	setitimer(ITIMER_REAL, &off, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < THREADS; i++) {
		attempts += counts[i].attempts;
		failed += counts[i].failed;
		handled += counts[i].next[1];
	}
	shunt_ring_account(ring, &total, NULL, NULL);
	ok(handled > 100, "%s: %lu events from handlers", name, (unsigned long)handled);
	ok(attempts == total.written + total.discarded && failed == total.discarded,
		"%s: attempts = written + discarded (%lu + %lu)", name,
		(unsigned long)total.written, (unsigned long)total.discarded);
	ok(total.written == total.read + total.overwritten + shunt_ring_held(ring),
		"%s: written = read + overwritten + held (%lu + %lu + %lu)", name,
		(unsigned long)total.read, (unsigned long)total.overwritten,
		(unsigned long)shunt_ring_held(ring));
	/* A signal between a thread's last destructor and its end begins a page
	 * that nobody closes. */
	shunt_ring_reap(ring, 0);
	n += consume(ring, look, &seen);
	shunt_ring_account(ring, &total, NULL, NULL);
	ok(n == total.read && total.read + total.overwritten == total.written && !seen.torn,
		"%s: all of it can be read (%lu of %lu, %lu of %lu, %lu torn, %lu held)", name,
		(unsigned long)n, (unsigned long)total.read,
		(unsigned long)(total.read + total.overwritten), (unsigned long)total.written,
		(unsigned long)seen.torn, (unsigned long)shunt_ring_held(ring));
	ok(!seen.bad && !seen.disorder, "%s: none is damaged, each thread's are in order (%lu, %lu)",
		name, (unsigned long)seen.bad, (unsigned long)seen.disorder);
	drop(ring);
}

int main(void)
{
	storm(SHUNT_RING_DISCARD, "discard, fast reader", 16 << 20, 0);
	storm(SHUNT_RING_DISCARD, "discard, slow reader", 1 << 20, 20);
	storm(SHUNT_RING_OVERWRITE, "overwrite, no reader", 1 << 20, -1);
	storm(SHUNT_RING_OVERWRITE, "overwrite, slow reader", 1 << 20, 20);
	return done();
}
