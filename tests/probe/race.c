/* SPDX-License-Identifier: MIT */
/*
 * race.c - threads that are held up at the worst moment, between a detour and their way
 * out of it, while the place they are to go on at changes.
 */
#include <shunt/probe.h>
#include <shunt/tasks.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "../tap.h"
#include "arch/x86_64/probe.h"
#include "trace/hook.h"

#define TRIES 50000

static int nrounds = 8;

long five(void);  /* mov $7,%eax; ret */
long small(void); /* push; push; nop; nop; .. */
extern char small_second[];

__asm__(".text\n.balign 64\n.globl five\n.type five,@function\nfive:\n.cfi_startproc\n"
	"mov $7,%eax\nret\n.cfi_endproc\n.size five,.-five\n.balign 64,0xcc\n"
	".globl small\n.type small,@function\nsmall:\n.cfi_startproc\npush %rbx\nsmall_second: push %r12\n"
	"nop\nnop\nmov $7,%eax\npop %r12\npop %rbx\nret\n.cfi_endproc\n.size small,.-small\n"
	".balign 64,0xcc\n");

static struct shunt_probe_result res;
static int stop, parked, go, wrong, inside;

static void nothing(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
}

static bool get(int *what)
{
	return __atomic_load_n(what, __ATOMIC_ACQUIRE);
}

static void set(int *what, int value)
{
	__atomic_store_n(what, value, __ATOMIC_RELEASE);
}

/* Jumps of a small instruction that share the next one's bytes could lead there. */
static void occupy(const char *insn, unsigned len)
{
	int32_t rel;
	uintptr_t to, first;

	memcpy(&rel, insn + 1, 4);
	first = len > 1 ? 1ul << 8 * (len - 1) : 1;
	to = (uintptr_t)insn + 5 + ((uintptr_t)(intptr_t)rel & -first);
	for (uintptr_t page = to & -4096ul; page < to + first; page += 4096)
		mmap((void *)page, 4096, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* --- held up between a detour and the handlers, or these and the way out --------------------- */

static void park(int sig, siginfo_t *si, void *ucv)
{
	const ucontext_t *uc = ucv;
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

	(void)sig;
	(void)si;
	/* The function's size, or somewhat more: what is behind it is of the same file. */
	if (get(&go) || pc - (uintptr_t)shunt_probe_before >= 0x200 ||
		shunt_dispatch_inside((uintptr_t)uc->uc_mcontext.gregs[REG_RSP]))
		return;
	set(&parked, 1);
	while (!get(&go))
		sched_yield();
	set(&parked, 0);
}

/* What former calls have left on the stack says nothing about this one. */
static __attribute__((noinline)) void wipe(void)
{
	char below[768];

	memset(below, 0, sizeof below);
	__asm__ volatile("" : : "r"(below) : "memory");
}

/* One place of call: one stub. */
static __attribute__((noinline)) void call(long (*fn)(void))
{
	wrong += fn() != 7;
	__asm__ volatile("");
}

static void *calls(void *fn)
{
	while (!get(&stop)) {
		wipe();
		call((long (*)(void))(uintptr_t)fn);
	}
	return NULL;
}

/* Until all but `left` of what was let go is freed, or was looked for and found in use. */
static void wait_freed(uint64_t left)
{
	struct shunt_rcu_tasks_stats s;
	uint64_t from;

	shunt_rcu_tasks_stats(&s, sizeof s);
	from = s.passes;
	for (int n = 0; s.waiting > left && s.passes == from && n < TRIES; n++) {
		sched_yield();
		shunt_rcu_tasks_stats(&s, sizeof s);
	}
}

static void hold_up(pthread_t t)
{
	/* A round in which it was never caught proves nothing, but is no failure. */
	for (unsigned n = 0; !get(&parked) && n < TRIES; n++) {
		pthread_kill(t, SIGUSR1);
		for (volatile unsigned i = 0; i < n * 7 % 3000; i++)
			;
	}
}

static void hold_up_between(pthread_t t)
{
	set(&go, 0);
	hold_up(t);
}

static void let_go(void)
{
	set(&go, 1);
	while (get(&parked))
		sched_yield();
}

/* With a return probe: through a stub, that of the same call. */
static int round_return(pthread_t t)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)five, .pre = nothing, .ret = nothing,
		.flags = SHUNT_PROBE_GENERAL_REGS};
	int r = shunt_probe_register(&p, &res);

	hold_up_between(t);
	r |= shunt_probe_unregister(&p);
	r |= shunt_probe_register(&p, &res);
	call(five);
	r |= shunt_probe_unregister(&p);
	wait_freed(1); /* the one in between */
	let_go();
	return r;
}

