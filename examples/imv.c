/* SPDX-License-Identifier: MIT */
/*
 * imv.c - a batch size that lives in the instructions: a worker reads it in its
 * loop without a load, and it is changed while the worker runs.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <shunt/imv.h>

SHUNT_DEFINE_STATIC_IMV(unsigned, batch, 8);

static atomic_int stop;
static atomic_ulong batches, items;

static void *worker(void *arg)
{
	(void)arg;
	while (!stop) {
		unsigned n = 0;

		while (n < shunt_imv_read(batch))
			n++;
		batches++;
		items += n;
	}
	return NULL;
}

int main(void)
{
	unsigned long before;
	pthread_t t;
	int err;

	pthread_create(&t, NULL, worker, NULL);
	while (batches < 1000)
		;
	err = shunt_imv_set(batch, 512);
	if (err) {
		fprintf(stderr, "batch: %s\n", strerror(-err));
		return 1;
	}
	before = batches;
	while (batches < before + 1000)
		;
	stop = 1;
	pthread_join(t, NULL);
	printf("%lu items in %lu batches\n", (unsigned long)items, (unsigned long)batches);
	return items < 1000 * 8 + 999 * 512ul;
}
