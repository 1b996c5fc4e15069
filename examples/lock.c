/* SPDX-License-Identifier: MIT */
/*
 * lock.c - a queue between producers and consumers under one lock, with far more threads than
 * processors for half of the time. A thread of the library looks after the mode.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <shunt/lock.h>

#define PAIRS 16
#define EACH  20000

static struct {
	struct shunt_lock lock;
	unsigned head, tail;
	unsigned long item[256];
} queue;

static bool put(unsigned long item)
{
	bool room;

	shunt_lock_lock(&queue.lock);
	room = queue.head - queue.tail < 256;
	if (room)
		queue.item[queue.head++ % 256] = item;
	shunt_lock_unlock(&queue.lock);
	return room;
}

static bool get(unsigned long *item)
{
	bool any;

	if (!shunt_lock_trylock(&queue.lock)) /* another consumer is at it, or a producer */
		shunt_lock_lock(&queue.lock);
	any = queue.head != queue.tail;
	if (any)
		*item = queue.item[queue.tail++ % 256];
	shunt_lock_unlock(&queue.lock);
	return any;
}

static void *produce(void *arg)
{
	for (unsigned long i = 1; i <= EACH; i++)
		while (!put(i))
			sched_yield();
	return arg;
}

static void *consume(void *arg)
{
	unsigned long sum = 0, item;

	for (int i = 0; i < EACH; i++) {
		while (!get(&item))
			sched_yield();
		sum += item;
	}
	*(unsigned long *)arg = sum;
	return NULL;
}

static unsigned long run(int pairs)
{
	pthread_t t[2 * PAIRS];
	unsigned long sums[PAIRS], sum = 0;

	for (int i = 0; i < pairs; i++) {
		pthread_create(&t[2 * i], NULL, produce, NULL);
		pthread_create(&t[2 * i + 1], NULL, consume, &sums[i]);
	}
	for (int i = 0; i < 2 * pairs; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < pairs; i++)
		sum += sums[i];
	return sum;
}

int main(void)
{
	static const char *const says[] = {"spin", "sleep"};
	unsigned long each = EACH / 2 * (EACH + 1ul);
	int err = shunt_lock_auto(true);
	bool good = true;

	if (err) {
		fprintf(stderr, "the locks' mode is nobody's business: %s\n", strerror(-err));
		return 1;
	}
	good &= run(1) == each;
	printf("1 pair of threads: waiters %s\n", says[shunt_lock_get_mode()]);
	good &= run(PAIRS) == PAIRS * each;
	printf("%d pairs: waiters %s\n", PAIRS, says[shunt_lock_get_mode()]);
	for (int i = 0; i < 300 && shunt_lock_get_mode() == SHUNT_LOCK_PARK; i++)
		usleep(10000);
	printf("a while later: waiters would %s\n", says[shunt_lock_get_mode()]);
	return shunt_lock_auto(false) || !good;
}
