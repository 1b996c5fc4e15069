/* SPDX-License-Identifier: MIT */
/*
 * victim.c - functions with known names, compiled in many ways, as a library or
 * a program. Nobody uses `victim_unused`, but its entry in the section keeps it in
 * the file also with --gc-sections.
 */
int victim_one(int x);
int victim_two(int x);
int victim_apply(int x);
int victim_unused(int x);

static __attribute__((noinline)) int victim_local(int x)
{
	__asm__ volatile("");
	return x * 3;
}

__attribute__((noinline)) int victim_one(int x)
{
	return victim_local(x) + 1;
}

__attribute__((noinline)) int victim_two(int x)
{
	return victim_one(x) * victim_one(x + 1);
}

int (*volatile victim_pointer)(int) = victim_two;

int victim_apply(int x)
{
	return victim_pointer(x) + victim_local(x);
}

__attribute__((visibility("hidden"))) int victim_unused(int x)
{
	return x + 4;
}

#ifdef PROGRAM
int main(void)
{
	return victim_apply(1) != 4 * 7 + 3;
}
#endif
