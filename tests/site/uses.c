/* SPDX-License-Identifier: MIT */
/*
 * uses.c - every feature of imv.h, key.h, call.h, ops.h, trace.h and lock.h, compiled in every way
 * (matrix.sh), as C and as C++: each value read back, each branch taken, in both
 * states, in this unit, another one, and another object.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "uses.h"
#include "tap.h"

SHUNT_DEFINE_IMV(int, shared_int, -5);
SHUNT_DEFINE_KEY_FALSE(shared_off);
SHUNT_DEFINE_KEY_TRUE(shared_on);
SHUNT_DEFINE_KEY_ARRAY_FALSE(row, 5);
SHUNT_DEFINE_KEY_ARRAY_TRUE(rows, 3);

SHUNT_DEFINE_CHOICE(width, "one", "two", "four", "eight");
SHUNT_DEFINE_CHOICE(eighth, "0", "1", "2", "3", "4", "5", "6", "7");
SHUNT_DEFINE_CHOICE(by_cpu, "any", "sse2", "other");
SHUNT_CHOICE_PREFER(by_cpu, "sse2", 1);
SHUNT_CHOICE_PREFER(by_cpu, "avx512er", 2);

SHUNT_DEFINE_STATIC_IMV(bool, yes, true);
SHUNT_DEFINE_STATIC_IMV(unsigned char, u8, 200);
SHUNT_DEFINE_STATIC_IMV(signed char, s8, -100);
SHUNT_DEFINE_STATIC_IMV(unsigned short, u16, 60000);
SHUNT_DEFINE_STATIC_IMV(short, own, -30000);
SHUNT_DEFINE_STATIC_IMV(unsigned, u32, 4000000000u);
SHUNT_DEFINE_STATIC_IMV(long, s64, LONG_MIN + 1);
SHUNT_DEFINE_STATIC_IMV(unsigned long, u64, 0x123456789abcdef0ul);
SHUNT_DEFINE_STATIC_IMV(float, f32, 1.5f);
SHUNT_DEFINE_STATIC_IMV(double, f64, -2.25);
SHUNT_DEFINE_STATIC_IMV(const char *, text, "first");
SHUNT_DEFINE_STATIC_IMV(enum color, hue, GREEN);
SHUNT_DEFINE_STATIC_IMV(int, zero, 0);
SHUNT_DEFINE_STATIC_KEY_FALSE(mine);

/* Of priority 102: our sites are right by then, and may be changed. */
static int early;

__attribute__((constructor(102))) static void before_main(void)
{
	early = shunt_imv_read(shared_int) == -5 && !shunt_key_unlikely(mine) &&
		!shunt_imv_set(zero, 9) && shunt_imv_read(zero) == 9;
}

static void values(void)
{
	ok(early, "in a constructor: read, and set");
	ok(shunt_imv_read(yes) && shunt_imv_read(u8) == 200 && shunt_imv_read(s8) == -100 &&
			shunt_imv_read(u16) == 60000 && shunt_imv_read(own) == -30000 &&
			shunt_imv_read(u32) == 4000000000u,
		"first values of 1, 2 and 4 bytes");
	ok(shunt_imv_read(s64) == LONG_MIN + 1 && shunt_imv_read(u64) == 0x123456789abcdef0ul &&
			shunt_imv_read(text)[0] == 'f',
		"of 8 bytes");
	ok(shunt_imv_read(f32) == 1.5f && shunt_imv_read(f64) == -2.25 &&
			shunt_imv_read(hue) == GREEN,
		"floats, an enum");
	ok(!shunt_imv_set(yes, false) && !shunt_imv_read(yes) && !shunt_imv_set(u8, 255) &&
			shunt_imv_read(u8) == 255 && !shunt_imv_set(s8, -1) &&
			shunt_imv_read(s8) == -1 && !shunt_imv_set(u16, 1) &&
			shunt_imv_read(u16) == 1 && !shunt_imv_set(own, 77) &&
			shunt_imv_read(own) == 77 && !shunt_imv_set(u32, 0x80000000u) &&
			shunt_imv_read(u32) == 0x80000000u,
		"set, 1, 2 and 4 bytes");
	ok(!shunt_imv_set(s64, -1) && shunt_imv_read(s64) == -1 && !shunt_imv_set(u64, 1) &&
			shunt_imv_read(u64) == 1 && !shunt_imv_set(text, "second") &&
			shunt_imv_read(text)[0] == 's' && !shunt_imv_set(f32, -0.5f) &&
			shunt_imv_read(f32) == -0.5f && !shunt_imv_set(f64, 1e300) &&
			shunt_imv_read(f64) == 1e300 && !shunt_imv_set(hue, RED) &&
			shunt_imv_read(hue) == RED,
		"8 bytes, floats, an enum");
	ok(far_int() == -5 && !shunt_imv_set(shared_int, INT_MIN) && far_int() == INT_MIN &&
			shunt_imv_read(shared_int) == INT_MIN,
		"one that is read elsewhere, too");
	ok(far_own(0) == 103 && !far_own(5) && far_own(0) == 5 && shunt_imv_read(own) == 77 &&
			!shunt_key_enabled(mine),
		"the same static name in two units");
}

