/* SPDX-License-Identifier: MIT */
/*
 * uring.h - as much of io_uring as a registration cache needs, by its system calls alone: a ring with
 * room for some fixed buffers, and a read into one of them that is waited for.
 *
 *   uring_open(), uring_close()
 *   uring_set()	fixed buffer `slot` is the memory at addr from now on; its pages are pinned
 *   uring_clear()	it is none; the pages are let go
 *   uring_read()	reads a file into a part of it: into its *pages*, wherever addr leads by then
 *
 * All return 0 or more, or -errno. One thread at a time reads; set and clear may be called by any.
 */
#ifndef URING_H
#define URING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct uring {
	int fd;
	void *rings; /* both queues' */
	size_t size;
	struct io_uring_sqe *sqe; /* one is in use: the first */
	uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
	struct io_uring_cqe *cqes;
	uint32_t sq_mask, cq_mask;
};

static inline void uring_close(struct uring *u)
{
	if (u->sqe)
		munmap(u->sqe, getpagesize());
	if (u->rings)
		munmap(u->rings, u->size);
	if (u->fd >= 0)
		close(u->fd);
	*u = (struct uring){.fd = -1};
}

static inline int uring_map(struct uring *u, const struct io_uring_params *p)
{
	size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	char *rings;
	void *sqe;

	u->size = sq > cq ? sq : cq;
	rings = mmap(NULL, u->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQ_RING);
	if (rings == MAP_FAILED)
		return -errno;
	u->rings = rings;
	sqe = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES);
	if (sqe == MAP_FAILED)
		return -errno;
	u->sqe = sqe;
	u->sq_tail = (uint32_t *)(rings + p->sq_off.tail);
	u->sq_array = (uint32_t *)(rings + p->sq_off.array);
	u->sq_mask = p->sq_entries - 1;
	u->cq_head = (uint32_t *)(rings + p->cq_off.head);
	u->cq_tail = (uint32_t *)(rings + p->cq_off.tail);
	u->cqes = (struct io_uring_cqe *)(rings + p->cq_off.cqes);
	u->cq_mask = p->cq_entries - 1;
	return 0;
}

static inline int uring_open(struct uring *u, unsigned slots)
{
	struct io_uring_params p = {0};
	struct io_uring_rsrc_register none = {.nr = slots, .flags = IORING_RSRC_REGISTER_SPARSE};
	int r;

	*u = (struct uring){.fd = (int)syscall(SYS_io_uring_setup, 2, &p)};
	if (u->fd < 0)
		return -errno;
	r = !(p.features & IORING_FEAT_SINGLE_MMAP) ? -ENOSYS : uring_map(u, &p);
	if (!r && syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_BUFFERS2, &none, sizeof(none)))
		r = -errno;
	if (r)
		uring_close(u);
	return r;
}

static inline int uring_set(const struct uring *u, unsigned slot, void *addr, size_t length)
{
	struct iovec v = {addr, length};
	uint64_t tag = 0;
	struct io_uring_rsrc_update2 up = {
		.offset = slot, .data = (uintptr_t)&v, .tags = (uintptr_t)&tag, .nr = 1,
	};
	long r = syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_BUFFERS_UPDATE, &up, sizeof(up));

	return r < 0 ? -errno : 0;
}

static inline int uring_clear(const struct uring *u, unsigned slot)
{
	return uring_set(u, slot, NULL, 0);
}

/* addr is in the range that was set. The number of bytes read. */
static inline int uring_read(struct uring *u, unsigned slot, void *addr, uint32_t length, int fd, uint64_t at)
{
	uint32_t tail = *u->sq_tail, head = *u->cq_head;
	int r;

	*u->sqe = (struct io_uring_sqe){
		.opcode = IORING_OP_READ_FIXED, .fd = fd, .off = at, .addr = (uintptr_t)addr, .len = length,
		.buf_index = (uint16_t)slot,
	};
	u->sq_array[tail & u->sq_mask] = 0;
	__atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
	/* It is interrupted by signals, before it has taken the entry or after. */
	while (__atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE) == head) {
		long n = syscall(SYS_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0L);

		if (n < 0 && errno != EINTR)
			return -errno;
	}
	r = u->cqes[head & u->cq_mask].res;
	__atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
	return r;
}

#endif
