/* SPDX-License-Identifier: MIT */
/* mmu.h - the parts of bench-mmu: what is done, who listens meanwhile, and the figures. */
#ifndef BENCH_MMU_H
#define BENCH_MMU_H

#include <stdbool.h>
#include <stddef.h>

#define PAGE 4096

/* ---- work.c: what is done ---- */

void prepare_work(void);
void *map_page(void);
void map_and_unmap(void);
void unmap_nothing(void);
void level_heap(void);
void allocate_and_free(void); /* 1 MiB */
void create_thread(void);
void join_thread(void);
void create_and_join(void);
void create_and_end(void); /* so that who joins it does not wait */
void join_last(void);	   /* if there is one */

/* ---- ours.c, peers.c, fabric.c: who listens ---- */

struct listener {
	const char *name;
	void (*load)(void);   /* what is not to be timed, as the only one; may be NULL */
	int (*arm)(void);     /* 0, -errno, or 1: is not installed */
	void (*disarm)(void); /* NULL: cannot be, or not so that it is worth a figure */
	/* Makes it watch a range, and no more; may be NULL. */
	int (*keep)(void *p, size_t length);
	int (*forget)(void *p, size_t length);
	unsigned long (*heard)(void); /* events so far; may be NULL */
	bool hears_all;		      /* not only what it is made to watch */
};

extern const struct listener shunt_notifier, shunt_interval_1, shunt_interval_100, shunt_interval_100000,
	ucm_bistro, ucm_reloc, uffd;

/* ---- the figures; each prints its own ---- */

bool wanted(int argc, char **argv, const char *name);
/* The list ends with NULL. */
void compare(const struct listener *const *l, int argc, char **argv);
void measure_steps(const char *program, const struct listener *l);
void measure_registering(void);

#endif
