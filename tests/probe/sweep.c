/* SPDX-License-Identifier: MIT */
/*
 * sweep.c [all | without NAME | with NAME] - threads at every single instruction on the way from a
 * probed function through its detour and the permanent code to the handlers and back,
 * in every way to stand there. At each the probe is unregistered, and every other time
 * registered anew in another form. Then the threads go on: what the functions return is right,
 * no handler runs any more, the detours are kept as long as somebody is in
 * them, and freed when all have left.
 *
 * One round is one instruction: a thread for each way, each with a function of
 * its own (victims.S), all stepped there by another process (stepper.h). Those that
 * run there are held by a jump to itself, the others by a handler.
 *
 * Without "all" an instruction of the permanent code is swept once, by whichever
 * form comes there first; with it at each visit. "without NAME" leaves out one part of
 * the care that is taken, and must fail: that is what the test runs itself for; "with NAME"
 * is the same with it, and must not.
 */
#include <shunt/probe.h>
#include <shunt/tasks.h>

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../rcu/zone.h"
#include "arch/x86_64/probe.h"
#include "arch/x86_64/trampoline.h"
#include "probe/detour.h"
#include "probe/place.h"
#include "rcu/reader.h"
#include "rcu/tasks.h"
#include "stepper.h"
#include "text/text_internal.h"

extern char victims_long[], victims_short[];
long victim_call(uintptr_t f, long x);
long victim_visit(uintptr_t f, long x);
extern char __executable_start[], etext[];
void shunt_sigreturn(void);

enum way {
	RUNS,		  /* at the instruction, running */
	RUNS_BLOCKED,	  /* with all signals blocked that may be */
	TRACED,		  /* stopped there by a tracer: its registers cannot be seen */
	VFORK_RUNS,	  /* the child of vfork() runs there */
	VFORK_SLEEPS,	  /* interrupted there by a handler that sleeps */
	HANDLER_SLEEPS,
	HANDLER_SPINS,
	ALTERNATE_SLEEPS, /* ... on another stack */
	ALTERNATE_SPINS,
	BLOCKED_SLEEPS,	  /* ... with all signals blocked */
	JUMPS,		  /* ... and leaves by siglongjmp() */
	ALTERNATE_JUMPS,
	WAYS
};
#define BIT(way) (1u << (way))
#define ALL (BIT(WAYS) - 1)
#define AT_IT (BIT(RUNS) | BIT(RUNS_BLOCKED) | BIT(VFORK_RUNS))
/*
 * Who cannot be seen keeps everybody's detours: those are apart from the others.
 */
#define SEEN (ALL & ~BLOCKED & ~VFORKED)
#define BLOCKED BIT(RUNS_BLOCKED)
#define VFORKED (BIT(VFORK_RUNS) | BIT(VFORK_SLEEPS))
#define JUMPING (BIT(JUMPS) | BIT(ALTERNATE_JUMPS))

struct victim {
	enum way way;
	uintptr_t f;
	struct shunt_probe probe, second;
	pthread_t thread;
	void *stack;
	volatile uint32_t ready, start, there, go, left, end;
	volatile int tid;
	volatile long result;
	volatile bool jumped;
	uintptr_t pc;
	/* of the detour that it was led through */
	const struct shunt_place *place;
	const struct shunt_detour *detour;
	uintptr_t lo, hi;
	bool window;
	sigjmp_buf out;
};

static struct stepper_trace *trace;
static struct victim victims[WAYS];
static __thread struct victim *me;
static volatile unsigned dead; /* handlers of probes that are not registered */
static volatile unsigned long hits;
static unsigned bad, stops, contexts;
static const char *round_name;
static uint32_t round_step;

#define wrong(...) \
	do { \
		if (bad++ < 12) { \
			diag(__VA_ARGS__); \
			diag("    in: %s, step %u", round_name, round_step); \
		} \
	} while (0)

/* --- scenarios ------------------------------------------------------------------------------- */

