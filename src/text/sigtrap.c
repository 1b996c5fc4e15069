/* SPDX-License-Identifier: MIT */
/*
 * sigtrap.c - the SIGTRAP handler, and the program's own beside it.
 *
 * Invariant: a table is published before the first of its breakpoints can be
 * hit, and taken back after the last one was overwritten and all cores were
 * serialized. So whoever sees a breakpoint byte in the text while no table, or
 * one without it, is published, knows that it is not ours; and whoever trapped but
 * no longer finds a breakpoint byte came late, and may simply run the site again.
 * "While" is what the generation is for: it changes after a table is published
 * and after it is taken back; a look at table and byte between two equal
 * generations is one look.
 *
 * A table is counted in and out around its use (shunt_trap_idle()); the program's
 * own handler, which may never return, is called outside of that.
 *
 * Signal context throughout: no locks, no libc.
 */
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "arch/x86_64/text_arch.h"
#include "arch/x86_64/text_sys.h"
#include "text/text_internal.h"
#include "text/trap.h"

#define SA_RESTORER_ 0x04000000ul
#define TRAP_BIT (1ull << (SIGTRAP - 1))

struct kernel_sigaction {
	uintptr_t handler;
	uint64_t flags;
	uintptr_t restorer;
	uint64_t mask;
};

static const struct shunt_trap_table *live;
/* Breakpoints that are there to stay: probes (probe/probe.c). */
static const struct shunt_trap_table *standing;
static unsigned generation, in_flight;
static bool installed;

/*
 * What the program asked for. Written whole into a fresh slot, then made the
 * current one: a reader sees one action or another. A slot comes round again
 * after 64 changes.
 */
static struct kernel_sigaction actions[64];
static unsigned actions_next, action_now;

void shunt_sigreturn(void);
__asm__(".text\n.balign 16\n.nops 1\n"
	".globl shunt_sigreturn\n.hidden shunt_sigreturn\n.type shunt_sigreturn,@function\n"
	"shunt_sigreturn:\n\tmov $15, %rax\n\tsyscall\n"
	".size shunt_sigreturn, .-shunt_sigreturn\n");

static int kernel_action(const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	return (int)shunt_sys(SYS_rt_sigaction, SIGTRAP, act, old, 8);
}

static struct kernel_sigaction theirs(void)
{
	return actions[__atomic_load_n(&action_now, __ATOMIC_ACQUIRE)];
}

static void set_theirs(const struct kernel_sigaction *a)
{
	unsigned i = __atomic_add_fetch(&actions_next, 1, __ATOMIC_RELAXED) % 64;

	actions[i] = *a;
	__atomic_store_n(&action_now, i, __ATOMIC_RELEASE);
}

/* --- theirs ------------------------------------------------------------------- */

static void die(void)
{
	struct kernel_sigaction dfl = {.handler = (uintptr_t)SIG_DFL};
	uint64_t bit = TRAP_BIT;

	kernel_action(&dfl, NULL);
	shunt_sys(SYS_tgkill, shunt_sys(SYS_getpid), shunt_sys(SYS_gettid), SIGTRAP);
	shunt_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, 0, 8);
}

