/* SPDX-License-Identifier: MIT */
/*
 * fetch.h - what a probe's event is made of: a few words for each field, carried out at the
 * probe, in whatever context the program is in.
 *
 * An argument begins with a word: a register, a constant, an address. Each `deref` adds to
 * the word and takes what is in memory there: a pointer, or, the last one, the value. Memory
 * is read by process_vm_readv(2), all arguments' first step in one call, then all second
 * ones: a pointer into nowhere costs the program nothing, and the event says which arguments
 * could not be read. What lies on the page of the stack that is in use is read directly.
 *
 * In a record fields follow each other without gaps, as in all of a tracepoint's events
 * (shunt/trace.h); the last one, where arguments are in memory, has a bit for each that
 * could not be read.
 */
#ifndef SHUNT_PROBE_FETCH_H
#define SHUNT_PROBE_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shunt_regs;

enum {
	SHUNT_FETCH_ARGS = 12,
	SHUNT_FETCH_DEREFS = 8,
	SHUNT_FETCH_STRING = 256, /* bytes, the zero byte included */
	SHUNT_FETCH_ARRAY = 64,	  /* elements */
	SHUNT_FETCH_COMM = 16,	  /* bytes of a thread's name */
	SHUNT_FETCH_MAX = 2048,	  /* bytes of a record: it is on the program's stack */
};

enum shunt_fetch_base {
	SHUNT_FETCH_REGISTER,
	SHUNT_FETCH_WORD, /* `word` itself */
	SHUNT_FETCH_FILE, /* as WORD, but an offset in the object's file until it is placed */
	SHUNT_FETCH_NAME, /* the thread's name, a string */
};

enum shunt_fetch_type {
	SHUNT_FETCH_UNSIGNED,
	SHUNT_FETCH_SIGNED,
	SHUNT_FETCH_HEX,
	SHUNT_FETCH_TEXT, /* `count` bytes at most, with the zero byte */
};

struct shunt_fetch_arg {
	char name[64];
	uint8_t base;	 /* enum shunt_fetch_base */
	uint8_t reg;	 /* which word of struct shunt_regs */
	uint8_t type;	 /* enum shunt_fetch_type, of an element */
	uint8_t size;	 /* bytes of an element: 1, 2, 4, 8 */
	uint16_t count;	 /* elements of an array, bytes of a text; 0: one value */
	uint8_t shift;	 /* of a bit field */
	uint8_t width;	 /* of a bit field; 0: all bits */
	uint8_t nderefs;
	int64_t deref[SHUNT_FETCH_DEREFS];
	uint64_t word;
};

struct shunt_fetch {
	uint32_t nargs;
	uint32_t max;	/* bytes that a record can have */
	uint8_t faults; /* bytes of the field that says what could not be read: 0, 1 or 2 */
	struct shunt_fetch_arg arg[SHUNT_FETCH_ARGS];
};

/* Bytes that the argument takes in a record, at most. Pure. */
size_t shunt_fetch_room(const struct shunt_fetch_arg *a);

/*
 * Makes a record at `to`, which has room for f->max bytes; its length. Any context; no
 * lock, no allocation, no libc, errno is left alone; general registers only.
 */
size_t shunt_fetch_run(const struct shunt_fetch *f, const struct shunt_regs *regs, void *to);

#endif
