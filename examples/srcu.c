/* SPDX-License-Identifier: MIT */
/*
 * srcu.c - a table of routes that two threads read all the time, without a lock, while the main
 * thread replaces it; what was replaced is freed when nobody reads it any more.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <shunt/srcu.h>

struct table {
	struct shunt_rcu_head head; /* the first member, so that it is the table's address */
	int version;
	int route[64]; /* all the same in one version */
};

static SHUNT_SRCU_DEFINE(readers);
static struct table *_Atomic current;
static atomic_bool stop;
static atomic_int freed;

static struct table *make(int version)
{
	struct table *t = malloc(sizeof *t);

	if (!t)
		abort();
	t->version = version;
	for (int i = 0; i < 64; i++)
		t->route[i] = version;
	return t;
}

static void release(struct shunt_rcu_head *head)
{
	struct table *t = (struct table *)head;

	for (int i = 0; i < 64; i++)
		t->route[i] = -1; /* a reader would notice */
	free(t);
	freed++;
}

static void *reads(void *arg)
{
	long *wrong = arg;

	while (!stop) {
		int idx = shunt_srcu_read_lock(&readers);
		const struct table *t = atomic_load(&current);

		for (int i = 0; i < 64; i++)
			*wrong += t->route[i] != t->version;
		shunt_srcu_read_unlock(&readers, idx);
	}
	return NULL;
}

int main(void)
{
	enum { VERSIONS = 2000 };
	pthread_t thread[2];
	long wrong[2] = {0};

	current = make(0);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, reads, &wrong[i]))
			return 1;
	for (int v = 1; v <= VERSIONS; v++) {
		struct table *old = atomic_exchange(&current, make(v));

		if (shunt_srcu_call(&readers, &old->head, release))
			return 1;
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	shunt_srcu_barrier(&readers); /* all have been called */
	printf("%d versions, %d of them freed, %ld read wrong\n", VERSIONS + 1, freed + 0,
		wrong[0] + wrong[1]);
	free(current);
	return freed != VERSIONS || wrong[0] || wrong[1] || shunt_srcu_cleanup(&readers);
}
