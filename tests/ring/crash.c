/* SPDX-License-Identifier: MIT */
/*
 * crash.c - a writer is killed at random points, 500 times; what it had written
 * is there. It keeps its own count in a page of its own, after each event.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "ring_test.h"

#define THREADS 2
#define ROUNDS	500

struct shared {
	volatile uint64_t done[THREADS];
};

static struct shared *shared;
static struct shunt_ring *ring;

static void *writer(void *arg)
{
	long me = (long)arg;
	uint64_t data[6];

	for (uint64_t i = 0;; i++) {
		if (i % 4) {
			if (shunt_ring_put(ring, (uint32_t)(me << 30 | (i & 0x3fffffff))))
				goto again;
		} else {
			for (int k = 0; k < 6; k++)
				data[k] = i + (uint64_t)me;
			if (shunt_ring_write(ring, (uint32_t)me, data, 8 + i / 4 % 41))
				goto again;
		}
		shared->done[me] = i + 1;
		continue;
again:
		i--; /* there was no room */
	}
	return NULL;
}

struct seen {
	uint64_t next[THREADS], bad, torn;
};

static void look(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	struct seen *s = arg;
	uint64_t t, i;

	(void)p;
	if (e->kind == SHUNT_RING_EVENT_TORN) {
		s->torn++;
		return;
	}
	if (e->kind == SHUNT_RING_EVENT_LONG) {
		const uint64_t *d = e->data;

		t = e->tag & 1;
		i = d[0] - t;
		s->bad += e->len != 8 + i / 4 % 41;
		for (size_t k = 0; k + 8 <= e->len; k += 8)
			s->bad += d[k / 8] != d[0];
	} else {
		t = e->tag >> 30 & 1;
		i = e->tag & 0x3fffffff;
	}
	s->bad += i != s->next[t];
	s->next[t] = i + 1;
}

static void child(void)
{
	pthread_t t;

	if (shunt_ring_open(ring_path, 9, SHUNT_RING_WRITE, &ring))
		_exit(1);
	pthread_create(&t, NULL, writer, (void *)1L);
	writer((void *)0L);
}

int main(void)
{
	uint64_t seed = (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	uint64_t lost = 0, bad = 0, torn = 0, events = 0, account = 0;

	diag("seed %llu", (unsigned long long)seed);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int round = 0; round < ROUNDS; round++) {
		struct timespec nap = {0};
		struct seen s = {0};
		struct shunt_ring *reader = make(2 << 20, 1024, SHUNT_RING_DISCARD, 0);
		struct shunt_ring_thread total;
		pid_t pid;

		shared->done[0] = shared->done[1] = 0;
		pid = fork();
		if (!pid)
			child();
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		/* Now and then read meanwhile: pages are used again. */
		nap.tv_nsec = (long)(seed % 2000000);
		if (round % 2)
			for (int k = 0; k < 20; k++) {
				struct timespec bit = {.tv_nsec = nap.tv_nsec / 20};

				consume(reader, look, &s);
				nanosleep(&bit, NULL);
			}
		else
			nanosleep(&nap, NULL);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		shunt_ring_reap(reader, 0);
		consume(reader, look, &s);
		for (int t = 0; t < THREADS; t++) {
			/* A full pool ends the sequence; the count says where. */
			lost += s.next[t] < shared->done[t] || s.next[t] > shared->done[t] + 1;
			events += s.next[t];
		}
		bad += s.bad;
		torn += s.torn;
		shunt_ring_account(reader, &total, NULL, NULL);
		account += total.read < total.written || total.read > total.written + THREADS ||
			   shunt_ring_held(reader) != 0;
		drop(reader);
	}
	ok(!lost, "after %d kills every committed event is there (%lu rounds not)", ROUNDS,
		(unsigned long)lost);
	ok(!bad, "none is damaged or out of order (%lu)", (unsigned long)bad);
	ok(torn <= 2 * ROUNDS, "at most one a thread was never finished (%lu)", (unsigned long)torn);
	ok(!account, "the account is right but for the event in hand (%lu)", (unsigned long)account);
	ok(events > 100000, "%lu events in all", (unsigned long)events);
	return done();
}
