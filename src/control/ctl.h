/* SPDX-License-Identifier: MIT */
/*
 * ctl.h - the control file of a recording: who is recorded, and a mailbox for
 * each of them.
 *
 * One file, `ctl`, beside the ring's `pool` in the recording's directory in
 * shared memory. The recorder makes it, every recorded process maps it, and so
 * does a `shunt enable` that wants to talk to one. Nobody keeps it open: a
 * program may close all its descriptors and is none the worse.
 *
 *   header     what the recording is, counters, totals
 *   notes      messages from recorded processes to the person who records
 *   images     where each process image comes from
 *   processes  a fixed table; an entry is a process that is recorded now
 *
 * Everything in the file may be damaged by a program that writes wildly.
 * Whoever reads it checks bounds, and copies text out before looking at it;
 * the worst that damage can do is a wrong or missing answer.
 *
 * Mailbox: one request and one answer at a time. `mail` says whose turn it is:
 *
 *   IDLE --command posts--> POSTED --agent takes--> TAKEN --agent answers--> DONE
 *     ^------------------------|  the command withdraws                       |
 *     ^------------------------------------------------------- next command --+
 *
 * Only the agent leaves TAKEN and only a command that holds the entry's lock
 * leaves IDLE or DONE; both try to leave POSTED and a compare-exchange decides.
 * So a request that timed out while the process was stopped is known not to be
 * carried out later, or known to be under way. The lock is a POSIX record lock
 * on the entry's first byte: the kernel lets go of it when its holder dies.
 */
#ifndef SHUNT_CONTROL_CTL_H
#define SHUNT_CONTROL_CTL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHUNT_CTL_MAGIC 0x6c746374746e6873ull /* "shnttctl" */
#define SHUNT_CTL_VERSION 1

enum {
	SHUNT_CTL_PROCS = 64,
	SHUNT_CTL_NOTES = 16,
	SHUNT_CTL_NOTE_TEXT = 232,
	SHUNT_CTL_IMAGES = 4096,
	SHUNT_CTL_REQUEST = 2048,
	SHUNT_CTL_REPLY = 4096,
};

/* Of a process entry. */
enum shunt_ctl_state {
	SHUNT_CTL_FREE = 0,
	SHUNT_CTL_CLAIMED, /* being filled in */
	SHUNT_CTL_LIVE,
	SHUNT_CTL_EXITED,
};

enum shunt_ctl_mail {
	SHUNT_MAIL_IDLE = 0,
	SHUNT_MAIL_POSTED,
	SHUNT_MAIL_TAKEN,
	SHUNT_MAIL_DONE,
};

enum shunt_ctl_style { SHUNT_CTL_COMPILED = 1, SHUNT_CTL_UNMODIFIED };

enum shunt_ctl_note_kind {
	SHUNT_NOTE_NONE = 0,
	SHUNT_NOTE_NOSITES, /* a program without patchable functions */
	SHUNT_NOTE_WARNING,
	SHUNT_NOTE_ERROR, /* a process is not recorded, and why */
};

struct shunt_ctl_note {
	_Atomic uint32_t kind; /* written last */
	uint32_t pid;
	char comm[16];
	char text[SHUNT_CTL_NOTE_TEXT];
};

/*
 * An image is one program in one process: exec and fork start a new one. A
 * fork child's functions are its parent's up to the fork, so it writes no
 * symbol files for them; whoever completes the trace does, from `parent` and
 * `objects`, and only if the child recorded anything.
 */
struct shunt_ctl_image {
	uint32_t pid;
	uint32_t parent;  /* 0: not a fork */
	uint32_t objects; /* symbol files the parent had written at the fork */
	uint32_t unused;
};

struct shunt_ctl_proc {
	_Atomic uint32_t state;
	uint32_t pid;
	uint32_t image;
	uint32_t control; /* 1: has a control thread */
	uint64_t pidns;	  /* pids mean something within one namespace only */
	char exe[104];
	/* mailbox */
	_Atomic uint32_t mail;
	_Atomic uint32_t bell; /* what the agent's control thread waits on */
	uint32_t request_len;
	uint32_t reply_len;
	char request[SHUNT_CTL_REQUEST];
	char reply[SHUNT_CTL_REPLY];
	char unused[8192 - 144 - SHUNT_CTL_REQUEST - SHUNT_CTL_REPLY];
};