struct scenario {
	const char *name;
	char *functions;
	enum shunt_probe_form form;
	unsigned flags, off; /* of the probe, and of what is left out to get the form */
	bool post;
	/* in what form it comes again */
	unsigned again_flags, again_off;
};

static const struct scenario scenarios[] = {
	{"a jump", victims_long, SHUNT_PROBE_JUMP, SHUNT_PROBE_GENERAL_REGS, 0, true,
		SHUNT_PROBE_BREAKPOINT_ONLY, 0},
	{"a shared jump", victims_short, SHUNT_PROBE_JUMP_SHARED, SHUNT_PROBE_GENERAL_REGS, 0, true,
		0, SHUNT_PROBE_NO_SHARED},
	{"a jump over many", victims_short, SHUNT_PROBE_JUMP_MANY, SHUNT_PROBE_GENERAL_REGS,
		SHUNT_PROBE_NO_SHARED, true, SHUNT_PROBE_BREAKPOINT_ONLY, 0},
	{"a breakpoint", victims_short, SHUNT_PROBE_BREAKPOINT,
		SHUNT_PROBE_GENERAL_REGS | SHUNT_PROBE_BREAKPOINT_ONLY, 0, true,
		0, SHUNT_PROBE_NO_SHARED},
	{"a jump, all registers", victims_long, SHUNT_PROBE_JUMP, 0, 0, true, 0, 0},
	{"a jump over many, no post", victims_short, SHUNT_PROBE_JUMP_MANY, SHUNT_PROBE_GENERAL_REGS,
		SHUNT_PROBE_NO_SHARED, false, 0, 0},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static uintptr_t function(const struct scenario *s, unsigned i)
{
	return (uintptr_t)s->functions + i * 256;
}

static void pre(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)regs;
	dead += p->data != p;
	hits++;
}

static struct shunt_probe probe_of(const struct scenario *s, const struct victim *v, unsigned flags)
{
	return (struct shunt_probe){.addr = (void *)v->f, .pre = pre,
		.post = s->post ? pre : NULL, .ret = pre, .flags = flags};
}

/* --- the threads ------------------------------------------------------------------------------ */

static void hold(bool spin)
{
	struct victim *v = me;

	raise_flag(&v->there);
	while (spin && !__atomic_load_n(&v->go, __ATOMIC_ACQUIRE))
		;
	await_flag(&v->go);
	if (BIT(v->way) & JUMPING) {
		v->jumped = true;
		siglongjmp(v->out, 1);
	}
}

static void interrupted(int sig)
{
	int err = errno;

	(void)sig;
	hold(me->way == HANDLER_SPINS || me->way == ALTERNATE_SPINS);
	errno = err;
}

static const int signal_of[WAYS] = {[VFORK_SLEEPS] = SIGUSR1, [HANDLER_SLEEPS] = SIGUSR1,
	[HANDLER_SPINS] = SIGUSR1, [JUMPS] = SIGUSR1, [ALTERNATE_SLEEPS] = SIGUSR2,
	[ALTERNATE_SPINS] = SIGUSR2, [ALTERNATE_JUMPS] = SIGUSR2, [BLOCKED_SLEEPS] = SIGVTALRM};

static void set_handlers(void)
{
	struct sigaction sa = {.sa_handler = interrupted};

	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR2, &sa, NULL);
	sa.sa_flags = 0;
	sigfillset(&sa.sa_mask);
	sigdelset(&sa.sa_mask, SIGTRAP);
	sigaction(SIGVTALRM, &sa, NULL);
}

/* Nothing of the detour must be left below, where a sleeper's frames will be. */
static __attribute__((noinline)) void wipe(void)
{
	volatile char below[16384];

	for (size_t i = 0; i < sizeof below; i++)
		below[i] = 0;
}

static void await_gate(struct victim *v)
{
	v->tid = (int)syscall(SYS_gettid);
	raise_flag(&v->ready);
	await_flag(&v->start);
}

/*
 * With room above: who has jumped away from handlers is known by a hit whose frame is higher
 * than theirs were.
 */
