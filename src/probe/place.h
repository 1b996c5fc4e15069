/* SPDX-License-Identifier: MIT */
/*
 * place.h - a place: an address that has, or had, probes.
 *
 * Places are found by their address or their number, and stay as long as the
 * process: what a thread holds of one is a number. What is made for one while it
 * has probes, the hook and the detour, comes and goes:
 *   the hook (who is called) is freed after a grace period of SRCU,
 *   the detour (code) after one of tasks RCU.
 */
#ifndef SHUNT_PROBE_PLACE_H
#define SHUNT_PROBE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shunt/probe.h>
#include <shunt/tasks.h>

/* One probe as the library knows it; probe->priv. */
struct shunt_probe_user {
	struct shunt_probe *probe;
	struct shunt_place *place;
	struct shunt_probe_user *next; /* of the place, in the order of registration */
	bool on, was_on;
	bool lost; /* its code has gone: never called again, even if other code comes there */
};

struct shunt_probe_call {
	struct shunt_probe *probe;
	shunt_probe_fn pre, post, ret;
	bool gpr;
};

#define SHUNT_HOOK_POST 1u
#define SHUNT_HOOK_RET	2u
#define SHUNT_HOOK_VEC	4u

/* Never changed once it is published. */
struct shunt_probe_hook {
	uint32_t flags, n;
	struct shunt_probe_call call[];
};

/* A place's own program text, whatever has been written there since. */
struct shunt_place_text {
	uint8_t len;  /* of the first instruction */
	uint8_t many; /* of those that a 5-byte jump takes the place of; 0: none may */
	uint8_t kind; /* enum shunt_insn_kind of the first */
	bool goes_on;
	uint8_t n;    /* bytes known */
	uint8_t old[20];
	const char *why_not_many;
};

struct shunt_detour;
struct shunt_object;

struct shunt_place {
	uintptr_t addr;
	uint32_t id;
	/* For the handlers' side. */
	uintptr_t tail;	  /* where the detour goes on after handlers; addr: there is none */
	uintptr_t behind; /* ... and after those behind the first instruction; 0: none */
	uintptr_t next;	  /* the program's address behind the first instruction */
	const struct shunt_probe_hook *hook;
	/* The rest with the probes' lock held. */
	struct shunt_place *hash_next;
	struct shunt_probe_user *users;
	struct shunt_detour *detour;
	struct shunt_detour *retired; /* those before it that somebody may still be in */
	struct shunt_work *work; /* what is being done about it just now */
	uint32_t built;	     /* SHUNT_HOOK_* that the detour was made for */
	uint8_t form;	     /* enum shunt_probe_form: what the text holds */
	uint8_t held;	     /* bytes of it that are ours */
	uint8_t span;	     /* bytes that the detour displaces */
	uint8_t bytes[5];    /* what is ours in the text */
	bool known;	     /* text is filled in */
	bool first;	     /* of a function: the return address is on top of the stack */
	bool trusted;	     /* that an instruction begins there is the caller's word */
	bool lost;	     /* its memory, of no object, is not what it was */
	struct shunt_place_text text;
	struct shunt_object *object; /* NULL: none that is known */
	uintptr_t lo, hi;    /* the function, or what is mapped there */
};

/* Places by number; never fewer. Any context. */
#define SHUNT_PLACE_BLOCK 1024u
#define SHUNT_PLACES_MAX  (1u << 20)
extern struct shunt_place *shunt_place_blocks[SHUNT_PLACES_MAX / SHUNT_PLACE_BLOCK];

static inline struct shunt_place *shunt_place_of(uint32_t id)
{
	return &shunt_place_blocks[id / SHUNT_PLACE_BLOCK][id % SHUNT_PLACE_BLOCK];
}

/* Has fork() wait for the lock; before others that are held while probes change say so. */
void shunt_probes_at_fork(void);
void shunt_probes_lock(void);
void shunt_probes_unlock(void);

/* --- with the probes' lock held --------------------------------------------------- */

/* How many places are armed. */
extern size_t shunt_places_held;

/* The program's text, with what is ours taken out. */
void shunt_place_read(uintptr_t from, uint8_t *to, size_t n);

/* The place at an address, or NULL. */
struct shunt_place *shunt_place_find(uintptr_t addr);

/*
 * The place at an address, made where there is none, its text looked at; or NULL
 * with errno and a reason. `near`, where there is one, is a right address.
 */
struct shunt_place *shunt_place_at(uintptr_t addr, unsigned flags, void **near, char *why,
	size_t size);

/*
 * The place at an address from which the code has gone together with what was ours in it:
 * its object was unloaded, or its memory unmapped. Its users are called no more; it is
 * to be taken out (arming) before it is used for what is there by now. NULL: it is as it was.
 */
struct shunt_place *shunt_place_lost(uintptr_t addr);

/* Whether what is at the place now is not ours to look at, let alone to change. */
bool shunt_place_gone(const struct shunt_place *p);

/* A held place of no object: whether its memory is still there, with what is ours in it. */
bool shunt_place_there(const struct shunt_place *p);

/* Whether [lo, hi) has instructions that the tracer or a variable's setter may change. */
bool shunt_place_others(uintptr_t lo, uintptr_t hi);

/* Frees what was kept between calls of shunt_place_at(). */
void shunt_place_done(void);

/* arm.c: one change of several places. */
struct shunt_arming {
	struct shunt_work *w;
	size_t n, room;
	uintptr_t self; /* the caller's stack, above what is ours */
	bool keep; /* places that nobody uses any more stay as they are */
	uintptr_t where; /* what was refused */
	char reason[192], trouble[192];
};

/* The users of a place, or which of them are on, have changed. 0 or -ENOMEM. */
int shunt_arming_add(struct shunt_arming *a, struct shunt_place *p);
/* Never mind. */
void shunt_arming_forget(struct shunt_arming *a, size_t i);
struct shunt_place *shunt_arming_place(const struct shunt_arming *a, size_t i);
/* Brings all of them to what their users want. All or nothing; errors as probe.h says. */
int shunt_arming_apply(struct shunt_arming *a);
/*
 * Waits until no handler that was taken out runs, and lets go of what is not
 * needed any more. Without the lock. 0 or -EDEADLK: called from a handler.
 */
int shunt_arming_done(struct shunt_arming *a);

/*
 * For tests: parts of the care that are left out. Each of them must make the sweep
 * (tests/probe/sweep.c) fail.
 */
enum {
	SHUNT_PROBE_NO_PIN = 1,	     /* where a thread is about to go is not pinned */
	SHUNT_PROBE_NO_DOORWAY = 2,  /* the way out is code like other code */
	SHUNT_PROBE_EARLY_TAILS = 4, /* tails lead to new detours before the text does */
	SHUNT_PROBE_NO_RETIRED = 8,  /* who may come back from a retired detour is not looked for */
	SHUNT_PROBE_NO_INSIDE = 16,  /* nor who is between the instructions */
	SHUNT_PROBE_NO_WAIT = 32,    /* handlers that run are not waited for */
	/* No omission, but so that the other form is had: no jump shares bytes. */
	SHUNT_PROBE_NO_SHARED = 1 << 16,
};
extern unsigned shunt_probe_test_off;
/* Called when hooks and tails are published and the text is not changed; NULL: not. */
extern void (*shunt_probe_test_between)(void);

#endif
