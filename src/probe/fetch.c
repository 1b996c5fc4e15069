/* SPDX-License-Identifier: MIT */
/*
 * fetch.c - see fetch.h. Loops over bytes go through volatile pointers: else a compiler makes
 * calls of libc of them, which may be what is probed, and use vector registers, which
 * may be the program's.
 */
#include <sys/prctl.h>
#include <sys/uio.h>

#include <shunt/probe.h>

#include "arch/x86_64/text_sys.h"
#include "fetch.h"

enum { PAGE = 4096, NEAR = 16 * PAGE, GAP = 64, PIECES = 2 * SHUNT_FETCH_ARGS, NOBODY = 255 };

/*
 * What is neither a text nor an array is `value` until all is read, then goes to its place.
 * A text on two pages is two pieces of memory to be read. Pieces that follow each other on
 * one page, as the members of a structure do, are one span: the kernel's work is by spans.
 */
struct run {
	const struct shunt_fetch *f;
	uint8_t *slot[SHUNT_FETCH_ARGS];   /* each argument's place when all are as long as can be */
	uint64_t value[SHUNT_FETCH_ARGS];  /* the word so far */
	uint16_t got[SHUNT_FETCH_ARGS];	   /* bytes of a text that are there */
	uint32_t faults;		   /* a bit for each argument */
	uintptr_t stack;		   /* from here to its page's end it is in use; 0: not known */
	long pid;			   /* 0: not asked for yet */
	uint32_t npieces, nspans;
	struct iovec from[PIECES]; /* spans */
	uint8_t first[PIECES + 1]; /* their first pieces */
	struct iovec to[2 * PIECES]; /* pieces, and what is between them */
	uint8_t owner[2 * PIECES]; /* whose, or NOBODY's */
	uint8_t between[GAP];
};

static void copy(void *to, const void *from, size_t n)
{
	volatile uint8_t *t = to;
	const volatile uint8_t *s = from;

	for (size_t i = 0; i < n; i++)
		t[i] = s[i];
}

static void clear(void *to, size_t n)
{
	volatile uint8_t *t = to;

	for (size_t i = 0; i < n; i++)
		t[i] = 0;
}

static void put(uint8_t *to, uint64_t value, size_t size)
{
	switch (size) {
	case 1:
		*to = (uint8_t)value;
		break;
	case 2:
		__builtin_memcpy(to, &value, 2);
		break;
	case 4:
		__builtin_memcpy(to, &value, 4);
		break;
	default:
		__builtin_memcpy(to, &value, 8);
	}
}

size_t shunt_fetch_room(const struct shunt_fetch_arg *a)
{
	if (a->type == SHUNT_FETCH_TEXT)
		return a->count;
	return (size_t)a->size * (a->count ? a->count : 1);
}

/* --- what is not in memory ------------------------------------------------------------- */

static uint64_t word_of(const struct shunt_fetch_arg *a, const struct shunt_regs *regs)
{
	const uint64_t *words = (const void *)regs;

	return a->base == SHUNT_FETCH_REGISTER ? words[a->reg] : a->word;
}

static uint64_t bits_of(const struct shunt_fetch_arg *a, uint64_t value)
{
	return a->width ? value >> a->shift & (UINT64_MAX >> (64 - a->width)) : value;
}

/* The thread's name, or one character. Where it ends. */
static uint8_t *put_plain_text(const struct shunt_fetch_arg *a, uint64_t value, uint8_t *to)
{
	const volatile uint8_t *at = to;
	uint32_t n = 0;

	clear(to, a->count);
	if (a->base == SHUNT_FETCH_NAME)
		shunt_sys(SYS_prctl, PR_GET_NAME, to);
	else
		*to = (uint8_t)value;
	while (n < a->count - 1u && at[n])
		n++;
	return to + n + 1;
}

/* With nothing in memory. A hot place may be on a small stack. */
static size_t run_plain(const struct shunt_fetch *f, const struct shunt_regs *regs, uint8_t *to)
{
	uint8_t *at = to;

	for (uint32_t i = 0; i < f->nargs; i++) {
		const struct shunt_fetch_arg *a = &f->arg[i];
		uint64_t value = word_of(a, regs);

		if (a->type == SHUNT_FETCH_TEXT) {
			at = put_plain_text(a, value, at);
		} else {
			put(at, bits_of(a, value), a->size);
			at += a->size;
		}
	}
	return (size_t)(at - to);
}

