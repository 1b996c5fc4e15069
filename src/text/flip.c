/* SPDX-License-Identifier: MIT */
/*
 * flip.c - the strategy that replaces pages instead of bytes.
 *
 * For each range of pages: map the same file at the same offset once more,
 * privately and writable; bring every page that will differ from the file to
 * what the running text holds; edit; make it r-x; mremap() it over the running
 * text.
 *
 * Invariant: no thread ever executes a mixture of old and new bytes of a site.
 * mremap() unmaps the old pages and has their translations flushed from every
 * core before it moves the new ones in, all under the mmap lock: a thread runs
 * on old pages, or faults and waits, or runs on new ones. A site that crosses a
 * page border lies in one range, so the same holds for it. Old pages are never
 * written, so what a core has already fetched from them stays whole.
 *
 * The content of a page is taken from the running text, not from the file,
 * wherever the two may differ (earlier edits, somebody's breakpoints); just
 * before the switch the two are compared again outside the sites.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "arch/x86_64/text_sys.h"
#include "text/engine.h"

/* Clean pages between two touched ones are taken along up to this many. */
#define GAP_PAGES 16
/* More mappings than this of one text are made one again. */
#define MAX_MAPPINGS 16
/* How far a chain is followed to see that. */
#define CHAIN_LOOK 64
#define TRIES 4

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct range {
	uintptr_t start, end;
	size_t first, n;   /* edits */
	uintptr_t copy;	   /* where the new pages are being made */
	uint8_t *page;	   /* for each: will it differ from the file? */
	bool via_mem;	   /* the copy cannot be mapped writable */
};

/* What the ranges of one text have in common. */
struct text {
	struct shunt_chain chain;
	int fd; /* its file, -1: anonymous */
	int mem; /* /proc/thread-self/mem, -1 = not opened yet */
	int pagemap;
	bool carry_all;
};

static size_t pages_of(const struct range *r)
{
	return (r->end - r->start) / SHUNT_PAGE;
}

/* --- the file ----------------------------------------------------------------- */

static bool same_file(int fd, const struct shunt_vma *v)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == v->inode && major(st.st_dev) == v->major &&
	       minor(st.st_dev) == v->minor;
}

static int try_open(const char *path, const struct shunt_vma *v)
{
	/* Not to wait for a writer of what is now a pipe. */
	long fd = shunt_sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && !same_file((int)fd, v)) {
		shunt_sys(SYS_close, fd);
		fd = -1;
	}
	return fd < 0 ? -1 : (int)fd;
}

/*
 * The very file that is mapped: by its name, or, where that is another file by
 * now (an upgraded library), through the kernel's own link to it, which takes
 * privilege, or as the program's executable. -1 if there is no way to it.
 */
static int open_text(struct shunt_batch *b, const struct shunt_vma *at)
{
	char path[4200];
	int fd = -1;

	if (!at->inode)
		return -1;
	if (!shunt_maps_name(b->maps, at->start, path, sizeof path) && path[0] == '/')
		fd = try_open(path, at);
	if (fd < 0)
		fd = try_open("/proc/thread-self/exe", at);
	if (fd < 0) {
		snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx",
			(unsigned long)at->start, (unsigned long)at->end);
		fd = try_open(path, at);
	}
	return fd;
}

/* --- which pages -------------------------------------------------------------- */

/*
 * Pages with sites are copied from the running text: that costs no more than
 * to ask whether they differ from the file. Returns how many there are.
 */
static size_t mark_touched(const struct shunt_batch *b, struct range *r)
{
	size_t n = 0;

	for (size_t i = r->first; i < r->first + r->n; i++) {
		size_t first = (shunt_edit_start(&b->e[i]) - r->start) / SHUNT_PAGE;
		size_t last = (shunt_edit_end(&b->e[i]) - 1 - r->start) / SHUNT_PAGE;

		if (!b->pending[i])
			continue;
		n += !r->page[first];
		r->page[first] = 1;
		n += !r->page[last];
		r->page[last] = 1;
	}
	return n;
}

/*
 * The pages between: those that are not the file's any more. Bit 61 of a
 * pagemap entry: a page of the file; 62: swapped; 63: present.
 */
