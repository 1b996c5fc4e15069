/* SPDX-License-Identifier: MIT */
/*
 * fuzz_move.c - instructions of any bytes: refused with a sentence, or moved to what
 * decodes as instructions that lead, read and leave behind the same addresses.
 * Functions of any bytes likewise. AT(1) TO(1) LO(1) BYTES.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "probe/insn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (shunt_insn_init(NULL))
		exit(1);
	return 0;
}

static const uintptr_t places[] = {0x1000, 0x400000, 0x7fffff00, 0x80000000, 0xffffff00,
	0x100000000, 0x555555554ff0, 0x5555d0000000, 0x5555d5555000, 0x7f0000000000,
	0x7fffffffe000, 0xffffffffff600000};

#define PLACES (sizeof places / sizeof *places)

static void check(bool good)
{
	if (!good)
		abort();
}

/* What the moved instruction's pieces have been seen to do. */
struct seen {
	bool target, memory, back;
	uintptr_t value; /* the 8 bytes that the next jump goes through, or pushed */
};

/* The absolute target of jmp *0(%rip), whose address is behind it. */
static bool is_absolute(const struct shunt_insn *i, uintptr_t *target, const uint8_t *bytes)
{
	if (i->kind != SHUNT_INSN_JMP_IND || i->len != 6 || !i->disp_at ||
		i->memory != i->at + i->len)
		return false;
	memcpy(target, bytes + 6, 8);
	return true;
}

static void look(const struct shunt_insn *from, const struct shunt_insn *piece,
	const uint8_t *bytes, uintptr_t to, size_t n, struct seen *s)
{
	uint32_t half;

	if (piece->target == from->target && from->target)
		s->target = true;
	else if (piece->target) /* only past the far jump, within what was written */
		check(piece->target - to <= n);
	if (piece->disp_at && piece->memory == from->memory && from->disp_at)
		s->memory = true;
	if (bytes[0] == 0x68 && piece->len == 5) {
		memcpy(&half, bytes + 1, 4);
		s->value = (uintptr_t)(intptr_t)(int32_t)half;
		s->back |= s->value == from->at + from->len;
	}
	if (!memcmp(bytes, "\xc7\x44\x24\x04", 4) && piece->len == 8) {
		memcpy(&half, bytes + 4, 4);
		s->value = (uint32_t)s->value | (uintptr_t)half << 32;
		s->back |= s->value == from->at + from->len;
	}
}

static bool is_call(const struct shunt_insn *insn)
{
	return insn->kind == SHUNT_INSN_CALL || insn->kind == SHUNT_INSN_CALL_IND;
}

static void check_moved(const struct shunt_insn *from, const uint8_t *out, size_t n, uintptr_t to)
{
	struct shunt_insn piece;
	struct seen s = {0};
	uintptr_t target;

	for (size_t i = 0; i < n; i += piece.len) {
		check(!shunt_insn_decode(out + i, n - i, to + i, &piece));
		if (i + 14 <= n && from->kind != SHUNT_INSN_JMP_IND &&
			is_absolute(&piece, &target, out + i)) {
			check(target == from->target);
			s.target = true;
			piece.len = 14;
		} else {
			look(from, &piece, out + i, to + i, n - i, &s);
		}
	}
	check(s.target || !from->target);
	check(s.memory || !from->disp_at);
	check(s.back || !is_call(from));
	if (from->kind == SHUNT_INSN_PLAIN || from->kind == SHUNT_INSN_RET)
		check(n == from->len);
}

static void instruction(const uint8_t *bytes, size_t size, uintptr_t at, uintptr_t to)
{
	uint8_t out[SHUNT_INSN_MOVED_MAX + 16];
	const char *why = NULL;
	struct shunt_insn insn;
	int r = shunt_insn_decode(bytes, size, at, &insn);

	check(!r || r == -EILSEQ || r == -ENODATA);
	check(strcmp(shunt_insn_name(bytes, size), "?") || r);
	if (r)
		return;
	check(insn.len && insn.len <= 15 && insn.len <= size);
	memset(out, 0xa5, sizeof out);
	r = shunt_insn_move(&insn, bytes, to, out, &why);
	check(r <= SHUNT_INSN_MOVED_MAX && out[SHUNT_INSN_MOVED_MAX] == 0xa5);
	if (r < 0)
		check((r == -ENOTSUP || r == -ERANGE) && why && *why);
	else
		check_moved(&insn, out, (size_t)r, to), check(r > 0);
}

static void check_room(const struct shunt_code_map *m, const struct shunt_code *code, uintptr_t at)
{
	struct shunt_room room;
	struct shunt_insn insn;
	uintptr_t end;

	shunt_code_room(m, at, &room);
	if (room.why)
		return;
	check(shunt_code_boundary(m, at, NULL, NULL) && room.len >= 5 && room.len <= 4 + 15);
	end = at + room.len;
	check(end <= code->hi);
	for (; at < end; at += insn.len, room.insns--)
		check(!shunt_insn_decode(code->bytes + (at - code->lo), code->hi - at, at, &insn));
	check(at == end && !room.insns);
}

/* A table of addresses in the function. */
static bool read_table(void *arg, uintptr_t addr, void *to, size_t n)
{
	uintptr_t entry = *(uintptr_t *)arg + addr / 8 % 64;

	memcpy(to, &entry, n);
	return addr % 3;
}

static void function(const uint8_t *bytes, size_t size, uintptr_t lo, uintptr_t entry)
{
	struct shunt_code code = {bytes, lo, lo + size, &entry, 1, read_table, &lo};
	uintptr_t where = 0, prev, next;
	const uintptr_t *exits;
	size_t n;
	struct shunt_code_map *m = shunt_code_map(&code, &where);

	if (!m) {
		check(errno == EILSEQ && where - lo <= size);
		return;
	}
	check(shunt_code_boundary(m, lo, &prev, &next) && !prev);
	n = shunt_code_exits(m, &exits);
	for (size_t i = 0; i < n; i++)
		check(exits[i] - lo >= size);
	for (uintptr_t a = lo - 2; a != lo + size + 2; a++) {
		shunt_code_boundary(m, a, &prev, &next);
		check((!prev || prev < a) && (!next || next > a));
		check_room(m, &code, a);
	}
	free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uintptr_t at, to, lo;

	if (size < 4 || size > 512)
		return 0;
	at = places[data[0] % PLACES] + data[0] / PLACES;
	to = places[data[1] % PLACES] + data[1] / PLACES;
	lo = places[data[2] % (PLACES - 1)];
	instruction(data + 3, size - 3, at, to);
	function(data + 3, size - 3, lo, lo + data[2] / PLACES);
	return 0;
}
