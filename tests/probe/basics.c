/* SPDX-License-Identifier: MIT */
/* basics.c - each promise of probe.h, one by one. */
#include <shunt/probe.h>
#include <shunt/tasks.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tap.h"

/* --- code to be probed ------------------------------------------------------------------ */

long add5(long);      /* its first instruction has 5 bytes and more */
long short_first(long); /* push; mov; .. */
long tiny(long);      /* lea 3(%rdi),%rax; ret */
long flags(long);     /* sets flags, a nop, reads them */
long red(long);       /* lives in the red zone */
long stacked(long);   /* its argument is on the stack */
long looped(long);    /* a branch to its second instruction */
long pushes(long), pushes_too(long); /* one byte, three, one: a jump over three instructions */
extern char add5_second[], flags_nop[], red_middle[], looped_second[], tiny_ret[], short_third[];
extern char add5_inside[];

__asm__(".text\n"
#define FUNC(n) ".balign 16\n.globl " #n "\n.type " #n ",@function\n" #n ":\n.cfi_startproc\n"
#define END(n) ".cfi_endproc\n.size " #n ",.-" #n "\n.balign 16, 0xcc\n"
	FUNC(add5) "lea 0x11111(%rdi),%rax\nadd5_inside = . - 3\nadd5_second: sub $0x1110c,%rax\nret\n" END(add5)
	FUNC(short_first) "push %rbp\n.cfi_def_cfa_offset 16\nmov %rsp,%rbp\nshort_third: lea 1(%rdi),%rax\n"
	"pop %rbp\nret\n" END(short_first)
	FUNC(tiny) "lea 3(%rdi),%rax\ntiny_ret: ret\n" END(tiny)
	FUNC(flags) "xor %eax,%eax\ncmp %rdi,%rax\nflags_nop: nop\nsetb %al\nsbb $0,%rax\nmovzbl %al,%eax\nret\n"
	END(flags)
	FUNC(red) "mov %rdi,-8(%rsp)\nmov %rdi,-128(%rsp)\nred_middle: mov -8(%rsp),%rax\nadd -128(%rsp),%rax\nret\n"
	END(red)
	FUNC(pushes) "push %rbx\n.cfi_def_cfa_offset 16\nmov %rdi,%rax\npop %rbx\n.cfi_def_cfa_offset 8\nret\n" END(pushes)
	FUNC(pushes_too) "push %rbx\n.cfi_def_cfa_offset 16\nmov %rdi,%rax\npop %rbx\n.cfi_def_cfa_offset 8\nret\n"
	END(pushes_too)
	FUNC(stacked) "mov 8(%rsp),%rax\nret\n" END(stacked)
	FUNC(looped) "xor %eax,%eax\nlooped_second: inc %eax\ndec %edi\njnz looped_second\nret\n" END(looped));

static struct shunt_probe_result res;
static struct shunt_regs seen;
static int pre_hits, post_hits, ret_hits;
static uint64_t returned;

static void pre(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	pre_hits++;
	seen = *r;
}

static void post(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	post_hits++;
	seen = *r;
}

static void ret(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	ret_hits++;
	returned = r->rax;
}

__attribute__((noinline)) static void clear(void)
{
	pre_hits = post_hits = ret_hits = 0;
	returned = 0;
	memset(&seen, 0, sizeof seen);
}

/* --- each form --------------------------------------------------------------------------- */

