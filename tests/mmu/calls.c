/* SPDX-License-Identifier: MIT */
/*
 * calls.c - what <shunt/mmu.h> promises, with real system calls: before and after, calls that fail, each
 * way to exit, callbacks that need what libc holds, children that share the memory.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>

#include "guarantee.h"
#include "refuse.h"

extern char **environ;

static char *map(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		must(-errno, "mmap");
	memset(p, 'm', pages * PAGE);
	return p;
}

static bool mapped(const void *p)
{
	unsigned char vec;

	return !mincore((void *)(uintptr_t)p, PAGE, &vec);
}

static void forget(struct counter *c)
{
	c->starts = c->ends = 0;
	atomic_store(&c->flags, 0);
	memset(&c->last, 0, sizeof c->last);
}

/* --- before and after -------------------------------------------------------------- */

static char *page;
static bool there_in_start, there_in_end;

static void looks_before(struct counter *c)
{
	if (c->last.start == (uintptr_t)page)
		there_in_start = mapped(page) && *page == 'm';
}

static void looks_after(struct counter *c)
{
	if (c->last.start == (uintptr_t)page)
		there_in_end = mapped(page);
}

static void before_and_after(void)
{
	COUNTER(c);

	c.in_start = looks_before;
	c.in_end = looks_after;
	page = map(1);
	there_in_end = true;
	enter(&c);
	munmap(page, PAGE);
	shunt_mmu_notifier_unregister(&c.n);
	ok(c.starts >= 1 && c.starts == c.ends && there_in_start, "start: the page is still there");
	ok(!there_in_end, "end: it has gone");
	ok(!(c.flags & SHUNT_MMU_LATE), "and none of it late");
	forget(&c);
	page = map(1);
	munmap(page, PAGE);
	ok(c.starts == 0, "nobody is told when nobody is registered");
}

/* --- calls that fail ------------------------------------------------------------------ */

static char *hole; /* two pages, the second of which is not mapped */

static long fails_mprotect(void)
{
	return mprotect(hole, 2 * PAGE, PROT_READ);
}

static long fails_madvise(void)
{
	return madvise(hole, 2 * PAGE, MADV_DONTNEED);
}

