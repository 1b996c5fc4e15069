/* SPDX-License-Identifier: MIT */
/*
 * request.h - the language of the control channel: lines of text.
 *
 * Request: one verb, on each of its lines.
 *
 *   enable GLOB            \n enable GLOB ...    switch functions and tracepoints on;
 *                                                GLOB<TAB>FILTER: tracepoints only
 *   disable GLOB           \n disable GLOB ...   switch functions off
 *   list FIRST-ID [GLOB]                         functions from this id on
 *   stat                                         counters
 *   stop                                         all off, for good
 *   points FIRST [GLOB]                          tracepoints
 *   values FIRST [GLOB]                          values, keys, calls, choices
 *   set NAME=VALUE                               one of them
 *   changes FIRST                                what changed, from this one on
 *   probe SPEC             \n probe SPEC ...      new probes (probe/spec.h), all or none
 *   unprobe GLOB           \n unprobe GLOB ...    removes them, by their events' names
 *   probe-on GLOB ..  probe-off GLOB ..          switches them
 *   probes FIRST [GLOB]                          probes
 *
 * Answer: `ok` or `error SENTENCE`, then lines `key value`; of `list`:
 *
 *   fn <id> <on|off> <address-hex> <size>\t<object>\t<symbol>
 *   next <id>      there is more: ask again from this id
 *
 * of `points`:
 *
 *   pt <number> <on|off> <sites> <probes>\t<object>\t<name>\t<filter>\t<fields, with commas>
 *
 * of `probes`, and of `probe` for the new ones:
 *
 *   pr <number> <on|off> <form> <hits> <address-hex>\t<event>\t<place>\t<spec>
 *
 * of `values`, and of `changes`, whose `next` is always there:
 *
 *   val <number> <kind> <type> <size> <sites> <flags> <address-hex>\t<object>\t<name>\t<value>
 *   chg <number>\t<name>\t<value>
 *
 * All functions here are pure: they look at nothing but their arguments,
 * allocate nothing and never read beyond the length that they are given.
 */
#ifndef SHUNT_CONTROL_REQUEST_H
#define SHUNT_CONTROL_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ctl.h"

enum shunt_ctl_verb {
	SHUNT_CTL_ENABLE = 1,
	SHUNT_CTL_DISABLE,
	SHUNT_CTL_LIST,
	SHUNT_CTL_STAT,
	SHUNT_CTL_STOP,
	SHUNT_CTL_VALUES,
	SHUNT_CTL_SET,
	SHUNT_CTL_CHANGES,
	SHUNT_CTL_POINTS,
	SHUNT_CTL_PROBE,
	SHUNT_CTL_UNPROBE,
	SHUNT_CTL_PROBE_ON,
	SHUNT_CTL_PROBE_OFF,
	SHUNT_CTL_PROBES,
};

enum { SHUNT_CTL_GLOBS = 128 };

struct shunt_ctl_request {
	enum shunt_ctl_verb verb;
	uint32_t first; /* of list, values, changes, points, probes */
	size_t nglobs;
	const char *globs[SHUNT_CTL_GLOBS]; /* into text; of set NAME=VALUE; of probe SPEC */
	char text[SHUNT_CTL_REQUEST + 1];
};

/* 0, or -EINVAL and a sentence in *why. */
int shunt_ctl_parse_request(const char *text, size_t len, struct shunt_ctl_request *req,
	const char **why);

/*
 * Writes a line for each word, behind the verb. Returns the length, or -E2BIG, or -EINVAL for a
 * word that cannot be sent (empty, or with a line break).
 */
ssize_t shunt_ctl_write_lines(char out[SHUNT_CTL_REQUEST], const char *verb, const char *const *words,
	size_t n);
/* So for `enable` or `disable`. */
ssize_t shunt_ctl_write_rules(char out[SHUNT_CTL_REQUEST], const char *const *globs, size_t n,
	bool on);

/* An answer being read: a line at a time. */
struct shunt_ctl_reply {
	const char *at, *end;
};

struct shunt_ctl_line {
	const char *key, *value; /* not terminated */
	size_t key_len, value_len;
};

bool shunt_ctl_next_line(struct shunt_ctl_reply *reply, struct shunt_ctl_line *line);
bool shunt_ctl_key_is(const struct shunt_ctl_line *line, const char *key);

/* The line's value as a decimal number; 0 if it is none. */
uint64_t shunt_ctl_number(const struct shunt_ctl_line *line);

struct shunt_ctl_function {
	uint32_t id;
	bool on;
	uint64_t address;
	uint64_t size;
	const char *object, *symbol; /* not terminated */
	size_t object_len, symbol_len;
};

/* The n-th field of a line's value, between tabs; false if there are not so many. */
bool shunt_ctl_field(const struct shunt_ctl_line *line, unsigned n, const char **text, size_t *len);

/* Reads the value of an `fn` line. */
bool shunt_ctl_parse_function(const struct shunt_ctl_line *line, struct shunt_ctl_function *fn);

#endif