static void test_forms(void)
{
	static const struct {
		const char *name;
		long (*fn)(long);
		long in, out;
		unsigned flags;
		enum shunt_probe_form form;
	} t[] = {
		{"first instruction of 5 bytes", add5, 7, 12, 0, SHUNT_PROBE_JUMP},
		{"short first instruction", short_first, 7, 8, 0, SHUNT_PROBE_OFF},
		{"four bytes", tiny, 7, 10, 0, SHUNT_PROBE_OFF},
		{"breakpoint", add5, 7, 12, SHUNT_PROBE_BREAKPOINT_ONLY, SHUNT_PROBE_BREAKPOINT},
		{"breakpoint, short", tiny, 7, 10, SHUNT_PROBE_BREAKPOINT_ONLY, SHUNT_PROBE_BREAKPOINT},
	};

	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct shunt_probe p = {.addr = (void *)(uintptr_t)t[i].fn, .pre = pre, .ret = ret,
			.flags = t[i].flags};
		int r = shunt_probe_register(&p, &res);
		enum shunt_probe_form form = shunt_probe_form(&p);

		clear();
		ok(!r && t[i].fn(t[i].in) == t[i].out && pre_hits == 1 && ret_hits == 1 &&
				seen.rdi == (uint64_t)t[i].in && returned == (uint64_t)t[i].out &&
				seen.rip == (uint64_t)(uintptr_t)t[i].fn,
			"%s: handlers see registers and the value (form %d) %s", t[i].name, form,
			res.reason);
		ok(form == t[i].form || (!t[i].form && form != SHUNT_PROBE_OFF), "%s: its form", t[i].name);
		r = shunt_probe_unregister(&p);
		clear();
		ok(!r && t[i].fn(t[i].in) == t[i].out && !pre_hits && !ret_hits &&
				shunt_probe_form(&p) == SHUNT_PROBE_OFF, "%s: off again", t[i].name);
	}
}

/* --- what handlers may do ------------------------------------------------------------------ */

static void change_argument(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	r->rdi += 100;
}

static void change_result(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	r->rax *= 2;
}

static void skip_call(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	r->rax = 4711;
	r->rip = *(uint64_t *)r->rsp;
	r->rsp += 8;
}

/* As if the program had pushed something and called what is 8 above. */
static void push_argument(struct shunt_probe *p, struct shunt_regs *r)
{
	uint64_t back = *(uint64_t *)r->rsp;

	r->rsp -= 16;
	((uint64_t *)r->rsp)[0] = (uint64_t)(uintptr_t)p->data;
	((uint64_t *)r->rsp)[1] = 99;
	((uint64_t *)r->rsp)[2] = back;
}

__asm__(".text\npush_back: add $8,%rsp\nret\n");
extern char push_back[];

static void set_carry(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	r->rflags ^= 1;
}

static void wreck_vectors(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
	__asm__ volatile("pxor %%xmm0,%%xmm0\npxor %%xmm7,%%xmm7\npxor %%xmm15,%%xmm15" ::: "xmm0", "xmm7", "xmm15");
	pre_hits++;
}

static long with_vectors(long x)
{
	double d = (double)x, e;

	__asm__ volatile("movsd %1,%%xmm15\nmov %2,%%rdi\ncall add5\nmovsd %%xmm15,%0"
			 : "=x"(e) : "x"(d), "r"(x) : "rdi", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10",
			 "r11", "xmm15", "memory", "cc");
	return (long)e;
}

static void test_changes(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)add5, .pre = change_argument};
	struct shunt_probe q = {.addr = (void *)(uintptr_t)add5, .ret = change_result};

	shunt_probe_register(&p, &res);
	ok(add5(1) == 106, "a handler changes an argument");
	shunt_probe_register(&q, &res);
	ok(add5(1) == 212, "two at one address, and the return value is changed");
	shunt_probe_unregister(&p);
	ok(add5(1) == 12, "one of two goes");
	shunt_probe_unregister(&q);
	ok(add5(1) == 6, "and the other");

	p = (struct shunt_probe){.addr = (void *)(uintptr_t)short_first, .pre = skip_call};
	shunt_probe_register(&p, &res);
	ok(short_first(1) == 4711, "a handler goes on elsewhere, with a higher stack pointer");
	shunt_probe_unregister(&p);

	p = (struct shunt_probe){.addr = (void *)(uintptr_t)stacked, .pre = push_argument, .data = push_back};
	shunt_probe_register(&p, &res);
	ok(stacked(1) == 99, "a handler lowers the stack pointer");
	shunt_probe_unregister(&p);

	p = (struct shunt_probe){.addr = flags_nop, .pre = set_carry};
	ok(flags(1) == 0 && flags(0) == 0, "flags: the function alone");
	shunt_probe_register(&p, &res);
	ok(flags(0) == flags(1), "a handler changes the flags");
	shunt_probe_unregister(&p);

	p = (struct shunt_probe){.addr = (void *)(uintptr_t)add5, .pre = wreck_vectors};
	clear();
	shunt_probe_register(&p, &res);
	ok(with_vectors(77) == 77 && pre_hits == 1, "vector registers are kept");
	shunt_probe_unregister(&p);
}

