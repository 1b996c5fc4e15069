/* SPDX-License-Identifier: MIT */
/* write.h - the ways to write to text, for the strategies that do write. */
#ifndef SHUNT_TEXT_WRITE_H
#define SHUNT_TEXT_WRITE_H

#include "text/engine.h"

enum shunt_write_part {
	SHUNT_WRITE_TRAP,  /* a breakpoint over the first byte */
	SHUNT_WRITE_TAIL,  /* all but the first byte */
	SHUNT_WRITE_FIRST, /* the first byte */
	SHUNT_WRITE_WHOLE,
};

/* A run of pages that was opened for writing, and where to write to it. */
struct shunt_write_run {
	uintptr_t start, end, alias;
	int prot;
};

#define SHUNT_WRITE_RUNS 1024

struct shunt_writer {
	enum shunt_text_write how;
	int fd; /* /proc/thread-self/mem */
	size_t n;
	struct shunt_write_run *runs;
};

/* As opts->write says, else the first way that works. Nothing is changed yet. */
int shunt_writer_open(struct shunt_writer *w, struct shunt_batch *b);
/* Writes one part of every pending site. 0 or -errno: some may be written. */
int shunt_writer_write(struct shunt_writer *w, const struct shunt_batch *b,
	enum shunt_write_part part);
int shunt_writer_close(struct shunt_writer *w);

#endif
