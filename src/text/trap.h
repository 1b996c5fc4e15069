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
/* Nobody is between looking a table up and having done with it. */
bool shunt_trap_idle(void);

#endif
