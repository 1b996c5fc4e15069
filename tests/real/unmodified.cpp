// SPDX-License-Identifier: MIT
/*
 * unmodified.cpp - a program that nobody compiled for tracing, for tests/real/unmodified.
 *
 *   counts	calls functions a known number of times
 *   busy	threads that check what functions return until there is a line on stdin
 *   odd	what is hard for whoever stands between caller and function: exceptions, longjmp,
 *		coroutines, vfork, signals on another stack, cancelled threads, dlsym
 */
#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <pthread.h>
#include <spawn.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define NOINLINE __attribute__((noinline, noclone))

extern "C" {
NOINLINE int leaf(int x) { return x * 3 + 1; }
NOINLINE int middle(int x)
{
	int sum = 0;

	for (int i = 0; i < 10; i++)
		sum += leaf(x + i);
	return sum;
}
NOINLINE int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
NOINLINE int tail(int x) { return middle(x + 1); }
NOINLINE int never(int x) { return x / 2 + middle(x); }
}

static int counts()
{
	int sum = 0;

	for (int i = 0; i < 100; i++)
		sum += middle(i) + tail(i);
	sum += fib(15);
	printf("%d\n", sum);
	return sum == 12345678 ? never(sum) & 1 : 0;
}

/* --- busy ------------------------------------------------------------------------ */

static std::atomic<bool> stop, wrong;

static void work()
{
	while (!stop && !wrong)
		if (middle(7) != 355 || tail(7) != 385 || fib(12) != 144 || leaf(2) != 7)
			wrong = true;
}

static int busy()
{
	std::vector<std::thread> threads;
	char line[16];

	for (int i = 0; i < 4; i++)
		threads.emplace_back(work);
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		wrong = true;
	stop = true;
	for (auto &t : threads)
		t.join();
	printf("%s\n", wrong ? "wrong" : "right");
	return wrong;
}

/* --- odd --------------------------------------------------------------------------- */

static jmp_buf back;
static ucontext_t caller, coroutine;
static int turns;
static volatile int signals;

NOINLINE static int thrower(int i)
{
	if (i % 3 == 0)
		throw std::runtime_error("x" + std::to_string(i));
	return i;
}

NOINLINE static int catcher(int i)
{
	try {
		return thrower(i);
	} catch (std::exception &e) {
		return (int)std::string(e.what()).size();
	}
}

NOINLINE static void jumper(int n)
{
	if (n)
		jumper(n - 1);
	else
		longjmp(back, 7);
}

static void turn()
{
	for (int i = 0; i < 5; i++) {
		turns += i;
		swapcontext(&coroutine, &caller);
	}
}

static int coroutines()
{
	static char stack[65536];

	getcontext(&coroutine);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = sizeof stack;
	coroutine.uc_link = &caller;
	makecontext(&coroutine, turn, 0);
	for (int i = 0; i < 6; i++)
		swapcontext(&caller, &coroutine);
	return turns;
}

static int many_threads()
{
	int sum = 0;

	for (int k = 0; k < 20; k++) {
		std::vector<std::thread> threads;
		int x[20] = {};

		for (int i = 0; i < 20; i++)
			threads.emplace_back([&x, i] { x[i] = catcher(i); });
		for (auto &t : threads)
			t.join();
		for (int v : x)
			sum += v;
	}
	return sum;
}

static void on_signal(int)
{
	char buf[32];

	signals = signals + 1;
	snprintf(buf, sizeof buf, "%d", signals);
}

static int other_stack()
{
	static char stack[65536];
	struct sigaction act = {};
	stack_t ss = {};

	ss.ss_sp = stack;
	ss.ss_size = sizeof stack;
	sigaltstack(&ss, nullptr);
	act.sa_handler = on_signal;
	act.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR1, &act, nullptr);
	for (int i = 0; i < 50; i++)
		raise(SIGUSR1);
	return signals;
}

static int processes()
{
	char sh[] = "sh", c[] = "-c", script[] = "exit 9", *args[] = {sh, c, script, nullptr};
	int status, sum;
	pid_t pid = vfork();

	if (!pid)
		_exit(5);
	waitpid(pid, &status, 0);
	sum = WEXITSTATUS(status);
	sum += WEXITSTATUS(system("exit 6"));
	posix_spawn(&pid, "/bin/sh", nullptr, nullptr, args, environ);
	waitpid(pid, &status, 0);
	return sum + WEXITSTATUS(status);
}

static void on_cancel(void *n)
{
	++*(int *)n;
}

static void *waits(void *n)
{
	pthread_cleanup_push(on_cancel, n);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return nullptr;
}

static int cancelled()
{
	pthread_t thread;
	void *value;
	int n = 0;

	pthread_create(&thread, nullptr, waits, &n);
	pthread_cancel(thread);
	pthread_join(thread, &value);
	return value == PTHREAD_CANCELED;
}

static int loader()
{
	void *libm = dlopen("libm.so.6", RTLD_NOW);
	double (*cosine)(double) = (double (*)(double))dlsym(libm, "cos");
	int sum = (int)cosine(0) + (dlsym(RTLD_NEXT, "malloc") != nullptr) +
		  (dlsym(RTLD_NEXT, "leaf") == nullptr);

	dlclose(libm);
	return sum;
}

static int odd()
{
	int sum = 0, jumped = setjmp(back);

	if (!jumped)
		jumper(10);
	for (int i = 0; i < 100; i++)
		sum += catcher(i);
	printf("%d %d %d %d %d %d %d %d\n", sum, jumped, coroutines(), many_threads(), other_stack(),
		processes(), cancelled(), loader());
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	return !strcmp(what, "counts") ? counts() : !strcmp(what, "busy") ? busy()
		: !strcmp(what, "odd") ? odd() : 2;
}
