/* SPDX-License-Identifier: MIT */
/*
 * victim.c - a program to be recorded: does one thing that programs do to
 * those who look over their shoulder. leaf() is what is counted: each mode
 * calls it a number of times that lifecycle.py knows.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void leaf(int i);
void work(int n);

static volatile long sum;

__attribute__((noinline)) void leaf(int i)
{
	sum += i;
}

__attribute__((noinline)) void work(int n)
{
	for (int i = 0; i < n; i++)
		leaf(i);
}

static char *self;
static char **args;

static int do_work(void)
{
	work(1000);
	return 0;
}

static int do_exit(void)
{
	work(10);
	return 42;
}

static int do__exit(void)
{
	work(10);
	_exit(7);
}

static int do_crash(void)
{
	volatile int *volatile nowhere = (volatile int *)8;

	work(100);
	*nowhere = 1;
	return 0;
}

static int do_abort(void)
{
	work(100);
	abort();
}

/* Says that it is ready, and goes on until it is killed. */
static int do_spin(void)
{
	work(100);
	puts("ready");
	fflush(stdout);
	for (;;)
		work(10);
	return 0;
}

static int do_sleep(void)
{
	work(100);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
	return 0;
}

static int do_closefrom(void)
{
	int fd;

	work(100);
	closefrom(3);
	fd = open("/dev/null", O_RDONLY);
	work(900);
	return fd == 3 ? 0 : 1;
}

static int do_chroot(void)
{
	char dir[] = "/tmp/shunt-victim-XXXXXX";

	if (!mkdtemp(dir) || chroot(dir) || chdir("/"))
		return 77;
	work(1000);
	return 0;
}

static int do_setsid(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		setsid();
		work(1000);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status != 0;
}

/* The parent goes, the child stays. */
static int do_daemon(void)
{
	work(100);
	if (daemon(0, 0))
		return 1;
	work(100);
	for (;;)
		pause();
}

static int do_fork(void)
{
	int status, bad = 0;

	work(100);
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		if (!pid) {
			work(200);
			_exit(i);
		}
		waitpid(pid, &status, 0);
		bad |= WEXITSTATUS(status) != i;
	}
	work(100);
	return bad;
}

static int do_vfork(void)
{
	int status;
	pid_t pid;

	work(100);
	pid = vfork();
	if (!pid) {
		execl(self, self, "work", NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	return status != 0;
}

static int do_spawn(void)
{
	char *argv[] = { self, "work", NULL };
	int status;
	pid_t pid;

	work(100);
	if (posix_spawn(&pid, self, NULL, NULL, argv, environ))
		return 1;
	waitpid(pid, &status, 0);
	return status != 0;
}

static int do_exec(void)
{
	int left = args[2] ? atoi(args[2]) : 0;
	char next[16];

	work(100);
	if (!left)
		return 5;
	sprintf(next, "%d", left - 1);
	execl(self, self, "exec", next, NULL);
	return 1;
}

static int do_clearenv(void)
{
	char *argv[] = { self, "work", NULL }, *env[] = { NULL };

	work(100);
	execve(self, argv, env);
	return 1;
}

static int do_dlopen(void)
{
	void *lib = dlopen(args[2], RTLD_NOW);
	int (*plugin)(int);

	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	plugin = (int (*)(int))(uintptr_t)dlsym(lib, "plugin_work");
	plugin(500);
	dlclose(lib);
	lib = dlopen(args[2], RTLD_NOW);
	plugin = (int (*)(int))(uintptr_t)dlsym(lib, "plugin_work");
	plugin(500);
	for (int ms = args[3] ? atoi(args[3]) : 0; ms > 0; ms--) {
		struct timespec ts = { 0, 1000000 };

		plugin(1);
		nanosleep(&ts, NULL);
	}
	return 0;
}

static void *thread(void *arg)
{
	work(1000);
	return arg;
}

static int do_threads(void)
{
	pthread_t t[8];

	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, thread, NULL);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	return 0;
}

/* Eight threads that compute something while they are switched on and off. */
static volatile int stop;

static void *busy(void *arg)
{
	unsigned long h = 1469598103934665603ul;
	long rounds = 0;

	while (!stop) {
		for (int i = 0; i < 1000; i++) {
			leaf(0);
			h = (h ^ (unsigned long)i) * 1099511628211ul;
		}
		rounds++;
		if (rounds % 64 == 0)
			h = 1469598103934665603ul;
	}
	*(unsigned long *)arg = h;
	*((long *)arg + 1) = rounds;
	return NULL;
}

static unsigned long expected(long rounds)
{
	unsigned long h = 1469598103934665603ul;

	for (long r = 0; r < rounds % 64; r++)
		for (int i = 0; i < 1000; i++)
			h = (h ^ (unsigned long)i) * 1099511628211ul;
	return h;
}

static int do_busy(void)
{
	struct {
		unsigned long h;
		long rounds;
	} r[8];
	pthread_t t[8];
	char c;
	int bad = 0;

	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, busy, &r[i]);
	puts("ready");
	fflush(stdout);
	if (read(0, &c, 1) < 0)
		bad = 1;
	stop = 1;
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], NULL);
		bad |= r[i].h != expected(r[i].rounds);
	}
	return bad;
}