static void test_inside(void)
{
	struct shunt_probe p = {.addr = flags_nop, .pre = pre, .post = post};
	long a = flags(5), b = flags(0);
	int r = shunt_probe_register(&p, &res);

	clear();
	ok(!r && flags(5) == a && pre_hits == 1 && post_hits == 1 && seen.rip == (uintptr_t)flags_nop + 1,
		"flags survive handlers before and behind an instruction %s", res.reason);
	ok(flags(0) == b, "others as well");
	shunt_probe_unregister(&p);
	p = (struct shunt_probe){.addr = red_middle, .pre = pre, .post = post};
	r = shunt_probe_register(&p, &res);
	clear();
	ok(!r && red(21) == 42 && pre_hits == 1 && post_hits == 1 && seen.rax == 21,
		"the red zone is kept; behind the instruction its result is seen");
	shunt_probe_unregister(&p);
	p = (struct shunt_probe){.addr = tiny_ret, .pre = pre};
	r = shunt_probe_register(&p, &res);
	clear();
	ok(!r && tiny(1) == 4 && pre_hits == 1 && seen.rax == 4, "at a ret (form %d) %s",
		shunt_probe_form(&p), res.reason);
	shunt_probe_unregister(&p);
	p = (struct shunt_probe){.addr = looped_second, .pre = pre};
	r = shunt_probe_register(&p, &res);
	clear();
	ok(!r && looped(5) == 5 && pre_hits == 5, "in a loop, at a branch's target (form %d)",
		shunt_probe_form(&p));
	shunt_probe_unregister(&p);
	p = (struct shunt_probe){.addr = (void *)(uintptr_t)looped, .pre = pre};
	r = shunt_probe_register(&p, &res);
	clear();
	ok(!r && looped(5) == 5 && pre_hits == 1 && shunt_probe_form(&p) != SHUNT_PROBE_JUMP_MANY,
		"before a branch's target no jump covers it");
	shunt_probe_unregister(&p);
}

/* All instructions of a function, in all orders. */
static void test_neighbours(void)
{
	char *at[] = {(char *)(uintptr_t)short_first, (char *)(uintptr_t)short_first + 1, short_third,
		short_third + 4, short_third + 5};
	struct shunt_probe p[5];
	int wrong = 0, forms[5] = {0};

	for (int order = 0; order < 120; order++) {
		int left[5] = {0, 1, 2, 3, 4}, n = 5, o = order, seq[5];

		for (int i = 0; i < 5; i++) {
			int k = o % n;

			o /= n;
			seq[i] = left[k];
			left[k] = left[--n];
		}
		for (int i = 0; i < 5; i++) {
			struct shunt_probe *q = &p[seq[i]];

			*q = (struct shunt_probe){.addr = at[seq[i]], .pre = pre};
			if (shunt_probe_register(q, &res)) { wrong++; diag("order %d step %d: %s", order, i, res.reason); }
			clear();
			long got = short_first(3);

			if (got != 4 || pre_hits != i + 1) {
				wrong++;
				if (wrong < 5)
					diag("order %d: %ld, %d hits of %d", order, got, pre_hits, i + 1);
			}
			forms[shunt_probe_form(q)]++;
		}
		for (int i = 0; i < 5; i++) {
			wrong += shunt_probe_unregister(&p[seq[4 - i]]) != 0;
			clear();
			long got = short_first(3);

			if (got != 4 || pre_hits != 4 - i) {
				wrong++;
				if (wrong < 5)
					diag("order %d: %ld, %d hits of %d left", order, got, pre_hits, 4 - i);
			}
		}
	}
	ok(!wrong, "each of five neighbours is hit once, in 120 orders of coming and going "
		"(%d wrong; %d jumps, %d shared, %d many, %d breakpoints)", wrong, forms[1], forms[2],
		forms[3], forms[4]);
}

/* Takes the one address that a jump with these last bytes leads to. */
__attribute__((noinline)) static void take_away(long (*fn)(long))
{
	uintptr_t addr = (uintptr_t)fn;
	int32_t rel;

	memcpy(&rel, (void *)(addr + 1), 4);
	addr += 5 + (uintptr_t)(intptr_t)rel;
	mmap((void *)(addr & -4096ul), 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		-1, 0);
}

static atomic_bool enough;

static void *is_there(void *arg)
{
	while (!enough)
		sched_yield();
	return arg;
}

