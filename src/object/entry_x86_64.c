/* SPDX-License-Identifier: MIT */
/*
 * entry_x86_64.c - the few instructions that compilers leave at the entry of a
 * function that is to be traced.
 *
 * Nothing else is decoded here, and nothing is guessed: what is not exactly one
 * of these forms is none. Encodings: Intel SDM vol. 2, NOP, ENDBR64, CALL, JMP.
 */
#include <string.h>

#include "elf_image.h"

bool shunt_entry_endbr(const uint8_t *p, size_t n)
{
	return n >= 4 && !memcmp(p, "\xf3\x0f\x1e\xfa", 4);
}

/* Bytes of ModRM, SIB and displacement; reg must be 0 (NOP r/m is 0F 1F /0). */
static unsigned modrm_len(const uint8_t *p, size_t n)
{
	unsigned mod, rm, len = 1;

	if (!n || (p[0] >> 3 & 7))
		return 0;
	mod = p[0] >> 6;
	rm = p[0] & 7;
	if (mod == 3)
		return 1;
	if (rm == 4) {
		if (n < 2)
			return 0;
		if (mod == 0 && (p[1] & 7) == 5)
			return 0; /* no assembler makes it */
		len++;
	} else if (mod == 0 && rm == 5) {
		return 0;
	}
	return len + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

unsigned shunt_entry_nop(const uint8_t *p, size_t n)
{
	size_t i = 0;
	unsigned m;

	while (i < n && i < 12 && (p[i] == 0x66 || p[i] == 0x2e))
		i++;
	if (i < n && p[i] == 0x90)
		return (unsigned)i + 1;
	if (n - i < 3 || p[i] != 0x0f || p[i + 1] != 0x1f)
		return 0;
	m = modrm_len(p + i + 2, n - i - 2);
	if (!m || i + 2 + m > n || i + 2 + m > 15)
		return 0;
	return (unsigned)i + 2 + m;
}

uint8_t shunt_entry_nops(const uint8_t *p, size_t n, uint8_t *len)
{
	unsigned at = shunt_entry_nop(p, n), next;
	bool border = false;

	if (at >= 5) {
		*len = (uint8_t)at;
		return at == 5 ? SHUNT_SITE_NOP5 : SHUNT_SITE_NOPLONG;
	}
	if (!at)
		return SHUNT_SITE_NONE;
	while (at < 240 && (next = shunt_entry_nop(p + at, n - at))) {
		at += next;
		border |= at == 5;
	}
	*len = (uint8_t)at;
	return border ? SHUNT_SITE_NOP1x5 : SHUNT_SITE_NONE;
}

static uint64_t rel32(const uint8_t *p, uint64_t next)
{
	int32_t rel;

	memcpy(&rel, p, 4);
	return next + (uint64_t)(int64_t)rel;
}

/* e8 rel32; 67 e8 rel32 (a linker's relaxed call *slot); ff 15 rel32 */
bool shunt_entry_call(const uint8_t *p, size_t n, uint64_t addr, struct shunt_entry_branch *b)
{
	if (n >= 5 && p[0] == 0xe8) {
		*b = (struct shunt_entry_branch){rel32(p + 1, addr + 5), 5, false};
		return true;
	}
	if (n >= 6 && p[0] == 0x67 && p[1] == 0xe8) {
		*b = (struct shunt_entry_branch){rel32(p + 2, addr + 6), 6, false};
		return true;
	}
	if (n >= 6 && p[0] == 0xff && p[1] == 0x15) {
		*b = (struct shunt_entry_branch){rel32(p + 2, addr + 6), 6, true};
		return true;
	}
	return false;
}

/* [endbr64] [bnd] jmp *slot(%rip): every form of PLT entry that jumps at once. */
bool shunt_entry_plt(const uint8_t *p, size_t n, uint64_t addr, uint64_t *slot)
{
	size_t i = shunt_entry_endbr(p, n) ? 4 : 0;

	if (i < n && p[i] == 0xf2)
		i++;
	if (n - i < 6 || p[i] != 0xff || p[i + 1] != 0x25)
		return false;
	*slot = rel32(p + i + 2, addr + i + 6);
	return true;
}
