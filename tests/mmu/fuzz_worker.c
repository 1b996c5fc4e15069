/* SPDX-License-Identifier: MIT */
/* fuzz_worker.c - the operations, and the threads that draw from them. */
#include "fuzz_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct worker workers[WORKERS];
atomic_bool stop;

/* A notifier more or less. */
static void op_watch(struct worker *w, struct region *r)
{
	struct watcher *v = &w->watcher[upto(w, WATCHERS)];
	uint32_t kinds = upto(w, 3) ? 0 : 1u << upto(w, SHUNT_MMU_KINDS) | 1u << upto(w, SHUNT_MMU_KINDS);
	bool direct = upto(w, 2);
	int err;

	(void)r;
	if (v->state == WATCHER_ON) {
		watcher_off(v);
		return;
	}
	if (quiet)
		return;
	v->busy = direct ? 0 : 4;
	v->quits_in = upto(w, 4) ? 0 : 64;
	err = watcher_on(v, kinds, direct ? SHUNT_MMU_DIRECT : 0);
	if (err)
		fail("register: %s", strerror(-err));
}

const struct op ops[] = {
	{"munmap", op_unmap, PAGES_OF_OURS, 8, true},
	{"mmap over", op_map_over, PAGES_OF_OURS, 8, true},
	{"mremap away", op_move, PAGES_OF_OURS, 4, true},
	{"mremap DONTUNMAP", op_move_only_pages, PAGES_OF_OURS, 4, true},
	{"mremap onto", op_move_onto, PAGES_OF_OURS, 4, true},
	{"mremap to less", op_shrink, PAGES_OF_OURS, 4, true},
	{"mremap to more", op_grow, PAGES_OF_OURS, 4, true},
	{"madvise", op_discard, PAGES_OF_OURS, 8, true},
	{"process_madvise", op_process_madvise, PAGES_OF_OURS, 4, false},
	{"hole in a file", op_punch, FILES_OF_OURS, 4, true},
	{"ftruncate", op_truncate, FILES_OF_OURS, 4, true},
	{"mprotect", op_protect, PAGES_OF_OURS, 4, false},
	{"shmat, shmdt", op_shm, PAGES_OF_OURS, 2, true},
	{"write", op_write, PAGES_OF_OURS, 2, false},
	{"fork", op_fork, PAGES_OF_OURS, 1, false},
	{"vfork", op_vfork, PAGES_OF_OURS, 2, true},
	{"execve that fails", op_exec, PAGES_OF_OURS, 1, false},
	{"thread", op_thread, PAGES_OF_OURS, 2, false},
	{"free, malloc", op_heap, HEAP, 12, true},
	{"malloc_trim", op_trim, HEAP, 1, false},
	{"dlclose, dlopen", op_lib, LIBRARY, 3, true},
	{"nonsense", op_nonsense, PAGES_OF_OURS, 2, false},
	{"refused", op_refused, PAGES_OF_OURS, 4, false},
	{"register, unregister", op_watch, PAGES_OF_OURS, 4, false},
};

static struct region *pick(struct worker *w, enum where where)
{
	switch (where) {
	case FILES_OF_OURS: return region(w, 3 + upto(w, 3));
	case HEAP: return region(w, upto(w, 2) ? HEAP_SMALL : HEAP_LARGE);
	case LIBRARY: return region(w, LIB);
	default: return region(w, upto(w, 6));
	}
}

static unsigned pick_op(struct worker *w)
{
	unsigned sum = 0, k;

	for (unsigned i = 0; i < OPS; i++)
		sum += ops[i].often;
	k = upto(w, sum);
	for (unsigned i = 0;; k -= ops[i++].often)
		if (k < ops[i].often)
			return i;
}

static void set_up(struct worker *w)
{
	int err = uring_open(&w->ring, REGIONS);

	if (err)
		fail("io_uring: %s", strerror(-err));
	w->doing = "set up";
	copy_lib(w);
	for (unsigned i = 0; i < REGIONS; i++) {
		struct region *r = region(w, i);
		char *p;

		r->file = -1;
		if (i == LIB) {
			r->start = lib_open(w, r);
		} else if (i >= HEAP_SMALL) {
			heap_get(w, r);
			r->start = heap_start(r);
		} else {
			if (i >= 3)
				r->file = memfd_create("region", MFD_CLOEXEC);
			if (i >= 3 && ftruncate(r->file, 2 * (off_t)LENGTH))
				fail("memfd: %s", strerror(errno));
			p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
				i < 3 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, r->file, 0);
			r->start = (uintptr_t)p;
		}
		enlist(w, r);
		transfer(w, r);
	}
}

static void leave(struct worker *w)
{
	for (unsigned i = 0; i < WATCHERS; i++)
		if (w->watcher[i].state == WATCHER_ON)
			watcher_off(&w->watcher[i]);
	for (unsigned i = 0; i < REGIONS; i++)
		listen_or_not(w, region(w, i));
}

void *work(void *arg)
{
	struct worker *w = arg;

	self = (int)w->number;
	set_up(w);
	while (!stop) {
		unsigned op = pick_op(w);
		struct region *r = pick(w, ops[op].where);

		w->doing = doing = ops[op].name;
		if (quiet)
			leave(w);
		ops[op].run(w, r);
		shared->done[op]++;
		shared->stale[op] += judge(w, r);
		w->done++;
	}
	quiet = true;
	leave(w);
	return NULL;
}
