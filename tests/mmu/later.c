/* SPDX-License-Identifier: MIT */
/* later.c - an object with a `munmap` of its own, for edges.c to load late. */
#include <stddef.h>
#include <sys/syscall.h>

long unmap_later(void *at, size_t length);

long unmap_later(void *at, size_t length)
{
	long r;

	__asm__ volatile("mov %1,%%eax\n\tsyscall"
			 : "=a"(r)
			 : "i"(SYS_munmap), "D"(at), "S"(length)
			 : "rcx", "r11", "memory");
	return r;
}
