/* SPDX-License-Identifier: MIT */
/* code_b.c - the library's other unit. */
#define PUBLIC __attribute__((visibility("default")))

volatile int code_sink;

static __attribute__((noinline, noclone, used)) int twice(int x)
{
	return code_sink + x * 2;
}

int code_b_twice(int x)
{
	return twice(x);
}

__attribute__((cold, noinline)) void code_never(int x)
{
	code_sink = x;
}

PUBLIC void *code_twice_b(void)
{
	return (void *)twice;
}

/* Two functions in one, as assembly has them, and one that says no size. */
__asm__(".text\n"
	".globl code_around\n"
	".type code_around, @function\n"
	"code_around:\n"
	".cfi_startproc\n"
	"	nop\n"
	"	nop\n"
	".type code_within, @function\n"
	"code_within:\n"
	"	nop\n"
	"	ret\n"
	".size code_within, . - code_within\n"
	"	nop\n"
	"	ret\n"
	".cfi_endproc\n"
	".size code_around, . - code_around\n"
	".globl code_sizeless\n"
	".type code_sizeless, @function\n"
	"code_sizeless:\n"
	"	nop\n"
	"	nop\n"
	"	nop\n"
	"	ret\n"
	".globl code_behind\n"
	".type code_behind, @function\n"
	"code_behind:\n"
	"	ret\n"
	".size code_behind, . - code_behind\n");
