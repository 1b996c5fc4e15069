/* SPDX-License-Identifier: MIT */
/* callbacks.c - shunt/ftrace.h: who is called, when, and never after. */
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <time.h>

#include <shunt/ftrace.h>

#include "check-victims.h"

static atomic_long entries, exits;
static uintptr_t last_ip, last_parent;

static void on_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ops;
	last_ip = ip;
	last_parent = parent;
	entries++;
}

static void on_exit_(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	exits++;
}

static long count(atomic_long *c)
{
	return atomic_exchange(c, 0);
}

/* Destroys what a callback may destroy. */
static void wild(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	entries++;
	__asm__ volatile(
		"pcmpeqd %%xmm0,%%xmm0\n\tpcmpeqd %%xmm1,%%xmm1\n\tpcmpeqd %%xmm2,%%xmm2\n\t"
		"pcmpeqd %%xmm3,%%xmm3\n\tpcmpeqd %%xmm4,%%xmm4\n\tpcmpeqd %%xmm5,%%xmm5\n\t"
		"pcmpeqd %%xmm6,%%xmm6\n\tpcmpeqd %%xmm7,%%xmm7\n\tpcmpeqd %%xmm8,%%xmm8\n\t"
		"xor %%eax,%%eax\n\txor %%ecx,%%ecx\n\txor %%edx,%%edx\n\txor %%esi,%%esi\n\t"
		"xor %%edi,%%edi\n\txor %%r8d,%%r8d\n\txor %%r9d,%%r9d\n\txor %%r10d,%%r10d\n\t"
		"xor %%r11d,%%r11d"
		:
		:
		: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "rax",
		"rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
}

static void test_filters(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = on_exit_};
	char name[64];

	ok(shunt_ftrace_filter(&ops, "") == -EINVAL, "an empty glob is refused");
	shunt_ftrace_filter(&ops, "v_*");
	shunt_ftrace_notrace(&ops, "v_mid");
	ok(shunt_ftrace_register(&ops) == 0, "register");
	ok(shunt_ftrace_register(&ops) == -EALREADY, "register twice is refused");
	count(&entries), count(&exits);
	v_mid(1);
	ok(count(&entries) == 2 && count(&exits) == 2, "filtered functions only");
	ok(shunt_ftrace_name(last_ip, name, sizeof name) == 0 && !strcmp(name, "v_leaf"),
		"ip names the function");
	ok(shunt_ftrace_name(last_parent, name, sizeof name) == 0 && !strcmp(name, "v_mid"),
		"parent is in its caller");
	ok(shunt_ftrace_unregister(&ops) == 0, "unregister");
	v_mid(1);
	ok(count(&entries) == 0 && count(&exits) == 0, "nothing after unregister");
	ok(shunt_ftrace_unregister(&ops) == -ENOENT, "unregister twice is refused");
	shunt_ftrace_filter(&ops, "no_such_function");
	ok(shunt_ftrace_register(&ops) == -ENOENT, "no function matches");
	ops.entry = ops.exit = NULL;
	ok(shunt_ftrace_register(&ops) == -EINVAL, "no callback is refused");
	ops.entry = on_entry;
	ops.flags = 0x80;
	ok(shunt_ftrace_register(&ops) == -EINVAL, "unknown flags are refused");
}

static void test_results(const char *how, unsigned flags, shunt_ftrace_fn entry,
	shunt_ftrace_fn exit_)
{
	struct shunt_ftrace_ops ops = {.entry = entry, .exit = exit_, .flags = flags};
	int r;

	shunt_ftrace_filter(&ops, "v_*");
	r = shunt_ftrace_register(&ops);
	count(&entries), count(&exits);
	if (!ok(r == 0, "%s: register (%d)", how, r))
		return;
	check_victims(how);
	ok(entries + exits > 100000, "%s: calls were seen", how);
	ok(shunt_ftrace_unregister(&ops) == 0, "%s: unregister", how);
}

