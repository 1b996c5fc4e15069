/* SPDX-License-Identifier: MIT */
/* fuzz_program.c - what changes memory by the way: processes, threads, the heap, libraries. */
#include "fuzz_ops.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail("a child ended with %x", (unsigned)status);
}

/* Nothing that the child does to its memory is ours. */
void op_fork(struct worker *w, struct region *r)
{
	pid_t pid;

	w->source = SHUNT_MMU_SRC_FORK;
	pid = upto(w, 2) ? fork() : (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L, 0L);
	if (pid < 0)
		return;
	if (!pid) {
		forked = true;
		munmap(at(r, 0), LENGTH);
		syscall(SYS_madvise, at(region(w, 0), 0), LENGTH, (long)MADV_DONTNEED);
		_exit(0);
	}
	op_write(w, r);
	wait_for(pid);
}

/* All that it does is. */
void op_vfork(struct worker *w, struct region *r)
{
	unsigned a, b;
	size_t length = some(w, &a, &b);
	pid_t pid;

	w->source = SHUNT_MMU_SRC_MUNMAP;
	pid = vfork();
	if (!pid) {
		munmap(at(r, a), length);
		_exit(0);
	}
	if (pid < 0)
		return;
	wait_for(pid);
	refill(w, r, a, b);
}

void op_exec(struct worker *w, struct region *r)
{
	char *none[] = {NULL};

	(void)r;
	w->source = SHUNT_MMU_SRC_EXEC;
	execve("/nowhere/at/all", none, none);
}

static void *use_stack(void *arg)
{
	volatile char page[4 * PAGE];

	for (size_t i = 0; i < sizeof(page); i += PAGE)
		page[i] = 1;
	return arg;
}

void op_thread(struct worker *w, struct region *r)
{
	pthread_attr_t attr;
	pthread_t t;

	(void)r;
	w->source = SHUNT_MMU_SRC_LIBC;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, (1ul + upto(w, 32)) << 20);
	if (!pthread_create(&t, &attr, use_stack, NULL))
		pthread_join(t, NULL);
	pthread_attr_destroy(&attr);
}

void heap_get(struct worker *w, struct region *r)
{
	size_t size = slot(w, r) == HEAP_SMALL ? 100000 : 1 << 20;

	r->handle = malloc(size);
	if (!r->handle)
		fail("no memory");
	memset(r->handle, 1, 100000); /* populate what the region can be in */
}

uintptr_t heap_start(const struct region *r)
{
	return ((uintptr_t)r->handle + 64 + PAGE - 1) & ~(PAGE - 1);
}

/* free() may give it back to the kernel, malloc() may give us the same address once more. */
void op_heap(struct worker *w, struct region *r)
{
	r->expect = 0; /* it is anybody's, for a while */
	w->source = SHUNT_MMU_SRC_LIBC;
	free(r->handle);
	if (!upto(w, 4))
		malloc_trim(0);
	heap_get(w, r);
	if (heap_start(r) != r->start)
		move(w, r, heap_start(r));
}

void op_trim(struct worker *w, struct region *r)
{
	(void)r;
	w->source = SHUNT_MMU_SRC_LIBC;
	malloc_trim(0);
}

void copy_lib(struct worker *w)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	int from, to = memfd_create("lib", MFD_CLOEXEC);
	struct stat st;

	path[n < 0 ? 0 : n] = '\0';
	strcpy(strrchr(path, '/'), "/libtest-mmu-fuzz.so");
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0 || fstat(from, &st) || sendfile(to, from, NULL, (size_t)st.st_size) != st.st_size)
		fail("%s: %s", path, strerror(errno));
	close(from);
	snprintf(w->lib, sizeof(w->lib), "/proc/self/fd/%d", to);
}

uintptr_t lib_open(struct worker *w, struct region *r)
{
	r->handle = dlopen(w->lib, RTLD_NOW | RTLD_LOCAL);
	if (!r->handle)
		fail("dlopen: %s", dlerror());
	return (uintptr_t)dlsym(r->handle, "fuzz_lib_data");
}

void op_lib(struct worker *w, struct region *r)
{
	uintptr_t start;

	w->source = SHUNT_MMU_SRC_LOADER;
	dlclose(r->handle);
	r->expect = 0;
	start = lib_open(w, r);
	if (start == r->start)
		return;
	must_be_told(w, r, "a library was unloaded");
	move(w, r, start);
}
