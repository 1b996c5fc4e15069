/* SPDX-License-Identifier: MIT */
/* victim.h - functions to be traced, compiled with patchable entries. */
#ifndef VICTIM_H
#define VICTIM_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int v_leaf(int x);
int v_mid(int x);
int v_recurse(int depth);
int v_call(int (*fn)(void *), void *arg);
void v_call2(void (*fn)(void *), void *arg);
long v_many(long a, long b, long c, long d, long e, long f, long g, long h, long i);
double v_doubles(double a, double b, double c, double d, double e, double f, double g,
	double h, double i);
int v_varargs(int n, ...);
double v_varargs_d(int n, ...);
long double v_long_double(long double x);
struct v_big {
	long x[8];
};
struct v_pair {
	double d;
	long l;
};
struct v_big v_struct(long seed);
struct v_pair v_pair(double d, long l);
__extension__ typedef __int128 v_wide;
v_wide v_int128(v_wide x);
_Complex double v_complex(double re, double im);
int v_static_chain(int x);
int v_tail(int x);	     /* leaves by a jump to v_leaf */
long v_tail_loop(long n);    /* two functions that jump to each other n times */
long v_tail_loop2(long n, long acc);
void v_jump(jmp_buf env, int depth);
unsigned long v_frame_size(size_t n); /* alloca */
int v_aligned(int x);	     /* needs a 64-byte aligned stack slot */
uint64_t v_vector_sum(const float *p); /* vector arguments and results */
int v_handler_work(int x);
void *v_return_address(void);
int v_regs(void);	     /* 0 when all call-clobbered registers came through */

#ifdef __cplusplus
}
#endif
#endif
