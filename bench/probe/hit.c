/* SPDX-License-Identifier: MIT */
/*
 * hit.c - what a probe that is hit costs: each form, with handlers that use general
 * registers only and with any, before the instruction, behind it, and at the function's
 * return; beside a kernel uprobe and uretprobe on the same functions, and a callback
 * of the function tracer. Medians, beyond what the call costs alone; `name value
 * unit` a line.
 *
 * The handlers count. The kernel's events are written to a buffer that nobody reads, and,
 * `_unrecorded`, not even written: that is what is beside a handler that does nothing.
 * The kernel has three ways, so it is asked for each: an instruction that it
 * executes elsewhere in single steps, one that it emulates (push), and since Linux 6.18 a
 * NOP of five bytes that becomes a call.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <shunt/ftrace.h>
#include <shunt/probe.h>

#include "../timing.h"
#include "uprobe.h"

#define RUNS  151     /* short ones, so that what interrupts us is in few of them */
#define FAST  5000L   /* calls in a run */
#define SLOW  100L

/* The functions: what they begin with decides the form. */
void f_long(void);   /* five bytes and more */
void f_short(void);  /* three: the jump shares two bytes with the next instruction */
void f_pushes(void); /* one, and the address that a shared jump would lead to is taken */
void f_nop(void);    /* a NOP of five bytes */
void f_plain(void);

__asm__(".text\n"
#define FUNC(n) ".balign 64\n.globl " #n "\n.type " #n ",@function\n" #n ":\n.cfi_startproc\n"
#define END(n) ".cfi_endproc\n.size " #n ",.-" #n "\n"
	FUNC(f_long) "lea 0x11111(%rdi),%rax\nret\n" END(f_long)
	FUNC(f_short) "mov %rdi,%rax\nxor %edx,%edx\nret\n" END(f_short)
	FUNC(f_pushes) "push %rbx\n.cfi_def_cfa_offset 16\nmov %rdi,%rbx\npop %rbx\n"
	".cfi_def_cfa_offset 8\nret\n" END(f_pushes)
	FUNC(f_nop) ".byte 0x0f,0x1f,0x44,0,0\nmov %rdi,%rax\nret\n" END(f_nop)
	FUNC(f_plain) "ret\n" END(f_plain));

__attribute__((noinline, patchable_function_entry(5))) static void f_site(void)
{
	__asm__ volatile("");
}

static double plain;
static unsigned long hits;

__attribute__((target("general-regs-only"))) static void count(struct shunt_probe *p,
	struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	hits++;
}

__attribute__((target("general-regs-only"))) static void entry(uintptr_t ip, uintptr_t parent,
	struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	hits++;
}

static double calls(void (*fn)(void), long n)
{
	double v[RUNS];

	for (int r = 0; r < RUNS; r++) {
		double t = now();

		for (long i = 0; i < n; i++)
			fn();
		v[r] = (now() - t) / (double)n;
	}
	return median(v, RUNS);
}

/* --- ours ----------------------------------------------------------------------- */

enum which { PRE = 1, POST = 2, RET = 4 };

/* Nothing is printed of a form that could not be had, or of a probe that was not hit. */
static void ours(const char *name, void (*fn)(void), enum shunt_probe_form form, unsigned flags,
	int which)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)fn, .flags = flags,
		.pre = which & PRE ? count : NULL, .post = which & POST ? count : NULL,
		.ret = which & RET ? count : NULL};
	long n = form == SHUNT_PROBE_BREAKPOINT ? SLOW : FAST;
	unsigned long each = !!(which & PRE) + !!(which & POST) + !!(which & RET);
	struct shunt_probe_result res;
	double t;

	if (shunt_probe_register(&p, &res)) {
		printf("# probe.%s: %s\n", name, res.reason);
		return;
	}
	hits = 0;
	t = calls(fn, n);
	if (shunt_probe_form(&p) != form)
		printf("# probe.%s: is in place in form %d\n", name, shunt_probe_form(&p));
	else if (hits != each * RUNS * (unsigned long)n)
		printf("# probe.%s: %lu hits\n", name, hits);
	else
		printf("probe.%s %.2f ns\n", name, t - plain);
	shunt_probe_unregister(&p);
}

