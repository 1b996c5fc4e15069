/* SPDX-License-Identifier: MIT */
/*
 * table.c - see table.h. The two ways in which compilers write a switch:
 *
 *	cmp $N, %edi		cmp $N, %edi
 *	ja default		ja default
 *	mov %edi, %edi		lea table(%rip), %rdx
 *	jmp *table(,%rdi,8)	movslq (%rdx,%rdi,4), %rax
 *				add %rdx, %rax
 *				jmp *%rax
 *
 * with others in between. What must be shown is that the index, all 64 bits of it, is at
 * most N: so the comparison must be of that register or of one that it was copied
 * from, nothing may write to either since, and the bits that are not compared must be
 * zero: by the copy, or by the instruction that made the value (writing 32 bits of a
 * register clears the upper ones: Intel SDM volume 1, 3.4.1.1).
 */
#include "probe/operands.h"
#include "probe/table.h"

#define MANY 65536

/* 0 to 15 and its width in bits; -1: no general register. */
static int number(ZydisRegister r, unsigned *width)
{
	static const struct {
		ZydisRegister first, last;
		int number, width;
	} sets[] = {
		{ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15, 0, 64},
		{ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D, 0, 32},
		{ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W, 0, 16},
		{ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL, 0, 8},
		{ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH, 0, 7}, /* like no other width */
		{ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B, 4, 8},
	};

	*width = 0;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		if (r >= sets[i].first && r <= sets[i].last) {
			*width = (unsigned)sets[i].width;
			return sets[i].number + (int)(r - sets[i].first);
		}
	return -1;
}

static int register_of(const ZydisDecodedOperand *o, unsigned *width)
{
	return number(o->type == ZYDIS_OPERAND_TYPE_REGISTER ? o->reg.value : ZYDIS_REGISTER_NONE,
		width);
}

