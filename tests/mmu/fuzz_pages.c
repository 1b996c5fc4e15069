/* SPDX-License-Identifier: MIT */
/* fuzz_pages.c - changes of pages that stay mapped: contents, files, rights. */
#include "fuzz_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

static long raw_madvise(void *p, size_t length, long advice)
{
	long r;

	__asm__ volatile("mov $28, %%eax\n\tsyscall"
		: "=&a"(r) : "D"(p), "S"(length), "d"(advice) : "rcx", "r11", "memory");
	return r;
}

static long do_madvise(struct worker *w, void *p, size_t length, int advice)
{
	switch (upto(w, 3)) {
	case 0: w->source = SHUNT_MMU_SRC_MADVISE; return madvise(p, length, advice);
	case 1: w->source = SHUNT_MMU_SRC_SYSCALL; return syscall(SYS_madvise, p, length, (long)advice);
	default: w->source = SHUNT_MMU_SRC_RAW; return raw_madvise(p, length, advice);
	}
}

void op_discard(struct worker *w, struct region *r)
{
	static const int advice[] = {MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED, MADV_REMOVE, GUARD_INSTALL};
	int how = advice[upto(w, 5)];
	unsigned a, b;
	size_t length = some(w, &a, &b);

	if (!do_madvise(w, at(r, a), length, how) && how == GUARD_INSTALL) {
		r->expect = 0;
		madvise(at(r, a), length, GUARD_REMOVE);
	}
}

void op_process_madvise(struct worker *w, struct region *r)
{
	static int pid = -1;
	struct iovec v[2];
	unsigned a = upto(w, PAGES - 2);

	if (pid < 0)
		pid = (int)syscall(SYS_pidfd_open, getpid(), 0L);
	v[0] = (struct iovec){at(r, a), PAGE};
	v[1] = (struct iovec){at(r, a + 2), PAGE};
	w->source = SHUNT_MMU_SRC_SYSCALL;
	syscall(SYS_process_madvise, (long)pid, v, 2L, (long)MADV_DONTNEED, 0L, 0L);
}

void op_punch(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);

	w->source = SHUNT_MMU_SRC_FALLOCATE;
	if (r->file < 0)
		return;
	for (unsigned half = 0; half < 2; half++) {
		fallocate(r->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)((half * PAGES + a) * PAGE), (off_t)length);
		r->expect = 0;
	}
}

void op_truncate(struct worker *w, struct region *r)
{
	w->source = SHUNT_MMU_SRC_TRUNCATE;
	if (r->file < 0)
		return;
	if (ftruncate(r->file, (off_t)(upto(w, PAGES) * PAGE)))
		fail("ftruncate: %s", strerror(errno));
	r->expect = 0; /* a bus error, meanwhile */
	if (ftruncate(r->file, 2 * (off_t)LENGTH))
		fail("ftruncate: %s", strerror(errno));
}

void op_protect(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	unsigned long expect = r->expect;

	w->source = SHUNT_MMU_SRC_MPROTECT;
	mprotect(at(r, a), length, upto(w, 2) ? PROT_NONE : PROT_READ);
	r->expect = 0;
	mprotect(at(r, a), length, PROT_READ | PROT_WRITE);
	r->expect = expect;
}

void op_write(struct worker *w, struct region *r)
{
	(void)w;
	for (unsigned p = 0; p < PAGES; p++) {
		volatile uint64_t *word = at(r, p);

		word[0] = word[0];
	}
}
