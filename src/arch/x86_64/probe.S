/* SPDX-License-Identifier: MIT */
/*
 * probe.S - from a probe's detour to its handlers and back (probe.h has the
 * whole of it). With S the stack pointer at the probe, the detour's call leaves
 * its return address at S-136, in the cell; the frame is built below it.
 *
 * The way out needs no register: the new stack pointer is popped, which makes
 * it point to the cell that belongs to it, and `ret $128` takes the place to go on from there
 * and releases what the red zone takes in the same step, so that a signal
 * never finds the red zone below the stack pointer's reach.
 */
#include "probe.h"
#include "trampoline.h"
#include "vector.inc"

	.text
	.hidden shunt_probe_before, shunt_probe_behind, shunt_probe_return
	.hidden shunt_probe_doorway, shunt_probe_doorway_end, shunt_stub_table

/* All registers into a struct shunt_probe_frame but for rip, rsp and the cell. */
.macro SAVE_REG what
	push	\what
	.cfi_adjust_cfa_offset 8
.endm

.macro SAVE_FRAME
	lea	-16(%rsp), %rsp			/* rsp, rip */
	.cfi_adjust_cfa_offset 16
	pushfq
	.cfi_adjust_cfa_offset 8
	SAVE_REG	%rax
	SAVE_REG	%rcx
	SAVE_REG	%rdx
	SAVE_REG	%rbx
	SAVE_REG	%rbp
	SAVE_REG	%rsi
	SAVE_REG	%rdi
	SAVE_REG	%r8
	SAVE_REG	%r9
	SAVE_REG	%r10
	SAVE_REG	%r11
	SAVE_REG	%r12
	SAVE_REG	%r13
	SAVE_REG	%r14
	SAVE_REG	%r15
	SAVE_REG	$0				/* pin */
	cld
	mov	%rsp, %rbx
.endm

/* From the frame at %rsp all but rip and rsp; leaves %rsp at the latter. */
.macro RESTORE_FRAME
	lea	8(%rsp), %rsp
	mov	(SHUNT_PROBE_RFLAGS-8)(%rsp), %rax
	/* popf takes as long as all the rest: only for flags that seldom change. */
	test	$~0xad7, %eax
	jnz	8f
	mov	%eax, %ecx
	shr	$11, %ecx
	and	$1, %ecx
	mov	%al, %ah
	mov	%cl, %al
	add	$0x7f, %al			/* OF, from bit 11 */
	sahf					/* SF ZF AF PF CF */
	jmp	9f
8:	push	%rax
	popfq
9:	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	lea	16(%rsp), %rsp
.endm

/*
 * To unwinders it looks as if a signal had interrupted the program at the
 * probe: the frame has its rip and rsp.
 */
.macro PROBE name func vec
	.balign 64
	.globl	\name
	.hidden	\name
	.type	\name, @function
\name:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rsp, SHUNT_PROBE_BELOW
	.cfi_undefined %rip
	SAVE_FRAME
	.cfi_def_cfa %rbx, (SHUNT_PROBE_CELL + SHUNT_PROBE_BELOW)
	.cfi_offset %rip, (SHUNT_PROBE_RIP - SHUNT_PROBE_CELL - SHUNT_PROBE_BELOW)
	.cfi_offset %rbx, (SHUNT_PROBE_RBX - SHUNT_PROBE_CELL - SHUNT_PROBE_BELOW)
	mov	SHUNT_PROBE_CELL(%rsp), %rax
	mov	3(%rax), %esi			/* nop id(%rax) */
	lea	(SHUNT_PROBE_CELL + SHUNT_PROBE_BELOW)(%rsp), %rax
	mov	%rax, SHUNT_PROBE_RSP(%rsp)
	mov	%rsp, %rdi
	mov	$\vec, %edx
	and	$-16, %rsp
	.if	\vec
	CALL_VEC \func
	.else
	call	\func
	.endif
	jmp	.Lprobe_leave
	.cfi_endproc
	.size	\name, . - \name
.endm

	PROBE shunt_probe_before_gpr shunt_probe_before 0
	PROBE shunt_probe_before_vec shunt_probe_before 1
	PROBE shunt_probe_behind_gpr shunt_probe_behind 0
	PROBE shunt_probe_behind_vec shunt_probe_behind 1

	.balign 64
	.type	shunt_probe_leave, @function
