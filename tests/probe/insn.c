/* SPDX-License-Identifier: MIT */
/* insn.c - instructions by hand: what they are, what they become elsewhere, what is refused. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "probe/insn.h"
#include "tap.h"

#define AT   0x555555554000u
#define NEAR 0x555555000000u
#define LOW  0x400000u
#define FAR  0x7fff00000000u

static size_t read_hex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned b;

	for (; sscanf(hex, "%2x", &b) == 1; hex += 2)
		out[n++] = (uint8_t)b;
	return n;
}

/* --- what it is -------------------------------------------------------------- */

static const struct {
	const char *hex, *what;
	int r; /* of shunt_insn_decode() */
	enum shunt_insn_kind kind;
	bool sp;
	long target, memory; /* from AT; 0: none */
} kinds[] = {
	{"90", "nop", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"f30f1efa", "endbr64", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"4889e0", "mov %rsp,%rax", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"4889c4", "mov %rax,%rsp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"4883ec08", "sub $8,%rsp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"48bc0000000000000000", "movabs $0,%rsp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"4894", "xchg %rax,%rsp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"55", "push %rbp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"c9", "leave", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"c8000000", "enter", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"9c", "pushf", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"48894424f8", "mov %rax,-8(%rsp)", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"48890424", "mov %rax,(%rsp)", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"488b4424f8", "mov -8(%rsp),%rax", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"4889442408", "mov %rax,8(%rsp)", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"c5f8294424f0", "vmovaps %xmm0,-16(%rsp)", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"488d4424f8", "lea -8(%rsp),%rax", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"488d6424f8", "lea -8(%rsp),%rsp", 0, SHUNT_INSN_PLAIN, true, 0, 0},
	{"4989c4", "mov %rax,%r12", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"49894424f8", "mov %rax,-8(%r12)", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"488b0510000000", "mov 16(%rip),%rax", 0, SHUNT_INSN_PLAIN, false, 0, 23},
	{"c70510000000ffffffff", "movl $-1,16(%rip)", 0, SHUNT_INSN_PLAIN, false, 0, 26},
	{"488b042510000000", "mov 16,%rax", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"eb10", "jmp short", 0, SHUNT_INSN_JMP, false, 18, 0},
	{"e9f0ffffff", "jmp backwards", 0, SHUNT_INSN_JMP, false, -11, 0},
	{"7410", "je", 0, SHUNT_INSN_JCC, false, 18, 0},
	{"0f8510000000", "jne", 0, SHUNT_INSN_JCC, false, 22, 0},
	{"e210", "loop", 0, SHUNT_INSN_LOOP, false, 18, 0},
	{"67e310", "jecxz", 0, SHUNT_INSN_LOOP, false, 19, 0},
	{"c7f810000000", "xbegin", 0, SHUNT_INSN_LOOP, false, 22, 0},
	{"c6f810", "xabort", 0, SHUNT_INSN_PLAIN, false, 0, 0},
	{"e810000000", "call", 0, SHUNT_INSN_CALL, true, 21, 0},
	{"666648e810000000", "data16 data16 rex.W call", 0, SHUNT_INSN_CALL, true, 24, 0},
	{"ff1510000000", "call *16(%rip)", 0, SHUNT_INSN_CALL_IND, true, 0, 22},
	{"ffd0", "call *%rax", 0, SHUNT_INSN_CALL_IND, true, 0, 0},
	{"ff2510000000", "jmp *16(%rip)", 0, SHUNT_INSN_JMP_IND, false, 0, 22},
	{"3effe0", "notrack jmp *%rax", 0, SHUNT_INSN_JMP_IND, false, 0, 0},
	{"f3c3", "rep ret", 0, SHUNT_INSN_RET, true, 0, 0},
	{"c20800", "ret $8", 0, SHUNT_INSN_RET, true, 0, 0},
	{"48cf", "iretq", 0, SHUNT_INSN_RET, true, 0, 0},
	{"0f05", "syscall", 0, SHUNT_INSN_SYSCALL, false, 0, 0},
	{"cd80", "int $0x80", 0, SHUNT_INSN_SYSCALL, false, 0, 0},
	{"cc", "int3", 0, SHUNT_INSN_TRAP, false, 0, 0},
	{"f1", "int1", 0, SHUNT_INSN_TRAP, false, 0, 0},
	{"0f0b", "ud2", 0, SHUNT_INSN_STOP, false, 0, 0},
	{"f4", "hlt", 0, SHUNT_INSN_STOP, false, 0, 0},
	{"06", "no instruction", -EILSEQ, 0, false, 0, 0},
	{"ce", "into, of 32 bits", -EILSEQ, 0, false, 0, 0},
	{"66e900000000", "jmp, 16 or 32 bits", -EILSEQ, 0, false, 0, 0},
	{"667400", "je, 16 or 32 bits", -EILSEQ, 0, false, 0, 0},
	{"66c3", "ret, 16 or 32 bits", -EILSEQ, 0, false, 0, 0},
	{"0fffc0", "ud0", -EILSEQ, 0, false, 0, 0},
	{"f0f30fb8c0", "lock popcnt", -EILSEQ, 0, false, 0, 0},
	{"e8000000", "call, cut off", -ENODATA, 0, false, 0, 0},
	{"48", "a prefix", -ENODATA, 0, false, 0, 0},
	{"", "nothing", -ENODATA, 0, false, 0, 0},
};

static uintptr_t from_at(long offset)
{
	return offset ? AT + (uintptr_t)offset : 0;
}

static bool is_kind(const struct shunt_insn *insn, size_t i, size_t n)
{
	return insn->len == n && insn->kind == kinds[i].kind && insn->writes_sp == kinds[i].sp &&
	       insn->target == from_at(kinds[i].target) &&
	       insn->memory == from_at(kinds[i].memory) &&
	       insn->endbr == !strcmp(kinds[i].what, "endbr64");
}

static void what_it_is(void)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		uint8_t *b = malloc(16), *exact;
		size_t n = read_hex(kinds[i].hex, b);
		struct shunt_insn insn;
		int r;

		exact = malloc(n ? n : 1); /* so that a sanitizer sees who reads too much */
		memcpy(exact, b, n);
		r = shunt_insn_decode(exact, n, AT, &insn);
		ok(r == kinds[i].r && (r || is_kind(&insn, i, n)), "%s: %s", kinds[i].what,
			r ? "refused" : "known");
		free(exact);
		free(b);
	}
}

