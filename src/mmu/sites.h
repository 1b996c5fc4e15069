/* SPDX-License-Identifier: MIT */
/*
 * sites.h - the places in code that make system calls which change mappings.
 *
 * A place is an instruction of five bytes that leads to a `syscall` in a straight
 * line, mostly the `mov $NR,%eax` before it. Armed, it is a jump to the place's stub:
 *
 *	the displaced instruction
 *	lea  -128(%rsp),%rsp		the red zone is kept
 *	push next(%rip)			where the call is made natively: for unwinders
 *	push $number
 *	jmp  *shunt_mmu_entry		mmu.S, which ends by a jump to next or behind
 *	tail: syscall			for a clone with a stack of its own
 *	mov  %rax,%rcx
 *	jrcxz 1f
 *	jmp  *shunt_mmu_cloned
 * 1:	jmp  behind
 *
 * The `syscall` itself is never touched: a thread that is in the kernel meanwhile
 * returns to what it left. Stubs are permanent, and so are a place's number and what
 * is known of it: a thread may come through a stub long after the place was disarmed.
 */
#ifndef SHUNT_MMU_SITES_H
#define SHUNT_MMU_SITES_H

#include "mmu/mmu_internal.h"

#include "rcu/tasks.h"

#define SHUNT_MMU_PLACES 1024
#define SHUNT_MMU_PLACE 5 /* bytes */

/* The call's number is in %rax: libc's syscall(). */
#define SHUNT_MMU_ANY -1

/* Calls from an unknown frame: whether they come from inside of libc cannot be told. */
#define SHUNT_MMU_NO_FRAME UINT32_MAX

struct shunt_mmu_place {
	uintptr_t addr;	  /* the instruction that becomes a jump */
	uintptr_t next;	  /* behind it */
	uintptr_t behind; /* behind the `syscall`; 0: it is not near (exit) */
	uintptr_t stub;
	int32_t nr;	  /* or SHUNT_MMU_ANY */
	uint32_t frame;	  /* from the stack pointer there to the return address */
	uint8_t old[SHUNT_MMU_PLACE];
	bool inner;	  /* in the loader, or an allocator: always from inside */
	bool loader;	  /* in ld.so */
	bool raw;	  /* neither in libc nor the loader */
	bool armed;	  /* it held our jump when we last looked */
	bool free;	  /* or its own bytes */
	uint16_t object;  /* in the table of sites.c */
};

/* Written before its stub exists; by number, which never changes. */
extern struct shunt_mmu_place shunt_mmu_places[SHUNT_MMU_PLACES];
extern uint32_t shunt_mmu_nplaces;

/* The code of libc, the loader and the allocators. Read by enter.c without a lock. */
#define SHUNT_MMU_INNER 16
extern struct shunt_range shunt_mmu_inner[SHUNT_MMU_INNER];
extern uint32_t shunt_mmu_ninner;

/* The bytes of the tail of a stub, from its begin. */
#define SHUNT_MMU_TAIL 27

/* frame.c: from the stack pointer at `pc` to the return address, or SHUNT_MMU_NO_FRAME. */
uint32_t shunt_mmu_frame_at(uintptr_t pc);
uint32_t shunt_mmu_frame_in(uintptr_t pc, const uint8_t *eh_frame_hdr);

/* mmu.S */
extern const char shunt_mmu_entry[], shunt_mmu_cloned[];
/* Makes the call of `r` at `tail`, a stub's; the child goes on in the program. */
long shunt_mmu_clone(const struct shunt_mmu_regs *r, uintptr_t tail);

#endif
