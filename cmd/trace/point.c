/* SPDX-License-Identifier: MIT */
/*
 * point.c - see point.h. A line of the file is "ID provider:name", then for each field a
 * tab and its description: "u32 len", "s16[3] a", "u8[] b", "s32{RED=0,BLUE=5} c",
 * "f64 x", "string s" (docs/formats.md).
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "out.h"
#include "trace.h"

/* --- descriptions -------------------------------------------------------------------- */

/* Labels may begin with a digit: they are written in quotes. */
static bool identifier(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_')
			return false;
	return true;
}

/* "{A=1,B=2}" */
static char *parse_labels(struct trace_field *f, char *p)
{
	char *end = strchr(p, '}');

	if (!end)
		return NULL;
	*end = 0;
	for (p++; p && *p;) {
		char *comma = strchr(p, ','), *equals = strchr(p, '=');
		struct trace_label *more;

		if (!equals || (comma && equals > comma))
			return NULL;
		*equals = 0;
		if (comma)
			*comma = 0;
		if (!identifier(p))
			return NULL;
		more = realloc(f->labels, (f->nlabels + 1) * sizeof *more);
		if (!more)
			return NULL;
		f->labels = more;
		f->labels[f->nlabels++] = (struct trace_label){p, strtoll(equals + 1, NULL, 10)};
		p = comma ? comma + 1 : NULL;
	}
	return end + 1;
}

static bool parse_type(struct trace_field *f, char *p)
{
	unsigned long bits;

	f->type = *p;
	if (!strchr("usfpb", *p) || !*p)
		return false;
	bits = strtoul(p + 1, &p, 10);
	if (bits != 8 && bits != 16 && bits != 32 && bits != 64)
		return false;
	f->size = (uint8_t)(bits / 8);
	if (f->type == 'f' && bits < 32)
		return false;
	if (*p == '{')
		p = strchr("us", f->type) ? parse_labels(f, p) : NULL;
	if (!p || *p != '[')
		return p && !*p;
	if (p[1] == ']' && !p[2]) {
		f->shape = TRACE_SEQUENCE;
		return true;
	}
	f->shape = TRACE_ARRAY;
	f->count = (uint32_t)strtoul(p + 1, &p, 10);
	return f->count && f->count <= 4096 && p[0] == ']' && !p[1];
}

static bool parse_field(struct trace_field *f, char *text)
{
	char *space = strrchr(text, ' ');

	memset(f, 0, sizeof *f);
	if (!space)
		return false;
	*space = 0;
	f->name = space + 1;
	f->count = 1;
	if (!identifier(f->name) || isdigit((unsigned char)*f->name))
		return false;
	if (!strcmp(text, "string")) {
		f->shape = TRACE_STRING;
		f->type = 'u';
		f->size = 1;
		return true;
	}
	return parse_type(f, text);
}

/* No reader would know which is meant. */
static bool named_before(const struct trace_point *p)
{
	const char *name = p->fields[p->nfields - 1].name;

	for (size_t i = 0; i + 1 < p->nfields; i++)
		if (!strcmp(p->fields[i].name, name))
			return true;
	return false;
}

static void free_point(struct trace_point *p)
{
	for (size_t i = 0; i < p->nfields; i++)
		free(p->fields[i].labels);
	free(p->fields);
	free((void *)(uintptr_t)p->text);
}

/* False: damaged. */
static bool parse_point(struct trace_point *p, char *line)
{
	char *end, *field;

	p->id = (uint32_t)strtoul(line, &end, 10);
	if (end == line || *end != ' ' || !p->id)
		return false;
	p->name = end + 1;
	p->text = strdup(end + 1);
	field = strchr(end, '\t');
	if (field)
		*field++ = 0;
	while (p->text && field) {
		char *tab = strchr(field, '\t');
		struct trace_field *more = realloc(p->fields, (p->nfields + 1) * sizeof *more);

		if (!more)
			return false;
		if (tab)
			*tab = 0;
		p->fields = more;
		if (!parse_field(&p->fields[p->nfields++], field) || named_before(p))
			return false;
		field = tab ? tab + 1 : NULL;
	}
	for (const char *c = p->name; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_' && *c != ':')
			return false;
	return p->text && *p->name;
}

int trace_parse_points(struct trace *t, uint32_t image, char *text)
{
	char **texts = realloc(t->point_texts, (t->npoint_texts + 1) * sizeof *texts);
	char *line, *save = NULL;

	if (!texts) {
		free(text);
		return -ENOMEM;
	}
	t->point_texts = texts;
	t->point_texts[t->npoint_texts++] = text;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct trace_point p = {.image = image}, *more;

		if (!parse_point(&p, line)) {
			free_point(&p);
			t->warnings++;
			if (t->warn)
				t->warn("points: a tracepoint's description is damaged");
			continue;
		}
		more = realloc(t->points, (t->npoints + 1) * sizeof *more);
		if (!more) {
			free_point(&p);
			return -ENOMEM;
		}
		t->points = more;
		t->points[t->npoints++] = p;
	}
	return 0;
}