/* --- elsewhere --------------------------------------------------------------- */

static const struct {
	const char *hex;
	uintptr_t at, to;
	const char *out, *why; /* one of them */
} moves[] = {
	/* what has no address in it is copied */
	{"4889c4", AT, FAR, "4889c4", NULL},
	{"48894424f8", AT, FAR, "48894424f8", NULL},
	{"f3a4", AT, FAR, "f3a4", NULL},
	{"f00fb10b", AT, FAR, "f00fb10b", NULL},
	{"64488b042528000000", AT, FAR, "64488b042528000000", NULL},
	{"f30f1efa", AT, FAR, "f30f1efa", NULL},
	{"c3", AT, FAR, "c3", NULL},
	{"ffe0", AT, FAR, "ffe0", NULL},
	{"0f0b", AT, FAR, "0f0b", NULL},
	{"6aff", AT, FAR, "6aff", NULL},
	{"e464", AT, FAR, "e464", NULL},
	/* RIP-relative: the displacement is the last but for the immediate */
	{"488b0510000000", AT, AT + 0x1000, "488b0510f0ffff", NULL},
	{"c70510000000ffffffff", AT, AT - 0x1000, "c70510100000ffffffff", NULL},
	{"660f3a0f051000000003", AT, AT + 0x100, "660f3a0f0510ffffff03", NULL},
	{"62f1fd486f0510000000", AT, AT + 0x100, "62f1fd486f0510ffffff", NULL},
	{"ff2510000000", AT, AT + 0x100, "ff2510ffffff", NULL},
	{"488b0510000000", AT, AT + 0x80000010u, "488b0500000080", NULL},
	{"488b0510000000", AT, AT + 0x80000011u, NULL, "RIP-relative"},
	{"488b05f0ffffff", AT, AT - 0x8000000fu, "488b05ffffff7f", NULL},
	{"488b05f0ffffff", AT, AT - 0x80000010u, NULL, "RIP-relative"},
	{"ff1510000000", AT, FAR, NULL, "RIP-relative"},
	{"67488d0510000000", AT, NEAR, NULL, "67h"},
	/* branches */
	{"eb10", AT, NEAR, "e90d405500", NULL},
	{"e910000000", AT, NEAR, "e910405500", NULL},
	{"eb10", AT, FAR, "ff25000000001240555555550000", NULL},
	{"7410", AT, NEAR, "0f840c405500", NULL},
	{"2e7510", AT, NEAR, "0f850d405500", NULL},
	{"0f8f10000000", AT, NEAR, "0f8f10405500", NULL},
	{"7410", AT, FAR, "750eff25000000001240555555550000", NULL},
	{"e210", AT, NEAR, "e202eb05e909405500", NULL},
	{"67e310", AT, NEAR, "67e302eb05e909405500", NULL},
	{"e0fe", AT, FAR, "e002eb0eff25000000000040555555550000", NULL},
	{"c7f810000000", AT, NEAR, "c7f810405500", NULL},
	{"c7f810000000", AT, FAR, NULL, "xbegin"},
	/* calls: the return address is the original one */
	{"e810000000", LOW, LOW + 0x1000, "6805004000e90bf0ffff", NULL},
	{"e810000000", AT, NEAR, "6805405555c744240455550000e903405500", NULL},
	{"e800000000", AT, NEAR, "6805405555c744240455550000e9f33f5500", NULL},
	{"e800000000", 0x80000000u, 0x80001000u, "6805000080c744240400000000e9f3efffff", NULL},
	{"ffd0", LOW, FAR, "6802004000ffe0", NULL},
	{"41ffd4", LOW, FAR, "680300400041ffe4", NULL},
	{"3effd0", LOW, FAR, "68030040003effe0", NULL},
	{"ff5008", LOW, FAR, "ff7008488d6424086803004000ff6008", NULL},
	{"ff1424", LOW, FAR, "ff3424488d6424086803004000ffa42408000000", NULL},
	{"ff54247c", LOW, FAR, "ff74247c488d6424086804004000ffa42484000000", NULL},
	{"ff9424f0ffffff", LOW, FAR, "ffb424f0ffffff488d6424086807004000ffa424f8ffffff", NULL},
	{"41ff542408", LOW, FAR, "41ff742408488d642408680500400041ff642408", NULL},
	{"64ff13", LOW, FAR, "64ff33488d642408680300400064ff23", NULL},
	{"ff1510000000", LOW, LOW + 0x1000,
		"ff3510f0ffff488d6424086806004000ff2500f0ffff", NULL},
	{"ffd4", AT, NEAR, NULL, "call *%rsp"},
	{"ff5424f8", AT, NEAR, NULL, "overwrites"},
	{"ff5424f1", AT, NEAR, NULL, "overwrites"},
	{"ff9424ffffff7f", AT, NEAR, NULL, "overwrites"},
	{"67ff1424", AT, NEAR, NULL, "%esp"},
	/* the kernel */
	{"0f05", AT, FAR, "0f0548b90240555555550000", NULL},
	{"cd80", AT, NEAR, NULL, "int n"},
	{"0f34", AT, NEAR, NULL, "sysenter"},
	{"48cf", AT, NEAR, NULL, "iret"},
	{"480f07", AT, NEAR, NULL, "sysret"},
	{"cc", AT, NEAR, NULL, "int3"},
	{"f1", AT, NEAR, NULL, "int1"},
	{"f4", AT, NEAR, NULL, "privileged"},
	{"0f0110", AT, NEAR, NULL, "privileged"},
	{"0f20c0", AT, NEAR, NULL, "privileged"},
	{"cb", AT, NEAR, NULL, "far"},
	{"ff28", AT, NEAR, NULL, "far"},
	{"ff18", AT, NEAR, NULL, "far"},
	{"0f01d7", AT, NEAR, NULL, "enclu"},
};

