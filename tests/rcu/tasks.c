/* SPDX-License-Identifier: MIT */
/*
 * tasks.c - each place where a thread can be (DESIGN's table), one by one: while it is
 * there the zone is kept, and once it has gone the zone is called back. And what the
 * functions promise besides.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "zone.h"
#include "rcu/tasks.h"

/* A place: in() stays inside until the flag `go`, having raised `there`. */
struct place {
	volatile uint32_t there, go, left;
	caller_fn zone;
	void (*in)(struct place *p);
	int tid;
};

static void stay(void *arg)
{
	struct place *p = arg;

	raise_flag(&p->there);
	await_flag(&p->go);
}

static void stay_spinning(void *arg)
{
	struct place *p = arg;

	raise_flag(&p->there);
	while (!__atomic_load_n(&p->go, __ATOMIC_ACQUIRE))
		;
}

static void asleep(struct place *p)
{
	p->zone(stay, p);
}

static void running(struct place *p)
{
	p->zone(stay_spinning, p);
}

/* --- signal handlers -------------------------------------------------------------------- */

static __thread struct place *mine;
static __thread void (*in_handler)(void *);

static void handler(int sig)
{
	(void)sig;
	in_handler(mine);
}

static void raise_usr1(void *arg)
{
	mine = arg;
	pthread_kill(pthread_self(), SIGUSR1);
}

static void with_handler(struct place *p, void (*f)(void *), bool alternate)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = alternate ? SA_ONSTACK : 0};
	stack_t ss = {.ss_sp = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};

	if (alternate)
		sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	in_handler = f;
	p->zone(raise_usr1, p);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	munmap(ss.ss_sp, ss.ss_size);
}

static void handler_asleep(struct place *p)
{
	with_handler(p, stay, false);
}

static void handler_running(struct place *p)
{
	with_handler(p, stay_spinning, false);
}

static void alternate_asleep(struct place *p)
{
	with_handler(p, stay, true);
}

static void alternate_running(struct place *p)
{
	with_handler(p, stay_spinning, true);
}

/* --- other places --------------------------------------------------------------------------- */

