/* SPDX-License-Identifier: MIT */
/*
 * probe.h - call back at any instruction of a running program, also of one that
 * was never compiled for it.
 *
 * What: a probe is an address and up to three handlers: before the instruction there,
 * behind it, and, for a function's first instruction, when the function returns. Handlers
 * see all general registers and may change them, where to go on included.
 *
 * Why: to look into, or to mend, code that has no tracepoint, no entry NOP and perhaps no
 * source. A hit costs some 10 ns, a fortieth of a kernel uprobe or less; nothing enters
 * the kernel.
 *
 *   shunt_probe_register()          one probe
 *   shunt_probe_register_many()     a batch: all or none
 *   shunt_probe_unregister(), _unregister_many()   no handler runs when it returns
 *   shunt_probe_enable(), _disable()	without giving the place up
 *   shunt_probe_resolve()           "libc.so.6:malloc" to an address
 *   shunt_probe_form()              how a probe was put in place
 *
 * Example:
 *
 *	static int calls;
 *
 *	static void enter(struct shunt_probe *p, struct shunt_regs *regs)
 *	{
 *		(void)p;
 *		calls++;
 *		regs->rdi = 20;		// its first argument
 *	}
 *
 *	static void leave(struct shunt_probe *p, struct shunt_regs *regs)
 *	{
 *		(void)p;
 *		regs->rax += 2;		// its value
 *	}
 *
 *	__attribute__((noinline)) static int twice(int x)
 *	{
 *		return 2 * x;
 *	}
 *
 *	int main(void)
 *	{
 *		int (*volatile fn)(int) = twice;
 *		static struct shunt_probe probe;
 *		struct shunt_probe_result res;
 *		int with;
 *
 *		probe.addr = (void *)(uintptr_t)twice;
 *		probe.pre = enter;
 *		probe.ret = leave;
 *		if (shunt_probe_register(&probe, &res)) {
 *			fprintf(stderr, "%s\n", res.reason);
 *			return 1;
 *		}
 *		with = fn(1);
 *		if (shunt_probe_unregister(&probe))
 *			return 1;
 *		return with != 42 || calls != 1 || fn(1) != 2;
 *	}
 *
 * How it works: the instruction is copied, so that it does elsewhere what it does in its
 * place, into a detour made for it: code that saves the registers, calls the handlers, executes
 * the copy and jumps back. What leads to the detour is, whichever can be had first:
 * - a jump, if the instruction has five bytes or more;
 * - a jump that ends in bytes of the next instruction, which stay what they are (a
 *   technique that is called punning): only the first bytes of its distance are free, so the
 *   detour is put where it then leads to;
 * - a jump in the place of several instructions, if the whole object was decoded and no
 *   branch leads between them, and no thread stands there;
 * - a breakpoint, and SIGTRAP's handler: 200 times slower than the others.
 * Where more than 64 are put at once, the third comes before the second, which takes a
 * page of memory for nearly each. Threads run on meanwhile: each sees the old instruction
 * or the new one.
 * Detours and lists of handlers are freed when nobody can be in them (tasks.h, srcu.h).
 * docs/probe-engine.md has the whole, and what it costs.
 *
 * Caveats:
 * - Handlers run in the probed code's place, in whatever context that is: signal
 *   handlers, with any lock held, threads that begin or end, a child of vfork(). They have to leave errno and
 *   the floating-point control words as they find them, and with SHUNT_PROBE_GENERAL_REGS
 *   all vector registers. They may leave by longjmp.
 * - What a handler calls does not hit: that might not end. What a signal handler
 *   calls that interrupts it does. What the library calls itself hits like everything else (malloc).
 * - A handler must not wait for who waits for it: shunt_probe_unregister() and
 *   _disable() say -EDEADLK there, and must not be called with a lock that a handler takes.
 *   Probes are not to be registered or enabled by handlers either: the one that interrupted
 *   the library itself would wait for itself.
 * - A breakpoint kills a program that blocks or ignores SIGTRAP, so none is put while a thread
 *   blocks it, or while a debugger is attached. A thread that blocks it later, and then
 *   hits one, dies. sigaction() of the program's own for SIGTRAP takes ours away.
 * - A signal handler that looks at the interrupted PC, and a profiler, may see a detour's
 *   address, or one in this library. Unwinders see the probed instruction while handlers run.
 * - The kernel compares addresses: an instruction in a critical section of rseq(2) that is
 *   displaced is not in it any more, and the section not begun anew. Don't probe those.
 * - With shadow stacks (CET) switched on, calls that are displaced, and returns that are
 *   probed, are taken for an attack. Linux's C library does not switch them on by itself.
 * - A debugger's breakpoint that is set later on the bytes behind a probe, four at most, or
 *   one that was there and is taken away, changes where its jump leads.
 * - A return is not seen if the function is left by longjmp, an exception or the end of the
 *   thread, or at the end of a chain of 16 such functions that leave by tail calls,
 *   or once the stubs (one for each caller's return address and probe) have run out.
 * - After dlclose() a probe there is registered still, and never hit; loading the object again
 *   does not put it back. Unregister it as others.
 * - A fork child has all probes, in its own memory, and may take them out.
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
 * The general registers at the probe; rip is the instruction's address, behind it that of
 * the next one, at a return where it returns to. A handler may change all of them:
 * - rip: where the program goes on; the instruction is then not executed.
 * - rsp: up or down, with up to 128 bytes written below its old value (in code that
 *   uses its red zone these are its variables). Not at a return: ignored.
 * - of rflags those that a program can change.
 * Handlers that are called after it see what it has changed. One before the instruction that
 * has changed rip or rsp keeps the function's return from being seen.
 */
