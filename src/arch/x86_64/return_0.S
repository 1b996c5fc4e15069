/* SPDX-License-Identifier: MIT */
/* return_0.S - what a call goes to that shall only say 0. */
	.text
	.balign 16
	.globl	shunt_return_0
	.type	shunt_return_0, @function
shunt_return_0:
	.cfi_startproc
	endbr64
	xor	%eax, %eax
	xor	%edx, %edx
	ret
	.cfi_endproc
	.size	shunt_return_0, . - shunt_return_0
	.section .note.GNU-stack, "", @progbits
