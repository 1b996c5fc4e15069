/* SPDX-License-Identifier: MIT */
/* kind.h - kinds of tracepoints' events: numbers, descriptions, and the file of them. */
#ifndef SHUNT_TRACE_KIND_H
#define SHUNT_TRACE_KIND_H

#include <stdbool.h>

#include <shunt/trace.h>

/* The longest type of a ring's event: 12 bits, and one that is nobody's. */
enum { SHUNT_POINT_IDS = 4094 };

/* "u32 len" and so on, tabs between fields. 0 or -ENOSPC. Pure. */
int shunt_fields_text(const struct shunt_point *p, char *to, size_t size);

/*
 * The number of a tracepoint's events, from 1 on. Equal ones have one, for a library may be
 * loaded again and again. With the lock of src/site. -ENOMEM; or -EINVAL, -ENOSPC with a sentence in `why`.
 */
int shunt_kind_find(const struct shunt_point *p, char *why, size_t why_size);

/* Whether there is something to export. */
bool shunt_kinds_new(void);

/*
 * Appends to dir/points-IMAGE what is not in it yet: a line for each kind of event.
 * The number of lines that it has now, or -errno. No lock held.
 */
int shunt_kinds_export(const char *dir, uint32_t image);
/* In a fork child: its file is another one. */
void shunt_kinds_exported_none(void);

#endif
