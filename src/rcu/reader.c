/* SPDX-License-Identifier: MIT */
/* reader.c - grace periods for callbacks (the idea is in reader.h). */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/membarrier.h>

#include "reader.h"

__thread struct shunt_reader *shunt_reader_self;
uint64_t shunt_reader_phase;
bool shunt_reader_fence;

/* Grows only; new readers are pushed at the head. */
static struct shunt_reader *readers;
static pthread_mutex_t sync_lock = PTHREAD_MUTEX_INITIALIZER;
static int32_t process;
static bool ready;

static long membarrier(int cmd)
{
	return syscall(SYS_membarrier, cmd, 0, 0);
}

/* In a fork child only the forking thread goes on: what the others held is free. */
static void child(void)
{
	struct shunt_reader *self = shunt_reader_self;

	process = (int32_t)syscall(SYS_getpid);
	pthread_mutex_init(&sync_lock, NULL);
	for (struct shunt_reader *r = readers; r; r = r->next) {
		if (r == self) {
			r->tid = (int32_t)syscall(SYS_gettid);
			continue;
		}
		r->ctr = 0;
		r->depth = 0;
		r->points = 0;
		r->npoints = 0;
		r->nframes = 0;
		r->tid = 0;
	}
}

__attribute__((constructor(101))) static void start(void)
{
	if (__atomic_exchange_n(&ready, true, __ATOMIC_SEQ_CST))
		return;
	process = (int32_t)syscall(SYS_getpid);
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) < 0)
		shunt_reader_fence = true;
	pthread_atfork(NULL, NULL, child);
}

static bool owner_gone(const struct shunt_reader *r)
{
	int32_t tid = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

	return tid && syscall(SYS_tgkill, syscall(SYS_getpid), tid, 0) < 0 && errno == ESRCH;
}

/* A free reader, or one whose thread has ended. */
static struct shunt_reader *reuse(int32_t tid)
{
	struct shunt_reader *r = __atomic_load_n(&readers, __ATOMIC_ACQUIRE);

	for (; r; r = r->next) {
		int32_t old = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

		if (old && !owner_gone(r))
			continue;
		if (!__atomic_compare_exchange_n(&r->tid, &old, tid, false, __ATOMIC_SEQ_CST,
			    __ATOMIC_RELAXED))
			continue;
		r->ctr = 0;
		r->depth = 0;
		r->points = 0;
		r->npoints = 0;
		r->nframes = 0;
		return r;
	}
	return NULL;
}

/* A page at a time: a few threads' worth. */
static struct shunt_reader *grow(int32_t tid)
{
	size_t size = 16384, n = size / sizeof(struct shunt_reader);
	struct shunt_reader *block =
		(void *)syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1L, 0L);
	struct shunt_reader *head;

	if (block == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i + 1 < n; i++)
		block[i].next = &block[i + 1];
	block[0].tid = tid;
	head = __atomic_load_n(&readers, __ATOMIC_RELAXED);
	do
		block[n - 1].next = head;
	while (!__atomic_compare_exchange_n(&readers, &head, block, false, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED));
	return block;
}

struct shunt_reader *shunt_reader_get(void)
{
	struct shunt_reader *r = shunt_reader_self;
	int saved = errno;
	int32_t tid;

	if (r)
		return r;
	start();
	tid = (int32_t)syscall(SYS_gettid);
	r = reuse(tid);
	if (!r)
		r = grow(tid);
	/* A signal handler may have given this thread one meanwhile: keep the
	 * first, ours stays with this tid until the thread is gone. */
	if (r && !shunt_reader_self)
		shunt_reader_self = r;
	errno = saved;
	return shunt_reader_self;
}

bool shunt_on_altstack(uintptr_t addr)
{
	stack_t ss;

	return !syscall(SYS_sigaltstack, NULL, &ss) && !(ss.ss_flags & SS_DISABLE) &&
	       addr - (uintptr_t)ss.ss_sp < ss.ss_size;
}

static bool is_old(const uint64_t *at, uint64_t phase)
{
	uint64_t ctr = __atomic_load_n(at, __ATOMIC_ACQUIRE);

	return (ctr & SHUNT_READER_NEST) && ((ctr ^ phase) & SHUNT_READER_PHASE);
}

static bool in_old_section(const struct shunt_reader *r, uint64_t phase)
{
	return is_old(&r->ctr, phase) || is_old(&r->points, phase);
}

static void wait_for_old(uint64_t phase)
{
	struct timespec pause = {.tv_nsec = 20000};

	for (struct shunt_reader *r = __atomic_load_n(&readers, __ATOMIC_ACQUIRE); r; r = r->next)
		while (in_old_section(r, phase)) {
			if (owner_gone(r))
				break;
			nanosleep(&pause, NULL);
			if (pause.tv_nsec < 2000000)
				pause.tv_nsec *= 2;
		}
}

static void full_barrier(void)
{
	if (!shunt_reader_fence)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int shunt_reader_synchronize(void)
{
	if (shunt_reader_inside())
		return -EDEADLK;
	start();
	pthread_mutex_lock(&sync_lock);
	full_barrier(); /* what was unpublished is unpublished for all */
	for (int i = 0; i < 2; i++) {
		uint64_t phase = shunt_reader_phase ^ SHUNT_READER_PHASE;

		__atomic_store_n(&shunt_reader_phase, phase, __ATOMIC_RELEASE);
		full_barrier();
		wait_for_old(phase);
	}
	full_barrier(); /* what the sections did comes before what follows */
	pthread_mutex_unlock(&sync_lock);
	return 0;
}
