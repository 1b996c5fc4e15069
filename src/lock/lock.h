/* SPDX-License-Identifier: MIT */
/* lock.h - what the lock's parts know of each other. */
#ifndef SHUNT_LOCK_LOCK_H
#define SHUNT_LOCK_LOCK_H

#include <stdbool.h>
#include <stdint.h>

/* How long waiters do what. Set by tests before there are waiters. */
struct shunt_lock_times {
	uint32_t spin_ns; /* park mode: before a sleep */
	uint32_t long_ns; /* native mode: a long spin */
	uint32_t sleep_ns; /* at most, at a time; 0: for ever */
	uint32_t turn_ns;  /* ... for as many of it as there are sleepers; then a ticket is taken */
};
extern struct shunt_lock_times shunt_lock_times;

extern bool shunt_lock_parking;	     /* one may sleep */
extern bool shunt_lock_governed;     /* long spins are counted */
extern uint32_t shunt_lock_spun;     /* long spins; the governor waits for the first */
extern uint32_t shunt_lock_sleeps;   /* how often somebody has gone to sleep */

/* A long spin. Any context. */
void shunt_lock_note(void);
/* Before anything that a child of fork() must not believe in. */
void shunt_lock_mind_forks(void);
/* In the child. */
void shunt_lock_governor_gone(void);

#endif