/* As the kernel would have done; the mask is restored when our handler returns. */
static void deliver(int sig, siginfo_t *si, void *uc)
{
	struct kernel_sigaction a = theirs();
	uint64_t mask = a.mask | (a.flags & SA_NODEFER ? 0 : TRAP_BIT);
	bool forced = si->si_code > 0;

	if (a.handler == (uintptr_t)SIG_IGN && !forced)
		return;
	if (a.handler == (uintptr_t)SIG_DFL || a.handler == (uintptr_t)SIG_IGN) {
		die();
		return;
	}
	if (a.flags & SA_RESETHAND) {
		struct kernel_sigaction reset = a;

		reset.handler = (uintptr_t)SIG_DFL;
		set_theirs(&reset);
	}
	shunt_sys(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
	((void (*)(int, siginfo_t *, void *))a.handler)(sig, si, uc);
}

/* --- ours ---------------------------------------------------------------------- */

static const struct shunt_trap_entry *lookup(const struct shunt_trap_table *t, uintptr_t addr)
{
	size_t lo = 0, hi = t ? t->n : 0;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (t->e[mid].addr < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return t && lo < t->n && t->e[lo].addr == addr ? &t->e[lo] : NULL;
}

/*
 * Where a thread that trapped at addr goes on, and that into *ip while the table is
 * still held: it may be code that is freed when nobody can be going there. 0 if
 * the trap is not ours.
 */
static uintptr_t answer(uintptr_t addr, greg_t *ip)
{
	const struct shunt_trap_entry *e;
	uintptr_t next = 0;
	unsigned gen;
	uint8_t byte;

	/* Pairs with the fence in shunt_trap_idle(): either it sees us counted
	 * in, or we see that the table is gone. */
	__atomic_fetch_add(&in_flight, 1, __ATOMIC_SEQ_CST);
	do {
		gen = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
		e = lookup(__atomic_load_n(&live, __ATOMIC_ACQUIRE), addr);
		if (!e)
			e = lookup(__atomic_load_n(&standing, __ATOMIC_ACQUIRE), addr);
		byte = __atomic_load_n((const uint8_t *)addr, __ATOMIC_ACQUIRE);
	} while (!e && gen != __atomic_load_n(&generation, __ATOMIC_ACQUIRE));
	if (e) {
		next = e->next;
		*(volatile greg_t *)ip = (greg_t)next;
	}
	__atomic_fetch_sub(&in_flight, 1, __ATOMIC_SEQ_CST);
	if (e || byte == SHUNT_ARCH_TRAP_BYTE)
		return next;
	/* The other encoding, CD 03, never is ours. */
	if (byte == 0x03 && *(volatile const uint8_t *)(addr - 1) == 0xcd)
		return 0;
	return addr;
}

static void handler(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	greg_t *ip = &uc->uc_mcontext.gregs[REG_RIP];
	uintptr_t addr = (uintptr_t)*ip - 1, next = 0;

	/* int3 comes as SI_KERNEL; single steps and kill() do not. */
	if (si->si_code == SI_KERNEL)
		next = answer(addr, ip);
	if (!next) {
		deliver(sig, si, ucv);
		return;
	}
	if (next == addr) {
		/* Let the writer run, were it on this processor. */
		long pause[2] = {0, 20000};

		shunt_sys(SYS_nanosleep, pause, 0);
	}
	*ip = (greg_t)next;
}

static struct kernel_sigaction ours(const struct kernel_sigaction *them)
{
	bool has_handler = them->handler != (uintptr_t)SIG_DFL &&
			   them->handler != (uintptr_t)SIG_IGN;
	uint64_t mirrored = has_handler ? them->flags & (SA_ONSTACK | SA_RESTART)
					: SA_ONSTACK | SA_RESTART;

	return (struct kernel_sigaction){
		.handler = (uintptr_t)handler,
		/* NODEFER: the program's handlers may run into sites as well. */
		.flags = SA_SIGINFO | SA_NODEFER | SA_RESTORER_ | mirrored,
		.restorer = (uintptr_t)shunt_sigreturn,
	};
}

int shunt_trap_install(void)
{
	struct kernel_sigaction now, mine;
	int err = kernel_action(NULL, &now);

	if (err)
		return err;
	if (now.handler == (uintptr_t)handler)
		return 0;
	/* The program's, from before us or put over ours without asking us. */
	set_theirs(&now);
	__atomic_store_n(&installed, true, __ATOMIC_RELEASE);
	mine = ours(&now);
	return kernel_action(&mine, NULL);
}

void shunt_trap_publish(const struct shunt_trap_table *t)
{
	__atomic_store_n(&live, t, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
}

void shunt_trap_standing(const struct shunt_trap_table *t)
{
	__atomic_store_n(&standing, t, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
}

bool shunt_trap_idle(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !__atomic_load_n(&in_flight, __ATOMIC_SEQ_CST);
}

void shunt_trap_forked(void)
{
	__atomic_store_n(&in_flight, 0, __ATOMIC_SEQ_CST);
}

/* --- for interposers -------------------------------------------------------------- */

static void to_kernel(const struct sigaction *a, struct kernel_sigaction *k)
{
	*k = (struct kernel_sigaction){
		.handler = a->sa_flags & SA_SIGINFO ? (uintptr_t)a->sa_sigaction
						    : (uintptr_t)a->sa_handler,
		.flags = (uint64_t)(unsigned)a->sa_flags | SA_RESTORER_,
		.restorer = (uintptr_t)shunt_sigreturn,
		.mask = *(const uint64_t *)&a->sa_mask,
	};
}

static void from_kernel(const struct kernel_sigaction *k, struct sigaction *a)
{
	*a = (struct sigaction){.sa_flags = (int)(k->flags & ~SA_RESTORER_)};
	*(uint64_t *)&a->sa_mask = k->mask;
	if (a->sa_flags & SA_SIGINFO)
		a->sa_sigaction = (void (*)(int, siginfo_t *, void *))k->handler;
	else
		a->sa_handler = (void (*)(int))k->handler;
}

int shunt_text_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct kernel_sigaction new_, prev, mine;
	int err = 0;

	if (sig != SIGTRAP)
		return -EINVAL;
	if (act)
		to_kernel(act, &new_);
	if (!__atomic_load_n(&installed, __ATOMIC_ACQUIRE)) {
		err = kernel_action(act ? &new_ : NULL, &prev);
	} else {
		prev = theirs();
		if (act) {
			set_theirs(&new_);
			mine = ours(&new_);
			err = kernel_action(&mine, NULL);
		}
	}
	if (!err && old)
		from_kernel(&prev, old);
	return err;
}