static void mark_between(struct text *t, struct range *r)
{
	uint64_t e[512];
	size_t n = pages_of(r);

	if (t->pagemap < 0 && !t->carry_all)
		t->pagemap = (int)shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/pagemap",
			O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < n; i += 512) {
		size_t k = n - i < 512 ? n - i : 512;
		long got = t->pagemap < 0 || t->carry_all ? -1
			   : shunt_sys(SYS_pread64, t->pagemap, e, k * 8,
				     (r->start / SHUNT_PAGE + i) * 8);

		for (size_t j = 0; j < k; j++) {
			bool known = got == (long)(k * 8);
			bool own = !known || e[j] >> 62 & 1 ||
				   (e[j] >> 63 && !(e[j] >> 61 & 1));

			/* Without a file only the running text has the content. */
			if (own || (t->fd < 0 && e[j] >> 63))
				r->page[i + j] = 1;
		}
	}
}

/* --- the copy ----------------------------------------------------------------- */

static int map_copy(struct text *t, struct range *r, int prot)
{
	uint64_t offset = t->chain.whole.offset + (r->start - t->chain.whole.start);
	long p = shunt_sys(SYS_mmap, 0, r->end - r->start, prot,
		MAP_PRIVATE | (t->fd < 0 ? MAP_ANONYMOUS : 0), t->fd, t->fd < 0 ? 0 : offset);

	if (shunt_sys_failed(p))
		return (int)p;
	r->copy = (uintptr_t)p;
	return 0;
}

/* Has the pages that will be written made at once instead of a fault each. */
static void populate(struct range *r)
{
	size_t n = pages_of(r);

	for (size_t i = 0, j; i < n; i = j + 1) {
		for (j = i; j < n && r->page[j]; j++)
			;
		/* If the kernel cannot (before 5.14), each page faults. */
		if (j > i + 1)
			shunt_sys(SYS_madvise, r->copy + i * SHUNT_PAGE, (j - i) * SHUNT_PAGE,
				MADV_POPULATE_WRITE);
	}
}

static int put(struct text *t, struct range *r, uintptr_t to, const void *from, size_t n)
{
	long w;

	if (!r->via_mem) {
		shunt_bytes_copy((void *)to, from, n);
		return 0;
	}
	if (t->mem < 0) {
		t->mem = (int)shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/mem",
			O_RDWR | O_CLOEXEC);
		if (t->mem < 0)
			return t->mem;
	}
	w = shunt_sys(SYS_pwrite64, t->mem, from, n, to);
	return w == (long)n ? 0 : w < 0 ? (int)w : -EIO;
}

static int fill(struct shunt_batch *b, struct text *t, struct range *r)
{
	size_t n = pages_of(r);
	int err = 0;

	for (size_t i = 0; i < n && !err; i++)
		if (r->page[i])
			err = put(t, r, r->copy + i * SHUNT_PAGE,
				(void *)(r->start + i * SHUNT_PAGE), SHUNT_PAGE);
	for (size_t i = r->first; i < r->first + r->n && !err; i++)
		if (b->pending[i])
			err = put(t, r, shunt_edit_start(&b->e[i]) - r->start + r->copy,
				shunt_edit_to(b, i), b->e[i].len);
	return err;
}

/* Does the running text still hold what was copied, outside of our sites? */
static bool unchanged(const struct shunt_batch *b, const struct range *r)
{
	size_t n = pages_of(r), k = r->first, end = r->first + r->n;
	uintptr_t delta = r->copy - r->start;

	for (size_t i = 0; i < n; i++) {
		uintptr_t at = r->start + i * SHUNT_PAGE, stop = at + SHUNT_PAGE;

		if (!r->page[i])
			continue;
		while (k < end && shunt_edit_end(&b->e[k]) <= at)
			k++;
		for (; k < end && shunt_edit_start(&b->e[k]) < stop; k++) {
			uintptr_t s = shunt_edit_start(&b->e[k]);

			if (s > at && memcmp((void *)at, (void *)(at + delta), s - at))
				return false;
			if (b->pending[k] && !shunt_bytes_equal(b->e[k].addr,
						     shunt_edit_from(b, k), b->e[k].len))
				return false;
			at = shunt_edit_end(&b->e[k]);
			if (at > stop) /* it goes on in the next page */
				break;
		}
		if (at < stop && memcmp((void *)at, (void *)(at + delta), stop - at))
			return false;
	}
	return true;
}