struct shunt_regs {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t rflags, rip, rsp;
};

struct shunt_probe;

/* Called in the probed code's place: any context that it runs in. */
typedef void (*shunt_probe_fn)(struct shunt_probe *p, struct shunt_regs *regs);

/*
 * The handlers, and all that they call, use general registers only: compiled with
 * -mgeneral-regs-only. Without it all vector registers are saved and restored, which takes
 * longer than the rest of a hit. All probes of one address have it or none benefits.
 */
#define SHUNT_PROBE_GENERAL_REGS 1u
/* Registered, but off until enabled: the place is checked, and nothing is written. */
#define SHUNT_PROBE_DISABLED 2u
/*
 * An instruction begins there, take my word for it: for code of which no symbol
 * and no frame description is known, such as a JIT compiler's.
 */
#define SHUNT_PROBE_TRUSTED 4u
/* By a breakpoint, even where a jump can be put: for measuring, and for tests. */
#define SHUNT_PROBE_BREAKPOINT_ONLY 8u

/*
 * Zero all that you do not set. It is the library's from registering until unregistering
 * has returned: leave it where it is, and change nothing but data. The strings are
 * needed only by the call.
 *
 * Several probes may have one address; their handlers are called in the order of
 * registration, those at the return in the opposite one. Where the compiler has left NOPs for
 * the function tracer at a function's start, the probe is behind them, and so is regs->rip.
 */
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
	void *priv;	     /* the library's: zero at first */
};

/* How a probe is in place: what its address holds. It may change when neighbours come. */
enum shunt_probe_form {
	SHUNT_PROBE_OFF = 0,
	SHUNT_PROBE_JUMP = 1,	    /* a jump in one instruction's place */
	SHUNT_PROBE_JUMP_SHARED = 2,/* a jump whose last bytes are the next instruction's */
	SHUNT_PROBE_JUMP_MANY = 3,  /* a jump in several instructions' place */
	SHUNT_PROBE_BREAKPOINT = 4, /* a breakpoint */
};

struct shunt_probe_result {
	size_t index;	    /* the probe that was refused */
	void *addr;	    /* the nearest right address, where there is one */
	char reason[192];   /* one sentence; "" on success */
};

