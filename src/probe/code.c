/* SPDX-License-Identifier: MIT */
/*
 * code.c - functions as a whole: where instructions begin, and where a jump may be
 * put over several of them (the contract is in insn.h).
 *
 * A function is followed from its start and its other known entries, branch by
 * branch, and what is left over is decoded from one end of the gap to the other.
 * Compilers put nothing but code into functions, so that all of it is found;
 * handwritten code may have data in between. Four things tell: bytes that are no
 * instruction; an operand that lies there; a branch that leads, or a gap whose last
 * instruction goes, into the middle of one; in a gap, instructions that programs do
 * not have. Then the function is not understood as a whole. (One middle is right:
 * behind prefixes, to do the same instruction without them; C libraries jump over a
 * lock prefix so.)
 *
 * A jump over several instructions is right if control gets to none but the first of
 * them from elsewhere. Branches, entries and returns are known by then; what is left are
 * indirect jumps. Where one reads a switch's table (table.h) its targets are
 * known; any other may lead anywhere in the function: it is `unsure`. (Those of other
 * functions, and indirect calls, lead to the starts of functions.)
 *
 * But compilers split functions: what is seldom executed lies elsewhere (.cold), as a
 * function of its own for who looks at .eh_frame, and jumps lead from the one's middle
 * into the other's. So one must have seen the exits of all before trusting any.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "probe/insn.h"
#include "probe/table.h"

#define JUMP 5

/* What is known of a byte. */
#define STARTS	0x01 /* an instruction begins */
#define COVERED 0x02 /* it is part of one */
#define REACHED 0x04 /* the instruction has been found by following branches */
#define ENTERED 0x08 /* a branch or something from outside leads here */
#define RETURNS 0x10 /* a call or a system call returns to here */
#define BOUNDED 0x20 /* a table's bound is right if nothing leads to here */

struct shunt_code_map {
	uintptr_t lo, hi;
	bool unsure;
	size_t nexits;
	uintptr_t *exits; /* what its branches lead to outside */
	uint8_t *bytes;	  /* as they were: patches come later */
	uint8_t known[];
};

static bool inside(const struct shunt_code_map *m, uintptr_t addr)
{
	return addr - m->lo < m->hi - m->lo;
}

static uint8_t *known(struct shunt_code_map *m, uintptr_t addr)
{
	return &m->known[addr - m->lo];
}

static bool is(const struct shunt_code_map *m, uintptr_t addr, uint8_t what)
{
	return inside(m, addr) && (m->known[addr - m->lo] & what);
}

static int decode(const struct shunt_code_map *m, uintptr_t addr, struct shunt_insn *insn)
{
	return shunt_insn_decode(m->bytes + (addr - m->lo), m->hi - addr, addr, insn);
}

/* --- decoding a function ----------------------------------------------------- */

/* What is needed while a function is decoded only. */
struct todo {
	const struct shunt_code *code;
	bool filling; /* gaps: nothing is followed any more */
	bool no_memory;
	size_t n;     /* addresses still to be followed: each gets in once */
	uint32_t *at;
	size_t nexits, room;
	uintptr_t *exits;
};

static void add_exit(struct todo *todo, uintptr_t addr)
{
	size_t room = todo->room ? 2 * todo->room : 64;
	uintptr_t *more;

	if (todo->nexits == todo->room) {
		more = realloc(todo->exits, room * sizeof *more);
		if (!more) {
			todo->no_memory = true;
			return;
		}
		todo->exits = more;
		todo->room = room;
	}
	todo->exits[todo->nexits++] = addr;
}

static void enter(struct shunt_code_map *m, struct todo *todo, uintptr_t addr)
{
	uint8_t *k;

	if (!inside(m, addr)) {
		add_exit(todo, addr);
		return;
	}
	k = known(m, addr);
	if (!(*k & ENTERED) && !todo->filling)
		todo->at[todo->n++] = (uint32_t)(addr - m->lo);
	*k |= ENTERED;
}

