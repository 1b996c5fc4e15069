/* SPDX-License-Identifier: MIT */
/*
 * ftrace.h - call back at the entry and exit of functions, switched on and off
 * live.
 *
 * Any function of a program or library that was compiled with
 * -fpatchable-function-entry=5 (gcc, clang), -pg -mfentry -mnop-mcount or
 * -pg -mfentry can be traced. While nobody traces it, it costs one 5-byte NOP;
 * while somebody does, the NOP is a jump.
 *
 *   shunt_ftrace_filter()      say which functions (globs)
 *   shunt_ftrace_notrace()     and which of those not
 *   shunt_ftrace_register()    switch on
 *   shunt_ftrace_unregister()  switch off; no callback runs when it returns
 *   shunt_ftrace_refresh()     after a dlopen: look at what is new
 *   shunt_ftrace_name()        the function of an address
 *
 * Example:
 *
 *	static void enter(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
 *	{
 *		atomic_fetch_add((atomic_long *)ops->data, 1);
 *	}
 *	static atomic_long calls;
 *	static struct shunt_ftrace_ops count = {.entry = enter, .data = &calls};
 *
 *	shunt_ftrace_filter(&count, "parse_*");
 *	shunt_ftrace_register(&count);
 *	work();
 *	shunt_ftrace_unregister(&count);
 *
 * How it works: the site becomes a jump to code of its own that is never freed
 * and leads to the callback. An exit is seen because the function's return
 * address is exchanged for that of a stub which knows the real one; longjmp,
 * exceptions, coroutines and thread ends need nothing more, and unwinders and
 * debuggers walk through it by its .eh_frame. docs/ftrace.md has the whole.
 *
 * Callbacks run in the traced function's place, in any context that it is
 * called from: signal handlers, threads in creation or exit, with any lock
 * held. They must be async-signal-safe unless the filter excludes that. A
 * traced function that is called by a callback is not traced (it would not
 * end); one that is called by a signal handler which interrupted a callback is.
 */
#ifndef SHUNT_FTRACE_H
#define SHUNT_FTRACE_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shunt_ftrace_ops;

/*
 * `ip` is the address of the site in the traced function, `parent` the address
 * that it returns to. A callback may leave by longjmp.
 */
typedef void (*shunt_ftrace_fn)(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops);

/*
 * The callbacks (and all that they call) use general registers only: they were
 * compiled with -mgeneral-regs-only. Saves the saving of vector registers: 3 ns
 * instead of 15 on a processor with AVX-512.
 */
#define SHUNT_FTRACE_GENERAL_REGS 1u

/* Deepest `max_depth`. */
#define SHUNT_FTRACE_MAX_DEPTH 255u

/*
 * One user of the tracer. Zero all that you do not set; it must stay where it
 * is from the first filter until unregister has returned.
 */
struct shunt_ftrace_ops {
	shunt_ftrace_fn entry; /* at a function's entry, or NULL */
	shunt_ftrace_fn exit;  /* when it returns, or NULL; not when it is left
				* by longjmp, an exception or the thread's end */
	void *data;	       /* yours */
	unsigned flags;	       /* SHUNT_FTRACE_* */
	unsigned max_depth;    /* functions nested deeper than this in traced ones
				* of the same thread are passed over; 0: no limit */
	void *priv;	       /* the library's */
};

/*
 * Adds a glob (*, ?, [...]) of function names to trace; matched against symbol
 * names and, where the program has the C++ runtime, demangled ones.
 * "object.so:glob" limits it to one object, and if that has no functions that were
 * compiled for tracing, it means those that were not, as far as they can be traced
 * (docs/ftrace.md). Without any, all functions match that were compiled for it.
 * On registered ops it takes effect at the next refresh. Any thread, not in
 * signal handlers; allocates. 0, -EINVAL for an empty or NULL glob, -ENOMEM.
 */
SHUNT_API int shunt_ftrace_filter(struct shunt_ftrace_ops *ops, const char *glob);

/* Adds a glob of functions that are not to be traced; it wins over filters. */
SHUNT_API int shunt_ftrace_notrace(struct shunt_ftrace_ops *ops, const char *glob);

/*
 * Switches the matching functions on, in one batch: when it returns, every
 * call of them on any thread is seen. Several ops may watch one function; they
 * are called in the order of their registration (exits in the reverse order).
 *
 * Any thread at any time, also from a callback; not from signal handlers.
 * Blocks (locks, the loader's list of objects), allocates.
 * 0; -EINVAL: neither entry nor exit, unknown flags, or max_depth too large;
 * -EALREADY: registered already; -ENOENT: no traceable function matches (not
 * registered; see shunt_ftrace_refresh for libraries to come); -ENOTSUP: functions
 * that were not compiled for it, and libZydis is not installed; -ENOMEM;
 * -EBUSY: a site does not hold what was recorded, such as a debugger's
 * breakpoint (nothing is switched); or what shunt_text_apply() returns.
 */
SHUNT_API int shunt_ftrace_register(struct shunt_ftrace_ops *ops);

/*
 * Switches them off again and waits until no callback of these ops runs or can
 * run any more, on any thread. Frees the filters.
 *
 * Any thread, not in signal handlers. Blocks as long as a callback does.
 * 0; -ENOENT: not registered; -EDEADLK: called from a callback, which it would
 * wait for (nothing is changed).
 */
SHUNT_API int shunt_ftrace_unregister(struct shunt_ftrace_ops *ops);

/*
 * Looks for objects that were loaded or unloaded and brings new ones to what
 * the registered ops ask for. Register and unregister do this by themselves.
 * 0 or as shunt_ftrace_register().
 */
SHUNT_API int shunt_ftrace_refresh(void);

/*
 * The name of the function that an `ip` or any address in a known object
 * belongs to, as in its symbol table. Writes at most `size` bytes. Not in
 * signal handlers. 0 or -ENOENT (buf is then an empty string).
 */
SHUNT_API int shunt_ftrace_name(uintptr_t ip, char *buf, size_t size);

/*
 * Whether an address is that of a return stub, for those who walk stacks
 * themselves: the frame above it is the real caller's. Any context.
 */
SHUNT_API int shunt_ftrace_is_stub(uintptr_t addr);

#ifdef __cplusplus
}
#endif
#endif
