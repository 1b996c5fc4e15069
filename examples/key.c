/* SPDX-License-Identifier: MIT */
/*
 * key.c - statistics that cost a NOP while nobody asks for them, switched on and off
 * again while four threads run.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <shunt/key.h>

SHUNT_DEFINE_STATIC_KEY_FALSE(statistics);

static atomic_int stop;
static atomic_ulong calls, counted;

static void request(void)
{
	calls++;
	if (shunt_key_unlikely(statistics))
		counted++;
}

static void *server(void *arg)
{
	(void)arg;
	while (!stop)
		request();
	return NULL;
}

/* Waits until n more requests have come. */
static void requests(unsigned long n)
{
	unsigned long before = calls;

	while (calls < before + n)
		;
}

int main(void)
{
	unsigned long on, off;
	pthread_t t[4];
	int err;

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, server, NULL);
	requests(100000);
	err = shunt_key_enable(statistics);
	if (err) {
		fprintf(stderr, "statistics: %s\n", strerror(-err));
		return 1;
	}
	requests(100000);
	shunt_key_disable(statistics);
	requests(1000); /* those under way have counted themselves */
	on = counted;
	requests(100000);
	off = counted - on;
	stop = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	printf("%lu requests, %lu of them counted\n", (unsigned long)calls, on);
	return on == 0 || off != 0;
}
