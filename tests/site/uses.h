/* SPDX-License-Identifier: MIT */
/* uses.h - what the two units of uses.c share; C and C++. */
#ifndef USES_H
#define USES_H

#include <shunt/call.h>
#include <shunt/imv.h>
#include <shunt/key.h>
#include <shunt/lock.h>
#include <shunt/ops.h>
#include <shunt/trace.h>

enum color { RED, GREEN = 7 };
static const struct shunt_label colors[] = {{"RED", RED}, {"GREEN", GREEN}, {NULL, 0}};

/* In both units: one for each object. */
SHUNT_TRACEPOINT(uses, hit, shunt_integer(int, n), shunt_enumeration(enum color, c, colors),
	shunt_string(s), shunt_sequence(unsigned short, q));
SHUNT_TRACEPOINT(uses, nothing);

struct pair {
	long a, b, c;
};

#ifdef __cplusplus
extern "C" {
#endif
int add_one(int x);
void op_slow(long *at);
#ifdef __cplusplus
}
#endif

SHUNT_DECLARE_CALL(change, add_one);
SHUNT_DECLARE_IMV(int, shared_int);
SHUNT_DECLARE_KEY_FALSE(shared_off);
SHUNT_DECLARE_KEY_TRUE(shared_on);
SHUNT_DECLARE_KEY_ARRAY_FALSE(row, 5);
SHUNT_DECLARE_CHOICE(width);

#ifdef __cplusplus
extern "C" {
#endif
int far_int(void);
int far_keys(void);
int far_row(void);
int far_own(int set);
int far_change(int x);
int far_set(int how);
int far_width(void);
long far_op(long x);
void far_hit(int n);
bool far_lock(struct shunt_lock *l);
#ifdef __cplusplus
}
#endif

/* In many units: a site in each. */
static inline __attribute__((always_inline)) int everywhere(void)
{
	return (shunt_key_unlikely(shared_off) ? 1 : 0) + (shunt_key_likely(shared_off) ? 2 : 0) +
	       (shunt_key_unlikely(shared_on) ? 4 : 0) + (shunt_key_likely(shared_on) ? 8 : 0);
}

#ifdef __cplusplus
/* Both units have these; the linker keeps one of each, with its sites. */
inline __attribute__((noinline)) int in_comdat(int x)
{
	return (shunt_key_unlikely(shared_off) ? 100 : 0) + shunt_call(change)(x) +
	       (shunt_choice(width) == 2 ? 1000 : 0);
}

template <int N> __attribute__((noinline)) int in_template(int x)
{
	return shunt_key_likely(shared_on) ? x + N : x - N;
}

int far_comdat(int x);
#endif

/* What a function may change of the registers. */
#define ANY_REGISTER \
	"memory", "cc", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", \
		"xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
		"xmm13", "xmm14", "xmm15"

/* x, 4 x, x + 7 or x + 100, with something in the red zone. */
static inline __attribute__((always_inline)) long op_of(long x)
{
	volatile long below[4] = {1, 2, 3, x};
	long *at = &x;

	shunt_op(width, ("+D"(at)), ("i"(0)), (ANY_REGISTER), SHUNT_OP_NOP, "shlq $2, (%%rdi)",
		SHUNT_OP_CODE(inc, "incq (%%rdi); addq $6, (%%rdi)"), SHUNT_OP_CALL(op_slow));
	return below[0] + below[1] + below[2] == 6 && below[3] != -1 ? x : -1;
}

#endif
