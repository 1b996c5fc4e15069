/* SPDX-License-Identifier: MIT */
/*
 * victims.S - functions to be probed, as many of each kind as the sweep has threads,
 * far enough from each other that no jump shares another's memory; and the gate at
 * which a thread is taken over by who steps it.
 */
	.altmacro

/* f(x) = x + 5; the first instruction has room for a jump. */
.macro LONG i
	.balign	256, 0xcc
	.type	victim_long_\i, @function
victim_long_\i:
	.cfi_startproc
	lea	0x11111(%rdi), %rax
	sub	$0x1110c, %rax
	ret
	.cfi_endproc
	.size	victim_long_\i, . - victim_long_\i
.endm

/* The same; a jump takes the place of three instructions, or shares two. */
.macro SHORT i
	.balign	256, 0xcc
	.type	victim_short_\i, @function
victim_short_\i:
	.cfi_startproc
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	lea	1(%rdi), %rax
	add	$4, %rax
	pop	%rbp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
	.size	victim_short_\i, . - victim_short_\i
.endm

.macro ALL kind
	.set	i, 0
	.rept	16
	\kind	%i
	.set	i, i + 1
	.endr
.endm

	.text
	.balign	256, 0xcc
	.globl	victims_long, victims_short
	.hidden	victims_long, victims_short
victims_long:
	ALL LONG
	.balign	256, 0xcc
victims_short:
	ALL SHORT
	.balign	256, 0xcc

/* long victim_call(f, x): f(x), from the gate on. */
	.globl	victim_call, victim_returned
	.hidden	victim_call, victim_returned
	.type	victim_call, @function
victim_call:
	.cfi_startproc
	sub	$8, %rsp
	.cfi_def_cfa_offset 16
	mov	%rdi, %rax
	mov	%rsi, %rdi
	int3
	call	*%rax
victim_returned:
	add	$8, %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
	.size	victim_call, . - victim_call

/* And without: every first visit of a thread takes its time. */
	.globl	victim_visit
	.hidden	victim_visit
	.type	victim_visit, @function
victim_visit:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	jmp	*%rax
	.size	victim_visit, . - victim_visit

	.section .note.GNU-stack,"",@progbits
