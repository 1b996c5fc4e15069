/* SPDX-License-Identifier: MIT */
/*
 * inquire.c - see inquire.h. The handler runs in any thread at any instruction: no
 * libc, no errno, no vector registers.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <time.h>
#include <ucontext.h>

#include "arch/x86_64/text_sys.h"
#include "rcu/inquire.h"

#define SA_RESTORER_ 0x04000000ul
#define CODE	     -77 /* of our siginfo; kill() and timers have others */
#define MAGIC	     0x5caull
#define LOWEST	     35 /* some of the first ones are libc's own */
#define HIGHEST	     63 /* the very last one is what programs take that want the last one */
#define PATIENCE_NS  5000000L

enum { FREE, SENT, CLAIMED, READY, DONE, LEFT, STATES = 8 };

struct kernel_sigaction {
	uintptr_t handler;
	uint64_t flags;
	uintptr_t restorer;
	uint64_t mask;
};

void shunt_sigreturn(void); /* sigtrap.c */

static struct shunt_inquiry slots[SHUNT_INQUIRE_SLOTS];
static uint32_t answers, number;
static struct kernel_sigaction theirs; /* the program's action for our signal */
static int wanted;
int shunt_inquire_signal;
uint64_t shunt_inquire_sent;

/* --- the thread's side -------------------------------------------------------------------- */

static int action(int sig, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	return (int)shunt_sys(SYS_rt_sigaction, sig, act, old, 8);
}

/* Not a question: what the program would have got, had we not taken the signal. */
static void deliver(int sig, siginfo_t *si, void *uc)
{
	struct kernel_sigaction a = theirs, dfl = {.handler = (uintptr_t)SIG_DFL};
	uint64_t bit = 1ull << (sig - 1);

	if (a.handler == (uintptr_t)SIG_IGN)
		return;
	if (a.handler != (uintptr_t)SIG_DFL) {
		shunt_sys(SYS_rt_sigprocmask, SIG_SETMASK,
			&((ucontext_t *)uc)->uc_sigmask, 0, 8);
		a.mask |= a.flags & SA_NODEFER ? 0 : bit;
		shunt_sys(SYS_rt_sigprocmask, SIG_BLOCK, &a.mask, 0, 8);
		((void (*)(int, siginfo_t *, void *))a.handler)(sig, si, uc);
		return;
	}
	action(sig, &dfl, NULL);
	shunt_sys(SYS_tgkill, shunt_sys(SYS_getpid), shunt_sys(SYS_gettid), sig);
	shunt_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, 0, 8);
}

