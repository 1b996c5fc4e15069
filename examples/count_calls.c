/* SPDX-License-Identifier: MIT */
/* count_calls.c - count a function's calls, switched on while it is used. */
#include <stdatomic.h>
#include <stdio.h>

#include <shunt/ftrace.h>

static atomic_long calls;

static void enter(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	atomic_fetch_add((atomic_long *)ops->data, 1);
}

int parse_number(int x);
__attribute__((noinline)) int parse_number(int x)
{
	__asm__ volatile("");
	return x * 3;
}

int main(void)
{
	struct shunt_ftrace_ops count = {.entry = enter, .data = &calls};
	int sum = 0, err;

	sum += parse_number(1); /* not counted: not switched on */
	shunt_ftrace_filter(&count, "parse_*");
	err = shunt_ftrace_register(&count);
	if (err) {
		fprintf(stderr, "shunt_ftrace_register: %d\n", err);
		return 1;
	}
	for (int i = 0; i < 10; i++)
		sum += parse_number(i);
	shunt_ftrace_unregister(&count);
	sum += parse_number(1); /* nor this: switched off */
	printf("%ld calls, sum %d\n", (long)calls, sum);
	return calls != 10;
}
