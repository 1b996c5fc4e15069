/* SPDX-License-Identifier: MIT */
/*
 * record_drain.c - pages from the ring to the data file.
 *
 * A page is given back to the ring only after it was written, and counts as
 * read from then on: what the account calls read is in the file. When the disk
 * is full, taking pages ends for good; those in hand are kept, so the events in
 * them go on counting as held, and the file is cut back to whole pages.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "record.h"

enum { BATCH = 256 };

static size_t collect(struct shunt_recording *r, struct shunt_ring_page_ref *refs,
	struct iovec *iov)
{
	struct shunt_ring_info info;
	size_t n = 0;

	shunt_ring_info(r->ring, &info);
	while (n < BATCH && !shunt_ring_page_next(r->ring, &refs[n])) {
		iov[n].iov_base = (void *)refs[n].page;
		iov[n].iov_len = info.page_size;
		n++;
	}
	return n;
}

/* All of it; 0 or errno. */
static int write_all(int fd, struct iovec *iov, size_t n)
{
	while (n) {
		ssize_t got = writev(fd, iov, (int)n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno;
		for (; n && (size_t)got >= iov->iov_len; iov++, n--)
			got -= (ssize_t)iov->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + got;
			iov->iov_len -= (size_t)got;
		}
	}
	return 0;
}

static void note_image(struct shunt_recording *r, uint32_t image)
{
	if (image < SHUNT_CTL_IMAGES)
		r->images[image / 8] |= (uint8_t)(1 << image % 8);
}

static size_t drain_batch(struct shunt_recording *r)
{
	struct shunt_ring_page_ref refs[BATCH];
	struct iovec iov[BATCH];
	size_t n = collect(r, refs, iov), len = n ? iov[0].iov_len : 0;
	int err = write_all(r->data, iov, n);

	if (err) {
		r->write_error = err;
		if (ftruncate(r->data, (off_t)r->bytes))
			shunt_say("%s/data ends in a part of a page", r->dir);
		shunt_say("cannot write %s/data: %s: nothing more is recorded, the program "
			  "goes on",
			r->dir, strerror(err));
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		note_image(r, refs[i].page->tag);
		shunt_ring_page_release(r->ring, &refs[i]);
	}
	r->pages += n;
	r->bytes += n * len;
	return n;
}

size_t shunt_drain_full(struct shunt_recording *r)
{
	size_t total = 0, n;

	/* a bounded time, also beside fast writers: the caller has signals to see to */
	for (int i = 0; i < 16 && !r->write_error; i++) {
		n = drain_batch(r);
		total += n;
		if (n < BATCH)
			break;
	}
	return total;
}

void shunt_drain_rest(struct shunt_recording *r)
{
	do
		while (shunt_drain_full(r))
			;
	while (!r->write_error && shunt_ring_reap(r->ring, 1) > 0);
}
