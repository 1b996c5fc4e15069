/* SPDX-License-Identifier: MIT */
/*
 * forms.c - see forms.h.
 *
 * An instruction is made to read and write an arena: its displacement is replaced and
 * the registers that its operands' addresses are made of are chosen so. Relative
 * branches lead to breakpoints around it or to a page of them; the arena is
 * full of that page's addresses where control is taken from memory.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <Zydis/Zydis.h>

#include "execute.h"
#include "forms.h"
#include "probe/insn.h"

#define PAGE	4096ul
#define ARENA	(8 * PAGE)
#define MIDDLE	(ARENA / 2)
#define PLACES	3
#define OTHERS	4
#define INT3	0xcc
#define RF	0x10000
#define FLAGS	0xcd5 /* CF PF AF ZF SF DF OF */

/* Where the original is: below 2 GiB, below 4 GiB, and where libraries are. */
struct place {
	uintptr_t arena, code, target;
	uintptr_t other[OTHERS]; /* where it is moved to; the last one is far away */
};

static struct place places[PLACES] = {
	{.arena = 0x20000000, .other = {0x20400000, 0x10010000, 0x70000000}},
	{.arena = 0x90000000, .other = {0x90400000, 0x30000000, 0xf0000000}},
	{.arena = 0x5a5a90000000, .other = {0x5a5a90400000, 0x5a5a30000000, 0x5a5af0000000}},
};

static uint8_t *master, *after;
static ZydisDecoder decoder;

static uint8_t *map(uintptr_t at, size_t size, int prot)
{
	void *p = mmap((void *)at, size, prot,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)at)
		return NULL;
	if (prot & PROT_EXEC)
		memset(p, INT3, size);
	return p;
}

int forms_init(void)
{
	const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
	uintptr_t far = 0x3a5a00000000;

	if (!map(far, PAGE, rwx))
		return -1;
	for (int i = 0; i < PLACES; i++) {
		struct place *p = &places[i];

		p->code = p->arena + 0x100000;
		p->target = p->arena + 0x200000;
		p->other[OTHERS - 1] = far;
		if (!map(p->arena, ARENA, PROT_READ | PROT_WRITE) || !map(p->code, PAGE, rwx) ||
			!map(p->target, PAGE, rwx))
			return -1;
		for (int k = 0; k < OTHERS - 1; k++)
			if (!map(p->other[k], PAGE, rwx))
				return -1;
	}
	master = malloc(ARENA);
	after = malloc(ARENA);
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	return master && after ? execute_init() : -1;
}

/* --- the set ----------------------------------------------------------------- */

static struct form *slot(const struct forms *f, const struct form *form)
{
	uint64_t h = 0xcbf29ce484222325u;
	size_t i;

	for (int k = 0; k < form->len; k++)
		h = (h ^ form->bytes[k]) * 0x100000001b3u;
	for (i = (h ^ h >> 32) & (f->size - 1); f->table[i].len; i = (i + 1) & (f->size - 1))
		if (f->table[i].len == form->len &&
			!memcmp(f->table[i].bytes, form->bytes, form->len))
			break;
	return &f->table[i];
}

static void grow(struct forms *f)
{
	struct forms old = *f;

	f->size = old.size ? 2 * old.size : 1 << 16;
	f->table = calloc(f->size, sizeof *f->table);
	if (!f->table)
		abort();
	for (size_t i = 0; i < old.size; i++)
		if (old.table[i].len)
			*slot(f, &old.table[i]) = old.table[i];
	free(old.table);
}

/* A byte may say which operation it is: some of it is kept. */
static void forget_immediate(struct form *form, const uint8_t *bytes,
	const ZydisDecodedInstruction *z, int i)
{
	size_t at = z->raw.imm[i].offset, n = z->raw.imm[i].size / 8;

	memset(form->bytes + at, n == 1 ? bytes[at] & 7 : 0, n);
}

