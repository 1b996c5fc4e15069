/* SPDX-License-Identifier: MIT */
/*
 * probe.h - call back at any instruction of a running program, also of one that
 * was never compiled for it.
 *
 *   shunt_probe_register()         one probe
 *   shunt_probe_register_many()    a batch: all or none
 *   shunt_probe_unregister(_many)  no handler runs when it returns
 *   shunt_probe_enable/_disable()  without giving the place up
 *   shunt_probe_resolve()          "libc.so.6:malloc+4" to an address
 *   shunt_probe_info()             how a probe was put in place
 */
#ifndef SHUNT_PROBE_H
#define SHUNT_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The general registers at the probe. A handler may change all of them;
 * a changed rip is where the program goes on (the displaced instruction is
 * then not executed).
 */
struct shunt_regs {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t rflags, rip, rsp;
};

struct shunt_probe;

/* In the probed code's place: any context that it runs in. */
typedef void (*shunt_probe_fn)(struct shunt_probe *p, struct shunt_regs *regs);

/* The handlers use general registers only (-mgeneral-regs-only). */
#define SHUNT_PROBE_GENERAL_REGS 1u
/* Registered, but off until enabled. */
#define SHUNT_PROBE_DISABLED 2u
/*
 * An instruction begins there, take my word for it: for code of which no symbol
 * and no frame description is known, such as a JIT compiler's.
 */
#define SHUNT_PROBE_TRUSTED 4u
/* By a breakpoint, even where a jump can be put: for measuring, and for tests. */
#define SHUNT_PROBE_BREAKPOINT_ONLY 8u

struct shunt_probe {
	void *addr;	     /* the instruction, or NULL: */
	const char *symbol;  /* a function, or "object:function" ... */
	uintptr_t offset;    /* ... and bytes behind its start */
	shunt_probe_fn pre;  /* before the instruction, or NULL */
	shunt_probe_fn post; /* behind it; only for one that goes on behind itself */
	shunt_probe_fn ret;  /* when the function returns, rax in place; only at
			      * a function's first instruction */
	void *data;	     /* yours */
	unsigned flags;	     /* SHUNT_PROBE_* */
	void *priv;	     /* the library's */
};

/* How a probe is in place. */
enum shunt_probe_form {
	SHUNT_PROBE_OFF = 0,
	SHUNT_PROBE_JUMP = 1,	    /* a jump in one instruction's place */
	SHUNT_PROBE_JUMP_SHARED = 2,/* a jump whose last bytes are the next instruction's */
	SHUNT_PROBE_JUMP_MANY = 3,  /* a jump in several instructions' place */
	SHUNT_PROBE_BREAKPOINT = 4,
};

struct shunt_probe_result {
	size_t index;	    /* the probe that was refused */
	void *addr;	    /* the nearest right address, where there is one */
	char reason[192];   /* one sentence; "" on success */
};

SHUNT_API int shunt_probe_register(struct shunt_probe *p, struct shunt_probe_result *res);
SHUNT_API int shunt_probe_register_many(struct shunt_probe *const *p, size_t n,
	struct shunt_probe_result *res);
SHUNT_API int shunt_probe_unregister(struct shunt_probe *p);
SHUNT_API int shunt_probe_unregister_many(struct shunt_probe *const *p, size_t n);
SHUNT_API int shunt_probe_enable(struct shunt_probe *p);
SHUNT_API int shunt_probe_disable(struct shunt_probe *p);
SHUNT_API int shunt_probe_resolve(const char *symbol, uintptr_t offset, void **addr,
	struct shunt_probe_result *res);
SHUNT_API enum shunt_probe_form shunt_probe_form(const struct shunt_probe *p);

#ifdef __cplusplus
}
#endif
#endif