/* --- calls ---------------------------------------------------------------------- */

int add_one(int x)
{
	return x + 1;
}

static int add_two(int x)
{
	return x + 2;
}

static double scale(double x, int by, float and_by)
{
	return x * by * (double)and_by;
}

static double shrink(double x, int by, float and_by)
{
	return x / by / (double)and_by;
}

static struct pair swap(struct pair p)
{
	struct pair q = {p.c, p.b, p.a};

	return q;
}

static struct pair keep(struct pair p)
{
	return p;
}

static int noted;

static void note(void)
{
	noted++;
}

static int sum(int n, ...)
{
	va_list ap;
	double d = 0;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		d += va_arg(ap, double);
	va_end(ap);
	return (int)d;
}

static int count_of(int n, ...)
{
	return n;
}

SHUNT_DEFINE_CALL(change, add_one);
SHUNT_DEFINE_CALL(by_floats, scale);
SHUNT_DEFINE_CALL(by_struct, swap);
SHUNT_DEFINE_CALL(variadic, sum);
SHUNT_DEFINE_NULL_CALL(hook, note);

__attribute__((noinline)) static int tail(int x)
{
	return shunt_call(change)(x);
}

static void calls(void)
{
	struct pair p = {1, 2, 3};

	ok(shunt_call(change)(1) == 2 && tail(2) == 3 && far_change(3) == 4 &&
			shunt_call_target(change) == add_one,
		"a call to its first target");
	ok(!shunt_call_set(change, add_two) && shunt_call(change)(1) == 3 && tail(2) == 4 &&
			far_change(3) == 5 && shunt_call_target(change) == add_two,
		"to another one, here and far");
	ok(!far_set(1) && shunt_call(change)(1) == 1001 && far_change(1) == 1001 && !far_set(0) &&
			tail(1) == 2,
		"to one of another object");
	ok(!shunt_call_return_0(change) && shunt_call(change)(5) == 0 && far_change(5) == 0 &&
			!shunt_call_set(change, add_one) && far_change(5) == 6,
		"one that says 0");
	shunt_call(hook)();
	ok(noted == 0 && !shunt_call_set(hook, note) && (shunt_call(hook)(), noted == 1) &&
			!shunt_call_set(hook, NULL) && (shunt_call(hook)(), noted == 1),
		"none, one, none");
	ok(shunt_call(by_floats)(3.0, 4, 0.5f) == 6.0 && !shunt_call_set(by_floats, shrink) &&
			shunt_call(by_floats)(3.0, 4, 0.5f) == 1.5,
		"floats");
	p = shunt_call(by_struct)(p);
	ok(p.a == 3 && p.c == 1 && !shunt_call_set(by_struct, keep) &&
			shunt_call(by_struct)(p).a == 3,
		"structs");
	ok(shunt_call(variadic)(3, 1.0, 2.0, 3.5) == 6 && !shunt_call_set(variadic, count_of) &&
			shunt_call(variadic)(2, 1.0, 2.0) == 2,
		"variadic functions");
}