static int lock_copy(struct shunt_batch *b, struct range *r)
{
	/* Somebody locked memory: what was to stay resident stays so. */
	return b->status.locked_kb ? (int)shunt_sys(SYS_mlock, r->copy, r->end - r->start) : 0;
}

static int prepare(struct shunt_batch *b, struct text *t, struct range *r)
{
	int prot = PROT_READ | PROT_EXEC;
	int err = r->via_mem ? map_copy(t, r, prot) : map_copy(t, r, PROT_READ | PROT_WRITE);

	if (err)
		return err;
	if (!r->via_mem)
		populate(r);
	err = fill(b, t, r);
	if (!err && !r->via_mem)
		err = (int)shunt_sys(SYS_mprotect, r->copy, r->end - r->start, prot);
	if (!err)
		err = lock_copy(b, r);
	return err;
}

static void drop(struct range *r)
{
	if (r->copy)
		shunt_sys(SYS_munmap, r->copy, r->end - r->start);
	r->copy = 0;
}

/* --- the switch --------------------------------------------------------------- */

static int flip_range(struct shunt_batch *b, struct text *t, struct range *r)
{
	size_t len = r->end - r->start;
	int err = -EAGAIN;
	long p;

	r->page = shunt_scratch(SHUNT_SCRATCH_PAGES, pages_of(r));
	if (!r->page)
		return -ENOMEM;
	for (int tries = 0; tries < TRIES; tries++) {
		memset(r->page, 0, pages_of(r));
		if (mark_touched(b, r) < pages_of(r))
			mark_between(t, r);
		err = prepare(b, t, r);
		if ((err == -EACCES || err == -EPERM) && !r->via_mem) {
			/* PR_SET_MDWE, SELinux: never writable, then executable. */
			drop(r);
			r->via_mem = true;
			err = prepare(b, t, r);
		}
		if (err)
			break;
		if (unchanged(b, r)) {
			p = shunt_sys(SYS_mremap, r->copy, len, len,
				MREMAP_MAYMOVE | MREMAP_FIXED, r->start);
			if (p == (long)r->start)
				return 0;
			err = (int)p;
			break;
		}
		drop(r);
		t->carry_all = true;
		err = -EAGAIN;
	}
	drop(r);
	return err;
}

/* --- ranges of one text ------------------------------------------------------- */

/* The next run of pending edits from i on whose pages lie close together. */
static bool next_range(const struct shunt_batch *b, size_t i, size_t end, struct range *r)
{
	while (i < end && !b->pending[i])
		i++;
	if (i == end)
		return false;
	*r = (struct range){.first = i, .start = shunt_edit_start(&b->e[i]) & -SHUNT_PAGE};
	for (; i < end; i++) {
		uintptr_t page = shunt_edit_start(&b->e[i]) & -SHUNT_PAGE;

		if (!b->pending[i])
			continue;
		if (r->end && page > r->end + GAP_PAGES * SHUNT_PAGE)
			break;
		r->end = (shunt_edit_end(&b->e[i]) + SHUNT_PAGE - 1) & -SHUNT_PAGE;
	}
	r->n = i - r->first;
	return true;
}

/* How many there are; *all spans them, and is the one if it is one. */
static unsigned count_ranges(const struct shunt_batch *b, size_t i, size_t end, struct range *all)
{
	unsigned n = 0;
	struct range r;

	while (next_range(b, i, end, &r)) {
		if (!n++)
			*all = r;
		all->end = r.end;
		i = r.first + r.n;
		all->n = i - all->first;
	}
	return n;
}

/* Edits [i, end) of one text. *done: how far its sites are switched. */
static int flip_text(struct shunt_batch *b, struct text *t, size_t i, size_t end, size_t *done)
{
	struct range r = {0};
	unsigned n = count_ranges(b, i, end, &r);
	int err;

	*done = i;
	if (!n)
		return 0;
	if (n == 1 || t->chain.count + 2 * n > MAX_MAPPINGS) {
		if (t->chain.count + 2 > MAX_MAPPINGS) {
			r.start = t->chain.whole.start;
			r.end = t->chain.whole.end;
		}
		err = flip_range(b, t, &r);
		*done = err ? i : end;
		return err;
	}
	while (next_range(b, *done, end, &r)) {
		err = flip_range(b, t, &r);
		if (err)
			return err;
		*done = r.first + r.n;
	}
	*done = end;
	return 0;
}

