/* SPDX-License-Identifier: MIT */
/*
 * basics.c - what each function says; tickets in their order, over the ends of the
 * counters; who sleeps while the mode is switched; registers; fork.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <shunt/lock.h>

#include "base/clock.h"
#include "../turns.h"
#include "lock/lock.h"
#include "lock/word.h"
#include "tap.h"

#define WAITERS 40 /* more than there are bits for tickets */

static struct shunt_lock lock = SHUNT_LOCK_INIT;

static void first(enum shunt_lock_modes mode)
{
	static struct shunt_lock zero;
	bool good = true;

	ok(!shunt_lock_set_mode(mode) && shunt_lock_get_mode() == mode, "mode %d", mode);
	for (uint64_t n = 0xfff8; n < 0x10008; n++) {
		uint64_t half = n & 0xffff, after = (n + 1) & 0xffff;

		lock.word = half << 48 | half << 32;
		good &= shunt_lock_trylock(&lock) && lock.word == (half << 48 | after << 32);
		good &= !shunt_lock_trylock(&lock);
		shunt_lock_unlock(&lock);
		good &= lock.word == (after << 48 | after << 32);
		shunt_lock_lock(&lock);
		good &= !shunt_lock_trylock(&lock);
		shunt_lock_unlock(&lock);
	}
	ok(good, "takes and releases, the tickets wrapping around");
	shunt_lock_init(&zero);
	for (int i = 0; i < 200000; i++) {
		shunt_lock_lock(&zero);
		good &= !shunt_lock_trylock(&zero);
		shunt_lock_unlock(&zero);
	}
	ok(good && zero.word == (200000 & 0xffff) * UINT64_C(0x0001000100000000),
		"200,000 times");
	shunt_lock_lock(&zero);
	shunt_lock_init(&zero);
	ok(shunt_lock_trylock(&zero), "init makes it free");
}

/* --- who waits ------------------------------------------------------------------------- */

static atomic_uint order, here;
static unsigned place[WAITERS];

static void *waits(void *arg)
{
	long i = (long)arg;

	here++;
	shunt_lock_lock(&lock);
	place[i] = order++;
	shunt_lock_unlock(&lock);
	return NULL;
}

static unsigned tickets(void)
{
	uint64_t w = look(&lock);

	return (uint16_t)(next_of(w) - owner_of(w));
}

static unsigned sleepers(void)
{
	return look(&lock) & PARKERS;
}

/* Till so many have registered, and gone to sleep, as far as one can tell: for good, or again and again. */
static void till_asleep(unsigned n)
{
	unsigned last = shunt_lock_sleeps - 1;

	while (sleepers() < n || (last != shunt_lock_sleeps && !shunt_lock_times.sleep_ns)) {
		last = shunt_lock_sleeps;
		usleep(10000);
	}
}

static void in_order(void)
{
	pthread_t t[WAITERS];
	bool good = true;

	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
	order = 0;
	lock.word = 0xfffcfffcfffe0000; /* over all ends */
	shunt_lock_lock(&lock);
	for (long i = 0; i < WAITERS; i++) {
		pthread_create(&t[i], NULL, waits, (void *)i);
		while (tickets() != i + 2)
			usleep(100);
	}
	ok(!shunt_lock_set_mode(SHUNT_LOCK_PARK), "the mode is switched while threads spin");
	till_asleep(WAITERS);
	ok(sleepers() == WAITERS, "they go to sleep with their tickets");
	shunt_lock_unlock(&lock);
	for (long i = 0; i < WAITERS; i++) {
		pthread_join(t[i], NULL);
		good &= place[i] == i;
	}
	ok(good && !sleepers() && !tickets(), "and are called in their order");
}

static void start(pthread_t *t)
{
	shunt_lock_set_mode(SHUNT_LOCK_PARK);
	order = 0;
	shunt_lock_lock(&lock);
	for (long i = 0; i < WAITERS; i++)
		pthread_create(&t[i], NULL, waits, (void *)i);
	till_asleep(WAITERS);
}

static void finish(pthread_t *t, const char *what)
{
	shunt_lock_unlock(&lock);
	for (int i = 0; i < WAITERS; i++)
		pthread_join(t[i], NULL);
	ok(order == WAITERS && !(look(&lock) & (PARKERS | WOKEN)) && !tickets(), "%s", what);
}

static void chain(void)
{
	pthread_t t[WAITERS];

	start(t);
	ok(tickets() == 1, "sleepers without tickets");
	finish(t, "one release, and each wakes the next");
}

/* Time limits are what gets them up when the lock's holder does nothing. */
static void up(void)
{
	pthread_t t[WAITERS];
	uint64_t from;
	int err;

	start(t);
	from = shunt_now_ns();
	err = shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
	ok(err == -EBUSY && shunt_lock_get_mode() == SHUNT_LOCK_PARK &&
			shunt_now_ns() - from >= 1000000000,
		"who does not get up in a second keeps the mode: -EBUSY (%d)", err);
	finish(t, "and is woken afterwards");

	shunt_lock_times.sleep_ns = 10000000;
	start(t);
	err = shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
	ok(!err && tickets() == WAITERS + 1 && !sleepers(), "else all have tickets and spin (%d)", err);
	finish(t, "and get the lock");
	shunt_lock_times.sleep_ns = 0;
}

/* --- registers ---------------------------------------------------------------------------- */

