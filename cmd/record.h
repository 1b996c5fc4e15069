/* SPDX-License-Identifier: MIT */
/* record.h - what the parts of `shunt record` share. */
#ifndef SHUNT_CMD_RECORD_H
#define SHUNT_CMD_RECORD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <shunt/ring.h>

#include "control/ctl.h"

struct shunt_record_options {
	const char *dir;
	const char *rules;    /* "+glob\n-glob\n" */
	const char *events;   /* "glob<TAB>filter\n" of tracepoints; NULL: none */
	const char *probes;   /* lines of the probe language; NULL: none */
	const char *depth;    /* NULL: no limit */
	uint64_t size;	      /* of the pool; 0: choose */
	bool overwrite;	      /* flight recorder */
	bool children;	      /* record forked processes too */
	bool control;	      /* a control thread in each process */
	const char *clock;    /* NULL: the best there is */
	const char *unmodified; /* globs of objects, one a line; "-": none; NULL: the program */
	bool why;	      /* list what was left out */
	char **argv;	      /* the program */
};

/* One recording, from the making of its directories to the account. */
struct shunt_recording {
	char dir[PATH_MAX];  /* the trace, absolute */
	char shm[64];	     /* shared memory of the recording */
	char command[512];
	char started[32];
	struct shunt_ctl *ctl;
	struct shunt_ring *ring;
	bool overwrite;
	bool events; /* tracepoints were asked for */
	const char *probes; /* lines of the probe language; NULL: none */
	bool why;    /* each function that was left out is listed */
	int data; /* descriptor of the data file */
	uint64_t pages;
	uint64_t bytes;
	int write_error; /* errno of the write that failed, then nothing more is written */
	uint64_t unwritten; /* events in pages that could not be written */
	uint8_t *images; /* bitmap: images that recorded anything */
};

struct shunt_record_totals {
	uint64_t written, discarded, overwritten, read, torn;
	uint32_t threads;
};

/* One line to stderr, "shunt: " before it. */
void shunt_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- record_dir.c: the trace directory ---- */

/* Makes r->dir (from `dir`), moving an older trace of ours out of the way. An exit code. */
int shunt_dir_prepare(struct shunt_recording *r, const char *dir);
/* Writes `info`; 0 or -errno. */
int shunt_dir_info(const struct shunt_recording *r, bool complete);
/* Symbol files of fork children, from their parents'. */
void shunt_dir_images(const struct shunt_recording *r);
/* Writes `threads` and sums up; 0 or -errno. */
int shunt_dir_threads(const struct shunt_recording *r, struct shunt_record_totals *sum);

/* ---- record_drain.c: from the ring to the data file ---- */

/* Takes full pages, at most one round of the pool. Returns their number. */
size_t shunt_drain_full(struct shunt_recording *r);
/* All that is left once nobody writes any more. */
void shunt_drain_rest(struct shunt_recording *r);

/* ---- record_program.c: the program ---- */

struct shunt_program {
	char path[PATH_MAX];
	char **argv;
	char **env;
};

/* Finds it and checks that it can be recorded. 0, or an exit code after saying why. */
int shunt_program_find(struct shunt_program *p, char **argv);
/* Its environment for a recording. 0, or an exit code after saying why. */
int shunt_program_env(struct shunt_program *p, const struct shunt_recording *r,
	const struct shunt_record_options *o);
/* Starts it with the signal mask given. Its pid, or -errno. */
pid_t shunt_program_start(const struct shunt_program *p, const void *mask);

/* ---- record_finish.c: the end ---- */

/* Stops what still runs, drains, writes the account, removes the shared memory. */
int shunt_record_finish(struct shunt_recording *r, bool recovering);
/* What the ring's account says now. */
void shunt_record_sum(const struct shunt_recording *r, struct shunt_record_totals *sum);
/* Removes the recording's files in shared memory. */
void shunt_remove_shared(const struct shunt_recording *r);

/* ---- record_left_out.c: functions that could not be traced ---- */

/* Says how many for which reason, and with r->why which. */
void shunt_left_out_say(const struct shunt_recording *r);
/* 1234567 as 1,234,567. */
const char *shunt_grouped(uint64_t n, char buf[32]);

/* ---- record_recover.c: `shunt record --recover DIR` ---- */
int shunt_record_recover(const char *dir);

#endif