static void elsewhere(void)
{
	for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
		uint8_t b[16], want[64], out[SHUNT_INSN_MOVED_MAX];
		size_t n = read_hex(moves[i].hex, b), m = 0;
		struct shunt_insn insn;
		const char *why = NULL;
		int r = shunt_insn_decode(b, n, moves[i].at, &insn);
		char text[2 * SHUNT_INSN_MOVED_MAX + 1] = "";

		if (!r)
			r = shunt_insn_move(&insn, b, moves[i].to, out, &why);
		for (int k = 0; k < r; k++)
			sprintf(text + 2 * k, "%02x", out[k]);
		if (moves[i].out) {
			m = read_hex(moves[i].out, want);
			ok(r == (int)m && !memcmp(out, want, m), "%s: %s", moves[i].hex,
				r < 0 ? why ? why : "not decoded" : text);
		} else {
			ok((r == -ENOTSUP || r == -ERANGE) && why && strstr(why, moves[i].why) &&
					(r == -ERANGE) == !!strstr(why, "2 GiB"),
				"%s: %s", moves[i].hex, why ? why : text);
		}
	}
}

/* --- functions --------------------------------------------------------------- */

struct room_case {
	unsigned at, len, insns;
	const char *why;
};

static const struct {
	const char *what, *hex;
	int bad;	   /* where it is not understood, -1: it is */
	unsigned entry;	   /* a landing pad, 0: none */
	const char *starts; /* a + for each byte that is a boundary */
	struct room_case rooms[6];
} functions[] = {
	{"a plain one", "554889e55dc3", -1, 0, "++--++",
		{{0, 5, 3, NULL}, {1, 5, 3, NULL}, {4, 1, 1, "never reached"},
			{2, 0, 0, "no instruction"}, {6, 0, 0, "no instruction"}}},
	{"the first is long enough", "b801000000c3", -1, 0, "+----+", {{0, 5, 1, NULL}}},
	{"returns early", "31c0c39090", -1, 0, "+-+++",
		{{0, 2, 1, "never reached"}, {3, 0, 0, "nothing in the function"}}},
	/* 0: test; 2: je 7; 4: xor; 6: ret; 7: mov; c: ret */
	{"a branch leads elsewhere", "85ff740331c0c3b801000000c3", -1, 0, "+-+-+-++----+",
		{{0, 6, 3, NULL}, {2, 5, 3, NULL}, {4, 2, 1, "never reached"}, {7, 5, 1, NULL}}},
	/* 0: xor; 2: inc; 4: cmp; 6: jne 2; 8: ret */
	{"a loop", "31c0ffc039f875fac3", -1, 0, "+-+-+-+-+",
		{{0, 0, 0, "a branch leads"}, {2, 6, 3, NULL}, {4, 5, 3, NULL}, {6, 2, 1, "never reached"}}},
	/* 0: push; 1: call *rdi; 3: pop; 4: xor; 6: ret */
	{"a call returns", "50ffd75831c0c3", -1, 0, "++-++-+",
		{{0, 1, 1, "a call"}, {1, 0, 0, "a call"}, {3, 3, 2, "never reached"}}},
	{"a call is the last", "ffc0e800000000c3", -1, 0, "+-+----+",
		{{0, 7, 2, NULL}, {2, 5, 1, NULL}}},
	{"a system call returns", "500f05b801000000c3", -1, 0, "++-+----+",
		{{0, 1, 1, "a call or a system call"}, {3, 5, 1, NULL}}},
	{"a landing pad", "505858505858c3", -1, 2, "+++++++",
		{{0, 1, 1, "a branch leads"}, {1, 0, 0, "a branch leads"}, {2, 5, 5, NULL}, {3, 3, 3, "never reached"}}},
	{"an indirect jump", "5050505050b801000000ffe0", -1, 0, "++++++----+-",
		{{0, 0, 0, "an indirect jump"}, {5, 5, 1, NULL}, {10, 0, 0, "never reached"}}},
	{"an interrupt", "50cd809090", -1, 0, "++-++", {{0, 1, 1, "cannot be executed elsewhere"}}},
	/* 0: je 3; 2: lock; 3: cmpxchg %ecx,(%rdx); 6: ret */
	{"a prefix jumped over", "7401f00fb10ac3", -1, 0, "+-+---+",
		{{0, 2, 1, "behind the prefix"}, {2, 0, 0, "behind the prefix"}}},
	{"endbr inside", "5050f30f1efa50505050c3", -1, 0, "+++---+++++",
		{{0, 1, 1, "a branch leads"}, {2, 5, 2, NULL}}},
	/* 0: jmp 3; 2: (what starts a 5-byte instruction); 3: nop.. */
	{"the end is not the end", "5050e800000000", -1, 0, "+++----",
		{{0, 7, 3, NULL}, {1, 6, 2, NULL}}},
	{"ends too early", "b800000000" "50ffc0", -1, 0, "+----++-",
		{{0, 5, 1, NULL}, {5, 1, 1, "the function ends"}}},
	{"data that hides code", "eb01b89090909090c3", 2, 0, NULL, {{0}}},
	{"a branch to a middle", "7401b801000000c3", 3, 0, NULL, {{0}}},
	{"no instruction", "500690c3", 1, 0, NULL, {{0}}},
	{"cut off", "50e80000", 1, 0, NULL, {{0}}},
	{"no instruction in a gap", "c306", 1, 0, NULL, {{0}}},
	{"a gap like data", "c3f4c3", 1, 0, NULL, {{0}}},
	{"an entry in a middle", "b801000000c3", 2, 2, NULL, {{0}}},
};