/* Forks without end while threads run; each child does a little and goes. */
static int do_forkstorm(void)
{
	struct {
		unsigned long h;
		long rounds;
	} r[2];
	pthread_t t[2];
	int status, bad = 0;

	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, busy, &r[i]);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < 300; i++) {
		pid_t pid = fork();

		if (!pid) {
			work(10);
			_exit(i & 127);
		}
		bad |= waitpid(pid, &status, 0) != pid || status != (i & 127) << 8;
	}
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	return bad;
}

static void *last_thread(void *arg)
{
	struct timespec ts = { 0, 50000000 };

	nanosleep(&ts, NULL);
	work(500);
	printf("last words"); /* flushed by exit() only */
	return arg;
}

static int do_pthread_exit(void)
{
	pthread_t t;

	work(500);
	pthread_create(&t, NULL, last_thread, NULL);
	pthread_exit(NULL);
}

static int do_unshare(void)
{
	work(1000);
	if (!unshare(CLONE_NEWUSER))
		return 0;
	return errno == EINVAL ? 1 : 77;
}

static __attribute__((noinline)) int trace_me(void **array, int size)
{
	int n = backtrace(array, size);

	sum++; /* no tail call */
	return n;
}

static __attribute__((noinline)) int between(void **array, int size)
{
	int n = trace_me(array, size);

	sum++;
	return n;
}

/* Prints the offsets of the return addresses: the same without tracing. */
static int do_backtrace(void)
{
	void *array[32];
	int n;

	for (int round = 0; round < 3; round++) {
		n = between(array, round == 2 ? 3 : 32);
		for (int i = 0; i < n; i++) {
			Dl_info info;

			if (dladdr(array[i], &info))
				printf("%s+%lx\n", strrchr(info.dli_fname, '/'),
					(unsigned long)((char *)array[i] - (char *)info.dli_fbase));
			else
				printf("?\n");
		}
	}
	return 0;
}

static volatile int traps;

static void on_trap(int sig)
{
	traps += sig == SIGTRAP;
}

static int do_sigtrap(void)
{
	struct sigaction sa = { .sa_handler = on_trap }, old;

	if (sigaction(SIGTRAP, &sa, &old) || old.sa_handler != SIG_DFL)
		return 1;
	work(500);
	raise(SIGTRAP);
	__asm__ volatile("int3");
	work(500);
	if (sigaction(SIGTRAP, NULL, &old) || old.sa_handler != on_trap)
		return 2;
	if (signal(SIGTRAP, SIG_IGN) != on_trap)
		return 3;
	raise(SIGTRAP);
	return traps == 2 ? 0 : 4;
}

/* All signals blocked, as careful servers have it. */
static int do_blocked(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	return do_spin();
}

static int do_env(void)
{
	puts(getenv("LD_PRELOAD"));
	return 0;
}

static const struct {
	const char *name;
	int (*fn)(void);
} modes[] = {
	{ "work", do_work }, { "exit", do_exit }, { "_exit", do__exit }, { "crash", do_crash },
	{ "abort", do_abort }, { "spin", do_spin }, { "sleep", do_sleep },
	{ "closefrom", do_closefrom }, { "chroot", do_chroot }, { "setsid", do_setsid },
	{ "daemon", do_daemon }, { "fork", do_fork }, { "vfork", do_vfork },
	{ "spawn", do_spawn }, { "exec", do_exec }, { "clearenv", do_clearenv },
	{ "dlopen", do_dlopen }, { "threads", do_threads }, { "busy", do_busy },
	{ "forkstorm", do_forkstorm },
	{ "pthread_exit", do_pthread_exit }, { "unshare", do_unshare },
	{ "backtrace", do_backtrace }, { "sigtrap", do_sigtrap }, { "blocked", do_blocked },
	{ "env", do_env },
};

int main(int argc, char **argv)
{
	static char path[4096];

	self = realpath("/proc/self/exe", path);
	args = argv;
	for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
		if (!strcmp(argv[1], modes[i].name))
			return modes[i].fn();
	return 99;
}
