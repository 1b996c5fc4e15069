/* SPDX-License-Identifier: MIT */
/* stepper.c - see stepper.h. */
#include "stepper.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

extern char victim_returned[];

enum { TAKE, STEP, RUN, SIGNAL, LET_GO };

struct ask {
	int what, tid;
	uint32_t n;
	uintptr_t pc;
};

static int line = -1;
static pid_t tracer;
static int asker;
static struct stepper_trace *trace;

/* --- the other process ----------------------------------------------------------------- */

/* Signals of others that came while it was stepped: afterwards. */
static siginfo_t late[16];
static int late_for[16], nlate;

static void keep(int tid)
{
	if (nlate < 16 && !ptrace(PTRACE_GETSIGINFO, tid, 0, &late[nlate]))
		late_for[nlate++] = tid;
}

static void send_late(int tid)
{
	for (int i = 0; i < nlate; i++) {
		if (late_for[i] != tid)
			continue;
		syscall(SYS_rt_tgsigqueueinfo, asker, tid, late[i].si_signo, &late[i]);
		late_for[i] = late_for[--nlate];
		late[i--] = late[nlate];
	}
}

/* Waits until it has trapped; *real: at a breakpoint. */
static int await_trap(int tid, enum __ptrace_request how, bool *real)
{
	int status;

	for (;;) {
		siginfo_t si;

		if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
			return -ECHILD;
		if (status >> 16) { /* a stop of the tracer's own kind */
			ptrace(how, tid, 0, 0);
			continue;
		}
		if (WSTOPSIG(status) == SIGTRAP && !ptrace(PTRACE_GETSIGINFO, tid, 0, &si)) {
			*real = si.si_code == SI_KERNEL;
			return 0;
		}
		keep(tid);
		ptrace(how, tid, 0, 0);
	}
}

/* pushf would show the program the flag by which it is stepped. */
static void hide_flag(int tid)
{
	struct user_regs_struct r;
	long flags;

	ptrace(PTRACE_GETREGS, tid, 0, &r);
	flags = ptrace(PTRACE_PEEKDATA, tid, r.rsp, 0);
	ptrace(PTRACE_POKEDATA, tid, r.rsp, flags & ~0x100l);
}

static uintptr_t pc_of(int tid)
{
	struct user_regs_struct r;

	return ptrace(PTRACE_GETREGS, tid, 0, &r) ? 0 : r.rip;
}

static int step(int tid, int sig, bool *real)
{
	uint8_t op = (uint8_t)ptrace(PTRACE_PEEKTEXT, tid, pc_of(tid), 0);
	int r;

	if (ptrace(PTRACE_SINGLESTEP, tid, 0, sig))
		return -errno;
	r = await_trap(tid, PTRACE_SINGLESTEP, real);
	if (!r && !sig && !*real && op == 0x9c)
		hide_flag(tid);
	return r;
}

/* A breakpoint that it meets is for its own handler. */
static int record(int tid)
{
	bool real;
	int r = await_trap(tid, PTRACE_CONT, &real); /* the gate */

	trace->n = 0;
	for (real = false; !r;) {
		uintptr_t pc = pc_of(tid);

		if (pc == (uintptr_t)victim_returned)
			return 0;
		/* Behind a breakpoint it is nowhere yet. */
		if (!real && trace->n < STEPPER_MAX)
			trace->pc[trace->n++] = pc;
		r = step(tid, real ? SIGTRAP : 0, &real);
	}
	return r;
}

static int debug_register(int tid, unsigned i, uintptr_t to)
{
	return ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[i]), to) ? -errno : 0;
}

/* At full speed, by the processor's own breakpoints: here, and at the end. */
static int go_on(int tid, uintptr_t to, uint32_t nth)
{
	bool real;
	int r = await_trap(tid, PTRACE_CONT, &real); /* the gate */

	if (!r)
		r = debug_register(tid, 0, to);
	if (!r)
		r = debug_register(tid, 1, (uintptr_t)victim_returned);
	if (!r)
		r = debug_register(tid, 7, 5);
	for (real = false; !r;) {
		uintptr_t pc;

		if (ptrace(PTRACE_CONT, tid, 0, real ? SIGTRAP : 0))
			return -errno;
		r = await_trap(tid, PTRACE_CONT, &real);
		pc = pc_of(tid);
		if (!r && !real && pc == (uintptr_t)victim_returned)
			r = -ENOENT;
		if (!r && !real && pc == to && !--nth)
			break;
	}
	debug_register(tid, 7, 0);
	return r;
}

static long answer(const struct ask *a)
{
	bool real;

	switch (a->what) {
	case TAKE:
		return ptrace(PTRACE_SEIZE, a->tid, 0, 0) ? -errno : 0;
	case STEP:
		return go_on(a->tid, a->pc, a->n);
	case RUN:
		return record(a->tid);
	case SIGNAL:
		return step(a->tid, (int)a->n, &real);
	default:
		if (ptrace(PTRACE_DETACH, a->tid, 0, 0))
			return -errno;
		send_late(a->tid);
		return 0;
	}
}

static void serve(int fd)
{
	struct ask a;
	long r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(fd, &a, sizeof a) == sizeof a) {
		r = answer(&a);
		if (write(fd, &r, sizeof r) != sizeof r)
			break;
	}
	_exit(0);
}

/* --- this one --------------------------------------------------------------------------- */

struct stepper_trace *stepper_start(void)
{
	int fd[2];

	trace = mmap(NULL, sizeof *trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	asker = getpid();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return NULL;
	tracer = fork();
	if (!tracer)
		close(fd[0]), serve(fd[1]);
	close(fd[1]);
	line = fd[0];
	prctl(PR_SET_PTRACER, tracer, 0, 0, 0);
	return tracer > 0 ? trace : NULL;
}

void stepper_end(void)
{
	close(line);
	waitpid(tracer, NULL, 0);
}

static long ask(int what, int tid, uintptr_t pc, uint32_t n)
{
	struct ask a = {what, tid, n, pc};
	long r;

	if (write(line, &a, sizeof a) != sizeof a || read(line, &r, sizeof r) != sizeof r)
		abort();
	return r;
}

int stepper_take(int tid)
{
	return (int)ask(TAKE, tid, 0, 0);
}

int stepper_step(int tid, uintptr_t pc, uint32_t nth)
{
	return (int)ask(STEP, tid, pc, nth);
}

int stepper_run(int tid)
{
	return (int)ask(RUN, tid, 0, 0);
}

int stepper_signal(int tid, int sig)
{
	return (int)ask(SIGNAL, tid, 0, (uint32_t)sig);
}

int stepper_let_go(int tid)
{
	return (int)ask(LET_GO, tid, 0, 0);
}