static void check_rooms(const struct shunt_code_map *m, const char *what,
	const struct room_case *rooms)
{
	for (int i = 0; i < 6 && (rooms[i].len || rooms[i].why); i++) {
		const struct room_case *want = &rooms[i];
		struct shunt_room room;

		shunt_code_room(m, AT + want->at, &room);
		ok(want->why ? room.why && strstr(room.why, want->why)
			     : !room.why && room.len == want->len && room.insns == want->insns,
			"%s: room at %u: %u, %u: %s", what, want->at, room.len, room.insns,
			room.why ? room.why : "yes");
		if (want->why)
			ok(room.len == want->len && room.insns == want->insns,
				"%s: room at %u ends where it must (%u, %u)", what, want->at,
				room.len, room.insns);
	}
}

static void check_starts(const struct shunt_code_map *m, const char *what, const char *starts)
{
	uintptr_t before = 0;
	bool good = true;

	for (size_t i = 0; starts[i]; i++) {
		const char *later = strchr(starts + i + 1, '+');
		uintptr_t prev, next, want = later ? AT + (uintptr_t)(later - starts) : 0;
		bool is = shunt_code_boundary(m, AT + i, &prev, &next);

		good &= is == (starts[i] == '+') && prev == before && next == want;
		if (starts[i] == '+')
			before = AT + i;
	}
	good &= !shunt_code_boundary(m, AT - 1, NULL, NULL) &&
		!shunt_code_boundary(m, AT + strlen(starts), NULL, NULL);
	ok(good, "%s: boundaries", what);
}