static __attribute__((noinline)) void go_through(struct victim *v)
{
	volatile char above[1024];

	above[0] = 0;
	if (v->way == VFORK_RUNS || v->way == VFORK_SLEEPS) {
		pid_t pid = vfork();

		if (!pid) {
			await_gate(v);
			v->result = victim_call(v->f, v->way);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	} else if (!sigsetjmp(v->out, 1)) {
		await_gate(v);
		v->result = victim_call(v->f, v->way);
	}
	above[sizeof above - 1] = 0;
}

long sweep_other(long x);
/* Probed all the time: whoever has jumped away from a handler comes by at last. */
__asm__(".text\n.balign 256,0xcc\n.type sweep_other,@function\nsweep_other: .cfi_startproc\nlea 0x11111(%rdi),%rax\nret\n"
	".cfi_endproc\n.size sweep_other,.-sweep_other\n.balign 256,0xcc\n");

static void *thread(void *arg)
{
	struct victim *v = me = arg;
	stack_t ss = {.ss_sp = v->stack, .ss_size = 65536};
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	sigaltstack(&ss, NULL);
	if (v->way == RUNS_BLOCKED)
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	/* Once for a reader of its own, and a stub. */
	v->result = victim_visit(v->f, v->way);
	go_through(v);
	wipe();
	if (v->jumped)
		sweep_other(1);
	raise_flag(&v->left);
	await_flag(&v->end);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	return NULL;
}

/* --- held at the instruction -------------------------------------------------------------------- */

static const uint8_t self[] = {0xeb, 0xfe};
static struct {
	uintptr_t at;
	uint8_t old[2];
} armed[WAYS];
static unsigned narmed;

static void write_code(uintptr_t at, const uint8_t *bytes)
{
	if (shunt_text_write_private((void *)at, bytes, 2))
		unlikely_fail("code cannot be written");
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

static void arm(uintptr_t at)
{
	for (unsigned i = 0; i < narmed; i++)
		if (armed[i].at == at)
			return;
	armed[narmed].at = at;
	memcpy(armed[narmed++].old, (void *)at, 2);
	write_code(at, self);
}

static void disarm(void)
{
	while (narmed) {
		narmed--;
		write_code(armed[narmed].at, armed[narmed].old);
	}
}

/* --- one round ------------------------------------------------------------------------------------ */

/* What it is that is swept at a step. */
enum where {
	DETOUR,
	PERMANENT, /* the library's code */
	TRAP,	   /* its handler of SIGTRAP */
	SIGRETURN, /* the end of that, and of other handlers: whoever is held there holds all */
	TEXT,	   /* the function itself: that is what is patched */
	CALLBACK,  /* the test's, and libc */
};

static void detour_of(struct victim *v)
{
	shunt_probes_lock();
	v->place = shunt_place_find(v->f);
	v->detour = v->place ? v->place->detour : NULL;
	v->lo = v->detour ? v->detour->zone.start : 0;
	v->hi = v->detour ? v->detour->zone.end : 0;
	v->window = v->detour && v->detour->window;
	shunt_probes_unlock();
}

/* It is not freed, nor could it be. */
static bool detour_there(const struct victim *v)
{
	const struct shunt_detour *d;

	shunt_probes_lock();
	for (d = v->place->retired; d && d != v->detour; d = d->older)
		;
	if (!d && v->place->detour == v->detour)
		d = v->detour;
	shunt_probes_unlock();
	return d != NULL;
}

static bool any_there(unsigned ways)
{
	bool any = false;

	for (unsigned w = 0; w < WAYS; w++)
		any |= (ways & BIT(w)) && detour_there(&victims[w]);
	return any;
}

static void *new_stack(void)
{
	char *p = mmap(NULL, 65536 + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p + 65536, 4096, PROT_NONE);
	return p;
}

static size_t list_of(unsigned ways, bool second, struct shunt_probe **list)
{
	size_t n = 0;

	for (unsigned w = 0; w < WAYS; w++)
		if (ways & BIT(w))
			list[n++] = second ? &victims[w].second : &victims[w].probe;
	return n;
}

static void register_all(const struct scenario *s, unsigned ways)
{
	struct shunt_probe *list[WAYS];
	struct shunt_probe_result res;
	size_t n;

	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		*v = (struct victim){.way = (enum way)w, .f = function(s, w), .stack = new_stack()};
		v->probe = probe_of(s, v, s->flags);
		v->probe.data = &v->probe;
	}
	n = list_of(ways, false, list);
	shunt_probe_test_off |= s->off;
	if (shunt_probe_register_many(list, n, &res))
		unlikely_fail(res.reason);
	shunt_probe_test_off &= ~s->off;
	for (unsigned w = 0; w < WAYS; w++) {
		if (!(ways & BIT(w)))
			continue;
		detour_of(&victims[w]);
		if (shunt_probe_form(&victims[w].probe) != s->form)
			wrong("form %d, not %d", shunt_probe_form(&victims[w].probe), s->form);
	}
}

/* What a step is: this instruction of the detour, the function or at an address, the nth time. */
static struct step {
	enum where where;
	uintptr_t at; /* an offset, but for permanent code */
	uint32_t nth;
} steps[STEPPER_MAX];

static uintptr_t address_of(const struct step *s, const struct victim *v)
{
	return s->at + (s->where == DETOUR ? v->lo : s->where == TEXT ? v->f : 0);
}

static unsigned missed;

/*
 * To the step, all of them stopped there; those that are. What a thread does may differ a
 * little from what another did: a stub that leads to a detour of before is told of the new one.
 */
static unsigned bring_there(unsigned ways, const struct step *to)
{
	unsigned there = 0;

	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		v->pc = address_of(to, v);
		pthread_create(&v->thread, NULL, thread, v);
		await_flag(&v->ready);
		if (stepper_take(v->tid))
			unlikely_fail("the thread cannot be stepped");
		raise_flag(&v->start);
		if (!stepper_step(v->tid, v->pc, to->nth)) {
			there |= BIT(w);
		} else {
			stepper_let_go(v->tid);
			missed++;
		}
	}
	return there;
}

