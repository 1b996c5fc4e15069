/* SPDX-License-Identifier: MIT */
/*
 * trap.c - the breakpoint protocol (Intel SDM 3A 9.1.3 and errata like AH33).
 *
 *   1. a breakpoint over each site's first byte     | every core serialized
 *   2. the bytes behind the first                   | every core serialized
 *   3. the first bytes                              | every core serialized
 *
 * Invariant: after 1, no core executes or has fetched anything of a site but the
 * breakpoint, so that 2 is seen by nobody; after 2, no core has fetched an old
 * tail, so that a new first byte goes with a new tail. After 3 nobody traps any
 * more. models/breakpoint.pml checks that each of the barriers is needed.
 *
 * Three barriers a batch, however many sites. Threads that trap meanwhile are
 * sent on by sigtrap.c. A thread that has SIGTRAP blocked would be killed by the
 * kernel, and a debugger would take the traps for its own: then this strategy
 * says no.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_arch.h"
#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/log.h"
#include "text/threads.h"
#include "text/trap.h"
#include "text/write.h"

/* How long a thread may take until it has its own mask. */
#define SETTLE_NS 100000000ull

/* --- may it be used? ------------------------------------------------------------- */

/* The mask of one thread blocks SIGTRAP. A thread that is gone does not. */
static bool blocks_trap(int tid)
{
	char path[64], buf[4096];
	const char *p;
	uint64_t mask = 0;

	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	if (shunt_proc_read(path, buf, sizeof buf) <= 0)
		return false;
	p = strstr(buf, "\nSigBlk:");
	if (!p)
		return true;
	for (p += 9; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'); p++)
		mask = mask << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
	return mask >> (SIGTRAP - 1) & 1;
}

/* Some thread blocks SIGTRAP: 1; none: 0; -errno. The caller may if it is left out. */
static int anybody_blocks(bool but_caller)
{
	int caller = but_caller ? (int)shunt_sys(SYS_gettid) : 0, found, tid;
	struct shunt_threads threads;

	found = shunt_threads_open(&threads, "self");
	if (found)
		return found;
	while (!found && (tid = shunt_threads_next(&threads)))
		found = tid != caller && blocks_trap(tid);
	shunt_threads_close(&threads);
	return found;
}

int shunt_trap_possible(bool but_caller, char *why, size_t size)
{
	uint64_t until = shunt_now_ns() + SETTLE_NS;
	struct shunt_status status;
	int r = shunt_status_read(&status);

	if (!r && status.tracer)
		return shunt_why(why, size, -EPERM,
			"process %d traces this one and would take our breakpoints for its own",
			status.tracer);
	/* A thread that is just being created or ending does, for a moment. */
	while ((r = anybody_blocks(but_caller)) > 0 && shunt_now_ns() < until) {
		long pause[2] = {0, 500000};

		shunt_sys(SYS_nanosleep, pause, 0);
	}
	if (r > 0)
		return shunt_why(why, size, -EAGAIN,
			"a thread blocks SIGTRAP: a breakpoint would kill the program");
	if (r < 0)
		return shunt_why(why, size, r, "the threads' signal masks cannot be read: %s",
			strerror(-r));
	r = (int)shunt_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE);
	if (r)
		return shunt_why(why, size, r, "membarrier cannot serialize the cores: %s",
			strerror(-r));
	return 0;
}

static int may_trap(struct shunt_batch *b)
{
	char why[sizeof b->res->reason];
	int r = shunt_trap_possible(true, why, sizeof why);

	return r ? shunt_batch_fail(b, r, NULL, "%s", why) : 0;
}

/* --- the table -------------------------------------------------------------------- */

static bool nop(const uint8_t *p, size_t n)
{
	bool whole;

	return shunt_arch_is_nop(p, n, &whole);
}

