/* SPDX-License-Identifier: MIT */
/* code_a.c - a library for code.c: names in every way that two units can have them. */
#define PUBLIC __attribute__((visibility("default")))
#define NOINLINE __attribute__((noinline, noclone, used))

extern volatile int code_sink;
void code_never(int x) __attribute__((cold));
int code_b_twice(int x);

/* One function of several names, of every rank. */
PUBLIC NOINLINE int code_global(int x)
{
	return code_sink + x;
}
PUBLIC int code_weak(int x) __attribute__((weak, alias("code_global")));
static int code_local(int x) __attribute__((alias("code_global"), used));
PUBLIC int code_other(int x) __attribute__((alias("code_global")));

/* Only weak and local. */
static NOINLINE int a_code_local(int x)
{
	return code_sink ^ x;
}
PUBLIC int z_code_weak(int x) __attribute__((weak, alias("a_code_local")));

/* The other unit has one as well. */
static NOINLINE int twice(int x)
{
	return code_sink * 2 + x;
}

/* Half of it is cold. */
PUBLIC NOINLINE int code_split(int x)
{
	int sum = 0;

	for (int i = 0; i < x; i++) {
		if (__builtin_expect(code_sink == i + 77, 0)) {
			code_never(i);
			code_never(sum);
			code_sink++;
		}
		sum += code_sink;
	}
	return sum;
}

/* Chosen when it is bound; used here, and exported without being used. */
static NOINLINE int first_choice(int x)
{
	return x + 1;
}
static NOINLINE int second_choice(int x)
{
	return x + 2;
}
static void *choose(void)
{
	return code_sink ? (void *)first_choice : (void *)second_choice;
}
static int chosen(int x) __attribute__((ifunc("choose")));
PUBLIC int code_chosen(int x) __attribute__((ifunc("choose_exported")));
PUBLIC int code_unbound(int x) __attribute__((ifunc("choose_unbound")));
__attribute__((used)) static void *choose_exported(void)
{
	return (void *)second_choice;
}
__attribute__((used)) static void *choose_unbound(void)
{
	return (void *)first_choice;
}

PUBLIC int code_use(int x)
{
	return chosen(x) + twice(x) + code_b_twice(x) + code_local(x);
}

PUBLIC void *code_twice_a(void)
{
	return (void *)twice;
}
