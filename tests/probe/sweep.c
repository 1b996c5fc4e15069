/* SPDX-License-Identifier: MIT */
/*
 * sweep.c [all | without NAME] - threads at every single instruction on the way from a
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
 * the care that is taken, and must fail: that is what the test runs itself for.
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

static void go_through(struct victim *v)
{
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

/* To the step; all of them are stopped there. */
static void bring_there(unsigned ways, uint32_t step)
{
	for (unsigned w = 0; w < WAYS; w++) {
		struct victim *v = &victims[w];

		if (!(ways & BIT(w)))
			continue;
		pthread_create(&v->thread, NULL, thread, v);
		await_flag(&v->ready);
		if (stepper_take(v->tid))
			unlikely_fail("the thread cannot be stepped");
		raise_flag(&v->start);
		v->pc = stepper_step(v->tid, step);
		if (!v->pc)
			wrong("%u: it is past the end", w);
	}
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

static void let_go(unsigned ways)
{
	disarm();
	if (ways & BIT(TRACED))
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
		if (v->place->retired || v->place->detour || v->place->tail || v->place->hook)
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

static void one_round(const struct scenario *s, uint32_t step, enum where where, unsigned ways,
	bool again)
{
	pthread_t taker;
	bool inside;

	round_name = s->name;
	round_step = step;
	ways &= ways_for(where);
	if (!ways)
		return;
	register_all(s, ways);
	bring_there(ways, step);
	hold_there(ways);
	inside = anybody_inside();
	taking.ways = ways;
	taking.done = 0;
	pthread_create(&taker, NULL, take_out, NULL);
	check_held(ways, where, inside);
	again = again && taking.done && come_again(s, ways);
	let_go(ways);
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

static struct stepper_trace *trace;
static enum where where_at[STEPPER_MAX];

static enum where where_is(uintptr_t pc, const struct victim *v)
{
	uintptr_t f = (uintptr_t)victims_long;

	if (pc - v->lo < v->hi - v->lo)
		return DETOUR;
	if (pc - f < 34 * 256)
		return TEXT;
	if (pc - (uintptr_t)pre < 256 || pc < (uintptr_t)__executable_start || pc >= (uintptr_t)etext)
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
		where_at[i] = where_is(trace->pc[i], v);
		arrived |= where_at[i] == DETOUR;
		if (!arrived && where_at[i] != TEXT)
			where_at[i] = TRAP;
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

static unsigned instructions[5];

static void sweep(const struct scenario *s, bool all)
{
	uint32_t n = dry_run(s), rounds = 0;
	unsigned bad_before = bad, stops_before = stops;

	for (uint32_t i = 0; i < n; i++) {
		bool own = where_at[i] == DETOUR || where_at[i] == TEXT;
		bool known = !own && before(trace->pc[i]);

		instructions[where_at[i]] += !known;
		if (known && !all)
			continue;
		one_round(s, i, where_at[i], SEEN, i & 1);
		if (own || all || i % 4 == 0)
			one_round(s, i, where_at[i], BLOCKED, i & 4);
		if (own || all || i % 4 == 2)
			one_round(s, i, where_at[i], VFORKED, i & 4);
		if (own || all)
			one_round(s, i, where_at[i], SEEN, !(i & 1));
		rounds++;
	}
	ok(n > 50 && bad == bad_before, "%s: %u of %u steps, %u stops: none wrong (%u)", s->name, rounds, n,
		stops - stops_before, bad - bad_before);
}

int main(int argc, char **argv)
{
	bool all = argc > 1 && !strcmp(argv[1], "all");
	struct shunt_probe always = {.addr = (void *)(uintptr_t)sweep_other, .pre = pre};
	struct shunt_probe_result res;

	trace = stepper_start();
	if (!trace)
		unlikely_fail("no stepper");
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	set_handlers();
	always.data = &always;
	if (shunt_probe_register(&always, &res))
		unlikely_fail(res.reason);
	for (size_t i = 0; i < SCENARIOS; i++)
		sweep(&scenarios[i], all);
	diag("swept: %u instructions of detours, %u of permanent code, %u of the SIGTRAP handler, "
		"%u of the functions and %u of handlers, in %u contexts: %u stops, %lu hits",
		instructions[DETOUR], instructions[PERMANENT], instructions[TRAP], instructions[TEXT],
		instructions[CALLBACK], __builtin_popcount(contexts), stops, hits);
	stepper_end();
	return done();
}
