/* SPDX-License-Identifier: MIT */
/* points_library.c - a library with a tracepoint, for points.c. */
#include <shunt/trace.h>

SHUNT_TRACEPOINT(library, fired, shunt_integer(int, x));

void fire_library(int x);

void fire_library(int x)
{
	shunt_trace(library, fired, x);
}