/* Five bytes that are the program's: where they would lead as a jump. */
static void take_away(void (*fn)(void))
{
	uintptr_t addr = (uintptr_t)fn;
	int32_t rel;

	memcpy(&rel, (void *)(addr + 1), 4);
	addr += 5 + (uintptr_t)(intptr_t)rel;
	mmap((void *)(addr & -4096ul), 8192, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void all_forms(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
		enum shunt_probe_form form;
		unsigned flags;
	} f[] = {
		{"jump", f_long, SHUNT_PROBE_JUMP, 0},
		{"shared", f_short, SHUNT_PROBE_JUMP_SHARED, 0},
		{"many", f_pushes, SHUNT_PROBE_JUMP_MANY, 0},
		{"breakpoint", f_long, SHUNT_PROBE_BREAKPOINT, SHUNT_PROBE_BREAKPOINT_ONLY},
	};
	char name[64];

	take_away(f_pushes);
	for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
		for (int any = 0; any <= 1; any++) {
			unsigned flags = f[i].flags | (any ? 0 : SHUNT_PROBE_GENERAL_REGS);

			snprintf(name, sizeof name, "hit.%s%s", f[i].name, any ? ".any" : "");
			ours(name, f[i].fn, f[i].form, flags, PRE);
			snprintf(name, sizeof name, "return.%s%s", f[i].name, any ? ".any" : "");
			ours(name, f[i].fn, f[i].form, flags, RET);
		}
	}
	ours("hit_and_return.jump", f_long, SHUNT_PROBE_JUMP, SHUNT_PROBE_GENERAL_REGS, PRE | RET);
	ours("before_and_behind.jump", f_long, SHUNT_PROBE_JUMP, SHUNT_PROBE_GENERAL_REGS, PRE | POST);
	ours("hit.nop", f_nop, SHUNT_PROBE_JUMP, SHUNT_PROBE_GENERAL_REGS, PRE);
	ours("return.nop", f_nop, SHUNT_PROBE_JUMP, SHUNT_PROBE_GENERAL_REGS, RET);
}

/* --- others' -------------------------------------------------------------------- */

static void kernels(const char *name, void (*fn)(void), bool at_return)
{
	double t, without;
	unsigned long n;

	if (!uprobe_put((void *)(uintptr_t)fn, at_return)) {
		printf("# peer.%s: refused\n", name);
		return;
	}
	calls(fn, 10);
	t = calls(fn, SLOW);
	uprobe_record(false);
	without = calls(fn, SLOW);
	uprobe_record(true);
	n = uprobe_take();
	if (n < 2 * RUNS * SLOW) {
		printf("# peer.%s: %lu hits\n", name, n);
		return;
	}
	printf("peer.%s %.1f ns\n", name, t - plain);
	printf("peer.%s_unrecorded %.1f ns\n", name, without - plain);
}

static void all_kernels(void)
{
	const char *why = uprobe_open();

	if (why) {
		printf("# uprobes: %s\n", why);
		return;
	}
	kernels("uprobe.step", f_long, false);
	kernels("uretprobe.step", f_long, true);
	kernels("uprobe.push", f_pushes, false);
	kernels("uretprobe.push", f_pushes, true);
	kernels("uprobe.nop", f_nop, false);
	kernels("uretprobe.nop", f_nop, true);
	uprobe_close();
}

static void tracer(void)
{
	struct shunt_ftrace_ops ops = {.entry = entry, .flags = SHUNT_FTRACE_GENERAL_REGS};

	if (shunt_ftrace_filter(&ops, "f_site") || shunt_ftrace_register(&ops)) {
		printf("# the function tracer: refused\n");
		return;
	}
	hits = 0;
	printf("probe.function_tracer %.2f ns\n", calls(f_site, FAST) - plain);
	if (hits != RUNS * FAST)
		printf("# the function tracer: %lu hits\n", hits);
	shunt_ftrace_unregister(&ops);
}

int main(void)
{
	pin(1);
	plain = calls(f_plain, FAST);
	printf("probe.call_plain %.2f ns\n", plain);
	all_kernels(); /* first: its breakpoints are in the file's pages */
	all_forms();
	tracer();
	return 0;
}