/* Every combination of the four keys' branches, here and far. */
static void keys(void)
{
	bool good = true;

	for (int round = 0; round < 3; round++)
		for (int state = 0; state < 4; state++) {
			int want = (state & 1 ? 3 : 0) | (state & 2 ? 12 : 0);

			if (round || state)
				good = good && !(state & 1 ? shunt_key_enable(shared_off)
							   : shunt_key_disable(shared_off)) &&
				       !(state & 2 ? shunt_key_enable(shared_on)
						   : shunt_key_disable(shared_on));
			else
				want = 12; /* as defined */
			good = good && everywhere() == want && far_keys() == want &&
			       shunt_key_enabled(shared_off) == !!(want & 1) &&
			       shunt_key_enabled(shared_on) == !!(want & 4);
		}
	ok(good, "likely and unlikely, true and false, in all states, in two places");
	ok(far_row() == 0 && !shunt_key_enable(row[4]) && far_row() == 2 &&
			shunt_key_unlikely_at(row, 4) && !shunt_key_unlikely_at(row, 3) &&
			!shunt_key_enable(row[0]) && !shunt_key_disable(row[4]) && far_row() == 1,
		"an array of keys");
	ok(shunt_key_likely_at(rows, 2) && !shunt_key_disable(rows[2]) &&
			!shunt_key_likely_at(rows, 2) && shunt_key_likely_at(rows, 1),
		"an array of true keys");
}

static void counted(void)
{
	struct shunt_key *both[2] = {&mine.key, &shared_off.key};
	bool on[2] = {true, true};

	ok(!shunt_key_inc(mine) && !shunt_key_inc(mine) && shunt_key_unlikely(mine) &&
			!shunt_key_dec(mine) && shunt_key_unlikely(mine) && !shunt_key_dec(mine) &&
			!shunt_key_unlikely(mine) && shunt_key_dec(mine) == -EOVERFLOW &&
			!shunt_key_unlikely(mine),
		"counted");
	shunt_key_disable(shared_off);
	ok(!shunt_keys_set(both, on, 2) && shunt_key_unlikely(mine) && far_keys() & 1,
		"two in one batch");
	on[0] = false;
	ok(!shunt_keys_set(both, on, 2) && !shunt_key_unlikely(mine) && far_keys() & 1,
		"of which one changes");
}

/* --- choices ------------------------------------------------------------------- */

static int plus_sse2(int x)
{
	return x + 2;
}

SHUNT_DEFINE_CALL(plus_by_cpu, add_one);
SHUNT_CALL_PREFER(plus_by_cpu, "sse2", plus_sse2);

__attribute__((used)) void op_slow(long *at)
{
	char aligned[16] __attribute__((aligned(16)));
	char *volatile p = aligned;

	*at += ((uintptr_t)p & 15) ? 1 : 100;
}

static int static_number = 5;

/* Its second instruction is relative to where it is; the first, shorter, is not. */
static int relative(void)
{
	int n = 0;

	shunt_op(eighth, ("+r"(n)), ("m"(static_number)), ("cc"), "inc %0", "addl %1, %0");
	return n;
}

static int seven(void)
{
	switch (shunt_choice(eighth)) {
	case 0:
		return 100;
	case 3:
		return 103;
	case 7:
		return 107;
	default:
		return -shunt_choice(eighth);
	}
}

