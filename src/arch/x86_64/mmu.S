/* SPDX-License-Identifier: MIT */
/*
 * mmu.S - from the stub of a place that makes a system call (mmu/sites.h) to
 * shunt_mmu_enter() and back.
 *
 * The stub leaves, with S the stack pointer at the place, where the place goes on at S-136
 * and its number at S-144. Of the registers only rcx and r11 may change, as by the
 * `syscall` that would have followed; so r11 can hold the way out. It is come to and
 * left by jumps, and every call in between has its return: the processor's return
 * predictor stays balanced.
 *
 * To unwinders it looks as if the place had called: the frame at S is the wrapper's,
 * which the wrapper's own tables describe.
 */
#include "unwind.inc"

	.text
	.hidden shunt_mmu_enter

#define BELOW 144

	.balign 64
	.globl	shunt_mmu_entry
	.hidden	shunt_mmu_entry
	.type	shunt_mmu_entry, @function
shunt_mmu_entry:
	.cfi_startproc
	.cfi_def_cfa %rsp, BELOW
	.cfi_offset %rip, -(BELOW - 8)
	/* struct shunt_mmu_regs */
	PUSH_REG %rax
	PUSH_REG %rcx
	PUSH_REG %rdx
	PUSH_REG %rbx
	.cfi_rel_offset %rbx, 0
	PUSH_REG %rbp
	PUSH_REG %rsi
	PUSH_REG %rdi
	PUSH_REG %r8
	PUSH_REG %r9
	PUSH_REG %r10
	PUSH_REG %r11
	PUSH_REG %r12
	PUSH_REG %r13
	PUSH_REG %r14
	PUSH_REG %r15
	mov	%rsp, %rdi
	mov	%rsp, %rbx
	.cfi_def_cfa_register %rbx
	and	$-16, %rsp
	cld
	call	shunt_mmu_enter
	mov	%rbx, %rsp
	.cfi_def_cfa_register %rsp
	POP_REG	%r15
	POP_REG	%r14
	POP_REG	%r13
	POP_REG	%r12
	POP_REG	%r11
	POP_REG	%r10
	POP_REG	%r9
	POP_REG	%r8
	POP_REG	%rdi
	POP_REG	%rsi
	POP_REG	%rbp
	POP_REG	%rbx
	.cfi_restore %rbx
	POP_REG	%rdx
	POP_REG	%rcx
	POP_REG	%rax
	lea	BELOW(%rsp), %rsp
	.cfi_def_cfa %rsp, 0
	.cfi_register %rip, %r11
	jmp	*%r11
	.cfi_endproc
	.size	shunt_mmu_entry, . - shunt_mmu_entry

/*
 * long shunt_mmu_clone(const struct shunt_mmu_regs *r, uintptr_t tail): the child has
 * another stack, so nothing of ours is there: it needs all registers as the program had
 * them, and the way back in its instruction pointer, which is in the stub.
 */
	.balign 16
	.globl	shunt_mmu_clone
	.hidden	shunt_mmu_clone
	.type	shunt_mmu_clone, @function
shunt_mmu_clone:
	.cfi_startproc
	PUSH_REG %rbx
	PUSH_REG %rbp
	PUSH_REG %r12
	PUSH_REG %r13
	PUSH_REG %r14
	PUSH_REG %r15
	mov	%rsi, %r11
	mov	0(%rdi), %r15
	mov	8(%rdi), %r14
	mov	16(%rdi), %r13
	mov	24(%rdi), %r12
	mov	40(%rdi), %r10
	mov	48(%rdi), %r9
	mov	56(%rdi), %r8
	mov	72(%rdi), %rsi
	mov	80(%rdi), %rbp
	mov	88(%rdi), %rbx
	mov	96(%rdi), %rdx
	mov	112(%rdi), %rax
	mov	64(%rdi), %rdi
	jmp	*%r11
	/* The parent comes back here. */
	.globl	shunt_mmu_cloned
	.hidden	shunt_mmu_cloned
shunt_mmu_cloned:
	POP_REG	%r15
	POP_REG	%r14
	POP_REG	%r13
	POP_REG	%r12
	POP_REG	%rbp
	POP_REG	%rbx
	ret
	.cfi_endproc
	.size	shunt_mmu_clone, . - shunt_mmu_clone

/*
 * void shunt_mmu_call_kept(void (*fn)(void *), void *arg, size_t size, uint64_t mask): with
 * XSAVE's components of `mask` kept in an area of `size` bytes, or by FXSAVE where it is 0.
 */
	.balign 16
	.globl	shunt_mmu_call_kept
	.hidden	shunt_mmu_call_kept
	.type	shunt_mmu_call_kept, @function
shunt_mmu_call_kept:
	.cfi_startproc
	PUSH_REG %rbp
	.cfi_rel_offset %rbp, 0
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	push	%rbx
	.cfi_offset %rbx, -24
	push	%r12
	.cfi_offset %r12, -32
	mov	%rdi, %r8
	mov	%rsi, %rdi
	mov	%rcx, %rbx
	mov	%rcx, %r12
	shr	$32, %r12
	sub	%rdx, %rsp
	and	$-64, %rsp
	cld
	test	%rbx, %rbx
	jz	1f
	/* What XSAVE does not write of its header must be 0 for XRSTOR. */
	xor	%eax, %eax
	.irp	at,512,520,528,536,544,552,560,568
	mov	%rax, \at(%rsp)
	.endr
	mov	%ebx, %eax
	mov	%r12d, %edx
	xsave64	(%rsp)
	call	*%r8
	mov	%ebx, %eax
	mov	%r12d, %edx
	xrstor64 (%rsp)
	jmp	2f
1:	fxsave64 (%rsp)
	call	*%r8
	fxrstor64 (%rsp)
2:	lea	-16(%rbp), %rsp
	pop	%r12
	pop	%rbx
	pop	%rbp
	.cfi_def_cfa %rsp, 8
	.cfi_restore %rbp
	.cfi_restore %rbx
	.cfi_restore %r12
	ret
	.cfi_endproc
	.size	shunt_mmu_call_kept, . - shunt_mmu_call_kept

	.section .note.GNU-stack,"",@progbits
