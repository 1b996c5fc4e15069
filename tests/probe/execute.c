/* SPDX-License-Identifier: MIT */
/* execute.c - see execute.h. */
#include <cpuid.h>
#include <immintrin.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "execute.h"

/* Of the signal frame's FXSAVE area (Intel SDM volume 1, 10.5 and 13.4). */
#define FCW	  0
#define FTW	  4
#define FOP	  6
#define LAST_X87  8  /* its address and its operand's: 16 bytes */
#define MXCSR	  24
#define ST	  32
#define XMM	  160
#define SOFTWARE  464 /* the kernel's: magic, size .. */
#define XSTATE_BV 512
#define EXTENDED  576

#define BV_USED 0xe7ull /* x87, SSE, AVX, AVX-512 */

static struct {
	gregset_t gregs; /* to be entered with, then of who called execute() */
	uint64_t seed;
	bool small;
	bool inside; /* the code in question is being executed */
	uint8_t *saved;
	struct outcome *out;
} run;

static uint64_t own_fs, own_gs;
static volatile uintptr_t wanted_segment;
static bool can_segment;
static uint64_t usable;

static size_t area_size(const uint8_t *area)
{
	uint32_t magic, size;

	memcpy(&magic, area + SOFTWARE, 4);
	memcpy(&size, area + SOFTWARE + 16, 4);
	return magic == 0x46505853 && size <= VECTORS ? size : 512;
}

static void fill_words(uint8_t *at, size_t n, uint64_t *seed)
{
	for (size_t i = 0; i + 8 <= n; i += 8) {
		uint64_t v = next_random(seed);

		if (run.small)
			v &= 0x3f;
		memcpy(at + i, &v, 8);
	}
}

static void fill_vectors(uint8_t *area)
{
	size_t size = area_size(area);
	uint64_t seed = run.seed, bv = BV_USED & usable;
	unsigned a, b, c, d;

	memset(area + LAST_X87 - 2, 0, 18);
	fill_words(area + XMM, 256, &seed);
	for (int i = 0; i < 8; i++)
		fill_words(area + ST + 16 * i, 8, &seed);
	area[FTW] = 0xff;
	if (size < EXTENDED)
		return;
	for (int i = 2; i < 8; i++) {
		if (!(bv >> i & 1))
			continue;
		__cpuid_count(13, i, a, b, c, d);
		if (b + a <= size)
			fill_words(area + b, a, &seed);
	}
	memcpy(area + XSTATE_BV, &bv, 8);
}

static void take_vectors(const uint8_t *area, struct outcome *out)
{
	out->vectors_size = area_size(area);
	memcpy(out->vectors, area, out->vectors_size);
	memset(out->vectors + FOP, 0, 18);
	memset(out->vectors + SOFTWARE - 48, 0, 96);
}

__attribute__((no_stack_protector)) static void set_segments(uint64_t fs, uint64_t gs)
{
	__asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(fs), "r"(gs));
}

static void enter(ucontext_t *uc)
{
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;
	gregset_t own;

	memcpy(own, uc->uc_mcontext.gregs, sizeof own);
	memcpy(run.saved, area, area_size(area));
	/* cs, ss and what the kernel keeps beside them stay. */
	memcpy(uc->uc_mcontext.gregs, run.gregs, sizeof(greg_t) * (REG_EFL + 1));
	memcpy(run.gregs, own, sizeof own);
	fill_vectors(area);
	run.inside = true;
}

static void leave(int sig, const siginfo_t *si, ucontext_t *uc)
{
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;

	memcpy(run.out->gregs, uc->uc_mcontext.gregs, sizeof run.out->gregs);
	run.out->signal = sig;
	run.out->fault = sig == SIGSEGV || sig == SIGBUS ? (uintptr_t)si->si_addr : 0;
	take_vectors(area, run.out);
	memcpy(uc->uc_mcontext.gregs, run.gregs, sizeof(greg_t) * (REG_EFL + 1));
	memcpy(area, run.saved, area_size(area));
	run.inside = false;
}

/* Nothing here may use thread-local memory while %fs is somewhere else. */
__attribute__((no_stack_protector)) static void handler(int sig, siginfo_t *si, void *ctx)
{
	if (can_segment && run.inside)
		set_segments(own_fs, own_gs);
	if (run.inside) {
		leave(sig, si, ctx);
	} else if (sig == SIGTRAP) {
		enter(ctx);
		if (can_segment)
			set_segments(wanted_segment, wanted_segment);
	} else {
		signal(sig, SIG_DFL); /* a fault of the test itself */
	}
}

int execute_init(void)
{
	static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t ss = {.ss_size = 1 << 16};
	unsigned a, b, c, d;

	ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	run.saved = malloc(VECTORS);
	if (ss.ss_sp == MAP_FAILED || !run.saved || sigaltstack(&ss, NULL))
		return -1;
	sigfillset(&sa.sa_mask);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &sa, NULL);
	can_segment = getauxval(AT_HWCAP2) & 2; /* HWCAP2_FSGSBASE */
	if (can_segment)
		__asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(own_fs), "=r"(own_gs));
	if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE)) {
		__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
		usable = a | (uint64_t)d << 32;
	}
	return 0;
}

void execute(const gregset_t gregs, uint64_t seed, bool small, uintptr_t segment,
	struct outcome *out)
{
	memcpy(run.gregs, gregs, sizeof run.gregs);
	run.seed = seed;
	run.small = small;
	run.out = out;
	wanted_segment = segment;
	/* All that the kernel gives back, it gives back; but flags and vectors too. */
	__asm__ volatile("int3" ::: "memory", "cc");
}
