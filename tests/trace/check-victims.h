/* SPDX-License-Identifier: MIT */
/* check-victims.h - every victim's result, the same traced and not. */
#ifndef CHECK_VICTIMS_H
#define CHECK_VICTIMS_H

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "tap.h"
#include "victim.h"

static ucontext_t cv_main, cv_co[2];
static char cv_stack[2][65536];
static int cv_turns;

static int cv_switch(void *arg)
{
	long me = (long)arg;

	cv_turns++;
	return swapcontext(&cv_co[me], &cv_co[!me]);
}

static void cv_body(int me)
{
	for (int i = 0; i < 10; i++) {
		v_leaf(i);
		v_call(cv_switch, (void *)(long)me);
	}
	swapcontext(&cv_co[me], &cv_main);
}

static int cv_coroutines(void)
{
	cv_turns = 0;
	for (volatile int i = 0; i < 2; i++) {
		getcontext(&cv_co[i]);
		cv_co[i].uc_stack.ss_sp = cv_stack[i];
		cv_co[i].uc_stack.ss_size = sizeof cv_stack[i];
		cv_co[i].uc_link = &cv_main;
		makecontext(&cv_co[i], (void (*)(void))(uintptr_t)cv_body, 1, i);
	}
	swapcontext(&cv_main, &cv_co[0]);
	return cv_turns;
}

static int cv_longjmps(void)
{
	volatile int n = 0;
	jmp_buf env;

	for (volatile int i = 0; i < 100; i++) {
		if (!setjmp(env))
			v_jump(env, i % 7);
		else
			n++;
		v_leaf(1);
	}
	return n;
}

static int cv_exit_thread(void *arg)
{
	pthread_exit(arg);
}

static void *cv_exit_body(void *arg)
{
	v_call(cv_exit_thread, arg);
	return NULL;
}

static long cv_pthread_exit(void)
{
	pthread_t t;
	void *r = NULL;

	pthread_create(&t, NULL, cv_exit_body, (void *)5L);
	pthread_join(t, &r);
	return (long)r;
}

static int cv_never;

static int cv_wait(void *arg)
{
	while (!*(volatile int *)arg)
		pause();
	return 0;
}

static void cv_cleanup(void *arg)
{
	*(int *)arg += v_leaf(6);
}

static void *cv_cancel_body(void *arg)
{
	pthread_cleanup_push(cv_cleanup, arg);
	v_call(cv_wait, &cv_never);
	pthread_cleanup_pop(0);
	return NULL;
}

static int cv_cancel(void)
{
	pthread_t t;
	void *r = NULL;
	int sum = 0;

	pthread_create(&t, NULL, cv_cancel_body, &sum);
	pthread_cancel(t);
	pthread_join(t, &r);
	/* Cancelled before the handler was pushed, or after. */
	return r == PTHREAD_CANCELED && (sum == 7 || sum == 0);
}

static volatile int cv_handled;

static void cv_handler(int sig)
{
	(void)sig;
	cv_handled += v_handler_work(1);
}

static int cv_raise(void *arg)
{
	return raise((int)(long)arg);
}

static int cv_signals(void)
{
	static char alt[32768];
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, off = {.ss_flags = SS_DISABLE};
	struct sigaction sa = {.sa_handler = cv_handler, .sa_flags = SA_ONSTACK}, old;

	cv_handled = 0;
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR2, &sa, &old);
	for (int i = 0; i < 10; i++)
		v_call(cv_raise, (void *)(long)SIGUSR2);
	sa.sa_flags = 0;
	sigaction(SIGUSR2, &sa, NULL);
	for (int i = 0; i < 10; i++)
		v_call(cv_raise, (void *)(long)SIGUSR2);
	sigaction(SIGUSR2, &old, NULL);
	sigaltstack(&off, NULL);
	return cv_handled;
}

static int cv_fork_child(void *arg)
{
	pid_t pid = fork();
	int status;

	(void)arg;
	if (!pid)
		return 1000;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int cv_fork(void)
{
	int r = v_call(cv_fork_child, NULL);

	if (r == 1000)
		_exit(v_mid(10)); /* the child came back through the traced frame */
	return r;
}

static int cv_vfork_child(void *arg)
{
	pid_t pid = vfork();
	int status;

	(void)arg;
	if (!pid) {
		v_leaf(1);
		_exit(3);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_victims(const char *how)
{
	static const float floats[32] = {1, 2, 3, 4, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,
		4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7};
	struct v_big b;
	struct v_pair p;
	_Complex double c;

	ok(v_leaf(1) == 2 && v_mid(1) == 4, "%s: plain calls return what they should", how);
	ok(v_recurse(2000) == 2001, "%s: deep recursion", how);
	ok(v_many(1, 2, 3, 4, 5, 6, 7, 8, 9) == 285, "%s: arguments on the stack", how);
	ok(v_doubles(1, 2, 3, 4, 5, 6, 7, 8, 9) == 285, "%s: vector arguments", how);
	ok(v_varargs(4, 1, 2, 3, 4) == 58, "%s: variable arguments", how);
	ok(v_varargs_d(3, 1.0, 2.0, 3.0) == 18, "%s: variable vector arguments (%%al)", how);
	ok(v_long_double(8) == 11, "%s: x87 result", how);
	b = v_struct(3);
	ok(b.x[0] == 3 && b.x[7] == 24, "%s: structure returned in memory", how);
	p = v_pair(1.5, 4);
	ok(p.d == 3 && p.l == 8, "%s: structure returned in registers of both kinds", how);
	ok(v_int128((v_wide)1 << 100) == ((v_wide)3 << 100) + 1, "%s: rdx result", how);
	c = v_complex(2, 3);
	ok(__real__ c == 4 && __imag__ c == 9, "%s: xmm1 result", how);
	ok(v_static_chain(3) == 24, "%s: static chain in r10", how);
	ok(v_tail(3) == 5, "%s: tail call", how);
	ok(v_tail_loop(100000) == 1, "%s: 100,000 tail calls in a row", how);
	ok(v_frame_size(100000) == 300000, "%s: large frames", how);
	ok(v_aligned(5) == 5, "%s: realigned stack", how);
	ok(v_vector_sum(floats) == 682, "%s: vectors in and out", how);
	ok(v_regs() == 0, "%s: no general register is clobbered", how);
	ok(cv_longjmps() == 100, "%s: longjmp over traced frames", how);
	ok(cv_coroutines() == 20, "%s: ucontext coroutines", how);
	ok(cv_pthread_exit() == 5, "%s: pthread_exit through traced frames", how);
	ok(cv_cancel(), "%s: pthread_cancel through traced frames", how);
	ok(cv_signals() == 80, "%s: signal handlers, also on the alternate stack", how);
	ok(cv_fork() == 22, "%s: fork, and return in the child", how);
	ok(v_call(cv_vfork_child, NULL) == 3, "%s: vfork", how);
}

#endif
