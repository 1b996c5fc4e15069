/* SPDX-License-Identifier: MIT */
/*
 * stop.c - the strategy that stops all other threads.
 *
 * A helper process that shares our memory (clone with CLONE_VM, not a thread:
 * the kernel lets no thread trace its own group) seizes and interrupts every
 * other thread with ptrace, again and again until no new one turns up: the
 * threads that could make new ones are stopped. Then it looks where each stands:
 *
 *   strictly inside a site whose old bytes are NOPs    moved behind it
 *   the same, with a SIGTRAP on its way                let go, tried again
 *   strictly inside another site                       let go, tried again
 *   may come back to inside a site from a signal       let go, tried again
 *   handler (a word on its stack says so)
 *
 * Invariant: bytes are written only while every thread but the caller is
 * stopped and none is, or can come back to, strictly inside a site. The caller
 * executes this file. So instructions may be merged and split here, which the
 * other strategies cannot do.
 *
 * Between stopping and letting go there are no locks and no libc: a stopped
 * thread may hold any lock. A stop lasts STOP_MS at most, an attempt that takes
 * longer (a thread in an uninterruptible wait, such as vfork) is given up and
 * repeated until the caller's time is over. The helper's death lets all threads
 * go: that is what the kernel does with a tracer's tracees.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

#include "arch/x86_64/text_arch.h"
#include "arch/x86_64/text_sys.h"
#include "text/threads.h"
#include "text/write.h"

#define STOP_MS 100
#define DEFAULT_MS 1000
#define HELPER_STACK 65536
#define THREADS_MAX 32768
/* How much of each stack is searched for interrupted contexts. */
#define STACK_LOOK 262144

struct tracee {
	int tid;
	bool stopped;
	int signal; /* was about to be delivered: given back on letting go */
	struct user_regs_struct regs;
};

struct helper {
	struct shunt_batch *b;
	struct shunt_writer *w;
	struct shunt_maps maps; /* for the stacks' ends */
	int pid, caller; /* of the program */
	uint32_t go;	 /* futex: we may begin */
	uint32_t alive;	 /* cleared and woken by the kernel when the helper ends */
	bool writing;	 /* some bytes may be written */
	int result;
	int error_tid; /* the thread that stood in the way */
	const char *why;
	uint64_t deadline;
	size_t n;
	struct tracee t[];
};

