/* SPDX-License-Identifier: MIT */
/*
 * trampoline.S - from a traced function's entry to the ring or a callback, and
 * from its return to the exit.
 *
 * A site `jmp`s to its slot, and the slot calls the common code here:
 *
 *	slot:	call *ENTRY(%rip)
 *		jmp *-24(%rsp)
 *
 * With S the address of the function's return address on the stack, the
 * common code leaves one of two states behind:
 *
 *  - exit not wanted: %rsp == S, as the function was called; the jump goes
 *    through the cell at S-24, which holds the function's body;
 *  - exit wanted: %rsp == S+8, as if the function had returned; the jump goes
 *    through the cell at S-16, which holds the stub of (return address, id).
 *    The stub *calls* the body, which puts the stub's own return point into S.
 *
 * Both cells are in the red zone below %rsp, so a signal leaves them alone
 * (System V ABI, AMD64 supplement, 3.2.2), and no register is needed. Every
 * call has its return and every return its call: the processor's return
 * predictor, and a shadow stack, stay balanced.
 *
 * All general registers are preserved, not only those that carry arguments:
 * gcc's -fipa-ra lets a caller know which of the call-clobbered registers a
 * local function leaves alone.
 */
#include "trampoline.h"
#include "unwind.inc"
#include "vector.inc"

	.text

	.hidden shunt_stub_zone, shunt_stub_table, shunt_stub_hash
	.hidden shunt_record_entry, shunt_call_entry_gpr, shunt_call_entry_vec
	.hidden shunt_record_entry_flags, shunt_call_entry_flags_gpr, shunt_call_entry_flags_vec
	.hidden shunt_trace_writer, shunt_stub_make, shunt_record_put, shunt_tail_exit
	.hidden shunt_call_entry, shunt_call_exit, shunt_probe_exit
	.hidden shunt_reader_self, shunt_callbacks, shunt_reader_fence

.macro MOVE_SP by
	lea	\by(%rsp), %rsp
	.cfi_adjust_cfa_offset -(\by)
.endm

/* ------------------------------------------------------------------------
 * Calls a C function that keeps off the vector registers, from a place where
 * rax, rcx, rdx, rsi, rdi and r8 are saved already.
 */
.macro CALL_C func call=call
	push	%r9
	push	%r10
	push	%r11
	push	%rbp
	.cfi_adjust_cfa_offset 32
	.cfi_rel_offset %rbp, 0
	mov	%rsp, %rbp
	.cfi_remember_state
	.cfi_def_cfa_register %rbp
	and	$-16, %rsp
	\call	\func
	mov	%rbp, %rsp
	.cfi_restore_state
	pop	%rbp
	pop	%r11
	pop	%r10
	pop	%r9
	.cfi_adjust_cfa_offset -32
	.cfi_restore %rbp
.endm

/*
 * Records the event of id %ecx (plus the exit bit in \exit) for the stack slot
 * whose address is \slot(%rsp). The claim of the word is the commit (see
 * docs/ring.md): one compare covers a full page, a page taken away, and a
 * signal handler that wrote first. Jumps to \slow, with %ecx as the tag, when
 * it fails. Uses rax, rdx, rsi, rdi, r8.
 */
