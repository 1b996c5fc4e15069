/* SPDX-License-Identifier: MIT */
/*
 * many.c [patch] - a program of 20,000 functions that ends at once: what a tracer
 * costs until main(). With "patch" (XRay only), the time to switch all of them on
 * and off while two threads run through them.
 */
#include "common.h"
#include <pthread.h>

extern long (*const many[])(long);
extern const int n_many;

#ifdef WITH_XRAY
#define UNTRACED __attribute__((xray_never_instrument))
int __xray_patch(void);
int __xray_unpatch(void);
int __xray_set_handler(void (*handler)(int, int));

static volatile int stop;
static volatile long hits;

UNTRACED static void nothing(int id, int type)
{
	(void)id;
	(void)type;
	hits++;
}

UNTRACED static void *run(void *arg)
{
	volatile long x = 1;

	pin((int)(long)arg);
	for (unsigned k = 1; !stop; k++)
		for (int i = 0; i < 16; i++)
			x = many[(k * 7919u + (unsigned)i * 104729u) % (unsigned)n_many](x);
	return NULL;
}

UNTRACED static int patch(void)
{
	double on[RUNS], off[RUNS];
	pthread_t t[2];

	__xray_set_handler(nothing);
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, run, (void *)i);
	for (int r = -1; r < RUNS; r++) {
		struct timespec pause = {.tv_nsec = 1000000};
		double a, b;

		a = now();
		if (__xray_patch() != 1)
			return 1;
		a = now() - a;
		nanosleep(&pause, NULL);
		b = now();
		if (__xray_unpatch() != 1)
			return 1;
		b = now() - b;
		if (r >= 0) /* the first copies the program's pages */
			on[r] = a, off[r] = b;
	}
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	printf("peer.xray.live.%d.on %.3f ms\n", n_many, median(on, RUNS) / 1e6);
	printf("peer.xray.live.%d.off %.3f ms\n", n_many, median(off, RUNS) / 1e6);
	return hits == 0;
}
#else
#define UNTRACED __attribute__((no_instrument_function))
UNTRACED static int patch(void)
{
	return 2;
}
#endif

UNTRACED int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "patch"))
		return patch();
	return many[0] == NULL;
}
