/* SPDX-License-Identifier: MIT */
/*
 * tracer.h - which functions lead where: the state behind ftrace.h and
 * record.h, and the one way to change it.
 *
 * Everything here is called with the tracer's lock held, except where said.
 */
#ifndef SHUNT_TRACE_TRACER_H
#define SHUNT_TRACE_TRACER_H

#include <stdbool.h>
#include <stdint.h>

#include "hook.h"
#include "object/object.h"

/* What a site holds. */
enum shunt_target {
	SHUNT_TARGET_NOP,
	SHUNT_TARGET_RECORD,   /* straight into the ring */
	SHUNT_TARGET_CALL_GPR, /* callbacks without vector registers */
	SHUNT_TARGET_CALL_VEC, /* any callbacks */
	SHUNT_TARGETS,
};

struct shunt_tracer_func {
	uint8_t now;	/* enum shunt_target */
	uint8_t record; /* the recorder wants it */
	uint8_t merged; /* its NOP was made by us */
	uint8_t bad;	/* holds what nobody of us wrote, or cannot be displaced: left alone */
	uint8_t nop[5]; /* what it holds while off */
};

/* An object's part; lives as long as the process. */
struct shunt_tracer_object {
	struct shunt_tracer_object *next;
	struct shunt_object *object;
	uint32_t n;
	bool seen; /* rules and filters were applied */
	uintptr_t bank[SHUNT_TARGETS];
	struct shunt_hook **hooks;
	struct shunt_tracer_func *funcs;
	/* A part's (object.h). Of each page of slots: which banks do not know its bodies. */
	struct shunt_displaced *displaced;
	uint8_t *stale;
};

/* One function's wish in a change. */
struct shunt_wish {
	struct shunt_tracer_object *o;
	uint32_t i;
	uint8_t record;
	uint8_t target;
	bool taken; /* left as it is: its bytes are somebody else's */
	struct shunt_hook *hook, *old_hook;
};

struct shunt_change {
	struct shunt_wish *wishes;
	size_t n, room;
	bool skip_bad;	   /* leave bad sites out instead of failing */
	uint32_t refused;  /* left out: their sites hold something else */
	uint32_t left_out; /* they cannot be displaced */
	uint32_t switched; /* sites written */
	uint64_t ns;
	uintptr_t where; /* the offending address */
	char reason[192];
	struct shunt_change *later; /* on the heap, done with this one */
};

void shunt_tracer_lock(void);
void shunt_tracer_unlock(void);

/*
 * Takes in what was loaded and lets go of what was unloaded; new objects get
 * slots, and their sites become one NOP each.
 */
int shunt_tracer_refresh(void);

struct shunt_tracer_object *shunt_tracer_objects(void);

/* Asks for a function to be recorded or not, with `add` in and `drop` out of its users. */
int shunt_change_add(struct shunt_change *c, struct shunt_tracer_object *o, uint32_t i,
	bool record, struct shunt_ftrace_ops *add, struct shunt_ftrace_ops *drop);

/* Makes it so, in one batch, all or nothing (but for skip_bad). */
int shunt_change_apply(struct shunt_change *c);

/* Frees the change and, after a grace period, the hooks that it replaced. No lock held. */
void shunt_change_done(struct shunt_change *c);

/* The hook of a single user. */
struct shunt_hook *shunt_hook_single(struct shunt_ftrace_ops *ops);
void shunt_hook_single_init(struct shunt_hook *h, struct shunt_ftrace_ops *ops);

/* Totals, for statistics. */
struct shunt_tracer_totals {
	uint64_t batches, toggled, last_ns, memory;
};
extern struct shunt_tracer_totals shunt_tracer_totals;

/* record.c: adds what the rules say of a new object. */
int shunt_record_new_object(struct shunt_change *c, struct shunt_tracer_object *o);

/* ftrace.c: brings a new object to what registered ops ask for, to be done with `c`. */
int shunt_ftrace_new_object(struct shunt_change *c, struct shunt_tracer_object *o);

/* Refreshes, and brings new objects to what is wished. Takes the lock. */
int shunt_tracer_catch_up(struct shunt_change *c);

#endif