/* Its parent waits; the child returns from the callback, into the zone, and stays there. */
static void stay_in_child(void *arg)
{
	pid_t pid = vfork();

	if (!pid) {
		stay(arg);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void vforked(struct place *p)
{
	p->zone(stay_in_child, p);
}

static void block_all(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
}

static void blocked_running(struct place *p)
{
	block_all();
	p->zone(stay_spinning, p);
}

static void blocked_signals(struct place *p)
{
	block_all();
	p->zone(stay, p);
}

static void *thread(void *arg)
{
	struct place *p = arg;

	p->tid = (int)syscall(SYS_gettid);
	p->in(p);
	raise_flag(&p->left);
	return NULL;
}

static void one_place(const char *name, void (*in)(struct place *p))
{
	struct place p = {.in = in};
	struct visit v = {.zone.name = name}, other = {.zone.name = "other"};
	pthread_t t;

	p.zone = make_caller(&v.zone);
	make_caller(&other.zone);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	shunt_call_rcu_tasks(&other.head, &other.zone, visit_called);
	await_flag(&other.called); /* not delayed by the other's visitor */
	passes(3);
	ok(!v.called, "%s: the zone is kept while somebody is in it", name);
	raise_flag(&p.go);
	await_flag(&p.left);
	shunt_rcu_tasks_barrier();
	ok(v.called, "%s: and called back when nobody is", name);
	pthread_join(t, NULL);
}

/* Those hold up every zone: what is behind them is not seen. */
static void hold_all(const char *name, void (*in)(struct place *p))
{
	struct place p = {.in = in};
	struct visit v = {.zone.name = name};
	pthread_t t;
	uint64_t looks;

	p.zone = make_caller(&v.zone);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	looks = figures().tries;
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	while (figures().tries < looks + 3 && !v.called)
		sched_yield();
	ok(!v.called, "%s: the zone is kept while somebody is in it", name);
	raise_flag(&p.go);
	await_flag(&p.left);
	shunt_rcu_tasks_barrier();
	ok(v.called, "%s: and called back when nobody is", name);
	pthread_join(t, NULL);
}

/* --- coroutines ----------------------------------------------------------------------------- */

static ucontext_t outer, inner;
static char *inner_stack;
static volatile int switched_out, co_lives;
static caller_fn co_zone;

static void switch_out(void *arg)
{
	(void)arg;
	switched_out = 1;
	swapcontext(&inner, &outer);
	switched_out = 0;
}

static void co_main(void)
{
	co_lives = 1;
	co_zone(switch_out, NULL);
	co_lives = 0;
}

static void each(struct shunt_rcu_roots *r, void (*visit)(void *, uintptr_t, uintptr_t, uintptr_t),
	void *arg)
{
	uintptr_t lo = (uintptr_t)inner_stack;

	(void)r;
	if (co_lives)
		visit(arg, lo, lo + 65536, switched_out ? (uintptr_t)inner.uc_mcontext.gregs[REG_RSP] : 0);
}

static void start_coroutine(caller_fn zone)
{
	co_zone = zone;
	if (!inner_stack)
		inner_stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	getcontext(&inner);
	inner.uc_stack.ss_sp = inner_stack;
	inner.uc_stack.ss_size = 65536;
	inner.uc_link = &outer;
	makecontext(&inner, co_main, 0);
	swapcontext(&outer, &inner);
}

static void coroutine_roots(void)
{
	struct shunt_rcu_roots roots = {.each = each};
	struct visit v = {.zone.name = "a coroutine"};
	caller_fn zone = make_caller(&v.zone);

	start_coroutine(zone);
	shunt_rcu_tasks_roots_add(&roots);
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	passes(3);
	ok(!v.called, "a coroutine that is switched out in a zone keeps it");
	swapcontext(&outer, &inner);
	shunt_rcu_tasks_barrier();
	ok(v.called, "and no longer when it has left");
	ok(!shunt_rcu_tasks_roots_remove(&roots) &&
			shunt_rcu_tasks_roots_remove(&roots) == -ENOENT, "roots are removed once");
}

static void counts(void)
{
	struct visit v = {.zone.name = "counted"};

	make_caller(&v.zone);
	v.zone.begun = 8;
	v.zone.ended = 7;
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	passes(3);
	ok(!v.called, "a zone whose counts differ is kept");
	__atomic_store_n(&v.zone.ended, 8, __ATOMIC_RELEASE);
	shunt_rcu_tasks_barrier();
	ok(v.called, "and not when they are equal");
}

static void outside(struct place *p)
{
	stay(p);
}

/* One comes and goes while the others are looked at: the sums are equal, but others. */
static struct visit *counted;

static void count(int tid)
{
	(void)tid;
	if (counted && counted->zone.begun < 3) {
		counted->zone.begun++;
		counted->zone.ended++;
	}
}

static void counts_change(void)
{
	struct visit v = {.zone.name = "counting"};
	struct place p = {.in = outside};
	pthread_t t;
	uint64_t before;

	make_caller(&v.zone);
	/* Somebody to be looked at between the two. */
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	counted = &v;
	shunt_tasks_test_between = count;
	before = figures().passes;
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	shunt_rcu_tasks_barrier();
	shunt_tasks_test_between = NULL;
	raise_flag(&p.go);
	pthread_join(t, NULL);
	ok(v.called && figures().passes > before + 1,
		"a zone whose counts went on during a look is looked at again");
}

/* --- doorways, ranges, waiting ------------------------------------------------------------------ */

static void doorway(void)
{
	/* movl $1, (%rsi); 1: cmpl $0, (%rdi); je 1b; ret */
	static const uint8_t code[] = {0xc7, 0x06, 1, 0, 0, 0, 0x83, 0x3f, 0x00, 0x74, 0xfb, 0xc3};
	static uint8_t *page;
	static volatile uint32_t go, there;
	struct visit v = {.zone.name = "behind a doorway"};
	uint64_t tries;
	pid_t pid;
	int status;

	/* In a child: doorways are for good. */
	pid = fork();
	if (pid) {
		waitpid(pid, &status, 0);
		ok(!status, "in a doorway is in every zone, interrupted there too (%x)", status);
		return;
	}
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(page, code, sizeof code);
	shunt_tasks_doorway((uintptr_t)page, (uintptr_t)page + sizeof code);
	make_caller(&v.zone);
	{
		pthread_t t;
		void *(*f)(void *);
		uint8_t *stub = page + 64;
		uint32_t *flags[2] = {(uint32_t *)&go, (uint32_t *)&there};

		/* mov $go, %rdi; mov $there, %rsi; jmp page */
		memcpy(stub, (const uint8_t[]){0x48, 0xbf}, 2);
		memcpy(stub + 2, &flags[0], 8);
		memcpy(stub + 10, (const uint8_t[]){0x48, 0xbe}, 2);
		memcpy(stub + 12, &flags[1], 8);
		memcpy(stub + 20, (const uint8_t[]){0xe9, 0, 0, 0, 0}, 5);
		memcpy(stub + 21, &(int32_t){(int32_t)(page - (stub + 25))}, 4);
		memcpy(&f, &stub, sizeof f);
		pthread_create(&t, NULL, f, NULL);
		while (!there)
			sched_yield();
		tries = figures().tries;
		shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
		while (figures().tries < tries + 3 && !v.called)
			sched_yield();
		status = v.called ? 1 : 0;
		go = 1;
		pthread_join(t, NULL);
	}
	shunt_rcu_tasks_barrier();
	_exit(status + 2 * !v.called);
}

#define RANGES 20000

static void ranges(void)
{
	static struct shunt_range r[RANGES];
	static uint8_t hit[RANGES];
	struct shunt_zone z = {.name = "ranges"};
	struct place p = {.in = asleep};
	uintptr_t here = (uintptr_t)&ranges;
	pthread_t t;
	size_t hits = 0;
	int first, second;

	shunt_code_alloc(&z, here, here + 1, RANGES * 64);
	for (size_t i = 0; i < RANGES; i++)
		r[i] = (struct shunt_range){z.start + i * 64, z.start + i * 64 + 20};
	shunt_code_write(&z, 777 * 64, caller_code, sizeof caller_code);
	p.zone = (caller_fn)(z.start + 777 * 64);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	first = shunt_tasks_ranges_clear(r, RANGES, hit, 30);
	for (size_t i = 0; i < RANGES; i++)
		hits += hit[i];
	raise_flag(&p.go);
	await_flag(&p.left);
	second = shunt_tasks_ranges_clear(r, RANGES, hit, 10000);
	pthread_join(t, NULL);
	ok(first == -EAGAIN && hits == 1, "of %d ranges the one that is visited is marked (%d, %zu)",
		RANGES, first, hits);
	ok(!second && !memchr(hit, 1, RANGES), "and none when it is not (%d)", second);
	r[1].start = r[0].start;
	ok(shunt_tasks_ranges_clear(r, RANGES, hit, 0) == -EINVAL, "ranges must be sorted");
	ok(!shunt_code_free(&z), "20000 ranges' memory is freed as one");
}

static int inside_says;

static void wait_inside(void *arg)
{
	(void)arg;
	inside_says = shunt_synchronize_rcu_tasks();
}

static void *synchronize(void *arg)
{
	inside_says = shunt_synchronize_rcu_tasks();
	raise_flag(arg);
	return NULL;
}

static void synchronizing(void)
{
	struct shunt_zone z = {.name = "synchronized"};
	struct place p = {.in = asleep};
	volatile uint32_t back = 0;
	uint64_t tries;
	pthread_t t, w;

	p.zone = make_caller(&z);
	p.zone(wait_inside, NULL);
	ok(inside_says == -EDEADLK, "who is in a zone cannot wait for all to be out (%d)", inside_says);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	tries = figures().tries;
	pthread_create(&w, NULL, synchronize, (void *)(uintptr_t)&back);
	while (figures().tries < tries + 3)
		sched_yield();
	ok(!back, "synchronize waits for who is in a zone");
	raise_flag(&p.go);
	await_flag(&back);
	pthread_join(t, NULL);
	pthread_join(w, NULL);
	ok(!inside_says, "and comes back when nobody is");
	shunt_code_free(&z);
}

/* --- callbacks ------------------------------------------------------------------------------------ */

static int barrier_says;
static struct visit again;

static void call_again(struct shunt_rcu_head *head)
{
	barrier_says = shunt_rcu_tasks_barrier();
	shunt_call_rcu_tasks(&again.head, &again.zone, visit_called);
	visit_called(head);
}

static void callbacks(void)
{
	static struct visit many[1000];
	struct visit v = {.zone.name = "again"};
	uint64_t before;
	unsigned called = 0;

	make_caller(&v.zone);
	make_caller(&again.zone);
	shunt_call_rcu_tasks(&v.head, &v.zone, call_again);
	shunt_rcu_tasks_barrier();
	ok(v.called && barrier_says == -EDEADLK, "a callback cannot wait for callbacks");
	await_flag(&again.called);
	ok(1, "a callback hands in another");
	for (int i = 0; i < 1000; i++)
		make_caller(&many[i].zone);
	before = figures().passes;
	for (int i = 0; i < 1000; i++)
		shunt_call_rcu_tasks(&many[i].head, &many[i].zone, visit_called);
	shunt_rcu_tasks_barrier();
	for (int i = 0; i < 1000; i++)
		called += many[i].called;
	before = figures().passes - before;
	ok(called == 1000 && before < 50, "1000 callbacks, %lu passes", (unsigned long)before);
	ok(shunt_call_rcu_tasks(&v.head, &v.zone, NULL) == -EINVAL, "no function is refused");
	v.zone.end = v.zone.start;
	ok(shunt_call_rcu_tasks(&v.head, &v.zone, visit_called) == -EINVAL, "an empty zone, too");
}

/* --- idle threads ---------------------------------------------------------------------------------- */

static volatile uint32_t idle_ready, idle_eintr;

static void *idle(void *arg)
{
	struct timespec t = {.tv_sec = 1000};
	int fd[2], r = 0;

	if (pipe(fd))
		unlikely_fail("pipe");
	(*(int *)arg) = fd[1];
	__atomic_add_fetch(&idle_ready, 1, __ATOMIC_SEQ_CST);
	/* What no SA_RESTART restarts. */
	r = (int)syscall(SYS_ppoll, &(struct pollfd){.fd = fd[0], .events = POLLIN}, 1L, &t,
		NULL, 8L, 0L);
	if (r < 0 && errno == EINTR)
		__atomic_add_fetch(&idle_eintr, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* All of them sleep in the system call that they were to sleep in. */
static bool all_in_poll(const int *tid, int n)
{
	char path[64], buf[256];

	for (int i = 0; i < n; i++) {
		FILE *f;
		bool in;

		snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid[i]);
		f = fopen(path, "r");
		in = f && fgets(buf, sizeof buf, f) && !strncmp(buf, "271 ", 4);
		if (f)
			fclose(f);
		if (!in)
			return false;
	}
	return true;
}

static int idle_tids[16], idle_fds[16];

static void *idle_with_tid(void *arg)
{
	idle_tids[(int *)arg - idle_fds] = (int)syscall(SYS_gettid);
	return idle(arg);
}

static void idle_threads(void)
{
	struct visit v;
	pthread_t t[16];
	uint64_t signals;

	for (int i = 0; i < 16; i++)
		pthread_create(&t[i], NULL, idle_with_tid, &idle_fds[i]);
	while (idle_ready < 16 || !all_in_poll(idle_tids, 16))
		sched_yield();
	signals = figures().signals;
	for (int i = 0; i < 100; i++) {
		memset(&v, 0, sizeof v);
		make_caller(&v.zone);
		shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
		shunt_rcu_tasks_barrier();
		shunt_code_free(&v.zone);
	}
	diag("100 grace periods, 16 idle threads: %lu signals", (unsigned long)(figures().signals - signals));
	for (int i = 0; i < 16; i++)
		if (write(idle_fds[i], "", 1) != 1)
			unlikely_fail("write");
	for (int i = 0; i < 16; i++)
		pthread_join(t[i], NULL);
	ok(!idle_eintr, "no system call of an idle thread is interrupted (%u)", idle_eintr);
}

/* --- fork, and a main thread that has ended ---------------------------------------------------------- */

static void forks(void)
{
	struct place p = {.in = asleep};
	struct visit v = {.zone.name = "forked"};
	pthread_t t;
	int status;
	pid_t pid;

	p.zone = make_caller(&v.zone);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	passes(1);
	pid = fork();
	if (!pid) {
		/* The visitor is not there any more. */
		alarm(20);
		shunt_rcu_tasks_barrier();
		_exit(!v.called);
	}
	waitpid(pid, &status, 0);
	ok(!status, "what waits in the parent waits in the child, and is called back (%x)", status);
	ok(!v.called, "and in the parent as it was");
	raise_flag(&p.go);
	pthread_join(t, NULL);
	shunt_rcu_tasks_barrier();
}

/* Forks at any moment of other threads' grace periods. */
static volatile int churning;

static void *churn(void *arg)
{
	struct shunt_zone z;

	while (churning) {
		memset(&z, 0, sizeof z);
		make_caller(&z);
		shunt_code_free(&z);
	}
	return arg;
}

static int in_fork_child(void)
{
	struct visit v = {.zone.name = "in a child"};

	alarm(20);
	make_caller(&v.zone);
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	shunt_rcu_tasks_barrier();
	return v.called && !shunt_synchronize_rcu_tasks() ? 0 : 1;
}

static void fork_storm(void)
{
	pthread_t t[2];
	int bad = 0, status;

	churning = 1;
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, churn, NULL);
	for (int i = 0; i < 60; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(in_fork_child());
		waitpid(pid, &status, 0);
		bad += status != 0;
	}
	churning = 0;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	ok(!bad, "60 forks amid grace periods: each child has its own (%d)", bad);
}

static void *goes_on(void *arg)
{
	struct visit v = {.zone.name = "after main"};

	pthread_join(*(pthread_t *)arg, NULL);
	make_caller(&v.zone);
	shunt_call_rcu_tasks(&v.head, &v.zone, visit_called);
	shunt_rcu_tasks_barrier();
	_exit(v.called && !shunt_synchronize_rcu_tasks() ? 0 : 1);
}

static void main_ends(void)
{
	static pthread_t self;
	pthread_t t;
	int status;
	pid_t pid = fork();

	if (!pid) {
		alarm(20);
		self = pthread_self();
		pthread_create(&t, NULL, goes_on, &self);
		pthread_exit(NULL);
	}
	waitpid(pid, &status, 0);
	ok(!status, "grace periods end after the main thread has (%x)", status);
}

/* --- reports, limits, memory ---------------------------------------------------------------------------- */

static char said[512];
static volatile uint32_t has_said;

static void listen_to(enum shunt_log_level level, const char *message)
{
	(void)level;
	if (!has_said && strstr(message, "a long visit")) {
		strncpy(said, message, sizeof said - 1);
		raise_flag(&has_said);
	}
}

static void stalls(void)
{
	struct place p = {.in = asleep};
	struct shunt_zone z = {.name = "a long visit"}, other = {0};
	char tid[32];
	uintptr_t here = (uintptr_t)&stalls;
	pthread_t t;

	p.zone = make_caller(&z);
	pthread_create(&t, NULL, thread, &p);
	await_flag(&p.there);
	shunt_set_log(listen_to, SHUNT_LOG_WARNING);
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_STALL_MS, 1);
	shunt_code_free(&z);
	await_flag(&has_said);
	snprintf(tid, sizeof tid, "thread %d ", p.tid);
	ok(strstr(said, tid) && strstr(said, "PC 0x"), "a report names the thread: %s", said);
	ok(figures().stalled_tid == p.tid && figures().stalls, "the figures do too");
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_STALL_MS, 0);
	shunt_set_log(NULL, SHUNT_LOG_WARNING);
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_HELD_MAX, 32);
	ok(shunt_code_alloc(&other, here, here + 1, 64) == -ENOMEM && figures().held_bytes >= 64,
		"memory that waits is bounded, and shown");
	ok(*(uint8_t *)z.start == caller_code[0], "and not touched");
	raise_flag(&p.go);
	pthread_join(t, NULL);
	while (figures().held_bytes)
		passes(1);
	ok(!shunt_code_alloc(&other, here, here + 1, 64), "and there when it has been freed");
	ok(*(uint8_t *)z.start == 0xcc, "freed code is breakpoints");
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_HELD_MAX, 64 << 20);
	shunt_code_free(&other);
}