static void whole_functions(void)
{
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		uint8_t *b = malloc(64), *exact;
		size_t n = read_hex(functions[i].hex, b);
		uintptr_t entry = AT + functions[i].entry, where = 0;
		struct shunt_code code = {.lo = AT, .hi = AT + n, .entries = &entry,
			.nentries = functions[i].entry != 0};
		struct shunt_code_map *m;

		exact = malloc(n);
		memcpy(exact, b, n);
		code.bytes = exact;
		m = shunt_code_map(&code, &where);
		memset(exact, 0xcc, n); /* it has been patched: the map is of what was there */
		if (functions[i].bad >= 0)
			ok(!m && errno == EILSEQ && where == AT + (uintptr_t)functions[i].bad,
				"%s: not understood at %ld", functions[i].what, (long)(where - AT));
		else if (ok(m, "%s: understood", functions[i].what)) {
			check_starts(m, functions[i].what, functions[i].starts);
			check_rooms(m, functions[i].what, functions[i].rooms);
		}
		free(m);
		free(exact);
		free(b);
	}
}

/* --- switches ---------------------------------------------------------------- */

static const struct {
	const char *what, *hex;
	size_t n; /* entries that are read, 0: it is not sure */
} switches[] = {
	{"cmp, ja, mov, jmp", "83ff02770989ffff24fd00700000c3", 3},
	{"cmp, jae, mov, jmp", "83ff02730989ffff24fd00700000c3", 2},
	{"64 bits compared", "4883ff027707ff24fd00700000c3", 3},
	{"read into a register", "4883ff02770a488b04fd00700000ffe0c3", 3},
	{"a byte, extended", "4080ff02770b400fb6ffff24fd00700000c3", 3},
	{"a byte, extended before", "0fb6073c027707ff24c500700000c3", 3},
	{"offsets", "83e80383f8027711488d1500100000486304824801d03effe0c3", 3},
	{"offsets, added the other way", "83fe02771289f0488d1500100000486304824801c2ffe2c3", 3},
	{"32 bits made", "ffc783ff027707ff24fd00700000c3", 3},
	{"64 bits made", "4801f783ff027707ff24fd00700000c3", 0},
	{"32 bits made, or not", "0fbcfe83ff027707ff24fd00700000c3", 0},
	{"upper half not cleared", "83ff027707ff24fd00700000c3", 0},
	{"a byte compared, more copied", "4080ff02770989ffff24fd00700000c3", 0},
	{"a byte compared, two extended", "0fb7073c027707ff24c500700000c3", 0},
	{"another register compared", "83fe02770989ffff24fd00700000c3", 0},
	{"changed since", "83ff027709ffc7ff24fd00700000c3", 0},
	{"a byte changed since", "4883ff02770a4088f7ff24fd00700000c3", 0},
	{"a signed comparison", "83ff027f0989ffff24fd00700000c3", 0},
	{"flags of another", "83ff0285f6770989ffff24fd00700000c3", 0},
	{"entered behind", "85f6740583ff02770989ffff24fd00700000c3", 0},
	{"the base changed", "4883ff027713488d1500100000486304ba48ffc24801d0ffe0c3", 0},
	{"in a segment", "4883ff02770864ff24fd00700000c3", 0},
	{"no comparison", "ff24fd00700000c3", 0},
};