.macro RECORD slot exit slow
	mov	shunt_trace_writer@gottpoff(%rip), %r8
	mov	%fs:(%r8), %r8
	lea	\slot(%rsp), %rsi
	shr	$4, %rsi
	imul	$SHUNT_HASH_MULT, %esi, %esi
	shr	$26, %esi
	shl	$SHUNT_TAG_HASH_SHIFT, %esi
	.if	\exit
	or	$SHUNT_TAG_EXIT, %ecx
	.endif
	or	%esi, %ecx
	mov	SHUNT_WRITER_AT(%r8), %rsi
	rdtsc
	inc	%edx
	cmp	SHUNT_WRITER_HI(%r8), %rdx
	jne	\slow
	shl	$32, %rax
	lea	(%rax,%rcx,2), %rdx
	/* A handler since then: its events have later stamps. */
	cmp	SHUNT_WRITER_AT(%r8), %rsi
	jne	\slow
	mov	%esi, %eax
	mov	SHUNT_WRITER_WORDS(%r8), %rdi
	lea	(%rdi,%rax,8), %rdi
	neg	%rax
	lea	SHUNT_WORD_EMPTY(%rsi,%rax), %rax	/* tag << 32 | empty */
	/* A failing exchange writes, too (ring/writer.c): only where it will do. */
	cmp	%rax, (%rdi)
	jne	\slow
	cmpxchg	%rdx, (%rdi)
	jne	\slow
	inc	%rsi
	mov	%rsi, SHUNT_WRITER_AT(%r8)
	mov	SHUNT_WRITER_WRITTEN(%r8), %rsi
	incq	(%rsi)
.endm

/* ------------------------------------------------------------------------
 * The recorder's entry. With \x = 8 it keeps the flags as well, in a cell of that size:
 * compilers pass nothing in them, but people who write assembly do.
 */
.macro KEEP_FLAGS
	lahf
	seto	%al
.endm

/* From %rax; 1 + 127 overflows a signed byte, 0 + 127 does not. */
.macro GIVE_FLAGS
	add	$127, %al
	sahf
.endm

.macro RECORD_ENTRY name x
	.balign 64
	.globl	\name
	.type	\name, @function
\name:
	.cfi_startproc
	/* The caller's frame begins at S+8; the slot's own return address is ours. */
	.cfi_def_cfa_offset 16
	.cfi_offset %rip, -8
	MOVE_SP -(16+\x)
	PUSH_REG %rax
	PUSH_REG %rcx
	PUSH_REG %rdx
	PUSH_REG %rsi
	PUSH_REG %rdi
	PUSH_REG %r8
	/* S is %rsp + 72 + \x */
	.if	\x
	KEEP_FLAGS
	mov	%rax, 48(%rsp)			/* S-32 */
	.endif
	mov	64+\x(%rsp), %rsi			/* slot + 6 */
	mov	72+\x(%rsp), %rdi			/* the function's return address */
	mov	%rsi, %rdx
	mov	%esi, %ecx
	and	$-4096, %rdx
	and	$0xfff, %ecx
	shr	$4, %ecx
	add	SHUNT_SLOT_FIRST(%rdx), %ecx
	sub	$SHUNT_SLOT_HEADER, %ecx	/* the function's id */
	lea	shunt_stub_zone(%rip), %rdx
	mov	%rdi, %rax
	sub	%rdx, %rax
	cmp	$SHUNT_STUB_ZONE, %rax
	jb	.Lentry_tail\x
.Lentry_lookup\x:
	imul	$SHUNT_HASH_MULT, %ecx, %r8d
	mov	%rdi, %rax
	shr	$3, %rax
	add	%r8d, %eax
	and	$(SHUNT_HASH_SIZE - 1), %eax
	shl	$4, %eax
	lea	shunt_stub_hash(%rip), %r8
	add	%rax, %r8
	cmp	%rdi, SHUNT_HASH_PARENT(%r8)
	jne	.Lentry_probe\x
	cmp	%ecx, SHUNT_HASH_ID(%r8)
	jne	.Lentry_probe\x
.Lentry_found\x:
	mov	SHUNT_HASH_UNIT(%r8), %eax
	shl	$SHUNT_STUB_SHIFT, %rax
	add	%rdx, %rax
	mov	%rax, 56+\x(%rsp)			/* S-16: the stub */
	RECORD	72+\x 0 .Lentry_slow\x
