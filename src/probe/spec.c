/* SPDX-License-Identifier: MIT */
/*
 * spec.c - see spec.h. One pass from left to right; the first thing that is wrong ends it.
 * The place comes first, because what may be asked for depends on it: a return value is
 * there only when a function returns.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <shunt/probe.h>

#include "spec.h"

struct parser {
	const char *text, *at;
	struct shunt_spec *s;
	char *why;
	size_t why_size;
};

/* `at`: the character that is wrong. */
__attribute__((format(printf, 3, 4))) static int wrong(const struct parser *p, const char *at,
	const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	snprintf(p->why, p->why_size, "at character %zu: %s", (size_t)(at - p->text) + 1, what);
	return -EINVAL;
}

/* --- words ------------------------------------------------------------------------- */

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool word(char c)
{
	return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Of a symbol: also what assemblers, linkers and compilers put into one. */
static bool symbolic(char c)
{
	return word(c) || c == '.' || c == '$' || c == '@';
}

static size_t span(const char *at, bool (*is)(char))
{
	size_t n = 0;

	while (is(at[n]))
		n++;
	return n;
}

static void blanks(struct parser *p)
{
	p->at += strspn(p->at, " \t");
}

static bool take(struct parser *p, const char *what)
{
	size_t n = strlen(what);

	if (strncmp(p->at, what, n))
		return false;
	p->at += n;
	return true;
}

/* For messages: the word that begins here, or a character. */
static int shown(const char *at)
{
	size_t n = strcspn(at, " \t,()=:");

	return (int)(n > 40 ? 40 : n || !*at ? n : 1);
}

static unsigned value_of(char c)
{
	return digit(c) ? (unsigned)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10u : 99;
}

/* Decimal or 0x... */
static int take_number(struct parser *p, uint64_t *to)
{
	const char *start = p->at, *digits;
	unsigned base = take(p, "0x") || take(p, "0X") ? 16 : 10;
	uint64_t n = 0;

	for (digits = p->at; value_of(*p->at) < base; p->at++) {
		if (n > (UINT64_MAX - value_of(*p->at)) / base)
			return wrong(p, start, "the number %.*s... is too large", shown(start), start);
		n = n * base + value_of(*p->at);
	}
	if (p->at == digits || word(*p->at))
		return wrong(p, start, "'%.*s' is no number: write 16 or 0x10", shown(start), start);
	*to = n;
	return 0;
}

/* --- registers ------------------------------------------------------------------------ */

#define REG(r) (offsetof(struct shunt_regs, r) / 8)

static const struct {
	char name[8];
	uint8_t reg;
} registers[] = {
	{"rax", REG(rax)}, {"rbx", REG(rbx)}, {"rcx", REG(rcx)}, {"rdx", REG(rdx)}, {"rsi", REG(rsi)},
	{"rdi", REG(rdi)}, {"rbp", REG(rbp)}, {"rsp", REG(rsp)}, {"r8", REG(r8)}, {"r9", REG(r9)},
	{"r10", REG(r10)}, {"r11", REG(r11)}, {"r12", REG(r12)}, {"r13", REG(r13)}, {"r14", REG(r14)},
	{"r15", REG(r15)}, {"rip", REG(rip)}, {"rflags", REG(rflags)},
	/* as the kernel calls them */
	{"ax", REG(rax)}, {"bx", REG(rbx)}, {"cx", REG(rcx)}, {"dx", REG(rdx)}, {"si", REG(rsi)},
	{"di", REG(rdi)}, {"bp", REG(rbp)}, {"sp", REG(rsp)}, {"ip", REG(rip)}, {"flags", REG(rflags)},
};

static int take_register(struct parser *p, struct shunt_fetch_arg *a)
{
	size_t n = span(p->at, word);

	for (size_t i = 0; i < sizeof registers / sizeof *registers; i++)
		if (strlen(registers[i].name) == n && !memcmp(registers[i].name, p->at, n)) {
			a->reg = registers[i].reg;
			p->at += n;
			return 0;
		}
	return wrong(p, p->at - 1, "unknown register %%%.*s: registers are %%rax %%rbx %%rcx %%rdx %%rsi "
		"%%rdi %%rbp %%rsp %%r8 to %%r15 %%rip %%rflags, always all 64 bits (a type takes the "
		"lower ones: %%rdi:u8)", shown(p->at), p->at);
}

/* --- what an argument begins with -------------------------------------------------------- */

static int take_stack(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	uint64_t n;
	int err;

	a->reg = REG(rsp);
	if (!word(*p->at))
		return 0;
	err = take_number(p, &n);
	if (err)
		return err;
	if (n > 4096)
		return wrong(p, start, "%.*s is too far up: up to $stack4096", shown(start), start);
	a->deref[a->nderefs++] = (int64_t)n * 8;
	return 0;
}

static int take_argument(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	static const uint8_t regs[] = {REG(rdi), REG(rsi), REG(rdx), REG(rcx), REG(r8), REG(r9)};
	uint64_t n = 0;

	if (p->s->ret)
		return wrong(p, start, "arguments are gone when a function returns: probe it without %%return");
	if (!word(*p->at) || take_number(p, &n) || !n || n > 6)
		return wrong(p, start, "$arg1 to $arg6 are the arguments that are in registers; the "
			"seventh is $stack1, and so on");
	a->reg = regs[n - 1];
	return 0;
}

static int take_dollar(struct parser *p, struct shunt_fetch_arg *a)
{
	const char *start = p->at - 1;

	if (take(p, "stack"))
		return take_stack(p, a, start);
	if (take(p, "arg"))
		return take_argument(p, a, start);
	if (take(p, "retval") && !word(*p->at)) {
		a->reg = REG(rax);
		return p->s->ret ? 0 : wrong(p, start, "$retval is there only when the function returns: "
						       "write FUNCTION%%return");
	}
	if (take(p, "comm") && !word(*p->at)) {
		a->base = SHUNT_FETCH_NAME;
		return 0;
	}
	return wrong(p, start, "unknown '%.*s': there are $retval, $argN, $stack, $stackN, $comm",
		shown(start), start);
}

static int take_memory(struct parser *p, struct shunt_fetch_arg *a)
{
	a->base = take(p, "+") ? SHUNT_FETCH_FILE : SHUNT_FETCH_WORD;
	a->deref[a->nderefs++] = 0;
	return take_number(p, &a->word);
}

static int take_constant(struct parser *p, struct shunt_fetch_arg *a)
{
	bool negative = take(p, "-");
	int err = take_number(p, &a->word);

	a->base = SHUNT_FETCH_WORD;
	if (negative)
		a->word = -a->word;
	return err;
}

static int take_base(struct parser *p, struct shunt_fetch_arg *a)
{
	a->base = SHUNT_FETCH_REGISTER;
	if (take(p, "%"))
		return take_register(p, a);
	if (take(p, "$"))
		return take_dollar(p, a);
	if (take(p, "@"))
		return take_memory(p, a);
	if (take(p, "\\"))
		return take_constant(p, a);
	return wrong(p, p->at, "%s%.*s%s an argument is %%REGISTER, +OFFSET(ARGUMENT), @ADDRESS, @+OFFSET, "
		"$retval, $argN, $stack, $stackN, $comm or \\NUMBER", *p->at ? "'" : "something is missing:",
		shown(p->at), p->at, *p->at ? "' is none:" : "");
}

/* "+8(": the innermost is the first step. */
static int take_offsets(struct parser *p, int64_t *offsets, unsigned *n)
{
	while (*p->at == '+' || *p->at == '-') {
		const char *start = p->at;
		bool negative = *p->at++ == '-';
		uint64_t by;
		int err;

		take(p, "u"); /* in the kernel: of user space; all is, here */
		err = take_number(p, &by);
		if (err)
			return err;
		if (by > INT32_MAX)
			return wrong(p, start, "the offset %.*s is too large", shown(start), start);
		if (!take(p, "("))
			return wrong(p, p->at, "( is missing: write %.*s(%%rdi) for what is in memory there",
				(int)(p->at - start), start);
		if (*n == SHUNT_FETCH_DEREFS - 1)
			return wrong(p, start, "more than %d steps through memory", SHUNT_FETCH_DEREFS - 1);
		offsets[(*n)++] = negative ? -(int64_t)by : (int64_t)by;
		blanks(p);
	}
	return 0;
}

static int take_fetch(struct parser *p, struct shunt_fetch_arg *a)
{
	int64_t offsets[SHUNT_FETCH_DEREFS];
	const char *start = p->at;
	unsigned n = 0;
	int err = take_offsets(p, offsets, &n);

	if (!err)
		err = take_base(p, a);
	if (!err && n && a->base == SHUNT_FETCH_NAME)
		err = wrong(p, start, "$comm is a string, not an address");
	while (!err && n) {
		blanks(p);
		if (!take(p, ")"))
			return wrong(p, p->at, "a ) is missing behind '%.*s'", (int)(p->at - start), start);
		a->deref[a->nderefs++] = offsets[--n];
	}
	return err;
}

/* --- types --------------------------------------------------------------------------- */

static const char types[] = "u8 u16 u32 u64 s8 s16 s32 s64 x8 x16 x32 x64 char string, "
			    "b<width>@<shift>/<bits>, and arrays such as u32[4]";

static bool bits(uint64_t n)
{
	return n == 8 || n == 16 || n == 32 || n == 64;
}

static int take_bit_field(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	uint64_t width, shift, all;

	if (take_number(p, &width) || !take(p, "@") || take_number(p, &shift) || !take(p, "/") ||
		take_number(p, &all))
		return wrong(p, start, "a bit field is b<width>@<shift>/<bits>, such as b4@8/32");
	if (!bits(all) || !width || width > all || shift > all - width)
		return wrong(p, start, "b%llu@%llu/%llu does not fit: the last number is 8, 16, 32 or 64, and "
			"width and shift are within it", (unsigned long long)width,
			(unsigned long long)shift, (unsigned long long)all);
	a->type = SHUNT_FETCH_UNSIGNED;
	a->size = (uint8_t)(all / 8);
	a->width = (uint8_t)width;
	a->shift = (uint8_t)shift;
	return 0;
}

static int take_integer(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	const char letter = *p->at;
	uint64_t n = 0;

	if (letter && digit(p->at[1])) {
		p->at++;
		if (letter == 'b')
			return take_bit_field(p, a, start);
		if (strchr("usx", letter) && !take_number(p, &n) && bits(n)) {
			a->type = letter == 'u' ? SHUNT_FETCH_UNSIGNED : letter == 's' ? SHUNT_FETCH_SIGNED
										  : SHUNT_FETCH_HEX;
			a->size = (uint8_t)(n / 8);
			return 0;
		}
	}
	return wrong(p, start, "unknown type '%.*s': types are %s", shown(start), start, types);
}

static int take_count(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	uint64_t n = 0;

	if (!take(p, "["))
		return 0;
	if (a->width)
		return wrong(p, start, "there are no arrays of bit fields");
	if (!a->nderefs)
		return wrong(p, start, "an array is in memory: write +0(%%rdi):u32[4]");
	if (!digit(*p->at) || take_number(p, &n) || !n || n > SHUNT_FETCH_ARRAY || !take(p, "]"))
		return wrong(p, start, "an array has 1 to %d elements, such as u32[4]", SHUNT_FETCH_ARRAY);
	a->count = (uint16_t)(a->type == SHUNT_FETCH_TEXT ? n + 1 : n);
	return 0;
}

static int take_string(struct parser *p, struct shunt_fetch_arg *a, const char *start)
{
	a->type = SHUNT_FETCH_TEXT;
	a->size = 1;
	a->count = a->base == SHUNT_FETCH_NAME ? SHUNT_FETCH_COMM : SHUNT_FETCH_STRING;
	if (*p->at == '[')
		return wrong(p, start, "there are no arrays of strings");
	if (a->base != SHUNT_FETCH_NAME && !a->nderefs)
		return wrong(p, start, "a string is in memory: write +0(%%rdi):string");
	return 0;
}

static int take_type(struct parser *p, struct shunt_fetch_arg *a)
{
	const char *start = p->at;
	int err = 0;

	a->type = SHUNT_FETCH_HEX;
	a->size = 8;
	if (!take(p, ":"))
		return a->base == SHUNT_FETCH_NAME ? take_string(p, a, start) : 0;
	start = p->at;
	if (take(p, "string") && !word(*p->at))
		return take_string(p, a, start);
	p->at = start;
	if (a->base == SHUNT_FETCH_NAME)
		return wrong(p, start, "$comm is a string and nothing else");
	if (take(p, "char") && !word(*p->at)) {
		a->type = SHUNT_FETCH_TEXT;
		a->size = 1;
		a->count = 2;
	} else {
		p->at = start;
		err = take_integer(p, a, start);
	}
	return err ? err : take_count(p, a, start);
}

/* --- arguments ------------------------------------------------------------------------ */

static int take_name(struct parser *p, struct shunt_fetch_arg *a)
{
	const struct shunt_fetch *f = &p->s->fetch;
	const char *start = p->at;
	size_t n = span(start, word);

	if (!n || digit(*start) || start[n] != '=') {
		snprintf(a->name, sizeof a->name, "arg%u", f->nargs + 1);
	} else if (n >= sizeof a->name - 1) {
		return wrong(p, start, "an argument's name has more than %zu characters", sizeof a->name - 2);
	} else {
		memcpy(a->name, start, n);
		a->name[n] = 0;
		p->at += n + 1;
		blanks(p);
	}
	if (!strcmp(a->name, "fault"))
		return wrong(p, start, "'fault' is the field that names arguments that cannot be read: "
			"take another name");
	for (uint32_t i = 0; i < f->nargs; i++)
		if (!strcmp(f->arg[i].name, a->name))
			return wrong(p, start, "there are two arguments %s: name one otherwise, as NAME=..",
				a->name);
	return 0;
}

static int take_arg(struct parser *p)
{
	struct shunt_fetch *f = &p->s->fetch;
	struct shunt_fetch_arg *a = &f->arg[f->nargs];
	const char *start = p->at;
	int err;

	if (f->nargs == SHUNT_FETCH_ARGS)
		return wrong(p, start, "more than %d arguments", SHUNT_FETCH_ARGS);
	memset(a, 0, sizeof *a);
	err = take_name(p, a);
	if (!err)
		err = take_fetch(p, a);
	if (!err)
		err = take_type(p, a);
	if (err)
		return err;
	f->nargs++;
	f->faults |= a->nderefs != 0;
	f->max += (uint32_t)shunt_fetch_room(a);
	if (f->max > SHUNT_FETCH_MAX - 2)
		return wrong(p, start, "the arguments take more than %d bytes (a string takes up to %d)",
			SHUNT_FETCH_MAX - 2, SHUNT_FETCH_STRING);
	return 0;
}

/* "(a, b c)": between arguments commas, or blanks as in the kernel. */
static int take_args(struct parser *p)
{
	struct shunt_fetch *f = &p->s->fetch;
	const char *open = p->at;
	int err = 0;

	if (!take(p, "("))
		return 0;
	blanks(p);
	while (!err && *p->at && *p->at != ')') {
		err = take_arg(p);
		if (err)
			return err;
		if (!strchr(" \t,)", *p->at))
			return wrong(p, p->at, "'%.*s' is too much: arguments are separated by commas",
				shown(p->at), p->at);
		blanks(p);
		if (take(p, ",")) {
			blanks(p);
			if (!*p->at || *p->at == ')' || *p->at == ',')
				return wrong(p, p->at, "an argument is missing behind the comma");
		}
	}
	if (!take(p, ")"))
		return wrong(p, p->at, "the ) of the ( at character %zu is missing",
			(size_t)(open - p->text) + 1);
	if (f->faults && f->nargs > 8)
		f->faults = 2;
	f->max += f->faults;
	return 0;
}

/* --- the place ------------------------------------------------------------------------- */

static int take_event(struct parser *p)
{
	size_t n = span(p->at, word);

	if (p->at[n] != '=')
		return 0;
	if (!n || digit(*p->at))
		return wrong(p, p->at, "an event's name is letters, digits and _, and does not begin with a "
			"digit: NAME=FUNCTION");
	if (n >= SHUNT_SPEC_NAME)
		return wrong(p, p->at, "an event's name has more than %d characters", SHUNT_SPEC_NAME - 1);
	memcpy(p->s->event, p->at, n);
	p->s->event[n] = 0;
	p->s->named = true;
	p->at += n + 1;
	return 0;
}

/* Up to the last colon before the arguments. */
static int take_object(struct parser *p)
{
	const char *end = p->at + strcspn(p->at, "("), *colon = memrchr(p->at, ':', (size_t)(end - p->at));
	size_t n = colon ? (size_t)(colon - p->at) : 0;

	if (!colon)
		return 0;
	if (!n)
		return wrong(p, p->at, "the object's name before the : is missing");
	if (n >= SHUNT_SPEC_OBJECT)
		return wrong(p, p->at, "the object's name has more than %d characters", SHUNT_SPEC_OBJECT - 1);
	memcpy(p->s->object, p->at, n);
	p->s->object[n] = 0;
	p->at = colon + 1;
	return 0;
}

static int take_function(struct parser *p)
{
	size_t n = span(p->at, symbolic);
	int err = 0;

	if (!strncmp(p->at, "0x", 2) || !strncmp(p->at, "0X", 2))
		return take_number(p, &p->s->offset);
	if (!n || digit(*p->at))
		return wrong(p, p->at, "%s: write [OBJECT:]FUNCTION[+OFFSET], or an address as 0x401000",
			digit(*p->at) ? "a function's name does not begin with a digit" :
					"a function's name is missing");
	if (n >= SHUNT_SPEC_FUNCTION)
		return wrong(p, p->at, "the function's name has more than %d characters",
			SHUNT_SPEC_FUNCTION - 1);
	memcpy(p->s->function, p->at, n);
	p->s->function[n] = 0;
	p->at += n;
	if (take(p, "+"))
		err = take_number(p, &p->s->offset);
	return err;
}

static int take_return(struct parser *p)
{
	struct shunt_spec *s = p->s;
	const char *start = p->at;

	if (!take(p, "%"))
		return 0;
	if (!take(p, "return") || word(*p->at))
		return wrong(p, start, "only %%return can be behind a function");
	if (s->function[0] && s->offset)
		return wrong(p, start, "a function's return is asked for at its start: leave out the +offset");
	s->ret = true;
	return 0;
}

/* --- all ---------------------------------------------------------------------------------- */

static void name_event(struct shunt_spec *s)
{
	char name[SHUNT_SPEC_OBJECT + SHUNT_SPEC_FUNCTION + 32];
	size_t n = 0;

	if (s->function[0] && s->offset)
		snprintf(name, sizeof name, "%s_0x%llx", s->function, (unsigned long long)s->offset);
	else if (s->function[0])
		snprintf(name, sizeof name, "%s", s->function);
	else
		snprintf(name, sizeof name, "%s_0x%llx", s->object[0] ? s->object : "at",
			(unsigned long long)s->offset);
	for (char *c = name; *c; c++)
		if (!word(*c))
			*c = '_';
	if (digit(*name))
		s->event[n++] = '_';
	snprintf(s->event + n, sizeof s->event - n, "%.*s%s", (int)(sizeof s->event - n - 9), name,
		s->ret ? "__return" : "");
}

int shunt_spec_parse(const char *text, struct shunt_spec *s, char *why, size_t why_size)
{
	struct parser p = {text, text, s, why, why_size};
	int err;

	memset(s, 0, sizeof *s);
	blanks(&p);
	err = take_event(&p);
	if (!err)
		err = take_object(&p);
	if (!err)
		err = take_function(&p);
	if (!err)
		err = take_return(&p);
	blanks(&p);
	if (!err)
		err = take_args(&p);
	blanks(&p);
	if (!err && *p.at)
		err = wrong(&p, p.at, "'%.*s' is too much", shown(p.at), p.at);
	if (!err && !s->named)
		name_event(s);
	return err;
}