static long fails_mremap(void)
{
	return mremap(hole, PAGE, 1ul << 46, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
}

static long fails_mmap(void)
{
	return mmap(hole, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 12345, 0) == MAP_FAILED ? -1 : 0;
}

static long fails_munmap(void)
{
	return munmap(hole + 1, PAGE);
}

static long fails_exec(void)
{
	char *argv[] = {NULL};

	return execv("/no/such/program", argv);
}

static const struct {
	const char *name;
	long (*fn)(void);
} failing[] = {{"mprotect", fails_mprotect}, {"madvise", fails_madvise}, {"mremap", fails_mremap},
	{"mmap", fails_mmap}, {"munmap", fails_munmap}, {"execve", fails_exec}};

static void failing_calls(void)
{
	COUNTER(c);

	hole = map(2);
	munmap(hole + PAGE, PAGE);
	enter(&c);
	for (unsigned i = 0; i < sizeof failing / sizeof failing[0]; i++) {
		bool none = failing[i].fn == fails_munmap; /* refused before anything is looked at */
		long r;

		forget(&c);
		r = failing[i].fn();
		ok(r == -1 && c.starts == c.ends && c.starts >= !none &&
			(!c.ends || (c.last.flags & SHUNT_MMU_FAILED)),
			"%s that fails: start and end, which says so (%d, %d)", failing[i].name, c.starts,
			c.ends);
	}
	shunt_mmu_notifier_unregister(&c.n);
}

static const struct {
	const char *name;
	long nr;
} injected[] = {{"munmap", SYS_munmap}, {"mremap", SYS_mremap}, {"mprotect", SYS_mprotect},
	{"madvise", SYS_madvise}};

static void inject(unsigned i)
{
	COUNTER(c);
	char *p = map(4);

	enter(&c);
	if (!refuse(injected[i].nr, ENOMEM))
		_exit(77);
	forget(&c);
	if (i == 0)
		munmap(p, PAGE);
	else if (i == 1)
		(void)!mremap(p, 4 * PAGE, PAGE, 0);
	else if (i == 2)
		mprotect(p, PAGE, PROT_NONE);
	else
		madvise(p, PAGE, MADV_DONTNEED);
	syscall(SYS_exit_group, c.starts >= 1 && c.starts == c.ends && (c.last.flags & SHUNT_MMU_FAILED) &&
		*p == 'm' ? 0 : 1);
}

static void injected_failures(void)
{
	for (unsigned i = 0; i < sizeof injected / sizeof injected[0]; i++) {
		pid_t pid;
		int r;

		fflush(stdout);
		pid = fork();
		if (!pid)
			inject(i);
		r = exit_of(pid);
		if (r == 77)
			skip("no seccomp here");
		else
			ok(r == 0, "%s that the kernel has no memory for: start and end (%d)", injected[i].name, r);
	}
}

/* --- the end of the process ---------------------------------------------------------------- */

#define SAYS 9 /* the descriptor */

static struct counter leaving = {.n = {.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL}};

static void says(const char *s)
{
	if (write(SAYS, s, strlen(s)) < 0)
		abort();
}

/* The pages are still there, and libc still works. */
static void says_release(struct counter *c)
{
	char *p = malloc(100);

	(void)c;
	says(p && mapped(page) && *page == 'm' ? "r" : "gone");
	free(p);
}

static void registered(void)
{
	page = map(1);
	leaving.in_release = says_release;
	enter(&leaving);
}

static void *unregisters_now(void *arg)
{
	shunt_mmu_notifier_unregister(&leaving.n);
	return arg;
}

static atomic_int main_has_gone;

/* The first thread is a zombie when it has ended. */
static void *outlives(void *arg)
{
	char line[100] = "";

	await(&main_has_gone, 1);
	while (!strstr(line, ") Z")) {
		int fd = open("/proc/self/stat", O_RDONLY);
		ssize_t n = read(fd, line, sizeof line - 1);

		line[n > 0 ? n : 0] = 0;
		close(fd);
		sched_yield();
	}
	/* To return would not do: the library's thread is one that libc waits for. */
	exit(arg != NULL);
}

static void *sits_in_a_callback(void *arg)
{
	munmap(map(1), PAGE);
	return arg;
}

static void by_exit(void)
{
	registered();
	exit(0);
}

static void by__exit(void)
{
	registered();
	_exit(0);
}

static void by_quick_exit(void)
{
	registered();
	quick_exit(0);
}

static void by_another_thread(void)
{
	pthread_t t;

	registered();
	pthread_create(&t, NULL, outlives, NULL);
	reach(&main_has_gone, 1);
	pthread_exit(NULL);
}

static void by_syscall(void)
{
	registered();
	syscall(SYS_exit_group, 0);
}

static void by_unregister(void)
{
	registered();
	shunt_mmu_notifier_unregister(&leaving.n);
	says("u");
	exit(0);
}

static void by_both(void)
{
	pthread_t t;

	registered();
	pthread_create(&t, NULL, unregisters_now, NULL);
	exit(0);
}

static void with_one_inside(void)
{
	pthread_t t;

	registered();
	leaving.stay = 1;
	pthread_create(&t, NULL, sits_in_a_callback, NULL);
	await(&leaving.inside, 1);
	exit(0);
}

static void exits_in_callback(struct counter *c)
{
	(void)c;
	exit(0);
}

static void in_a_callback(void)
{
	registered();
	leaving.in_start = exits_in_callback;
	munmap(map(1), PAGE);
}

static void by_signal(void)
{
	registered();
	raise(SIGKILL);
}

static void by_exec(void)
{
	registered();
	leaving.n.kinds = 0;
	execl("/bin/true", "true", (char *)NULL);
}

static void exits(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
		const char *want;
		int status;
	} t[] = {
		{"exit", by_exit, "r", 0},
		{"_exit", by__exit, "r", 0},
		{"quick_exit", by_quick_exit, "r", 0},
		{"exit by a thread that main has left behind", by_another_thread, "r", 0},
		{"syscall(SYS_exit_group)", by_syscall, "r", 0},
		{"unregister, and exit later", by_unregister, "ru", 0},
		{"exit and unregister at once", by_both, "r", 0},
		{"exit while a callback runs", with_one_inside, "r", 0},
		{"exit in a callback", in_a_callback, "r", 0},
		{"kill -9: nobody can call anything", by_signal, "", 1000 + SIGKILL},
	};
	char text[100];

	for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
		int rounds = t[i].fn == by_both ? 40 : 1, bad = 0, status = 0;

		for (int k = 0; k < rounds && !bad; k++) {
			status = child_says(t[i].fn, SAYS, text, sizeof text);
			bad = status != t[i].status || strcmp(text, t[i].want);
		}
		ok(!bad, "%s: %s (\"%s\", %d)", t[i].name,
			*t[i].want ? "release once, before the pages go" : "no release", text, status);
	}
	ok(child_says(by_exec, SAYS, text, sizeof text) == 0, "execve of another program (\"%s\")", text);
}

