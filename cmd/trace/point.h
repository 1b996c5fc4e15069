/* SPDX-License-Identifier: MIT */
/* point.h - what tracepoints' events in a trace mean: their names and fields. */
#ifndef SHUNT_CMD_TRACE_POINT_H
#define SHUNT_CMD_TRACE_POINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct trace;

enum trace_shape { TRACE_SCALAR, TRACE_ARRAY, TRACE_SEQUENCE, TRACE_STRING };

struct trace_label {
	const char *name;
	int64_t value;
};

struct trace_field {
	const char *name;
	enum trace_shape shape;
	char type;     /* u, s, f, p, b */
	uint8_t size;  /* bytes of an element */
	uint32_t count; /* of an array */
	struct trace_label *labels;
	size_t nlabels;
};

struct trace_point {
	uint32_t image, id;
	const char *name, *text; /* text: the name and fields as they were written */
	struct trace_field *fields;
	size_t nfields;
	size_t first; /* of those with the same text, in trace->points */
	bool hidden;
};

/* Adds the lines of a points-IMAGE file; takes the text over. What is damaged is left out. */
int trace_parse_points(struct trace *t, uint32_t image, char *text);
/* After the last of them, before they are looked for. 0 or -ENOMEM. */
int trace_points_sort(struct trace *t);
void trace_points_free(struct trace *t);

/* NULL: not described. */
const struct trace_point *trace_point_find(const struct trace *t, uint32_t image, uint32_t id);

/*
 * The next field's elements: moves *at and *left behind them. False: the event is too
 * short. For strings, *count is the length without the zero byte.
 */
bool trace_field_next(const struct trace_field *f, const uint8_t **at, size_t *left,
	const uint8_t **data, uint32_t *count);

/* Whether all fields are there and nothing else. */
bool trace_point_fits(const struct trace_point *p, const uint8_t *data, size_t len);

/* "a=1, b=\"x\"", or as members of a JSON object. */
void trace_point_print(FILE *out, const struct trace_point *p, const uint8_t *data, size_t len,
	bool json);

#endif