void forms_add(struct forms *f, const uint8_t *bytes, size_t len)
{
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	struct form form = {.len = (uint8_t)len}, *s;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &ctx, bytes, len, &z)))
		return;
	memcpy(form.bytes, bytes, len);
	memset(form.bytes + z.raw.disp.offset, 0, z.raw.disp.size / 8);
	for (int i = 0; i < 2; i++)
		forget_immediate(&form, bytes, &z, i);
	if (2 * f->n >= f->size)
		grow(f);
	s = slot(f, &form);
	f->n += !s->len;
	*s = form;
}

/* --- one trial --------------------------------------------------------------- */

struct setup {
	uint64_t seed;
	const struct place *p;
	uint8_t bytes[15];
	uint8_t len;
	gregset_t gregs;
	bool control; /* takes an address from memory to go to */
	bool small;   /* vectors of indices */
	bool aligned;
	bool wild; /* its operand is not there */
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static uint64_t pick(struct setup *s)
{
	return next_random(&s->seed);
}

/* Zydis numbers registers as the processor does. */
static greg_t *general(struct setup *s, ZydisRegister r)
{
	static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI,
		REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return &s->gregs[order[r - ZYDIS_REGISTER_RAX]];
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return &s->gregs[order[r - ZYDIS_REGISTER_EAX]];
	return NULL;
}

/* What differs every time, or would change more than the state that is ours. */
static bool is_skipped(const struct setup *s)
{
	switch (s->z.mnemonic) {
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDPRU:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_WRPKRU:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_UMWAIT:
	case ZYDIS_MNEMONIC_TPAUSE:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return true;
	default:
		break;
	}
	for (int i = 0; i < s->z.operand_count; i++) /* syscall's segments are as they are */
		if (s->z.mnemonic != ZYDIS_MNEMONIC_SYSCALL &&
			s->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			s->ops[i].reg.value >= ZYDIS_REGISTER_ES &&
			s->ops[i].reg.value <= ZYDIS_REGISTER_GS &&
			(s->ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	return s->z.meta.category == ZYDIS_CATEGORY_VTX;
}

static bool is_based(const ZydisDecodedOperand *o)
{
	return o->mem.base != ZYDIS_REGISTER_NONE;
}

/* Absolute addresses have 32 bits, or are all there is. */
static const struct place *choose_place(struct setup *s)
{
	bool low = s->z.address_width != 64;

	for (int i = 0; i < s->z.operand_count; i++)
		if (s->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && !is_based(&s->ops[i]))
			low = true;
	return &places[low ? 0 : pick(s) % PLACES];
}

static bool in_segment(const ZydisDecodedOperand *o)
{
	return o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS;
}

static int64_t new_displacement(struct setup *s)
{
	const ZydisDecodedOperand *m = NULL;
	int64_t small = (int64_t)(pick(s) % 64) * 16 - 512; /* / 4 has 8 bits */

	for (int i = 0; i < s->z.operand_count && !m; i++)
		if (s->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			m = &s->ops[i];
	if (s->z.raw.disp.size == 8)
		return small / 4 & -8;
	if (!m || in_segment(m))
		return small;
	if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP)
		return (int64_t)(s->p->arena + MIDDLE - s->p->code - PAGE / 2 - s->len) + (small & -64);
	if (!is_based(m))
		return (int64_t)(s->p->arena + MIDDLE) + small;
	return small;
}

static void rewrite(struct setup *s)
{
	int64_t d = new_displacement(s), rel;

	memcpy(s->bytes + s->z.raw.disp.offset, &d, s->z.raw.disp.size / 8);
	for (int i = 0; i < 2; i++) {
		uint8_t *at = s->bytes + s->z.raw.imm[i].offset;

		if (s->z.raw.imm[i].is_relative) {
			rel = (int64_t)(s->p->target + pick(s) % 512 - s->p->code - PAGE / 2 - s->len);
			if (s->z.raw.imm[i].size == 8)
				rel = (int64_t)(pick(s) % 64 + 32) * (pick(s) & 1 ? 1 : -1);
			memcpy(at, &rel, s->z.raw.imm[i].size / 8);
		} else if (s->z.raw.imm[i].size > 8) {
			rel = (int64_t)pick(s);
			memcpy(at, &rel, s->z.raw.imm[i].size / 8);
		}
	}
}

/* So that base + index * scale is in the arena. */
static void address(struct setup *s, const ZydisDecodedOperand *o)
{
	greg_t *base = general(s, o->mem.base), *index = general(s, o->mem.index);
	uintptr_t at = s->p->arena + MIDDLE + (pick(s) & 0x3c0);

	if (o->mem.base == ZYDIS_REGISTER_RSP)
		at = (uintptr_t)s->gregs[REG_RSP];
	if (in_segment(o))
		at = pick(s) & 0x3c0;
	if (!s->aligned)
		at += pick(s) & 15;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		s->small = true;
	if (base && base == index) {
		*base = (greg_t)(at / (1u + o->mem.scale));
		return;
	}
	if (index)
		*index = (greg_t)(s->control ? 256 : pick(s) & 15);
	if (base)
		*base = (greg_t)(s->wild && o->mem.base != ZYDIS_REGISTER_RSP ? pick(s) : at);
}

static bool is_bit_test(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR ||
	       m == ZYDIS_MNEMONIC_BTC;
}

static void set_registers(struct setup *s)
{
	const uint64_t reps = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
	greg_t *r;

	for (int i = REG_R8; i <= REG_RCX; i++)
		s->gregs[i] = (greg_t)(pick(s) >> (pick(s) % 4 * 16));
	s->gregs[REG_EFL] = (greg_t)((pick(s) & FLAGS) | 0x202);
	/* Apart: a call's operand is not where it puts its return address (insn.h). */
	s->gregs[REG_RSP] = (greg_t)(s->p->arena + MIDDLE + (pick(s) & 0x3c0) + (s->control ? PAGE : 0));
	for (int i = 0; i < s->z.operand_count; i++)
		if (s->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			address(s, &s->ops[i]);
	if (is_bit_test(s->z.mnemonic) && (r = general(s, s->ops[1].reg.value)) &&
		s->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY && s->ops[0].mem.base != s->ops[1].reg.value)
		*r &= 0x1ff;
	if ((s->z.attributes & reps) || s->z.meta.category == ZYDIS_CATEGORY_COND_BR)
		s->gregs[REG_RCX] &= 3;
	if (s->z.mnemonic == ZYDIS_MNEMONIC_SYSCALL)
		s->gregs[REG_RAX] = pick(s) & 1 ? 39 : 100000; /* getpid, none */
	if (s->control && s->z.operand_count_visible && s->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		(r = general(s, s->ops[0].reg.value)))
		*r = (greg_t)(s->p->target + pick(s) % 128);
	s->gregs[REG_RIP] = (greg_t)(s->p->code + PAGE / 2);
}

static void fill_arena(struct setup *s)
{
	for (size_t i = 0; i < ARENA; i += 8) {
		uint64_t v = s->control ? s->p->target + pick(s) % 128 : pick(s);

		memcpy(master + i, &v, 8);
	}
}

static bool prepare(struct setup *s, const struct form *form)
{
	memcpy(s->bytes, form->bytes, sizeof s->bytes);
	s->len = form->len;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, s->bytes, s->len, &s->z, s->ops)) ||
		is_skipped(s))
		return false;
	s->control = s->z.meta.category == ZYDIS_CATEGORY_CALL ||
		     s->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
		     s->z.meta.category == ZYDIS_CATEGORY_RET || s->z.mnemonic == ZYDIS_MNEMONIC_POPFQ ||
		     s->z.mnemonic == ZYDIS_MNEMONIC_POPF;
	s->aligned = s->control || pick(s) % 4;
	s->wild = pick(s) % 8 == 0;
	s->p = choose_place(s);
	rewrite(s);
	set_registers(s);
	fill_arena(s);
	return true;
}

static void run(struct setup *s, uintptr_t at, const uint8_t *code, size_t n, struct outcome *out)
{
	memcpy((void *)s->p->arena, master, ARENA);
	memcpy((void *)at, code, n);
	s->gregs[REG_RIP] = (greg_t)at;
	execute(s->gregs, s->seed, s->small, s->p->arena + MIDDLE, out);
	memset((void *)at, INT3, n);
}

/* As if it had been executed in its place. */
static void map_back(struct outcome *out, uintptr_t at, size_t n, uintptr_t place, size_t len)
{
	uintptr_t rip = (uintptr_t)out->gregs[REG_RIP];

	if (rip >= at && rip < at + n)
		out->gregs[REG_RIP] = (greg_t)place;
	else if (rip == at + n + 1 && out->signal == SIGTRAP)
		out->gregs[REG_RIP] = (greg_t)(place + len + 1);
	if (out->fault >= at && out->fault < at + n)
		out->fault = place;
	out->gregs[REG_EFL] &= ~RF;
}

static bool compare(const struct setup *s, const struct outcome *a, const struct outcome *b,
	struct trial *t)
{
	static const char *const names[] = {"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		"rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "flags"};
	char *what = t->what;
	size_t room = sizeof t->what;

