/* SPDX-License-Identifier: MIT */
/*
 * insn.c - decoding by Zydis, and executing elsewhere (the contract is in insn.h).
 *
 * What makes an instruction depend on its address, in 64-bit mode, is: a
 * RIP-relative operand, a relative branch, the return address that a call or a
 * syscall leaves behind, and little else, which is refused. All other bytes are copied as
 * they are, so that nothing can be lost that an assembler would choose otherwise.
 *
 * Opcodes and encodings: Intel SDM volume 2; where processors disagree, AMD
 * APM volume 3 beside it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "probe/insn.h"
#include "probe/operands.h"

#define PREFIX_BND 0xf2
#define PREFIX_REP 0xf3
#define PREFIX_ADDRESS 0x67

/* --- the decoder ------------------------------------------------------------- */

struct zydis {
	__typeof__(&ZydisDecoderDecodeInstruction) instruction;
	__typeof__(&ZydisDecoderDecodeOperands) operands;
	__typeof__(&ZydisMnemonicGetString) name;
	ZydisDecoder decoder;
};

/* Set once, and never freed: decoding needs no lock. */
static const struct zydis *zydis;

/* Structures and numbers of mnemonics are those of the headers we were built with. */
static bool same_version(void *lib)
{
	__typeof__(&ZydisGetVersion) version;

	*(void **)&version = dlsym(lib, "ZydisGetVersion");
	return version && ZYDIS_VERSION_MAJOR(version()) == ZYDIS_VERSION_MAJOR(ZYDIS_VERSION) &&
	       ZYDIS_VERSION_MINOR(version()) == ZYDIS_VERSION_MINOR(ZYDIS_VERSION);
}