static void hold_there(unsigned ways)
{
	for (unsigned w = 0; w < WAYS; w++)
		if (ways & BIT(w) & AT_IT)
			arm(victims[w].pc);
	for (unsigned w = 0; w < WAYS; w++) {
		const struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		if (signal_of[w])
			stepper_signal(v->tid, signal_of[w]);
		if (w != TRACED)
			stepper_let_go(v->tid);
		if (BIT(w) & AT_IT) /* it uses up a processor */
			setpriority(PRIO_PROCESS, (id_t)v->tid, 15);
	}
	for (unsigned w = 0; w < WAYS; w++)
		if ((ways & BIT(w)) && signal_of[w])
			await_flag(&victims[w].there);
}

/* Some thread is in a section: handlers may be about to run. */
static bool anybody_inside(void)
{
	for (struct shunt_reader *r = shunt_reader_first(); r; r = r->next) {
		const struct shunt_counts *c = shunt_reader_counts(r, SHUNT_INDEX_CALLBACKS);

		if (c->lock[0] + c->lock[1] != c->unlock[0] + c->unlock[1])
			return true;
	}
	return false;
}

static struct {
	unsigned ways;
	volatile uint32_t done;
	volatile int r;
} taking;

static void *take_out(void *arg)
{
	struct shunt_probe *list[WAYS];
	size_t n = list_of(taking.ways, false, list);

	(void)arg;
	taking.r = shunt_probe_unregister_many(list, n);
	/* From here on they are the test's own: nobody calls them. */
	for (size_t i = 0; i < n; i++)
		memset(list[i], 0xee, sizeof *list[i]);
	raise_flag(&taking.done);
	return NULL;
}

static void pause_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

