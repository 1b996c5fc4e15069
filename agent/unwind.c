/* SPDX-License-Identifier: MIT */
/*
 * unwind.c - backtrace() as it would be without tracing.
 *
 * While a traced function runs, its return address is that of a return stub.
 * Unwinders walk through the stub and find the real caller above it, so a
 * backtrace is right but for one extra frame per traced function; here those
 * are left out. The walk is the unwinder's own, with libc's backtrace as the
 * fallback where that cannot be found.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <stdbool.h>
#include <unwind.h>

#include <shunt/ftrace.h>

#include "agent.h"

typedef int backtrace_fn(void **, int);
typedef _Unwind_Reason_Code walk_fn(_Unwind_Trace_Fn, void *);
typedef _Unwind_Word get_fn(struct _Unwind_Context *);

static struct {
	_Atomic(backtrace_fn *) real;
	_Atomic(walk_fn *) walk;
	_Atomic(get_fn *) ip, cfa;
} fn;

struct walk {
	void **array;
	int size, n;
	_Unwind_Word cfa;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg)
{
	struct walk *w = arg;
	_Unwind_Word ip = fn.ip(context), cfa = fn.cfa(context);

	if (w->n < 0) { /* our own frame */
		w->n = 0;
		return _URC_NO_REASON;
	}
	if (shunt_ftrace_is_stub(ip))
		return _URC_NO_REASON;
	if (w->n && (_Unwind_Word)w->array[w->n - 1] == ip && w->cfa == cfa)
		return _URC_END_OF_STACK; /* stuck */
	w->cfa = cfa;
	w->array[w->n++] = (void *)ip;
	return w->n == w->size ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static shunt_agent_fn *function(void *lib, const char *name)
{
	return (shunt_agent_fn *)(uintptr_t)dlsym(lib, name);
}

/* libc loads the unwinder at its first backtrace; before, there is none. */
static bool find_unwinder(void)
{
	void *lib;

	if (fn.walk)
		return true;
	lib = dlopen("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
	if (!lib)
		return false;
	fn.ip = (get_fn *)function(lib, "_Unwind_GetIP");
	fn.cfa = (get_fn *)function(lib, "_Unwind_GetCFA");
	if (fn.ip && fn.cfa)
		fn.walk = (walk_fn *)function(lib, "_Unwind_Backtrace");
	return fn.walk;
}

static int without_stubs(void **array, int n)
{
	int kept = 0;

	for (int i = 1; i < n; i++) /* 0 is backtrace() below */
		if (!shunt_ftrace_is_stub((uintptr_t)array[i]))
			array[kept++] = array[i];
	return kept;
}

SHUNT_INTERPOSE __attribute__((noinline)) int backtrace(void **array, int size)
{
	struct walk w = { .array = array, .size = size, .n = -1 };
	int n;

	if (size <= 0)
		return 0;
	if (!fn.real)
		fn.real = (backtrace_fn *)shunt_agent_next("backtrace");
	if (!fn.walk) {
		n = fn.real(array, size);
		if (!find_unwinder())
			return without_stubs(array, n);
	}
	fn.walk(step, &w);
	n = w.n > 0 ? w.n : 0;
	/* the unwinder may end with an empty frame above the first one */
	return n > 1 && !array[n - 1] ? n - 1 : n;
}
