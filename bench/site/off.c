/* SPDX-License-Identifier: MIT */
/*
 * off.c - what a decision that is off costs in a hot loop: a key and an op, beside the
 * empty loop and a variable that is tested. With -DPEERS a disabled LTTng-UST tracepoint
 * and a USDT probe with a semaphore, too. A processor of today hides any of them in a
 * loop so short; with eight of them in each turn (_8) it shows which one fills it up.
 *
 *   bench-site-off [PREFIX]         times
 *   bench-site-off --count LOOP N   runs loop_LOOP(N) and nothing else, for callgrind
 */
#include "measure.h"

#include <shunt/key.h>
#include <shunt/ops.h>

#ifdef PEERS
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "lttng_tp.h"
#define SDT_USE_VARIADIC
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
/* What a tracer increments. */
__extension__ unsigned short bench_probe_semaphore __attribute__((section(".probes")));
#endif

SHUNT_DEFINE_STATIC_KEY_FALSE(off);
SHUNT_DEFINE_STATIC_KEY_FALSE(on);
SHUNT_DEFINE_CHOICE(op, "off", "on");

int variable;
unsigned long hits;

#define KEY(name) \
	if (shunt_key_unlikely(name)) \
	hits++
#define OP \
	shunt_op(op, (), ("D"(&hits)), ("memory", "cc"), SHUNT_OP_NOP, "incq (%%rdi)")
#define VARIABLE \
	if (__builtin_expect(variable, 0)) \
	hits++
#define LTTNG lttng_ust_tracepoint(shunt_peer, event16, 1, 2)
#define USDT \
	if (__builtin_expect(bench_probe_semaphore, 0)) \
	STAP_PROBE2(bench, probe, 1, 2)

LOOP(empty, )
LOOP(key, KEY(off))
LOOP(key_8, EIGHT(KEY(off)))
LOOP(key_on, KEY(on))
LOOP(op, OP)
LOOP(op_8, EIGHT(OP))
LOOP(variable, VARIABLE)
LOOP(variable_8, EIGHT(VARIABLE))
#ifdef PEERS
LOOP(lttng_ust, LTTNG)
LOOP(lttng_ust_8, EIGHT(LTTNG))
LOOP(usdt, USDT)
LOOP(usdt_8, EIGHT(USDT))
#endif

static struct loop loops[] = {
	{.name = "empty", .run = loop_empty},
	{.name = "key", .run = loop_key},
	{.name = "key_8", .run = loop_key_8},
	{.name = "op", .run = loop_op},
	{.name = "op_8", .run = loop_op_8},
	{.name = "variable", .run = loop_variable},
	{.name = "variable_8", .run = loop_variable_8},
#ifdef PEERS
	{.name = "lttng_ust", .run = loop_lttng_ust},
	{.name = "lttng_ust_8", .run = loop_lttng_ust_8},
	{.name = "usdt", .run = loop_usdt},
	{.name = "usdt_8", .run = loop_usdt_8},
#endif
	{.name = "key_on", .run = loop_key_on},
};
#define LOOPS (sizeof loops / sizeof *loops)

static int count(const char *name, long n)
{
	for (size_t i = 0; i < LOOPS; i++)
		if (!strcmp(loops[i].name, name)) {
			loops[i].run(n);
			return 0;
		}
	fprintf(stderr, "no loop %s\n", name);
	return 2;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--count"))
		return count(argv[2], atol(argv[3]));
	pin(1);
	if (shunt_key_enable(on))
		return 1;
	measure(argc > 1 ? argv[1] : "site.off", loops, LOOPS, 10000000);
	return 0;
}