/* Two looks that could have freed them. */
static void await_looks(unsigned ways)
{
	uint64_t before = figures().tries;

	while (figures().tries < before + 2 && any_there(ways))
		pause_a_little();
}

static bool come_again(const struct scenario *s, unsigned ways)
{
	struct shunt_probe *list[WAYS];
	struct shunt_probe_result res;
	size_t n;
	int r;

	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		v->second = probe_of(s, v, (s->flags & SHUNT_PROBE_GENERAL_REGS) | s->again_flags);
		v->second.data = &v->second;
	}
	n = list_of(ways, true, list);
	shunt_probe_test_off |= s->again_off;
	r = shunt_probe_register_many(list, n, &res);
	shunt_probe_test_off &= ~s->again_off;
	if (r && r != -EAGAIN)
		wrong("registering again: %s", res.reason);
	return !r;
}

static void let_go(unsigned ways, unsigned there)
{
	disarm();
	if (there & BIT(TRACED))
		stepper_let_go(victims[TRACED].tid);
	for (unsigned w = 0; w < WAYS; w++)
		if (ways & BIT(w))
			raise_flag(&victims[w].go);
	for (unsigned w = 0; w < WAYS; w++)
		if (ways & BIT(w))
			await_flag(&victims[w].left);
}

/* All have left: they have done what they should, and the detours are freed. */
static void look_after(unsigned ways)
{
	shunt_rcu_tasks_barrier();
	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		if (!v->jumped && v->result != (long)w + 5)
			wrong("way %u at %#lx: the result is %ld", w, v->pc, v->result);
		shunt_probes_lock();
		if (v->place->retired || v->place->detour || v->place->tail != v->place->addr ||
				v->place->hook)
			wrong("way %u: something of the probe is left", w);
		shunt_probes_unlock();
		if (v->window ? shunt_window_owns(v->lo) : shunt_code_owns(v->lo, v->hi))
			wrong("way %u: the detour's memory is kept", w);
	}
	if (dead)
		wrong("%u handlers of probes that were not registered", dead);
	dead = 0;
}

static void end_all(unsigned ways)
{
	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		raise_flag(&v->end);
		pthread_join(v->thread, NULL);
		munmap(v->stack, 65536 + 4096);
		stops++;
	}
	contexts |= ways;
}

/* What holds while they stand there. */
static void check_held(unsigned ways, enum where where, bool inside)
{
	if (inside) {
		for (int i = 0; i < 4; i++)
			pause_a_little();
		if (taking.done)
			wrong("a probe is taken out while its handlers may run");
		return;
	}
	if (where == TRAP) { /* may wait for the handler to end, or not */
		for (int i = 0; i < 4; i++)
			pause_a_little();
		return;
	}
	await_flag(&taking.done);
	await_looks(ways);
	for (unsigned w = 0; w < WAYS && where == DETOUR; w++)
		if ((ways & BIT(w)) && !detour_there(&victims[w]))
			wrong("way %u, in a detour at +%lu: it is freed", w,
				victims[w].pc - victims[w].lo);
}

static unsigned ways_for(enum where where)
{
	switch (where) {
	case DETOUR:
	case PERMANENT:
		return ALL;
	case TRAP: /* what interrupts it there cannot be told from what comes behind */
		return AT_IT | BIT(TRACED);
	default: /* not to be written into */
		return ALL & ~AT_IT;
	}
}

static void one_round(const struct scenario *s, uint32_t i, unsigned ways, bool again)
{
	enum where where = steps[i].where;
	unsigned there;
	pthread_t taker;
	bool inside;

	round_name = s->name;
	round_step = i;
	ways &= ways_for(where);
	if (!ways)
		return;
	register_all(s, ways);
	there = bring_there(ways, &steps[i]);
	hold_there(there);
	inside = anybody_inside();
	taking.ways = ways;
	taking.done = 0;
	pthread_create(&taker, NULL, take_out, NULL);
	check_held(there, where, inside);
	again = again && taking.done && come_again(s, ways);
	let_go(ways, there);
	pthread_join(taker, NULL);
	if (taking.r)
		wrong("unregistering: %s", strerror(-taking.r));
	if (again) {
		struct shunt_probe *list[WAYS];

		if (shunt_probe_unregister_many(list, list_of(ways, true, list)))
			wrong("unregistering the second");
	}
	look_after(ways);
	end_all(ways);
}