/*
 * With threads, a jump over several instructions waits until nobody can be among them. What
 * is on the caller's own stack keeps the place that it looks like from that, and no
 * other; what the library has left on the stack below counts for nothing.
 */
static void test_many(void)
{
	struct shunt_probe a = {.addr = (void *)(uintptr_t)pushes, .pre = pre};
	struct shunt_probe b = {.addr = (void *)(uintptr_t)pushes_too, .pre = pre};
	struct shunt_probe *list[] = {&a, &b};
	volatile uintptr_t word = 0;
	enum shunt_probe_form form[4];
	pthread_t t;
	int r;

	take_away(pushes);
	take_away(pushes_too);
	pthread_create(&t, NULL, is_there, NULL);
	r = shunt_probe_register_many(list, 2, &res);
	form[0] = shunt_probe_form(&a);
	form[1] = shunt_probe_form(&b);
	clear();
	ok(!r && pushes(3) == 3 && pushes_too(4) == 4 && pre_hits == 2 && form[0] == SHUNT_PROBE_JUMP_MANY &&
			form[1] == SHUNT_PROBE_JUMP_MANY, "jumps over several, beside a thread (forms %d, %d) %s",
		form[0], form[1], res.reason);
	shunt_probe_unregister_many(list, 2);
	/* At once: what is being let go of the last time is near both. */
	word = (uintptr_t)pushes + 4;
	r = shunt_probe_register_many(list, 2, &res);
	form[2] = shunt_probe_form(&a);
	form[3] = shunt_probe_form(&b);
	ok(!r && word && form[2] == SHUNT_PROBE_BREAKPOINT && form[3] == SHUNT_PROBE_JUMP_MANY,
		"an address among them on the caller's stack holds up that one alone (forms %d, %d)",
		form[2], form[3]);
	shunt_probe_unregister_many(list, 2);
	enough = true;
	pthread_join(t, NULL);
}

/* --- on and off, batches ------------------------------------------------------------------- */

static void test_switching(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)add5, .pre = pre, .flags = SHUNT_PROBE_DISABLED};
	struct shunt_probe a = {.addr = (void *)(uintptr_t)add5, .pre = pre};
	struct shunt_probe b = {.addr = (void *)(uintptr_t)tiny, .pre = pre};
	struct shunt_probe c = {.addr = add5_inside, .pre = pre};
	struct shunt_probe *list[] = {&a, &b, &c};

	clear();
	shunt_probe_register(&p, &res);
	add5(1);
	ok(!pre_hits && shunt_probe_form(&p) == SHUNT_PROBE_OFF, "registered, and off");
	ok(!shunt_probe_enable(&p) && add5(1) == 6 && pre_hits == 1, "enabled");
	ok(!shunt_probe_disable(&p) && add5(1) == 6 && pre_hits == 1, "disabled");
	ok(!shunt_probe_unregister(&p), "unregistered while off");
	ok(shunt_probe_register_many(list, 3, &res) == -EINVAL && res.index == 2,
		"a batch with one in the middle of an instruction is refused: %s", res.reason);
	clear();
	add5(1);
	tiny(1);
	ok(!pre_hits && !a.priv && !b.priv, "and nothing of it is in place");
	ok(res.addr == (void *)(uintptr_t)add5, "the nearest right address is told");
	ok(!shunt_probe_register_many(list, 2, &res), "the rest is registered");
	clear();
	add5(1);
	tiny(1);
	ok(pre_hits == 2, "and hit");
	ok(!shunt_probe_unregister_many(list, 2), "unregistered in one batch");
}

/* --- wrong use ------------------------------------------------------------------------------ */

static int try(struct shunt_probe p)
{
	int r = shunt_probe_register(&p, &res);

	if (!r)
		shunt_probe_unregister(&p);
	diag("%s", res.reason);
	return r;
}

/* In a batch behind one that is right, and that nothing is known of yet. */
static int try_second(uintptr_t unknown, void *addr)
{
	struct shunt_probe first = {.addr = (void *)unknown, .pre = pre};
	struct shunt_probe second = {.addr = addr, .pre = pre};
	struct shunt_probe *list[] = {&first, &second};
	int r = shunt_probe_register_many(list, 2, &res);

	if (!r)
		shunt_probe_unregister_many(list, 2);
	return r && res.index == 1 ? r : 0;
}

