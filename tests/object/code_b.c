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

/* An old version of a function, and the one that is meant today. */
PUBLIC int code_versioned_old(int x);
PUBLIC int code_versioned_new(int x);
int code_versioned_old(int x)
{
	return code_sink + x + 1;
}
int code_versioned_new(int x)
{
	return code_sink + x + 2;
}
PUBLIC int code_only_old(int x);
int code_only_old(int x)
{
	return code_sink + x + 3;
}
__asm__(".symver code_versioned_old, code_versioned@V1\n"
	".symver code_versioned_new, code_versioned@@V2\n"
	".symver code_only_old, code_outdated@V1\n");

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
	/* One with two frames, as it pushes in the middle and says so anew. */
	".globl code_framed\n"
	".type code_framed, @function\n"
	"code_framed:\n"
	".cfi_startproc\n"
	"	nop\n"
	".cfi_endproc\n"
	".cfi_startproc\n"
	"	nop\n"
	"	ret\n"
	".cfi_endproc\n"
	".size code_framed, . - code_framed\n"
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
