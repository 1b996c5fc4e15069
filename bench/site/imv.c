/* SPDX-License-Identifier: MIT */
/*
 * imv.c - reading an immediate value, beside a load of a variable: in a loop that has it
 * in the first cache; then once after memory of this or that size was walked through,
 * which drives the variable out of the first cache, the second, or all.
 *
 * A cold read's instruction is not cold: it comes along with the code around it, as in a
 * program. It is timed alone: what the time-stamp counter says around it, less what it
 * says around nothing. The counter ticks in steps of some nanoseconds, so a run is
 * the mean of many; a run's figure is a median of RUNS as all others.
 */
#include <stdint.h>
#include <x86intrin.h>

#include "measure.h"

#include <shunt/imv.h>

SHUNT_DEFINE_STATIC_IMV(uint32_t, immediate, 1);

/* A line of its own; not static, or the compiler would know the values. */
struct {
	uint32_t value;
	volatile uint32_t volatile_value;
} variable __attribute__((aligned(128))) = {1, 1};

/* The value is used where it is. */
#define USE(value) \
	do { \
		uint64_t v_ = value; \
		__asm__ volatile("" : : "r"(v_)); \
	} while (0)

LOOP(empty, )
LOOP(imv, USE(shunt_imv_read(immediate)))
LOOP(imv_8, EIGHT(USE(shunt_imv_read(immediate))))
LOOP(load, USE(variable.value))
LOOP(load_8, EIGHT(USE(variable.value)))
LOOP(volatile_load, USE(variable.volatile_value))
LOOP(volatile_load_8, EIGHT(USE(variable.volatile_value)))

static struct loop hot[] = {
	{.name = "empty", .run = loop_empty},
	{.name = "imv", .run = loop_imv},
	{.name = "imv_8", .run = loop_imv_8},
	{.name = "load", .run = loop_load},
	{.name = "load_8", .run = loop_load_8},
	{.name = "volatile_load", .run = loop_volatile_load},
	{.name = "volatile_load_8", .run = loop_volatile_load_8},
};

/* --- cold ----------------------------------------------------------------------- */

#define LINE   64
#define MEMORY (size_t)(128 << 20)
static uint8_t *memory;

static void walk(size_t size)
{
	for (size_t i = 0; i < size; i += LINE)
		USE(memory[i]);
}

/* Nothing of what follows begins before the counter is read. */
static uint64_t before(void)
{
	uint64_t t;

	_mm_mfence();
	_mm_lfence();
	t = __rdtsc();
	_mm_lfence();
	__asm__ volatile("" : : : "memory");
	return t;
}

/* When the value is there. */
static uint64_t after(uint64_t value)
{
	unsigned processor;
	uint64_t t;

	__asm__ volatile("" : : "r"(value) : "memory");
	_mm_lfence();
	t = __rdtscp(&processor);
	_mm_lfence();
	return t;
}

#define COLD(name, read) \
	__attribute__((noinline, aligned(64))) static uint64_t cold_##name(void) \
	{ \
		uint64_t t = before(); \
\
		return after(read) - t; \
	}
COLD(nothing, 1)
COLD(imv, shunt_imv_read(immediate))
COLD(load, variable.value)
COLD(volatile_load, variable.volatile_value)

static struct {
	const char *name;
	uint64_t (*once)(void);
	double ns[RUNS];
} cold[] = {
	{.name = "nothing", .once = cold_nothing},
	{.name = "imv", .once = cold_imv},
	{.name = "load", .once = cold_load},
	{.name = "volatile_load", .once = cold_volatile_load},
};
#define COLDS (sizeof cold / sizeof *cold)

static double ns_per_tick(void)
{
	double t = now();
	uint64_t c = __rdtsc();

	while (now() - t < 50e6)
		;
	return (now() - t) / (double)(__rdtsc() - c);
}

static void after_walking(const char *what, size_t size, int times)
{
	double tick = ns_per_tick(), nothing = 0;

	for (int r = 0; r < RUNS; r++)
		for (size_t i = 0; i < COLDS; i++) {
			uint64_t ticks = 0;

			for (int k = 0; k < times; k++) {
				walk(size);
				ticks += cold[i].once();
			}
			cold[i].ns[r] = (double)ticks * tick / times;
		}
	for (size_t i = 0; i < COLDS; i++) {
		double m = median(cold[i].ns, RUNS);

		if (!i)
			nothing = m;
		else
			printf("site.imv.%s.%s %.2f ns\n", what, cold[i].name, m - nothing);
	}
	fflush(stdout);
}

int main(void)
{
	memory = malloc(MEMORY);
	if (!memory)
		return 1;
	memset(memory, 1, MEMORY);
	pin(1);
	measure("site.imv.hot", hot, sizeof hot / sizeof *hot, 20000000);
	after_walking("in_cache", 0, 20000);
	after_walking("l1_evicted", 192 << 10, 2000);
	after_walking("l2_evicted", 4 << 20, 100);
	after_walking("all_evicted", MEMORY, 4);
	free(memory);
	return 0;
}
