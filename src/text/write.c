/* SPDX-License-Identifier: MIT */
/*
 * write.c - three ways to write to text that is mapped r-x.
 *
 *   mem       pwrite to /proc/thread-self/mem, which the kernel lets a process do to
 *             itself whatever the protection: pages are never writable for the
 *             program. Refused without /proc, when the process is not dumpable
 *             (setuid), or by proc_mem.force_override.
 *   mprotect  writable and executable for as long as the batch takes, because
 *             threads run there. Refused by PR_SET_MDWE and SELinux's execmod.
 *   alias     the pages become a memfd that is mapped a second time, writable.
 *             On request only: maps, perf and debuggers lose the file's name,
 *             and children of fork share the text with their parent.
 *
 * All sites of a page go with one write where a call is needed for each; what
 * lies between them is read again just before, so that somebody's breakpoint
 * there is not undone from an old copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_arch.h"
#include "arch/x86_64/text_sys.h"
#include "text/write.h"

/* Pages this close are opened as one run. */
#define NEAR_PAGES 16

/* --- one site ------------------------------------------------------------------ */

static void edit_bytes(const struct shunt_batch *b, size_t i, enum shunt_write_part part,
	uint8_t *to)
{
	const uint8_t *new_ = shunt_edit_to(b, i);
	size_t len = b->e[i].len;

	switch (part) {
	case SHUNT_WRITE_TRAP:
		*(volatile uint8_t *)to = SHUNT_ARCH_TRAP_BYTE;
		break;
	case SHUNT_WRITE_TAIL:
		for (size_t k = 1; k < len; k++)
			to[k] = new_[k];
		break;
	case SHUNT_WRITE_FIRST:
		*(volatile uint8_t *)to = new_[0];
		break;
	case SHUNT_WRITE_WHOLE:
		for (size_t k = 0; k < len; k++)
			to[k] = new_[k];
		break;
	}
}

/* --- /proc/thread-self/mem --------------------------------------------------------------- */

static int mem_pwrite(int fd, const void *from, size_t n, uintptr_t to)
{
	long r = shunt_sys(SYS_pwrite64, fd, from, n, to);

	return r == (long)n ? 0 : r < 0 ? (int)r : -EIO;
}

/* The pending sites from i on that begin in one page, with one call. */
static int mem_page(struct shunt_writer *w, const struct shunt_batch *b, size_t *i,
	enum shunt_write_part part)
{
	uint8_t buf[SHUNT_PAGE + SHUNT_EDIT_MAX + 1];
	uintptr_t start = shunt_edit_start(&b->e[*i]), stop = (start & -SHUNT_PAGE) + SHUNT_PAGE;
	uintptr_t end = start;

	for (; *i < b->n && shunt_edit_start(&b->e[*i]) < stop; (*i)++) {
		const struct shunt_edit *e = &b->e[*i];

		if (!b->pending[*i])
			continue;
		for (; end < shunt_edit_end(e); end++)
			buf[end - start] = *(volatile const uint8_t *)end;
		edit_bytes(b, *i, part, buf + (shunt_edit_start(e) - start));
	}
	return mem_pwrite(w->fd, buf, end - start, start);
}

static int mem_open(struct shunt_writer *w, struct shunt_batch *b)
{
	long fd = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/mem", O_RDWR | O_CLOEXEC);
	size_t i = 0;
	uint8_t byte;

	if (fd < 0)
		return (int)fd;
	w->fd = (int)fd;
	/* Only a write tells whether writes are let through. */
	while (!b->pending[i])
		i++;
	byte = *(volatile uint8_t *)b->e[i].addr;
	return mem_pwrite(w->fd, &byte, 1, shunt_edit_start(&b->e[i]));
}

/* --- runs -------------------------------------------------------------------------- */

static int prot_of(struct shunt_batch *b, uintptr_t at, uintptr_t *end)
{
	struct shunt_vma v;

	if (shunt_maps_find(b->maps, at, &v) || v.start > at)
		return -EFAULT;
	*end = v.end;
	return (v.flags & SHUNT_VMA_WRITE ? PROT_WRITE : 0) | PROT_READ | PROT_EXEC;
}

/* Cuts the pending sites' pages into runs of one protection. */
static int cut_runs(struct shunt_writer *w, struct shunt_batch *b)
{
	struct shunt_write_run *r = NULL;
	uintptr_t vma_end = 0;

	w->runs = shunt_scratch(SHUNT_SCRATCH_PAGES, SHUNT_WRITE_RUNS * sizeof *r);
	if (!w->runs)
		return -ENOMEM;
	for (size_t i = 0; i < b->n; i++) {
		uintptr_t at = shunt_edit_start(&b->e[i]) & -SHUNT_PAGE;
		uintptr_t end = (shunt_edit_end(&b->e[i]) + SHUNT_PAGE - 1) & -SHUNT_PAGE;

		if (!b->pending[i])
			continue;
		for (; at < end; at += SHUNT_PAGE) {
			if (r && at < r->end)
				continue;
			if (r && at < vma_end && at - r->end <= NEAR_PAGES * SHUNT_PAGE) {
				r->end = at + SHUNT_PAGE;
				continue;
			}
			if (w->n == SHUNT_WRITE_RUNS)
				return -E2BIG;
			r = &w->runs[w->n++];
			*r = (struct shunt_write_run){.start = at, .end = at + SHUNT_PAGE};
			r->prot = prot_of(b, at, &vma_end);
			if (r->prot < 0)
				return r->prot;
		}
	}
	return 0;
}

