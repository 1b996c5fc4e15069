/* SPDX-License-Identifier: MIT */
/* values.h - the values and tracepoints of `shunt list`. */
#ifndef SHUNT_CMD_VALUES_H
#define SHUNT_CMD_VALUES_H

#include <stdbool.h>

#include "proc.h"

/* Shows one process's "values" or "points" of that name, and counts them. 0, 1, 2. */
int shunt_values_list(const struct shunt_target *t, unsigned entry, const char *verb, const char *glob,
	bool json, unsigned long long *shown);

#endif
