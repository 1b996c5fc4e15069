/* SPDX-License-Identifier: MIT */
/*
 * insn.h - instructions: what they are, and how to do elsewhere what they do in
 * their place. Decoded by Zydis, which is loaded when it is first needed.
 *
 * No function here touches anything but its arguments; any thread, any lock held,
 * no signal handlers, except where said.
 */
#ifndef SHUNT_PROBE_INSN_H
#define SHUNT_PROBE_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Loads the decoder. Not with the loader's lock or any lock of ours held. 0, or
 * -ENOTSUP: it is not installed; *why (may be NULL) says so in a sentence.
 */
int shunt_insn_init(const char **why);

enum shunt_insn_kind {
	SHUNT_INSN_PLAIN,    /* control goes on behind it */
	SHUNT_INSN_JMP,	     /* direct */
	SHUNT_INSN_JCC,	     /* direct, conditional */
	SHUNT_INSN_LOOP,     /* loop, loope, loopne, jcxz, jecxz, jrcxz, xbegin */
	SHUNT_INSN_CALL,     /* direct */
	SHUNT_INSN_JMP_IND,  /* through a register or memory */
	SHUNT_INSN_CALL_IND,
	SHUNT_INSN_RET,
	SHUNT_INSN_SYSCALL,  /* syscall, sysenter, int n: the kernel sees the address */
	SHUNT_INSN_TRAP,     /* int3, int1, into: somebody's breakpoint */
	SHUNT_INSN_STOP,     /* ud0, ud1, ud2, hlt: does not go on */
};

struct shunt_insn {
	uintptr_t at;	  /* its address */
	uintptr_t target; /* of a direct branch */
	uintptr_t memory; /* of a RIP-relative operand; 0: none */
	uint8_t len;
	uint8_t kind;	  /* enum shunt_insn_kind */
	uint8_t disp_at;  /* where the 32-bit RIP-relative displacement is; 0: none */
	uint8_t modrm_at; /* where the ModRM byte is; 0: none */
	uint8_t refused;  /* not 0: shunt_insn_move() will not have it */
	bool writes_sp;	  /* changes %rsp, or reads or writes memory below or at it:
			   * push, pop, enter, leave, mov to %rsp .. */
	bool endbr;	  /* endbr64: where indirect branches may lead. Can be executed
			   * elsewhere as the no-operation that it is, but with CET's
			   * indirect branch tracking on it must stay in its place */
};

/*
 * The instruction in the n bytes, which are or will be at `at`. 0; -EILSEQ:
 * it is none, or processors disagree where it ends (near branches with an
 * operand-size prefix, ud0); -ENODATA: more bytes are needed. After
 * shunt_insn_init() has succeeded; any context.
 */
int shunt_insn_decode(const uint8_t *bytes, size_t n, uintptr_t at, struct shunt_insn *insn);

/* The mnemonic of what is in the n bytes, "?" if nothing is. Never changes or goes. */
const char *shunt_insn_name(const uint8_t *bytes, size_t n);

/* The most that relocating one instruction makes of it. */
#define SHUNT_INSN_MOVED_MAX 64

/*
 * Writes to out what, executed at `to`, does what `insn` does in its place,
 * registers, flags and the red zone included, and afterwards falls out of the
 * end of it where `insn` goes on behind itself. A branch's target, and the return
 * address of a call, are the original ones: nothing on a stack or in a
 * register ever points to `to`. The number of bytes; -ENOTSUP with *why:
 * cannot be done elsewhere; -ERANGE with *why: `to` is out of reach of a
 * RIP-relative operand (branches reach everything). Any context.
 *
 * A call becomes a push of its return address and a jump: so control never falls
 * out of the end of it, it comes back behind the call's own place. What is not the
 * same then:
 * - a fault is raised, and a signal taken, at an address in what was written;
 * - the x87 unit remembers that address as that of its last instruction;
 * - a moved call leaves the processor's return prediction, and a shadow stack
 *   (CET), without its return address: not where shadow stacks are on;
 * - an indirect call whose operand is in the 8 bytes below %rsp, which it
 *   overwrites itself, is only noticed where %rsp is the base;
 * - between the two instructions of a moved call's push the upper half of the
 *   return address is not there yet: a signal handler that unwinds sees that.
 * It is the caller's to know ranges that the kernel, or a signal handler,
 * compares addresses with: rseq critical sections, syscall user dispatch, musl's
 * cancellation points.
 */