static void answer(struct shunt_inquiry *q, uint32_t n, const ucontext_t *uc)
{
	struct timespec patience = {.tv_nsec = PATIENCE_NS};
	uint32_t sent = n | SENT, ready = n | READY;

	if (!__atomic_compare_exchange_n(&q->state, &sent, n | CLAIMED, false, __ATOMIC_ACQUIRE,
		    __ATOMIC_RELAXED))
		return;
	for (int i = 0; i < SHUNT_INQUIRE_REGS; i++)
		q->reg[i] = (uint64_t)uc->uc_mcontext.gregs[i];
	/* Pairs with the load in next(): the registers are there. */
	__atomic_store_n(&q->state, ready, __ATOMIC_RELEASE);
	__atomic_add_fetch(&answers, 1, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &answers, FUTEX_WAKE_PRIVATE, 1);
	while (__atomic_load_n(&q->state, __ATOMIC_ACQUIRE) == ready)
		if (shunt_sys(SYS_futex, &q->state, FUTEX_WAIT_PRIVATE, ready, &patience) == -ETIMEDOUT)
			__atomic_compare_exchange_n(&q->state, &ready, n | LEFT, false,
				__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void handler(int sig, siginfo_t *si, void *uc)
{
	uint64_t v = (uint64_t)(uintptr_t)si->si_value.sival_ptr;
	unsigned slot = v & 0xffff;

	if (si->si_code != CODE || v >> 48 != MAGIC || slot >= SHUNT_INQUIRE_SLOTS)
		deliver(sig, si, uc);
	else
		answer(&slots[slot], (uint32_t)(v >> 16), uc);
}

/* --- the asker's side ---------------------------------------------------------------------- */

static int install(int sig)
{
	struct kernel_sigaction now, mine = {
		.handler = (uintptr_t)handler,
		.flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | SA_RESTORER_,
		.restorer = (uintptr_t)shunt_sigreturn,
		.mask = ~(1ull << (SIGTRAP - 1)),
	};
	int r = action(sig, NULL, &now);

	if (r || now.handler == (uintptr_t)handler)
		return r;
	theirs = now;
	r = action(sig, &mine, NULL);
	if (!r)
		shunt_inquire_signal = sig;
	return r;
}

/* A real-time signal that nobody uses, from the upper end. */
static int install_free(void)
{
	struct kernel_sigaction now;

	for (int s = HIGHEST; s >= LOWEST; s--)
		if (!action(s, NULL, &now) && now.handler == (uintptr_t)SIG_DFL)
			return install(s);
	return -EBUSY;
}

/*
 * A signal that was asked for is taken from whoever has it, and shared with him; one that
 * we found and that the program has set since is left to it.
 */
int shunt_inquire_prepare(void)
{
	struct kernel_sigaction now;

	if (wanted)
		return install(wanted);
	if (shunt_inquire_signal && !action(shunt_inquire_signal, NULL, &now) &&
		now.handler == (uintptr_t)handler)
		return 0;
	return install_free();
}

void shunt_inquire_use(int sig)
{
	wanted = sig;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	shunt_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The thread's slot, or a free one. */
static int slot_for(int tid)
{
	int free_one = -EAGAIN;

	for (int i = 0; i < SHUNT_INQUIRE_SLOTS; i++) {
		if (slots[i].tid == tid)
			return i;
		if (!slots[i].tid && free_one < 0)
			free_one = i;
	}
	return free_one;
}

int shunt_inquire_send(int tid)
{
	siginfo_t si = {.si_code = CODE};
	int i = slot_for(tid);
	struct shunt_inquiry *q;
	uint32_t n;
	long r;

	if (i < 0)
		return i;
	q = &slots[i];
	if (q->tid)
		return i; /* the signal is blocked, or not delivered yet */
	n = (++number & 0xffffff) * STATES;
	q->tid = tid;
	q->sent_ns = now_ns();
	__atomic_store_n(&q->state, n | SENT, __ATOMIC_RELEASE);
	si.si_signo = shunt_inquire_signal;
	si.si_value.sival_ptr = (void *)(uintptr_t)(MAGIC << 48 | (uint64_t)n << 16 | (unsigned)i);
	r = shunt_sys(SYS_rt_tgsigqueueinfo, shunt_sys(SYS_getpid), tid, shunt_inquire_signal, &si);
	if (r) {
		q->tid = 0;
		return (int)r;
	}
	__atomic_add_fetch(&shunt_inquire_sent, 1, __ATOMIC_RELAXED);
	return i;
}

struct shunt_inquiry *shunt_inquire_slot(int slot)
{
	return &slots[slot];
}

int shunt_inquire_next(unsigned from)
{
	for (; from < SHUNT_INQUIRE_SLOTS; from++) {
		struct shunt_inquiry *q = &slots[from];
		uint32_t s = q->tid ? __atomic_load_n(&q->state, __ATOMIC_ACQUIRE) % STATES : FREE;

		if (s == READY)
			return (int)from;
		if (s == LEFT)
			q->tid = 0; /* asked again, another time */
	}
	return -1;
}

bool shunt_inquire_done(int slot)
{
	struct shunt_inquiry *q = &slots[slot];
	uint32_t s = __atomic_load_n(&q->state, __ATOMIC_ACQUIRE), ready = s - s % STATES + READY;
	/* Pairs with the exchange in answer(): all that was read of the thread was
	 * read before it went on. */
	bool r = __atomic_compare_exchange_n(&q->state, &ready, s - s % STATES + DONE, false,
		__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);

	if (r)
		shunt_sys(SYS_futex, &q->state, FUTEX_WAKE_PRIVATE, 1);
	q->tid = 0;
	return r;
}

uint32_t shunt_inquire_answers(void)
{
	return __atomic_load_n(&answers, __ATOMIC_ACQUIRE);
}

void shunt_inquire_wait(uint32_t seen, uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	shunt_sys(SYS_futex, &answers, FUTEX_WAIT_PRIVATE, seen, &t);
}

void shunt_inquire_reap(bool (*alive)(int tid, void *arg), void *arg)
{
	for (int i = 0; i < SHUNT_INQUIRE_SLOTS; i++)
		if (slots[i].tid && !alive(slots[i].tid, arg))
			slots[i].tid = 0;
}

void shunt_inquire_forget(void)
{
	for (int i = 0; i < SHUNT_INQUIRE_SLOTS; i++)
		slots[i].tid = 0;
}
