/* SPDX-License-Identifier: MIT */
/*
 * execute.h - executes a few bytes of code in a given state of all registers and of
 * some memory, up to where they trap or leave, and says what has become of it all.
 *
 * A breakpoint's handler puts the state in place by returning to it, and the
 * handler of whatever signal comes next takes it. So nothing of it but signal
 * frames' contents is ours, and every register that the kernel knows is included.
 * One thread only.
 */
#ifndef TESTS_PROBE_EXECUTE_H
#define TESTS_PROBE_EXECUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ucontext.h>

#define VECTORS 4096

struct outcome {
	greg_t gregs[NGREG];
	int signal;
	uintptr_t fault;	  /* the address that the signal is about */
	uint8_t vectors[VECTORS]; /* the XSAVE area, without x87's last instruction */
	size_t vectors_size;
};

/* 0, or -1: no memory, no signals. */
int execute_init(void);

/*
 * From gregs' rip; only the general registers and flags of it are used. The
 * vector registers are filled from `seed`, with small integers if `small`. %fs
 * and %gs are at `segment` meanwhile.
 */
void execute(const gregset_t gregs, uint64_t seed, bool small, uintptr_t segment,
	struct outcome *out);

/* The next of a sequence of random numbers. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

#endif
