/* SPDX-License-Identifier: MIT */
/*
 * spec.h - the probe language: where a probe is, and what its events say.
 *
 *	[EVENT=][OBJECT:]FUNCTION[+OFFSET][%return][(ARGUMENT, ..)]
 *	[EVENT=]0xADDRESS[(ARGUMENT, ..)]
 *	[EVENT=]OBJECT:0xOFFSET[%return][(ARGUMENT, ..)]
 *
 * An argument is one of the kernel's uprobe_events: [NAME=]FETCHARG[:TYPE], with
 * FETCHARG one of
 *
 *	%REG   $retval   $argN   $stack   $stackN   $comm   @ADDRESS   @+OFFSET   \NUMBER
 *	+OFFSET(FETCHARG)   -OFFSET(FETCHARG)
 *
 * and TYPE one of u8..u64 s8..s64 x8..x64, b<width>@<shift>/<bits>, char, string; of all
 * but the bit field and the string, arrays: u32[4].
 *
 * Pure functions.
 */
#ifndef SHUNT_PROBE_SPEC_H
#define SHUNT_PROBE_SPEC_H

#include "fetch.h"

enum { SHUNT_SPEC_NAME = 64, SHUNT_SPEC_OBJECT = 256, SHUNT_SPEC_FUNCTION = 512 };

struct shunt_spec {
	char event[SHUNT_SPEC_NAME];
	bool named; /* by who asks, not by us */
	char object[SHUNT_SPEC_OBJECT];	    /* "": any */
	char function[SHUNT_SPEC_FUNCTION]; /* "": an address, or an offset in the object's file */
	uint64_t offset;		    /* behind the function's start; or that */
	bool ret;			    /* when the function returns */
	struct shunt_fetch fetch;
};

/* 0, or -EINVAL with a sentence in `why`: what is wrong, at which character, what is right. */
int shunt_spec_parse(const char *text, struct shunt_spec *s, char *why, size_t why_size);

#endif