/* --- all steps of a scenario --------------------------------------------------------------------------- */

static enum where where_is(uintptr_t pc, const struct victim *v)
{
	if (pc - v->lo < v->hi - v->lo)
		return DETOUR;
	if (pc - v->f < 256)
		return TEXT;
	if (pc - (uintptr_t)victim_call < 64 || pc - (uintptr_t)pre < 256 ||
		pc < (uintptr_t)__executable_start || pc >= (uintptr_t)etext)
		return CALLBACK;
	return PERMANENT;
}

/* The number of steps, and where each is. */
static uint32_t dry_run(const struct scenario *s)
{
	struct victim *v = &victims[HANDLER_SLEEPS];
	bool arrived = s->form != SHUNT_PROBE_BREAKPOINT;
	struct shunt_probe *p = &v->probe;

	round_name = s->name;
	register_all(s, BIT(HANDLER_SLEEPS));
	pthread_create(&v->thread, NULL, thread, v);
	await_flag(&v->ready);
	if (stepper_take(v->tid))
		unlikely_fail("the thread cannot be stepped");
	raise_flag(&v->start);
	stepper_run(v->tid);
	stepper_let_go(v->tid);
	await_flag(&v->left);
	for (uint32_t i = 0; i < trace->n; i++) {
		struct step *to = &steps[i];

		*to = (struct step){where_is(trace->pc[i], v), trace->pc[i], 0};
		arrived |= to->where == DETOUR;
		if (!arrived && to->where != TEXT)
			to->where = to->at - (uintptr_t)shunt_sigreturn < 9 ? SIGRETURN : TRAP;
		if (to->where == DETOUR || to->where == TEXT)
			to->at -= to->where == DETOUR ? v->lo : v->f;
		for (uint32_t k = 0; k <= i; k++)
			to->nth += trace->pc[k] == trace->pc[i];
	}
	shunt_probe_unregister_many(&p, 1);
	look_after(BIT(HANDLER_SLEEPS));
	raise_flag(&v->end);
	pthread_join(v->thread, NULL);
	munmap(v->stack, 65536 + 4096);
	return trace->n;
}

static uintptr_t swept[STEPPER_MAX];
static unsigned nswept;

/* Permanent code that has been swept already. */
static bool before(uintptr_t pc)
{
	for (unsigned i = 0; i < nswept; i++)
		if (swept[i] == pc)
			return true;
	if (nswept < STEPPER_MAX)
		swept[nswept++] = pc;
	return false;
}

static unsigned instructions[6];

static uint32_t prepare(const struct scenario *s)
{
	/* First visits make stubs, by a way of their own. */
	steps[0] = (struct step){TEXT, 0, 1};
	one_round(s, 0, SEEN, false);
	one_round(s, 0, BLOCKED, false);
	one_round(s, 0, VFORKED, false);
	return dry_run(s);
}

/* In turn: each instruction has a thread that runs there, one that is stopped, and two more. */
static unsigned some_ways(uint32_t step)
{
	static const enum way others[] = {HANDLER_SLEEPS, ALTERNATE_SLEEPS, BLOCKED_SLEEPS, JUMPS,
		HANDLER_SPINS, ALTERNATE_SPINS, ALTERNATE_JUMPS};

	return BIT(RUNS) | BIT(TRACED) | BIT(others[step % 7]) | BIT(others[(step / 7) % 7]);
}

