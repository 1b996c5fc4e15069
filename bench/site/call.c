/* SPDX-License-Identifier: MIT */
/*
 * call.c - a static call beside a direct one and function pointers, of which the one
 * goes where it went before and the other to one of two targets at random; then the
 * three kinds of an op (nothing, an instruction, a call) beside an indirect call
 * through a table of operations that does the same.
 */
#include <stdint.h>

#include "measure.h"

#include <shunt/call.h>
#include <shunt/ops.h>

/* --- calls ------------------------------------------------------------------------- */

static uint64_t sum;

__attribute__((noinline)) static void add_one(uint64_t n)
{
	sum += n;
}

__attribute__((noinline)) static void add_two(uint64_t n)
{
	sum += 2 * n;
}

SHUNT_DEFINE_CALL(adds, add_one);
SHUNT_DEFINE_NULL_CALL(none, add_one);

typedef void add_fn(uint64_t n);
/* Not static, or the compiler would know them. */
add_fn *pointer = add_one, *null;
static add_fn *const both[] = {add_one, add_two};

/* Which of two: always the same; at random, for longer than a predictor remembers. */
enum { PICKS = 1 << 20 };
static uint8_t same[PICKS], any[PICKS];

LOOP(direct, add_one((uint64_t)i))
LOOP(static, shunt_call(adds)((uint64_t)i))
LOOP(static_null, shunt_call(none)((uint64_t)i))
LOOP(pointer, pointer((uint64_t)i))
LOOP(pointer_null, if (null) null((uint64_t)i))
LOOP(pointer_predictable, both[same[i % PICKS]]((uint64_t)i))
LOOP(pointer_random, both[any[i % PICKS]]((uint64_t)i))

static struct loop calls[] = {
	{.name = "direct", .run = loop_direct},
	{.name = "static", .run = loop_static},
	{.name = "static_null", .run = loop_static_null},
	{.name = "pointer", .run = loop_pointer},
	{.name = "pointer_null", .run = loop_pointer_null},
	{.name = "pointer_predictable", .run = loop_pointer_predictable},
	{.name = "pointer_random", .run = loop_pointer_random},
};

/* --- ops --------------------------------------------------------------------------- */

struct counter;
struct operations {
	void (*count)(struct counter *c);
};
struct counter {
	const struct operations *ops;
	uint64_t n;
};

/* Not static: an op calls it by its name. */
void count_one(struct counter *c);
__attribute__((used, noinline)) void count_one(struct counter *c)
{
	c->n++;
}

__attribute__((noinline)) static void count_nothing(struct counter *c)
{
	__asm__ volatile("" : : "r"(c));
}

static const struct operations nothing = {count_nothing}, counts = {count_one};
static struct counter counter;
/* Not static, or the compiler would know what they do. */
struct counter off_object = {&nothing, 0}, on_object = {&counts, 0};
struct counter *off_at = &off_object, *on_at = &on_object;

SHUNT_DEFINE_CHOICE(op_off, "off", "inline", "call");
SHUNT_DEFINE_CHOICE(op_inline, "off", "inline", "call");
SHUNT_DEFINE_CHOICE(op_call, "off", "inline", "call");

#define OP(name) \
	shunt_op(name, ("+D"(at)), ("i"(0)), \
		("memory", "cc", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", \
			"xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
			"xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"), \
		SHUNT_OP_NOP, "incq 8(%%rdi)", SHUNT_OP_CALL(count_one))

LOOP(off, struct counter *at = &counter; OP(op_off))
LOOP(inline, struct counter *at = &counter; OP(op_inline))
LOOP(call, struct counter *at = &counter; OP(op_call))
LOOP(table_nothing, off_at->ops->count(off_at))
LOOP(table_count, on_at->ops->count(on_at))
LOOP(plain, counter.n++)
LOOP(empty, )

static struct loop ops[] = {
	{.name = "empty", .run = loop_empty},
	{.name = "off", .run = loop_off},
	{.name = "table_nothing", .run = loop_table_nothing},
	{.name = "plain", .run = loop_plain},
	{.name = "inline", .run = loop_inline},
	{.name = "call", .run = loop_call},
	{.name = "table_count", .run = loop_table_count},
};

int main(void)
{
	uint64_t x = 88172645463325252u;

	for (int i = 0; i < PICKS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		any[i] = x >> 40 & 1;
	}
	if (shunt_choice_set(op_inline, 1) || shunt_choice_set(op_call, 2))
		return 1;
	pin(1);
	measure("site.call", calls, sizeof calls / sizeof *calls, 5000000);
	measure("site.op", ops, sizeof ops / sizeof *ops, 5000000);
	return sum == 0 || counter.n == 0 || off_object.n != 0;
}
