/* SPDX-License-Identifier: MIT */
/*
 * tracepoint.c [N] - tracepoints with all sorts of fields in two threads, and a probe of
 * the program's own on one of them; N packets (default 1,000).
 *
 *   shunt record -e 'net:*' --event-filter 'len > 1000' -o t ./tracepoint
 *   shunt dump --text t
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/trace.h>

enum state { CLOSED, OPEN, HALF_OPEN = 10 };
static const struct shunt_label states[] = {
	{"CLOSED", CLOSED}, {"OPEN", OPEN}, {"HALF_OPEN", HALF_OPEN}, {NULL, 0}};

SHUNT_TRACEPOINT(net, packet, shunt_integer(unsigned, len), shunt_integer(uint16_t, port),
	shunt_string(device));
SHUNT_TRACEPOINT(net, state, shunt_enumeration(enum state, now, states), shunt_real(double, load),
	shunt_array(uint8_t, mac, 6), shunt_sequence(int, queue));
SHUNT_TRACEPOINT(net, idle);
SHUNT_MARK(progress);

static unsigned long n = 1000;

static void *sender(void *arg)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 7};
	const char *device = arg;

	for (unsigned long i = 0; i < n; i++) {
		int queue[3] = {(int)i, -1, 7};

		shunt_trace(net, packet, (unsigned)(i % 1500), (uint16_t)(i & 1 ? 80 : 443), device);
		if (i % 100 == 0) {
			shunt_trace(net, state, i ? OPEN : HALF_OPEN, (double)i / 4, mac, queue, 1 + i % 3);
			shunt_trace(net, idle);
			shunt_mark(progress, "%s: %lu of %lu", device, i, n);
		}
	}
	return NULL;
}

static void add(unsigned len, uint16_t port, const char *device, void *sum)
{
	(void)port;
	(void)device;
	__atomic_fetch_add((unsigned long *)sum, len, __ATOMIC_RELAXED);
}

int main(int argc, char **argv)
{
	unsigned long bytes = 0, want = 0;
	pthread_t t[2];
	int err;

	if (argc > 1)
		n = strtoul(argv[1], NULL, 10);
	err = shunt_trace_register(net, packet, add, &bytes);
	if (err) {
		fprintf(stderr, "net:packet: %s\n", strerror(-err));
		return 1;
	}
	pthread_create(&t[0], NULL, sender, "eth0");
	pthread_create(&t[1], NULL, sender, "lo");
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	if (shunt_trace_unregister(net, packet, add, &bytes))
		return 1;
	for (unsigned long i = 0; i < n; i++)
		want += 2 * (i % 1500);
	printf("%lu bytes\n", bytes);
	return bytes != want;
}
