/* SPDX-License-Identifier: MIT */
/*
 * arm.c [CYCLES]: places are armed and disarmed while eight threads map, unmap, allocate, fork and make
 * threads that end and are cancelled; and a call that is under way when somebody registers.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "armed.h"
#include "mmu/coverage.h"
#include "rcu/look.h"
#include "tap.h"

#define PAGE 4096ul

static atomic_bool stop;
static atomic_ulong work[8], wrong;
static atomic_ulong starts, ends;

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
	starts++;
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
	ends++;
}

static const struct shunt_mmu_notifier_ops ops = {
	.invalidate_range_start = start, .invalidate_range_end = end,
};

/* --- eight threads ------------------------------------------------------------------------- */

static void *map(void *at, size_t n, int flags)
{
	return mmap(at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void do_map(void)
{
	char *p = map(NULL, 4 * PAGE, 0);

	*p = 1;
	wrong += map(p, PAGE, MAP_FIXED) != p || *p || mprotect(p, PAGE, PROT_READ) ||
		 madvise(p + PAGE, PAGE, MADV_DONTNEED);
	wrong += munmap(p, 4 * PAGE) || !munmap(p + 1, PAGE);
}

static void do_move(void)
{
	char *p = map(NULL, 2 * PAGE, 0), *q;

	p[PAGE] = 7;
	q = mremap(p, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	wrong += q == MAP_FAILED || q[PAGE] != 7 || munmap(q, 64 * PAGE);
}

static void do_malloc(void)
{
	size_t n = 1 << 20;
	char *p = malloc(n), *q = malloc(300000);

	p[n - 1] = q[299999] = 1;
	free(q);
	free(p);
}

static void *nothing(void *arg)
{
	return arg;
}

static void *endless(void *arg)
{
	int fd = open("/dev/null", O_WRONLY | O_TRUNC | O_CLOEXEC);

	close(fd);
	for (;;)
		pause();
	return arg;
}

static void do_thread(void)
{
	pthread_attr_t a;
	pthread_t t;
	void *got = NULL;
	int there;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 48 << 20); /* more than is kept: unmapped by the end */
	if (pthread_create(&t, &a, nothing, &there) || pthread_join(t, &got) || got != &there)
		wrong++;
	pthread_attr_destroy(&a);
}

static void do_cancel(void)
{
	pthread_t t;
	void *got = NULL;

	if (pthread_create(&t, NULL, endless, NULL))
		return;
	wrong += pthread_cancel(t) || pthread_join(t, &got) || got != PTHREAD_CANCELED;
}

static void do_raw(void)
{
	long p = syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);

	wrong += p < 0 || syscall(SYS_munmap, p, PAGE) || syscall(SYS_getppid) != getppid();
}

static void do_fork(void)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(7);
	if (pid > 0)
		wrong += waitpid(pid, &status, 0) != pid || status != 7 << 8;
}

static void (*const kinds[8])(void) = {do_map, do_move, do_malloc, do_thread, do_cancel, do_raw, do_fork, do_map};

static void *run(void *arg)
{
	size_t i = (size_t)arg;

	while (!stop) {
		kinds[i]();
		work[i]++;
	}
	return NULL;
}

static void storm(unsigned cycles)
{
	struct shunt_mmu_notifier n = {.ops = &ops};
	unsigned bad = 0, left = 0, none = 0;
	pthread_t t[8];

	for (size_t i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, run, (void *)i);
	for (unsigned i = 0; i < cycles; i++) {
		bad += shunt_mmu_notifier_register(&n) != 0;
		none += armed() < 25;
		bad += shunt_mmu_notifier_unregister(&n) != 0;
		left += armed();
	}
	stop = true;
	for (size_t i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	ok(!bad && !none && !left, "%u times on and off, all places each time (%u, %u, %u)", cycles, bad, none,
		left);
	ok(!wrong, "nothing went wrong for eight threads (%lu)", wrong);
	ok(starts == ends && starts, "each start had its end (%lu, %lu)", starts, ends);
	diag("%lu mapped, %lu moved, %lu allocated, %lu threads, %lu cancelled, %lu raw, %lu forks", work[0],
		work[1], work[2], work[3], work[4], work[5], work[6]);
}

/* --- who is inside --------------------------------------------------------------------------- */

/*
 * A handler interrupts a thread at the very `syscall` of munmap, between its number and itself:
 * so that it will go on natively when the handler returns. Who registers meanwhile has to wait.
 */
static uintptr_t syscall_at;
static atomic_int in_handler, may_go, registered, too_early;

static void step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	if ((uintptr_t)u->uc_mcontext.gregs[REG_RIP] != syscall_at)
		return;
	u->uc_mcontext.gregs[REG_EFL] &= ~0x100;
	in_handler = 1;
	while (!may_go)
		;
	too_early = registered;
}

