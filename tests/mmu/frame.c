/* SPDX-License-Identifier: MIT */
/* frame.c - where the return address is, at instructions of a function whose stack grows and shrinks. */
#include <stdint.h>

#include "mmu/sites.h"
#include "tap.h"

__asm__(".pushsection .text\n"
	"	.type frame_here, @function\n"
	"frame_here:\n"
	"	.cfi_startproc\n"
	"	nop\n"
	"	pushq %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbx, 0\n"
	"frame_pushed:\n"
	"	.skip 100, 0x90\n" /* advance_loc1 */
	"	subq $200, %rsp\n"
	"	.cfi_adjust_cfa_offset 200\n"
	"frame_deep:\n"
	"	.skip 300, 0x90\n" /* advance_loc2 */
	"	.cfi_remember_state\n"
	"	addq $200, %rsp\n"
	"	.cfi_adjust_cfa_offset -200\n"
	"	popq %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"frame_return:\n"
	"	ret\n"
	"	.cfi_restore_state\n"
	"frame_again:\n"
	"	leaq 208(%rsp), %rbp\n"
	"	.cfi_def_cfa %rbp, 8\n"
	"frame_elsewhere:\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	.size frame_here, . - frame_here\n"
	".popsection\n");
extern const char frame_here[], frame_pushed[], frame_deep[], frame_return[], frame_again[], frame_elsewhere[];

static void is(uintptr_t at, uint32_t want, const char *name)
{
	uint32_t got = shunt_mmu_frame_at(at);

	ok(got == want, "the return address %s (%d)", name, (int)got);
}

int main(void)
{
	is((uintptr_t)frame_here, 0, "at the first instruction");
	is((uintptr_t)frame_pushed, 8, "behind a push");
	is((uintptr_t)frame_deep - 1, 8, "before the stack grows");
	is((uintptr_t)frame_deep, 208, "behind that");
	is((uintptr_t)frame_return, 0, "at the return");
	is((uintptr_t)frame_again, 208, "behind the return, where another path leads to");
	is((uintptr_t)frame_elsewhere, SHUNT_MMU_NO_FRAME, "is not told where another register leads to the frame");
	is(1, SHUNT_MMU_NO_FRAME, "is not told where there is no code");
	return done();
}
