/* SPDX-License-Identifier: MIT */
/*
 * ring.h - a lockless event buffer in a file: written from any context, signal
 * handlers included, read by another process, whole after a crash.
 *
 * A memory file holds a pool of pages. A thread takes a page, fills it alone
 * and hands it over; a consumer reads full pages and gives them back. Memory is
 * bounded by the pool. An event is there completely or not at all.
 *
 *   shunt_ring_create(), shunt_ring_open(), shunt_ring_close()
 *   shunt_ring_put()            a short event: 31 bits and the time, 8 bytes
 *   shunt_ring_write()          a long event: a type and up to 4,095 bytes
 *   shunt_ring_page_next(), shunt_ring_page_release()    consume
 *   shunt_ring_reap()           take over what ended threads left
 *   shunt_ring_events(), shunt_ring_event_next()         what is in a page
 *   shunt_ring_info(), shunt_ring_account(), shunt_ring_held()
 *
 * Example:
 *
 *	struct shunt_ring_options o = {.size = 16 << 20};
 *	struct shunt_ring *ring;
 *
 *	if (shunt_ring_create("/dev/shm/mine", &o, &ring) == 0)
 *		shunt_ring_write(ring, 7, &sample, sizeof sample);
 *
 * Account: per thread and in total, once all is quiet,
 *	attempts = written + discarded
 *	written  = read + overwritten + what shunt_ring_held() counts
 *
 * How it works, and why it needs neither lock nor fence: docs/ring.md.
 *
 * Caveats. A signal handler that interrupts shunt_ring_write() and leaves by
 * longjmp costs a page until its thread ends (short events cost nothing), and
 * such a handler may come between an event and its count.
 * Threads that share a thread-local area (a raw clone without CLONE_SETTLS)
 * must not write. At most SHUNT_RING_MAX rings are open in a process.
 */
#ifndef SHUNT_RING_H
#define SHUNT_RING_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHUNT_RING_MAX	       8	/* rings open in one process */
#define SHUNT_RING_PAYLOAD_MAX 4095u	/* bytes of a long event */
#define SHUNT_RING_TYPE_MAX    4095u	/* largest type of a long event */
#define SHUNT_RING_TAG_MAX     0x7fffffffu /* largest tag of a short event */

enum shunt_ring_mode {
	SHUNT_RING_DISCARD = 0,	  /* no free page: the newest events are dropped */
	SHUNT_RING_OVERWRITE = 1, /* no free page: the oldest full page is dropped */
};

enum shunt_ring_clock {
	SHUNT_RING_CLOCK_AUTO = 0,	/* TSC where it is invariant, else MONOTONIC */
	SHUNT_RING_CLOCK_TSC = 1,	/* ticks */
	SHUNT_RING_CLOCK_MONOTONIC = 2, /* ns of CLOCK_MONOTONIC */
	SHUNT_RING_CLOCK_NONE = 3,	/* no time stamps */
};

/* Zero means the default, everywhere. */
struct shunt_ring_options {
	uint64_t size;	    /* of the pool, bytes, 32 GiB at most; 0: 16 MiB */
	uint32_t page_size; /* power of two, 1 KiB to 64 KiB; 0: by the pool's size */
	uint32_t slots;	    /* threads that can write at a time; 0: 4096 */
	enum shunt_ring_mode mode;
	enum shunt_ring_clock clock;
};

struct shunt_ring;

struct shunt_ring_info {
	uint32_t page_size, pages, slots;
	uint32_t pages_free;
	enum shunt_ring_mode mode;
	enum shunt_ring_clock clock;
	uint64_t clock_hz;	   /* ticks a second */
	uint64_t clock_base_ticks; /* at this reading of the clock ... */
	uint64_t clock_base_ns;	   /* ... CLOCK_REALTIME was this, ns */
	uint64_t size;		   /* of the file, bytes */
};

/* Begins each page, in memory and on disk. Little endian. */
struct shunt_ring_page {
	uint32_t magic; /* SHUNT_RING_PAGE_MAGIC */
	uint8_t version;
	uint8_t flags;	 /* SHUNT_RING_PAGE_* */
	uint16_t header; /* its size: where the events begin */
	uint32_t slot;	 /* the writing thread's place in the table */
	uint32_t tag;	 /* what the writer's shunt_ring_open() was given */
	uint32_t pid, tid;
	uint64_t instance;  /* unique for each use of a page */
	uint64_t seq;	    /* ascending within a slot */
	uint64_t ts;	    /* clock when it was taken */
	uint64_t discarded; /* of this thread until then */
	uint64_t written;   /* the same */
};
#define SHUNT_RING_PAGE_MAGIC 0x47504853u /* "SHPG" */
#define SHUNT_RING_PAGE_LONG	 1u /* it may hold long events */
#define SHUNT_RING_PAGE_CLOSED 2u /* its writer has left it; with LONG only */

