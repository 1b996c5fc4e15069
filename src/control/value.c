/* SPDX-License-Identifier: MIT */
/* value.c - see value.h. */
#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "value.h"

const char *shunt_value_kind(const struct shunt_var *v)
{
	static const char *const kinds[] = {"key", "imv", "call", "choice"};

	return v->kind < sizeof kinds / sizeof *kinds ? kinds[v->kind] : "?";
}

const char *shunt_value_type(const struct shunt_var *v)
{
	static const char *const u[] = {"u8", "u16", "u32", "u64"}, *const s[] = {"s8", "s16", "s32", "s64"};
	unsigned log = v->size == 8 ? 3 : v->size == 4 ? 2 : v->size == 2 ? 1 : 0;

	if (v->kind == SHUNT_KIND_KEY)
		return "bool";
	if (v->kind == SHUNT_KIND_CALL)
		return "function";
	if (v->kind == SHUNT_KIND_CHOICE)
		return "state";
	switch (v->type) {
	case SHUNT_TYPE_SIGNED:
		return s[log];
	case SHUNT_TYPE_FLOAT:
		return v->size == 8 ? "f64" : "f32";
	case SHUNT_TYPE_POINTER:
		return "pointer";
	case SHUNT_TYPE_BOOL:
		return "bool";
	default:
		return u[log];
	}
}

static int64_t sign_extend(uint64_t bits, unsigned size)
{
	unsigned up = 64 - 8 * size;

	return (int64_t)(bits << up) >> up;
}

/* The program's locale may have another decimal point. */
static locale_t plain_locale(void)
{
	static locale_t c;

	if (!c)
		c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	return c;
}

static void format_float(const struct shunt_var *v, uint64_t bits, char *text, size_t size)
{
	locale_t theirs = uselocale(plain_locale());
	double d;
	float f;

	if (v->size == 8) {
		memcpy(&d, &bits, sizeof d);
		snprintf(text, size, "%.17g", d);
	} else {
		memcpy(&f, &bits, sizeof f);
		snprintf(text, size, "%.9g", (double)f);
	}
	uselocale(theirs);
}

void shunt_value_format(const struct shunt_var *v, uint64_t bits, char *text, size_t size)
{
	if (v->kind == SHUNT_KIND_KEY || v->type == SHUNT_TYPE_BOOL)
		snprintf(text, size, "%s", bits ? "true" : "false");
	else if (v->type == SHUNT_TYPE_FLOAT)
		format_float(v, bits, text, size);
	else if (v->type == SHUNT_TYPE_SIGNED)
		snprintf(text, size, "%lld", (long long)sign_extend(bits, v->size));
	else if (v->type == SHUNT_TYPE_POINTER)
		snprintf(text, size, "0x%llx", (unsigned long long)bits);
	else
		snprintf(text, size, "%llu", (unsigned long long)bits);
}

/* --- reading ----------------------------------------------------------------------- */

static int parse_bool(const char *text, uint64_t *bits, const char **why)
{
	static const char *const yes[] = {"true", "1", "on", "yes"}, *const no[] = {"false", "0", "off", "no"};

	for (int i = 0; i < 4; i++)
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*bits = !strcmp(text, yes[i]);
			return 0;
		}
	*why = "it is a bool: true or false";
	return -EINVAL;
}

static int parse_signed(const struct shunt_var *v, const char *text, uint64_t *bits, const char **why)
{
	char *end;
	long long n;

	errno = 0;
	n = strtoll(text, &end, 0);
	*why = "it is an integer";
	if (end == text || *end)
		return -EINVAL;
	*why = "it is out of the type's range";
	if (errno || sign_extend((uint64_t)n, v->size) != n)
		return -ERANGE;
	*bits = (uint64_t)n;
	if (v->size < 8)
		*bits &= (1ull << 8 * v->size) - 1;
	return 0;
}

static int parse_unsigned(const struct shunt_var *v, const char *text, uint64_t *bits, const char **why)
{
	char *end;

	errno = 0;
	*bits = strtoull(text, &end, 0);
	*why = "it is an integer";
	if (end == text || *end)
		return -EINVAL;
	*why = "it is out of the type's range";
	if (errno || strchr(text, '-') || (v->size < 8 && *bits >> 8 * v->size))
		return -ERANGE;
	return 0;
}

static int parse_float(const struct shunt_var *v, const char *text, uint64_t *bits, const char **why)
{
	locale_t theirs = uselocale(plain_locale());
	char *end;
	double d;
	float f;

	errno = 0;
	d = strtod(text, &end);
	uselocale(theirs);
	*why = "it is a number";
	if (end == text || *end)
		return -EINVAL;
	*why = "it is out of the type's range";
	if ((errno == ERANGE && fabs(d) > 1) || (v->size == 4 && isfinite(d) && fabs(d) > (double)FLT_MAX))
		return -ERANGE;
	f = (float)d;
	*bits = 0;
	if (v->size == 8)
		memcpy(bits, &d, sizeof d);
	else
		memcpy(bits, &f, sizeof f);
	return 0;
}

static int parse_state(const char *text, const char *const *states, uint64_t n, uint64_t *bits,
	const char **why)
{
	char *end;

	for (*bits = 0; *bits < n; ++*bits)
		if (!strcmp(states[*bits], text))
			return 0;
	*why = "it has no such state";
	errno = 0;
	*bits = strtoull(text, &end, 10);
	if (end == text || *end || errno || *bits >= n)
		return -ERANGE;
	return 0;
}

int shunt_value_parse(const struct shunt_var *v, const char *text, const char *const *states,
	uint64_t nstates, uint64_t *bits, const char **why)
{
	while (*text == ' ')
		text++;
	if (v->kind == SHUNT_KIND_CHOICE)
		return parse_state(text, states, nstates, bits, why);
	if (v->kind == SHUNT_KIND_KEY || v->type == SHUNT_TYPE_BOOL)
		return parse_bool(text, bits, why);
	switch (v->type) {
	case SHUNT_TYPE_SIGNED:
		return parse_signed(v, text, bits, why);
	case SHUNT_TYPE_UNSIGNED:
		return parse_unsigned(v, text, bits, why);
	case SHUNT_TYPE_FLOAT:
		return parse_float(v, text, bits, why);
	default:
		*why = "it is a pointer, which only the program can set";
		return -EINVAL;
	}
}