static uint64_t now_ms(void)
{
	struct timespec ts = {0};

	shunt_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void nap(void)
{
	long ts[2] = {0, 20000};

	shunt_sys(SYS_nanosleep, ts, 0);
}

static int fail(struct helper *h, int err, int tid, const char *why)
{
	h->error_tid = tid;
	h->why = why;
	return err;
}

/* --- stopping and letting go ------------------------------------------------------ */

static bool known(const struct helper *h, int tid)
{
	for (size_t i = 0; i < h->n; i++)
		if (h->t[i].tid == tid)
			return true;
	return false;
}

/* A zombie cannot be seized, and executes nothing. */
static bool is_dead(const struct helper *h, int tid)
{
	char path[64], buf[512], *p;

	snprintf(path, sizeof path, "/proc/%d/task/%d/stat", h->pid, tid);
	if (shunt_proc_read(path, buf, sizeof buf) <= 0)
		return true;
	p = strrchr(buf, ')');
	return !p || p[2] == 'Z' || p[2] == 'X';
}

static int seize(struct helper *h, int tid)
{
	long err;

	if (h->n == THREADS_MAX)
		return fail(h, -E2BIG, tid, "there are too many threads");
	err = shunt_sys(SYS_ptrace, PTRACE_SEIZE, tid, 0, 0);
	/* One that would not stop in an earlier attempt could not be let go and is ours still. */
	if (err == -EPERM && !shunt_sys(SYS_ptrace, PTRACE_INTERRUPT, tid, 0, 0))
		err = 0;
	if (err == -ESRCH || (err && is_dead(h, tid)))
		return 0;
	if (err)
		return fail(h, (int)err, tid, "ptrace is refused");
	shunt_sys(SYS_ptrace, PTRACE_INTERRUPT, tid, 0, 0);
	h->t[h->n++] = (struct tracee){.tid = tid};
	return 0;
}

/* Seizes those threads that are not yet. */
static int seize_new(struct helper *h)
{
	struct shunt_threads threads;
	char process[16];
	int tid, err;

	snprintf(process, sizeof process, "%d", h->pid);
	err = shunt_threads_open(&threads, process);
	if (err)
		return fail(h, err, h->pid, "the list of threads cannot be read");
	while (!err && (tid = shunt_threads_next(&threads)))
		if (tid != h->caller && !known(h, tid))
			err = seize(h, tid);
	shunt_threads_close(&threads);
	return err;
}

/* Waits for one thread to stop; it may end instead. */
static int await(struct helper *h, struct tracee *t, uint64_t until)
{
	int status, spins = 0;

	for (;;) {
		long r = shunt_sys(SYS_wait4, t->tid, &status, __WALL | WNOHANG, 0);

		if (r == t->tid && WIFSTOPPED(status)) {
			t->stopped = true;
			/* Not our interruption but a signal on its way. */
			if (status >> 16 == 0)
				t->signal = WSTOPSIG(status);
			return 0;
		}
		if (r == -ECHILD || r == -ESRCH || r == t->tid) {
			t->tid = -1;
			return 0;
		}
		if (now_ms() >= until)
			return fail(h, -EAGAIN, t->tid, "it does not stop");
		if (++spins > 20)
			nap();
		else
			shunt_sys(SYS_sched_yield);
	}
}

static int stop_all(struct helper *h, uint64_t until)
{
	size_t seen = 0;
	int err;

	h->n = 0;
	for (;;) {
		err = seize_new(h);
		if (err || h->n == seen)
			return err;
		for (; seen < h->n && !err; seen++)
			err = await(h, &h->t[seen], until);
		if (err)
			return err;
	}
}

/* A tracee must be stopped to be let go: those that would not, once they do. */
static void let_go(struct helper *h)
{
	for (size_t i = 0; i < h->n; i++) {
		struct tracee *t = &h->t[i];

		if (t->tid > 0 && t->stopped)
			shunt_sys(SYS_ptrace, PTRACE_DETACH, t->tid, 0, t->signal);
	}
	for (size_t i = 0; i < h->n; i++) {
		struct tracee *t = &h->t[i];
		uint64_t until = now_ms() + 20;

		if (t->tid > 0 && !t->stopped && !await(h, t, until) && t->stopped)
			shunt_sys(SYS_ptrace, PTRACE_DETACH, t->tid, 0, t->signal);
	}
}

/* --- where do they stand? ------------------------------------------------------------ */

/* The pending edit that addr is strictly inside of. */
static const struct shunt_edit *inside(const struct shunt_batch *b, uintptr_t addr)
{
	size_t lo = 0, hi = b->n;

	if (addr <= shunt_edit_start(&b->e[0]) || addr >= shunt_edit_end(&b->e[b->n - 1]))
		return NULL;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (shunt_edit_end(&b->e[mid]) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < b->n && addr > shunt_edit_start(&b->e[lo]) && b->pending[lo] ? &b->e[lo] : NULL;
}

/* Does any word of the stack in use point into a site? (Not all of them are in objects.) */
__attribute__((no_sanitize("address"))) static bool may_come_back(struct helper *h, uintptr_t sp)
{
	struct shunt_vma v;
	uintptr_t end;

	sp = (sp + 7) & -8ul;
	if (shunt_maps_find(&h->maps, sp, &v) || v.start > sp || !(v.flags & SHUNT_VMA_READ))
		return false;
	end = v.end - sp > STACK_LOOK ? sp + STACK_LOOK : v.end;
	for (; sp < end; sp += 8)
		if (inside(h->b, *(volatile uintptr_t *)sp))
			return true;
	return false;
}

/*
 * A SIGTRAP waits for the thread: a breakpoint of an earlier batch, whose handler
 * has not run yet, and which will take one from where the thread stands.
 */
static bool has_trapped(const struct tracee *t)
{
	struct __ptrace_peeksiginfo_args from = {.nr = 1};
	siginfo_t si;

	if (t->signal == SIGTRAP)
		return true;
	for (; shunt_sys(SYS_ptrace, PTRACE_PEEKSIGINFO, t->tid, &from, &si) == 1; from.off++)
		if (si.si_signo == SIGTRAP)
			return true;
	return false;
}

static int move_out(struct helper *h, struct tracee *t)
{
	const struct shunt_edit *e;
	bool whole;
	long err = shunt_sys(SYS_ptrace, PTRACE_GETREGS, t->tid, 0, &t->regs);

	if (err == -ESRCH) { /* killed */
		t->tid = -1;
		return 0;
	}
	if (err)
		return fail(h, (int)err, t->tid, "its registers cannot be read");
	if (may_come_back(h, t->regs.rsp))
		return fail(h, -EAGAIN, t->tid, "it may return into the middle of a site");
	e = inside(h->b, t->regs.rip);
	if (!e)
		return 0;
	if (!shunt_arch_is_nop(e->old, e->len, &whole))
		return fail(h, -EAGAIN, t->tid, "it stands inside a site");
	if (has_trapped(t))
		return fail(h, -EAGAIN, t->tid, "it is about to answer a breakpoint");
	t->regs.rip = shunt_edit_end(e);
	err = shunt_sys(SYS_ptrace, PTRACE_SETREGS, t->tid, 0, &t->regs);
	return err ? fail(h, (int)err, t->tid, "it cannot be moved") : 0;
}

/* --- the helper ------------------------------------------------------------------------ */

static int write_sites(struct helper *h)
{
	struct shunt_batch back = *h->b;
	int err;

	for (size_t i = 0; i < h->b->n; i++) {
		const struct shunt_edit *e = &h->b->e[i];

		if (h->b->pending[i] && memcmp(e->addr, e->old, e->len)) {
			h->b->res->addr = e->addr;
			return fail(h, -EBUSY, 0, "a site was changed meanwhile");
		}
	}
	h->writing = true;
	err = shunt_writer_write(h->w, h->b, SHUNT_WRITE_WHOLE);
	back.undo = true;
	if (err && shunt_writer_write(h->w, &back, SHUNT_WRITE_WHOLE))
		return fail(h, -EIO, 0, "some sites are changed and cannot be put back");
	h->writing = false;
	/* They come back to user space through the kernel's signal path, which
	 * serializes; this is for those that will not be stopped: none. */
	shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	return err ? fail(h, err, 0, "the text cannot be written") : 0;
}

static int attempt(struct helper *h)
{
	uint64_t until = now_ms() + STOP_MS;
	int err = stop_all(h, until < h->deadline ? until : h->deadline);

	for (size_t i = 0; i < h->n && !err; i++)
		if (h->t[i].tid > 0)
			err = move_out(h, &h->t[i]);
	if (!err)
		err = write_sites(h);
	let_go(h);
	return err;
}

static int helper_main(void *arg)
{
	struct helper *h = arg;
	int err;

	while (!__atomic_load_n(&h->go, __ATOMIC_ACQUIRE))
		shunt_sys(SYS_futex, &h->go, FUTEX_WAIT, 0, 0);
	err = shunt_maps_open(&h->maps);
	if (err) {
		fail(h, err, 0, "the mappings cannot be read");
	} else {
		do {
			err = attempt(h);
			if (err == -EAGAIN)
				nap();
		} while (err == -EAGAIN && now_ms() < h->deadline);
		shunt_maps_close(&h->maps);
	}
	__atomic_store_n(&h->result, err, __ATOMIC_RELEASE);
	shunt_sys(SYS_exit, 0);
	return 0;
}

static int run_helper(struct helper *h, char *stack)
{
	int status;
	uint32_t alive = 1;
	/* The flags name no signal: the program sees no SIGCHLD. */
	int pid = clone(helper_main, stack + HELPER_STACK, CLONE_VM | CLONE_CHILD_CLEARTID, h,
		NULL, NULL, &h->alive);

	if (pid < 0)
		return fail(h, -errno, 0, "no helper process can be made");
	/* Yama lets a child trace its parent only if the parent says so. */
	shunt_sys(SYS_prctl, PR_SET_PTRACER, pid, 0, 0, 0);
	__atomic_store_n(&h->go, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &h->go, FUTEX_WAKE, 1, 0);
	/* The kernel clears it when the helper is done with our memory. */
	while ((alive = __atomic_load_n(&h->alive, __ATOMIC_ACQUIRE)))
		shunt_sys(SYS_futex, &h->alive, FUTEX_WAIT, alive, 0);
	shunt_sys(SYS_wait4, pid, &status, __WALL, 0);
	shunt_sys(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
	return h->result;
}

int shunt_stop(struct shunt_batch *b)
{
	size_t size = sizeof(struct helper) + THREADS_MAX * sizeof(struct tracee) + HELPER_STACK;
	struct shunt_writer w;
	struct helper *h;
	long p;
	int err = shunt_writer_open(&w, b);

	if (err)
		return err;
	shunt_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	p = shunt_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shunt_sys_failed(p)) {
		shunt_writer_close(&w);
		return shunt_batch_fail(b, (int)p, NULL, "no memory for the helper");
	}
	h = (struct helper *)p;
	h->b = b;
	h->w = &w;
	h->pid = (int)shunt_sys(SYS_getpid);
	h->caller = (int)shunt_sys(SYS_gettid);
	h->alive = 1;
	h->result = -ESRCH;
	h->why = "the helper process was killed";
	h->deadline = now_ms() + (b->opts->timeout_ms ? b->opts->timeout_ms : DEFAULT_MS);
	err = run_helper(h, (char *)p + size - HELPER_STACK);
	if (err && h->writing)
		err = -EIO;
	if (err)
		shunt_batch_fail(b, err, b->res->addr, "thread %d: %s: %s", h->error_tid, h->why,
			strerror(-err));
	shunt_sys(SYS_munmap, p, size);
	shunt_writer_close(&w);
	return err;
}
