/* SPDX-License-Identifier: MIT */
/*
 * sandbox.c - where the kernel refuses what the library asks of it, from before the first one registers, or from
 * after that: either it works all the same, or register says what was refused, and nothing has changed.
 */
#include <sys/resource.h>

#include "armed.h"
#include "child.h"
#include "rcu/look.h"
#include "refuse.h"

static void *ends(void *arg)
{
	return arg;
}

/* --- each call ---------------------------------------------------------------------------- */

#define CALL(name) {#name, SYS_##name}
/* What the library calls, or a libc of it, but for what no program can do without. */
static const struct {
	const char *name;
	long nr;
} call[] = {CALL(read), CALL(close), CALL(fstat), CALL(lseek), CALL(mmap), CALL(mprotect), CALL(munmap),
	CALL(rt_sigaction), CALL(ioctl), CALL(pread64), CALL(pwrite64), CALL(sched_yield), CALL(mremap),
	CALL(madvise), CALL(gettid), CALL(openat), CALL(getdents64), CALL(tgkill), CALL(set_robust_list),
	CALL(process_vm_readv), CALL(memfd_create), CALL(membarrier), CALL(userfaultfd), CALL(clone3),
	CALL(sigaltstack), CALL(getrandom), CALL(fstatfs), CALL(clock_gettime), CALL(ftruncate)};

static struct {
	long nr;
	unsigned err;
	bool late;
} refused;
static atomic_bool over;

/* So that the program is not alone with itself: patching must be done another way then. */
static void *allocates(void *unused)
{
	while (!over) {
		free(malloc(300000));
		sched_yield();
	}
	return unused;
}

/* The kinds of calls that programs make; whether a munmap of ours was told. */
static bool work(struct counter *c, char *p)
{
	pthread_t t;
	pid_t pid;
	int before;

	madvise(p, PAGE, MADV_DONTNEED);
	mprotect(p, PAGE, PROT_READ);
	if (!pthread_create(&t, NULL, ends, NULL))
		pthread_join(t, NULL);
	pid = fork();
	if (!pid)
		_exit(0);
	if (pid > 0 && exit_of(pid))
		return false;
	free(malloc(1 << 20));
	before = c->starts;
	munmap(p, 2 * PAGE);
	return c->starts > before;
}

static int one_refused(void)
{
	static COUNTER(c);
	char *p = map(2 * PAGE);
	pthread_t t;
	int r;

	if (pthread_create(&t, NULL, allocates, NULL))
		return 1;
	c.from = (uintptr_t)p;
	c.to = c.from + 2 * PAGE;
	if (!refused.late && !refuse(refused.nr, refused.err))
		return 6;
	r = shunt_mmu_notifier_register(&c.n);
	if (r) {
		if (refused.late || armed() || c.releases)
			return 2;
		/* And it says that it is not registered. */
		return shunt_mmu_notifier_unregister(&c.n) == -ENOENT && !work(&c, p) ? 40 : 3;
	}
	if (refused.late && !refuse(refused.nr, refused.err))
		return 6;
	if (!work(&c, p))
		return 4;
	shunt_mmu_sync();
	if (shunt_mmu_notifier_unregister(&c.n) || c.starts != c.ends || c.releases != 1)
		return 5;
	return 0;
}

static void each_call(void)
{
	for (size_t i = 0; i < sizeof call / sizeof call[0]; i++) {
		int bad = 0, no = 0, status;

		for (unsigned k = 0; k < 4; k++) {
			refused.nr = call[i].nr;
			refused.err = k & 1 ? ENOSYS : EPERM;
			refused.late = k & 2;
			status = run_child(one_refused);
			if (WIFEXITED(status) && WEXITSTATUS(status) == 40)
				no++;
			else if (status)
				bad = status;
		}
		ok(!bad, "%s is refused: %s", call[i].name, no ? "so is who registers" : "it works all the same");
		if (bad)
			diag_status(bad);
	}
}

/* --- single ones ---------------------------------------------------------------------------- */

static int stacked_child(void)
{
	_exit(7);
}

/* Behind the call the child returns to what its stack begins with. */
static pid_t clone3_with_stack(void)
{
	char *stack = map(16 * PAGE);
	uint64_t args[11] = {[4] = SIGCHLD, [5] = (uint64_t)(uintptr_t)stack, [6] = 15 * PAGE};
	int (*child_fn)(void) = stacked_child;

	memcpy(stack + 15 * PAGE, &child_fn, sizeof child_fn);
	return (pid_t)syscall(SYS_clone3, args, sizeof args);
}

/* What a call's arguments point to is found also where the fast way is refused, and no file can be opened. */
static int sandboxed(void)
{
	struct rlimit none = {0, 0};
	static COUNTER(c);
	pthread_t t;
	pid_t pid;

	c.n.kinds = 1u << SHUNT_MMU_FORK;
	enter(&c);
	if (!refuse(SYS_process_vm_readv, EPERM))
		return 6;
	setrlimit(RLIMIT_NOFILE, &none);
	if (pthread_create(&t, NULL, ends, NULL) || pthread_join(t, NULL) || c.starts)
		return 1;
	pid = clone3_with_stack();
	if (pid < 0 || exit_of(pid) != 7)
		return 2;
	return c.starts != 1 || c.ends != 1 ? 3 : 0;
}

static atomic_int spins;

static void *spin(void *unused)
{
	(void)unused;
	spins = (int)syscall(SYS_gettid);
	while (spins)
		;
	return NULL;
}

static bool never(uintptr_t pc, long nr, const uint64_t *arg)
{
	(void)pc;
	(void)nr;
	(void)arg;
	return false;
}

/* A thread that always runs has to be asked where it is. */
static int not_asked(void)
{
	struct shunt_spots none = {0};
	struct shunt_look l;
	pthread_t t;
	int r, why = -1;

	if (shunt_look_begin(&l, &none) || !refuse(SYS_rt_tgsigqueueinfo, EPERM))
		return 1;
	l.inside = never;
	pthread_create(&t, NULL, spin, NULL);
	while (!spins)
		sched_yield();
	r = shunt_look_try(&l, 10);
	for (size_t i = 0; i < l.room; i++)
		if (l.t[i].tid == spins)
			why = l.t[i].why;
	shunt_look_end(&l);
	return r != -EAGAIN ? 2 : why != SHUNT_UNSEEN_REFUSED ? 3 : 0;
}

static int no_seccomp(void)
{
	return !refuse(SYS_sync, EPERM);
}

int main(void)
{
	if (run_child(no_seccomp)) {
		skip("no seccomp here");
		return done();
	}
	each_call();
	in_child(sandboxed, "no descriptors either: a thread is no fork, and a child has its stack");
	in_child(not_asked, "nobody may be asked: it is said so");
	return done();
}
