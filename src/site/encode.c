/* SPDX-License-Identifier: MIT */
/* encode.c - see encode.h. */
#include <string.h>

#include <shunt/ops.h>

#include "encode.h"

uint8_t *shunt_site_at(const struct shunt_site *s)
{
	return (uint8_t *)(uintptr_t)&s->at + s->at;
}

uint8_t *shunt_site_target(const struct shunt_site *s)
{
	return (uint8_t *)(uintptr_t)&s->target + s->target;
}

size_t shunt_site_variant(const struct shunt_site *s, uint64_t state)
{
	return state < s->index ? state : s->index - 1u;
}

uint8_t *shunt_site_choice_target(const struct shunt_site *s, uint64_t state)
{
	int32_t *to = (int32_t *)(void *)shunt_site_target(s) + shunt_site_variant(s, state);

	return (uint8_t *)to + *to;
}

enum shunt_kind shunt_site_kind(const struct shunt_site *s)
{
	return (enum shunt_kind)(s->kind & SHUNT_SITE_KIND);
}

/* --- what a site holds -------------------------------------------------------------- */

static bool jumps(const struct shunt_site *s, uint64_t bits)
{
	return !!bits == !!(s->kind & SHUNT_SITE_JUMP_ON);
}

static void encode_key(const struct shunt_site *s, bool jump, uint8_t *to)
{
	static const uint8_t nop2[] = {0x66, 0x90}, nop5[] = {0x0f, 0x1f, 0x44, 0, 0};
	int32_t by = (int32_t)(shunt_site_target(s) - (shunt_site_at(s) + s->len));

	if (!jump) {
		memcpy(to, s->len == 2 ? nop2 : nop5, s->len);
	} else if (s->len == 2) {
		to[0] = 0xeb;
		to[1] = (uint8_t)by;
	} else {
		to[0] = 0xe9;
		memcpy(to + 1, &by, 4);
	}
}

/* A trampoline's first ten bytes; `jmp *%r11` is behind them, then what loads. */
static void encode_call(const struct shunt_site *s, uint64_t target, uint8_t *to)
{
	int64_t by = (int64_t)(target - (uint64_t)(uintptr_t)(shunt_site_at(s) + 5));

	memset(to, 0xcc, s->len);
	if (target == SHUNT_CALL_UNPATCHED) {
		memcpy(to, (uint8_t[]){0xe9, 8, 0, 0, 0}, 5);
	} else if (!target) {
		to[0] = 0xc3;
	} else if (by == (int32_t)by) {
		to[0] = 0xe9;
		memcpy(to + 1, &by, 4);
	} else {
		to[0] = 0x49; /* movabs to %r11 */
		to[1] = 0xbb;
		memcpy(to + 2, &target, 8);
	}
}

static void encode_choice(const struct shunt_site *s, uint64_t state, uint8_t *to)
{
	static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0, 0};
	int32_t by = (int32_t)(shunt_site_choice_target(s, state) - (shunt_site_at(s) + s->len));

	if (!shunt_site_variant(s, state)) {
		memcpy(to, nop5, sizeof nop5);
	} else {
		to[0] = 0xe9;
		memcpy(to + 1, &by, sizeof by);
	}
}

/*
 * An op's variant lies there twice in a row. Four bytes that are the less by the
 * distance in the second are relative to where they are: they get what they have here.
 */
static void encode_op(const struct shunt_site *s, uint64_t state, uint8_t *to)
{
	struct shunt_variant *v = (struct shunt_variant *)(void *)shunt_site_target(s) + shunt_site_variant(s, state);
	const uint8_t *a = (uint8_t *)&v->at + v->at, *b = a + v->len;
	uint8_t *at = to + s->len - v->len;
	int32_t here = (int32_t)(a - (shunt_site_at(s) + s->len - v->len)), x, y;

	memset(to, 0x3e, s->len - v->len);
	memcpy(at, a, v->len);
	for (size_t i = 0; i + 4 <= v->len; i++) {
		memcpy(&x, a + i, sizeof x);
		memcpy(&y, b + i, sizeof y);
		if (x != y && (uint32_t)x - (uint32_t)y == v->len) {
			x = (int32_t)((uint32_t)x + (uint32_t)here);
			memcpy(at + i, &x, sizeof x);
			return;
		}
	}
}

void shunt_site_encode(const struct shunt_site *s, const struct shunt_var *v, uint64_t bits, uint8_t *to)
{
	size_t operand = v->size == 8 ? 8 : 4;

	switch (shunt_site_kind(s)) {
	case SHUNT_KIND_KEY:
		encode_key(s, jumps(s, bits), to);
		break;
	case SHUNT_KIND_CALL:
		encode_call(s, bits, to);
		break;
	case SHUNT_KIND_CHOICE:
		encode_choice(s, bits, to);
		break;
	case SHUNT_KIND_OP:
		encode_op(s, bits, to);
		break;
	case SHUNT_KIND_IMV:
		memcpy(to, shunt_site_at(s), s->len);
		memcpy(to + s->len - operand, &bits, operand);
		break;
	}
}

bool shunt_site_same(const struct shunt_site *s, uint64_t a, uint64_t b)
{
	switch (shunt_site_kind(s)) {
	case SHUNT_KIND_KEY:
		return jumps(s, a) == jumps(s, b);
	case SHUNT_KIND_CHOICE:
	case SHUNT_KIND_OP:
		return shunt_site_variant(s, a) == shunt_site_variant(s, b);
	default:
		return a == b;
	}
}

uint64_t shunt_site_compiled(const struct shunt_site *s)
{
	if (shunt_site_kind(s) == SHUNT_KIND_CALL)
		return SHUNT_CALL_UNPATCHED;
	if (shunt_site_kind(s) != SHUNT_KIND_KEY)
		return 0;
	return !(s->kind & SHUNT_SITE_JUMPS) != !!(s->kind & SHUNT_SITE_JUMP_ON);
}
