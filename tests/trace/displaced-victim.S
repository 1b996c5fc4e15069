/* SPDX-License-Identifier: MIT */
/*
 * displaced-victim.S - functions that nobody compiled for tracing, with every kind of
 * beginning. All but those at the end take an int in %edi and return one.
 */
	.text

.macro FUNC name
	.balign 16
	.globl	\name
	.type	\name, @function
\name:
	.cfi_startproc
.endm

.macro END name
	.cfi_endproc
	.size	\name, . - \name
.endm

	/* several short instructions */
FUNC d_plain
	push	%rbp
	.cfi_adjust_cfa_offset 8
	mov	%rsp, %rbp
	push	%rbx
	.cfi_adjust_cfa_offset 8
	lea	1(%rdi), %eax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	pop	%rbp
	.cfi_adjust_cfa_offset -8
	ret
END d_plain

	/* one that is long enough */
FUNC d_five
	mov	$7, %eax
	add	%edi, %eax
	ret
END d_five

FUNC d_rip
	mov	value(%rip), %eax
	add	%edi, %eax
	ret
END d_rip

	/* an operand relative to the instruction, behind a short one */
FUNC d_rip_second
	push	%rbx
	.cfi_adjust_cfa_offset 8
	lea	value(%rip), %rbx
	mov	(%rbx), %eax
	add	%edi, %eax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	ret
END d_rip_second

FUNC d_jcc
	test	%edi, %edi
	je	1f
	lea	2(%rdi), %eax
	ret
1:	mov	$-1, %eax
	ret
END d_jcc

FUNC d_jrcxz
	mov	%edi, %ecx
	jrcxz	1f
	lea	3(%rdi), %eax
	ret
1:	mov	$-1, %eax
	ret
END d_jrcxz

FUNC d_endbr
	endbr64
	lea	4(%rdi), %eax
	ret
END d_endbr

	/* begins with a call; called with a stack that is aligned otherwise, too */
FUNC d_call
	call	d_plain
	inc	%eax
	ret
END d_call

FUNC d_call_second
	push	%rdi
	.cfi_adjust_cfa_offset 8
	call	d_plain
	pop	%rdi
	.cfi_adjust_cfa_offset -8
	add	%edi, %eax
	ret
END d_call_second

	/* leaves at once */
FUNC d_tail
	jmp.d32	d_plain
END d_tail

FUNC d_tail_far
	jmp	*pointer(%rip)
END d_tail_far

	/* what lies below the stack pointer */
FUNC d_red_zone
	mov	%edi, -8(%rsp)
	mov	%edi, -128(%rsp)
	mov	-8(%rsp), %eax
	add	-128(%rsp), %eax
	ret
END d_red_zone

	/* begins with a branch to its own end */
FUNC d_jmp_own
	jmp.d32	1f
	nop
1:	lea	5(%rdi), %eax
	ret
END d_jmp_own

	/* a tail call of itself from behind the beginning is a loop that is none of its start */
FUNC d_recursive
	test	%edi, %edi
	jne	1f
	xor	%eax, %eax
	ret
1:	push	%rdi
	.cfi_adjust_cfa_offset 8
	dec	%edi
	call	d_recursive
	pop	%rdi
	.cfi_adjust_cfa_offset -8
	add	%edi, %eax
	ret
END d_recursive

	/* shorter than a jump, with padding behind it */
FUNC d_short
	lea	1(%rdi), %eax
	ret
END d_short

	/* a table of distances, as compilers make it: to its end and its middle */
FUNC d_switch
	mov	%edi, %eax
	lea	table(%rip), %rcx
	and	$1, %eax
	movslq	(%rcx,%rax,4), %rax
	add	%rcx, %rax
	jmp	*%rax
1:	lea	20(%rdi), %eax
	ret
2:	lea	30(%rdi), %eax
	ret
END d_switch
	.section .rodata
	.balign 4