/* All that a function may change, before and after the one that changes nothing. */
static bool keeps(struct shunt_lock *l)
{
	struct {
		uint64_t in[9], out[9];
		double x[2], y[2];
	} r = {.in = {(uint64_t)(uintptr_t)l, 1, 2, 3, 4, 5, 6, 7, 8}, .x = {1.5, -2.5}};

	__asm__ volatile(
		"movq %%rsp, %%r15; subq $256, %%rsp; andq $-16, %%rsp\n\t"
		"movupd 144(%%rbx), %%xmm0; movupd 144(%%rbx), %%xmm15\n\t"
		"movq 0(%%rbx), %%rdi; movq 8(%%rbx), %%rax; movq 16(%%rbx), %%rcx; movq 24(%%rbx), %%rdx\n\t"
		"movq 32(%%rbx), %%rsi; movq 40(%%rbx), %%r8; movq 48(%%rbx), %%r9; movq 56(%%rbx), %%r10\n\t"
		"movq 64(%%rbx), %%r11\n\t"
		"call *shunt_lock_unlock_park@GOTPCREL(%%rip)\n\t"
		"movq %%rdi, 72(%%rbx); movq %%rax, 80(%%rbx); movq %%rcx, 88(%%rbx); movq %%rdx, 96(%%rbx)\n\t"
		"movq %%rsi, 104(%%rbx); movq %%r8, 112(%%rbx); movq %%r9, 120(%%rbx)\n\t"
		"movq %%r10, 128(%%rbx); movq %%r11, 136(%%rbx)\n\t"
		"addpd %%xmm15, %%xmm0; movupd %%xmm0, 160(%%rbx)\n\t"
		"movq %%r15, %%rsp\n\t"
		:
		: "b"(&r)
		: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r15", "xmm0", "xmm15",
		"memory", "cc");
	return !memcmp(r.in, r.out, sizeof r.in) && r.y[0] == 2 * r.x[0] && r.y[1] == 2 * r.x[1];
}

static void registers(void)
{
	pthread_t t[WAITERS];
	bool good;

	shunt_lock_lock(&lock);
	good = keeps(&lock);
	start(t);
	good &= keeps(&lock); /* wakes */
	shunt_lock_lock(&lock);
	finish(t, "woken by a plain call");
	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
	ok(good, "a release that wakes changes no register");
}

/* --- memory, step by step ------------------------------------------------------------------ */

static struct shunt_lock *mapped;
static uint16_t served;
static unsigned steps;

/* After each instruction: as soon as the lock is released, its memory goes. */
static void on_step(int sig)
{
	(void)sig;
	steps++;
	if (mapped && owner_of(look(mapped)) != served) {
		munmap(mapped, 4096);
		mapped = NULL;
	}
}

static void release_stepping(uint64_t word)
{
	struct shunt_lock *l = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);

	l->word = word;
	served = owner_of(word);
	mapped = l;
	__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
	shunt_lock_unlock(l);
	__asm__ volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
}

/* Without a sleeper, with one that has no ticket, and with one that is called. */
static void stepping(void)
{
	struct sigaction sa = {.sa_handler = on_step}, old;

	for (enum shunt_lock_modes m = SHUNT_LOCK_NATIVE; m <= SHUNT_LOCK_PARK; m++) {
		shunt_lock_set_mode(m);
		sigaction(SIGTRAP, &sa, &old);
		release_stepping(0x0001000200000000);
		release_stepping(0x0001000200000001);
		release_stepping(0x0001000300000001);
		sigaction(SIGTRAP, &old, NULL);
		ok(steps > 9 && !mapped, "unmapped at the instruction that releases, mode %d: %u steps", m,
			steps);
		steps = 0;
	}
	shunt_lock_set_mode(SHUNT_LOCK_NATIVE);
}

/* --- fork ----------------------------------------------------------------------------------- */

static int child(struct shunt_lock *mine)
{
	if (shunt_lock_set_mode(SHUNT_LOCK_NATIVE)) /* nobody sleeps here */
		return 1;
	shunt_lock_init(mine);
	shunt_lock_lock(mine);
	shunt_lock_unlock(mine);
	if (shunt_lock_auto(true) || shunt_lock_set_mode(SHUNT_LOCK_PARK) || shunt_lock_auto(false))
		return 2;
	shunt_lock_lock(mine);
	shunt_lock_unlock(mine);
	return shunt_lock_trylock(mine) ? 0 : 3;
}

static void forked(void)
{
	pthread_t t[WAITERS];
	int status = 1;
	pid_t pid;

	shunt_lock_auto(true);
	start(t);
	pid = fork();
	if (!pid) {
		alarm(20);
		_exit(child(&lock));
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status),
		"a child of fork(): its own lock, anew; modes, a governor (%#x)", status);
	finish(t, "and the parent goes on");
	ok(!shunt_lock_auto(false) && !shunt_lock_auto(false), "auto off, twice");
}

int main(void)
{
	end_after(60);
	shunt_lock_times.sleep_ns = 0;
	first(SHUNT_LOCK_NATIVE);
	first(SHUNT_LOCK_PARK);
	ok(shunt_lock_set_mode((enum shunt_lock_modes)2) == -ERANGE, "no such mode: -ERANGE");
	lock.word = 0;
	in_order();
	chain();
	up();
	registers();
	stepping();
	forked();
	return done();
}
