/* SPDX-License-Identifier: MIT */
/*
 * edges.c - notifiers where programs seldom go: no memory, no descriptors, a handler that jumps away, a child
 * that shares the memory, two who exit, exec by hand. Each in a process of its own, which is killed if it hangs:
 * with signals held back nothing else ends it. The program has more thread-local variables than a
 * small stack has room for, so the library's threads are an edge, too.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/resource.h>
#include <ucontext.h>

#include <shunt/probe.h>

#include "child.h"
#include "guarantee.h"
#include "mmu/core.h"
#include "text/threads.h"

static __thread volatile char much[1 << 20];
static const char *later;

/*
 * Whether nothing is left open: who registers waits for all that is. On another thread, since what is open of one's
 * own is not waited for.
 */
static int registers_anew(void)
{
	static COUNTER(another);
	struct caller c;
	int r;

	caller_start(&c, registers, &another.n);
	r = caller_end(&c);
	return r ? r : shunt_mmu_notifier_unregister(&another.n);
}

static int large_thread_variables(void)
{
	COUNTER(c);

	much[7] = 1;
	return shunt_mmu_notifier_register(&c.n) || shunt_mmu_notifier_unregister(&c.n);
}

#ifndef SANITIZED /* which needs much, and frees late */
static int no_memory(void)
{
	struct rlimit none = {4096, 4096};
	char *volatile block = malloc(4 << 20);
	static COUNTER(c);

	enter(&c);
	only_at(&c, block);
	setrlimit(RLIMIT_AS, &none);
	free(block); /* libc's munmap: handed over, with a task */
	shunt_mmu_sync();
	return c.starts != 1 || c.ends != 1;
}
#endif

static int no_descriptors(void)
{
	static struct shunt_mmu_coverage cover;
	struct rlimit before, none;
	COUNTER(c);

	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	if (shunt_mmu_notifier_register(&c.n) != -EMFILE)
		return 1;
	setrlimit(RLIMIT_NOFILE, &before);
	if (shunt_mmu_notifier_register(&c.n))
		return 2;
	if (shunt_mmu_coverage(&cover) || cover.source[SHUNT_MMU_SRC_LOADER].when != SHUNT_MMU_SEEN_BEFORE)
		return 3;
	return shunt_mmu_notifier_unregister(&c.n);
}

/* --- exec and exit ---------------------------------------------------------------------- */

static int exec_keeps_mask(void)
{
	char *argv[] = {"edges", "mask", NULL};
	static COUNTER(c);

	enter(&c);
	shunt_mmu_syscall(SYS_execve, (long)"/proc/self/exe", (long)argv, (long)environ, 0, 0, 0);
	return 9;
}

static int mask_is_empty(void)
{
	sigset_t now;

	sigprocmask(SIG_BLOCK, NULL, &now);
	return sigismember(&now, SIGTERM) || sigismember(&now, SIGUSR1);
}

static int exec_of_vfork_child(void)
{
	static COUNTER(c);
	pid_t pid;

	c.n.kinds = 1u << SHUNT_MMU_EXEC;
	enter(&c);
	pid = vfork();
	if (!pid) {
		char *argv[] = {"true", NULL};

		shunt_mmu_syscall(SYS_execve, (long)"/bin/true", (long)argv, (long)environ, 0, 0, 0);
		_exit(1);
	}
	if (exit_of(pid) || c.starts)
		return 1;
	return registers_anew() ? 2 : shunt_mmu_notifier_unregister(&c.n) ? 3 : 0;
}

/* It is libc that calls execve(): but there is nothing of libc's that a callback could not have. */
static int exec_from_libc(void)
{
	static COUNTER(c);

	c.n.kinds = 1u << SHUNT_MMU_EXEC;
	enter(&c);
	if (execl("/no/such program", "none", (char *)NULL) != -1 || execlp("no such program", "none", (char *)NULL) != -1)
		return 1;
	return c.starts < 2 || c.starts != c.ends ? 2 : !(c.flags & SHUNT_MMU_BLOCK) || c.flags & SHUNT_MMU_HANDED ? 3 : 0;
}

static void say_released(struct counter *c)
{
	(void)c;
	_exit(0); /* not what exit_group() was given */
}

static int exit_by_hand(void)
{
	static COUNTER(c);

	c.in_release = say_released;
	enter(&c);
	shunt_mmu_syscall(SYS_exit_group, 7, 0, 0, 0, 0, 0);
	return 8;
}