/* The start of the last instruction that begins before or at addr. */
static uintptr_t start_of(const struct shunt_code_map *m, uintptr_t addr)
{
	while (!is(m, addr, STARTS))
		addr--;
	return addr;
}

/* The instructions before `jump` that go on to it, and itself. */
static size_t run_to(const struct shunt_code_map *m, const struct shunt_insn *jump,
	struct shunt_run run[SHUNT_TABLE_RUN])
{
	size_t n = SHUNT_TABLE_RUN;
	struct shunt_insn insn = *jump;

	for (;;) {
		n--;
		run[n] = (struct shunt_run){m->bytes + (insn.at - m->lo), insn.len, insn.at};
		if (!n || !inside(m, insn.at - 1) || !is(m, insn.at - 1, COVERED))
			break;
		decode(m, start_of(m, insn.at - 1), &insn);
		if (insn.kind != SHUNT_INSN_PLAIN && insn.kind != SHUNT_INSN_JCC)
			break;
	}
	memmove(run, run + n, (SHUNT_TABLE_RUN - n) * sizeof *run);
	return SHUNT_TABLE_RUN - n;
}

static bool read_table(struct shunt_code_map *m, struct todo *todo, const struct shunt_table *t)
{
	for (size_t i = 0; i < t->n; i++) {
		uintptr_t entry = 0;
		int32_t offset;

		if (!todo->code->read(todo->code->arg, t->at + i * t->size,
			    t->size == 4 ? (void *)&offset : (void *)&entry, t->size))
			return false;
		if (t->size == 4)
			entry = t->base + (uintptr_t)(intptr_t)offset;
		enter(m, todo, entry);
	}
	return true;
}

static bool is_switch(struct shunt_code_map *m, struct todo *todo, const struct shunt_insn *jump)
{
	struct shunt_run run[SHUNT_TABLE_RUN];
	struct shunt_table t;

	if (!todo->code->read || !shunt_table_find(run, run_to(m, jump, run), &t) ||
		!read_table(m, todo, &t))
		return false;
	for (uintptr_t a = t.from + 1; a <= jump->at; a++)
		*known(m, a) |= BOUNDED;
	return true;
}

static bool is_lea(const struct shunt_code_map *m, const struct shunt_insn *insn)
{
	const uint8_t *b = m->bytes + (insn->at - m->lo) + insn->modrm_at;

	return insn->kind == SHUNT_INSN_PLAIN && b[-1] == 0x8d &&
	       (insn->modrm_at < 2 || (b[-2] & 0xf0) == 0x40);
}

/* Of code, to be called or jumped to some time; or of anything else. */
static void address_taken(struct shunt_code_map *m, struct todo *todo, uintptr_t addr)
{
	if (inside(m, addr))
		*known(m, addr) |= ENTERED;
	else
		add_exit(todo, addr);
}

/* Writes down what one instruction tells. False if it cannot be so: it overlaps another. */
static bool note(struct shunt_code_map *m, struct todo *todo, const struct shunt_insn *insn)
{
	uintptr_t next = insn->at + insn->len;

	for (uintptr_t a = insn->at; a < next; a++) {
		if (*known(m, a) & COVERED)
			return false;
		*known(m, a) |= COVERED;
	}
	*known(m, insn->at) |= STARTS;
	if (insn->target)
		enter(m, todo, insn->target);
	if (insn->disp_at && is_lea(m, insn))
		address_taken(m, todo, insn->memory);
	else if (insn->disp_at && inside(m, insn->memory))
		return false; /* it is data that lies there */
	if (insn->kind == SHUNT_INSN_CALL || insn->kind == SHUNT_INSN_CALL_IND ||
		insn->kind == SHUNT_INSN_SYSCALL)
		if (inside(m, next))
			*known(m, next) |= RETURNS;
	/* What is marked so is meant to be jumped to. */
	if (insn->endbr && insn->at != m->lo)
		*known(m, insn->at) |= ENTERED;
	if (insn->kind == SHUNT_INSN_JMP_IND && (todo->filling || !is_switch(m, todo, insn)))
		m->unsure = true;
	return true;
}

