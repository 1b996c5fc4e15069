/* SPDX-License-Identifier: MIT */
/* targets.h - where the branches of a whole object lead. */
#ifndef SHUNT_PROBE_TARGETS_H
#define SHUNT_PROBE_TARGETS_H

#include <stdbool.h>
#include <stdint.h>

struct shunt_object;

/*
 * Whether no direct branch or call of any function of the object leads into [lo, hi).
 * The object is decoded whole when this is first asked; what is not understood, or
 * belongs to no function that is known, may be any branch. False without memory. With
 * the probes' lock held; not while objects are held loaded.
 */
bool shunt_targets_none(struct shunt_object *obj, uintptr_t lo, uintptr_t hi);

#endif
