/* SPDX-License-Identifier: MIT */
/*
 * sweep.c - generated code as the library makes it, swept (sweep.h); and that the
 * sweep sees it when any one part of the looking is left out.
 *
 * An argument (a number) repeats it all as often.
 */
#include "sweep.h"
#include "text/maps.h"

/* Permanent code that the zones go on to. */
void sweep_back(void);
void sweep_leaf_spins(void);
void sweep_leaf_reads(void);
extern volatile uint32_t sweep_leaf_there, sweep_leaf_go;
extern int sweep_leaf_fd;
__asm__(".text\n"
	"sweep_back: ret\n"
	/* An address of the zone is in %r8 only. */
	"sweep_leaf_spins: movl $1, sweep_leaf_there(%rip)\n"
	"1: cmpl $0, sweep_leaf_go(%rip)\n"
	"je 1b\n"
	"jmp *%r8\n"
	"sweep_leaf_reads: sub $8, %rsp\n"
	"movl $1, sweep_leaf_there(%rip)\n"
	"xor %eax, %eax\n"
	"mov sweep_leaf_fd(%rip), %edi\n"
	"mov %rsp, %rsi\n"
	"mov $1, %edx\n"
	"syscall\n"
	"add $8, %rsp\n"
	"jmp *%r8\n"
	".data\n"
	"sweep_leaf_there: .long 0\nsweep_leaf_go: .long 0\nsweep_leaf_fd: .long 0\n"
	".text\n");

struct maker {
	uint8_t code[256];
	size_t n;
};

static void bytes(struct maker *m, const void *b, size_t n)
{
	memcpy(m->code + m->n, b, n);
	m->n += n;
}

#define B(m, ...) bytes(m, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void load_rax(struct maker *m, const void *p)
{
	B(m, 0x48, 0xb8);
	bytes(m, &p, 8);
}

static void jump_back(struct maker *m, uintptr_t start, void (*to)(void))
{
	int32_t rel = (int32_t)((uintptr_t)to - (start + m->n + 5));

	B(m, 0xe9);
	bytes(m, &rel, 4);
}

static int place_code(struct shunt_zone *zone, void (*fill)(struct maker *m, uintptr_t start))
{
	struct maker m = {.n = 0};
	uintptr_t near = (uintptr_t)&sweep_back;
	int r = shunt_code_alloc(zone, near, near + 1, sizeof m.code);

	if (r)
		return r;
	fill(&m, zone->start);
	return shunt_code_write(zone, 0, m.code, m.n);
}

/* A probe's detour: everything saved, a callback, two displaced instructions, and back. */
static void fill_detour(struct maker *m, uintptr_t start)
{
	B(m, 0x48, 0x8d, 0x64, 0x24, 0x80); /* lea -128(%rsp), %rsp: the red zone */
	B(m, 0x9c);			    /* pushfq */
	for (int r = 0; r < 8; r++)
		if (r != 4)
			B(m, (uint8_t)(0x50 + r));
	for (int r = 0; r < 8; r++)
		B(m, 0x41, (uint8_t)(0x50 + r));
	B(m, 0x48, 0x89, 0xe5);	      /* mov %rsp, %rbp */
	B(m, 0x48, 0x83, 0xe4, 0xf0); /* and $-16, %rsp */
	load_rax(m, (void *)(uintptr_t)sweep_callback);
	B(m, 0xff, 0xd0);	/* call *%rax */
	B(m, 0x48, 0x89, 0xec); /* mov %rbp, %rsp */
	for (int r = 8; r-- > 0;)
		B(m, 0x41, (uint8_t)(0x58 + r));
	for (int r = 8; r-- > 0;)
		if (r != 4)
			B(m, (uint8_t)(0x58 + r));
	B(m, 0x9d);					/* popfq */
	B(m, 0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0);	/* lea 128(%rsp), %rsp */
	B(m, 0x48, 0x8d, 0x04, 0x3f);			/* lea (%rdi,%rdi), %rax */
	B(m, 0x48, 0x83, 0xc0, 0x01);			/* add $1, %rax */
	jump_back(m, start, sweep_back);
}

/* A slot as the function tracer has them: counts in, calls, counts out, returns. */
static uint64_t count_in, count_out;

static void fill_counting(struct maker *m, uintptr_t start)
{
	(void)start;
	B(m, 0x53); /* push %rbx */
	load_rax(m, &count_in);
	B(m, 0xf0, 0x48, 0xff, 0x00); /* lock incq (%rax) */
	load_rax(m, (void *)(uintptr_t)sweep_callback);
	B(m, 0xff, 0xd0); /* call *%rax */
	load_rax(m, &count_out);
	B(m, 0xf0, 0x48, 0xff, 0x00);
	B(m, 0x5b); /* pop %rbx */
	B(m, 0xc3);
}