/* The tables of all of them: each entry leads to the start, whatever its size. */
static bool read_entry(void *arg, uintptr_t addr, void *to, size_t n)
{
	uint64_t entry = AT;
	int32_t offset = (int32_t)(AT - addr);
	size_t *reads = arg;

	if (n == 4)
		offset += 4 * (int32_t)*reads; /* all are relative to the first */
	memcpy(to, n == 8 ? (void *)&entry : (void *)&offset, n);
	++*reads;
	return true;
}

static bool read_nothing(void *arg, uintptr_t addr, void *to, size_t n)
{
	(void)arg, (void)addr, (void)to, (void)n;
	return false;
}

static bool is_sure(const uint8_t *bytes, size_t n,
	bool (*read)(void *, uintptr_t, void *, size_t), size_t *reads)
{
	struct shunt_code code = {.bytes = bytes, .lo = AT, .hi = AT + n, .read = read, .arg = reads};
	struct shunt_code_map *m = shunt_code_map(&code, NULL);
	bool sure = m && !shunt_code_unsure(m);

	free(m);
	return sure;
}

static void tables(void)
{
	for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
		size_t reads = 0;
		uint8_t b[64];
		size_t n = read_hex(switches[i].hex, b);
		bool sure = is_sure(b, n, read_entry, &reads);

		ok(sure == (switches[i].n > 0) && (!sure || reads == switches[i].n),
			"a switch: %s: %s, %zu entries", switches[i].what,
			sure ? "sure" : "not sure", reads);
		ok(!is_sure(b, n, read_nothing, NULL) && !is_sure(b, n, NULL, NULL),
			"a switch: %s: not without its table", switches[i].what);
	}
}

/* --- where a function leads -------------------------------------------------- */

/* 0: je +0x40; 2: call +0x100; 7: lea 0x200(%rip),%rax; e: mov 0x300(%rip),%rax; 15: jmp back;
 * 17: (a gap) jmp +0x50 */
static void exits(void)
{
	static const uintptr_t want[] = {AT + 0x42, AT + 0x107, AT + 0x20e, AT - 2, AT + 0x69};
	uint8_t b[64];
	size_t n = read_hex("7440e800010000488d0500020000488b0500030000ebe7eb50", b), found = 0;
	struct shunt_code code = {.bytes = b, .lo = AT, .hi = AT + n};
	struct shunt_code_map *m = shunt_code_map(&code, NULL);
	const uintptr_t *e;
	size_t count;

	if (!ok(m, "a function that leads elsewhere is understood"))
		return;
	count = shunt_code_exits(m, &e);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < sizeof want / sizeof *want; k++)
			found |= (size_t)(e[i] == want[k]) << k;
	ok(count == 5 && found == 0x1f, "branches, calls, addresses taken: %zu exits (%zx)", count,
		found);
	free(m);
}

/* What takes an address may jump there; what reads there knows that it is no code. */
static void taken(void)
{
	static const char *const hex[] = {
		"488d0502000000ffc0ffc9c3", /* lea of the dec */
		"488d0500000000ffc0ffc9c3", /* lea of the inc */
		"488d0501000000ffc0ffc9c3", /* lea of the middle of the inc */
		"488b0502000000ffc0ffc9c3", /* mov of the dec */
	};
	static const bool rooms[] = {false, true, false, false};

	for (int i = 0; i < 4; i++) {
		uint8_t b[64];
		size_t n = read_hex(hex[i], b);
		struct shunt_code code = {.bytes = b, .lo = AT, .hi = AT + n};
		struct shunt_code_map *m = shunt_code_map(&code, NULL);
		struct shunt_room room = {.why = "not understood"};

		if (m)
			shunt_code_room(m, AT + 7, &room);
		ok(!m == (i >= 2) && !room.why == rooms[i], "an address taken: %s",
			room.why ? room.why : "there is room");
		free(m);
	}
}

int main(void)
{
	const char *why = "?";

	if (shunt_insn_init(&why)) {
		skip("%s", why);
		return done();
	}
	ok(!shunt_insn_init(NULL), "loaded once");
	what_it_is();
	elsewhere();
	whole_functions();
	tables();
	exits();
	taken();
	return done();
}
