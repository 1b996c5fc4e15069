/* SPDX-License-Identifier: MIT */
/* unprepared_fn.c - a function that is compiled for no tracer, and long enough for all. */
void traced(void);

__attribute__((noinline)) void traced(void)
{
	volatile int x[4] = {0, 1, 2, 3};

	x[0] = x[1];
}