static struct shunt_mmu_member *stepped;
static volatile bool steps;

/* At the first instruction at which it is somebody's to release it, and nobody is known to: exits. */
static void exit_between(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	if (stepped->released && !stepped->dead && !shunt_mmu_frames)
		_exit(0);
	if (stepped->dead || !steps)
		u->uc_mcontext.gregs[REG_EFL] &= ~0x100;
}

static int exit_in_unregister(void)
{
	struct sigaction sa = {.sa_sigaction = exit_between, .sa_flags = SA_SIGINFO};
	static COUNTER(c);

	enter(&c);
	stepped = c.n.node;
	steps = true;
	sigaction(SIGTRAP, &sa, NULL);
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100,(%%rsp); popfq; lea 128(%%rsp), %%rsp" ::: "memory", "cc");
	shunt_mmu_notifier_unregister(&c.n);
	steps = false;
	return c.releases != 1;
}

static atomic_int releasing, other;
static int to_parent;

/* The other one is in _exit(): either it sleeps there until this is over, or it ends us here. */
static void release_slowly(struct counter *c)
{
	(void)c;
	await(&other, 1);
	reach(&releasing, 1);
	while (!sleeps(other))
		sched_yield();
	if (write(to_parent, "r", 1) != 1)
		_exit(5);
}

static void *exits(void *unused)
{
	(void)unused;
	other = self();
	while (!atomic_load(&releasing))
		;
	_exit(0);
}

static int exits_twice(void)
{
	static COUNTER(c);
	pthread_t t;

	c.in_release = release_slowly;
	enter(&c);
	pthread_create(&t, NULL, exits, NULL);
	_exit(0);
}

static int exit_beside_exit(void)
{
	int p[2];
	char byte;
	pid_t pid;

	if (pipe(p))
		return 1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(p[0]);
		to_parent = p[1];
		_exit(exits_twice());
	}
	close(p[1]);
	return exit_of(pid) ? 2 : read(p[0], &byte, 1) == 1 ? 0 : 3;
}

/* --- jumps, shared memory ------------------------------------------------------------------ */

static sigjmp_buf away;

static void jump(int sig)
{
	(void)sig;
	siglongjmp(away, 1);
}

/* It is held back, and comes when the change has ended. */
static void send_signal(struct counter *c)
{
	(void)c;
	pthread_kill(pthread_self(), SIGUSR1);
}

static int handler_jumps(void)
{
	char *p = map(PAGE);
	static COUNTER(c);

	signal(SIGUSR1, jump);
	c.in_start = send_signal;
	only_at(&c, p);
	enter(&c);
	if (!sigsetjmp(away, 1)) {
		munmap(p, PAGE);
		return 1;
	}
	if (c.starts != 1 || c.ends != 1)
		return 2;
	return registers_anew() ? 3 : shunt_mmu_notifier_unregister(&c.n) ? 4 : 0;
}

/* A cancellation point. */
static void linger(struct counter *c)
{
	(void)c;
	if (read(-1, NULL, 0) != -1)
		_exit(98);
}

static void *cancelled(void *at)
{
	pthread_cancel(pthread_self());
	munmap(at, PAGE);
	pthread_testcancel();
	return NULL;
}

static int cancelled_thread(void)
{
	char *p = map(PAGE);
	static COUNTER(c);
	void *result;
	pthread_t t;

	c.in_start = c.in_end = linger;
	only_at(&c, p);
	enter(&c);
	pthread_create(&t, NULL, cancelled, p);
	pthread_join(t, &result);
	return result != PTHREAD_CANCELED ? 1 : c.starts != 1 || c.ends != 1 ? 2 : 0;
}

static void *registers_cancelled(void *n)
{
	pthread_cancel(pthread_self());
	if (shunt_mmu_notifier_register(n) || shunt_mmu_notifier_unregister(n))
		_exit(97);
	pthread_testcancel();
	return NULL;
}

/* To find the places files are read, which are cancellation points. */
static int cancelled_in_register(void)
{
	static COUNTER(c);
	void *result = NULL;
	pthread_t t;
	pid_t pid;

	pthread_create(&t, NULL, registers_cancelled, &c.n);
	pthread_join(t, &result);
	if (result != PTHREAD_CANCELED || c.releases != 1)
		return 1;
	pid = fork();
	if (!pid)
		_exit(registers_anew());
	return exit_of(pid) ? 2 : registers_anew();
}