/* --- memory ------------------------------------------------------------------------ */

static void put_piece(struct run *r, uint32_t owner, void *to, size_t n)
{
	r->to[r->npieces] = (struct iovec){to, n};
	r->owner[r->npieces++] = (uint8_t)owner;
}

/* Whether a piece can be the last span's too: behind it, not far, and all on one page. */
static bool continues(const struct run *r, uint64_t addr, size_t n)
{
	uint64_t start, end;

	if (!r->nspans)
		return false;
	start = (uint64_t)r->from[r->nspans - 1].iov_base;
	end = start + r->from[r->nspans - 1].iov_len;
	return addr - end <= GAP && addr + n > addr && start / PAGE == (addr + n - 1) / PAGE;
}

static void piece(struct run *r, uint32_t arg, uint64_t addr, void *to, size_t n)
{
	struct iovec *span;

	if (continues(r, addr, n)) {
		span = &r->from[r->nspans - 1];
		if (addr != (uint64_t)span->iov_base + span->iov_len)
			put_piece(r, NOBODY, r->between, addr - (uint64_t)span->iov_base - span->iov_len);
		span->iov_len = addr + n - (uint64_t)span->iov_base;
	} else {
		r->first[r->nspans] = (uint8_t)r->npieces;
		r->from[r->nspans++] = (struct iovec){(void *)(uintptr_t)addr, n};
	}
	put_piece(r, arg, to, n);
}

/* Whether [addr, addr + n) is on the page of the stack in use, at or above the pointer to it. */
static bool on_stack(const struct run *r, uint64_t addr, size_t n)
{
	return r->stack && addr >= r->stack && n <= PAGE - r->stack % PAGE &&
	       addr - r->stack <= PAGE - r->stack % PAGE - n;
}

static void piece_failed(struct run *r, uint32_t i)
{
	const struct shunt_fetch_arg *a = &r->f->arg[r->owner[i]];

	r->faults |= 1u << r->owner[i];
	if (a->type != SHUNT_FETCH_TEXT)
		clear(r->to[i].iov_base, r->to[i].iov_len);
}

static void piece_read(struct run *r, uint32_t i)
{
	/* A text's second piece does not count when the first one is missing. */
	if (!(r->faults & 1u << r->owner[i]))
		r->got[r->owner[i]] = (uint16_t)(r->got[r->owner[i]] + r->to[i].iov_len);
}

static void span_done(struct run *r, uint32_t span, void (*done)(struct run *r, uint32_t i))
{
	for (uint32_t i = r->first[span]; i < r->first[span + 1]; i++)
		if (r->owner[i] != NOBODY)
			done(r, i);
}

/* The kernel stops at the first span that it cannot read: that one is left out, and so on. */
static void read_spans(struct run *r)
{
	/* Not kept from one hit to the next: a child of vfork() shares our memory, not our id. */
	if (r->nspans && !r->pid)
		r->pid = shunt_sys(SYS_getpid);
	r->first[r->nspans] = (uint8_t)r->npieces;
	for (uint32_t i = 0; i < r->nspans;) {
		long n = shunt_sys(SYS_process_vm_readv, r->pid, r->to + r->first[i], r->npieces - r->first[i],
			r->from + i, r->nspans - i, 0);
		uint64_t left = n < 0 ? 0 : (uint64_t)n;

		for (; i < r->nspans && left >= r->from[i].iov_len; i++) {
			left -= r->from[i].iov_len;
			span_done(r, i, piece_read);
		}
		if (i < r->nspans)
			span_done(r, i++, piece_failed);
	}
	r->nspans = r->npieces = 0;
}

/* --- one step of an argument ----------------------------------------------------------- */

/* As far as the page goes, and the rest apart: it may not be there, and not be needed. */
static void want_text(struct run *r, uint32_t i, uint64_t addr, size_t n)
{
	size_t first = PAGE - addr % PAGE;

	if (first >= n) {
		piece(r, i, addr, r->slot[i], n);
		return;
	}
	piece(r, i, addr, r->slot[i], first);
	piece(r, i, addr + first, r->slot[i] + first, n - first);
}