.Lentry_out\x:
	mov	64+\x(%rsp), %rsi
	mov	%rsi, 72+\x(%rsp)			/* our return address moves up to S */
	.cfi_remember_state
	.if	\x
	mov	48(%rsp), %rax
	GIVE_FLAGS
	.endif
	POP_REG	%r8
	POP_REG	%rdi
	POP_REG	%rsi
	POP_REG	%rdx
	POP_REG	%rcx
	POP_REG	%rax
	MOVE_SP 24+\x
	.cfi_def_cfa_offset 8
	ret
	.cfi_restore_state

.Lentry_slow\x:
	mov	%ecx, %edi
	CALL_C	shunt_record_put
	jmp	.Lentry_out\x

.Lentry_probe\x:
	mov	$SHUNT_HASH_PROBES, %eax
1:	cmpq	$0, SHUNT_HASH_PARENT(%r8)
	je	.Lentry_make\x
	add	$16, %r8
	dec	%eax
	jz	.Lentry_make\x
	cmp	%rdi, SHUNT_HASH_PARENT(%r8)
	jne	1b
	cmp	%ecx, SHUNT_HASH_ID(%r8)
	jne	1b
	jmp	.Lentry_found\x

.Lentry_make\x:
	/* shunt_stub_make(return address, id, slot + 6, kind) */
	mov	%ecx, %esi
	mov	64+\x(%rsp), %rdx
	mov	%rcx, 48+\x(%rsp)			/* S-24: free until the end */
	mov	$SHUNT_STUB_RECORD, %ecx
	CALL_C	shunt_stub_make
	mov	48+\x(%rsp), %rcx
	test	%rax, %rax
	mov	%rax, 56+\x(%rsp)
	jz	.Lentry_no_stub\x
	RECORD	72+\x 0 .Lentry_slow\x
	jmp	.Lentry_out\x

.Lentry_no_stub\x:
	RECORD	72+\x 0 .Lentry_no_stub_slow\x
.Lentry_no_stub_out\x:
	mov	64+\x(%rsp), %rsi
	movslq	SHUNT_SLOT_BODY(%rsi), %rax
	add	%rsi, %rax
	mov	%rax, 48+\x(%rsp)			/* S-24: the body */
	.cfi_remember_state
	.if	\x
	mov	48(%rsp), %rax
	GIVE_FLAGS
	.endif
	POP_REG	%r8
	POP_REG	%rdi
	POP_REG	%rsi
	POP_REG	%rdx
	POP_REG	%rcx
	POP_REG	%rax
	MOVE_SP 16+\x
	.cfi_def_cfa_offset 16
	ret
	.cfi_restore_state
.Lentry_no_stub_slow\x:
	mov	%ecx, %edi
	CALL_C	shunt_record_put
	jmp	.Lentry_no_stub_out\x

.Lentry_tail\x:
	/*
	 * The return address is a stub: the function before us left by a tail
	 * call. It ends here, and we take its place.
	 */
	mov	%rcx, 48+\x(%rsp)
	lea	72+\x(%rsp), %rsi
	CALL_C	shunt_tail_exit CALL_VEC	/* (stub, S) -> real return address */
	mov	48+\x(%rsp), %rcx
	mov	%rax, %rdi
	mov	%rax, 72+\x(%rsp)
	lea	shunt_stub_zone(%rip), %rdx
	jmp	.Lentry_lookup\x
	.cfi_endproc
	.size	\name, . - \name
.endm

	RECORD_ENTRY shunt_record_entry 0
	RECORD_ENTRY shunt_record_entry_flags 8

/* ------------------------------------------------------------------------
 * The exit: called by a stub, so that our return address lies in S. The real
 * one is left below it, at S-8, where the stub's `push` finds it.
 * Return values are rax, rdx, xmm0, xmm1, st0, st1; -fipa-ra may keep others.
 */
.macro EXIT_POP
	mov	48(%rsp), %rax
	GIVE_FLAGS
	POP_REG	%r8
	POP_REG	%rdi
	POP_REG	%rsi
	POP_REG	%rdx
	POP_REG	%rcx
	POP_REG	%rax
	MOVE_SP 8
