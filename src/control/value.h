/* SPDX-License-Identifier: MIT */
/* value.h - a variable's value as text, and a text as its value. Pure functions. */
#ifndef SHUNT_CONTROL_VALUE_H
#define SHUNT_CONTROL_VALUE_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/ops.h>

/* "key", "imv", "call", "choice". */
const char *shunt_value_kind(const struct shunt_var *v);
/* "bool", "u32", "f64", "pointer", "function", "state". */
const char *shunt_value_type(const struct shunt_var *v);

/* Of a key or an immediate value: other kinds need their surroundings. */
void shunt_value_format(const struct shunt_var *v, uint64_t bits, char *text, size_t size);

/*
 * What `text` means to a key, an immediate value or a choice. 0, or -EINVAL or
 * -ERANGE with *why, half a sentence. `states` and `nstates` are the choice's.
 */
int shunt_value_parse(const struct shunt_var *v, const char *text, const char *const *states,
	uint64_t nstates, uint64_t *bits, const char **why);

#endif
