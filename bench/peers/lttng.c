/* SPDX-License-Identifier: MIT */
/* lttng.c - an LTTng-UST event of 16 bytes, in a session that is there already. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "common.h"
#include "lttng_tp.h"

int main(void)
{
	pin(1);
	if (!lttng_ust_tracepoint_enabled(shunt_peer, event16)) {
		fprintf(stderr, "lttng: the event is not enabled\n");
		return 1;
	}
	printf("peer.lttng_ust.event_16 %.2f ns\n",
		MEASURE(lttng_ust_tracepoint(shunt_peer, event16, 1, 2)));
	return 0;
}
