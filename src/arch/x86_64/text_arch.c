/* SPDX-License-Identifier: MIT */
/* text_arch.c - what the patching engine must know of x86-64. */
#include "arch/x86_64/text_arch.h"

/* The length of the NOP at p, 0 if it is none or longer than n. */
static size_t nop_length(const uint8_t *p, size_t n)
{
	size_t i = 0;
	unsigned mod, rm;

	while (i < n && (p[i] == 0x66 || p[i] == 0x2e))
		i++;
	if (i < n && p[i] == 0x90)
		return i + 1;
	if (n - i < 3 || p[i] != 0x0f || p[i + 1] != 0x1f)
		return 0;
	mod = p[i + 2] >> 6;
	rm = p[i + 2] & 7;
	i += 3;
	if (mod == 3)
		return i;
	if (rm == 4)
		i++;
	if (mod == 1)
		i += 1;
	else if (mod == 2 || rm == 5)
		i += 4;
	return i <= n ? i : 0;
}

bool shunt_arch_is_nop(const uint8_t *p, size_t n, bool *whole)
{
	size_t first = nop_length(p, n), at = first, k = first;

	while (k && at < n) {
		k = nop_length(p + at, n - at);
		at += k;
	}
	*whole = first == n;
	return k && at == n;
}