/* --- callbacks that need what libc holds ----------------------------------------------------- */

static atomic_bool busy;
static atomic_int done_work;

static void *nothing(void *arg)
{
	return arg;
}

/* What its own work changes comes to it on other threads (the one that it starts): not without end. */
static void works(struct counter *c)
{
	pthread_t t;
	void *p, *lib;

	(void)c;
	if (atomic_exchange(&busy, true))
		return;
	for (size_t n = 24; n < 1u << 20; n *= 8) {
		p = malloc(n);
		memset(p, 1, n);
		p = realloc(p, 2 * n);
		free(p);
	}
	munmap(map(1), PAGE);
	munmap(map(600), 600 * PAGE);
	if (!pthread_create(&t, NULL, nothing, NULL))
		pthread_join(t, NULL);
	lib = dlopen("libutil.so.1", RTLD_NOW | RTLD_LOCAL);
	if (lib)
		dlclose(lib);
	poll(NULL, 0, 1); /* sleeps */
	done_work++;
	atomic_store(&busy, false);
}

static void program_munmap(void)
{
	munmap(map(1), PAGE);
}

static void *blocks[400];

static void fill_heap(void)
{
	for (int i = 0; i < 400; i++)
		blocks[i] = malloc(2000);
}

static void heap_trim(void)
{
	fill_heap();
	for (int i = 0; i < 399; i++)
		free(blocks[i]);
	malloc_trim(0);
	free(blocks[399]);
}

static void heap_shrinks(void)
{
	fill_heap();
	for (int i = 399; i >= 0; i--)
		free(blocks[i]);
}

static void big_block(void)
{
	void *volatile p = malloc(40u << 20); /* or the compiler does without it */

	free(p);
}

static void big_realloc(void)
{
	void *volatile p = malloc(40u << 20);

	p = realloc(p, 33u << 20);
	p = realloc(p, 80u << 20);
	free(p);
}

static void *trims_own(void *arg)
{
	void *p[20];

	for (int i = 0; i < 20; i++)
		p[i] = malloc(4000);
	for (int i = 0; i < 20; i++)
		free(p[i]);
	malloc_trim(0);
	return arg;
}

static void threads_arena(void)
{
	pthread_t t;

	pthread_create(&t, NULL, trims_own, NULL);
	pthread_join(t, NULL);
}

static void huge_stack(void)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 100u << 20);
	pthread_create(&t, &a, nothing, NULL);
	pthread_join(t, NULL);
	pthread_attr_destroy(&a);
}

static void library_goes(void)
{
	void *l = dlopen("libanl.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!l)
		l = dlopen("libthread_db.so.1", RTLD_NOW | RTLD_LOCAL);
	if (l)
		dlclose(l);
}

static void spawns(void)
{
	char *argv[] = {(char *)"true", NULL};
	pid_t pid;

	if (!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ))
		exit_of(pid);
}

static void forks(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	exit_of(pid);
}