struct step {
	struct shunt_ftrace_ops ops;
	int id;
};

static int order[16], norder;

static void note_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	order[norder++ & 15] = ((struct step *)ops)->id;
}

static void note_exit(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	order[norder++ & 15] = -((struct step *)ops)->id;
}

static void test_several(void)
{
	struct step s[3] = {0};
	static const int want[6] = {1, 2, 3, -3, -2, -1};

	for (int i = 0; i < 3; i++) {
		s[i].ops.entry = note_entry;
		s[i].ops.exit = note_exit;
		s[i].ops.flags = i == 1 ? SHUNT_FTRACE_GENERAL_REGS : 0;
		s[i].id = i + 1;
		shunt_ftrace_filter(&s[i].ops, "v_leaf");
		shunt_ftrace_register(&s[i].ops);
	}
	norder = 0;
	v_leaf(1);
	ok(norder == 6 && !memcmp(order, want, sizeof want),
		"several on one function: entries in order, exits in reverse");
	shunt_ftrace_unregister(&s[1].ops);
	norder = 0;
	v_leaf(1);
	ok(norder == 4 && order[0] == 1 && order[1] == 3, "one of several is taken out");
	shunt_ftrace_unregister(&s[0].ops);
	norder = 0;
	v_leaf(1);
	ok(norder == 2 && order[0] == 3, "down to one");
	shunt_ftrace_unregister(&s[2].ops);
	norder = 0;
	v_leaf(1);
	ok(norder == 0, "down to none");
}

/* --- recursion and contexts --------------------------------------------------- */

static void calls_traced(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	entries++;
	v_leaf(1);
}

static volatile int raise_inside;

static void is_interrupted(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	entries++;
	if (raise_inside) {
		raise_inside = 0;
		raise(SIGUSR1);
	}
}

static void handler(int sig)
{
	(void)sig;
	v_leaf(1);
}

static void test_recursion(void)
{
	struct shunt_ftrace_ops ops = {.entry = calls_traced, .exit = calls_traced};
	static char alt[32768];
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, off = {.ss_flags = SS_DISABLE};
	struct sigaction sa = {.sa_handler = handler};

	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	count(&entries);
	v_leaf(1);
	ok(count(&entries) == 2, "a traced function called by a callback is not traced");
	shunt_ftrace_unregister(&ops);

	ops = (struct shunt_ftrace_ops){.entry = is_interrupted};
	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	sigaction(SIGUSR1, &sa, NULL);
	count(&entries);
	raise_inside = 1;
	v_leaf(1);
	ok(count(&entries) == 2, "one called by a handler that interrupted a callback is");
	sa.sa_flags = SA_ONSTACK;
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	raise_inside = 1;
	v_leaf(1);
	ok(count(&entries) == 2, "the same on an alternate stack");
	sigaltstack(&off, NULL);
	signal(SIGUSR1, SIG_DFL);
	shunt_ftrace_unregister(&ops);
}

static jmp_buf out;

static void jumps(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	entries++;
	longjmp(out, 1);
}

static void test_jump_out(void)
{
	struct shunt_ftrace_ops ops = {.entry = jumps};
	int n = 0;

	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	count(&entries);
	for (volatile int i = 0; i < 10; i++)
		if (!setjmp(out))
			v_leaf(1);
	n = (int)count(&entries);
	ok(n == 10, "a callback that leaves by longjmp is called again (%d)", n);
	ok(shunt_ftrace_unregister(&ops) == 0, "and can be unregistered");
}

/* --- depth --------------------------------------------------------------------- */