static void *interrupted(void *arg)
{
	void *p = map(NULL, PAGE, 0);

	(void)arg;
	__asm__ volatile("pushfq; orq $0x100,(%%rsp); popfq" ::: "memory", "cc");
	munmap(p, PAGE);
	return NULL;
}

static void *registers(void *arg)
{
	registered = shunt_mmu_notifier_register(arg) ? -1 : 1;
	return NULL;
}

static void test_inside(void)
{
	struct sigaction sa = {.sa_sigaction = step, .sa_flags = SA_SIGINFO | SA_NODEFER};
	struct shunt_mmu_notifier n = {.ops = &ops};
	pthread_t in, by;
	uint64_t tries;

	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++)
		if (shunt_mmu_places[i].nr == SYS_munmap && !shunt_mmu_places[i].loader)
			syscall_at = shunt_mmu_places[i].next;
	sigaction(SIGTRAP, &sa, NULL);
	pthread_create(&in, NULL, interrupted, NULL);
	while (!in_handler)
		sched_yield();
	pthread_create(&by, NULL, registers, &n);
	/* It has patched, and looks at the threads: this one it must not take for one outside. */
	while (*(volatile const uint8_t *)(syscall_at - 5) != 0xe9 && !registered)
		sched_yield();
	tries = shunt_look_tries;
	while (shunt_look_tries < tries + 3 && !registered)
		sched_yield();
	may_go = 1;
	pthread_join(in, NULL);
	pthread_join(by, NULL);
	ok(registered == 1 && !too_early,
		"who registers waits for a thread that is about to make the call unseen");
	shunt_mmu_notifier_unregister(&n);
}

/* Threads take shorter turns, where the kernel has it, so that there are more of them. */
static void shorten_turns(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {.size = 48, .runtime = 100000};

	syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* --- cancellation in a call ------------------------------------------------------------------ */

/* open() and fallocate() are left in the middle by a thread that is cancelled. */
static char name[] = "/tmp/shunt-mmu-XXXXXX";
static int file;
static atomic_int ready;

static void *cut(void *arg)
{
	for (ready = 1;;) {
		int fd = open(name, O_RDWR | O_TRUNC | O_CLOEXEC);

		if (ftruncate(file, 2 * PAGE) ||
			fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
			wrong++;
		close(fd);
	}
	return arg;
}

/* What of ours stays open: descriptors of files in /proc. */
static unsigned left_open(void)
{
	char path[32], to[64];
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		n += readlink(path, to, sizeof to) > 6 && !memcmp(to, "/proc/", 6);
	}
	return n;
}

/* Listening to all, and to nothing that happens. */
static void cancel(uint32_t listen_to, const char *what)
{
	struct shunt_mmu_notifier n = {.ops = &ops, .kinds = listen_to};
	void *got = NULL;
	pthread_t t;

	if (shunt_mmu_notifier_register(&n))
		abort();
	starts = ends = wrong = 0;
	for (int i = 0; i < 60; i++) {
		ready = 0;
		pthread_create(&t, NULL, cut, NULL);
		while (!ready)
			sched_yield();
		for (int k = rand() % 6; k > 0; k--)
			sched_yield();
		wrong += pthread_cancel(t) || pthread_join(t, &got) || got != PTHREAD_CANCELED;
	}
	shunt_mmu_sync();
	ok(starts == ends && !!starts == !listen_to && !wrong, "%s: no pair stays open (%lu, %lu, %lu)", what,
		starts, ends, wrong);
	ok(!shunt_mmu_notifier_unregister(&n) && !shunt_mmu_notifier_register(&n) &&
		!shunt_mmu_notifier_unregister(&n) && !left_open(), "%s: nothing is left open, and nobody waits for what will not come", what);
}

static void test_cancel(void)
{
	void *p;

	file = mkstemp(name);
	p = ftruncate(file, 2 * PAGE) ? MAP_FAILED
		: mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, file, 0);
	if (p == MAP_FAILED)
		abort();
	cancel(0, "threads cancelled in open and fallocate");
	cancel(1u << SHUNT_MMU_EXEC, "the same with nobody concerned");
	munmap(p, 2 * PAGE);
	unlink(name);
}

int main(int argc, char **argv)
{
	shorten_turns();
	/* What is freed goes back at once. */
	mallopt(M_TRIM_THRESHOLD, 4096);
	mallopt(M_MMAP_THRESHOLD, 512 << 10);
	storm(argc > 1 ? (unsigned)atoi(argv[1]) : 60);
	test_inside();
	test_cancel();
	return done();
}
