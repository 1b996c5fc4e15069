/* SPDX-License-Identifier: MIT */
/* work.c - what is measured. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mmu.h"

void *map_page(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static char *hole;

/* The kernel finds nothing to do: what is left is the call, and who listens to it. */
void unmap_nothing(void)
{
	munmap(hole, PAGE);
}

void map_and_unmap(void)
{
	munmap(map_page(), PAGE);
}

void prepare_work(void)
{
	mallopt(M_MMAP_THRESHOLD, 128 << 10); /* and it stays that: 1 MiB is always mapped */
	hole = mmap((void *)0x200000000000, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (hole == MAP_FAILED)
		abort();
	munmap(hole, PAGE); /* far from where anything else is put */
}

/* Until all that is free is one piece: what malloc() executes depends on what it has. */
void level_heap(void)
{
	for (struct mallinfo2 m = mallinfo2(); m.ordblks > 1 || m.smblks; m = mallinfo2()) {
		void *volatile p = malloc(24);

		(void)p;
	}
}

void allocate_and_free(void)
{
	char *volatile p = malloc(1 << 20);

	free(p);
}

static pthread_t thread;
static atomic_int thread_id;

static void *leave(void *arg)
{
	thread_id = (int)syscall(SYS_gettid);
	return arg;
}

void create_thread(void)
{
	thread_id = 0;
	if (pthread_create(&thread, NULL, leave, NULL))
		abort();
}

void join_thread(void)
{
	pthread_join(thread, NULL);
}

void create_and_join(void)
{
	create_thread();
	join_thread();
}

/* Created, and at an end, so that joining does not have to wait. */
void create_and_end(void)
{
	create_thread();
	while (!thread_id || !syscall(SYS_tgkill, (long)getpid(), (long)thread_id, 0L))
		usleep(100);
}

void join_last(void)
{
	if (thread)
		join_thread();
	thread = 0;
	level_heap();
}
