/* SPDX-License-Identifier: MIT */
/* site.h - the one way to change what variables' sites hold. */
#ifndef SHUNT_SITE_SITE_H
#define SHUNT_SITE_SITE_H

#include <shunt/site.h>

/* Where its value is kept. */
void *shunt_var_at(const struct shunt_var *v);
/* Its bits, the rest zero. */
uint64_t shunt_var_get(const struct shunt_var *v);

/* A variable and what it is to become, its bits. */
struct shunt_change {
	struct shunt_var *var;
	uint64_t bits;
};

/* Has fork() wait for the lock; before others that are held while it is taken say so. */
void shunt_sites_at_fork(void);

/* Between these, no value and no site changes but by shunt_vars_set(); signals are held back. */
void shunt_sites_lock(void);
void shunt_sites_unlock(void);

/* A variable that is defined somewhere. */
struct shunt_defined {
	struct shunt_var *var;
	const struct shunt_def *def;
	size_t element;	      /* of an array, if def->count is not 1 */
	const char *object;   /* the file's name */
};

/* Calls fn for each, until it does not return 0. Locked. Returns what it said last. */
int shunt_defined_each(int (*fn)(const struct shunt_defined *d, void *arg), void *arg);

/* The target's name, if it is offered; "null", "return-0", or its address. Locked: for a while. */
const char *shunt_call_name(const struct shunt_var *call, uint64_t target);

/* Whether an instruction that belongs to a variable has a byte in [lo, hi). Takes the lock. */
bool shunt_sites_within(uintptr_t lo, uintptr_t hi);

/* How many instructions belong to it. Locked. */
size_t shunt_var_sites(const struct shunt_var *v);

/* The offered targets of a call. Locked. */
int shunt_offers_each(const struct shunt_var *call, int (*fn)(const struct shunt_offer *o, void *arg),
	void *arg);

/*
 * The changes with the number `from` and later that are still known, the oldest
 * first; they are numbered from 1 on. Returns the number of the next one. Locked.
 */
enum { SHUNT_CHANGES = 256 };
struct shunt_changed {
	struct shunt_var var; /* as it was; its name may be gone: */
	char name[64];
	char state[64]; /* a choice's, or a call's target */
	uint64_t bits;
};
uint64_t shunt_changes_each(uint64_t from, int (*fn)(const struct shunt_changed *c, uint64_t n, void *arg),
	void *arg);

/*
 * Brings all sites of the variables to their new values in one batch, then the
 * values themselves. Each variable is in it once. Locked. 0, or nothing has
 * changed: -EBUSY, -ENOMEM, or what shunt_text_apply() says.
 */
int shunt_vars_set(const struct shunt_change *c, size_t n);

/* Why the last one failed, a sentence; "" if it did not. Locked. */
const char *shunt_sites_reason(void);

#endif
