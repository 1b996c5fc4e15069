/* SPDX-License-Identifier: MIT */
/*
 * fuzz_probe_text.c - a probe's text, and what it fetches from any registers:
 * REGISTERS(18 * 8) TEXT. A register may be pointed at memory that is there, to its end.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <shunt/probe.h>

#include "probe/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 4096 };

/* A page of which nothing comes before and nothing behind. */
static uint8_t *page(void)
{
	static uint8_t *p;

	if (!p) {
		p = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		p += PAGE;
		mprotect(p, PAGE, PROT_READ | PROT_WRITE);
		for (int i = 0; i < PAGE; i++)
			p[i] = (uint8_t)(i % 7 * 31);
	}
	return p;
}

/* 0xff.. in the upper half: an offset in the page. The stack pointer stays what it is. */
static void aim(uint64_t *words)
{
	for (int i = 0; i < 17; i++)
		if (words[i] >> 56 == 0xff)
			words[i] = (uintptr_t)page() + words[i] % (PAGE + 16);
}

/* Offsets in files are placed before a probe is set. */
static void place(struct shunt_fetch *f)
{
	for (uint32_t i = 0; i < f->nargs; i++)
		if (f->arg[i].base == SHUNT_FETCH_FILE)
			f->arg[i].base = SHUNT_FETCH_WORD;
}

/* What a reader of the record finds must be the record, to its last byte. */
static void check(const struct shunt_fetch *f, const uint8_t *at, size_t len)
{
	const uint8_t *end = at + len;

	for (uint32_t i = 0; i < f->nargs; i++) {
		const struct shunt_fetch_arg *a = &f->arg[i];

		if (a->type == SHUNT_FETCH_TEXT) {
			const uint8_t *zero = memchr(at, 0, (size_t)(end - at));

			if (!zero || zero - at >= a->count)
				abort();
			at = zero + 1;
		} else {
			at += shunt_fetch_room(a);
		}
		if (at > end)
			abort();
	}
	if (at + f->faults != end)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct shunt_spec s;
	struct shunt_regs regs;
	uint64_t words[18];
	char why[320] = "", *text;
	uint8_t *record;

	if (size < sizeof words)
		return 0;
	memcpy(words, data, sizeof words);
	aim(words);
	memcpy(&regs, words, sizeof regs);
	/* Any, but not near our own frame: that would be a promise. */
	if (regs.rsp - (uintptr_t)&regs < 1 << 20 || (uintptr_t)&regs - regs.rsp < 1 << 20)
		regs.rsp = 0;
	text = strndup((const char *)data + sizeof words, size - sizeof words);
	if (!text)
		abort();
	if (shunt_spec_parse(text, &s, why, sizeof why)) {
		if (strncmp(why, "at character ", 13))
			abort();
		free(text);
		return 0;
	}
	if (!*s.event || strlen(s.event) >= sizeof s.event || s.fetch.max > SHUNT_FETCH_MAX)
		abort();
	place(&s.fetch);
	record = malloc(s.fetch.max + 1);
	if (!record)
		abort();
	check(&s.fetch, record, shunt_fetch_run(&s.fetch, &regs, record));
	free(record);
	free(text);
	return 0;
}
