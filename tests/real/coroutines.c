/* SPDX-License-Identifier: MIT */
/* Coroutines by ucontext, switched in the middle of nested traced calls. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#define N 8
static ucontext_t main_ctx, ctx[N];
static long sum[N];

__attribute__((noinline)) static void yield(int i)
{
	swapcontext(&ctx[i], &main_ctx);
}

__attribute__((noinline)) static long deep(int i, int d)
{
	if (d == 0) {
		yield(i);
		return i + 1;
	}
	return deep(i, d - 1) + d;
}

static void body(int i)
{
	for (;;) {
		sum[i] += deep(i, 5 + i);
		yield(i);
	}
}

int main(void)
{
	for (int i = 0; i < N; i++) {
		getcontext(&ctx[i]);
		ctx[i].uc_stack.ss_size = 256 << 10;
		ctx[i].uc_stack.ss_sp = malloc(ctx[i].uc_stack.ss_size);
		ctx[i].uc_link = &main_ctx;
		makecontext(&ctx[i], (void (*)(void))body, 1, i);
	}
	for (int n = 0; n < 20000; n++)
		swapcontext(&main_ctx, &ctx[n * 7 % N]);
	for (int i = 0; i < N; i++)
		printf("%ld\n", sum[i]);
	return 3;
}
