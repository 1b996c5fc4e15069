/* SPDX-License-Identifier: MIT */
/*
 * call.c - a filter that is a direct call, exchanged while four threads call it; and a
 * hook that nobody pays for while there is none.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <shunt/call.h>

static long same(long x)
{
	return x;
}

static long twice(long x)
{
	return 2 * x;
}

static atomic_ulong seen;

static void count(long x)
{
	(void)x;
	seen++;
}

SHUNT_DEFINE_CALL(filter, same);
SHUNT_DEFINE_NULL_CALL(hook, count);

static atomic_int stop, as_before, as_after;

static void *worker(void *arg)
{
	(void)arg;
	while (!stop) {
		long y = shunt_call(filter)(21);

		if (y == 21)
			as_before++;
		else if (y == 42)
			as_after++;
		else
			return "neither";
		shunt_call(hook)(y);
	}
	return NULL;
}

int main(void)
{
	pthread_t t[4];
	void *bad = NULL, *said;
	int err;

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, worker, NULL);
	while (as_before < 1000)
		;
	err = shunt_call_set(filter, twice);
	if (!err)
		err = shunt_call_set(hook, count);
	if (err) {
		fprintf(stderr, "the calls cannot be changed: %s\n", strerror(-err));
		return 1;
	}
	while (as_after < 1000 || seen < 1000)
		;
	shunt_call_set(hook, NULL);
	stop = 1;
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &said);
		bad = said ? said : bad;
	}
	printf("%d calls of the one, %d of the other, %lu of the hook\n", (int)as_before,
		(int)as_after, (unsigned long)seen);
	return bad != NULL;
}
