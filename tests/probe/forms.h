/* SPDX-License-Identifier: MIT */
/*
 * forms.h - forms of instructions: those that differ in displacements and immediates
 * only are one. And how to execute one of them in its place and elsewhere.
 */
#ifndef TESTS_PROBE_FORMS_H
#define TESTS_PROBE_FORMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct form {
	uint8_t bytes[15];
	uint8_t len; /* 0: none */
};

struct forms {
	struct form *table;
	size_t size, n; /* a power of 2 */
};

/* Adds the form of an instruction, unless it is there. */
void forms_add(struct forms *f, const uint8_t *bytes, size_t len);

enum verdict { SAME, DIFFERENT, REFUSED, SKIPPED };

struct trial {
	char what[256]; /* what differs, in which place */
	int signal;	/* that ended it; SIGTRAP is the breakpoint behind it */
};

/* 0, or -1 if here is no memory where we need it. */
int forms_init(void);

/* One trial with random registers and memory. */
enum verdict forms_try(const struct form *form, uint64_t seed, struct trial *t);

#endif