table:	.long	1b - table, 2b - table
	.text

	/* takes the carry, and all other flags: an int d_flags_in(int carry) of the test's */
FUNC d_flags_raw
	pushf
	.cfi_adjust_cfa_offset 8
	pop	%rax
	.cfi_adjust_cfa_offset -8
	and	$0x8d5, %eax
	nop
	ret
END d_flags_raw

	/* returns flags */
FUNC d_flags_back
	mov	%edi, %eax
	push	%rax
	.cfi_adjust_cfa_offset 8
	nop
	nop
	popf
	.cfi_adjust_cfa_offset -8
	ret
END d_flags_back

/* --- such as must be left out, each for its reason ---------------------------- */

FUNC x_short
	lea	1(%rdi), %eax
	ret
END x_short
	clc /* somebody's: no padding */

	/* a table that leads to its second instruction */
FUNC x_table
	mov	%edi, %eax
.Ltabled:
	nop
	nop
	nop
	lea	other_table(%rip), %rcx
	test	%eax, %eax
	lea	40(%rax), %eax
	jns	1f
	movslq	(%rcx), %rax
	add	%rcx, %rax
	jmp	*%rax
1:	ret
END x_table
	.section .rodata
	.balign 4
other_table:
	.long	1b - other_table, .Ltabled - other_table
	.text

	/* the address of its second instruction is known to the object's data */
FUNC x_address
	mov	%edi, %eax
.Laddressed:
	add	$50, %eax
	nop
	nop
	ret
END x_address
	.section .data.rel.ro, "aw"
	.balign 8
	.quad	.Laddressed
	.text

FUNC x_loop
1:	dec	%edi
	jg	1b
	mov	$6, %eax
	ret
END x_loop

FUNC x_branch
	xor	%eax, %eax
1:	inc	%eax
	dec	%edi
	jg	1b
	ret
END x_branch

	/* as glibc's mempcpy enters memmove */
FUNC x_entered
	mov	%edi, %eax
.Lentered:
	add	$8, %eax
	nop
	nop
	ret
END x_entered

FUNC d_enters
	lea	100(%rdi), %eax
	nop
	nop
	jmp	.Lentered
END d_enters

FUNC x_switch
	mov	%edi, %eax
	lea	1f(%rip), %rcx
	jmp	*%rcx
1:	inc	%eax
	ret
END x_switch

FUNC x_breakpoint
	int3
	nop
	nop
	nop
	nop
	ret
END x_breakpoint

FUNC x_unknown
	.byte	0x06, 0x06, 0x06, 0x06, 0x06, 0x06
	ret
END x_unknown

	/* as glibc's __start_context; called here with %rsp in %rbx */
FUNC x_stack
	mov	%rbx, %rsp
	lea	10(%rdi), %eax
	ret
END x_stack

	.globl	mcount
FUNC mcount
	mov	(%rsp), %rax
	lea	11(%rdi), %eax
	ret
END mcount

FUNC x_next
	push	%rbx
	.cfi_adjust_cfa_offset 8
	nop
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.globl	d_inside
	.type	d_inside, @function
d_inside:
	lea	9(%rdi), %eax
	nop
	nop
	ret
	.size	d_inside, . - d_inside
END x_next

/* --- the test's own way to pass and take flags, not traced: they are no functions ---- */

	.globl	call_flags_raw, call_flags_back, call_misaligned
call_flags_raw:
	push	%rdi
	popf
	call	d_flags_raw@plt
	ret
call_flags_back:
	call	d_flags_back@plt
	pushf
	pop	%rax
	and	$0x8d5, %eax
	ret
call_misaligned:
	push	%rax
	call	d_call@plt
	pop	%rcx
	ret

	.section .data.rel.ro, "aw"
	.balign 8
pointer:
	.quad	d_plain
	.data
	.balign 4
value:	.long	1000
	.section .note.GNU-stack,"",@progbits
