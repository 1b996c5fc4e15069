/* SPDX-License-Identifier: MIT */
/* look.h - one look at all threads of the process. */
#ifndef SHUNT_RCU_LOOK_H
#define SHUNT_RCU_LOOK_H

#include "rcu/tasks.h"
#include "text/maps.h"

/* Why a thread has not been seen outside. */
enum shunt_unseen {
	SHUNT_SEEN,
	SHUNT_UNSEEN_NEW,
	SHUNT_UNSEEN_RUNS,  /* and does not answer the signal */
	SHUNT_UNSEEN_VFORK, /* its child, which nobody sees, may be anywhere */
	SHUNT_UNSEEN_DOOR,  /* about to jump into any zone */
	SHUNT_UNSEEN_DEEP,  /* more stacks than are followed, or one that cannot be read */
	SHUNT_UNSEEN_ZONE,  /* in a zone, where that counts as not seen */
	SHUNT_UNSEEN_REFUSED, /* runs, and a sandbox does not let it be asked */
};

struct shunt_looked {
	int tid;
	uint8_t why;   /* enum shunt_unseen */
	uint8_t found; /* in a zone, since it was last looked at */
	uint32_t mark; /* the last listing that had it */
	uintptr_t pc;  /* where it was, if known */
	uint64_t since; /* ns: unseen */
};

/*
 * The state of a look. It is complete when each thread that there was at its
 * beginning, or has come since, was seen once. A thread that was seen outside a
 * zone stays outside, for nothing leads into it; so they need not be seen all at the
 * same time, and a look may take several attempts.
 */
struct shunt_look {
	struct shunt_spots *spots; /* sorted */
	bool outside; /* who is found in a zone is looked at again: zones with open doors */
	uintptr_t self; /* the caller's stack begins here; 0: it is in no zone */
	/*
	 * Instead of zones: whether who stands there is inside, in a system call of that number
	 * with these arguments, or with nr -1 in none. Return addresses and the like do not count
	 * then, and who is inside is looked at again. Threads that have come after the begin of the look are
	 * outside: it is for what cannot be entered any more.
	 */
	bool (*inside)(uintptr_t pc, long nr, const uint64_t *arg);
	bool listed; /* all threads there were, once */
	bool own;     /* the caller itself is in a zone */
	uint32_t mark;
	struct shunt_looked *t; /* a hash by tid */
	size_t room, n;
	size_t left; /* not seen in the last round */
	struct shunt_context *context; /* of coroutines: roots.c */
	size_t ncontexts, context_room;
	unsigned context_rounds;
	bool contexts_known;
	/* of one attempt */
	int dir;
	struct shunt_maps maps;
	uintptr_t lo, hi;
	uint32_t answers; /* taken */
};

int shunt_look_begin(struct shunt_look *l, struct shunt_spots *spots);
/* Looks for up to ms milliseconds: 0: complete, -EAGAIN, -errno. */
int shunt_look_try(struct shunt_look *l, unsigned ms);
void shunt_look_end(struct shunt_look *l);
int shunt_look_set_signal(uint64_t sig);
const char *shunt_look_why(enum shunt_unseen why);

/* For roots.c: reads a stack that nobody runs on; and has all threads looked at again. */
int shunt_look_context(struct shunt_look *l, uintptr_t sp, uintptr_t hi);
void shunt_look_again(struct shunt_look *l);

void shunt_look_lock(void);
void shunt_look_unlock(void);

extern uint64_t shunt_look_threads, shunt_look_tries; /* in all */

#endif
