/* SPDX-License-Identifier: MIT */
/*
 * ops.c - a checksum in three ways, of which the processor chooses one and the program
 * another later; and a pv op: a counter that is one plain instruction, a locked one, or
 * a call, whatever the moment asks for.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <shunt/ops.h>

/* --- which way, at load -------------------------------------------------------------- */

enum { BYTES, WORDS, UNROLLED };
SHUNT_DEFINE_CHOICE(checksum, "bytes", "words", "unrolled");
SHUNT_CHOICE_PREFER(checksum, "sse2", WORDS);
SHUNT_CHOICE_PREFER(checksum, "avx2", UNROLLED);

static uint64_t word(const unsigned char *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof w);
	return w;
}

/* The xor of all 8-byte words; n is a multiple of 32. */
static uint64_t sum(const unsigned char *p, size_t n)
{
	uint64_t s = 0, a = 0, b = 0, c = 0;

	switch (shunt_choice(checksum)) {
	case BYTES:
		for (size_t i = 0; i < n; i++)
			s ^= (uint64_t)p[i] << i % 8 * 8;
		return s;
	case WORDS:
		for (size_t i = 0; i < n; i += 8)
			s ^= word(p + i);
		return s;
	default:
		for (size_t i = 0; i < n; i += 32) {
			s ^= word(p + i);
			a ^= word(p + i + 8);
			b ^= word(p + i + 16);
			c ^= word(p + i + 24);
		}
		return s ^ a ^ b ^ c;
	}
}

/* --- an operation with a class of its own ---------------------------------------------- */

enum { ALONE, SHARED, WATCHED };
SHUNT_DEFINE_CHOICE(counting, "alone", "shared", "watched");

static uint64_t watched;

void count_watched(uint64_t *at);
__attribute__((used)) void count_watched(uint64_t *at)
{
	__atomic_fetch_add(at, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&watched, 1, __ATOMIC_RELAXED);
}

static inline void count(uint64_t *at)
{
	shunt_op(counting, ("+D"(at)), ("i"(0)),
		("memory", "cc", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1",
			"xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
			"xmm11", "xmm12", "xmm13", "xmm14", "xmm15"),
		"incq (%%rdi)", "lock incq (%%rdi)", SHUNT_OP_CALL(count_watched));
}

static uint64_t counter;

static void *counts(void *arg)
{
	for (int i = 0; i < 100000; i++)
		count(&counter);
	return arg;
}

static void by_threads(int n)
{
	pthread_t t[4];

	for (int i = 0; i < n; i++)
		pthread_create(&t[i], NULL, counts, NULL);
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

int main(void)
{
	unsigned char data[320];
	uint64_t sums[3];
	int err;

	memset(data, 1, sizeof data);
	data[77] = 99;
	printf("this processor prefers %s\n", checksum.states[shunt_choice(checksum)]);
	for (uint64_t way = BYTES; way <= UNROLLED; way++) {
		err = shunt_choice_set(checksum, way);
		if (err) {
			fprintf(stderr, "checksum: %s\n", strerror(-err));
			return 1;
		}
		sums[way] = sum(data, sizeof data);
	}

	by_threads(1);
	err = shunt_choice_set(counting, SHARED);
	by_threads(4);
	err |= shunt_choice_set(counting, WATCHED);
	by_threads(2);
	printf("%llu counted, %llu of them watched\n", (unsigned long long)counter,
		(unsigned long long)watched);
	return err || sums[0] != sums[1] || sums[1] != sums[2] || counter != 700000 || watched != 200000;
}
