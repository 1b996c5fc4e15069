/* SPDX-License-Identifier: MIT */
/*
 * fuzz_filter.c - a filter of any text on an event of any bytes, and a trace's description
 * of a tracepoint likewise: LEN(filter) FILTER EVENT.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmd/trace/trace.h"
#include "trace/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct shunt_label labels[] = {{"LOW", -1}, {"HIGH", 3}, {NULL, 0}};
static const struct shunt_field fields[] = {
	{"i", SHUNT_FIELD_SCALAR, SHUNT_TYPE_SIGNED, 4, 1, NULL},
	{"s", SHUNT_FIELD_STRING, SHUNT_TYPE_UNSIGNED, 1, 1, NULL},
	{"f", SHUNT_FIELD_SCALAR, SHUNT_TYPE_FLOAT, 8, 1, NULL},
	{"q", SHUNT_FIELD_SEQUENCE, SHUNT_TYPE_UNSIGNED, 2, 1, NULL},
	{"e", SHUNT_FIELD_SCALAR, SHUNT_TYPE_SIGNED, 1, 1, labels},
	{"a", SHUNT_FIELD_ARRAY, SHUNT_TYPE_UNSIGNED, 1, 3, NULL},
	{"u", SHUNT_FIELD_SCALAR, SHUNT_TYPE_UNSIGNED, 8, 1, NULL},
};

/* Needs C++; not what is tested here. */
char *shunt_demangle(const char *name)
{
	(void)name;
	return NULL;
}

static void filter(const char *text, const void *event, size_t len)
{
	struct shunt_filter *f;
	char why[160] = "";
	int r = shunt_filter_parse(text, fields, 7, &f, why, sizeof why);

	if (r) {
		if (!*why)
			abort();
		return;
	}
	shunt_filter_match(f, event, len);
	shunt_filter_free(f);
}

static void description(const char *text, const void *event, size_t len)
{
	static FILE *null;
	struct trace t;

	if (!null)
		null = fopen("/dev/null", "w");
	trace_init(&t, NULL);
	trace_parse_points(&t, 1, strdup(text));
	for (size_t i = 0; i < t.npoints; i++) {
		trace_point_fits(&t.points[i], event, len);
		trace_point_print(null, &t.points[i], event, len, len & 1);
	}
	trace_points_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n = size ? data[0] : 0;
	char *text;
	void *event;

	if (n + 1 > size)
		return 0;
	text = calloc(n + 1, 1);
	event = malloc(size - n - 1 + (size == n + 1));
	if (!text || !event)
		abort();
	memcpy(text, data + 1, n);
	memcpy(event, data + 1 + n, size - n - 1);
	filter(text, event, size - n - 1);
	description(text, event, size - n - 1);
	free(text);
	free(event);
	return 0;
}
