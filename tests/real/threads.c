/* SPDX-License-Identifier: MIT */
/* Eight threads that count primes till told to stop by a file (argv[1]); for ever
 * without one. The result does not depend on how long it took. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static const char *stop;

__attribute__((noinline)) static int is_prime(int n)
{
	__asm__ volatile(""); /* not pure: else one call serves for all */
	for (int d = 2; d * d <= n; d++)
		if (n % d == 0)
			return 0;
	return n > 1;
}

__attribute__((noinline)) static int count(int to)
{
	int c = 0;

	for (int n = 0; n < to; n++)
		c += is_prime(n);
	return c;
}

static void *work(void *arg)
{
	long wrong = 0;

	(void)arg;
	do {
		wrong += count(200) != 46;
		usleep(1000);
	} while (!stop || access(stop, F_OK) != 0);
	return (void *)wrong;
}

int main(int argc, char **argv)
{
	pthread_t t[8];
	long wrong = 0;

	if (argc > 1)
		stop = argv[1];
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, work, NULL);
	for (int i = 0; i < 8; i++) {
		void *r;

		pthread_join(t[i], &r);
		wrong += (long)r;
	}
	printf("wrong: %ld\n", wrong);
	return wrong ? 1 : 0;
}