/*
 * Follows the code from addr to where it leaves, or comes to what is known. False
 * with *where: not understood.
 */
static bool follow(struct shunt_code_map *m, struct todo *todo, uintptr_t addr, uintptr_t *where)
{
	struct shunt_insn insn;

	for (; inside(m, addr); addr += insn.len) {
		*where = addr;
		if (is(m, addr, COVERED))
			return true; /* middles are looked at when all is known */
		if (decode(m, addr, &insn) || !note(m, todo, &insn))
			return false;
		*known(m, addr) |= REACHED;
		if (!shunt_insn_goes_on(&insn))
			return true;
	}
	return true;
}

/* What is executed by a program in the course of things. */
static bool is_usual(const struct shunt_insn *insn)
{
	return !insn->refused || insn->kind == SHUNT_INSN_TRAP || insn->kind == SHUNT_INSN_CALL_IND;
}

/* What nobody was seen to lead to. */
static bool fill_gaps(struct shunt_code_map *m, struct todo *todo, uintptr_t *where)
{
	struct shunt_insn insn;

	todo->filling = true;
	for (uintptr_t addr = m->lo; addr < m->hi; addr += insn.len) {
		insn.len = 1;
		if (is(m, addr, COVERED))
			continue;
		*where = addr;
		if (decode(m, addr, &insn) || !is_usual(&insn) || !note(m, todo, &insn))
			return false;
	}
	return true;
}

/* Whether what begins at addr is the instruction around it, less some prefixes. */
static bool is_rest(const struct shunt_code_map *m, uintptr_t addr)
{
	uintptr_t start = start_of(m, addr);
	struct shunt_insn whole, rest;

	return !decode(m, start, &whole) && !decode(m, addr, &rest) &&
	       start + whole.len == addr + rest.len && whole.kind == rest.kind &&
	       whole.modrm_at - (addr - start) == rest.modrm_at;
}

static bool check_entries(struct shunt_code_map *m, uintptr_t *where)
{
	for (uintptr_t addr = m->lo; addr < m->hi; addr++) {
		*where = addr;
		if (is(m, addr, BOUNDED) && is(m, addr, ENTERED | RETURNS))
			m->unsure = true;
		if (is(m, addr, ENTERED | RETURNS) && !is(m, addr, STARTS) && !is_rest(m, addr))
			return false;
	}
	return true;
}

static bool understand(struct shunt_code_map *m, const struct shunt_code *code, struct todo *todo,
	uintptr_t *where)
{
	for (size_t i = 0; i < code->nentries; i++)
		enter(m, todo, code->entries[i]);
	enter(m, todo, m->lo); /* the last comes first: a lock prefix before who jumps over it */
	while (todo->n)
		if (!follow(m, todo, m->lo + todo->at[--todo->n], where))
			return false;
	return fill_gaps(m, todo, where) && check_entries(m, where);
}

/* The map, for as long as it is needed, in one piece. */
static struct shunt_code_map *finish(struct shunt_code_map *m, const struct todo *todo)
{
	size_t size = (sizeof *m + 2 * (m->hi - m->lo) + 7) & -8ul;
	struct shunt_code_map *r = realloc(m, size + todo->nexits * sizeof *todo->exits);

	if (!r) {
		free(m);
		return NULL;
	}
	r->bytes = r->known + (r->hi - r->lo);
	r->exits = (uintptr_t *)((char *)r + size);
	r->nexits = todo->nexits;
	if (r->nexits)
		memcpy(r->exits, todo->exits, r->nexits * sizeof *todo->exits);
	return r;
}

