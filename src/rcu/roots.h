/* SPDX-License-Identifier: MIT */
/* roots.h - the contexts of a program that switches stacks by itself, in a look. */
#ifndef SHUNT_RCU_ROOTS_H
#define SHUNT_RCU_ROOTS_H

#include "rcu/look.h"

/* Contexts that stand still now are looked at. 0: all were seen; -EAGAIN, -errno. */
int shunt_roots_look(struct shunt_look *l);
/* A thread was looked at that runs on the stack at sp. */
void shunt_roots_on(struct shunt_look *l, uintptr_t sp);
void shunt_roots_end(struct shunt_look *l);

#endif
