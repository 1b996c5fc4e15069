/* SPDX-License-Identifier: MIT */
/* live_out.c - how the live commands print names. See live_out.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "live_out.h"
#include "out.h"

/* trace/demangle.cpp; malloced, NULL when it is no C++ name */
char *shunt_demangle(const char *name);

void shunt_live_symbol(const char *symbol, size_t len)
{
	char *raw = strndup(symbol, len), *name = raw ? shunt_demangle(raw) : NULL;

	shunt_out_plain(stdout, name ? name : symbol, name ? strlen(name) : len);
	free(name);
	free(raw);
}