static sigset_t at_end;
static bool asynchronous;

static void note_mask(void *unused)
{
	(void)unused;
	pthread_sigmask(SIG_BLOCK, NULL, &at_end);
}

static union {
	struct file_handle h;
	char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
} handle = {.h.handle_bytes = MAX_HANDLE_SZ};
static int by_handle; /* a descriptor of the same file system, or -1 */

static atomic_int cancelled_tid, is_cancelled;

/* NULL: what the handle is of. */
static void *opens(void *path)
{
	pthread_cleanup_push(note_mask, NULL);
	if (asynchronous)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	reach(&cancelled_tid, self());
	if (path)
		open(path, O_RDWR | O_TRUNC);
	else
		open_by_handle_at(by_handle, &handle.h, O_RDWR | O_TRUNC);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return NULL;
}

static bool has_handle(int fd, const char *path)
{
	int there, mount;

	by_handle = fd;
	there = name_to_handle_at(AT_FDCWD, path, &handle.h, &mount, 0) ? -1
		: open_by_handle_at(fd, &handle.h, O_RDWR);
	if (there >= 0)
		close(there);
	return there >= 0;
}

static void *unmaps(void *at)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	munmap(at, PAGE);
	_exit(97);
}

static void cancel_self(struct counter *c)
{
	(void)c;
	pthread_cancel(pthread_self());
}

static unsigned open_on(const char *path)
{
	char link[40], to[64];
	unsigned n = 0;

	for (int fd = 0; fd < 64; fd++) {
		ssize_t len;

		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		len = readlink(link, to, sizeof to - 1);
		to[len < 0 ? 0 : len] = 0;
		n += !strcmp(to, path);
	}
	return n;
}

/* Cancelled by a callback: the thread ends, behind the last callback, with the signal mask that it had. */
static int ends_cancelled(struct counter *c, void *(*fn)(void *), void *arg)
{
	void *result = NULL;
	pthread_t t;

	c->starts = c->ends = 0;
	if (pthread_create(&t, NULL, fn, arg) || pthread_join(t, &result))
		return 1;
	return result != PTHREAD_CANCELED || c->starts != 1 || c->ends != 1 || sigismember(&at_end, SIGUSR1);
}

static int cancelled_in_open(void)
{
	char path[] = "/tmp/shunt-edges-XXXXXX";
	int fd = mkstemp(path);
	static COUNTER(c);
	char *p;
	int bad = 0;

	if (fd < 0 || ftruncate(fd, PAGE))
		return 1;
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	only_at(&c, p);
	enter(&c);
	for (int i = 0; i < 4 && !bad; i++) {
		c.in_start = i & 1 ? cancel_self : NULL;
		c.in_end = i & 1 ? NULL : cancel_self;
		asynchronous = i & 2;
		if (ftruncate(fd, PAGE) || ends_cancelled(&c, opens, path))
			bad = 2 + i;
		if (open_on(path) != 1)
			bad = 10 + i;
	}
	/* Not everywhere, nor for everybody. */
	asynchronous = false;
	if (!bad && has_handle(fd, path) &&
		(ftruncate(fd, PAGE) || ends_cancelled(&c, opens, NULL) || open_on(path) != 1))
		bad = 19;
	if (!bad && (ends_cancelled(&c, unmaps, p) || registers_anew()))
		bad = 20;
	unlink(path);
	return bad;
}

/* --- cancelled before the first start, when signals are held back already ---------------------- */

/* Cancellation points, and what lets libc's signals in again. */
static void linger_and_let_in(struct counter *c)
{
	sigset_t before;

	linger(c);
	sigprocmask(SIG_BLOCK, NULL, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	linger(c);
}

/* libc's signal waits behind a mask that is none of ours. */
static void *unmaps_while_cancelled(void *at)
{
	uint64_t bit = 1ull << (SHUNT_MMU_SIGCANCEL - 1);

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &bit, NULL, 8L);
	reach(&cancelled_tid, self());
	await(&is_cancelled, 1);
	munmap(at, PAGE);
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, NULL, 8L);
	for (;;)
		pause();
	return NULL;
}

static int cancelled_signal_held(void)
{
	char *p = map(PAGE);
	void *result = NULL;
	static COUNTER(c);
	pthread_t t;

	c.in_start = c.in_end = linger;
	only_at(&c, p);
	enter(&c);
	pthread_create(&t, NULL, unmaps_while_cancelled, p);
	await(&cancelled_tid, 1);
	if (pthread_cancel(t))
		return 1;
	reach(&is_cancelled, 1);
	pthread_join(t, &result);
	return result != PTHREAD_CANCELED ? 2 : c.starts != 1 || c.ends != 1 ? 3 : registers_anew() ? 4 : 0;
}

