/* SPDX-License-Identifier: MIT */
/*
 * text_sys.h - system calls made without libc. The engine patches libc too, and
 * a process that shares the caller's memory must not touch its errno.
 */
#ifndef SHUNT_ARCH_TEXT_SYS_H
#define SHUNT_ARCH_TEXT_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/*
 * The NOP is how the library's own calls are known, by who looks for places that make
 * system calls (mmu/sites.c): a process may have our code anywhere in it.
 */
static inline long shunt_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("nop; syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define shunt_sys_(nr, a, b, c, d, e, f, ...) \
	shunt_sys6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* The result of the system call, -errno on failure. */
#define shunt_sys(...) shunt_sys_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline int shunt_sys_failed(long r)
{
	return r < 0 && r > -4096;
}

#endif