static void sweep(const struct scenario *s, bool all)
{
	unsigned bad_before = bad, stops_before = stops;
	uint32_t n = prepare(s), rounds = 0;

	for (uint32_t i = 0; i < n; i++) {
		bool own = steps[i].where == DETOUR || steps[i].where == TEXT;
		bool known = !own && before(trace->pc[i]);

		instructions[steps[i].where] += !known;
		/* What handlers are is not ours: here and there will do. */
		if (!all && (known || (steps[i].where == CALLBACK && i % 8)))
			continue;
		rounds++;
		one_round(s, i, own || all ? SEEN : some_ways(i), i & 1);
		if (own || all || i % 8 == 0)
			one_round(s, i, BLOCKED, i & 8);
		if (own || all || i % 8 == 4)
			one_round(s, i, VFORKED, i & 8);
		if (own || all)
			one_round(s, i, SEEN, !(i & 1));
	}
	ok(n > 50 && bad == bad_before, "%s: %u of %u steps, %u stops: none wrong (%u)", s->name, rounds, n,
		stops - stops_before, bad - bad_before);
}

/* --- a neighbour comes -------------------------------------------------------------------------- */

#define IN_PRE (BIT(HANDLER_SLEEPS) | BIT(ALTERNATE_SLEEPS))

static void let_them_go(void)
{
	let_go(IN_PRE, IN_PRE);
}

/*
 * While threads that came by a jump over many instructions are in the handler, a probe is
 * registered at the second of those: the detour that will be theirs goes back to there, where
 * the jump still is. They go on when all but the text has been changed.
 */
static void neighbour(const struct scenario *s)
{
	struct shunt_probe next[WAYS], *list[WAYS];
	struct shunt_probe_result res;
	uint32_t n = prepare(s), step = 0;
	size_t k = 0;

	while (step < n && trace->pc[step] - (uintptr_t)pre >= 32)
		step++;
	round_step = step;
	register_all(s, IN_PRE);
	bring_there(IN_PRE, &steps[step]);
	hold_there(IN_PRE);
	for (unsigned w = 0; w < WAYS; w++) {
		if (!(IN_PRE & BIT(w)))
			continue;
		next[k] = probe_of(s, &victims[w], SHUNT_PROBE_GENERAL_REGS);
		next[k].addr = (void *)(victims[w].f + 1);
		next[k].ret = NULL;
		next[k].data = &next[k];
		list[k] = &next[k];
		k++;
	}
	shunt_probe_test_off |= SHUNT_PROBE_NO_SHARED;
	shunt_probe_test_between = let_them_go;
	if (shunt_probe_register_many(list, k, &res))
		unlikely_fail(res.reason);
	shunt_probe_test_between = NULL;
	shunt_probe_test_off &= ~SHUNT_PROBE_NO_SHARED;
	shunt_probe_unregister_many(list, k);
	shunt_probe_unregister_many(list, list_of(IN_PRE, false, list));
	look_after(IN_PRE);
	end_all(IN_PRE);
}

/* --- without one part of it ---------------------------------------------------------------------------- */

/*
 * `covered`: a thread may have another word on its stack, in the part of a signal's frame that
 * the kernel leaves as it was or in a frame's cell, that keeps the detour as well. Then
 * nothing goes wrong, and that says nothing.
 */
static const struct part {
	const char *name;
	unsigned probes, tasks; /* flags */
	unsigned scenario, where, ways;
	bool again, covered;
} parts[] = {
	{"pins", SHUNT_PROBE_NO_PIN, 0, 0, BIT(PERMANENT), BIT(TRACED), false, true},
	{"doorways", SHUNT_PROBE_NO_DOORWAY, 0, 0, BIT(PERMANENT), BIT(TRACED) | BIT(RUNS), false, false},
	{"waiting for handlers", SHUNT_PROBE_NO_WAIT, 0, 0, BIT(CALLBACK), BIT(HANDLER_SLEEPS), false, false},
	{"looking at retired detours", SHUNT_PROBE_NO_RETIRED, 0, 3, BIT(DETOUR),
		BIT(HANDLER_SLEEPS), true, true},
	{"looking between instructions", SHUNT_PROBE_NO_INSIDE, 0, 3, BIT(TEXT),
		BIT(ALTERNATE_SLEEPS) | BIT(TRACED), true, true},
	{"late tails", SHUNT_PROBE_EARLY_TAILS, 0, 2, 0, 0, false, false},
	{"reading stacks", 0, SHUNT_TASKS_NO_STACK, 0, BIT(DETOUR), BIT(HANDLER_SLEEPS), false, false},
	{"PCs", 0, SHUNT_TASKS_NO_PC, 0, BIT(DETOUR), BIT(RUNS) | BIT(TRACED), false, false},
	{"following signal frames", 0, SHUNT_TASKS_NO_FRAMES, 0, BIT(DETOUR) | BIT(PERMANENT),
		BIT(ALTERNATE_SLEEPS), false, false},
	{"care for vfork", 0, SHUNT_TASKS_NO_VFORK, 0, BIT(DETOUR), VFORKED, false, false},
};