static void needy_callbacks(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} t[] = {{"munmap", program_munmap}, {"malloc_trim", heap_trim}, {"a heap that shrinks", heap_shrinks},
		{"free of a big block", big_block}, {"realloc of a mapped block", big_realloc},
		{"a thread's arena", threads_arena}, {"a thread's huge stack", huge_stack},
		{"dlclose", library_goes}, {"posix_spawn", spawns}, {"fork", forks}};
	struct counter *c = calloc(1, sizeof *c);

	/* Few trims: each may wait its 10 ms for a callback that needs the lock of the heap. */
	mallopt(M_TOP_PAD, 0);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	c->n = (struct shunt_mmu_notifier){.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL};
	c->in_start = works;
	for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
		int before;

		forget(c);
		enter(c);
		before = done_work;
		t[i].fn();
		shunt_mmu_sync();
		shunt_mmu_notifier_unregister(&c->n);
		ok(c->starts >= 1 && done_work > before && c->starts == c->ends,
			"%s, and callbacks that allocate, map, start threads, load libraries (%d)", t[i].name,
			c->starts);
	}
	free(c);
}

/* --- others in our memory --------------------------------------------------------------------- */

static void vfork_child(void)
{
	COUNTER(c);
	char *p = map(1);
	pid_t pid;

	enter(&c);
	pid = vfork();
	if (!pid) {
		munmap(p, PAGE);
		_exit(0);
	}
	exit_of(pid);
	ok(c.starts >= 1 && c.starts == c.ends, "a vfork child's munmap is told of (%d, %d)", c.starts, c.ends);
	ok(!mapped(p), "it was our page");
	ok(c.releases == 0, "its exit is not ours");
	spawns();
	pid = vfork();
	if (!pid) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	exit_of(pid);
	ok(c.releases == 0, "nor its becoming another program");
	ok(!shunt_mmu_notifier_unregister(&c.n) && c.releases == 1 && c.starts == c.ends,
		"all pairs are whole (%d, %d)", c.starts, c.ends);
}

static int unmaps(void *p)
{
	return munmap(p, PAGE);
}

static void clone_child(void)
{
	COUNTER(c);
	char *p = map(1), *stack = map(64);
	pid_t pid;

	enter(&c);
	pid = clone(unmaps, stack + 64 * PAGE, CLONE_VM | SIGCHLD, p);
	exit_of(pid);
	ok(!mapped(p) && c.starts >= 1, "a child by clone(CLONE_VM), too (%d)", c.starts);
	ok(c.releases == 0, "its exit is not ours");
	shunt_mmu_notifier_unregister(&c.n);
	ok(c.starts == c.ends && c.releases == 1, "all pairs are whole (%d, %d)", c.starts, c.ends);
	munmap(stack, 64 * PAGE);
}

/* Where both of a pair are seen in the parent, neither is finished in the child. */
static void fork_is_told(bool raw)
{
	COUNTER(c);
	pid_t pid;
	sigset_t mask;
	int bad;

	c.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&c);
	pid = raw ? (pid_t)syscall(SYS_fork) : fork();
	if (!pid) {
		bad = c.ends != 0;
		munmap(map(1), PAGE);
		bad |= (c.starts != 1 || c.ends != 0) << 1;
		sigprocmask(SIG_SETMASK, NULL, &mask);
		bad |= !!sigismember(&mask, SIGUSR2) << 2;
		_exit(bad);
	}
	bad = exit_of(pid);
	ok(!bad, "a child of %s hears nothing, and has its signals (%#x)",
		raw ? "the bare system call" : "fork()", (unsigned)bad);
	ok(c.starts == 1 && c.ends == 1 && c.last.kind == SHUNT_MMU_FORK, "its parent hears of it (%d, %d)",
		c.starts, c.ends);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	ok(!sigismember(&mask, SIGUSR2), "and has its signals");
	ok(!c.releases, "the child's exit is not ours");
	shunt_mmu_notifier_unregister(&c.n);
}

int main(void)
{
	end_after(250);
	before_and_after();
	failing_calls();
	injected_failures();
	exits();
	needy_callbacks();
	vfork_child();
	clone_child();
	fork_is_told(false);
	fork_is_told(true);
	return done();
}