shunt_probe_leave:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rbx, (SHUNT_PROBE_CELL + SHUNT_PROBE_BELOW)
	.cfi_offset %rip, (SHUNT_PROBE_RIP - SHUNT_PROBE_CELL - SHUNT_PROBE_BELOW)
	.cfi_offset %rbx, (SHUNT_PROBE_RBX - SHUNT_PROBE_CELL - SHUNT_PROBE_BELOW)
	.globl	shunt_probe_doorway
shunt_probe_doorway:
.Lprobe_leave:
	/* A handler has lowered the stack pointer: the frame moves down with it. */
	cmp	%rax, %rbx
	je	1f
	mov	%rax, %rsp
	mov	%rbx, %rsi
	mov	%rax, %rdi
	mov	$(SHUNT_PROBE_FRAME / 8), %ecx
	rep movsq
	mov	%rax, %rbx
1:	mov	%rbx, %rsp
	RESTORE_FRAME
	.cfi_undefined %rip
	pop	%rsp
	ret	$SHUNT_RED_ZONE
	.cfi_endproc
	.size	shunt_probe_leave, . - shunt_probe_leave

/*
 * Called by a return probe's stub, in the function's place: every register and flag is kept.
 * Nothing below the stack pointer is alive, and a signal leaves 128 bytes of it alone.
 * A doorway: the door is read here, so who has closed it before looking at us knows
 * that we are still outside, or sees us here or inside.
 */
	.globl	shunt_probe_enter
	.hidden	shunt_probe_enter
	.type	shunt_probe_enter, @function
shunt_probe_enter:
	.cfi_startproc
	push	%rax
	.cfi_adjust_cfa_offset 8
	push	%rcx
	.cfi_adjust_cfa_offset 8
	mov	16(%rsp), %rax			/* stub + 6 */
	lea	(shunt_stub_zone + 6)(%rip), %rcx
	not	%rcx
	lea	1(%rax,%rcx), %rax
	lea	shunt_stub_table(%rip), %rcx
	mov	SHUNT_STUB_DOOR(%rcx,%rax,2), %rax
	mov	(%rax), %rax
	mov	%rax, -8(%rsp)
	pop	%rcx
	.cfi_adjust_cfa_offset -8
	pop	%rax
	.cfi_adjust_cfa_offset -8
	jmp	*-24(%rsp)
	.cfi_endproc
	.size	shunt_probe_enter, . - shunt_probe_enter
	.globl	shunt_probe_doorway_end
shunt_probe_doorway_end:

/*
 * A function with a probe on its return has returned: called by its stub, as
 * shunt_exit. %rsp is S of trampoline.S, which holds stub + 11; the parent has
 * to be left at S-8. Nothing below S is alive.
 */
	.balign 64
	.globl	shunt_probe_exit
	.hidden shunt_probe_exit
	.type	shunt_probe_exit, @function
shunt_probe_exit:
	.cfi_startproc
	.cfi_def_cfa %rsp, 8
	SAVE_REG	$0				/* S-8: the parent; the frame's cell */
	SAVE_FRAME
	.cfi_def_cfa %rbx, (SHUNT_PROBE_CELL + 16)
	.cfi_offset %rbx, (SHUNT_PROBE_RBX - SHUNT_PROBE_CELL - 16)
	mov	(SHUNT_PROBE_CELL + 8)(%rsp), %rsi
	lea	shunt_stub_zone(%rip), %rdx
	sub	%rdx, %rsi
	and	$-16, %rsi
	lea	shunt_stub_table(%rip), %rdx
	lea	(%rdx,%rsi,2), %rsi		/* the row */
	mov	SHUNT_STUB_PARENT(%rsi), %rax
	mov	%rax, SHUNT_PROBE_CELL(%rsp)
	mov	%rax, SHUNT_PROBE_RIP(%rsp)
	lea	(SHUNT_PROBE_CELL + 16)(%rsp), %rax
	mov	%rax, SHUNT_PROBE_RSP(%rsp)	/* as the caller will find it */
	mov	%rsp, %rdi
	and	$-16, %rsp
	cmpb	$SHUNT_STUB_PROBE_VEC, SHUNT_STUB_KIND(%rsi)
	je	2f
	call	shunt_probe_return
	jmp	3f
2:	CALL_VEC shunt_probe_return
3:	mov	%rbx, %rsp
	RESTORE_FRAME
	.cfi_restore %rbx
	.cfi_def_cfa %rsp, 24
	lea	16(%rsp), %rsp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	shunt_probe_exit, . - shunt_probe_exit

	.section .note.GNU-stack,"",@progbits
