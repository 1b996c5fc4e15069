/* SPDX-License-Identifier: MIT */
/* change.c - the ways in which a page becomes another one, and registrations of pages. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "change.h"

#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define BOTH	  (PROT_READ | PROT_WRITE)

_Thread_local int change_fd = -1;

void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- registrations ---- */

int held_take(struct held *h, uintptr_t page)
{
	struct iovec v = {(void *)page, PAGE};

	if (pipe(h->pipe))
		return -errno;
	if (vmsplice(h->pipe[1], &v, 1, 0) == (ssize_t)PAGE)
		return 0;
	held_drop(h);
	return -EFAULT;
}

/* tee() leaves the page where it is. */
uint32_t held_read(const struct held *h)
{
	char page[PAGE];
	uint32_t word;
	int copy[2];

	check(!pipe(copy) && tee(h->pipe[0], copy[1], PAGE, 0) == (ssize_t)PAGE &&
		      read(copy[0], page, PAGE) == (ssize_t)PAGE, "a registration");
	close(copy[0]);
	close(copy[1]);
	memcpy(&word, page, sizeof word);
	return word;
}

void held_drop(struct held *h)
{
	close(h->pipe[0]);
	close(h->pipe[1]);
}

/* ---- pages ---- */

/*
 * Each at an address of its own, in a part of the address space where the kernel puts nothing by itself: what
 * other threads map must not come into the hole that an unmap leaves for a moment.
 */
char *change_page(const struct way *w)
{
	static atomic_ulong next = 1ul << 45;
	char *p = mmap((void *)atomic_fetch_add(&next, 4 * PAGE), 3 * PAGE, PROT_NONE,
		ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	check(p != MAP_FAILED, "mmap");
	p += PAGE;
	if (!w->file) {
		check(!mprotect(p, PAGE, BOTH), "mprotect");
		return p;
	}
	change_fd = memfd_create("changed", MFD_CLOEXEC);
	check(change_fd >= 0 && !ftruncate(change_fd, PAGE) &&
		      mmap(p, PAGE, BOTH, MAP_SHARED | MAP_FIXED, change_fd, 0) == p, "memfd");
	return p;
}

void change_done(char *p)
{
	check(!munmap(p - PAGE, 3 * PAGE), "munmap");
	if (change_fd >= 0)
		close(change_fd);
	change_fd = -1;
}

/* ---- ways ---- */

static void map_again(char *p)
{
	check(mmap(p, PAGE, BOTH, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p, "mmap again");
}

static void unmap(char *p)
{
	check(!munmap(p, PAGE), "munmap");
	map_again(p);
}

static void map_over(char *p)
{
	check(mmap(p, PAGE, BOTH, ANONYMOUS | MAP_FIXED, -1, 0) == p, "mmap");
}

/* It cannot grow where it is: the next page is taken. */
static void move_away(char *p)
{
	char *to = mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE);

	check(to != MAP_FAILED && to != p && !munmap(to, 2 * PAGE), "mremap");
	map_again(p);
}

/* Not through mremap(): UCX 1.13 puts a function in its place that has no fifth argument. */
static void move_over(char *p)
{
	char *other = mmap(NULL, PAGE, BOTH, ANONYMOUS, -1, 0);

	check(other != MAP_FAILED, "mmap");
	*other = 1;
	check(syscall(SYS_mremap, other, PAGE, PAGE, (long)(MREMAP_MAYMOVE | MREMAP_FIXED), p) == (long)p, "mremap");
}

static void discard(char *p)
{
	check(!madvise(p, PAGE, MADV_DONTNEED), "madvise");
}

static void discard_by_pidfd(char *p)
{
	struct iovec v = {p, PAGE};
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	check(fd >= 0 && syscall(SYS_process_madvise, fd, &v, 1L, (long)MADV_DONTNEED, 0L, 0L) == (long)PAGE,
		"process_madvise");
	close(fd);
}

static void cut_off(char *p)
{
	(void)p;
	check(!ftruncate(change_fd, 0) && !ftruncate(change_fd, PAGE), "ftruncate");
}

static void punch(char *p)
{
	(void)p;
	check(!fallocate(change_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), "fallocate");
}

static void attach_over(char *p)
{
	int id = shmget(IPC_PRIVATE, PAGE, 0600);

	check(id >= 0 && shmat(id, p, SHM_REMAP) == p, "shmat");
	shmctl(id, IPC_RMID, NULL);
}

/* The child keeps the page that both had; who writes first, the parent, gets another one. */
static void copy_on_write(char *p)
{
	pid_t child = fork();

	check(child >= 0, "fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	++*(volatile char *)p;
	check(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child, "waitpid");
}

static void unmap_by_syscall(char *p)
{
	check(!syscall(SYS_munmap, p, PAGE), "munmap");
	map_again(p);
}

/* As programs do that have no libc, and those that want to have nothing to do with it. */
static long instruction(long address)
{
	long r;

	__asm__ volatile("movl %1, %%eax\n\tsyscall" : "=&a"(r) : "i"(SYS_munmap), "D"(address),
			 "S"((long)PAGE) : "rcx", "r11", "memory");
	return r;
}

static void unmap_by_instruction(char *p)
{
	check(!instruction((long)p), "munmap");
	map_again(p);
}

const struct way ways[WAYS + 1] = {
	{"munmap", .make = unmap},
	{"mmap MAP_FIXED", .make = map_over},
	{"mremap away", .make = move_away},
	{"mremap onto it", .raw = true, .make = move_over},
	{"madvise DONTNEED", .make = discard},
	{"process_madvise", .raw = true, .make = discard_by_pidfd},
	{"ftruncate", .file = true, .make = cut_off},
	{"fallocate, a hole", .file = true, .make = punch},
	{"shmat SHM_REMAP", .make = attach_over},
	{"syscall(SYS_munmap)", .raw = true, .make = unmap_by_syscall},
	{"a syscall instruction", .raw = true, .make = unmap_by_instruction},
	{"fork, then written", .make = copy_on_write},
	{0},
};
