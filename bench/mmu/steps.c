/* SPDX-License-Identifier: MIT */
/*
 * steps.c - instructions, counted by single steps: exact, and also where a processor's counters are
 * not to be had, as in most virtual machines.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mmu.h"

#define TURNS 6 /* the first is not counted */

/* Where stepping begins and ends. Not to be inlined, and not alike: they would be made one. */
__attribute__((noinline, used)) static void steps_from(void)
{
	__asm__ volatile("nop");
}

__attribute__((noinline, used)) static void steps_to(void)
{
	__asm__ volatile("nop; nop");
}

static void turn(void (*prepare)(void), void (*fn)(void))
{
	if (prepare)
		prepare();
	raise(SIGSTOP);
	steps_from();
	fn();
	steps_to();
}

static void *sleeps(void *arg)
{
	for (;;)
		pause();
	return arg;
}

_Noreturn static void child(void (*fn)(void), void (*prepare)(void), const struct listener *with)
{
	pthread_t t;

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(1);
	/* With a thread malloc() takes locks, and there are stacks to be listed; registering makes one. */
	if (pthread_create(&t, NULL, sleeps, NULL))
		_exit(1);
	create_and_join();
	for (int phase = 0; phase < 3; phase++) {
		if (phase == 1 && with && with->arm())
			_exit(1);
		if (phase == 2 && with && with->disarm)
			with->disarm();
		for (int i = 0; i < TURNS; i++)
			turn(prepare, fn);
	}
	_exit(0);
}

/* From a stop to the end of the turn; -1: the child is gone. */
static long follow(pid_t pid)
{
	struct user_regs_struct regs;
	bool counting = false;
	int status, give;
	long n = 0;

	for (give = 0;;) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (long)give) || waitpid(pid, &status, 0) != pid ||
			!WIFSTOPPED(status) || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return -1;
		give = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
		if (regs.rip == (uintptr_t)steps_from)
			counting = true;
		if (regs.rip == (uintptr_t)steps_to)
			return n;
		n += counting;
	}
}

/* Until it stops itself; false: it has ended. Other signals are its own. */
static bool next_stop(pid_t pid)
{
	int status, give = 0;

	for (;;) {
		if (ptrace(PTRACE_CONT, pid, NULL, (long)give) || waitpid(pid, &status, 0) != pid ||
			!WIFSTOPPED(status))
			return false;
		give = WSTOPSIG(status);
		if (give == SIGSTOP)
			return true;
	}
}

static bool count_all(pid_t pid, long steps[3])
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return false;
	for (int phase = 0; phase < 3; phase++) {
		steps[phase] = -1;
		for (int i = 0; i < TURNS; i++) {
			long n;

			if ((phase || i) && !next_stop(pid))
				return false;
			n = follow(pid);
			if (n < 0)
				return false;
			if (i && (steps[phase] < 0 || n < steps[phase]))
				steps[phase] = n;
		}
	}
	return true;
}

/*
 * In fn(), executed by a child after `prepare` there; then with `with`, which may be NULL, armed, and then
 * disarmed again: the least of three each. false: it cannot be stepped here, or not be armed.
 */
static bool count_steps(void (*fn)(void), void (*prepare)(void), const struct listener *with, long steps[3])
{
	pid_t pid = fork();
	bool ok;

	if (pid < 0)
		return false;
	if (!pid)
		child(fn, prepare, with);
	ok = count_all(pid, steps);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ok;
}

static void print_steps(const char *program, const char *what, void (*fn)(void), void (*prepare)(void),
	const struct listener *l)
{
	long n[3];

	if (!count_steps(fn, prepare, l, n)) {
		printf("# mmu.steps.%s.%s: could not be counted\n", program, what);
		return;
	}
	printf("mmu.steps.%s.%s %ld instructions\n", program, what, n[0]);
	if (l) {
		printf("mmu.steps.%s.%s.armed %ld instructions\n", program, what, n[1]);
		printf("mmu.steps.%s.%s.after %ld instructions\n", program, what, n[2]);
	}
	fflush(stdout);
}

void measure_steps(const char *program, const struct listener *l)
{
	prepare_work();
	print_steps(program, "pair", map_and_unmap, NULL, l);
	print_steps(program, "malloc", allocate_and_free, level_heap, l);
	print_steps(program, "thread_create", create_thread, join_last, l);
	print_steps(program, "thread_join", join_thread, create_and_end, l);
}
