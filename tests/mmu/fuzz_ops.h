/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ops.h - what the files of the fuzzer have in common. fuzz_ops.c says what it does.
 *
 *	fuzz_ops.c	the process that works, and the one that judges it
 *	fuzz_worker.c	the operations, and the threads that draw from them
 *	fuzz_maps.c	changes of what is mapped where, refused ones too
 *	fuzz_pages.c	changes of pages that stay mapped
 *	fuzz_program.c	processes, threads, the heap, libraries
 *	fuzz_region.c	regions, the ring, what must have been told
 *	fuzz_oracle.c	the notifiers
 */
#ifndef FUZZ_OPS_H
#define FUZZ_OPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shunt/mmu.h>

#include "../../examples/uring.h"
#include "fuzz_oracle.h"

#define WATCHERS 3
#define HEAP_SMALL 6 /* regions of malloc()'s: in a heap, by itself */
#define HEAP_LARGE 7
#define LIB 8

struct worker {
	struct uring ring;
	uint64_t seed;
	unsigned number;
	struct watcher watcher[WATCHERS];
	atomic_ulong done;
	const char *_Atomic doing;
	enum shunt_mmu_source source; /* of the change that was made */
	char lib[32];
};

extern struct worker workers[WORKERS];
extern atomic_bool stop;
/* A worker's thread, until `stop`. */
void *work(void *worker);

/* ---- The operations. ---- */

typedef void fuzz_op(struct worker *w, struct region *r);

fuzz_op op_unmap, op_map_over, op_move, op_move_only_pages, op_move_onto, op_shrink,
	op_grow, op_discard, op_process_madvise, op_punch, op_truncate, op_protect, op_shm,
	op_write, op_fork, op_vfork, op_exec, op_thread, op_heap, op_trim, op_lib, op_nonsense,
	op_refused;

enum where { PAGES_OF_OURS, FILES_OF_OURS, HEAP, LIBRARY };

struct op {
	const char *name;
	fuzz_op *run;
	enum where where;
	unsigned often;
	bool goes_stale; /* as the test for the test, at least once in many */
};

#define OPS 24
extern const struct op ops[OPS];

/* What both processes see. */
struct shared {
	struct verdict v;
	atomic_ulong done[OPS], stale[OPS];
};

extern struct shared *shared;

/* Makes system calls that change memory fail in the window, with ENOMEM. */
void refuse_window(void);

void heap_get(struct worker *w, struct region *r);
uintptr_t heap_start(const struct region *r);
/* A copy of the library that is its own file, so that nobody else keeps it loaded. */
void copy_lib(struct worker *w);
uintptr_t lib_open(struct worker *w, struct region *r);

/* ---- Regions, and what the ring has of them. ---- */

extern atomic_uint epoch; /* odd while the oracle may not be registered */
extern atomic_bool quiet; /* nobody is to listen */
extern int source_file;
extern struct shunt_mmu_coverage coverage;

/* A random number below n. */
unsigned upto(struct worker *w, unsigned n);

struct region *region(struct worker *w, unsigned i);
unsigned slot(struct worker *w, const struct region *r);
void *at(const struct region *r, unsigned pagenr);
/* Some pages of a region: [*a, *b). Returns their length. */
size_t some(struct worker *w, unsigned *a, unsigned *b);

/* Every second region has an interval, but not while nobody is to listen. */
void listen_or_not(struct worker *w, struct region *r);
/* From here on the ring and the memory are the same. */
void enlist(struct worker *w, struct region *r);
/* The region is elsewhere now; what was there is not looked at. */
void move(struct worker *w, struct region *r, uintptr_t to);
/* Reads into it. The pages where nothing arrived, as a mask. */
unsigned transfer(struct worker *w, struct region *r);
/* Something became of it that leaves the ring behind, by what io_uring or the kernel said. */
void must_be_told(struct worker *w, struct region *r, const char *what);
/* true: the region's data had gone astray. */
bool judge(struct worker *w, struct region *r);

void *anonymous(void *where, size_t length, int flags);
/* Pages [a, b) are no longer ours: maps them again, or if another has them, all elsewhere. */
void refill(struct worker *w, struct region *r, unsigned a, unsigned b);

#endif
