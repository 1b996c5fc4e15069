/* SPDX-License-Identifier: MIT */
/*
 * jumps.c - a signal handler jumps away at every single instruction of a traced call, of its
 * callback, of a probe: no section stays open, and the next call is seen. Also when the handler
 * has come by the same place itself first, and when it was its callback that jumped.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shunt/ftrace.h>
#include <shunt/trace.h>

#include "../step.h"
#include "rcu/reader.h"
#include "tap.h"
#include "victim.h"

SHUNT_TRACEPOINT(jumps, here, shunt_integer(int, i));

static sigjmp_buf back, inner;
static volatile bool callback_jumps;
static volatile unsigned calls;
static volatile int kind; /* 0: jump, 1: call, then jump, 2: its callback jumps, 3: call only,
			  4: its callback jumps, but only back into the handler */
static void (*volatile victim)(void);

/* Deeper in the stack than ordinary ones: those must be above what was left to find it. */
static __attribute__((noinline)) void deeper(bool step_through)
{
	volatile char room[512];

	room[0] = 0;
	stepping = step_through;
	if (stepping)
		step_flag();
	victim();
	stepping = false;
	room[1] = room[0];
}

static void jump_from_there(void)
{
	stepping = false;
	callback_jumps = kind == 2 || kind == 4;
	if (kind == 4 && !sigsetjmp(inner, 0))
		deeper(false);
	callback_jumps = kind == 2;
	if (kind)
		victim();
	callback_jumps = false;
	if (kind < 3)
		siglongjmp(back, 1);
}

static void called(void)
{
	calls++;
	if (callback_jumps) {
		callback_jumps = false;
		siglongjmp(kind == 4 ? inner : back, 1);
	}
}

static void on_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	called();
}

static void on_here(int i, void *data)
{
	(void)i;
	(void)data;
	called();
}

static void call_leaf(void)
{
	v_leaf(1);
}

static void pass_here(void)
{
	shunt_trace(jumps, here, 1);
}

/* Ordinary ones: each is seen, and they find what was left. */
static bool all_is_well(unsigned each)
{
	unsigned before = calls;

	victim();
	victim();
	return calls == before + 2 * each && !shunt_reader_inside() &&
	       !shunt_reader_self->callbacks.top && !shunt_reader_self->points.top;
}

/* At one in so many instructions, others for each kind; at all with an argument to main(). */
static bool thorough;

static void every_instruction(void (*fn)(void), unsigned each, int apart, const char *name)
{
	static const char *const kinds[] = {"jumps away", "comes by, then jumps away",
		"comes by, and its callback jumps away", "comes by",
		"comes by, and its callback jumps back into it"};
	struct sigaction sa = {.sa_sigaction = step_trap, .sa_flags = SA_SIGINFO | SA_NODEFER}, old;
	static volatile long bad, n, stride;

	stride = thorough ? 1 : apart;

	victim = fn;
	victim();
	at_due = jump_from_there;
	sigaction(SIGTRAP, &sa, &old);
	for (kind = 0; kind < 5; kind++) {
		bad = n = 0;
		for (due = 1 + kind % stride; !n && due < 5000; due += stride) {
			step = 0;
			if (!sigsetjmp(back, 1))
				deeper(true);
			stepping = false;
			if (step < due)
				n = due;
			bad += !all_is_well(each);
		}
		ok(n > 20 && !bad, "%s: a handler %s at every %ld. of %ld instructions (%ld)", name,
			kinds[kind], stride, n, bad);
	}
	sigaction(SIGTRAP, &old, NULL);
}

static void traced(struct shunt_ftrace_ops *ops, unsigned each, int stride,
	const char *name)
{
	shunt_ftrace_filter(ops, "v_leaf");
	if (!ok(!shunt_ftrace_register(ops), "%s: registered", name))
		return;
	every_instruction(call_leaf, each, stride, name);
	ok(!shunt_ftrace_unregister(ops), "%s: nobody is waited for", name);
}

/* --- threads that end in there ---------------------------------------------------- */

/* The sanitizer's run time takes a thread's memory for alive when it is used again. */
#ifdef __SANITIZE_ADDRESS__
#define ENDINGS 1
#else
#define ENDINGS 3
#endif

static volatile bool ends;

static void on_entry_end(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	if (ends)
		syscall(SYS_exit, 0);
}

static void *ends_inside(void *arg)
{
	ends = true;
	v_leaf(1);
	return arg;
}

static void ending(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry_end};
	pthread_t t;

	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	for (int i = 0; i < ENDINGS; i++) {
		pthread_create(&t, NULL, ends_inside, NULL);
		pthread_join(t, NULL);
		ends = false;
	}
	ok(!shunt_ftrace_unregister(&ops), "threads that ended in a callback are not waited for");
}

int main(int argc, char **argv)
{
	struct shunt_ftrace_ops plain = {.entry = on_entry, .flags = SHUNT_FTRACE_GENERAL_REGS};
	struct shunt_ftrace_ops both = {.entry = on_entry, .exit = on_entry};

	(void)argv;
	thorough = argc > 1;
	alarm(100);
	traced(&plain, 1, 1, "assembly");
	traced(&both, 2, 5, "entry and exit");
	shunt_trace_register(jumps, here, on_here, NULL);
	every_instruction(pass_here, 1, 1, "probe");
	ok(!shunt_trace_unregister(jumps, here, on_here, NULL), "probe: nobody is waited for");
	ending();
	return done();
}