	*what = 0;
	if (a->signal != b->signal || a->fault != b->fault)
		snprintf(what, room, "signal %d at %lx, moved %d at %lx", a->signal, a->fault, b->signal,
			b->fault);
	for (int i = 0; i <= REG_EFL && !*what; i++)
		if (a->gregs[i] != b->gregs[i])
			snprintf(what, room, "%s %llx, moved %llx", names[i], a->gregs[i], b->gregs[i]);
	for (size_t i = 0; i < ARENA && !*what; i++)
		if (after[i] != ((uint8_t *)s->p->arena)[i])
			snprintf(what, room, "memory at rsp%+ld: %02x, moved %02x",
				(long)(s->p->arena + i - (uintptr_t)s->gregs[REG_RSP]), after[i],
				((uint8_t *)s->p->arena)[i]);
	for (size_t i = 0; i < a->vectors_size && !*what; i++)
		if (a->vectors[i] != b->vectors[i])
			snprintf(what, room, "vectors, byte %zu", i);
	return !*what;
}

enum verdict forms_try(const struct form *form, uint64_t seed, struct trial *t)
{
	static struct outcome here, there;
	struct setup s = {.seed = seed};
	uint8_t moved[SHUNT_INSN_MOVED_MAX];
	struct shunt_insn insn;
	uintptr_t at, to;
	const char *why;
	int n;

	if (!prepare(&s, form))
		return SKIPPED;
	at = s.p->code + PAGE / 2;
	/* A page of breakpoints as large as it may be, so nothing is run over. */
	to = s.p->other[pick(&s) % OTHERS] + PAGE / 2 + pick(&s) % 64;
	if (shunt_insn_decode(s.bytes, s.len, at, &insn) || insn.len != s.len) {
		snprintf(t->what, sizeof t->what, "not one instruction");
		return DIFFERENT;
	}
	n = shunt_insn_move(&insn, s.bytes, to, moved, &why);
	if (n < 0)
		return REFUSED;
	run(&s, at, s.bytes, s.len, &here);
	map_back(&here, at, s.len, at, s.len);
	memcpy(after, (void *)s.p->arena, ARENA);
	memcpy((void *)at, s.bytes, s.len);
	run(&s, to, moved, (size_t)n, &there);
	map_back(&there, to, (size_t)n, at, s.len);
	memset((void *)at, INT3, s.len);
	t->signal = here.signal;
	return compare(&s, &here, &there, t) ? SAME : DIFFERENT;
}