/* Whether it holds signals back. */
static bool holds(pid_t tid)
{
	char text[4096], *mask = NULL;

	if (shunt_thread_read(-1, tid, "status", text, sizeof text) > 0)
		mask = strstr(text, "SigBlk:");
	return mask && strtoul(mask + 7, NULL, 16) >> (SHUNT_MMU_SIGCANCEL - 1) & 1;
}

#define MANY 10000

/*
 * To find out where the file is mapped takes a while, with so much that is mapped: most of the threads are cancelled in
 * that while.
 */
static int cancelled_while_held(void)
{
	char path[] = "/tmp/shunt-edges-XXXXXX";
	int fd = mkstemp(path), exe = open("/proc/self/exe", O_RDONLY), bad = 0;
	char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), *many = map(2 * MANY * PAGE);
	static COUNTER(c);

	for (int i = 0; i < MANY; i++)
		if (mmap(many + 2 * i * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, exe, 0) == MAP_FAILED)
			return 1;
	c.in_start = c.in_end = linger_and_let_in;
	only_at(&c, p);
	enter(&c);
	for (int i = 0; i < 10 && !bad; i++) {
		void *result = NULL;
		pthread_t t;

		cancelled_tid = 0;
		if (ftruncate(fd, PAGE))
			return 2;
		pthread_create(&t, NULL, opens, path);
		await(&cancelled_tid, 1);
		while (!holds(cancelled_tid) && !sleeps(cancelled_tid))
			;
		pthread_cancel(t);
		pthread_join(t, &result);
		bad = result != PTHREAD_CANCELED ? 3 : c.starts != c.ends ? 4 : 0;
	}
	unlink(path);
	return bad ? bad : registers_anew() ? 5 : 0;
}

/* --- waited for by all threads -------------------------------------------------------------------- */

static atomic_int waits, has_set;

static void wait_for_setuid(struct counter *c)
{
	(void)c;
	reach(&waits, 1);
	await(&has_set, 1);
}

static void *sets_user(void *unused)
{
	(void)unused;
	await(&waits, 1);
	if (setuid(getuid()))
		_exit(9);
	reach(&has_set, 1);
	return NULL;
}

/* libc has each thread do it, by a signal. */
static int setuid_waited_for(void)
{
	static BY_HAND(c);
	pthread_t t;

	c.in_start = wait_for_setuid;
	enter(&c);
	pthread_create(&t, NULL, sets_user, NULL);
	change();
	return pthread_join(t, NULL) ? 1 : c.ends != 1;
}

/* --- children that are in no change --------------------------------------------------------------- */

static int registers_there(void *unused)
{
	static COUNTER(own);

	(void)unused;
	if (shunt_mmu_notifier_register(&own.n))
		_exit(1);
	change();
	/* To return would end this thread alone. */
	_exit(own.starts != 1 || own.ends != 1 ? 2 : shunt_mmu_notifier_unregister(&own.n) ? 3 : 0);
}

/* It begins in the middle of a fork that is told, on another stack. */
static int child_on_own_stack(void)
{
	char *stack = map(1 << 20);
	static COUNTER(c);
	int r;

	c.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&c);
	r = exit_of(clone(registers_there, stack + (1 << 20), SIGCHLD, NULL));
	shunt_mmu_sync(); /* clone() has no tables to unwind by, so it counts as called by libc */
	return r ? r : c.starts != 1 || c.ends != 1 ? 8 : registers_anew() ? 9 : 0;
}

static int asked;

static int young(struct shunt_mmu_notifier *n, uintptr_t start, uintptr_t end)
{
	(void)n;
	(void)start;
	(void)end;
	asked++;
	return 1;
}

