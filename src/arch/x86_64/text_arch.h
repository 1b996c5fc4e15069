/* SPDX-License-Identifier: MIT */
/* text_arch.h - what the patching engine must know of x86-64. */
#ifndef SHUNT_ARCH_TEXT_ARCH_H
#define SHUNT_ARCH_TEXT_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* int3: the only trap of one byte, so that it fits over any instruction. */
#define SHUNT_ARCH_TRAP_BYTE 0xcc

/*
 * Are these n bytes nothing but NOPs? One-byte 0x90, and 0F 1F with its operand
 * bytes, each with operand-size and segment prefixes before it (Intel SDM 2B,
 * NOP). *whole: a single instruction.
 */
bool shunt_arch_is_nop(const uint8_t *p, size_t n, bool *whole);

#endif