.endm

	.balign 64
	.type	shunt_exit, @function
shunt_exit:
	.cfi_startproc
	MOVE_SP -16
	PUSH_REG %rax
	PUSH_REG %rcx
	PUSH_REG %rdx
	PUSH_REG %rsi
	PUSH_REG %rdi
	PUSH_REG %r8
	/* S is %rsp + 64 */
	KEEP_FLAGS
	mov	%rax, 48(%rsp)			/* S-16 */
	mov	64(%rsp), %rdi			/* stub + 11 */
	lea	shunt_stub_zone(%rip), %rdx
	sub	%rdx, %rdi
	and	$-16, %rdi
	lea	shunt_stub_table(%rip), %rdx
	lea	(%rdx,%rdi,2), %rdi
	cmpb	$SHUNT_STUB_RECORD, SHUNT_STUB_KIND(%rdi)
	jne	.Lexit_call
	mov	SHUNT_STUB_PARENT(%rdi), %rsi
	mov	%rsi, 56(%rsp)
	mov	SHUNT_STUB_ID(%rdi), %ecx
	RECORD	64 1 .Lexit_slow
.Lexit_out:
	.cfi_remember_state
	EXIT_POP
	MOVE_SP 8
	.cfi_def_cfa_offset 8
	ret
	.cfi_restore_state
.Lexit_slow:
	mov	%ecx, %edi
	CALL_C	shunt_record_put
	jmp	.Lexit_out
.Lexit_call:
	cmpb	$SHUNT_STUB_PROBE, SHUNT_STUB_KIND(%rdi)
	jae	.Lexit_probe
	cmpb	$SHUNT_STUB_CALL_GPR, SHUNT_STUB_KIND(%rdi)
	jne	.Lexit_vec
	.cfi_remember_state
	EXIT_POP
	jmp	.Lcall_exit_gpr
	.cfi_restore_state
.Lexit_vec:
	.cfi_remember_state
	EXIT_POP
	jmp	.Lcall_exit_vec
	.cfi_restore_state
.Lexit_probe:
	EXIT_POP
	MOVE_SP 8
	jmp	shunt_probe_exit		/* probe.S */
	.cfi_endproc
	.size	shunt_exit, . - shunt_exit

/* ------------------------------------------------------------------------
 * Callbacks. The frames are struct shunt_entry_frame and shunt_exit_frame.
 */
.macro SAVE_GPRS
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%rbp
	.cfi_adjust_cfa_offset 80
	.cfi_rel_offset %rbp, 0
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
.endm

.macro RESTORE_GPRS
	mov	%rbp, %rsp
	pop	%rbp
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
.endm

/* Below the frame, at -8(%rbp). */
.macro SAVE_FLAGS
	KEEP_FLAGS
	push	%rax
.endm

.macro RESTORE_FLAGS
	mov	-8(%rbp), %rax
	GIVE_FLAGS
.endm

/* The rest of a way in: %rax is the stub to go on through, or 0. */
.macro ENTRY_LEAVE flags=0
	.cfi_remember_state
	test	%rax, %rax
	jz	1f
	mov	%rax, 88(%rbp)			/* S-16: the stub */
	mov	96(%rbp), %rcx
	mov	%rcx, 104(%rbp)
	.if	\flags
	RESTORE_FLAGS
	.endif
	RESTORE_GPRS
	.cfi_def_cfa %rsp, 32
	.cfi_restore %rbp
	lea	24(%rsp), %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_restore_state
1:	mov	96(%rbp), %rcx
	movslq	SHUNT_SLOT_BODY(%rcx), %rax
	add	%rcx, %rax
	mov	%rax, 80(%rbp)			/* S-24: the body */
	.if	\flags
	RESTORE_FLAGS
	.endif
	RESTORE_GPRS
	.cfi_def_cfa %rsp, 32
	.cfi_restore %rbp
	lea	16(%rsp), %rsp
	.cfi_def_cfa_offset 16
	ret
