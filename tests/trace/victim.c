/* SPDX-License-Identifier: MIT */
/* victim.c - see victim.h. Compiled with -fpatchable-function-entry. */
#include <alloca.h>
#include <stdarg.h>
#include <string.h>

#include "victim.h"

#define NOINLINE __attribute__((noinline, noclone, noipa))
#ifdef __clang__
#undef NOINLINE
#define NOINLINE __attribute__((noinline))
#endif
#define BARRIER() __asm__ volatile("" ::: "memory")

NOINLINE int v_leaf(int x)
{
	BARRIER();
	return x + 1;
}

NOINLINE int v_mid(int x)
{
	int r = v_leaf(x);

	BARRIER();
	return r + v_leaf(x);
}

NOINLINE int v_recurse(int depth)
{
	int r = depth ? v_recurse(depth - 1) : 0;

	BARRIER();
	return r + 1;
}

NOINLINE int v_call(int (*fn)(void *), void *arg)
{
	int r = fn(arg);

	BARRIER();
	return r;
}

NOINLINE void v_call2(void (*fn)(void *), void *arg)
{
	fn(arg);
	BARRIER();
}

NOINLINE long v_many(long a, long b, long c, long d, long e, long f, long g, long h, long i)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i;
}

NOINLINE double v_doubles(double a, double b, double c, double d, double e, double f, double g,
	double h, double i)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i;
}

NOINLINE int v_varargs(int n, ...)
{
	va_list ap;
	int r = 0;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		r = r * 3 + va_arg(ap, int);
	va_end(ap);
	return r;
}

NOINLINE double v_varargs_d(int n, ...)
{
	va_list ap;
	double r = 0;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		r = r * 3 + va_arg(ap, double);
	va_end(ap);
	return r;
}

NOINLINE long double v_long_double(long double x)
{
	return x * 1.25L + 1;
}

NOINLINE struct v_big v_struct(long seed)
{
	struct v_big b;

	for (int i = 0; i < 8; i++)
		b.x[i] = seed * (i + 1);
	return b;
}

NOINLINE struct v_pair v_pair(double d, long l)
{
	struct v_pair p = {d * 2, l * 2};

	return p;
}

NOINLINE v_wide v_int128(v_wide x)
{
	return x * 3 + 1;
}

NOINLINE _Complex double v_complex(double re, double im)
{
	_Complex double c;

	__real__ c = re * 2;
	__imag__ c = im * 3;
	return c;
}

#ifdef __clang__
NOINLINE int v_static_chain(int x)
{
	return x * 7 + 3;
}
#else
NOINLINE int v_static_chain(int x)
{
	volatile int factor = 7;
	/* Called directly: the chain is in %r10, and no stub on the stack is needed. */
	__extension__ NOINLINE int nested(int y)
	{
		BARRIER();
		return y * factor + 3;
	}
	return nested(x);
}
#endif

NOINLINE int v_tail(int x)
{
	return v_leaf(x + 1);
}

NOINLINE long v_tail_loop(long n)
{
	return n ? v_tail_loop2(n - 1, n) : 0;
}

NOINLINE long v_tail_loop2(long n, long acc)
{
	BARRIER();
	if (!n)
		return acc;
	return v_tail_loop(n);
}

NOINLINE void v_jump(jmp_buf env, int depth)
{
	if (!depth)
		longjmp(env, 1);
	v_jump(env, depth - 1);
	BARRIER();
}

NOINLINE unsigned long v_frame_size(size_t n)
{
	char *p = alloca(n);
	unsigned long r = 0;

	memset(p, 3, n);
	BARRIER();
	for (size_t i = 0; i < n; i++)
		r += (unsigned char)p[i];
	return r;
}

NOINLINE int v_aligned(int x)
{
	char buf[64] __attribute__((aligned(64)));

	memset(buf, x, sizeof buf);
	BARRIER();
	return (uintptr_t)buf % 64 == 0 ? buf[5] : -1;
}

typedef float v4 __attribute__((vector_size(16)));

static NOINLINE v4 add4(v4 a, v4 b, v4 c, v4 d, v4 e, v4 f, v4 g, v4 h)
{
	return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8;
}

NOINLINE uint64_t v_vector_sum(const float *p)
{
	v4 v[8], r;

	memcpy(v, p, sizeof v);
	r = add4(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
	return (uint64_t)(r[0] + r[1] + r[2] + r[3]);
}

NOINLINE int v_handler_work(int x)
{
	return v_leaf(x) * 2;
}

NOINLINE void *v_return_address(void)
{
	BARRIER();
	return __builtin_return_address(0);
}

/* Does nothing that clobbers a register, so -fipa-ra may rely on all of them. */
NOINLINE void v_empty(void);
NOINLINE void v_empty(void)
{
	BARRIER();
}

NOINLINE int v_regs(void)
{
	uint64_t in[9] = {11, 22, 33, 44, 55, 66, 77, 88, 99}, out[9];
	uint64_t *to = out, *from = in;

	/* All nine call-clobbered registers around a call of a traced function. */
	__asm__ volatile("lea -256(%%rsp), %%rsp\n\t"
			 "push %%rbx\n\tpush %%r12\n\tmov %%rdx, %%rbx\n\tmov %%rax, %%r12\n\t"
			 "mov (%%rbx), %%rax\n\tmov 8(%%rbx), %%rcx\n\tmov 16(%%rbx), %%rdx\n\t"
			 "mov 24(%%rbx), %%rsi\n\tmov 32(%%rbx), %%rdi\n\tmov 40(%%rbx), %%r8\n\t"
			 "mov 48(%%rbx), %%r9\n\tmov 56(%%rbx), %%r10\n\tmov 64(%%rbx), %%r11\n\t"
			 "call v_empty\n\t"
			 "mov %%rax, (%%r12)\n\tmov %%rcx, 8(%%r12)\n\tmov %%rdx, 16(%%r12)\n\t"
			 "mov %%rsi, 24(%%r12)\n\tmov %%rdi, 32(%%r12)\n\tmov %%r8, 40(%%r12)\n\t"
			 "mov %%r9, 48(%%r12)\n\tmov %%r10, 56(%%r12)\n\tmov %%r11, 64(%%r12)\n\t"
			 "pop %%r12\n\tpop %%rbx\n\tlea 256(%%rsp), %%rsp"
			 : "+a"(to), "+d"(from)
			 :
			 : "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	return memcmp(in, out, sizeof in) != 0;
}