static void test_wrong(void)
{
	static char data[64];
	struct shunt_probe p = {.addr = (void *)(uintptr_t)add5, .pre = pre};
	uintptr_t vdso = 0;
	char line[256];
	FILE *f = fopen("/proc/self/maps", "re");

	while (f && fgets(line, sizeof line, f))
		if (strstr(line, "[vdso]"))
			vdso = strtoul(line, NULL, 16);
	fclose(f);
	ok(try((struct shunt_probe){.addr = add5_inside, .pre = pre}) == -EINVAL, "the middle of an instruction");
	ok(try((struct shunt_probe){.addr = data, .pre = pre}) == -EFAULT, "data");
	ok(try((struct shunt_probe){.addr = (void *)8, .pre = pre}) == -EFAULT, "nothing mapped");
	ok(try((struct shunt_probe){.addr = (void *)(vdso + 0x600), .pre = pre}) == -EPERM, "the vdso");
	ok(try_second((uintptr_t)take_away, data) == -EFAULT && try_second((uintptr_t)is_there, (void *)8) == -EFAULT &&
			try_second((uintptr_t)clear, (void *)(vdso + 0x600)) == -EPERM, "each of them behind a right one");
	ok(try((struct shunt_probe){.addr = (void *)(uintptr_t)shunt_probe_register, .pre = pre}) == -EPERM,
		"libshunt itself");
	ok(try((struct shunt_probe){.symbol = "no_such_function", .pre = pre}) == -ENOENT, "a symbol that is missing");
	ok(try((struct shunt_probe){.symbol = "add5", .offset = 3, .pre = pre}) == -EINVAL, "an offset inside an instruction");
	ok(try((struct shunt_probe){.symbol = "add5", .offset = 4096, .pre = pre}) == -ERANGE, "an offset behind the function");
	ok(try((struct shunt_probe){.addr = (void *)(uintptr_t)add5}) == -EINVAL, "no handler");
	ok(try((struct shunt_probe){.pre = pre}) == -EINVAL, "no place");
	ok(try((struct shunt_probe){.addr = (void *)(uintptr_t)add5, .pre = pre, .flags = 1u << 30}) == -EINVAL,
		"unknown flags");
	ok(try((struct shunt_probe){.addr = add5_second, .ret = ret}) == -EINVAL, "a return not from the start");
	ok(try((struct shunt_probe){.addr = tiny_ret, .post = post}) == -ENOTSUP, "behind what does not go on");
	ok(shunt_probe_unregister(&p) == -ENOENT && shunt_probe_enable(&p) == -ENOENT, "not registered");
	shunt_probe_register(&p, &res);
	ok(shunt_probe_register(&p, &res) == -EALREADY, "registered twice");
	shunt_probe_unregister(&p);
	ok(shunt_probe_unregister(&p) == -ENOENT, "unregistered twice");
}

/* A debugger's breakpoint on the place. */
/* A jump whose last bytes change with its neighbour, and which itself might stay. */
static void test_batch_neighbours(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)looped, .pre = pre}, q = p;
	struct shunt_probe r = {.addr = looped_second, .pre = pre}, *batch[] = {&q, &r};

	ok(!shunt_probe_register(&p, &res), "one that is there already %s", res.reason);
	ok(!shunt_probe_register_many(batch, 2, &res), "another at the same place, and its neighbour %s",
		res.reason);
	clear();
	ok(looped(3) == 3 && pre_hits == 5, "all are hit (%d)", pre_hits);
	ok(!shunt_probe_unregister_many(batch, 2) && looped(3) == 3, "both go");
	shunt_probe_unregister(&p);
}

static void test_foreign(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)add5, .pre = pre};
	uintptr_t page = (uintptr_t)add5 & -4096ul;
	uint8_t *text = (uint8_t *)(uintptr_t)add5, old;

	shunt_probe_register(&p, &res);
	shunt_probe_unregister(&p);
	mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	old = *text;
	*text = 0xcc;
	ok(shunt_probe_register(&p, &res) == -EBUSY, "somebody's breakpoint is not overwritten: %s", res.reason);
	ok(*text == 0xcc, "it is still there");
	*text = old;
	mprotect((void *)page, 8192, PROT_READ | PROT_EXEC);
	clear();
	ok(!shunt_probe_register(&p, &res) && add5(1) == 6 && pre_hits == 1, "when it is gone the place can be had");
	shunt_probe_unregister(&p);
}

