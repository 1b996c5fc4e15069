/* SPDX-License-Identifier: MIT */
/*
 * sweep.h - a thread at every single instruction of generated code, in every way to
 * stand there; at each the code is retired, must not be called back while
 * the thread is in it, and must be when it has left.
 *
 * What is swept says how to make the code and how to go through it:
 *
 *	struct sweep s = {.name = "a detour", .make = make, .run = run, .drop = drop};
 *	unsigned bad = sweep(&s, SWEEP_ALL);
 *
 * The instructions are found by going through once with the trap flag set. A thread is
 * held at one by a jump to itself (it runs there), or by a breakpoint, whose
 * handler then sleeps or spins, on either stack.
 *
 * Code that calls sweep_callback() is also swept with the thread in there.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <linux/membarrier.h>

#include "zone.h"
#include "rcu/tasks.h"
#include "text/text_internal.h"

enum sweep_way {
	SWEEP_RUNS,	       /* at the instruction, running */
	SWEEP_RUNS_BLOCKED,    /* with all signals blocked */
	SWEEP_TRACED,	       /* stopped there by a tracer */
	SWEEP_VFORK,	       /* the child of vfork() stands there */
	SWEEP_HANDLER_SLEEPS,  /* interrupted there by a handler on the same stack */
	SWEEP_HANDLER_SPINS,
	SWEEP_ALTERNATE_SLEEPS, /* ... on another stack */
	SWEEP_ALTERNATE_SPINS,
	SWEEP_HANDLER_BLOCKED, /* a handler that sleeps with all signals blocked */
	SWEEP_PLACES,	       /* those above are at each instruction, these in the callback: */
	SWEEP_CALLBACK_SLEEPS = SWEEP_PLACES,
	SWEEP_CALLBACK_SPINS,
	SWEEP_CALLBACK_JUMPS,  /* sleeps, and leaves by longjmp() */
	SWEEP_CALLBACK_VFORK,  /* its vfork child sleeps */
	SWEEP_CALLBACK_ALTERNATE, /* a handler that sleeps, on another stack */
	SWEEP_WAYS
};
#define SWEEP_ALL ((1u << SWEEP_WAYS) - 1)

__attribute__((unused)) static const char *const sweep_names[] = {"running", "running, signals blocked",
	"stopped by a tracer", "in a vfork child", "under a sleeping handler",
	"under a spinning handler", "under a sleeping handler on another stack",
	"under a spinning handler on another stack",
	"under a sleeping handler, signals blocked", "asleep in the callback",
	"running in the callback", "longjmp from the callback", "vfork in the callback",
	"under a sleeping handler on another stack in the callback"};

struct sweep {
	const char *name;
	/* Fresh code, its door open. */
	int (*make)(struct sweep *s, struct shunt_zone *zone);
	/* Goes through it once. */
	void (*run)(struct sweep *s);
	/* Closes the door; NULL: nothing but run() leads in. */
	void (*close)(struct sweep *s);
	/* Called back and left: frees it. NULL: shunt_code_release(). */
	void (*drop)(struct sweep *s, struct shunt_zone *zone);
	void *arg;
	struct shunt_zone zone; /* now */
	/* results */
	unsigned instructions, stops, bad, ways;
};

static struct {
	struct sweep *s;
	volatile enum sweep_way way;
	volatile uint32_t there, go, left, end;
	volatile int tid;
	volatile uintptr_t at, seen;
	volatile pid_t child;
	uint8_t bytes[2];
	jmp_buf out;
	/* the dry run */
	volatile bool recording;
	uintptr_t pc[4096];
	unsigned n, called;
} sweep_now;

static bool sweep_in_zone(uintptr_t pc)
{
	return pc - sweep_now.s->zone.start < sweep_now.s->zone.end - sweep_now.s->zone.start;
}

static void sweep_hold(bool spin)
{
	raise_flag(&sweep_now.there);
	while (spin && !__atomic_load_n(&sweep_now.go, __ATOMIC_ACQUIRE))
		;
	await_flag(&sweep_now.go);
}

