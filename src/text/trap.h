/* SPDX-License-Identifier: MIT */
/* trap.h - between the breakpoint protocol and its signal handler. */
#ifndef SHUNT_TEXT_TRAP_H
#define SHUNT_TEXT_TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a thread that trapped at addr does: go on at next (addr itself: again). */
struct shunt_trap_entry {
	uintptr_t addr, next;
};

/* Sorted by addr; never changes while it can be found. */
struct shunt_trap_table {
	size_t n;
	struct shunt_trap_entry e[];
};

/* Our handler is in place and asks this table from now on; NULL: none. */
int shunt_trap_install(void);
void shunt_trap_publish(const struct shunt_trap_table *t);
/* The same for breakpoints that stay: beside the table of a batch, which goes first. */
void shunt_trap_standing(const struct shunt_trap_table *t);
/*
 * Whether a breakpoint in the text would do what it should, now: 0, or -errno
 * and why (a tracer, a thread that blocks SIGTRAP, the caller's own mask being no matter
 * where it meets none).
 */
int shunt_trap_possible(bool but_caller, char *why, size_t size);
/* Nobody is between looking a table up and having done with it. */
bool shunt_trap_idle(void);
/* In the child of fork(): those who were are not here. */
void shunt_trap_forked(void);

#endif