/*
 * Puts n probes in place, all or none: with an error nothing has changed but that
 * an earlier probe may have another form. When it returns 0 whoever comes by hits; threads that
 * run meanwhile may hit earlier. `res`, which may be NULL, says which was refused and why.
 *
 * Any thread, from constructors on; not in handlers, nor in signal handlers. Blocks: it takes locks,
 * reads files and /proc, and may wait up to 100 ms for threads that stand where a jump is to
 * be: there a breakpoint stays. Allocates, and may start a thread of the library's own.
 *
 * -EINVAL	no probe or handler, unknown flags, addr and symbol both or neither; no instruction
 *		begins there, or `ret` not at a function's first one (res->addr: where); a
 *		symbol's text is not understood
 * -EALREADY	it is registered, or in the batch twice
 * -ENOENT	no such symbol or object (the reason names what is close); no function is known at
 *		the address
 * -ENOTUNIQ	several have the name: the reason lists them
 * -ERANGE	the offset is behind the function's end; or a variable that the instruction
 *		refers to is out of reach from where it would be executed
 * -EFAULT	nothing is mapped there, or no code
 * -EPERM	not to be probed: this library and the code that it makes, the vdso, the linker's
 *		PLT, where signal handlers return to
 * -ENOTSUP	the instruction cannot be executed elsewhere, such as a breakpoint; `post` of one that may go on elsewhere
 *		(branches, calls, returns, system calls); an IFUNC whose choice cannot be
 *		told; the decoder (libZydis) is not installed; only a breakpoint would fit, and
 *		it is libc's code, some of which runs with all signals blocked
 * -EILSEQ	the function has bytes that are no instruction known: only its first can be probed
 * -EBUSY	the place does not hold any more what it held at first: somebody's breakpoint
 *		or patch; or it is a key, a value, a call or an entry that this library switches
 * -EAGAIN	no jump fits and no breakpoint can be: a thread blocks SIGTRAP, or a debugger is
 *		attached. It may work later
 * -ENOMEM	no memory, or none that a jump from there reaches; more than a million places
 * and what shunt_text_apply() says.
 */
SHUNT_API int shunt_probe_register_many(struct shunt_probe *const *p, size_t n,
	struct shunt_probe_result *res);
/* One. res->index is 0. */
SHUNT_API int shunt_probe_register(struct shunt_probe *p, struct shunt_probe_result *res);

/*
 * Takes n probes out, all or none. When it returns 0 none of their handlers runs or will run, on
 * any thread, and the structures and handlers may be freed. A place that cannot be restored just now
 * (somebody has written there) stays as it is, without handlers.
 *
 * Any thread, without locks that handlers take; not in signal handlers. Blocks until all handlers that
 * run, of any probe, and the function tracer's callbacks, have returned: as long as one sleeps. Allocates.
 * -EDEADLK	called by a handler
 * -ENOENT	one of them is not registered
 * -EINVAL	p is NULL
 * -ENOMEM; with any error all are registered still.
 */
SHUNT_API int shunt_probe_unregister_many(struct shunt_probe *const *p, size_t n);
SHUNT_API int shunt_probe_unregister(struct shunt_probe *p);

/*
 * On, off: of a place whose probes are all off the program's own code is back. Not counted: what
 * is on may be enabled. Enabling is as registering: -ENOENT: it is not registered; -EBUSY, -EAGAIN, -ENOMEM, -ERANGE
 * and what shunt_text_apply() says: it is as it was. Disabling is as unregistering, with
 * its waiting, contexts and errors.
 */
SHUNT_API int shunt_probe_enable(struct shunt_probe *p);
SHUNT_API int shunt_probe_disable(struct shunt_probe *p);

/*
 * What "FUNC", "OBJ:FUNC", "0xADDR" or "OBJ:0xADDR", and offset bytes on, means in this process:
 * as probes' symbol and offset. OBJ is a file name, a path or a soname; FUNC a name, mangled
 * or not; ADDR relative to the object. Without OBJ the program itself is asked first, then all that
 * is loaded. An IFUNC is what was chosen for it. Whether an instruction begins there
 * is not looked at.
 *
 * Any thread; not in handlers, nor in signal handlers. Reads files, allocates. 0, or, with res->reason
 * (res may be NULL), -EINVAL: no symbol or addr, or not understood; -ENOENT; -ENOTUNIQ; -ERANGE;
 * -ENOTSUP; -ENOMEM: as above.
 */
SHUNT_API int shunt_probe_resolve(const char *symbol, uintptr_t offset, void **addr,
	struct shunt_probe_result *res);

/*
 * The probe's form; SHUNT_PROBE_OFF: disabled, not registered, or NULL. Any thread; not in
 * handlers, nor in signal handlers. Waits for changes that are being made.
 */
SHUNT_API enum shunt_probe_form shunt_probe_form(const struct shunt_probe *p);

#ifdef __cplusplus
}
#endif
#endif
