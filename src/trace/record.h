/* SPDX-License-Identifier: MIT */
/*
 * record.h - the built-in recorder: functions whose entries and exits go
 * straight from the trampoline into the ring, with no callback in between.
 *
 * What is recorded is said by an ordered list of rules (glob, on or off); the
 * last rule that matches a function decides, without one it is off. An object
 * loaded later is brought to what the rules say as soon as it is seen.
 *
 * Nothing here may be called from a signal handler; everything may be called
 * from any thread at any time, also concurrently.
 */
#ifndef SHUNT_TRACE_RECORD_H
#define SHUNT_TRACE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shunt_ring;

/* What a change did. */
struct shunt_record_change {
	uint32_t matched; /* functions the globs matched */
	uint32_t changed; /* sites that were switched */
	uint32_t refused; /* sites that could not be switched */
	uint32_t left_out; /* unmodified functions that cannot be traced */
	uint64_t ns;	  /* time the patching took */
	char reason[192]; /* why sites were refused, "" if none was */
};

struct shunt_record_stats {
	uint32_t functions; /* traceable functions known */
	uint32_t on;	    /* of them switched on */
	uint32_t objects;
	uint32_t unmodified;  /* of the functions: not compiled for tracing ... */
	uint32_t left_out;    /* ... and found not to be traceable */
	uint32_t stubs;	      /* return stubs in use ... */
	uint32_t stubs_max;   /* ... of so many */
	uint64_t no_exit;     /* calls whose exit was not recorded: no stub left */
	uint64_t batches;     /* batches applied */
	uint64_t toggled;     /* sites switched, over all batches */
	uint64_t last_ns;     /* time of the last batch */
	uint64_t memory;      /* bytes for slots, stubs and tables */
};

/*
 * Starts the recorder on a ring: loaded objects are found, slots are made,
 * five one-byte NOPs become one. Nothing is switched on yet. 0, or -EALREADY,
 * -ENOMEM, or what the text engine says.
 */
int shunt_record_start(struct shunt_ring *ring);

/*
 * Functions deeper than `depth` traced frames of their thread are not
 * recorded; 0 is no limit. Call before shunt_record_start().
 */
void shunt_record_depth(unsigned depth);

/*
 * Adds rules (all with the same verdict) and applies them in one batch. 0;
 * -ENOENT when nothing matched (the rules are kept, for objects yet to come);
 * -EINVAL for a bad glob; else the text engine's error, and res->reason says
 * why. `res` may be NULL.
 */
int shunt_record_set(const char *const *globs, size_t n, bool on,
	struct shunt_record_change *res);

/*
 * Functions that were not compiled for tracing are traced as well (docs/ftrace.md):
 *  - of objects whose file name matches a glob given here;
 *  - of the program itself, if it has no others (unless told not to: `glob` NULL);
 *  - of objects without others that a rule names, as in "libc.so.6:malloc*": those
 *    that the rule says.
 * Rules that name no object mean an object's unmodified functions in the first two cases
 * only; to leave functions out they mean all. Before shunt_record_start(). 0, -EINVAL for
 * a bad glob, -ENOMEM.
 */
int shunt_record_unmodified(const char *glob);

/*
 * Finds loaded objects, and the unmodified functions that are asked for by rules, or may be
 * by `globs` soon: they have ids then. 0; or -ENOTSUP, and *why (may be NULL): what is
 * needed for them is not installed.
 */
int shunt_record_look(const char *const *globs, size_t n, const char **why);

/* An object's functions as they were asked for that cannot be traced, and why. */
struct shunt_record_left_out {
	const struct shunt_object *object;
	uint32_t i;
	const char *why; /* static */
};
/* Calls fn for each with the tracer's lock held, until it returns not 0: that. */
int shunt_record_left_out(int (*fn)(const struct shunt_record_left_out *f, void *arg), void *arg);

/* Adds rules without applying them (before start, or before a refresh). */
int shunt_record_rule(const char *glob, bool on);

/*
 * Brings objects that were loaded since to what the rules say, forgets those
 * that are gone. Cheap when nothing changed. `res` may be NULL.
 */
int shunt_record_refresh(struct shunt_record_change *res);

/* Whether the function with this id is switched on. */
bool shunt_record_is_on(uint32_t id);

void shunt_record_stats(struct shunt_record_stats *stats);

/*
 * In a fork child: takes the recorder over for the child on its own ring
 * handle (`ring` NULL: the child records nothing; sites stay as they are, but
 * every event is dropped until the sites are switched off).
 */
int shunt_record_in_child(struct shunt_ring *ring);

#endif
