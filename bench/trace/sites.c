/* SPDX-License-Identifier: MIT */
/* sites.c - the function that pair.c traces, and its twin without an entry. */
void p_site(void);
void p_plain(void);

__attribute__((noinline)) void p_site(void)
{
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline, patchable_function_entry(0))) void p_plain(void)
{
	__asm__ volatile("" ::: "memory");
}
