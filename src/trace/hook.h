/* SPDX-License-Identifier: MIT */
/*
 * hook.h - what a traced function leads to.
 *
 * A function has at most one hook, found through its slot. A hook with one
 * user calls that user's functions directly; one with several goes through a
 * list. Hooks do not change: another set of users is another hook, and the old
 * one is freed after a grace period (rcu/reader.h).
 */
#ifndef SHUNT_TRACE_HOOK_H
#define SHUNT_TRACE_HOOK_H

#include <stdbool.h>

#include <shunt/ftrace.h>

#include "arch/x86_64/trampoline.h" /* SHUNT_HOOK_* flags */

struct shunt_hook {
	shunt_ftrace_fn entry;	      /* never NULL ... */
	struct shunt_ftrace_ops *ops; /* ... and what it is called with */
	uint32_t flags;
	uint32_t n;
	struct shunt_ftrace_ops *users[]; /* in the order of registration */
};

struct shunt_reader;
struct shunt_ring;
struct shunt_ring_writer;

/* The ring that recorded events go to; NULL: they are dropped. */
extern struct shunt_ring *shunt_trace_ring;

/* The calling thread's next event looks for its writer anew. */
void shunt_trace_writer_reset(void);

/*
 * What the calling thread does between these is not recorded: the agent's work is not
 * the program's. They nest.
 */
void shunt_trace_be_quiet(void);
void shunt_trace_speak(void);
extern __thread unsigned shunt_trace_quiet;

/* Whether the calling thread, whose frame is at `sp`, is in a callback. */
bool shunt_dispatch_inside(uintptr_t sp);

/*
 * A section around callbacks, for others than the tracer: whether any may be called
 * for what was hit with its frame at `sp`, and if so they may be looked up until
 * the end. Any context.
 */
struct shunt_section {
	struct shunt_reader *reader;
};
bool shunt_section_begin(struct shunt_section *s, uintptr_t sp);
void shunt_section_end(struct shunt_section *s);

/* The list form's entry; `ops` is the hook in disguise. */
void shunt_hook_list_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops);
void shunt_hook_nothing(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops);

/*
 * The recorder as a user like others, for functions that have other users as
 * well, and for depth limits. Its `ip` says nothing about the id: see
 * dispatch.c.
 */
extern struct shunt_ftrace_ops shunt_recorder_ops;

#endif
