/* SPDX-License-Identifier: MIT */
/*
 * many.c [ROUNDS] - 1,000 probes with 1,000 callbacks, on functions made while running:
 * registered in one batch, hit from four threads, taken out and freed, again and
 * again. What the functions return is right, no callback runs once its probe is out
 * (the memory is poisoned), each was called, and memory stays flat.
 *
 * The functions are of four kinds, so that jumps, shared jumps, jumps over many
 * instructions and breakpoints are among them; the callbacks are generated code, each with
 * the address of its own counter, and are overwritten with breakpoints when they
 * are not registered.
 */
#include <shunt/probe.h>
#include <shunt/tasks.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tap.h"

#define PROBES	 1000
#define THREADS	 4
#define SIZE	 64 /* of a function, and of a callback */
#define POISON	 0xcc

/* Under ASan: what is freed is kept from use, but not without end. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64";
}

/* What they have in common: f(x) = x + i. Each is followed by ret and int3. */
static const struct {
	uint8_t bytes[32], len, imm;
} kinds[] = {
	/* lea imm32(%rdi),%rax */
	{{0x48, 0x8d, 0x87, 0, 0, 0, 0, 0xc3}, 8, 3},
	/* push %rbp; mov %rsp,%rbp; lea imm32(%rdi),%rax; pop %rbp */
	{{0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x87, 0, 0, 0, 0, 0x5d, 0xc3}, 13, 7},
	/* mov %rdi,%rax; add $imm32,%rax */
	{{0x48, 0x89, 0xf8, 0x48, 0x05, 0, 0, 0, 0, 0xc3}, 10, 5},
	/* xor %eax,%eax; add %rdi,%rax; add $imm32,%rax */
	{{0x31, 0xc0, 0x48, 0x01, 0xf8, 0x48, 0x05, 0, 0, 0, 0, 0xc3}, 12, 7},
};
#define KINDS (sizeof kinds / sizeof *kinds)

struct mine {
	struct shunt_probe p;
	/* not poisoned: */
	atomic_ulong hits;
};

static uint8_t *functions, *callbacks, *as_made;
static struct mine *mine;
static atomic_bool stop;
static atomic_ulong wrong, calls;

static long call(unsigned i, long x)
{
	return ((long (*)(long))(uintptr_t)(functions + i * SIZE))(x);
}

static void make_function(uint8_t *at, unsigned i)
{
	uint32_t imm = i;

	memset(at, POISON, SIZE);
	memcpy(at, kinds[i % KINDS].bytes, kinds[i % KINDS].len);
	memcpy(at + kinds[i % KINDS].imm, &imm, 4);
}

/* mov $counter,%rax; lock incq (%rax); ret */
static void make_callback(uint8_t *at, unsigned i)
{
	uint8_t code[] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x48, 0xff, 0x00, 0xc3};
	void *counter = &mine[i].hits;

	memcpy(code + 2, &counter, 8);
	memset(at, POISON, SIZE);
	memcpy(at, code, sizeof code);
}

static void poison_callbacks(void)
{
	memset(callbacks, POISON, PROBES * SIZE);
}

static void *run(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg * (PROBES / THREADS);

	while (!stop) {
		long x = (long)(i * 2654435761u);

		i = (i + 1) % PROBES;
		if (call(i, x) != x + (long)i)
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
	}
	return NULL;
}

/* All threads have been through all functions since. */
static void await_calls(void)
{
	unsigned long until = calls + THREADS * PROBES + PROBES;

	while (calls < until)
		sched_yield();
}

static long rss_kb(void)
{
	char line[256];
	long kb = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof line, f))
		sscanf(line, "RssAnon: %ld", &kb);
	fclose(f);
	return kb;
}

/* What is mapped executable and is nobody's file: detours and their windows. */
static long mapped_kb(void)
{
	char line[512], perm[8];
	unsigned long lo, hi, inode, kb = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &lo, &hi, perm, &inode) == 4 && !inode &&
			perm[2] == 'x')
			kb += (hi - lo) / 1024;
	fclose(f);
	return (long)kb;
}

static unsigned long forms[5], refused, silent;

static void once(struct shunt_probe **list)
{
	struct shunt_probe_result res;
	int r, again = 0;

	for (unsigned i = 0; i < PROBES; i++) {
		make_callback(callbacks + i * SIZE, i);
		mine[i].p = (struct shunt_probe){.addr = functions + i * SIZE,
			.pre = (shunt_probe_fn)(uintptr_t)(callbacks + i * SIZE),
			.flags = SHUNT_PROBE_TRUSTED | SHUNT_PROBE_GENERAL_REGS |
				 (i % 16 == 5 ? SHUNT_PROBE_BREAKPOINT_ONLY : 0)};
		mine[i].hits = 0;
	}
	/* A thread that is being created blocks all signals until it has had its turn. */
	do
		r = shunt_probe_register_many(list, PROBES, &res);
	while (r == -EAGAIN && again++ < 100);
	if (r) {
		diag("refused: %s", res.reason);
		refused++;
		return;
	}
	for (unsigned i = 0; i < PROBES; i++)
		forms[shunt_probe_form(list[i])]++;
	await_calls();
	if (shunt_probe_unregister_many(list, PROBES))
		refused++;
	poison_callbacks();
	for (unsigned i = 0; i < PROBES; i++) {
		silent += !mine[i].hits;
		memset(&mine[i].p, 0xee, sizeof mine[i].p);
	}
}

struct memory {
	long rss, mapped;
};

static struct memory memory_now(void)
{
	shunt_rcu_tasks_barrier();
	return (struct memory){rss_kb(), mapped_kb()};
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 100;
	struct shunt_probe *list[PROBES];
	pthread_t thread[THREADS];
	struct memory before = {0}, after;

	functions = mmap(NULL, PROBES * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	callbacks = mmap(NULL, PROBES * SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mine = calloc(PROBES, sizeof *mine);
	for (unsigned i = 0; i < PROBES; i++) {
		make_function(functions + i * SIZE, i);
		list[i] = &mine[i].p;
	}
	as_made = malloc(PROBES * SIZE);
	memcpy(as_made, functions, PROBES * SIZE);
	mprotect(functions, PROBES * SIZE, PROT_READ | PROT_EXEC);
	poison_callbacks();
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, run, (void *)i);
	for (int i = 0; i < rounds; i++) {
		once(list);
		if (i == rounds / 2)
			before = memory_now();
	}
	after = memory_now();
	stop = true;
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	diag("%d rounds, %lu calls; %lu jumps, %lu shared, %lu many, %lu breakpoints; RssAnon %ld, then "
		"%ld KiB; code %ld, then %ld KiB", rounds, (unsigned long)calls, forms[1], forms[2],
		forms[3], forms[4], before.rss, after.rss, before.mapped, after.mapped);
	ok(!refused, "%d probes are registered and taken out, %d times", PROBES, rounds);
	ok(!wrong, "what the functions return stays right");
	ok(!silent, "every callback is called, every time");
	ok(forms[1] && forms[2] && forms[4], "jumps, shared jumps and breakpoints are among them");
	ok(after.rss - before.rss < 1024 && after.mapped <= before.mapped + 256, "memory is flat");
	ok(!memcmp(functions, as_made, PROBES * SIZE), "the text is as it was");
	return done();
}
