/* SPDX-License-Identifier: MIT */
/* filter.h - which of a tracepoint's events are wanted. Pure functions. */
#ifndef SHUNT_TRACE_FILTER_H
#define SHUNT_TRACE_FILTER_H

#include <stdbool.h>

#include <shunt/trace.h>

/*
 * Understands an expression (trace.h) for a tracepoint's fields. 0, -ENOMEM, or -EINVAL with a
 * sentence in `why`.
 */
int shunt_filter_parse(const char *text, const struct shunt_field *fields, uint32_t nfields,
	struct shunt_filter **filter, char *why, size_t why_size);
/* Whether it can be an expression at all, of whatever fields. As shunt_filter_parse(). */
int shunt_filter_check(const char *text, char *why, size_t why_size);
void shunt_filter_free(const struct shunt_filter *filter);

/* Whether an event passes. Any context. Never reads beyond `len`. */
bool shunt_filter_match(const struct shunt_filter *filter, const void *data, size_t len);

#endif
