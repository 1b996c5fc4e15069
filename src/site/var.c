/* SPDX-License-Identifier: MIT */
/* var.c - immediate values, keys, calls and choices: thin, over site.c. */
#include <errno.h>
#include <stdlib.h>

#include <shunt/call.h>
#include <shunt/imv.h>
#include <shunt/key.h>
#include <shunt/ops.h>

#include "site.h"

static int set_one(struct shunt_var *v, uint64_t bits)
{
	struct shunt_change c = {v, bits};
	int err;

	shunt_sites_lock();
	err = shunt_vars_set(&c, 1);
	shunt_sites_unlock();
	return err;
}

SHUNT_API int shunt_imv_set_bits(struct shunt_imv *imv, uint64_t bits)
{
	return set_one(&imv->var, bits);
}

SHUNT_API int shunt_call_set_target(struct shunt_call *call, void (*target)(void))
{
	return set_one(&call->var, (uint64_t)(uintptr_t)target);
}

SHUNT_API int shunt_choice_set_state(struct shunt_choice *choice, uint64_t state)
{
	return state < choice->count ? set_one(&choice->var, state) : -ERANGE;
}

SHUNT_API int shunt_keys_set(struct shunt_key *const *keys, const bool *on, size_t n)
{
	struct shunt_change *c = malloc(n * sizeof *c + 1);
	int err;

	if (!c)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		c[i] = (struct shunt_change){&keys[i]->var, on[i]};
	shunt_sites_lock();
	err = shunt_vars_set(c, n);
	shunt_sites_unlock();
	free(c);
	return err;
}

SHUNT_API int shunt_key_set(struct shunt_key *key, bool on)
{
	return shunt_keys_set(&key, &on, 1);
}

SHUNT_API int shunt_key_count(struct shunt_key *key, int by)
{
	struct shunt_change c = {&key->var, 0};
	int err = -EOVERFLOW;

	shunt_sites_lock();
	c.bits = key->enabled + (uint64_t)(int64_t)by;
	if (by < 0 ? key->enabled >= (uint64_t)-(int64_t)by : c.bits >= key->enabled)
		err = shunt_vars_set(&c, 1);
	shunt_sites_unlock();
	return err;
}