static void test_depth(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = on_exit_, .max_depth = 3};

	ops.max_depth = SHUNT_FTRACE_MAX_DEPTH + 1;
	ok(shunt_ftrace_register(&ops) == -EINVAL, "a depth beyond the limit is refused");
	ops.max_depth = 3;
	shunt_ftrace_filter(&ops, "v_recurse");
	shunt_ftrace_register(&ops);
	count(&entries), count(&exits);
	v_recurse(10);
	ok(count(&entries) == 3 && count(&exits) == 3, "no deeper than asked");
	v_recurse(1);
	ok(count(&entries) == 2 && count(&exits) == 2, "and again from the top");
	cv_longjmps();
	count(&entries), count(&exits);
	v_recurse(10);
	ok(count(&entries) == 3 && count(&exits) == 3, "depth is right after longjmps");
	shunt_ftrace_unregister(&ops);
}

/* --- unregister waits ------------------------------------------------------------ */

static atomic_int inside, let_go, gone;

static void blocks(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	inside = 1;
	while (!let_go)
		sched_yield();
	if (gone)
		entries += 1000000;
}

static int self_unregister;

static void unregisters(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	self_unregister = shunt_ftrace_unregister(ops);
}

static void *call_leaf(void *arg)
{
	(void)arg;
	v_leaf(1);
	return NULL;
}

static void *let_it_go(void *arg)
{
	struct timespec t = {.tv_nsec = 20000000};

	(void)arg;
	nanosleep(&t, NULL); /* long enough for unregister to be waiting */
	let_go = 1;
	return NULL;
}

static void test_unregister_waits(void)
{
	struct shunt_ftrace_ops ops = {.entry = blocks};
	pthread_t a, b;

	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	count(&entries);
	pthread_create(&a, NULL, call_leaf, NULL);
	while (!inside)
		sched_yield();
	pthread_create(&b, NULL, let_it_go, NULL);
	ok(shunt_ftrace_unregister(&ops) == 0, "unregister");
	gone = 1;
	ok(let_go, "unregister returned after the callback was let go");
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	ok(count(&entries) == 0, "no callback ran on after unregister had returned");

	ops = (struct shunt_ftrace_ops){.entry = unregisters};
	shunt_ftrace_filter(&ops, "v_leaf");
	shunt_ftrace_register(&ops);
	v_leaf(1);
	ok(self_unregister == -EDEADLK, "unregister from its own callback is refused");
	ok(shunt_ftrace_unregister(&ops) == 0, "and works from outside");
}

/* --- backtraces --------------------------------------------------------------------- */

static int trace_plain(void *arg)
{
	return backtrace(arg, 64);
}

static void test_backtrace(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = on_exit_};
	void *plain[64], *traced[64];
	int n, m, k = 0;

	n = v_call(trace_plain, plain);
	shunt_ftrace_filter(&ops, "v_*");
	shunt_ftrace_register(&ops);
	m = v_call(trace_plain, traced);
	shunt_ftrace_unregister(&ops);
	for (int i = 0; i < m; i++)
		if (!shunt_ftrace_is_stub((uintptr_t)traced[i]))
			traced[k++] = traced[i];
	ok(m == n + 1 && k == n, "one stub in the backtrace: %d frames, %d traced", n, m);
	/* One differs: this function calls from two places. */
	k = 0;
	for (int i = 0; i < n; i++)
		k += plain[i] != traced[i];
	ok(k == 1, "backtrace() walks through traced frames as through others");
}

int main(void)
{
	check_victims("untraced");
	test_filters();
	test_results("general registers, entry", SHUNT_FTRACE_GENERAL_REGS, on_entry, NULL);
	test_results("general registers, both", SHUNT_FTRACE_GENERAL_REGS, on_entry, on_exit_);
	test_results("all registers, entry", 0, on_entry, NULL);
	test_results("all registers, both", 0, on_entry, on_exit_);
	test_results("wild callbacks", 0, wild, wild);
	test_results("exits only", 0, NULL, on_exit_);
	test_several();
	test_recursion();
	test_jump_out();
	test_depth();
	test_unregister_waits();
	test_backtrace();
	return done();
}
