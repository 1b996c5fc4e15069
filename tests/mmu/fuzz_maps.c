/* SPDX-License-Identifier: MIT */
/* fuzz_maps.c - changes of what is mapped where, and calls of that sort that are refused. */
#include "fuzz_ops.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

static long raw_munmap(void *p, size_t length)
{
	long r;

	__asm__ volatile("mov $11, %%eax\n\tsyscall" : "=&a"(r) : "D"(p), "S"(length) : "rcx", "r11", "memory");
	return r;
}

static long do_munmap(struct worker *w, void *p, size_t length)
{
	switch (upto(w, 3)) {
	case 0: w->source = SHUNT_MMU_SRC_MUNMAP; return munmap(p, length);
	case 1: w->source = SHUNT_MMU_SRC_SYSCALL; return syscall(SYS_munmap, p, length);
	default: w->source = SHUNT_MMU_SRC_RAW; return raw_munmap(p, length);
	}
}

void op_unmap(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);

	if (!do_munmap(w, at(r, a), length))
		refill(w, r, a, b);
}

void op_map_over(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	off_t offset = (off_t)((upto(w, 2) * PAGES + a) * PAGE);
	bool file = r->file >= 0 && upto(w, 2);
	int flags = file ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	int fd = file ? r->file : -1;

	w->source = upto(w, 2) ? SHUNT_MMU_SRC_MMAP : SHUNT_MMU_SRC_SYSCALL;
	if (w->source == SHUNT_MMU_SRC_MMAP)
		mmap(at(r, a), length, PROT_READ | PROT_WRITE, flags, fd, file ? offset : 0);
	else
		syscall(SYS_mmap, at(r, a), length, (long)(PROT_READ | PROT_WRITE), (long)flags, (long)fd,
			file ? (long)offset : 0L);
}

/* One mapping, which mremap() likes better, and the ring knows it. */
static void renew(struct worker *w, struct region *r)
{
	r->expect = 0;
	anonymous(at(r, 0), LENGTH, MAP_FIXED);
	enlist(w, r);
	if (transfer(w, r))
		fail("%s: a buffer that was registered just now is stale", w->doing);
}

void op_move(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	void *to, *got;

	renew(w, r);
	to = anonymous(NULL, length, 0);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, a), length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (got != to)
		fail("mremap: %s", strerror(errno));
	munmap(to, length);
	refill(w, r, a, b);
}

void op_move_only_pages(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	void *got;

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, a), length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (got != MAP_FAILED)
		munmap(got, length);
}

void op_move_onto(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	char *from = anonymous(NULL, length, MAP_POPULATE);

	w->source = SHUNT_MMU_SRC_MREMAP;
	if (mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at(r, a)) != at(r, a))
		fail("mremap onto: %s", strerror(errno));
}

void op_shrink(struct worker *w, struct region *r)
{
	unsigned a = 1 + upto(w, PAGES - 1);

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	if (mremap(at(r, 0), LENGTH, a * PAGE, 0) == at(r, 0))
		refill(w, r, a, PAGES);
}

void op_grow(struct worker *w, struct region *r)
{
	void *got;

	renew(w, r);
	w->source = SHUNT_MMU_SRC_MREMAP;
	got = mremap(at(r, 0), LENGTH, 16 * LENGTH, MREMAP_MAYMOVE);
	if (got == MAP_FAILED)
		return;
	if (got == at(r, 0)) { /* there was room */
		munmap(at(r, PAGES), 15 * LENGTH);
		return;
	}
	munmap(got, 16 * LENGTH);
	refill(w, r, 0, PAGES);
}

void op_shm(struct worker *w, struct region *r)
{
	int id = shmget(IPC_PRIVATE, LENGTH, 0600);

	if (id < 0)
		return;
	w->source = SHUNT_MMU_SRC_SHM;
	if (shmat(id, at(r, 0), SHM_REMAP) == at(r, 0)) {
		judge(w, r);
		if (!shmdt(at(r, 0)))
			refill(w, r, 0, PAGES);
	}
	shmctl(id, IPC_RMID, NULL);
}

/* The kernel refuses these for what they say: nothing changes. */
void op_nonsense(struct worker *w, struct region *r)
{
	w->source = SHUNT_MMU_SRC_MUNMAP;
	switch (upto(w, 6)) {
	case 0: munmap((char *)at(r, 0) + 1, PAGE); break;
	case 1: munmap(at(r, 0), 0); break;
	case 2: mmap(at(r, 0), LENGTH, PROT_READ, MAP_PRIVATE | MAP_FIXED, 1 << 20, 0); break;
	case 3:
		if (mremap(at(r, 0), LENGTH, LENGTH, MREMAP_FIXED, at(r, 1)) != MAP_FAILED)
			fail("that was no nonsense");
		break;
	case 4: madvise(at(r, 0), LENGTH, 12345); break;
	case 5: madvise((char *)at(r, 0) + 1, LENGTH, MADV_DONTNEED); break;
	}
}

void refuse_window(void)
{
	char *p = mmap(NULL, 2 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t lo, hi;

	window = ((uintptr_t)p + (1 << 20) - 1) & ~((1ul << 20) - 1);
	lo = (uint32_t)window;
	hi = (uint32_t)(window >> 32);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, hi, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, lo, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, lo + WORKERS * WINDOW_SIZE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(*code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		fail("seccomp: %s", strerror(errno));
}

/* These are refused by the filter with ENOMEM, after the notifiers have been told. */
void op_refused(struct worker *w, struct region *r)
{
	char *p = (char *)window + w->number * WINDOW_SIZE;
	unsigned before = epoch, starts = window_starts[w->number], ends = window_ends[w->number];
	bool failed;

	(void)r;
	w->source = SHUNT_MMU_SRC_MUNMAP;
	errno = 0;
	switch (upto(w, 6)) {
	case 0: failed = munmap(p, PAGE); break;
	case 1: failed = anonymous(p, 2 * PAGE, MAP_FIXED) == MAP_FAILED; break;
	case 2: failed = mremap(p, 4 * PAGE, 2 * PAGE, 0) == MAP_FAILED; break;
	case 3: failed = mprotect(p, PAGE, PROT_READ); break;
	case 4: failed = madvise(p, PAGE, MADV_DONTNEED); break;
	default: failed = syscall(SYS_munmap, p, PAGE); break;
	}
	if (!failed || errno != ENOMEM)
		fail("the filter of system calls let one through");
	starts = window_starts[w->number] - starts;
	ends = window_ends[w->number] - ends;
	if (before == epoch && before % 2 == 0 && (starts != 1 || ends != 1))
		fail("a refused call had %u starts and %u ends", starts, ends);
}
