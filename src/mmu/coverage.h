/* SPDX-License-Identifier: MIT */
/* coverage.h - between sites.c and coverage.c. */
#ifndef SHUNT_MMU_COVERAGE_H
#define SHUNT_MMU_COVERAGE_H

#include "mmu/sites.h"

/* Of the libc that the process has. */
struct shunt_mmu_libc {
	bool is_static;		/* libc, allocator and program are one object */
	uintptr_t malloc, free; /* of whoever defines them; 0: static */
};

/* coverage.c: asks the loader, once. No lock of ours may be held. */
void shunt_mmu_learn(struct shunt_mmu_libc *l);

/* With the lock of sites.c: which sources cannot be seen although they are expected to; the first, why. */
uint32_t shunt_mmu_sites_missing(const struct shunt_mmu_libc *l, char *why, size_t size);

/*
 * sites.c: finds the places of what is loaded now, as arming does. 0, -ENOMEM, -EAGAIN: others load
 * and unload without pause. Takes the lock of sites.c; _done() gives it back.
 */
int shunt_mmu_sites_look(void);
void shunt_mmu_sites_done(void);

/* With that lock: is it armed, or could it be? */
bool shunt_mmu_place_works(const struct shunt_mmu_place *p);

/* Calls fn for each piece of code that is loaded, libc, the loader and libshunt left out. */
struct shunt_object;
void shunt_mmu_each_text(void (*fn)(const struct shunt_object *o, uintptr_t lo, uintptr_t hi, void *arg),
	void *arg);

#endif