/* Only until something is wrong; who executes what is gone dies. */
static int without(const struct part *p)
{
	const struct scenario *s = &scenarios[p->scenario];
	uint32_t n;

	if (!p->where) {
		neighbour(s);
		return bad != 0;
	}
	n = prepare(s);
	for (uint32_t i = 0; i < n && !bad; i++)
		if (p->where & BIT(steps[i].where))
			one_round(s, i, p->ways, p->again);
	return bad != 0;
}

/* In a process of its own: what it says is of no interest, that it fails is. */
static void must_fail(const struct part *p)
{
	const char *name = p->name;
	int status;
	pid_t pid = fork();

	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		if (!freopen("/dev/null", "w", stdout))
			_exit(0);
		execl("/proc/self/exe", "sweep", "without", name, NULL);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (p->covered && !status) {
		diag("without %s nothing goes wrong here", name);
		return;
	}
	ok(status != 0, "without %s it fails (%s %d)", name, WIFSIGNALED(status) ? "signal" : "exit",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void hangs(int sig)
{
	(void)sig;
	_exit(0);
}

static const struct part *part_of(const char *name)
{
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (!strcmp(parts[i].name, name))
			return &parts[i];
	unlikely_fail("no such part");
}

static void everything(bool all)
{
	unsigned before;

	for (size_t i = 0; i < SCENARIOS; i++)
		sweep(&scenarios[i], all);
	/*
	 * Not each time: the barrier at its end may wait for a word that an earlier call has
	 * left on this thread's stack and that looks like an address in a detour.
	 */
	before = bad;
	if (all)
		neighbour(&scenarios[2]);
	if (all)
		ok(bad == before, "a neighbour comes while threads are in the handler");
	diag("swept: %u instructions of detours, %u of permanent code, %u of the SIGTRAP handler, "
		"%u of the functions and %u of handlers, in %u contexts: %u stops (%u passed by), %lu hits",
		instructions[DETOUR], instructions[PERMANENT],
		instructions[TRAP] + instructions[SIGRETURN], instructions[TEXT],
		instructions[CALLBACK], (unsigned)__builtin_popcount(contexts), stops, missed, hits);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		must_fail(&parts[i]);
}

int main(int argc, char **argv)
{
	const struct part *part = argc > 2 ? part_of(argv[2]) : NULL;
	struct shunt_probe always = {.addr = (void *)(uintptr_t)sweep_other, .pre = pre};
	struct shunt_probe_result res;
	int r;

	trace = stepper_start();
	if (!trace)
		unlikely_fail("no stepper");
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	set_handlers();
	if (part && !strcmp(argv[1], "without")) {
		shunt_probe_test_off = part->probes;
		shunt_tasks_test_off = part->tasks;
		/* What hangs has not failed as it should. */
		signal(SIGALRM, hangs);
		alarm(60);
	}
	always.data = &always;
	if (shunt_probe_register(&always, &res))
		unlikely_fail(res.reason);
	r = part ? without(part) : 0;
	if (!part)
		everything(argc > 1 && !strcmp(argv[1], "all"));
	stepper_end();
	return part ? r : done();
}
