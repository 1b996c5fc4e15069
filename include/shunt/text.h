/* SPDX-License-Identifier: MIT */
/*
 * text.h - change instructions while other threads run them.
 *
 * What: an *edit* says which bytes at an address become which others. A batch
 * of edits is applied by one call, on a live program, whatever its threads do
 * meanwhile. Each site is at any moment either old or new for every thread,
 * never a mixture; the batch as a whole is not atomic, just as several stores
 * to ordinary variables are not.
 *
 * Why: to keep what is switched off out of the running instruction stream, a
 * program must be able to rewrite that stream, and storing over instructions
 * that another core is executing is undefined by the processor manuals.
 *
 *   shunt_text_apply()          apply a batch
 *   shunt_text_strategy_name()  "flip", "trap", ... for messages
 *
 * Example: switch a 5-byte NOP at `site` to a jump to `to`, live:
 *
 *	struct shunt_edit e = {
 *		.addr = site, .target = to, .len = 5, .act = SHUNT_TEXT_JUMP,
 *		.old = {0x0f, 0x1f, 0x44, 0x00, 0x00},
 *	};
 *	struct shunt_text_result res;
 *	int32_t rel = (char *)to - ((char *)site + 5);
 *
 *	e.new_[0] = 0xe9;
 *	memcpy(e.new_ + 1, &rel, 4);
 *	if (shunt_text_apply(&e, 1, NULL, &res))
 *		fprintf(stderr, "%p: %s\n", res.addr, res.reason);
 *
 * How it works (docs/patching.md has the whole of it): one of
 *   flip   an edited private copy of the pages, moved over them in one step;
 *          nothing traps, threads that come along wait in a page fault;
 *   trap   a breakpoint over each first byte, tails, first bytes, with every
 *          core serialized in between; threads that trap are emulated;
 *   stop   a helper process stops all other threads, moves those that stand
 *          inside a site, and writes;
 *   plain  there is only one thread: the bytes are written.
 * SHUNT_TEXT_AUTO takes plain for a few pages of a single-threaded process,
 * else the first of flip, trap, stop that is possible and safe here.
 *
 * Caveats:
 * - Whoever edits text must know where instructions begin. An edit must replace
 *   whole instructions; with old bytes of several instructions, such as five
 *   one-byte NOPs, a thread may stand between them: only `stop` (and `plain`)
 *   handle that.
 * - Objects must not be unmapped during the call.
 * - Edited pages become private to the process (memory, not shared with other
 *   processes that run the same file).
 * - Processes that share memory without being threads (clone with CLONE_VM
 *   alone) are not counted as threads. A vfork child is harmless to `flip`.
 */
#ifndef SHUNT_TEXT_H
#define SHUNT_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The longest instruction of x86-64. */
#define SHUNT_EDIT_MAX 15

/* What a thread that traps at the site meanwhile does (strategy trap only). */
enum shunt_text_act {
	SHUNT_TEXT_RETRY = 0, /* waits there until the site is done */
	SHUNT_TEXT_SKIP = 1,  /* goes on behind the site: one side is a NOP */
	SHUNT_TEXT_JUMP = 2,  /* goes on at target: one side jumps there */
	SHUNT_TEXT_CALL = 3,  /* one side calls target; skipped if the other is a NOP */
};

enum shunt_text_strategy {
	SHUNT_TEXT_AUTO = 0,
	SHUNT_TEXT_FLIP = 1,
	SHUNT_TEXT_TRAP = 2,
	SHUNT_TEXT_STOP = 3,
	SHUNT_TEXT_PLAIN = 4, /* only while there is a single thread */
};

/* How `trap`, `stop` and `plain` write. */
enum shunt_text_write {
	SHUNT_TEXT_WRITE_AUTO = 0,
	SHUNT_TEXT_WRITE_MEM = 1,      /* pwrite to /proc/self/mem */
	SHUNT_TEXT_WRITE_MPROTECT = 2, /* make the pages writable for a moment */
	SHUNT_TEXT_WRITE_ALIAS = 3,    /* a second, writable mapping: the text becomes a
					* memfd, shared with later fork children; never
					* chosen by AUTO */
};

struct shunt_edit {
	void *addr;
	void *target; /* for JUMP and CALL */
	uint8_t len;  /* 1 to SHUNT_EDIT_MAX */
	uint8_t act;  /* enum shunt_text_act */
	uint8_t old[SHUNT_EDIT_MAX];
	uint8_t new_[SHUNT_EDIT_MAX];
};

/* All zero is the default. */
struct shunt_text_options {
	enum shunt_text_strategy strategy;
	enum shunt_text_write write;
	uint32_t timeout_ms; /* for stop: 0 means 1000 */
};

struct shunt_text_result {
	enum shunt_text_strategy strategy; /* the one that was used, or failed last */
	enum shunt_text_write write;       /* the way of writing, where it matters */
	void *addr;                        /* the site that was refused, or NULL */
	size_t sites;                      /* sites written (others held the new bytes) */
	size_t pages;                      /* pages they are in */
	uint64_t ns;                       /* time taken, nanoseconds */
	char reason[192];                  /* why it failed, one sentence; "" on success */
};

/*
 * Applies n edits. They need not be sorted (sorted ones are faster) and must
 * not overlap. Before anything is written every site is compared with its old
 * bytes; a site that holds the new bytes already is left alone.
 *
 * opts may be NULL (AUTO), res may be NULL. Any thread at any time, not from
 * signal handlers. Batches of several threads take turns. Blocks on other
 * batches; allocates nothing with malloc. All signals but the synchronous ones
 * are held back in the calling thread meanwhile.
 *
 * 0, or with nothing changed:
 * -EBUSY	res->addr does not hold its old bytes (somebody's breakpoint, hook)
 * -EINVAL	bad length, act or option, overlapping edits (res->addr)
 * -EFAULT	res->addr is not in readable executable memory
 * -ENOTSUP	the strategy asked for cannot work there
 * -EAGAIN	it could now not, but may later: threads block SIGTRAP, would not
 *		stop in time, or stand inside a site
 * -EPERM, -EACCES, -ENOMEM, ... what the system calls said; see res->reason
 * With -EIO some sites could be neither completed nor restored (res->addr is
 * one of them); each is still wholly old or wholly new.
 */
SHUNT_API int shunt_text_apply(const struct shunt_edit *edits, size_t n,
	const struct shunt_text_options *opts, struct shunt_text_result *res);

/* A strategy's name. Any context. */
SHUNT_API const char *shunt_text_strategy_name(enum shunt_text_strategy s);

#ifdef __cplusplus
}
#endif
#endif
