/* SPDX-License-Identifier: MIT */
/*
 * filter.c - see filter.h. An expression becomes a list of steps in postfix order:
 * comparisons push a bit, the others combine the topmost. 64 steps at most, so that the
 * stack of bits is one word.
 *
 *	or  := and { "||" and }
 *	and := not { "&&" not }
 *	not := "!" not | "(" or ")" | FIELD op constant
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filter.h"
#include "object/object.h"

enum { STEPS = 64, NESTING = 32 };
enum op { EQ, NE, LT, LE, GT, GE, BITS, AND, OR, NOT };

struct step {
	uint8_t op;
	uint8_t field;
	bool text; /* value.text is ours: the fields may be unloaded when it is freed */
	union {
		uint64_t u;
		int64_t s;
		double d;
		char *text; /* a glob */
	} value;
};

struct shunt_filter {
	const struct shunt_field *fields;
	uint32_t nfields, n;
	struct step step[STEPS];
};

struct parser {
	const char *at;
	struct shunt_filter *f;
	char *why;
	size_t why_size;
	int nesting;
};

__attribute__((format(printf, 2, 3))) static int wrong(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why, p->why_size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* --- words ------------------------------------------------------------------------ */

static bool word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void blanks(struct parser *p)
{
	p->at += strspn(p->at, " \t");
}

static bool take(struct parser *p, const char *what)
{
	size_t n = strlen(what);

	blanks(p);
	if (strncmp(p->at, what, n))
		return false;
	p->at += n;
	return true;
}

static int take_field(struct parser *p, uint8_t *field)
{
	const struct shunt_filter *f = p->f;
	char names[256] = "";
	size_t n = 0;

	blanks(p);
	while (word(p->at[n]))
		n++;
	if (!n)
		return wrong(p, "a field's name is missing at '%.40s'", p->at);
	for (uint32_t i = 0; i < f->nfields; i++)
		if (strlen(f->fields[i].name) == n && !memcmp(f->fields[i].name, p->at, n)) {
			*field = (uint8_t)i;
			p->at += n;
			return 0;
		}
	for (uint32_t i = 0; i < f->nfields; i++) {
		size_t len = strlen(names);

		snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", f->fields[i].name);
	}
	return wrong(p, "there is no field %.*s, there is: %s", (int)(n < 64 ? n : 64), p->at,
		*names ? names : "none");
}

static int take_op(struct parser *p, uint8_t *op)
{
	static const struct {
		const char *text;
		enum op op;
	} ops[] = {{"==", EQ}, {"!=", NE}, {"<=", LE}, {">=", GE}, {"<", LT}, {">", GT}};

	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
		if (take(p, ops[i].text)) {
			*op = ops[i].op;
			return 0;
		}
	blanks(p);
	if (p->at[0] == '&' && p->at[1] != '&') {
		p->at++;
		*op = BITS;
		return 0;
	}
	return wrong(p, "a comparison (== != < <= > >= &) is missing at '%.40s'", p->at);
}

/* --- constants --------------------------------------------------------------------- */

static int take_string(struct parser *p, struct step *s)
{
	const char *end;

	blanks(p);
	end = *p->at == '"' ? strchr(p->at + 1, '"') : NULL;
	if (!end)
		return wrong(p, "a string in quotes is missing at '%.40s'", p->at);
	if (s->op != EQ && s->op != NE)
		return wrong(p, "a string is compared by == or !=");
	s->value.text = strndup(p->at + 1, (size_t)(end - p->at - 1));
	if (!s->value.text)
		return -ENOMEM;
	s->text = true;
	if (shunt_glob_check(s->value.text)) {
		wrong(p, "'%.40s' is not a pattern", s->value.text);
		free(s->value.text);
		return -EINVAL;
	}
	p->at = end + 1;
	return 0;
}

static int take_label(struct parser *p, const struct shunt_field *field, struct step *s)
{
	size_t n = 0;

	while (word(p->at[n]))
		n++;
	for (const struct shunt_label *l = field->labels; l && l->name; l++)
		if (strlen(l->name) == n && !memcmp(l->name, p->at, n)) {
			s->value.s = l->value;
			p->at += n;
			return 0;
		}
	return wrong(p, "%s cannot be compared with '%.40s'", field->name, p->at);
}

static int take_number(struct parser *p, const struct shunt_field *field, struct step *s)
{
	bool negative;
	char *end;

	blanks(p);
	negative = *p->at == '-';
	errno = 0;
	if (field->type == SHUNT_TYPE_FLOAT)
		s->value.d = strtod(p->at, &end);
	else if (field->type == SHUNT_TYPE_SIGNED)
		s->value.s = strtoll(p->at, &end, 0);
	else
		s->value.u = strtoull(p->at, &end, 0);
	if (end == p->at)
		return take_label(p, field, s);
	if (word(*end) || *end == '.')
		return wrong(p, "'%.40s' is not a number that %s can be compared with", p->at, field->name);
	if (field->type != SHUNT_TYPE_FLOAT &&
		(errno || (negative && field->type != SHUNT_TYPE_SIGNED)))
		return wrong(p, "'%.40s' is out of the range of %s", p->at, field->name);
	if (s->op == BITS && field->type == SHUNT_TYPE_FLOAT)
		return wrong(p, "%s has no bits for &", field->name);
	p->at = end;
	return 0;
}

/* --- the grammar --------------------------------------------------------------------- */

static int add(struct parser *p, const struct step *s)
{
	if (p->f->n == STEPS)
		return wrong(p, "more than %d comparisons and connectives", STEPS);
	p->f->step[p->f->n++] = *s;
	return 0;
}

/* With no fields known: any name, any constant. */
static int any_comparison(struct parser *p)
{
	struct step s = {0};
	const char *end;
	int err;

	blanks(p);
	if (!word(*p->at) || (*p->at >= '0' && *p->at <= '9'))
		return wrong(p, "a field's name is missing at '%.40s'", p->at);
	while (word(*p->at))
		p->at++;
	err = take_op(p, &s.op);
	if (err)
		return err;
	blanks(p);
	if (*p->at == '"') {
		end = strchr(p->at + 1, '"');
		if (!end)
			return wrong(p, "a string's end is missing at '%.40s'", p->at);
		p->at = end + 1;
		return 0;
	}
	end = p->at + (*p->at == '-' || *p->at == '+');
	if (!word(*end) && *end != '.')
		return wrong(p, "a constant is missing at '%.40s'", p->at);
	while (word(*end) || *end == '.' || ((*end == '-' || *end == '+') && strchr("eEpP", end[-1])))
		end++;
	p->at = end;
	return 0;
}

static int comparison(struct parser *p)
{
	struct step s = {0};
	const struct shunt_field *field;
	int err;

	if (!p->f->fields)
		return any_comparison(p);
	err = take_field(p, &s.field);
	if (err)
		return err;
	field = &p->f->fields[s.field];
	if (field->shape != SHUNT_FIELD_SCALAR && field->shape != SHUNT_FIELD_STRING)
		return wrong(p, "%s has several elements and cannot be compared", field->name);
	err = take_op(p, &s.op);
	if (!err)
		err = field->shape == SHUNT_FIELD_STRING ? take_string(p, &s) : take_number(p, field, &s);
	if (err)
		return err;
	err = add(p, &s);
	if (err && field->shape == SHUNT_FIELD_STRING)
		free(s.value.text);
	return err;
}

static int any(struct parser *p);

static int negation(struct parser *p)
{
	static const struct step not = {.op = NOT};
	int err;

	if (++p->nesting > NESTING)
		return wrong(p, "more than %d levels of parentheses", NESTING);
	blanks(p);
	if (p->at[0] == '!' && p->at[1] != '=') {
		p->at++;
		err = negation(p);
		if (!err)
			err = add(p, &not);
	} else if (take(p, "(")) {
		err = any(p);
		if (!err && !take(p, ")"))
			err = wrong(p, "a ) is missing at '%.40s'", p->at);
	} else {
		err = comparison(p);
	}
	p->nesting--;
	return err;
}

static int all(struct parser *p)
{
	static const struct step and = {.op = AND};
	int err = negation(p);

	while (!err && take(p, "&&")) {
		err = negation(p);
		if (!err)
			err = add(p, &and);
	}
	return err;
}

static int any(struct parser *p)
{
	static const struct step or = {.op = OR};
	int err = all(p);

	while (!err && take(p, "||")) {
		err = all(p);
		if (!err)
			err = add(p, &or);
	}
	return err;
}

int shunt_filter_parse(const char *text, const struct shunt_field *fields, uint32_t nfields,
	struct shunt_filter **filter, char *why, size_t why_size)
{
	struct parser p = {.at = text, .why = why, .why_size = why_size};
	int err;

	p.f = calloc(1, sizeof *p.f);
	if (!p.f)
		return -ENOMEM;
	p.f->fields = fields;
	p.f->nfields = nfields;
	err = any(&p);
	blanks(&p);
	if (!err && *p.at)
		err = wrong(&p, "'%.40s' is too much", p.at);
	if (err) {
		shunt_filter_free(p.f);
		return err;
	}
	*filter = p.f;
	return 0;
}

int shunt_filter_check(const char *text, char *why, size_t why_size)
{
	struct shunt_filter *f;
	int err = shunt_filter_parse(text, NULL, 0, &f, why, why_size);

	if (!err)
		shunt_filter_free(f);
	return err;
}

void shunt_filter_free(const struct shunt_filter *f)
{
	for (uint32_t i = 0; f && i < f->n; i++)
		if (f->step[i].text)
			free(f->step[i].value.text);
	free((void *)(uintptr_t)f);
}

/* --- an event -------------------------------------------------------------------------- */

static size_t field_len(const struct shunt_field *f, const uint8_t *at, size_t left)
{
	uint32_t n;

	switch (f->shape) {
	case SHUNT_FIELD_STRING:
		return strnlen((const char *)at, left) + 1;
	case SHUNT_FIELD_SEQUENCE:
		if (left < sizeof n)
			return left + 1;
		memcpy(&n, at, sizeof n);
		return sizeof n + (size_t)n * f->size;
	default:
		return (size_t)f->size * f->count;
	}
}

static const uint8_t *field_at(const struct shunt_filter *f, uint8_t field, const uint8_t *data,
	size_t len)
{
	size_t at = 0;

	for (uint8_t i = 0; i <= field; i++) {
		size_t n = field_len(&f->fields[i], data + at, len - at);

		if (n > len - at)
			return NULL;
		if (i == field)
			return data + at;
		at += n;
	}
	return NULL;
}

#define COMPARE(a, b, op) \
	((op) == EQ ? (a) == (b) : (op) == NE ? (a) != (b) : (op) == LT ? (a) < (b) \
		: (op) == LE ? (a) <= (b) : (op) == GT ? (a) > (b) : (a) >= (b))

static bool compare(const struct shunt_field *f, const struct step *s, const uint8_t *at)
{
	uint64_t bits = 0;
	unsigned up = 64 - 8u * f->size;
	int64_t sgn;
	double d;
	float x;

	if (f->shape == SHUNT_FIELD_STRING)
		return shunt_glob_match(s->value.text, (const char *)at) == (s->op == EQ);
	memcpy(&bits, at, f->size);
	if (f->type == SHUNT_TYPE_FLOAT) {
		memcpy(&x, at, sizeof x);
		d = (double)x;
		if (f->size == 8)
			memcpy(&d, at, sizeof d);
		return COMPARE(d, s->value.d, s->op);
	}
	if (f->type == SHUNT_TYPE_SIGNED) {
		sgn = (int64_t)(bits << up) >> up;
		return s->op == BITS ? (sgn & s->value.s) != 0 : COMPARE(sgn, s->value.s, s->op);
	}
	return s->op == BITS ? (bits & s->value.u) != 0 : COMPARE(bits, s->value.u, s->op);
}

bool shunt_filter_match(const struct shunt_filter *f, const void *data, size_t len)
{
	uint64_t stack = 0; /* the topmost bit is the lowest */

	for (uint32_t i = 0; i < f->n; i++) {
		const struct step *s = &f->step[i];
		const uint8_t *at;

		switch (s->op) {
		case NOT:
			stack ^= 1;
			break;
		case AND:
			stack = (stack >> 1 & ~1ull) | (stack & stack >> 1 & 1);
			break;
		case OR:
			stack = (stack >> 1 & ~1ull) | ((stack | stack >> 1) & 1);
			break;
		default:
			at = field_at(f, s->field, data, len);
			stack = stack << 1 | (at && compare(&f->fields[s->field], s, at));
		}
	}
	return stack & 1;
}