static bool can_flip(struct shunt_batch *b, const struct shunt_vma *v, const struct shunt_edit *e)
{
	const char *why = NULL;
	char name[64];

	if (v->flags & SHUNT_VMA_SHARED &&
		!shunt_maps_name(b->maps, v->start, name, sizeof name) &&
		!strncmp(name, "/memfd:" SHUNT_ALIAS_NAME, 7 + sizeof SHUNT_ALIAS_NAME - 1))
		return true; /* our own doing (write.c), with nobody else writing there */
	if (v->flags & SHUNT_VMA_WRITE)
		why = "the code is writable: a copy could miss somebody's store";
	else if (v->flags & SHUNT_VMA_SHARED)
		why = "the code is shared with another mapping";
	else if (v->page_size > SHUNT_PAGE)
		why = "the code is in hugetlbfs pages";
	else if (!v->inode && !shunt_maps_name(b->maps, v->start, name, sizeof name) &&
		 (!strcmp(name, "[stack]") || !strncmp(name, "[vdso", 5) ||
			 !strncmp(name, "[vsys", 5)))
		why = "the code is in the stack or the kernel's own page";
	if (why)
		shunt_batch_fail(b, -ENOTSUP, e->addr, "%s", why);
	return !why;
}

/* All edits from i on that lie in the text that i lies in; *end = behind them. */
static int flip_one_text(struct shunt_batch *b, size_t i, size_t *done)
{
	struct text t = {.fd = -1, .mem = -1, .pagemap = -1};
	const struct shunt_edit *e = &b->e[i];
	struct shunt_vma v, next;
	size_t end = i;
	bool of_file;
	int err = shunt_maps_find(b->maps, shunt_edit_start(e), &v);

	if (err)
		return shunt_batch_fail(b, err, e->addr, "the site's mapping is gone");
	if (!can_flip(b, &v, e))
		return -ENOTSUP;
	of_file = !(v.flags & SHUNT_VMA_SHARED);
	shunt_maps_chain(b->maps, &v, CHAIN_LOOK, &t.chain);
	for (;;) {
		if (shunt_edit_start(&b->e[b->n - 1]) < t.chain.whole.end)
			end = b->n;
		while (end < b->n && shunt_edit_start(&b->e[end]) < t.chain.whole.end)
			end++;
		if (shunt_edit_end(&b->e[end - 1]) <= t.chain.whole.end)
			break;
		/* A site across two mappings that are no file's: replace both. */
		if (shunt_maps_find(b->maps, t.chain.whole.end, &next) || !can_flip(b, &next, e))
			return -ENOTSUP;
		t.chain.whole.end = next.end;
		of_file = false;
	}
	t.fd = of_file ? open_text(b, &v) : -1;
	/* Without the file, only the running text knows what is in a page. */
	t.carry_all = t.fd < 0 && v.inode;
	err = flip_text(b, &t, i, end, done);
	if (t.fd >= 0)
		shunt_sys(SYS_close, t.fd);
	if (t.mem >= 0)
		shunt_sys(SYS_close, t.mem);
	if (t.pagemap >= 0)
		shunt_sys(SYS_close, t.pagemap);
	if (err)
		return shunt_batch_fail(b, err, e->addr,
			err == -EAGAIN ? "somebody else keeps changing this text"
				       : "its pages cannot be replaced: %s", strerror(-err));
	return 0;
}

static int flip_all(struct shunt_batch *b, size_t n, size_t *done)
{
	size_t i = 0;
	int err = 0;

	while (i < n && !err) {
		err = flip_one_text(b, i, done);
		i = *done;
	}
	return err;
}

int shunt_flip(struct shunt_batch *b)
{
	size_t done = 0;
	int err = flip_all(b, b->n, &done);
	struct shunt_batch back = *b;

	if (!err || !done)
		return err;
	/* Several texts, and a later one cannot be had: put the first ones back. */
	back.undo = true;
	back.n = done;
	back.res = &(struct shunt_text_result){0};
	if (flip_all(&back, done, &(size_t){0}))
		return shunt_batch_fail(b, -EIO, back.res->addr,
			"some sites are changed and cannot be put back: %s", back.res->reason);
	return err;
}