static bool find(void *lib, struct zydis *z)
{
	__typeof__(&ZydisDecoderInit) init;

	*(void **)&init = dlsym(lib, "ZydisDecoderInit");
	*(void **)&z->instruction = dlsym(lib, "ZydisDecoderDecodeInstruction");
	*(void **)&z->operands = dlsym(lib, "ZydisDecoderDecodeOperands");
	*(void **)&z->name = dlsym(lib, "ZydisMnemonicGetString");
	return init && z->instruction && z->operands && z->name && same_version(lib) &&
	       ZYAN_SUCCESS(init(&z->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
}

static int refuse_init(const char **why, const char *text)
{
	if (why)
		*why = text;
	return -ENOTSUP;
}

int shunt_insn_init(const char **why)
{
	const struct zydis *none = NULL;
	struct zydis *z;
	void *lib;

	if (__atomic_load_n(&zydis, __ATOMIC_ACQUIRE))
		return 0;
	lib = dlopen("libZydis.so.4.0", RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return refuse_init(why, "libZydis.so.4.0 cannot be loaded: install libzydis4.0");
	z = malloc(sizeof *z);
	if (!z || !find(lib, z)) {
		free(z);
		dlclose(lib);
		return refuse_init(why, "libZydis.so.4.0 is not of the version that is needed");
	}
	/* Pairs with the load above and in decode(): whoever sees it sees all of it. */
	if (!__atomic_compare_exchange_n(&zydis, &none, (const struct zydis *)z, false,
		    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		free(z); /* another thread was faster */
		dlclose(lib);
	}
	return 0;
}

/* --- what it is -------------------------------------------------------------- */

enum refusal {
	MOVABLE,
	PRIVILEGED,
	FAR_BRANCH,
	INTERRUPT,
	SYSENTER,
	BREAKPOINT,
	INTERRUPT_RETURN,
	ENCLAVE,
	EIP_RELATIVE,
	CALL_THROUGH_RSP,
	CALL_THROUGH_ESP,
	CALL_IN_SLOT,
};

static const char *const refusals[] = {
	[PRIVILEGED] = "a privileged instruction: it raises a signal, at its own address",
	[FAR_BRANCH] = "a far call, jump or return: its segment and address cannot be kept apart",
	[INTERRUPT] = "int n: the kernel sees the address that it is executed at",
	[SYSENTER] = "sysenter, sysexit or sysret: where it returns to is not known",
	[BREAKPOINT] = "int3 or int1: a breakpoint, somebody waits for it at its own address",
	[INTERRUPT_RETURN] = "iret or uiret: returns from an interrupt",
	[ENCLAVE] = "enclu, enclv or encls: an enclave keeps the address that it is entered from",
	[EIP_RELATIVE] = "an operand relative to the lower half of the address (67h prefix)",
	[CALL_THROUGH_RSP] = "call *%rsp: the target changes with the push of the return address",
	[CALL_THROUGH_ESP] = "an indirect call with %esp as base (67h prefix)",
	[CALL_IN_SLOT] = "an indirect call whose operand it overwrites with its return address",
};

/* Zydis 4.0 forgets some. */
static bool is_privileged(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_LGDT:
	case ZYDIS_MNEMONIC_CLGI:
	case ZYDIS_MNEMONIC_STGI:
	case ZYDIS_MNEMONIC_SKINIT:
	case ZYDIS_MNEMONIC_VMRUN:
	case ZYDIS_MNEMONIC_VMLOAD:
	case ZYDIS_MNEMONIC_VMSAVE:
	case ZYDIS_MNEMONIC_INVLPGA:
		return true;
	default:
		return z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;
	}
}

/* Kind and, where it is because of what the instruction is, refusal. */
static enum shunt_insn_kind kind_of(const ZydisDecodedInstruction *z, uint8_t *refused)
{
	bool direct = z->raw.imm[0].is_relative;

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		return direct ? SHUNT_INSN_JMP : SHUNT_INSN_JMP_IND;
	case ZYDIS_MNEMONIC_CALL:
		return direct ? SHUNT_INSN_CALL : SHUNT_INSN_CALL_IND;
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_XBEGIN:
		return SHUNT_INSN_LOOP;
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_UIRET:
		*refused = INTERRUPT_RETURN;
		return SHUNT_INSN_RET;
	case ZYDIS_MNEMONIC_RET:
		return SHUNT_INSN_RET;
	case ZYDIS_MNEMONIC_SYSCALL:
		return SHUNT_INSN_SYSCALL;
	case ZYDIS_MNEMONIC_INT:
		*refused = INTERRUPT;
		return SHUNT_INSN_SYSCALL;
	case ZYDIS_MNEMONIC_SYSENTER:
		*refused = SYSENTER;
		return SHUNT_INSN_SYSCALL;
	case ZYDIS_MNEMONIC_SYSEXIT:
	case ZYDIS_MNEMONIC_SYSRET:
	case ZYDIS_MNEMONIC_RSM:
		*refused = SYSENTER;
		return SHUNT_INSN_STOP;
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INTO:
		*refused = BREAKPOINT;
		return SHUNT_INSN_TRAP;
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
		return SHUNT_INSN_STOP;
	case ZYDIS_MNEMONIC_HLT:
		*refused = PRIVILEGED;
		return SHUNT_INSN_STOP;
	default:
		break;
	}
	if (z->meta.category == ZYDIS_CATEGORY_SGX)
		*refused = ENCLAVE;
	if (is_privileged(z))
		*refused = PRIVILEGED;
	return direct ? SHUNT_INSN_JCC : SHUNT_INSN_PLAIN;
}

/*
 * Without REX.W, AMD's processors take an operand-size prefix of a near branch
 * seriously (a shorter displacement, 16 bits of the address), Intel's do
 * not; ud0 has a ModRM byte on Intel's only.
 */
static bool is_ambiguous(const ZydisDecodedInstruction *z, enum shunt_insn_kind kind)
{
	if (z->mnemonic == ZYDIS_MNEMONIC_UD0)
		return true;
	switch (kind) {
	case SHUNT_INSN_JMP:
	case SHUNT_INSN_JCC:
	case SHUNT_INSN_LOOP:
	case SHUNT_INSN_CALL:
	case SHUNT_INSN_JMP_IND:
	case SHUNT_INSN_CALL_IND:
	case SHUNT_INSN_RET:
		return (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) && !z->raw.rex.W;
	default:
		return false;
	}
}

/* Whether any field of the encoding names register 4: if not, %rsp is no operand. */
static bool may_name_sp(const ZydisDecodedInstruction *z)
{
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return true;
	if (!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return (z->opcode & 7) == 4;
	return z->raw.modrm.rm == 4 || z->raw.modrm.reg == 4;
}

static bool touches_stack(const ZydisDecodedOperand *o)
{
	ZydisRegister r = o->reg.value;

	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
		return (r == ZYDIS_REGISTER_RSP || r == ZYDIS_REGISTER_ESP || r == ZYDIS_REGISTER_SP ||
			r == ZYDIS_REGISTER_SPL) && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       (o->mem.base == ZYDIS_REGISTER_RSP || o->mem.base == ZYDIS_REGISTER_ESP) &&
	       (o->mem.type != ZYDIS_MEMOP_TYPE_AGEN) &&
	       (o->mem.index != ZYDIS_REGISTER_NONE || o->mem.disp.value <= 0);
}

static bool writes_sp(const struct zydis *lib, const ZydisDecoderContext *ctx,
	const ZydisDecodedInstruction *z)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	switch (z->meta.category) {
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
		return true;
	default:
		break;
	}
	if (z->mnemonic == ZYDIS_MNEMONIC_ENTER || z->mnemonic == ZYDIS_MNEMONIC_LEAVE)
		return true;
	if (!may_name_sp(z))
		return false;
	if (!ZYAN_SUCCESS(lib->operands(&lib->decoder, ctx, z, ops, z->operand_count)))
		return true;
	for (int i = 0; i < z->operand_count; i++)
		if (touches_stack(&ops[i]))
			return true;
	return false;
}

/* --- the operand of an indirect call ----------------------------------------- */

/* modrm_at - 1 is the opcode FF, before that is REX, if there is one. */
static uint8_t rex_of(const struct shunt_insn *insn, const uint8_t *bytes)
{
	uint8_t b = insn->modrm_at > 1 ? bytes[insn->modrm_at - 2] : 0;

	return (b & 0xf0) == 0x40 ? b : 0;
}

static bool is_memory(uint8_t modrm)
{
	return modrm >> 6 != 3;
}

/* %rsp, or %esp, is its base. */
static bool is_on_stack(const struct shunt_insn *insn, const uint8_t *bytes)
{
	const uint8_t *m = bytes + insn->modrm_at;

	return is_memory(m[0]) && (m[0] & 7) == 4 && (m[1] & 7) == 4 && !(rex_of(insn, bytes) & 1);
}

static int32_t displacement(const uint8_t *modrm)
{
	int32_t d = 0;

	if (modrm[0] >> 6 == 1)
		return (int8_t)modrm[2];
	if (modrm[0] >> 6 == 2)
		memcpy(&d, modrm + 2, 4);
	return d;
}

static uint8_t call_refusal(const struct shunt_insn *insn, const uint8_t *bytes)
{
	const uint8_t *m = bytes + insn->modrm_at;
	uint8_t rex = rex_of(insn, bytes);
	int32_t d;

	if (!is_memory(m[0]))
		return (m[0] & 7) == 4 && !(rex & 1) ? CALL_THROUGH_RSP : MOVABLE;
	if (!is_on_stack(insn, bytes))
		return MOVABLE;
	if (memchr(bytes, PREFIX_ADDRESS, insn->modrm_at))
		return CALL_THROUGH_ESP;
	d = displacement(m);
	if ((m[1] >> 3 & 7) == 4 && !(rex & 2) && d > -16 && d < 0)
		return CALL_IN_SLOT;
	return d > INT32_MAX - 8 ? CALL_IN_SLOT : MOVABLE;
}

/* --- decoding ---------------------------------------------------------------- */

static void operand_of(const ZydisDecodedInstruction *z, struct shunt_insn *insn)
{
	if (!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return;
	insn->modrm_at = z->raw.modrm.offset;
	if (z->raw.modrm.mod || z->raw.modrm.rm != 5 || z->raw.disp.size != 32)
		return;
	insn->disp_at = z->raw.disp.offset;
	insn->memory = insn->at + insn->len + (uintptr_t)z->raw.disp.value;
	if (z->address_width != 64)
		insn->refused = EIP_RELATIVE;
}

int shunt_insn_decode(const uint8_t *bytes, size_t n, uintptr_t at, struct shunt_insn *insn)
{
	const struct zydis *lib = __atomic_load_n(&zydis, __ATOMIC_ACQUIRE);
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	ZyanStatus s;

	*insn = (struct shunt_insn){.at = at};
	s = lib->instruction(&lib->decoder, &ctx, bytes, n, &z);
	if (s == ZYDIS_STATUS_NO_MORE_DATA)
		return -ENODATA;
	if (!ZYAN_SUCCESS(s))
		return -EILSEQ;
	insn->len = z.length;
	insn->kind = (uint8_t)kind_of(&z, &insn->refused);
	if (is_ambiguous(&z, insn->kind))
		return -EILSEQ;
	operand_of(&z, insn);
	insn->endbr = z.mnemonic == ZYDIS_MNEMONIC_ENDBR64;
	insn->writes_sp = writes_sp(lib, &ctx, &z);
	if (z.raw.imm[0].is_relative)
		insn->target = at + insn->len + (uintptr_t)z.raw.imm[0].value.s;
	if (z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		insn->refused = FAR_BRANCH;
	else if (insn->kind == SHUNT_INSN_CALL_IND && !insn->refused)
		insn->refused = call_refusal(insn, bytes);
	return 0;
}

bool shunt_insn_operands(const uint8_t *bytes, size_t n, struct shunt_operands *o)
{
	const struct zydis *lib = __atomic_load_n(&zydis, __ATOMIC_ACQUIRE);
	ZydisDecoderContext ctx;

	return ZYAN_SUCCESS(lib->instruction(&lib->decoder, &ctx, bytes, n, &o->insn)) &&
	       ZYAN_SUCCESS(lib->operands(&lib->decoder, &ctx, &o->insn, o->op,
		       o->insn.operand_count));
}

const char *shunt_insn_name(const uint8_t *bytes, size_t n)
{
	const struct zydis *lib = __atomic_load_n(&zydis, __ATOMIC_ACQUIRE);
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	const char *name;

	if (!lib || !ZYAN_SUCCESS(lib->instruction(&lib->decoder, &ctx, bytes, n, &z)))
		return "?";
	name = lib->name(z.mnemonic);
	return name ? name : "?";
}

/* --- moving ------------------------------------------------------------------ */

struct code {
	uint8_t *p;   /* what comes next is written here .. */
	uintptr_t at; /* .. and will be executed there */
};

static void put(struct code *c, const void *bytes, size_t n)
{
	memcpy(c->p, bytes, n);
	c->p += n;
	c->at += n;
}

#define PUT(c, ...) put(c, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct code *c, uint32_t v)
{
	put(c, &v, sizeof v);
}

static bool reaches(uintptr_t from, uintptr_t to)
{
	intptr_t d = (intptr_t)(to - from);

	return d == (int32_t)d;
}

/* The 4 bytes of a displacement, which are the last of the instruction but for `behind`. */
static bool put_relative(struct code *c, uintptr_t target, unsigned behind)
{
	uintptr_t end = c->at + 4 + behind;

	put32(c, (uint32_t)(target - end));
	return reaches(end, target);
}

/* What a jump takes that is the next or next but one thing to be written. */
static unsigned jump_size(const struct code *c, uintptr_t target)
{
	return reaches(c->at, target) && reaches(c->at + 16, target) ? 5 : 14;
}

/* Reaches everything: through the address behind it, if it is far. */
static void put_jump(struct code *c, uintptr_t target, unsigned size)
{
	if (size == 5) {
		PUT(c, 0xe9);
		put_relative(c, target, 0);
		return;
	}
	PUT(c, 0xff, 0x25, 0, 0, 0, 0);
	put(c, &target, sizeof target);
}

/* 7x rel8 or 0F 8x rel32, behind prefixes, of which none is 0F. */
static uint8_t condition(const struct shunt_insn *insn, const uint8_t *bytes)
{
	bool near = insn->len >= 6 && bytes[insn->len - 6] == 0x0f;

	return bytes[insn->len - (near ? 5 : 2)] & 15;
}

static void move_jcc(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	uint8_t cc = condition(insn, bytes);

	if (jump_size(c, insn->target) == 5) {
		PUT(c, 0x0f, 0x80 | cc);
		put_relative(c, insn->target, 0);
		return;
	}
	PUT(c, 0x70 | (cc ^ 1), 14);
	put_jump(c, insn->target, 14);
}

/* loop 1f; jmp 2f; 1: jmp target; 2: - for those that have a short form only. */
static bool move_loop(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	unsigned size = jump_size(c, insn->target);

	if (insn->len >= 6 && bytes[insn->len - 6] == 0xc7) { /* xbegin rel32 */
		put(c, bytes, insn->len - 4u);
		return put_relative(c, insn->target, 0);
	}
	put(c, bytes, insn->len - 1u); /* with its prefixes: 67h counts %ecx */
	PUT(c, 2, 0xeb, (uint8_t)size);
	put_jump(c, insn->target, size);
	return true;
}

/* As a call pushes it: no flag, no register, nothing below those 8 bytes. */
static void put_return_address(struct code *c, uintptr_t address)
{
	PUT(c, 0x68); /* push $low, extended by its sign */
	put32(c, (uint32_t)address);
	if ((intptr_t)address == (int32_t)address)
		return;
	PUT(c, 0xc7, 0x44, 0x24, 0x04); /* movl $high, 4(%rsp) */
	put32(c, (uint32_t)(address >> 32));
}

/* The instruction FF /reg with the operand of a call, %rsp being `lower` by now. */
static bool put_with_operand(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes,
	uint8_t reg, int lower)
{
	const uint8_t *m = bytes + insn->modrm_at;
	uint8_t modrm = (uint8_t)((m[0] & 0xc7) | reg << 3);

	for (int i = 0; i < insn->modrm_at; i++)
		if (reg != 6 || (bytes[i] != PREFIX_BND && bytes[i] != PREFIX_REP))
			PUT(c, bytes[i]);
	if (insn->disp_at) {
		PUT(c, modrm);
		return put_relative(c, insn->memory, 0);
	}
	if (lower && is_on_stack(insn, bytes)) {
		PUT(c, (uint8_t)(0x80 | (modrm & 0x3f)), m[1]);
		put32(c, (uint32_t)(displacement(m) + lower));
		return true;
	}
	PUT(c, modrm);
	put(c, m + 1, insn->len - insn->modrm_at - 1u);
	return true;
}

/*
 * The operand is read once before the return address is written, so that it faults, if it
 * does, with %rsp as it was: push operand; lea 8(%rsp),%rsp.
 */
static bool move_call_indirect(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	bool ok = true;

	if (is_memory(bytes[insn->modrm_at])) {
		ok = put_with_operand(c, insn, bytes, 6, 0);
		PUT(c, 0x48, 0x8d, 0x64, 0x24, 0x08);
	}
	put_return_address(c, insn->at + insn->len);
	return put_with_operand(c, insn, bytes, 4, 8) && ok;
}

/* The kernel returns with its return address in %rcx. */
static void move_syscall(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	uintptr_t next = insn->at + insn->len;

	put(c, bytes, insn->len);
	PUT(c, 0x48, 0xb9); /* movabs $next, %rcx */
	put(c, &next, sizeof next);
}

static bool move_copy(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	unsigned behind = insn->len - insn->disp_at - 4u;
	bool ok;

	if (!insn->disp_at) {
		put(c, bytes, insn->len);
		return true;
	}
	put(c, bytes, insn->disp_at);
	ok = put_relative(c, insn->memory, behind);
	put(c, bytes + insn->disp_at + 4, behind);
	return ok;
}

static bool move(struct code *c, const struct shunt_insn *insn, const uint8_t *bytes)
{
	switch (insn->kind) {
	case SHUNT_INSN_JMP:
		put_jump(c, insn->target, jump_size(c, insn->target));
		return true;
	case SHUNT_INSN_JCC:
		move_jcc(c, insn, bytes);
		return true;
	case SHUNT_INSN_LOOP:
		return move_loop(c, insn, bytes);
	case SHUNT_INSN_CALL:
		put_return_address(c, insn->at + insn->len);
		put_jump(c, insn->target, jump_size(c, insn->target));
		return true;
	case SHUNT_INSN_CALL_IND:
		return move_call_indirect(c, insn, bytes);
	case SHUNT_INSN_SYSCALL:
		move_syscall(c, insn, bytes);
		return true;
	default:
		return move_copy(c, insn, bytes);
	}
}

int shunt_insn_move(const struct shunt_insn *insn, const uint8_t *bytes, uintptr_t to,
	uint8_t out[SHUNT_INSN_MOVED_MAX], const char **why)
{
	struct code c = {out, to};
	const char *unused;

	why = why ? why : &unused;
	if (insn->refused) {
		*why = refusals[insn->refused];
		return -ENOTSUP;
	}
	if (!move(&c, insn, bytes)) {
		*why = "a RIP-relative operand, or the target of xbegin, is further than 2 GiB away";
		return -ERANGE;
	}
	return (int)(c.p - out);
}