static void memory(void)
{
	struct shunt_zone z = {.name = "memory"}, part, next = {0};
	uintptr_t here = (uintptr_t)&memory;
	uint8_t byte = 0x90;
	char line[256], perms[8] = "";
	unsigned long lo, hi;
	FILE *f;

	ok(!shunt_code_alloc(&z, here, here + 1, 1000) && z.end - z.start == 1000 &&
			z.start % 64 == 0, "memory, aligned");
	ok(z.start - here + 0x7fff0000ul < 0xfffe0000ul, "within reach");
	ok(*(uint8_t *)z.start == 0xcc, "of breakpoints");
	ok(!shunt_code_write(&z, 999, &byte, 1) && *(uint8_t *)(z.start + 999) == 0x90, "written");
	ok(shunt_code_write(&z, 1000, &byte, 1) == -ERANGE, "not behind its end");
	f = fopen("/proc/self/maps", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %7s", &lo, &hi, perms) == 3 && z.start >= lo && z.start < hi)
			break;
	if (f)
		fclose(f);
	ok(!strncmp(perms, "r-x", 3), "never writable and executable (%s)", perms);
	part = z;
	part.start += 128;
	part.end = part.start + 64;
	ok(!shunt_code_free(&part), "a part is freed");
	ok(shunt_code_free(&part) == -EINVAL, "once");
	ok(shunt_code_free(&z) == -EINVAL, "nor is the whole");
	ok(shunt_code_write(&part, 0, &byte, 1) == -EINVAL, "nor written to");
	part.start += 1;
	ok(shunt_code_free(&part) == -EINVAL, "nor askew");
	while (figures().held_bytes)
		passes(1);
	/* The lowest ones that are free come first. */
	for (int i = 0; i < 5000 && next.start != z.start + 128; i++)
		if (shunt_code_alloc(&next, here, here + 1, 64))
			break;
	ok(next.start == z.start + 128 && *(uint8_t *)next.start == 0xcc, "and used again");
	ok(shunt_code_alloc(&next, here, here + 1, 0) == -EINVAL &&
			shunt_code_alloc(&next, here, here, 8) == -EINVAL, "nothing is refused");
}

/* --- the program's own signals ------------------------------------------------------------------------------ */

static volatile uint32_t own;

static void own_handler(int sig)
{
	(void)sig;
	own++;
}

static void shared_signal(void)
{
	struct sigaction sa = {.sa_handler = own_handler}, now;
	int first = figures().signal;

	/* One that we chose and the program takes: it is the program's. */
	sigaction(first, &sa, NULL);
	one_place("a running visitor, our signal taken by the program", running);
	ok(figures().signal && figures().signal != first, "another signal is found");
	raise(first);
	ok(own == 1, "and the program's handler stays");
	/* One that it has and we are told to share. */
	sigaction(SIGURG, &sa, NULL);
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_SIGNAL, SIGURG);
	one_place("a running visitor, a shared signal", running);
	sigaction(SIGURG, NULL, &now);
	raise(SIGURG);
	ok(figures().signal == SIGURG && now.sa_handler != own_handler && own == 2,
		"a signal is shared with the program's handler");
	ok(shunt_rcu_tasks_set(SHUNT_RCU_TASKS_SIGNAL, SIGKILL) == -EINVAL, "but not SIGKILL");
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_SIGNAL, 0);
}

int main(void)
{
	one_place("asleep in a callback", asleep);
	one_place("running in a callback", running);
	one_place("a handler asleep", handler_asleep);
	one_place("a handler running", handler_running);
	one_place("a handler asleep on another stack", alternate_asleep);
	one_place("a handler running on another stack", alternate_running);
	one_place("asleep, signals blocked", blocked_signals);
	hold_all("running, signals blocked", blocked_running);
	hold_all("a vfork child", vforked);
	coroutine_roots();
	counts();
	counts_change();
	doorway();
	ranges();
	synchronizing();
	callbacks();
	idle_threads();
	forks();
	fork_storm();
	main_ends();
	stalls();
	memory();
	shared_signal();
	return done();
}