static void want(struct run *r, uint32_t i, uint64_t addr, bool last)
{
	const struct shunt_fetch_arg *a = &r->f->arg[i];
	size_t n = !last ? 8 : a->type == SHUNT_FETCH_TEXT ? a->count - 1u : shunt_fetch_room(a);
	void *to = last && a->count ? (void *)r->slot[i] : &r->value[i];

	r->value[i] = 0;
	if (on_stack(r, addr, n)) {
		copy(to, (const void *)(uintptr_t)addr, n);
		r->got[i] = (uint16_t)n;
	} else if (last && a->type == SHUNT_FETCH_TEXT) {
		want_text(r, i, addr, n);
	} else {
		piece(r, i, addr, to, n);
	}
}

static bool step(struct run *r, uint32_t level)
{
	bool more = false;

	for (uint32_t i = 0; i < r->f->nargs; i++) {
		const struct shunt_fetch_arg *a = &r->f->arg[i];

		if (level >= a->nderefs || r->faults & 1u << i)
			continue;
		r->got[i] = 0;
		want(r, i, r->value[i] + (uint64_t)a->deref[level], level + 1 == a->nderefs);
		more = true;
	}
	read_spans(r);
	return more;
}

/*
 * Where the stack begins that can be read directly: when this is run on it, something was
 * pushed just below, and up to that page's end it is there. Not on another stack, a signal
 * handler's: the program may have anything in its stack pointer then.
 */
static uintptr_t stack_of(const struct shunt_regs *regs, uintptr_t here)
{
	return regs->rsp > here && regs->rsp - here < NEAR && regs->rsp % PAGE ? regs->rsp : 0;
}

static void begin(struct run *r, const struct shunt_regs *regs, uint8_t *to)
{
	for (uint32_t i = 0; i < r->f->nargs; i++) {
		const struct shunt_fetch_arg *a = &r->f->arg[i];

		r->slot[i] = to;
		to += shunt_fetch_room(a);
		r->got[i] = 0;
		r->value[i] = word_of(a, regs);
		if (a->type == SHUNT_FETCH_TEXT && !a->nderefs)
			r->got[i] = (uint16_t)(put_plain_text(a, r->value[i], r->slot[i]) - r->slot[i] - 1);
	}
}

/* --- the record ------------------------------------------------------------------------- */

/* Moved down to where the one before ends, for texts are shorter than they could be. */
static uint8_t *put_text(const struct run *r, uint32_t i, uint8_t *at, uint32_t *faults)
{
	const volatile uint8_t *from = r->slot[i];
	uint32_t n = 0;

	while (n < r->got[i] && from[n])
		n++;
	/* What could not be read was not needed. */
	if (n < r->got[i])
		*faults &= ~(1u << i);
	copy(at, r->slot[i], n);
	at[n] = 0;
	return at + n + 1;
}

static uint8_t *put_arg(const struct run *r, uint32_t i, uint8_t *at, uint32_t *faults)
{
	const struct shunt_fetch_arg *a = &r->f->arg[i];
	size_t n = shunt_fetch_room(a);

	if (a->type == SHUNT_FETCH_TEXT)
		return put_text(r, i, at, faults);
	if (a->count)
		copy(at, r->slot[i], n);
	else
		put(at, bits_of(a, r->value[i]), n);
	return at + n;
}

static __attribute__((noinline)) size_t run(const struct shunt_fetch *f, const struct shunt_regs *regs,
	uint8_t *to)
{
	uint8_t *at = to;
	struct run r;
	uint32_t faults;

	r.f = f;
	r.faults = 0;
	r.pid = 0;
	r.npieces = r.nspans = 0;
	r.stack = stack_of(regs, (uintptr_t)__builtin_frame_address(0));
	begin(&r, regs, at);
	for (uint32_t level = 0; step(&r, level);)
		level++;
	faults = r.faults;
	for (uint32_t i = 0; i < f->nargs; i++)
		at = put_arg(&r, i, at, &faults);
	put(at, faults, f->faults);
	return (size_t)(at + f->faults - to);
}

size_t shunt_fetch_run(const struct shunt_fetch *f, const struct shunt_regs *regs, void *to)
{
	return f->faults ? run(f, regs, to) : run_plain(f, regs, to);
}