/* At the second instruction; then a jump is put over both. */
static int round_over(pthread_t t)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)small, .pre = nothing,
		.flags = SHUNT_PROBE_GENERAL_REGS}, q = p;
	int r;

	q.addr = small_second;
	r = shunt_probe_register(&q, &res);
	hold_up_between(t);
	r |= shunt_probe_unregister(&q);
	wait_freed(0);
	r |= shunt_probe_register(&p, &res);
	let_go();
	call(small);
	r |= shunt_probe_unregister(&p);
	return r;
}

static void rounds(long (*fn)(void), int (*round)(pthread_t), const char *what)
{
	struct sigaction sa = {.sa_sigaction = park, .sa_flags = SA_SIGINFO | SA_RESTART};
	pthread_t t;
	int good = 0;

	sigaction(SIGUSR1, &sa, NULL);
	set(&stop, 0);
	set(&go, 1);
	pthread_create(&t, NULL, calls, (void *)(uintptr_t)fn);
	for (int i = 0; i < nrounds; i++)
		good += round(t) == 0;
	set(&stop, 1);
	pthread_join(t, NULL);
	ok(good == nrounds && !wrong, "%s: %d of %d rounds, %d wrong values %s", what, good, nrounds,
		wrong, res.reason);
}

/* --- held up by a handler -------------------------------------------------------------------- */

static void slow(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
	set(&inside, 1);
	while (!get(&go))
		sched_yield();
}

static void *call_once(void *fn)
{
	call((long (*)(void))(uintptr_t)fn);
	return NULL;
}

static void *unregister(void *p)
{
	return (void *)(intptr_t)shunt_probe_unregister(p);
}

/* Its probe is taken out meanwhile, and its instruction becomes the middle of a jump. */
static void test_slow_handler(void)
{
	struct shunt_probe p = {.addr = (void *)(uintptr_t)small, .pre = nothing,
		.flags = SHUNT_PROBE_GENERAL_REGS};
	/* Not on the stack, where it would be taken for somebody who is there. */
	static struct shunt_probe q = {.addr = small_second, .pre = slow,
		.flags = SHUNT_PROBE_GENERAL_REGS};
	uint8_t before[5];
	pthread_t t, u;
	int r;

	memcpy(before, small_second, sizeof before);
	set(&go, 0);
	set(&inside, 0);
	r = shunt_probe_register(&q, &res);
	pthread_create(&t, NULL, call_once, (void *)(uintptr_t)small);
	while (!get(&inside))
		sched_yield();
	pthread_create(&u, NULL, unregister, &q);
	while (__atomic_load_n(small_second, __ATOMIC_ACQUIRE) != (char)before[0])
		sched_yield();
	r |= shunt_probe_register(&p, &res);
	ok(!r && shunt_probe_form(&p) == SHUNT_PROBE_BREAKPOINT,
		"no jump is put over where a handler will go on (form %d) %s", shunt_probe_form(&p),
		res.reason);
	set(&go, 1);
	pthread_join(t, NULL);
	pthread_join(u, NULL);
	ok(!wrong, "it goes on there");
	shunt_probe_unregister(&p);
	shunt_rcu_tasks_barrier();
	r = shunt_probe_register(&p, &res);
	ok(!r && shunt_probe_form(&p) == SHUNT_PROBE_JUMP_MANY, "afterwards it can be (form %d) %s",
		shunt_probe_form(&p), res.reason);
	shunt_probe_unregister(&p);
	shunt_rcu_tasks_barrier();
}

int main(int argc, char **argv)
{
	if (argc > 1)
		nrounds = atoi(argv[1]);
	occupy((const char *)(uintptr_t)small, 1);
	occupy(small_second, 2);
	test_slow_handler();
	rounds(five, round_return, "between a stub and what it calls");
	rounds(small, round_over, "between a detour and its handlers");
	ok(!shunt_rcu_tasks_barrier(), "all detours are let go");
	return done();
}
