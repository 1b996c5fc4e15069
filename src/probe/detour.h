/* SPDX-License-Identifier: MIT */
/* detour.h - making the code that a probe's jump or breakpoint leads to. */
#ifndef SHUNT_PROBE_DETOUR_H
#define SHUNT_PROBE_DETOUR_H

#include <stdbool.h>

#include "probe/insn.h"
#include "probe/place.h"

/* The longest: two calls, the instructions moved, the way back, two addresses. */
#define SHUNT_DETOUR_MAX (2 * 18 + 5 * SHUNT_INSN_MOVED_MAX + 5 + 7 + 16)

/* A detour in memory; freed, with the memory, when nobody can be in it. */
struct shunt_detour {
	struct shunt_rcu_head head;
	struct shunt_zone zone;
	bool window; /* from shunt_window_alloc() */
	struct shunt_place *place;
	struct shunt_detour *older; /* of those of the place that are being retired */
};

/* What a detour is to be. */
struct shunt_detour_plan {
	const struct shunt_place *place;
	uint8_t span;	/* bytes of the program's code that are displaced: whole instructions */
	uint32_t flags; /* SHUNT_HOOK_*: what is called */
};

struct shunt_detour_code {
	uint8_t bytes[SHUNT_DETOUR_MAX];
	size_t size;
	uint16_t tail, behind; /* offsets */
};

/* The code for a plan, executed at `at`. 0, or -ENOTSUP or -ERANGE and *why. */
int shunt_detour_make(const struct shunt_detour_plan *plan, uintptr_t at,
	struct shunt_detour_code *code, const char **why);

/*
 * Memory of a size at an address in [lo, hi], for jumps that can lead nowhere else.
 * Nothing may be held that mmap() waits for. 0, -ENOMEM: all of it is taken, or is
 * where the heap or the stack grow.
 */
int shunt_window_alloc(struct shunt_zone *zone, uintptr_t lo, uintptr_t hi, size_t size);
/* At once: nobody may be in it. */
void shunt_window_free(const struct shunt_zone *zone);
bool shunt_window_owns(uintptr_t addr);
void shunt_window_at_fork(void);

/*
 * After a grace period of tasks RCU. NULL is none. Until then it is one of its place's
 * retired ones: somebody in it may come back to behind the place. Without the probes'
 * lock, which is taken.
 */
void shunt_detour_retire(struct shunt_detour *d);

#endif