/* The width of what it writes of register r; 0: nothing. */
static unsigned writes(const struct shunt_operands *o, int r)
{
	unsigned width = 0;

	for (int i = 0; i < o->insn.operand_count; i++)
		if (register_of(&o->op[i], &width) == r &&
			(o->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return width;
	return 0;
}

static bool look(const struct shunt_run *run, struct shunt_operands *o)
{
	return shunt_insn_operands(run->bytes, run->len, o);
}

/* Which one before `end` has written register r last; -1: none of the run. */
static int writer(const struct shunt_run *run, int end, int r, struct shunt_operands *o)
{
	for (int i = end - 1; i >= 0; i--)
		if (!look(&run[i], o) || writes(o, r))
			return i;
	return -1;
}

/* --- the table --------------------------------------------------------------- */

/* The address in a register that a `lea table(%rip)` has written. */
static uintptr_t leaned(const struct shunt_run *run, int end, int r)
{
	struct shunt_operands o;
	int i = writer(run, end, r, &o);

	if (i < 0 || o.insn.mnemonic != ZYDIS_MNEMONIC_LEA ||
		o.op[1].mem.base != ZYDIS_REGISTER_RIP || writes(&o, r) != 64)
		return 0;
	return run[i].at + run[i].len + (uintptr_t)o.op[1].mem.disp.value;
}

/* Reads table(,index,8), or (base,index,size) with the table's address in base. */
static bool reads_table(const struct shunt_run *run, int i, const ZydisDecodedOperand *m,
	struct shunt_table *t, int *index)
{
	unsigned width;
	int base;

	if (m->type != ZYDIS_OPERAND_TYPE_MEMORY || m->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
		m->mem.scale != t->size || m->mem.segment == ZYDIS_REGISTER_FS ||
		m->mem.segment == ZYDIS_REGISTER_GS)
		return false;
	*index = number(m->mem.index, &width);
	if (*index < 0 || width != 64)
		return false;
	if (m->mem.base == ZYDIS_REGISTER_NONE) {
		t->at = (uintptr_t)m->mem.disp.value;
		return t->at;
	}
	base = number(m->mem.base, &width);
	t->at = base < 0 || m->mem.disp.value ? 0 : leaned(run, i, base);
	return t->at;
}

/* add: one of its registers has the table's address, the other an entry. */
static int reads_offset(const struct shunt_run *run, int add, int base, int entry,
	struct shunt_table *t, int *index)
{
	struct shunt_operands o;
	int load = writer(run, add, entry, &o);

	t->size = 4;
	if (load < 0 || o.insn.mnemonic != ZYDIS_MNEMONIC_MOVSXD || writes(&o, entry) != 64 ||
		!reads_table(run, load, &o.op[1], t, index))
		return -1;
	t->base = t->at;
	return leaned(run, add, base) == t->at ? load : -1;
}

/* The instruction that reads an entry, which the jump takes from register r; -1: none. */
static int through_register(const struct shunt_run *run, int jump, int r, struct shunt_table *t,
	int *index)
{
	struct shunt_operands o;
	int i = writer(run, jump, r, &o), other, load;
	unsigned width;

	if (i < 0 || writes(&o, r) != 64)
		return -1;
	if (o.insn.mnemonic == ZYDIS_MNEMONIC_MOV)
		return reads_table(run, i, &o.op[1], t, index) ? i : -1;
	if (o.insn.mnemonic != ZYDIS_MNEMONIC_ADD)
		return -1;
	other = register_of(&o.op[1], &width);
	if (other < 0 || other == r)
		return -1;
	load = reads_offset(run, i, other, r, t, index);
	return load >= 0 ? load : reads_offset(run, i, r, other, t, index);
}

/* --- its bound --------------------------------------------------------------- */

/* What is known of a register: of its lower `width` bits, if `zero`, the others being so. */
struct value {
	int r;
	unsigned width;
	bool zero;
};

static bool is_copy(const struct shunt_operands *o, struct value *v)
{
	unsigned width, from;
	int s = register_of(&o->op[1], &from);

	if (s < 0 || register_of(&o->op[0], &width) != v->r || width < 32 || from == 7)
		return false;
	if (o->insn.mnemonic != ZYDIS_MNEMONIC_MOVZX &&
		(o->insn.mnemonic != ZYDIS_MNEMONIC_MOV || width != from))
		return false;
	/* Copied twice: the narrower of the two is what is left. */
	v->r = s;
	v->zero |= from < 64;
	v->width = from < v->width ? from : v->width;
	return true;
}

static bool keeps_flags(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_MOV || m == ZYDIS_MNEMONIC_LEA || m == ZYDIS_MNEMONIC_MOVZX ||
	       m == ZYDIS_MNEMONIC_MOVSXD || m == ZYDIS_MNEMONIC_MOVSX || m == ZYDIS_MNEMONIC_NOP;
}

/* Whether it writes all of the register anew, whatever its operands' values are. */
static bool surely_writes(const struct shunt_operands *o, int r)
{
	unsigned width;

	if (o->insn.mnemonic == ZYDIS_MNEMONIC_BSF || o->insn.mnemonic == ZYDIS_MNEMONIC_BSR ||
		o->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG)
		return false;
	for (int i = 0; i < o->insn.operand_count; i++)
		if (register_of(&o->op[i], &width) == r && width >= 32 &&
			(o->op[i].actions & ZYDIS_OPERAND_ACTION_WRITE))
			return true;
	return false;
}

/* The one before i that has written the register last, if it has cleared what is not compared. */
static int cleared_by(const struct shunt_run *run, int i, int r, unsigned compared)
{
	struct shunt_operands o;
	int w = writer(run, i, r, &o);

	if (w < 0 || !surely_writes(&o, r))
		return -1;
	if (o.insn.mnemonic == ZYDIS_MNEMONIC_MOVZX)
		return o.op[1].size <= compared ? w : -1;
	return writes(&o, r) == 32 && compared == 32 ? w : -1;
}

/* cmp $n, register, whose lower bits it is that bound v: the entries' number, else 0. */
static size_t compared(const struct shunt_run *run, int i, const struct shunt_operands *o,
	const struct value *v, int *from)
{
	uint64_t mask, n;
	unsigned width;

	if (o->insn.mnemonic != ZYDIS_MNEMONIC_CMP || register_of(&o->op[0], &width) != v->r ||
		width == 7 || o->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return 0;
	*from = i;
	if (v->zero ? width < v->width : width < 64) {
		*from = cleared_by(run, i, v->r, width);
		if (*from < 0)
			return 0;
	}
	mask = width == 64 ? ~0ull : (1ull << width) - 1;
	n = o->op[1].imm.value.u & mask;
	return n < MANY ? (size_t)n + 1 : 0;
}

/* The comparison that a `ja` or `jae` at i depends on. */
static size_t bound_by(const struct shunt_run *run, int i, bool equal, const struct value *v,
	int *from)
{
	struct shunt_operands o;

	for (int k = i - 1; k >= 0 && look(&run[k], &o); k--) {
		size_t n = compared(run, k, &o, v, from);

		if (n)
			return n - equal;
		if (!keeps_flags(o.insn.mnemonic) || writes(&o, v->r))
			break;
	}
	return 0;
}

static size_t bound(const struct shunt_run *run, int load, int index, int *from)
{
	struct value v = {.r = index, .width = 64};
	struct shunt_operands o;
	size_t n;

	for (int i = load - 1; i >= 0 && look(&run[i], &o); i--) {
		bool equal = o.insn.mnemonic == ZYDIS_MNEMONIC_JNB;

		if (equal || o.insn.mnemonic == ZYDIS_MNEMONIC_JNBE) {
			n = bound_by(run, i, equal, &v, from);
			if (n)
				return n;
		} else if (writes(&o, v.r) && !is_copy(&o, &v)) {
			return 0;
		}
	}
	return 0;
}

bool shunt_table_find(const struct shunt_run *run, size_t n, struct shunt_table *t)
{
	struct shunt_operands o;
	int jump = (int)n - 1, load = jump, index = -1, from = 0, r;
	unsigned width;

	*t = (struct shunt_table){.size = 8};
	if (!n || !look(&run[jump], &o) || o.insn.mnemonic != ZYDIS_MNEMONIC_JMP)
		return false;
	r = register_of(&o.op[0], &width);
	if (r >= 0)
		load = through_register(run, jump, r, t, &index);
	else if (!reads_table(run, jump, &o.op[0], t, &index))
		return false;
	if (load < 0)
		return false;
	t->n = bound(run, load, index, &from);
	if (!t->n)
		return false;
	t->from = run[from].at;
	return true;
}