/* A callback of its parent's is under way on the library's thread, which is not here. */
static int bare_child_asks(void)
{
	static const struct shunt_mmu_notifier_ops ops = {.invalidate_range_start = counter_start,
		.invalidate_range_end = counter_end, .clear_flush_young = young};
	struct shunt_mmu_op op = {.range = {{SOMEWHERE, SOMEWHERE + PAGE, 0, SHUNT_MMU_UNMAP}}, .n = 1,
		.context = SHUNT_MMU_IN_LIBC};
	static BY_HAND(c);
	pid_t pid;
	int r;

	c.n.ops = &ops;
	c.stay = 1;
	enter(&c);
	if (!shunt_mmu_op_begin(&op))
		return 1;
	shunt_mmu_op_end(&op, 0);
	pid = (pid_t)syscall(SYS_fork);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shunt_mmu_sync();
		syscall(SYS_exit_group, shunt_mmu_clear_flush_young((void *)SOMEWHERE, PAGE) || asked ? 2L : 0L);
	}
	r = exit_of(pid);
	c.stay = 0;
	shunt_mmu_sync();
	return r ? r : c.starts != 1 || c.ends != 1 ? 3 : 0;
}

static int fork_that_fails(void)
{
	static COUNTER(c);
	struct rlimit r = {0, 0};
	pid_t pid;

	c.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&c);
	errno = ENOTTY;
	pid = fork();
	if (!pid)
		_exit(errno == ENOTTY ? 0 : 1);
	if (pid < 0 || errno != ENOTTY || exit_of(pid))
		return 1;
	if (c.ends != 1 || (c.flags & SHUNT_MMU_FAILED))
		return 2;
	/* The limit is not root's. */
	if (setresuid(65534, 65534, 65534) && !geteuid())
		return 0;
	setrlimit(RLIMIT_NPROC, &r);
	pid = fork();
	if (!pid)
		_exit(0);
	if (pid > 0)
		return exit_of(pid); /* nothing stops it here */
	return errno != EAGAIN || c.ends != 2 || !(c.flags & SHUNT_MMU_FAILED) ? 3 : 0;
}

static atomic_int both;

/* Begins when the other one is there. */
static int unmap_nothing(void *unused)
{
	(void)unused;
	both++;
	await(&both, 2);
	for (int i = 0; i < 200000; i++)
		syscall(SYS_munmap, SOMEWHERE, PAGE);
	return 0;
}

/* The child has the thread-local variables of the thread that made it. */
static int shares_memory(void)
{
	char *stack = map(1 << 20);
	static COUNTER(c);
	pid_t pid;

	c.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&c);
	pid = clone(unmap_nothing, stack + (1 << 20), CLONE_VM | SIGCHLD, NULL);
	unmap_nothing(NULL);
	return exit_of(pid) ? 1 : registers_anew() ? 2 : 0;
}

/* Its stack may lie above its parent's, which is in a callback. */
#define HALF (256ul << 10)
static char *two_stacks;
static int child_status = -1;

static int unmaps_page(void *at)
{
	return munmap(at, PAGE);
}

static void make_child_above(struct counter *c)
{
	(void)c;
	child_status = exit_of(clone(unmaps_page, two_stacks + 2 * HALF, CLONE_VM | CLONE_VFORK | SIGCHLD, map(PAGE)));
}

static int child_above(void)
{
	static COUNTER(beside);
	static BY_HAND(c);
	ucontext_t here, there;

	two_stacks = map(2 * HALF);
	c.in_start = make_child_above;
	enter(&c);
	enter(&beside);
	getcontext(&there);
	there.uc_stack = (stack_t){.ss_sp = two_stacks, .ss_size = HALF};
	there.uc_link = &here;
	makecontext(&there, change, 0);
	swapcontext(&here, &there);
	shunt_mmu_sync();
	return child_status ? 1 : c.starts != 1 || c.ends != 1 ? 2 : beside.starts < 2 || beside.starts != beside.ends ? 3 : 0;
}

/* --- what is refused, what comes later -------------------------------------------------------- */

static struct shunt_mmu_interval interval;

static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)i;
	(void)e;
	(void)seq;
}

static const struct shunt_mmu_interval_ops interval_ops = {.invalidate = invalidate};

/* Of one's own change: whoever is told of it would do as well, but keeps the places armed. */
static int first_interval_inside(void)
{
	struct shunt_mmu_change c;
	int r;

	interval.ops = &interval_ops;
	interval.flags = SHUNT_MMU_PARTIAL;
	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, SOMEWHERE, SOMEWHERE + PAGE, 0);
	r = shunt_mmu_interval_insert(&interval, SOMEWHERE, PAGE);
	shunt_mmu_change_end(&c, false, 0);
	return r != -EDEADLK || interval.node;
}

#ifndef SANITIZED
static void nothing(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)p;
	(void)r;
}