static void sweep_record(uintptr_t pc)
{
	for (unsigned i = 0; i < sweep_now.n; i++)
		if (sweep_now.pc[i] == pc)
			return;
	if (sweep_now.n < 4096)
		sweep_now.pc[sweep_now.n++] = pc;
}

static void sweep_trap(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	greg_t *r = uc->uc_mcontext.gregs;

	(void)sig;
	if (sweep_now.recording && si->si_code != SI_KERNEL) {
		if (sweep_in_zone((uintptr_t)r[REG_RIP]))
			sweep_record((uintptr_t)r[REG_RIP] - sweep_now.s->zone.start);
		return;
	}
	/* The code has been written over while a thread was in it. */
	if ((uintptr_t)r[REG_RIP] - 1 != sweep_now.at) {
		diag("%s, %s: a trap at %#lx (%d), not %#lx; the zone is %#lx to %#lx", sweep_now.s->name,
			sweep_now.way < SWEEP_WAYS ? sweep_names[sweep_now.way] : "once",
			(unsigned long)r[REG_RIP], si->si_code, (unsigned long)sweep_now.at,
			(unsigned long)sweep_now.s->zone.start, (unsigned long)sweep_now.s->zone.end);
		unlikely_fail("a trap that is not ours: a thread in poisoned code");
	}
	r[REG_RIP]--;
	sweep_hold(sweep_now.way == SWEEP_HANDLER_SPINS || sweep_now.way == SWEEP_ALTERNATE_SPINS);
}

static void sweep_usr1(int sig)
{
	(void)sig;
	sweep_hold(false);
}