.endm

/*
 * Callbacks without vector registers. The common case in full here: one
 * callback or a plain list, no exit, no callback running on this thread. What
 * it does is shunt_call_entry()'s (trace/dispatch.c), step by step. The stack
 * is not aligned: only vector instructions care.
 */
	.balign 64
	.globl	shunt_call_entry_gpr
	.type	shunt_call_entry_gpr, @function
shunt_call_entry_gpr:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	.cfi_offset %rip, -8
	MOVE_SP -16
	PUSH_REG %rax
	PUSH_REG %rcx
	PUSH_REG %rdx
	PUSH_REG %rsi
	PUSH_REG %rdi
	PUSH_REG %r8
	PUSH_REG %r9
	PUSH_REG %r10
	PUSH_REG %r11
	PUSH_REG %rbp
	.cfi_offset %rbp, -112
	mov	96(%rsp), %rdi			/* slot + 6 */
	mov	104(%rsp), %rsi			/* the function's return address */
	mov	shunt_reader_self@gottpoff(%rip), %rax
	mov	%fs:(%rax), %rbp
	mov	%rdi, %rdx
	mov	%edi, %ecx
	and	$-4096, %rdx
	and	$0xff0, %ecx
	mov	SHUNT_SLOT_DATA(%rdx), %rdx
	shr	$1, %ecx
	mov	-8*SHUNT_SLOT_HEADER(%rdx,%rcx), %rdx	/* the hook */
	test	%rbp, %rbp
	jz	.Lgpr_slow
	cmpq	$0, SHUNT_READER_TOP(%rbp)
	jne	.Lgpr_slow
	test	%rdx, %rdx
	jz	.Lgpr_slow
	cmpl	$SHUNT_HOOK_GPR, SHUNT_HOOK_FLAGS(%rdx)
	jne	.Lgpr_slow
	cmpb	$0, shunt_reader_fence(%rip)
	jne	.Lgpr_slow
	lea	shunt_stub_zone(%rip), %rax
	sub	%rsi, %rax
	neg	%rax
	cmp	$SHUNT_STUB_ZONE, %rax
	jb	.Lgpr_slow			/* a tail call */
	/* shunt_level_enter(): the first */
	mov	$(1 << SHUNT_LEVEL_SHIFT), %rax
	or	%rsp, %rax
	mov	%rax, SHUNT_READER_TOP(%rbp)
	mov	shunt_callbacks(%rip), %r8d	/* where to count */
	incq	(%rbp,%r8)
	/* Again, now inside: what was read before may be gone. */
	mov	%rdi, %rax
	and	$-4096, %rax
	mov	SHUNT_SLOT_DATA(%rax), %rax
	mov	-8*SHUNT_SLOT_HEADER(%rax,%rcx), %rax
	cmp	%rax, %rdx
	jne	.Lgpr_changed
	movslq	SHUNT_SLOT_BODY(%rdi), %rax
	add	%rdi, %rax
	mov	%rax, 80(%rsp)			/* S-24: the body */
	movzbl	SHUNT_SLOT_LEN(%rdi), %edi
	sub	%rax, %rdi
	neg	%rdi				/* the site */
	mov	%rdx, %rax
	mov	SHUNT_HOOK_OPS(%rax), %rdx
	PUSH_REG %r8
	call	*SHUNT_HOOK_ENTRY(%rax)
	POP_REG	%r8
	incq	16(%rbp,%r8)			/* shunt_level_leave() */
	movq	$0, SHUNT_READER_TOP(%rbp)
	.cfi_remember_state
	POP_REG	%rbp
	POP_REG	%r11
	POP_REG	%r10
	POP_REG	%r9
	POP_REG	%r8
	POP_REG	%rdi
	POP_REG	%rsi
	POP_REG	%rdx
	POP_REG	%rcx
	POP_REG	%rax
	.cfi_restore %rbp
	MOVE_SP 16
	.cfi_def_cfa_offset 16
	ret
	.cfi_restore_state