/* The return address that a change comes with is the probe's then. */
static int return_probe(void)
{
	char *volatile block = malloc(4 << 20);
	struct shunt_probe_result res;
	struct shunt_probe probe = {.addr = (void *)(uintptr_t)munmap, .ret = nothing};
	char *p = map(PAGE);
	static COUNTER(c);

	only_at(&c, block);
	enter(&c);
	if (shunt_probe_register(&probe, &res))
		return 1;
	free(block);
	shunt_mmu_sync();
	if (c.starts != 1 || c.ends != 1 || !(c.flags & SHUNT_MMU_HANDED))
		return 2;
	c.flags = 0;
	only_at(&c, p);
	munmap(p, PAGE);
	if (c.starts != 2 || (c.flags & SHUNT_MMU_HANDED))
		return 3;
	return shunt_probe_unregister(&probe);
}
#endif

static int backward_change(void)
{
	struct shunt_mmu_change c;

	return shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, 0x1800, 0x1200, 0) != -EINVAL ||
	       shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, 0x1800, 0x1800, 0) != -EINVAL;
}

/* How many calls there are by coverage that are not seen. */
static unsigned not_seen(void)
{
	static struct shunt_mmu_coverage c;
	const char *n;

	if (shunt_mmu_coverage(&c))
		return 1000000;
	n = strchr(c.source[SHUNT_MMU_SRC_RAW].why, '(');
	return n ? (unsigned)strtoul(n + 1, NULL, 10) : 0; /* "none in .." is 0, too */
}

static int loaded_later(void)
{
	static COUNTER(first);
	static COUNTER(second);
	long (*unmap)(void *, size_t);
	unsigned before;
	void *object;
	char *p;

	first.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&first);
	before = not_seen();
	object = dlopen(later, RTLD_NOW);
	if (!object)
		return 1;
	*(void **)&unmap = dlsym(object, "unmap_later");
	if (not_seen() != before + 1)
		return 4;
	enter(&second);
	if (not_seen() != before)
		return 5;
	p = map(PAGE);
	only_at(&second, p);
	if (unmap(p, PAGE))
		return 2;
	return second.starts != 1 || second.ends != 1 ? 3 : 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "mask"))
		return mask_is_empty();
	later = argv[1];
	in_child(large_thread_variables, "many thread-local variables: registers");
#ifndef SANITIZED
	in_child(no_memory, "no memory: what libc frees is told, and nothing waits for ever");
#endif
	in_child(no_descriptors, "no descriptors: refused, and later everything is found");
	in_child(exec_keeps_mask, "what is executed by hand has the program's signal mask");
	in_child(exec_of_vfork_child, "a vfork child's exec by hand is not told, and leaves nothing open");
	in_child(exec_from_libc, "execl() is told at once, and waits for as long as a callback sleeps");
	in_child(exit_by_hand, "exit_group by hand: release");
	in_child(exit_in_unregister, "a handler that exits in the middle of unregister waits for nobody");
	in_child(exit_beside_exit, "another one who exits waits for releases");
	in_child(handler_jumps, "a handler that came during the change may jump away");
	in_child(cancelled_thread, "a thread that was cancelled does not end in a callback");
	in_child(cancelled_in_register, "nor in register and unregister, with a lock that all others wait for");
	in_child(cancelled_in_open, "cancelled while told, libc's type asynchronous: ends behind the call, keeps no descriptor");
	in_child(cancelled_signal_held, "cancelled, the signal for it blocked: callbacks may sleep");
	in_child(cancelled_while_held, "cancelled before the first start: callbacks may sleep, and take masks away");
	in_child(setuid_waited_for, "a callback may wait for who calls setuid()");
	in_child(child_on_own_stack, "a child on a stack of its own is in no callback: it may register");
	in_child(bare_child_asks, "a child by the bare system call waits for no callback of its parent's, and asks nobody");
	in_child(fork_that_fails, "a fork that failed says so, and errno is what it was");
	in_child(shares_memory, "a child that shares the memory, beside its parent, leaves nothing open");
	in_child(child_above, "one that a callback makes, on a stack above it, has jumped away from nothing");
	in_child(first_interval_inside, "the first interval from inside of a change: -EDEADLK");
	in_child(backward_change, "a change that ends before it starts: -EINVAL");
#ifndef SANITIZED
	in_child(return_probe, "munmap's return is probed: what is libc's own is handed over all the same");
#endif
	in_child(loaded_later, "what was loaded later is seen by who registers later");
	return done();
}