/* What swept code may call. */
__attribute__((unused)) static void sweep_callback(void)
{
	pid_t pid;

	sweep_now.called++;
	switch (sweep_now.way) {
	case SWEEP_CALLBACK_SLEEPS:
	case SWEEP_CALLBACK_SPINS:
		sweep_hold(sweep_now.way == SWEEP_CALLBACK_SPINS);
		break;
	case SWEEP_CALLBACK_JUMPS:
		sweep_hold(false);
		longjmp(sweep_now.out, 1);
	case SWEEP_CALLBACK_VFORK:
		pid = vfork();
		if (!pid) {
			sweep_hold(false);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		break;
	case SWEEP_CALLBACK_ALTERNATE:
		raise(SIGUSR1);
		break;
	default:
		break;
	}
}

static void sweep_flag(bool on)
{
	__asm__ volatile("sub $256, %%rsp\n\tpushfq\n\tandl $~0x100, (%%rsp)\n\torl %0, (%%rsp)\n\t"
			 "popfq\n\tadd $256, %%rsp"
			 :
			 : "r"(on ? 0x100 : 0)
			 : "cc", "memory");
}

static void sweep_write(uintptr_t at, const uint8_t *bytes, size_t n)
{
	if (shunt_text_write_private((void *)at, bytes, n))
		unlikely_fail("code cannot be written");
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

/* Nothing of the zone must be left below, where a sleeper's frames will be. */
static __attribute__((noinline)) void sweep_wipe(void)
{
	volatile char below[8192];

	for (size_t i = 0; i < sizeof below; i++)
		below[i] = 0;
}

static void sweep_go_through(void)
{
	struct sweep *s = sweep_now.s;
	pid_t pid;

	if (sweep_now.way == SWEEP_VFORK) {
		pid = vfork();
		if (!pid) {
			sweep_now.child = (pid_t)syscall(SYS_getpid);
			s->run(s);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	} else if (!setjmp(sweep_now.out)) {
		s->run(s);
	}
}

static void *sweep_thread(void *stack)
{
	stack_t ss = {.ss_sp = stack, .ss_size = 65536};
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGUSR2); /* asks where it is */
	sweep_now.tid = (int)syscall(SYS_gettid);
	sigaltstack(&ss, NULL);
	if (sweep_now.way == SWEEP_RUNS_BLOCKED)
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	sweep_go_through();
	sweep_wipe();
	raise_flag(&sweep_now.left);
	await_flag(&sweep_now.end);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	return NULL;
}

/* A process that stops the thread where it runs, and lets it go when it is told to. */
static pid_t sweep_tracer(int tid, volatile uint32_t *shared)
{
	pid_t pid = fork();
	int status;

	if (pid)
		return pid;
	if (ptrace(PTRACE_SEIZE, tid, 0, 0) || ptrace(PTRACE_INTERRUPT, tid, 0, 0) ||
		waitpid(tid, &status, __WALL) != tid)
		_exit(1);
	raise_flag(&shared[0]);
	await_flag(&shared[1]);
	ptrace(PTRACE_DETACH, tid, 0, 0);
	_exit(0);
}

static bool sweep_by_jump(enum sweep_way way)
{
	return way <= SWEEP_VFORK;
}

static void sweep_arm(unsigned i)
{
	static const uint8_t self[] = {0xeb, 0xfe}, trap[] = {0xcc};
	bool jump = sweep_by_jump(sweep_now.way);

	sweep_now.at = sweep_now.s->zone.start + sweep_now.pc[i];
	memcpy(sweep_now.bytes, (void *)sweep_now.at, 2);
	sweep_write(sweep_now.at, jump ? self : trap, jump ? 2 : 1);
}

static void sweep_where(int sig, siginfo_t *si, void *ucv)
{
	(void)sig;
	(void)si;
	sweep_now.seen = (uintptr_t)((ucontext_t *)ucv)->uc_mcontext.gregs[REG_RIP];
}

/* Asks the thread, or the child, where it is until it is there. */
static void sweep_reach(uintptr_t at)
{
	struct sigaction sa = {.sa_sigaction = sweep_where, .sa_flags = SA_SIGINFO | SA_RESTART};

	sigaction(SIGUSR2, &sa, NULL);
	sweep_now.seen = 0;
	while (sweep_now.seen != at) {
		if (sweep_now.tid && sweep_now.way != SWEEP_VFORK)
			syscall(SYS_tgkill, getpid(), sweep_now.tid, SIGUSR2);
		else if (sweep_now.tid && sweep_now.child)
			kill(sweep_now.child, SIGUSR2);
		sched_yield();
	}
}

static void sweep_await(void)
{
	if (sweep_now.way < SWEEP_PLACES && sweep_by_jump(sweep_now.way))
		sweep_reach(sweep_now.at);
	else
		await_flag(&sweep_now.there);
}

/*
 * Who runs there must not find one byte of the jump and one of what was there before (where the two are in
 * different cache lines he does): a breakpoint, a single byte, catches him first.
 */
static void sweep_disarm(void)
{
	static const uint8_t trap = 0xcc;

	if (sweep_now.way < SWEEP_PLACES && sweep_by_jump(sweep_now.way)) {
		if (sweep_now.way != SWEEP_TRACED) {
			sweep_write(sweep_now.at, &trap, 1);
			await_flag(&sweep_now.there);
		}
		sweep_write(sweep_now.at + 1, sweep_now.bytes + 1, 1);
	}
	if (sweep_now.way < SWEEP_PLACES)
		sweep_write(sweep_now.at, sweep_now.bytes, 1);
	sweep_now.at = 0;
}

/* Two looks that could have let it go. */
static void sweep_tries(const struct visit *v)
{
	uint64_t before = figures().tries;

	while (figures().tries < before + 2 && !v->called)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* With a guard behind it: what lies there might hold addresses. */
static void *sweep_stack(void)
{
	char *p = mmap(NULL, 65536 + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p + 65536, 4096, PROT_NONE);
	return p;
}

/* One stop: i is the instruction. */
static void sweep_stop(struct sweep *s, enum sweep_way way, unsigned i)
{
	static volatile uint32_t *shared;
	struct visit v = {.zone.name = s->name};
	void *stack = sweep_stack();
	pid_t tracer = 0;
	pthread_t t;
	bool early;

	if (!shared)
		shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared[0] = shared[1] = 0;
	sweep_now.s = s;
	sweep_now.way = way;
	sweep_now.there = sweep_now.go = sweep_now.left = sweep_now.end = 0;
	sweep_now.tid = sweep_now.child = 0;
	s->zone = (struct shunt_zone){.name = s->name};
	if (s->make(s, &s->zone))
		unlikely_fail("make");
	if (way < SWEEP_PLACES)
		sweep_arm(i);
	pthread_create(&t, NULL, sweep_thread, stack);
	sweep_await();
	if (way == SWEEP_TRACED) {
		tracer = sweep_tracer(sweep_now.tid, shared);
		await_flag(&shared[0]);
	}
	if (s->close)
		s->close(s);
	v.zone.start = s->zone.start;
	v.zone.end = s->zone.end;
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	sweep_tries(&v);
	early = v.called;
	sweep_disarm();
	if (tracer) {
		raise_flag(&shared[1]);
		waitpid(tracer, NULL, 0);
	}
	raise_flag(&sweep_now.go);
	await_flag(&sweep_now.left);
	/* Still there, but outside: were it not called back now, this would hang. */
	shunt_rcu_tasks_barrier();
	if (!v.called || early) {
		if (s->bad++ < 3)
			diag("%s, %s, instruction %u at +%lu: called back %s", s->name,
				sweep_names[way], i, (unsigned long)sweep_now.pc[i],
				early ? "while a thread was in it" : "never");
	}
	raise_flag(&sweep_now.end);
	pthread_join(t, NULL);
	munmap(stack, 65536 + 4096);
	if (s->drop)
		s->drop(s, &s->zone);
	else
		shunt_code_release(s->zone.start, s->zone.end);
	s->stops++;
}

static void *sweep_dry_thread(void *arg)
{
	struct sweep *s = arg;

	sweep_flag(true);
	s->run(s);
	sweep_flag(false);
	return NULL;
}

static void sweep_dry(struct sweep *s)
{
	pthread_t t;

	sweep_now.s = s;
	sweep_now.way = SWEEP_WAYS;
	sweep_now.n = sweep_now.called = 0;
	s->zone = (struct shunt_zone){.name = s->name};
	if (s->make(s, &s->zone))
		unlikely_fail("make");
	sweep_now.recording = true;
	pthread_create(&t, NULL, sweep_dry_thread, s);
	pthread_join(t, NULL);
	sweep_now.recording = false;
	if (s->close)
		s->close(s);
	if (s->drop)
		s->drop(s, &s->zone);
	else
		shunt_code_release(s->zone.start, s->zone.end);
	s->instructions = sweep_now.n;
}

static void sweep_action(bool alternate, bool blocked)
{
	struct sigaction sa = {.sa_sigaction = sweep_trap,
		.sa_flags = SA_SIGINFO | (alternate ? SA_ONSTACK : 0)};

	if (blocked)
		sigfillset(&sa.sa_mask);
	sigaction(SIGTRAP, &sa, NULL);
	sa.sa_handler = sweep_usr1;
	sa.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR1, &sa, NULL);
}

/* Sweeps it in those ways; the number of stops at which something was wrong. */
__attribute__((unused)) static unsigned sweep(struct sweep *s, unsigned ways)
{
	s->stops = s->bad = s->ways = 0;
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	sweep_action(false, false);
	sweep_dry(s);
	for (unsigned way = 0; way < SWEEP_WAYS; way++) {
		if (!(ways >> way & 1) || (way >= SWEEP_PLACES && !sweep_now.called))
			continue;
		sweep_action(way == SWEEP_ALTERNATE_SLEEPS || way == SWEEP_ALTERNATE_SPINS,
			way == SWEEP_HANDLER_BLOCKED);
		s->ways++;
		for (unsigned i = 0; i < (way < SWEEP_PLACES ? s->instructions : 1); i++)
			sweep_stop(s, (enum sweep_way)way, i);
	}
	return s->bad;
}

#endif
