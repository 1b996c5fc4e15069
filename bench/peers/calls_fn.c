/* SPDX-License-Identifier: MIT */
/* calls_fn.c - the function that is traced; compiled for the tracer in question. */
void traced(void);

__attribute__((noinline)) void traced(void)
{
	__asm__ volatile("" ::: "memory");
}