/*
 * Makes the file (mode 0600) and opens it for writing. All its memory is
 * allocated here, so that a full file system is an error now and not a SIGBUS
 * later. Blocks, allocates. Not in signal handlers. 0; -EINVAL: sizes;
 * -EEXIST; -ENOSPC: the file system has no room; -EMFILE: SHUNT_RING_MAX rings
 * are open; or the error of open(2), mmap(2).
 */
SHUNT_API int shunt_ring_create(const char *path, const struct shunt_ring_options *options,
	struct shunt_ring **ring);

#define SHUNT_RING_READ	 0u
#define SHUNT_RING_WRITE 1u

/*
 * Opens an existing file. `tag` goes into the pages that this handle's threads
 * write. No descriptor stays open. As shunt_ring_create(); -EINVAL: no ring,
 * damaged, or of another version.
 */
SHUNT_API int shunt_ring_open(const char *path, uint32_t tag, unsigned flags,
	struct shunt_ring **ring);

/*
 * Unmaps it. The pages of this process's threads are handed over; none of them
 * may be writing any more. The file stays: unlink(2) it when nobody needs it.
 */
SHUNT_API void shunt_ring_close(struct shunt_ring *ring);

/*
 * Writes a short event: `tag` has 31 bits. Any thread, any context, signal
 * handlers included; never blocks, allocates or calls the kernel, except at a
 * thread's first event. 0, or -ENOSPC when it was discarded (and counted).
 */
SHUNT_API int shunt_ring_put(struct shunt_ring *ring, uint32_t tag);

/*
 * Writes a long event. As shunt_ring_put(); -EINVAL: type too large; -EMSGSIZE:
 * more than SHUNT_RING_PAYLOAD_MAX bytes, or more than a page holds.
 */
SHUNT_API int shunt_ring_write(struct shunt_ring *ring, uint32_t type, const void *data,
	size_t len);

/* --- reading ---------------------------------------------------------------- */

struct shunt_ring_page_ref {
	const struct shunt_ring_page *page; /* page_size bytes, until released */
	uint32_t index;			    /* the library's */
};

/*
 * The next full page, oldest first; it stays the caller's until released. One
 * consumer at a time (not checked). 0, or -EAGAIN: none is full.
 */
SHUNT_API int shunt_ring_page_next(struct shunt_ring *ring, struct shunt_ring_page_ref *ref);

/* Gives it back to the pool and counts its events as read. */
SHUNT_API void shunt_ring_page_release(struct shunt_ring *ring,
	struct shunt_ring_page_ref *ref);

/*
 * Hands over the pages of threads that have ended without doing so themselves
 * (killed, or whole processes gone), up to their last complete event. With
 * `all` those of living threads as well: only when nobody writes any more.
 * Returns how many pages became readable.
 */
SHUNT_API int shunt_ring_reap(struct shunt_ring *ring, int all);

enum shunt_ring_event_kind {
	SHUNT_RING_EVENT_SHORT,
	SHUNT_RING_EVENT_LONG,
	SHUNT_RING_EVENT_TORN, /* begun and never finished: its writer died */
};

struct shunt_ring_event {
	enum shunt_ring_event_kind kind;
	uint32_t tag; /* short: the tag; long: the type */
	uint64_t ts;  /* clock */
	const void *data;
	size_t len;
};

struct shunt_ring_cursor {
	const uint64_t *at, *end;
	uint64_t hi;
};

/*
 * Walks the events of a page image of `size` bytes, which may be damaged: never
 * reads beyond it. 0 or -EINVAL (no page). Any context.
 */
SHUNT_API int shunt_ring_events(const void *page, size_t size, struct shunt_ring_cursor *cursor);

/* 1: *event is the next; 0: the end; -EINVAL: what follows cannot be understood. */
SHUNT_API int shunt_ring_event_next(struct shunt_ring_cursor *cursor,
	struct shunt_ring_event *event);

/* --- account ------------------------------------------------------------------ */

struct shunt_ring_thread {
	uint32_t slot, tag, pid, tid;
	char comm[16];
	int live; /* 0: it has ended */
	uint64_t written, discarded, overwritten, read, torn;
};

SHUNT_API void shunt_ring_info(struct shunt_ring *ring, struct shunt_ring_info *info);

/*
 * The totals, and each thread's part through `fn` (may be NULL). Threads whose
 * place was needed by others are in the totals only. Any thread.
 */
SHUNT_API void shunt_ring_account(struct shunt_ring *ring, struct shunt_ring_thread *total,
	void (*fn)(const struct shunt_ring_thread *thread, void *arg), void *arg);

/* Complete events in the pool that nobody has read; exact when nobody writes. */
SHUNT_API uint64_t shunt_ring_held(struct shunt_ring *ring);

#ifdef __cplusplus
}
#endif
#endif
