/* SPDX-License-Identifier: MIT */
/* displaced.c - a library of one function, compiled as usual: several short instructions. */
void p_displaced(void);

void p_displaced(void)
{
	int here = 0;

	__asm__ volatile("push %%rbx\n\tmov %%rsp, %%rbx\n\tpop %%rbx" : "+m"(here) : : "memory");
}
