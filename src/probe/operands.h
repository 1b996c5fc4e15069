/* SPDX-License-Identifier: MIT */
/* operands.h - an instruction as Zydis gives it, for who asks for its operands. */
#ifndef SHUNT_PROBE_OPERANDS_H
#define SHUNT_PROBE_OPERANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

struct shunt_operands {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* After shunt_insn_init() has succeeded. False: no instruction. Any context. */
bool shunt_insn_operands(const uint8_t *bytes, size_t n, struct shunt_operands *o);

#endif