static void choices(void)
{
	static const long ops[4] = {5, 20, 12, 105};
	bool good = true;

	ok(shunt_choice(by_cpu) == 1 && shunt_choice_get(by_cpu) == 1 &&
			shunt_call(plus_by_cpu)(0) == 2 && !shunt_call_set(plus_by_cpu, add_one) &&
			shunt_call(plus_by_cpu)(0) == 1,
		"by the processor's features at load, and changed later");
	for (int round = 0; round < 24; round++) {
		int s = round * 7 / 3 % 4; /* each after each */

		good = good && (!round || !shunt_choice_set(width, (uint64_t)s)) &&
		       shunt_choice(width) == s && far_width() == 10 + s && op_of(5) == ops[s] &&
		       far_op(5) == ops[s];
	}
	ok(good, "four ways, branches and instructions, in two places");
	static_number = 40;
	good = seven() == 100 && relative() == 1;
	for (int s = 7; s > 0; s--)
		good = good && !shunt_choice_set(eighth, (uint64_t)s) && relative() == 40 &&
		       seven() == (s == 3 || s == 7 ? 100 + s : -s);
	ok(good, "eight ways, of two variants the last; an operand relative to the instruction");
	ok(shunt_choice_set(eighth, 8) == -ERANGE && shunt_choice(eighth) == 1 &&
			!shunt_choice_set(eighth, 0) && relative() == 1,
		"no ninth state");
}

/* --- the lock ------------------------------------------------------------------------ */

static void locking(void)
{
	struct shunt_lock l = SHUNT_LOCK_INIT;
	bool good = true;

	for (int round = 0; round < 4; round++) {
		good = good && !shunt_lock_set_mode(round & 1 ? SHUNT_LOCK_PARK : SHUNT_LOCK_NATIVE);
		shunt_lock_lock(&l);
		good = good && !shunt_lock_trylock(&l) && !far_lock(&l);
		shunt_lock_unlock(&l);
		good = good && far_lock(&l) && shunt_lock_trylock(&l);
		shunt_lock_unlock(&l);
	}
	ok(good && !shunt_lock_set_mode(SHUNT_LOCK_NATIVE), "a lock, native and parking, in two places");
}

/* --- what the linker discards ----------------------------------------------------- */

static void comdats(void)
{
#ifdef __cplusplus
	bool good = true;

	for (int i = 0; i < 4; i++) {
		int want, far;

		good = good && !shunt_key_set(&shared_off.key, i & 1) && !shunt_key_set(&shared_on.key, i < 2) &&
		       !shunt_choice_set(width, i & 2 ? 2u : 1u);
		want = (i & 1 ? 100 : 0) + 6 + (i & 2 ? 1000 : 0);
		far = want + (i < 2 ? 5 + 10000 : 5 - 10000);
		good = good && in_comdat(5) == want && in_template<10000>(5) == far - want &&
		       far_comdat(5) == far;
	}
	ok(good && !shunt_key_disable(shared_off) && !shunt_key_enable(shared_on) &&
			!shunt_choice_set(width, 0),
		"inline functions and templates in two units");
#endif
}

/* --- tracepoints ----------------------------------------------------------------- */

SHUNT_MARK(here);

static int hits, args;

static void hit(int n, enum color c, const char *s, const unsigned short *q, size_t q_count, void *data)
{
	*(int *)data += n == 5 && s && (q_count == 2 ? q[1] == 2 && c == GREEN : c == RED);
}

static int arg(int n)
{
	args++;
	return n;
}

static void points(void)
{
	shunt_trace(uses, hit, arg(5), RED, "near", NULL, 0);
	shunt_mark(here, "%d", arg(1));
	ok(!hits && !args && !shunt_point_on(uses, hit), "a tracepoint that is off");
	ok(!shunt_trace_register(uses, hit, hit, &hits) && shunt_point_on(uses, hit), "a probe");
	shunt_trace(uses, hit, arg(5), RED, "near", NULL, 0);
	far_hit(5); /* in another object its own */
	ok(args == 1 && (hits == 1 || hits == 2) && !shunt_trace_unregister(uses, hit, hit, &hits),
		"is called");
	shunt_trace(uses, hit, arg(5), RED, "near", NULL, 0);
	ok(args == 1 && hits <= 2, "and not any more");
}

int main(void)
{
	choices();
	points();
	comdats();
	locking();
	values();
	calls();
	keys();
	counted();
	return done();
}
