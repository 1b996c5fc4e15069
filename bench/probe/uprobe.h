/* SPDX-License-Identifier: MIT */
/*
 * uprobe.h - the kernel's own probe on a function of this program, as an event that
 * nobody reads.
 */
#ifndef BENCH_PROBE_UPROBE_H
#define BENCH_PROBE_UPROBE_H

#include <stdbool.h>

/*
 * Finds tracefs, or mounts it where nobody else sees it, and makes an instance of our own
 * there. NULL, or why there are no uprobes.
 */
const char *uprobe_open(void);
void uprobe_close(void);

/* One at a time. False: refused. */
bool uprobe_put(const void *fn, bool at_return);
/* Takes it out; how often it was hit since. */
unsigned long uprobe_take(void);

/* Whether its events are written into the instance's buffer. On, at first. */
void uprobe_record(bool on);

#endif