static int mprotect_open(struct shunt_writer *w)
{
	for (size_t i = 0; i < w->n; i++) {
		struct shunt_write_run *r = &w->runs[i];
		long err = shunt_sys(SYS_mprotect, r->start, r->end - r->start,
			PROT_READ | PROT_WRITE | PROT_EXEC);

		if (err) {
			w->n = i;
			return (int)err;
		}
		r->alias = r->start;
	}
	return 0;
}

/* The switch to the memfd is one step: the content is the same before and after. */
static int alias_run(struct shunt_write_run *r)
{
	size_t len = r->end - r->start;
	long fd = shunt_sys(SYS_memfd_create, SHUNT_ALIAS_NAME, MFD_CLOEXEC), p = fd, q;

	if (fd < 0)
		return (int)fd;
	q = shunt_sys(SYS_ftruncate, fd, len);
	if (!q)
		q = p = shunt_sys(SYS_mmap, 0, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!shunt_sys_failed(q)) {
		memcpy((void *)p, (void *)r->start, len);
		q = shunt_sys(SYS_mmap, r->start, len, r->prot, MAP_SHARED | MAP_FIXED, fd, 0);
		if (shunt_sys_failed(q))
			shunt_sys(SYS_munmap, p, len);
		else
			r->alias = (uintptr_t)p;
	}
	shunt_sys(SYS_close, fd);
	return shunt_sys_failed(q) ? (int)q : 0;
}

static int alias_open(struct shunt_writer *w)
{
	for (size_t i = 0; i < w->n; i++) {
		int err = alias_run(&w->runs[i]);

		if (err) {
			w->n = i;
			return err;
		}
	}
	return 0;
}

/* --- all ----------------------------------------------------------------------------- */

static int open_as(struct shunt_writer *w, struct shunt_batch *b, enum shunt_text_write how)
{
	int err;

	*w = (struct shunt_writer){.how = how, .fd = -1};
	if (how == SHUNT_TEXT_WRITE_MEM) {
		err = mem_open(w, b);
	} else {
		err = cut_runs(w, b);
		if (err)
			w->n = 0;
		else
			err = how == SHUNT_TEXT_WRITE_MPROTECT ? mprotect_open(w) : alias_open(w);
	}
	if (err)
		shunt_writer_close(w);
	b->res->write = how;
	return err;
}

int shunt_writer_open(struct shunt_writer *w, struct shunt_batch *b)
{
	int err, err2;

	if (b->opts->write) {
		err = open_as(w, b, b->opts->write);
		return err ? shunt_batch_fail(b, err, NULL,
				     "the text cannot be written in the way asked for: %s",
				     strerror(-err)) : 0;
	}
	err = open_as(w, b, SHUNT_TEXT_WRITE_MEM);
	if (!err)
		return 0;
	err2 = open_as(w, b, SHUNT_TEXT_WRITE_MPROTECT);
	if (!err2)
		return 0;
	return shunt_batch_fail(b, err2, NULL,
		"the text cannot be written: /proc/thread-self/mem: %s, mprotect: %s",
		strerror(-err), strerror(-err2));
}

int shunt_writer_write(struct shunt_writer *w, const struct shunt_batch *b,
	enum shunt_write_part part)
{
	struct shunt_write_run *r = w->runs;
	int err = 0;

	for (size_t i = 0; i < b->n && !err;) {
		uintptr_t at = shunt_edit_start(&b->e[i]);

		if (!b->pending[i]) {
			i++;
		} else if (w->how == SHUNT_TEXT_WRITE_MEM) {
			err = mem_page(w, b, &i, part);
		} else {
			uint8_t buf[SHUNT_EDIT_MAX];
			size_t k = part == SHUNT_WRITE_TAIL, n = k;

			n = part == SHUNT_WRITE_TRAP || part == SHUNT_WRITE_FIRST ? 1 : b->e[i].len;
			edit_bytes(b, i, part, buf);
			/* A site may lie across two runs. */
			for (; k < n; k++) {
				while (at + k >= r->end)
					r++;
				*(volatile uint8_t *)(r->alias + (at + k - r->start)) = buf[k];
			}
			while (r > w->runs && i + 1 < b->n && shunt_edit_start(&b->e[i + 1]) < r->start)
				r--;
			i++;
		}
	}
	return err;
}

int shunt_writer_close(struct shunt_writer *w)
{
	long err = 0;

	if (w->fd >= 0)
		shunt_sys(SYS_close, w->fd);
	w->fd = -1;
	for (size_t i = 0; i < w->n; i++) {
		struct shunt_write_run *r = &w->runs[i];

		if (w->how == SHUNT_TEXT_WRITE_ALIAS)
			shunt_sys(SYS_munmap, r->alias, r->end - r->start);
		else
			err |= shunt_sys(SYS_mprotect, r->start, r->end - r->start, r->prot);
	}
	w->n = 0;
	return (int)err;
}