static struct shunt_code_map *fail(struct shunt_code_map *m, int error)
{
	free(m);
	errno = error;
	return NULL;
}

struct shunt_code_map *shunt_code_map(const struct shunt_code *code, uintptr_t *where)
{
	size_t n = code->hi - code->lo;
	struct shunt_code_map *m;
	struct todo todo = {.code = code};
	uintptr_t unused;

	where = where ? where : &unused;
	*where = code->lo;
	if (code->hi <= code->lo || n > UINT32_MAX)
		return fail(NULL, EILSEQ);
	m = calloc(1, sizeof *m + 2 * n);
	todo.at = malloc(n * sizeof *todo.at);
	if (!m || !todo.at) {
		free(todo.at);
		return fail(m, ENOMEM);
	}
	m->lo = code->lo;
	m->hi = code->hi;
	m->bytes = m->known + n;
	memcpy(m->bytes, code->bytes, n);
	if (!understand(m, code, &todo, where))
		m = fail(m, EILSEQ);
	else if (todo.no_memory || !(m = finish(m, &todo)))
		m = fail(m, ENOMEM);
	free(todo.exits);
	free(todo.at);
	return m;
}

/* --- asking ------------------------------------------------------------------ */

bool shunt_code_boundary(const struct shunt_code_map *m, uintptr_t addr, uintptr_t *prev,
	uintptr_t *next)
{
	uintptr_t p = addr, n = addr;

	if (prev)
		*prev = 0;
	if (next)
		*next = 0;
	if (!inside(m, addr))
		return false;
	if (prev && addr > m->lo)
		*prev = start_of(m, p - 1);
	do
		n++;
	while (inside(m, n) && !is(m, n, STARTS));
	if (next && inside(m, n))
		*next = n;
	return is(m, addr, STARTS);
}

size_t shunt_code_exits(const struct shunt_code_map *m, const uintptr_t **exits)
{
	*exits = m->exits;
	return m->nexits;
}

bool shunt_code_reached(const struct shunt_code_map *m, uintptr_t addr)
{
	return is(m, addr, REACHED);
}

bool shunt_code_unsure(const struct shunt_code_map *m)
{
	return m->unsure;
}

void shunt_code_sure(struct shunt_code_map *m)
{
	m->unsure = false;
}

/* Why the instruction, with `room->len` bytes before it displaced, cannot be, too. */
static const char *refuse(const struct shunt_code_map *m, const struct shunt_insn *insn, bool last)
{
	for (uintptr_t a = insn->at + 1; a < insn->at + insn->len; a++)
		if (is(m, a, ENTERED))
			return "a branch leads to behind the prefix of an instruction";
	if (insn->refused)
		return "an instruction cannot be executed elsewhere";
	if (last)
		return NULL;
	if (!shunt_insn_goes_on(insn))
		return "less than 5 bytes, and what follows is never reached from them";
	if (!inside(m, insn->at + insn->len))
		return "the function ends within 5 bytes";
	if (is(m, insn->at + insn->len, RETURNS))
		return "a call or a system call returns to within the 5 bytes";
	if (is(m, insn->at + insn->len, ENTERED))
		return "a branch leads to within the 5 bytes";
	if (!is(m, insn->at, REACHED))
		return "nothing in the function is known to lead here";
	if (m->unsure)
		return "an indirect jump in the function may lead to within the 5 bytes";
	return NULL;
}

void shunt_code_room(const struct shunt_code_map *m, uintptr_t addr, struct shunt_room *room)
{
	struct shunt_insn insn;

	*room = (struct shunt_room){.why = "no instruction begins there"};
	if (!is(m, addr, STARTS))
		return;
	do {
		decode(m, addr, &insn);
		room->why = refuse(m, &insn, room->len + insn.len >= JUMP);
		if (room->why)
			return;
		room->len = (uint8_t)(room->len + insn.len);
		room->insns++;
		addr += insn.len;
	} while (room->len < JUMP);
}
