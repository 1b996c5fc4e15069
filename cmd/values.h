/* SPDX-License-Identifier: MIT */
/* values.h - the values and tracepoints of `shunt list`. */
#ifndef SHUNT_CMD_VALUES_H
#define SHUNT_CMD_VALUES_H

#include <stdbool.h>

#include "control/request.h"

/* Shows what a line of the answer to "values" or "points" is; false: nothing. */
bool shunt_values_show(unsigned pid, bool json, bool first, const struct shunt_ctl_line *line);

#endif