.Lgpr_changed:
	incq	16(%rbp,%r8)
	movq	$0, SHUNT_READER_TOP(%rbp)
.Lgpr_slow:
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	mov	%rbp, %rdi
	and	$-16, %rsp
	/* After a tail call, somebody else's exit callbacks come first. */
	mov	104(%rbp), %rax
	lea	shunt_stub_zone(%rip), %rcx
	sub	%rcx, %rax
	cmp	$SHUNT_STUB_ZONE, %rax
	jb	.Lentry_call_vec
	xor	%esi, %esi
	call	shunt_call_entry
	ENTRY_LEAVE
	.cfi_endproc
	.size	shunt_call_entry_gpr, . - shunt_call_entry_gpr

/* A way in to C from any kind of slot; with \flags they are kept as well. */
.macro CALL_ENTRY_BEGIN name flags
	.balign 64
	.globl	\name
	.type	\name, @function
\name:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	.cfi_offset %rip, -8
	lea	-16(%rsp), %rsp
	.cfi_adjust_cfa_offset 16
	SAVE_GPRS
	.if	\flags
	SAVE_FLAGS
	.endif
	mov	%rbp, %rdi
	and	$-16, %rsp
.endm

.macro CALL_ENTRY_VEC name late flags
	CALL_ENTRY_BEGIN \name \flags
\late:	mov	$1, %esi
	CALL_VEC shunt_call_entry
	ENTRY_LEAVE \flags
	.cfi_endproc
	.size	\name, . - \name
.endm

	CALL_ENTRY_VEC shunt_call_entry_vec .Lentry_call_vec 0

	CALL_ENTRY_BEGIN shunt_call_entry_flags_gpr 1
	/* After a tail call, somebody else's exit callbacks come first. */
	mov	104(%rbp), %rax
	lea	shunt_stub_zone(%rip), %rcx
	sub	%rcx, %rax
	cmp	$SHUNT_STUB_ZONE, %rax
	jb	.Lentry_flags_vec
	xor	%esi, %esi
	call	shunt_call_entry
	ENTRY_LEAVE 1
	.cfi_endproc
	.size	shunt_call_entry_flags_gpr, . - shunt_call_entry_flags_gpr

	CALL_ENTRY_VEC shunt_call_entry_flags_vec .Lentry_flags_vec 1

/* Exits to callbacks: shunt_call_exit() fills the cell with the return address. */
.macro CALL_EXIT call
	.cfi_startproc
	.cfi_def_cfa_offset 16
	SAVE_GPRS
	SAVE_FLAGS
	mov	%rbp, %rdi
	and	$-16, %rsp
	\call	shunt_call_exit
	RESTORE_FLAGS
	RESTORE_GPRS
	.cfi_def_cfa %rsp, 16
	.cfi_restore %rbp
	lea	8(%rsp), %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
.endm

	.balign 64
	.type	shunt_exit_gpr, @function
shunt_exit_gpr:
.Lcall_exit_gpr:
	CALL_EXIT call
	.size	shunt_exit_gpr, . - shunt_exit_gpr

	.balign 64
	.type	shunt_exit_vec, @function
shunt_exit_vec:
.Lcall_exit_vec:
	CALL_EXIT CALL_VEC
	.size	shunt_exit_vec, . - shunt_exit_vec