/* Writes over where its return address was: only the PC tells. */
#define OVERWRITTEN_AT 21
static void fill_overwriting(struct maker *m, uintptr_t start)
{
	(void)start;
	B(m, 0x48, 0x83, 0xec, 0x08); /* sub $8, %rsp */
	load_rax(m, (void *)(uintptr_t)sweep_callback);
	B(m, 0xff, 0xd0); /* call *%rax */
	B(m, 0x31, 0xc0); /* xor %eax, %eax */
	B(m, 0x50);	  /* push %rax */
	B(m, 0x50);	  /* push %rax */
	B(m, 0x90);	  /* 20 */
	B(m, 0x90, 0x90); /* 21: held here */
	B(m, 0x58, 0x58);
	B(m, 0x48, 0x83, 0xc4, 0x08);
	B(m, 0xc3);
}

/* lea 1f(%rip), %r8; mov $leaf, %rax; jmp *%rax; 1: ret */
static void (*leaf)(void);
static void fill_leaf(struct maker *m, uintptr_t start)
{
	(void)start;
	B(m, 0x4c, 0x8d, 0x05, 12, 0, 0, 0);
	load_rax(m, (void *)(uintptr_t)leaf);
	B(m, 0xff, 0xe0);
	B(m, 0xc3);
}

static int make_any(struct sweep *s, struct shunt_zone *zone)
{
	void (*fill)(struct maker *, uintptr_t) = *(void (**)(struct maker *, uintptr_t))s->arg;

	return place_code(zone, fill);
}

static void run_any(struct sweep *s)
{
	((long (*)(long))s->zone.start)(21);
}

static void (*const fills[])(struct maker *, uintptr_t) = {
	fill_detour, fill_counting, fill_overwriting};
static const char *const names[] = {"a detour", "a counting trampoline", "an overwriting one"};

static unsigned sweep_number(unsigned which, unsigned ways, struct sweep *s)
{
	*s = (struct sweep){.name = names[which], .make = make_any, .run = run_any,
		.arg = (void *)(uintptr_t)&fills[which]};
	return sweep(s, ways);
}

/* --- an address in a register, and one that moves while it is looked at --------------------- */

static void *leaf_thread(void *start)
{
	((void (*)(void))(uintptr_t)start)();
	sweep_wipe();
	raise_flag(&sweep_now.left);
	return NULL;
}

static bool leaf_early(bool reads)
{
	struct visit v = {.zone.name = "an address in a register"};
	int fd[2];
	pthread_t t;
	bool early;

	if (pipe(fd))
		unlikely_fail("pipe");
	leaf = reads ? sweep_leaf_reads : sweep_leaf_spins;
	sweep_leaf_there = sweep_leaf_go = 0;
	sweep_leaf_fd = fd[0];
	sweep_now.left = 0;
	if (place_code(&v.zone, fill_leaf))
		unlikely_fail("leaf");
	pthread_create(&t, NULL, leaf_thread, (void *)v.zone.start);
	while (!sweep_leaf_there)
		sched_yield();
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	sweep_tries(&v);
	early = v.called;
	sweep_leaf_go = 1;
	if (write(fd[1], "", 1) != 1)
		unlikely_fail("write");
	pthread_join(t, NULL);
	shunt_rcu_tasks_barrier();
	shunt_code_release(v.zone.start, v.zone.end);
	close(fd[0]);
	close(fd[1]);
	return early || !v.called;
}

static volatile int moves;

static void move(int tid)
{
	static const uint8_t self[] = {0xeb, 0xfe};

	if (tid != sweep_now.tid || !__atomic_exchange_n(&moves, 0, __ATOMIC_SEQ_CST))
		return;
	sweep_now.at = sweep_now.s->zone.start + OVERWRITTEN_AT;
	sweep_write(sweep_now.at, self, 2);
	raise_flag(&sweep_now.go);
	sweep_reach(sweep_now.at);
}