struct shunt_ctl {
	uint64_t magic;
	uint32_t version;
	uint32_t size;
	uint32_t recorder; /* pid */
	_Atomic uint32_t ended;
	_Atomic uint32_t next_image; /* the last one given out */
	_Atomic uint32_t next_note;
	/* over all processes */
	_Atomic uint64_t processes;  /* images that the agent came up in */
	_Atomic uint64_t with_sites; /* of them with something to trace */
	_Atomic uint64_t functions;
	_Atomic uint64_t toggled;
	_Atomic uint64_t refused;
	_Atomic uint64_t patch_ns;
	_Atomic uint32_t forking; /* children that have not come up yet; a fork that
				   * failed counts for ever */
	_Atomic uint32_t points; /* 1: tracepoints were switched on */
	_Atomic uint64_t probes; /* bit i: the recorder's probe i, of the first 64, was set somewhere */
	_Atomic uint32_t unmodified; /* 1: a program had none that was compiled for tracing */
	/*
	 * The first program decides for those that it starts: SHUNT_CTL_COMPILED, it has
	 * functions that were compiled for tracing, or _UNMODIFIED; 0: not known yet.
	 */
	_Atomic uint32_t style;
	char out[1024]; /* the trace directory */
	char unused[4096 - 104 - 1024];
	struct shunt_ctl_note notes[SHUNT_CTL_NOTES];
	struct shunt_ctl_image images[SHUNT_CTL_IMAGES];
	struct shunt_ctl_proc procs[SHUNT_CTL_PROCS];
};

_Static_assert(sizeof(struct shunt_ctl_proc) == 8192, "one entry, two pages");
_Static_assert(sizeof(struct shunt_ctl_note) == 256, "note");
_Static_assert(offsetof(struct shunt_ctl, notes) == 4096, "header is one page");
_Static_assert(offsetof(struct shunt_ctl, procs) % 4096 == 0, "entries are on pages");

/*
 * Creates the file, all of its memory taken at once so that a full file system
 * shows here and not as a SIGBUS later. Closes what it opened. 0 or -errno.
 */
int shunt_ctl_create(const char *path, const char *out, struct shunt_ctl **ctl);

/*
 * Maps an existing file. -EINVAL when it is not a control file of this
 * version, -EPERM when it belongs neither to us nor, if we are not root, to
 * root. `keep_fd` (may be NULL) receives the descriptor, for locks; else it is
 * closed.
 */
int shunt_ctl_map(const char *path, struct shunt_ctl **ctl, int *keep_fd);
void shunt_ctl_unmap(struct shunt_ctl *ctl);

/* Adds a message. Text that does not fit is cut; the first 16 are kept. */
void shunt_ctl_note(struct shunt_ctl *ctl, enum shunt_ctl_note_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A new image number, never 0. */
uint32_t shunt_ctl_new_image(struct shunt_ctl *ctl, uint32_t parent, uint32_t objects);

/*
 * An entry for the calling process: its own from before an exec, a free one,
 * or one of a process that is gone. NULL when 64 processes are alive.
 */
struct shunt_ctl_proc *shunt_ctl_claim(struct shunt_ctl *ctl, uint32_t image);

/* Agent: gives the entry back. */
void shunt_ctl_leave(struct shunt_ctl_proc *proc);

/* Whether a process of this entry exists. Entries of other namespaces: yes. */
bool shunt_ctl_alive(const struct shunt_ctl_proc *proc);

/*
 * Agent: takes a posted request, copies it to `text` (with a final NUL).
 * Returns its length, or -EAGAIN when there is none.
 */
ssize_t shunt_mail_take(struct shunt_ctl_proc *proc, char text[SHUNT_CTL_REQUEST + 1]);
void shunt_mail_answer(struct shunt_ctl_proc *proc, const char *text, size_t len);

/* Agent: sleeps until the bell is not `seen` any more, or so long; 0: no limit. May wake early. */
void shunt_mail_wait(struct shunt_ctl_proc *proc, uint32_t seen, unsigned ms);
void shunt_mail_ring(struct shunt_ctl_proc *proc);

/*
 * Command: sends a request and waits for the answer, `timeout_ms` at most for
 * each of: the lock, the process. `fd` is from shunt_ctl_map(). Returns the
 * answer's length, or
 *   -EBUSY     another command holds the mailbox; its pid is in *holder
 *   -ETIMEDOUT no answer; nothing was done (the request was withdrawn)
 *   -EINPROGRESS no answer, but the request is being carried out
 *   -ESRCH     the process is gone
 *   -E2BIG     the request is too long
 */
ssize_t shunt_mail_send(struct shunt_ctl *ctl, int fd, unsigned entry, const char *text,
	size_t len, char reply[SHUNT_CTL_REPLY + 1], int timeout_ms, pid_t *holder);

#endif
