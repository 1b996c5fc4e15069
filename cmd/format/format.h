/* SPDX-License-Identifier: MIT */
/*
 * format.h - what `shunt dump` can write. Each takes a trace apart in one pass
 * per thread (text: one over all, in time's order); memory does not grow with
 * the trace. 0, or -errno.
 */
#ifndef SHUNT_CMD_FORMAT_H
#define SHUNT_CMD_FORMAT_H

#include <stdio.h>

#include "trace/trace.h"

int shunt_format_text(struct trace *t, FILE *out, bool raw);
int shunt_format_ctf(struct trace *t, const char *dir);
/* `width`: of each part in ns, 0: all in one. -E2BIG: too many parts. */
int shunt_format_chrome(struct trace *t, const char *path, uint64_t width);
int shunt_format_flame(struct trace *t, const char *path);

/*
 * Names of functions, found once: demangling is slow. The string stays until
 * the cache is freed.
 */
struct names {
	struct trace *t;
	char ***object; /* [object][function] */
};
int names_init(struct names *n, struct trace *t);
const char *names_get(struct names *n, uint32_t image, uint32_t id);
void names_free(struct names *n);

#endif