static bool moved_early(void)
{
	static const uint8_t nops[] = {0x90, 0x90};
	struct visit v = {.zone.name = "one that moves"};
	struct sweep s = {.name = "one that moves", .arg = (void *)(uintptr_t)&fills[2]};
	pthread_t t;
	bool early;
	void *stack = sweep_stack();

	s.make = make_any;
	s.run = run_any;
	sweep_now.s = &s;
	sweep_now.way = SWEEP_CALLBACK_SLEEPS;
	sweep_now.there = sweep_now.go = sweep_now.left = sweep_now.end = 0;
	sweep_now.tid = 0;
	if (s.make(&s, &s.zone))
		unlikely_fail("make");
	pthread_create(&t, NULL, sweep_thread, stack);
	await_flag(&sweep_now.there);
	/* It sleeps, or will when it is looked at again. */
	moves = 1;
	shunt_tasks_test_between = move;
	v.zone.start = s.zone.start;
	v.zone.end = s.zone.end;
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	while (moves)
		sched_yield();
	sweep_tries(&v);
	early = v.called;
	shunt_tasks_test_between = NULL;
	sweep_write(sweep_now.at, nops, 2);
	await_flag(&sweep_now.left);
	shunt_rcu_tasks_barrier();
	raise_flag(&sweep_now.end);
	pthread_join(t, NULL);
	shunt_code_release(s.zone.start, s.zone.end);
	return early || !v.called;
}

/* --- all of it --------------------------------------------------------------------------------- */

static void everything(void)
{
	struct sweep s;
	unsigned instructions = 0, stops = 0;

	for (unsigned i = 0; i < sizeof fills / sizeof *fills; i++) {
		unsigned bad = sweep_number(i, SWEEP_ALL, &s);

		ok(s.instructions > 8 && !bad, "%s: %u instructions in %u ways, %u stops: none wrong (%u)",
			s.name, s.instructions, s.ways, s.stops, bad);
		instructions += s.instructions;
		stops += s.stops;
	}
	diag("swept: %u instructions, %u contexts, %u stops", instructions, SWEEP_WAYS, stops);
	ok(!leaf_early(false), "an address in a register of a running thread");
	ok(!leaf_early(true), "an address in a register of a sleeping thread");
	ok(!moved_early(), "a thread that goes on while it is looked at");
}

/* Other ways of asking the kernel are as good. */
static void otherwise(const char *name, unsigned flag, bool table)
{
	struct sweep s;
	unsigned bad;

	shunt_tasks_test_off = flag;
	shunt_maps_never_query = table;
	bad = sweep_number(1, 1u << SWEEP_RUNS | 1u << SWEEP_TRACED | 1u << SWEEP_ALTERNATE_SLEEPS |
				      1u << SWEEP_CALLBACK_SLEEPS | 1u << SWEEP_CALLBACK_SPINS, &s);
	ok(!bad && !moved_early(), "%s: %u stops, none wrong (%u)", name, s.stops, bad);
	shunt_tasks_test_off = 0;
	shunt_maps_never_query = false;
}

/* Each part of the looking is needed. */
static void without(const char *name, unsigned flag, unsigned ways)
{
	struct sweep s = {.name = name};
	unsigned bad = 0;

	shunt_tasks_test_off = flag;
	/* On a busy machine a thread may not get its turn to be looked at. */
	for (int i = 0; i < 50 && !bad; i++) {
		if (flag == SHUNT_TASKS_NO_RECHECK)
			bad = moved_early();
		else if (flag == SHUNT_TASKS_NO_REGISTERS)
			bad = leaf_early(false) && leaf_early(true);
		else
			bad = sweep_number(1, ways, &s);
	}
	shunt_tasks_test_off = 0;
	ok(bad, "without %s the sweep fails (%u)", name, bad);
}

int main(int argc, char **argv)
{
	int times = argc > 1 ? atoi(argv[1]) : 1;

	while (times-- > 0)
		everything();
	otherwise("without schedstat", SHUNT_TASKS_NO_SCHEDSTAT, false);
	otherwise("without process_vm_readv", SHUNT_TASKS_NO_READV, false);
	otherwise("with a table of mappings", 0, true);
	without("reading stacks", SHUNT_TASKS_NO_STACK, 1u << SWEEP_CALLBACK_SLEEPS);
	without("PCs", SHUNT_TASKS_NO_PC, 1u << SWEEP_RUNS | 1u << SWEEP_TRACED);
	without("following signal frames", SHUNT_TASKS_NO_FRAMES, 1u << SWEEP_CALLBACK_ALTERNATE);
	without("registers", SHUNT_TASKS_NO_REGISTERS, 0);
	without("care for vfork", SHUNT_TASKS_NO_VFORK, 1u << SWEEP_VFORK);
	without("a look whether it has run", SHUNT_TASKS_NO_RECHECK, 0);
	return done();
}
