/* SPDX-License-Identifier: MIT */
/*
 * 20,000 functions in 308 pages. Each begins with a 5-byte NOP and returns 1,
 * or 2 if that is a jump over the six bytes behind it. They are 63 bytes apart,
 * so that sites cross cache lines and pages in all ways.
 */
	.section .text.sites, "ax"
	.balign 4096
	.globl test_sites
	.type test_sites, @object
	.size test_sites, 20000 * 63
test_sites:
	.rept 20000
	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00
	mov $1, %eax
	ret
	mov $2, %eax
	ret
	.zero 46, 0xf4
	.endr
	.globl test_sites_end
	.type test_sites_end, @object
test_sites_end:
	.balign 4096
	.section .note.GNU-stack, "", @progbits
