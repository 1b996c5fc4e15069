/* SPDX-License-Identifier: MIT */
/*
 * zones.c - code is made, put in place of other code, and the other freed and used
 * again, while more threads than processors run it, asleep and awake, under a timer's
 * signals, which run it too, and threads come and go. Freed memory is int3: who
 * is still there dies; who is in code that has been made anew gets another's number.
 * The threads enter through permanent code that takes the address from a table, a
 * doorway.
 *
 *   torture [rounds]    default 100000; scripts/check --long: 10000000
 *
 * That the test can fail is tested: without waiting a child dies.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "zone.h"
#include "rcu/tasks.h"

#define SLOTS	32
#define THREADS 6

long torture_enter(long slot);
extern char torture_enter_end[];
extern void *volatile torture_slots[SLOTS];
void *volatile torture_slots[SLOTS];
__asm__(".text\n"
	"torture_enter: lea torture_slots(%rip), %rax\n"
	"mov (%rax,%rdi,8), %rax\n"
	"mov $40, %ecx\n" /* a wide doorway */
	"1: dec %ecx\n"
	"jnz 1b\n"
	"jmp *%rax\n"
	"torture_enter_end:\n");

static volatile int stop;
static volatile unsigned long entered, wrong;

static void callback(long slot)
{
	if (slot % 8 == 1)
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	else if (slot % 8 == 2)
		sched_yield();
	else
		for (volatile int i = 0; i < 50; i++)
			;
}

/* push %rdi; mov $callback, %rax; call *%rax; pop %rdi; mov $number, %eax; ret */
static void make(struct shunt_zone *z, unsigned slot)
{
	uint8_t code[] = {0x57, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5f,
		0xb8, 0, 0, 0, 0, 0xc3};
	void (*cb)(long) = callback;
	uintptr_t near = (uintptr_t)&torture_enter;
	int r;

	memcpy(code + 3, &cb, 8);
	memcpy(code + 15, &slot, 4);
	while ((r = shunt_code_alloc(z, near, near + 1, 40 + slot * 8)) == -ENOMEM)
		sched_yield(); /* too much is waiting */
	if (r || shunt_code_write(z, 0, code, sizeof code))
		unlikely_fail("no code memory");
}

static void go_through(unsigned *seed)
{
	unsigned slot = (*seed = *seed * 1103515245 + 12345) >> 16 & (SLOTS - 1);

	if (torture_enter(slot) != (long)slot)
		wrong++;
	entered++;
}

static void tick(int sig)
{
	static unsigned seed = 7;

	(void)sig;
	go_through(&seed);
}

static void *runner(void *arg)
{
	static __thread char alternate[65536];
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate};
	unsigned seed = (unsigned)(uintptr_t)arg;

	sigaltstack(&ss, NULL);
	while (!stop)
		go_through(&seed);
	return NULL;
}

static void *short_lived(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 20; i++)
		go_through(&seed);
	return NULL;
}

static void *maker_of_threads(void *arg)
{
	pthread_t t;

	for (uintptr_t i = 0; !stop; i++) {
		pthread_create(&t, NULL, short_lived, (void *)i);
		pthread_join(t, NULL);
	}
	return arg;
}

static void torture(unsigned long rounds, bool wait)
{
	struct itimerval every = {{0, 2000}, {0, 2000}}, none = {{0, 0}, {0, 0}};
	struct sigaction sa = {.sa_handler = tick, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct shunt_zone zone[SLOTS] = {0};
	pthread_t t[THREADS + 1];

	for (unsigned i = 0; i < SLOTS; i++) {
		make(&zone[i], i);
		torture_slots[i] = (void *)zone[i].start;
	}
	shunt_tasks_doorway((uintptr_t)torture_enter, (uintptr_t)torture_enter_end);
	shunt_rcu_tasks_set(SHUNT_RCU_TASKS_HELD_MAX, 256 << 10);
	sigaction(SIGALRM, &sa, NULL);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, runner, (void *)(i + 1));
	pthread_create(&t[THREADS], NULL, maker_of_threads, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (unsigned long n = 0; n < rounds; n++) {
		unsigned slot = n * 7 % SLOTS;
		struct shunt_zone old = zone[slot];

		make(&zone[slot], slot);
		torture_slots[slot] = (void *)zone[slot].start;
		if (wait ? shunt_code_free(&old) : shunt_code_release(old.start, old.end))
			unlikely_fail("free");
	}
	setitimer(ITIMER_REAL, &none, NULL);
	stop = 1;
	for (int i = 0; i <= THREADS; i++)
		pthread_join(t[i], NULL);
}

/* A child that does not wait: how it ends. */
static bool dies(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		torture(100000, false);
		_exit(wrong != 0);
	}
	waitpid(pid, &status, 0);
	diag("without waiting the child %s %d", WIFSIGNALED(status) ? "died of signal" : "ended with",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return WIFSIGNALED(status) || WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
	struct shunt_rcu_tasks_stats s;

	ok(dies(), "without waiting somebody runs freed code");
	torture(rounds, true);
	s = figures();
	diag("%lu entries, %lu passes, %lu threads looked at, %lu signals, %lu kB of code",
		entered, (unsigned long)s.passes, (unsigned long)s.threads,
		(unsigned long)s.signals, (unsigned long)s.code_bytes / 1024);
	ok(entered && !wrong, "%lu rounds: nobody runs freed code (%lu)", rounds, wrong);
	while (figures().held_bytes)
		sched_yield();
	ok(s.code_bytes <= 2 << 20, "and memory is used again: %lu kB", (unsigned long)s.code_bytes / 1024);
	return done();
}