void trace_points_free(struct trace *t)
{
	for (size_t i = 0; i < t->npoints; i++)
		free_point(&t->points[i]);
	for (size_t i = 0; i < t->npoint_texts; i++)
		free(t->point_texts[i]);
	free(t->points);
	free(t->point_texts);
	t->points = NULL;
	t->point_texts = NULL;
	t->npoints = t->npoint_texts = 0;
}

static int by_id(const void *a, const void *b)
{
	const struct trace_point *x = a, *y = b;

	if (x->image != y->image)
		return x->image < y->image ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int by_text(const void *a, const void *b)
{
	const struct trace_point *x = *(const struct trace_point *const *)a;
	const struct trace_point *y = *(const struct trace_point *const *)b;
	int c = strcmp(x->text, y->text);

	return c ? c : x < y ? -1 : x > y;
}

int trace_points_sort(struct trace *t)
{
	struct trace_point **order = malloc(t->npoints * sizeof *order + 1);

	if (!order)
		return -ENOMEM;
	if (t->npoints)
		qsort(t->points, t->npoints, sizeof *t->points, by_id);
	for (size_t i = 0; i < t->npoints; i++)
		order[i] = &t->points[i];
	if (t->npoints)
		qsort(order, t->npoints, sizeof *order, by_text);
	for (size_t i = 0; i < t->npoints; i++)
		order[i]->first = i && !strcmp(order[i]->text, order[i - 1]->text)
			? order[i - 1]->first
			: (size_t)(order[i] - t->points);
	free(order);
	return 0;
}

const struct trace_point *trace_point_find(const struct trace *t, uint32_t image, uint32_t id)
{
	struct trace_point key = {.image = image, .id = id};

	return t->npoints ? bsearch(&key, t->points, t->npoints, sizeof key, by_id) : NULL;
}

/* --- events ----------------------------------------------------------------------------- */

bool trace_field_next(const struct trace_field *f, const uint8_t **at, size_t *left,
	const uint8_t **data, uint32_t *count)
{
	const uint8_t *end;
	size_t n;

	*count = f->count;
	if (f->shape == TRACE_STRING) {
		end = *left ? memchr(*at, 0, *left) : NULL;
		if (!end)
			return false;
		*data = *at;
		*count = (uint32_t)(end - *at);
		*left -= *count + 1u;
		*at = end + 1;
		return true;
	}
	if (f->shape == TRACE_SEQUENCE) {
		if (*left < sizeof *count)
			return false;
		memcpy(count, *at, sizeof *count);
		*at += sizeof *count;
		*left -= sizeof *count;
	}
	n = (size_t)*count * f->size;
	if (n > *left)
		return false;
	*data = *at;
	*at += n;
	*left -= n;
	return true;
}

bool trace_point_fits(const struct trace_point *p, const uint8_t *data, size_t len)
{
	const uint8_t *at;
	uint32_t n;

	for (size_t i = 0; i < p->nfields; i++)
		if (!trace_field_next(&p->fields[i], &data, &len, &at, &n))
			return false;
	return !len;
}

static void print_float(FILE *out, const struct trace_field *f, const uint8_t *at, bool json)
{
	double d;
	float x;

	memcpy(&x, at, sizeof x);
	d = (double)x;
	if (f->size == 8)
		memcpy(&d, at, sizeof d);
	if (json && !isfinite(d))
		fprintf(out, "\"%g\"", d);
	else
		fprintf(out, f->size == 8 ? "%.17g" : "%.9g", d);
}

static void print_one(FILE *out, const struct trace_field *f, const uint8_t *at, bool json)
{
	unsigned up = 64 - 8u * f->size;
	uint64_t u = 0;
	int64_t s;

	if (f->type == 'f') {
		print_float(out, f, at, json);
		return;
	}
	memcpy(&u, at, f->size);
	s = (int64_t)(u << up) >> up;
	for (size_t i = 0; i < f->nlabels; i++)
		if (f->labels[i].value == (f->type == 's' ? s : (int64_t)u)) {
			fprintf(out, json ? "\"%s\"" : "%s", f->labels[i].name);
			return;
		}
	if (f->type == 's')
		fprintf(out, "%" PRId64, s);
	else if (f->type == 'b')
		fputs(u ? "true" : "false", out);
	else
		fprintf(out, f->type == 'p' && !json ? "0x%" PRIx64 : "%" PRIu64, u);
}

static void print_field(FILE *out, const struct trace_field *f, const uint8_t *data, uint32_t n, bool json)
{
	if (f->shape == TRACE_STRING) {
		shunt_out_json(out, (const char *)data, n);
		return;
	}
	if (f->shape != TRACE_SCALAR)
		putc('[', out);
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			fputs(", ", out);
		print_one(out, f, data + (size_t)i * f->size, json);
	}
	if (f->shape != TRACE_SCALAR)
		putc(']', out);
}

void trace_point_print(FILE *out, const struct trace_point *p, const uint8_t *data, size_t len,
	bool json)
{
	const uint8_t *at;
	uint32_t n;

	for (size_t i = 0; i < p->nfields; i++) {
		if (!trace_field_next(&p->fields[i], &data, &len, &at, &n))
			return;
		fprintf(out, json ? "%s\"%s\":" : "%s%s=", i ? ", " : "", p->fields[i].name);
		print_field(out, &p->fields[i], at, n, json);
	}
}