int shunt_insn_move(const struct shunt_insn *insn, const uint8_t *bytes, uintptr_t to,
	uint8_t out[SHUNT_INSN_MOVED_MAX], const char **why);

/* Whether control can go on behind it. */
static inline bool shunt_insn_goes_on(const struct shunt_insn *insn)
{
	return insn->kind != SHUNT_INSN_JMP && insn->kind != SHUNT_INSN_JMP_IND &&
	       insn->kind != SHUNT_INSN_RET && insn->kind != SHUNT_INSN_STOP;
}

/* --- functions as a whole ---------------------------------------------------- */

/* A function's bytes, which are at `lo`; landing pads and other entries that are known. */
struct shunt_code {
	const uint8_t *bytes;
	uintptr_t lo, hi;
	/*
	 * Addresses in it that are entered by other means: landing pads, and what
	 * branches of the object's other functions lead to (shunt_code_exits()):
	 * the parts of a function that a compiler has split jump into each other's
	 * middle.
	 */
	const uintptr_t *entries;
	size_t nentries;
	/*
	 * Reads memory that never changes, so not that of variables: for a switch's
	 * table. False: it is not such. May be NULL.
	 */
	bool (*read)(void *arg, uintptr_t addr, void *to, size_t n);
	void *arg;
};

/* What is to be known of every address of a function before it is patched. */
struct shunt_code_map;

/*
 * Decodes the function from its first byte to its last; keeps a copy of it. NULL with
 * errno: EILSEQ: not understood as a whole (*where, which may be NULL, is the place);
 * ENOMEM. Free it with free(). After shunt_insn_init() has succeeded.
 */
struct shunt_code_map *shunt_code_map(const struct shunt_code *code, uintptr_t *where);

/*
 * Whether an instruction begins at addr; *prev and *next (may be NULL) are where those
 * around begin, 0 if that is outside the function.
 */
bool shunt_code_boundary(const struct shunt_code_map *m, uintptr_t addr, uintptr_t *prev,
	uintptr_t *next);

/*
 * The addresses outside that its branches and calls lead to, or that it takes by lea,
 * in no order, some of them twice. The number; *exits stays while the map does. Those
 * that are in the middle of another function are entries of that: so decode
 * all functions of an object, then those that have such entries once more.
 */
size_t shunt_code_exits(const struct shunt_code_map *m, const uintptr_t **exits);

/*
 * Whether the instruction at addr was found by following branches from the start and the
 * entries. If not, it is a switch's case, an unknown landing pad, code that is
 * never executed, or, in handwritten functions, possibly no code at all.
 */
bool shunt_code_reached(const struct shunt_code_map *m, uintptr_t addr);

/* Whether the function has an indirect jump whose targets cannot be told. */
bool shunt_code_unsure(const struct shunt_code_map *m);

/*
 * The caller has found out that no indirect jump leads to behind an instruction of those
 * that are asked for next.
 */
void shunt_code_sure(struct shunt_code_map *m);

/* Whether a jump can be put over the instructions at an address. */
struct shunt_room {
	uint8_t len;	 /* of the instructions that a jump of 5 bytes takes the place of */
	uint8_t insns;	 /* how many those are */
	const char *why; /* why not, in a sentence; NULL: it can (else len and insns
			  * are those of the instructions before the one that cannot) */
};

/*
 * Looks whether the instructions that a 5-byte jump at addr would overwrite can be
 * displaced: they are within the function, no branch of it, no entry and no
 * return address of a call leads between them, all can be moved, and whatever
 * follows an instruction that does not go on is left alone. A function with an
 * indirect jump whose targets cannot be told is refused, unless the first
 * instruction has room for the jump alone. Whether a RIP-relative operand is
 * within reach of the place they are moved to is for shunt_insn_move() to say.
 */
void shunt_code_room(const struct shunt_code_map *m, uintptr_t addr, struct shunt_room *room);

#endif
