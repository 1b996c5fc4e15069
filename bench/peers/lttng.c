/* SPDX-License-Identifier: MIT */
/*
 * lttng.c - an LTTng-UST event of 16 bytes, in a session that is there already; by one
 * thread, and by two at once on two processors.
 */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "common.h"
#include "lttng_tp.h"

#include <pthread.h>

static volatile int stop;

static void *other(void *arg)
{
	pin(0);
	while (!stop)
		lttng_ust_tracepoint(shunt_peer, event16, 1, 2);
	return arg;
}

int main(void)
{
	pthread_t t;

	pin(1);
	if (!lttng_ust_tracepoint_enabled(shunt_peer, event16)) {
		fprintf(stderr, "lttng: the event is not enabled\n");
		return 1;
	}
	printf("peer.lttng_ust.event_16 %.2f ns\n",
		MEASURE(lttng_ust_tracepoint(shunt_peer, event16, 1, 2)));
	pthread_create(&t, NULL, other, NULL);
	printf("peer.lttng_ust.event_16_two_threads %.2f ns\n",
		MEASURE(lttng_ust_tracepoint(shunt_peer, event16, 1, 2)));
	stop = 1;
	pthread_join(t, NULL);
	return 0;
}