/* --- control flow --------------------------------------------------------------------------- */

static jmp_buf env;

static void jump_away(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
	longjmp(env, 1);
}

static int depth;

static void probes_itself(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
	depth++;
	if (depth < 10)
		add5(1);
}

static int from_handler;

static void unregisters(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)r;
	from_handler = shunt_probe_unregister(p);
}

static void test_flow(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)add5, .pre = jump_away};
	volatile int jumped = 0;

	shunt_probe_register(&p, &res);
	for (volatile int i = 0; i < 100; i++) {
		if (setjmp(env))
			jumped = jumped + 1;
		else
			add5(1);
	}
	ok(jumped == 100 && !shunt_probe_unregister(&p) && add5(1) == 6, "handlers that leave by longjmp");
	p = (struct shunt_probe){.addr = (void *)(uintptr_t)add5, .pre = probes_itself};
	shunt_probe_register(&p, &res);
	add5(1);
	ok(depth == 1, "what a handler calls does not hit");
	shunt_probe_unregister(&p);
	p = (struct shunt_probe){.addr = (void *)(uintptr_t)add5, .pre = unregisters};
	shunt_probe_register(&p, &res);
	add5(1);
	ok(from_handler == -EDEADLK, "a handler cannot wait for itself");
	ok(!shunt_probe_unregister(&p), "somebody else can");
	p = (struct shunt_probe){.addr = (void *)(uintptr_t)add5, .pre = pre, .ret = ret};
	shunt_probe_register(&p, &res);
	clear();
	fflush(stdout);
	pid_t pid = fork();
	int status = 1;

	if (!pid) {
		add5(1);
		int r = pre_hits == 1 && ret_hits == 1 && !shunt_probe_unregister(&p) && add5(1) == 6 && pre_hits == 1;

		_exit(r ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	ok(status == 0, "a fork child has the probe, and takes it out");
	add5(1);
	ok(pre_hits == 1, "the parent has its own");
	pid = vfork();
	if (!pid) {
		add5(1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ok(pre_hits == 2 && ret_hits == 2, "a vfork child hits in its parent's memory");
	shunt_probe_unregister(&p);
}

/* --- blocked SIGTRAP ------------------------------------------------------------------------- */

static void test_blocked(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)tiny, .pre = pre, .flags = SHUNT_PROBE_BREAKPOINT_ONLY};
	struct shunt_probe q = {.addr = (void *)(uintptr_t)short_first, .pre = pre};
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	r = shunt_probe_register(&p, &res);
	ok(r == -EAGAIN, "no breakpoint while a thread blocks SIGTRAP: %s", res.reason);
	r = shunt_probe_register(&q, &res);
	clear();
	ok(!r && short_first(1) == 2 && pre_hits == 1, "jumps can be put all the same (form %d) %s",
		shunt_probe_form(&q), res.reason);
	ok(!shunt_probe_unregister(&q), "and taken out");
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* --- code of a JIT compiler -------------------------------------------------------------------- */

static void test_jit(void)
{
	static const uint8_t code[] = {0x48, 0x8d, 0x47, 0x02, 0xc3}; /* lea 2(%rdi),%rax; ret */
	uint8_t *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*fn)(long) = (long (*)(long))(uintptr_t)at;
	struct shunt_probe p = {.addr = at, .pre = pre};

	memcpy(at, code, sizeof code);
	mprotect(at, 4096, PROT_READ | PROT_EXEC);
	ok(shunt_probe_register(&p, &res) == -ENOENT, "code of which nothing is known: %s", res.reason);
	p.flags = SHUNT_PROBE_TRUSTED;
	clear();
	ok(!shunt_probe_register(&p, &res) && fn(5) == 7 && pre_hits == 1,
		"where the caller says that an instruction begins %s", res.reason);
	shunt_probe_unregister(&p);
	ok(!memcmp(at, code, sizeof code), "its bytes are back");
	munmap(at, 4096);
}

int main(void)
{
	test_forms();
	test_changes();
	test_inside();
	test_neighbours();
	test_many();
	test_switching();
	test_wrong();
	test_batch_neighbours();
	test_foreign();
	test_flow();
	test_blocked();
	test_jit();
	ok(!shunt_rcu_tasks_barrier(), "all detours are let go");
	return done();
}
