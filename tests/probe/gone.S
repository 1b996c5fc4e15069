/* SPDX-License-Identifier: MIT */
/* gone.S - three objects that are alike but for what is in their one function. */
	.text
	.globl	fn
	.type	fn, @function
fn:
	.cfi_startproc
#if KIND == 1			/* a jump in one instruction's place */
	mov	$1, %eax
	ret
	.nops	8
#elif KIND == 2			/* one whose last bytes are shared */
	xor	%eax, %eax
	lea	2(%rax), %eax
	ret
	.nops	8
#else				/* one in the place of several, or a breakpoint */
	push	%rbx
	push	%r12
	xor	%eax, %eax
	mov	$3, %eax
	pop	%r12
	pop	%rbx
	ret
#endif
	.cfi_endproc
	.size	fn, . - fn
	.section .note.GNU-stack, "", @progbits
