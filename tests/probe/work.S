/* SPDX-License-Identifier: MIT */
/*
 * work.S - code with what probes must not disturb: the red zone, flags that live
 * from one instruction to the next, short instructions next to each other,
 * loops, calls, RIP-relative operands, vector registers.
 */
	.text
	.globl	work_begin, work_end
	.hidden	work_begin, work_end
work_begin:

	/* The red zone, and a carry chain. */
	.balign	16
	.globl	work_leaf
	.hidden	work_leaf
	.type	work_leaf, @function
work_leaf:
	.cfi_startproc
	mov	%rdi, -8(%rsp)
	mov	%rsi, -16(%rsp)
	xor	%eax, %eax
	xor	%edx, %edx
	mov	$20, %ecx
1:	add	-8(%rsp), %rax
	adc	-16(%rsp), %rdx
	rol	$7, %rax
	mov	%rax, -128(%rsp)
	add	%rdx, -128(%rsp)
	adc	$0, %rdx
	xor	-128(%rsp), %rax
	dec	%ecx
	jnz	1b
	add	%rdx, %rax
	ret
	.cfi_endproc
	.size	work_leaf, . - work_leaf

	/* One-byte instructions, and flags that stay over many of them. */
	.balign	16
	.globl	work_push
	.hidden	work_push
	.type	work_push, @function
work_push:
	.cfi_startproc
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	push	%rbx
	push	%r12
	push	%r13
	sub	$8, %rsp
	mov	%edi, %ebx
	lea	(%rdi,%rdi,4), %r12
	cmp	$100, %ebx
	push	%rdi
	push	%rsi
	mov	%rdi, %r13
	pop	%rsi
	pop	%rdi
	jb	2f
	cld
	nop
	not	%r13
2:	seto	%al
	sbb	%ecx, %ecx
	movzbl	%al, %eax
	sub	%rcx, %rax
	add	%r12, %rax
	mov	%rax, %rdi
	mov	%r13, %rsi
	call	work_leaf
	add	work_data(%rip), %rax
	jmp	3f
	int3
3:	add	$8, %rsp
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	work_push, . - work_push

	/* Vector registers, string instructions, loop, an indirect call. */
	.balign	16
	.globl	work_mixed
	.hidden	work_mixed
	.type	work_mixed, @function
work_mixed:
	.cfi_startproc
	sub	$72, %rsp
	.cfi_def_cfa_offset 80
	movq	%rdi, %xmm0
	movq	%rsi, %xmm1
	punpcklqdq %xmm1, %xmm0
	movdqu	%xmm0, 16(%rsp)
	paddq	work_vector(%rip), %xmm0
	movdqa	%xmm0, %xmm7
	mov	$5, %ecx
4:	paddq	%xmm7, %xmm0
	pxor	work_vector(%rip), %xmm0
	loop	4b
	mov	%rsp, %rdi
	mov	$0x5a, %al
	mov	$16, %ecx
	rep stosb
	lea	16(%rsp), %rsi
	mov	%rsp, %rdi
	mov	$8, %ecx
	rep movsb
	jrcxz	5f
	ud2
5:	movq	%xmm0, %rdi
	mov	(%rsp), %rsi
	lea	work_push(%rip), %rax
	call	*%rax
	xor	8(%rsp), %rax
	add	$72, %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
	.size	work_mixed, . - work_mixed
	.balign	16, 0xcc
work_end:

	.section .rodata
	.balign	16
work_vector:
	.quad	0x0123456789abcdef, 0xfedcba9876543210
work_data:
	.quad	0x1122334455667788
	.section .note.GNU-stack,"",@progbits
