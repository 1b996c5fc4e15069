/* SPDX-License-Identifier: MIT */
/*
 * probe.h - between a probe's detour and its handlers. Shared by C and assembly.
 *
 * A detour is code that is made for one place and freed when the place has no
 * probes any more (src/probe/detour.c):
 *
 *	lea  -128(%rsp),%rsp	the red zone is kept
 *	call *entry		to the permanent code here; see below
 *	nop  id(%rax)		the place's number, where the call returns to
 *	... the displaced instructions, the first of which may be followed by
 *	the same three lines for handlers behind it ...
 *	jmp  back
 *
 * The permanent code keeps the number, and before handlers run has put the program's own
 * address for the return address: while they run, be it for an hour, nothing
 * on the stack leads into the detour. Afterwards the number is looked up again, and says either
 * where the detour is by now or that there is none, which means that the program's own
 * instructions are back in their place. The way back is a `ret` to where the
 * call came from: the processor's return predictor stays balanced.
 */
#ifndef SHUNT_ARCH_PROBE_H
#define SHUNT_ARCH_PROBE_H

#define SHUNT_RED_ZONE 128

/* offsets in struct shunt_probe_frame */
#define SHUNT_PROBE_PIN	   0
#define SHUNT_PROBE_REGS   8
#define SHUNT_PROBE_RBX	   96
#define SHUNT_PROBE_RFLAGS 128
#define SHUNT_PROBE_RIP	   136
#define SHUNT_PROBE_RSP	   144
#define SHUNT_PROBE_CELL   152
#define SHUNT_PROBE_FRAME  160
/* from the cell to the stack pointer at the probe */
#define SHUNT_PROBE_BELOW  (SHUNT_RED_ZONE + 8)

#ifndef __ASSEMBLER__
#include <shunt/probe.h>

struct shunt_probe_frame {
	uintptr_t pin; /* into a detour, for those who look at stacks */
	struct shunt_regs regs;
	uintptr_t cell; /* where the detour's call returns to; then where to go on */
};

/* What detours call: for handlers that use general registers, and for any. */
void shunt_probe_before_gpr(void);
void shunt_probe_before_vec(void);
void shunt_probe_behind_gpr(void);
void shunt_probe_behind_vec(void);
/* What the stubs of return probes call: goes on through the door in the stub's row. */
void shunt_probe_enter(void);
/* From after the handlers to the end: about to go somewhere (rcu/tasks.h). */
extern const char shunt_probe_doorway[], shunt_probe_doorway_end[];

#define SHUNT_DETOUR_CALL 18 /* bytes of the three lines */

/* For the assembly (probe/hit.c): the frame to leave by. */
struct shunt_probe_frame *shunt_probe_before(struct shunt_probe_frame *f, uint32_t id, bool vec);
struct shunt_probe_frame *shunt_probe_behind(struct shunt_probe_frame *f, uint32_t id, bool vec);
struct shunt_stub;
void shunt_probe_return(struct shunt_probe_frame *f, const struct shunt_stub *row);
#endif
#endif
