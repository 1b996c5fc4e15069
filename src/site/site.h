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

/* Between these, no value and no site changes but by shunt_vars_set(). */
void shunt_sites_lock(void);
void shunt_sites_unlock(void);

/*
 * Brings all sites of the variables to their new values in one batch, then the
 * values themselves. Each variable is in it once. Locked. 0, or nothing has
 * changed: -EBUSY, -ENOMEM, or what shunt_text_apply() says.
 */
int shunt_vars_set(const struct shunt_change *c, size_t n);

#endif