/* ------------------------------------------------------------------------
 * The stubs. Unit u of a page:
 *
 *	+0	call *body(u)		leaves +6 in S
 *	+6	call shunt_exit		leaves +11 in S, the parent in S-8
 *	+11	push -16(%rsp)		the parent, from S-8 to S
 *	+15	ret			to it
 *
 * Unwinders: a stub's frame is empty, and its return address is the parent in
 * its row. libgcc knows no program counter in expressions, so the stub is
 * found by what lies in S. Only at +0 and at +15 that is the parent itself; it
 * is told from a stub by the magic number in its page's header. At +15 alone
 * %rsp is S, and then S-8 and S hold the same. libgcc tells frames apart by
 * their CFA when it looks for the one with the handler (private_2): an empty
 * frame must not have its caller's, so ours is odd, and %rsp has a rule.
 *
 *	P(x)   = x & -4096
 *	stub?  = *(u32 *)(P(x) + 4) == SHUNT_STUB_MAGIC
 *	rsp'   = stub?(*(rsp - 8)) ? rsp : rsp + 8 * (*(rsp) == *(rsp - 8))
 *	CFA    = rsp' + 1
 *	RA at  = with x = *(CFA - 9):
 *		 stub?(x) ? P(x) + *(u32 *)P(x) + (x & 0xff0) * 2 + 8 : CFA - 9
 */
#define MAGIC_BYTES (SHUNT_STUB_MAGIC) & 0xff, ((SHUNT_STUB_MAGIC) >> 8) & 0xff, \
	((SHUNT_STUB_MAGIC) >> 16) & 0xff, ((SHUNT_STUB_MAGIC) >> 24) & 0xff
#define OP_PAGE	     0x0d,0x00,0xf0,0xff,0xff, 0x1a	/* const4s -4096, and */
#define OP_IS_STUB   0x23,4, 0x94,4, 0x0c,MAGIC_BYTES, 0x29 /* page -> bool */

	.balign 4096
	.globl	shunt_stub_zone
	.type	shunt_stub_zone, @function
shunt_stub_zone:
	.cfi_startproc
	/*
	 * breg7 0; breg7 -8, deref, PAGE, IS_STUB, bra END;
	 * breg7 0, deref, breg7 -8, deref, eq, lit3, shl, plus; END: plus_uconst 1
	 */
	.cfi_escape 0x0f, 36, 0x77,0, 0x77,0x78, 0x06, OP_PAGE, OP_IS_STUB, 0x28,10,0, \
		0x77,0, 0x06, 0x77,0x78, 0x06, 0x29, 0x33, 0x24, 0x22, 0x23,1
	/* rsp: lit1, minus */
	.cfi_escape 0x16, 7, 2, 0x31, 0x1c
	/*
	 * Where RA is saved: lit9, minus, dup, deref; dup, PAGE; dup, IS_STUB,
	 * bra L1; drop, drop, skip END; L1: dup, deref_size 4, plus, swap,
	 * const2u 0xff0, and, lit1, shl, plus, plus_uconst 8; END:
	 */
	.cfi_escape 0x10, 16, 44, 0x39, 0x1c, 0x12, 0x06, 0x12, OP_PAGE, 0x12, OP_IS_STUB, \
		0x28,5,0, 0x13, 0x13, 0x2f,14,0, \
		0x12, 0x94,4, 0x22, 0x16, 0x0a,0xf0,0x0f, 0x1a, 0x31, 0x24, 0x22, 0x23,8
	.set	page, 0
	.rept	SHUNT_STUB_UNITS / 256
	.long	shunt_stub_table + page * 256 * SHUNT_STUB_ROW - .
	.long	SHUNT_STUB_MAGIC
	.balign 16, 0xcc
	.set	unit, 1
	.rept	255
	call	*(shunt_stub_table + (page * 256 + unit) * SHUNT_STUB_ROW)(%rip)
	call	shunt_exit
	push	-16(%rsp)
	ret
	.set	unit, unit + 1
	.endr
	.set	page, page + 1
	.endr
	.cfi_endproc
	.size	shunt_stub_zone, . - shunt_stub_zone

	.section .note.GNU-stack,"",@progbits