static uintptr_t next_of(const struct shunt_edit *e)
{
	switch (e->act) {
	case SHUNT_TEXT_SKIP:
		return shunt_edit_end(e);
	case SHUNT_TEXT_JUMP:
		return (uintptr_t)e->target;
	case SHUNT_TEXT_CALL:
		/*
		 * Pushing a return address for the thread would miss its shadow
		 * stack. Before or after the batch the site is a NOP: be that. Of
		 * two calls neither can be done here, so wait for the second.
		 */
		if (nop(e->old, e->len) || nop(e->new_, e->len))
			return shunt_edit_end(e);
		return shunt_edit_start(e);
	default:
		return shunt_edit_start(e);
	}
}

/*
 * Room for a table. The last one's is used again if no handler can be reading
 * it; if one can, which takes a thread preempted in the middle of the handler,
 * that memory is left to it for good.
 */
static struct shunt_trap_table *table_room(size_t n)
{
	static struct shunt_trap_table *room;
	static size_t room_size;
	size_t size = (sizeof *room + n * sizeof room->e[0] + SHUNT_PAGE - 1) & -SHUNT_PAGE;
	long p;

	if (room && room_size >= size && shunt_trap_idle())
		return room;
	if (room && shunt_trap_idle())
		shunt_sys(SYS_munmap, room, room_size);
	room = NULL;
	p = shunt_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shunt_sys_failed(p))
		return NULL;
	room = (struct shunt_trap_table *)p;
	room_size = size;
	return room;
}

static struct shunt_trap_table *table_make(const struct shunt_batch *b)
{
	struct shunt_trap_table *t = table_room(b->res->sites);

	if (!t)
		return NULL;
	t->n = 0;
	for (size_t i = 0; i < b->n; i++)
		if (b->pending[i])
			t->e[t->n++] = (struct shunt_trap_entry){
				shunt_edit_start(&b->e[i]), next_of(&b->e[i])};
	return t;
}

/* --- the protocol ------------------------------------------------------------------ */

static int phase(struct shunt_writer *w, const struct shunt_batch *b, enum shunt_write_part part)
{
	int err = shunt_writer_write(w, b, part);
	/* Pairs with every thread's return to user space: it executes a
	 * serializing instruction before it fetches from a site again. */
	int bar = (int)shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);

	return err ? err : bar;
}

/* Breakpoints are on all sites, or on none that matters: back to the old bytes. */
static int undo(struct shunt_writer *w, const struct shunt_batch *b)
{
	struct shunt_batch back = *b;
	int err;

	back.undo = true;
	err = phase(w, &back, SHUNT_WRITE_TAIL);
	return err ? err : phase(w, &back, SHUNT_WRITE_FIRST);
}

static int protocol(struct shunt_writer *w, struct shunt_batch *b)
{
	static const enum shunt_write_part parts[] = {
		SHUNT_WRITE_TRAP, SHUNT_WRITE_TAIL, SHUNT_WRITE_FIRST};
	int err = 0;

	for (int i = 0; i < 3 && !err; i++) {
		err = phase(w, b, parts[i]);
		if (err && i < 2)
			break;
		/* Some new first bytes are in: trap again before going back. */
		if (err && phase(w, b, SHUNT_WRITE_TRAP))
			return shunt_batch_fail(b, -EIO, b->e[0].addr, "breakpoints are left over");
	}
	if (!err)
		return 0;
	if (undo(w, b))
		return shunt_batch_fail(b, -EIO, b->e[0].addr, "breakpoints are left over");
	return shunt_batch_fail(b, err, NULL, "the text cannot be written: %s", strerror(-err));
}

int shunt_trap(struct shunt_batch *b)
{
	struct shunt_trap_table *t;
	struct shunt_writer w;
	int err = may_trap(b);

	if (err)
		return err;
	err = shunt_writer_open(&w, b);
	if (err)
		return err;
	t = table_make(b);
	err = t ? shunt_trap_install() : -ENOMEM;
	if (err) {
		shunt_batch_fail(b, err, NULL, "no SIGTRAP handler can be set: %s", strerror(-err));
	} else {
		shunt_trap_publish(t);
		err = protocol(&w, b);
		/* Breakpoints that could not be taken back go on being answered. */
		if (err != -EIO)
			shunt_trap_publish(NULL);
	}
	shunt_writer_close(&w);
	return err;
}
