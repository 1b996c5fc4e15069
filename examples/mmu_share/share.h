/* SPDX-License-Identifier: MIT */
/*
 * share.h - a process maps a piece of another one's address space, as XPMEM does.
 *
 * The exporter offers a range of its addresses behind which a memfd is mapped, the importer
 * attaches to some of it. What is attached is *what is at those addresses*: once the exporter
 * unmaps, replaces, moves, discards or protects it, or ends, the importer's view is over: its
 * next access fails with -ESTALE and a reason. It may attach again, and gets what is there then.
 *
 * Promise: between a share_begin() that returned 0 and its share_end(), nothing at the exporter's
 * addresses changes by a system call of the exporter's that is seen before it is made
 * (shunt_mmu_coverage()). The MMU notifier's callback in the exporter sleeps until the importer
 * has no access under way and has put nothing in the place of its view, or has died, of which the
 * kernel tells only when none of its threads can touch memory any more. No time limit is involved.
 *
 * When the exporter is killed nobody can call anything in it. The memfd's pages live on as
 * long as the importer maps them, so that it reads what the exporter left there and never
 * another's data, until it has seen the end of the exporter; from then on -ESTALE.
 *
 * Trust: both have one user id (a socket of another one's is refused). An importer that stays in an access
 * for ever holds up the exporter's munmap(), as a driver's callback would in the kernel.
 */
#ifndef SHARE_H
#define SHARE_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the exporter ---- */

#define SHARE_NAME 40

struct share_export;

/*
 * Offers [start, start + length): whole pages that the memfd is mapped shared at, now or later. The descriptor
 * stays the caller's; it must outlive the export. `told` false: nobody listens to what happens to the range
 * (to show what goes wrong then). 0 or -errno.
 */
int share_export(struct share_export **x, int memfd, void *start, size_t length, bool told);
/* What an importer needs to know: a socket's name, without a file behind it. */
const char *share_export_name(const struct share_export *x);
/* Ends it: all views are over when it returns. */
void share_unexport(struct share_export *x);

/* ---- the importer ---- */

struct share_view;

/*
 * Attaches to [offset, offset + length) of the export. 0, or
 * -EINVAL	not whole pages, or beyond the export
 * -EFAULT	there is nothing at these addresses that could be shared
 * -EACCES	the exporter itself may not read it, or not write to it
 * -ECONNREFUSED, -ECONNRESET	there is no exporter, it ended meanwhile
 * -EPERM	another user's
 */
int share_attach(struct share_view **v, const char *name, size_t offset, size_t length, bool write);
/*
 * Begins an access; it should be short, may be nested, and attaches to nothing meanwhile. 0: *p is where the view is, until
 * share_end(). -ESTALE: it is over. Any thread of the process that attached; -ESTALE in a fork child.
 */
int share_begin(struct share_view *v, void **p);
void share_end(struct share_view *v);
/* Has the exporter asked for it back? Whoever is in an access should end it. */
bool share_asked(const struct share_view *v);
/* Copies: 0, -ESTALE, -EINVAL beyond the view, -EACCES attached to read only. */
int share_read(struct share_view *v, size_t at, void *to, size_t n);
int share_write(struct share_view *v, size_t at, const void *from, size_t n);
/* Why it is over, as a sentence; NULL while it is not. */
const char *share_why(const struct share_view *v);
/* Waits for accesses of other threads; frees v. */
void share_detach(struct share_view *v);

/* ---- between the two: one connection for each view ---- */

enum share_what {
	SHARE_ATTACH = 1, /* importer: offset, length, write */
	SHARE_ATTACHED,	  /* exporter: err, offset in the file; the descriptor comes with it */
	SHARE_REVOKE,	  /* exporter: why */
	SHARE_GONE,	  /* importer: no access any more. Closing the connection says the same */
};

enum share_reason { /* beyond those of enum shunt_mmu_kind */
	SHARE_WITHDRAWN = 100,
	SHARE_ENDED,
	SHARE_DETACHED,
};

struct share_msg {
	uint32_t what;
	uint32_t why;
	int32_t err;
	uint32_t write;
	uint64_t offset, length;
};

/* A descriptor that says when the other end's process dies. */
int share_peer(int sock);

/* A thread that takes no signals of the program's. 0 or -errno. */
static inline int share_start_quiet(pthread_t *t, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(t, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

#endif
