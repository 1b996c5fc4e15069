/* SPDX-License-Identifier: MIT */
/*
 * late.c - the thread that tells the notifiers what the kernel said.
 *
 * Callbacks may allocate, and who sleeps in the kernel until its event is read may hold malloc's locks: so one
 * thread reads and queues (watch.c), and this one calls. The queue is of fixed size and its lock is held for some
 * stores only, by these two. When it is full, what comes is put together into one range for
 * each kind, which is more than was changed: right, and rare.
 *
 * Invariant: a range's end is told after its change. Of unmapping and moving the kernel tells when it is done. Of
 * discarding it tells before: the maker sleeps until the event is read, and does it then. With an end at once
 * it could come too early, and a translation made after that would be stale for ever. So:
 *
 *   start
 *   list the threads, each with the processor time it has used
 *   wait until each was seen elsewhere, or has used so much more that it must be through
 *   end
 *
 * "Elsewhere" is asleep in another system call, or in none, as /proc/self/task/N/syscall says. A thread that runs is
 * not shown there, but it can't use much processor time without getting on: 200 us, and a microsecond for each page,
 * is much more than what is left of the call needs. One that gets no processor does not get on either: after 100 ms
 * it is told without being sure, and once more when it is. Threads of other processes that share our memory, and io_uring's
 * workers, are not in that list: for them it is told as soon as ours are through.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arch/x86_64/text_sys.h"
#include "base/clock.h"
#include "base/worker.h"
#include "mmu/watch.h"
#include "text/threads.h"

#define ROOM	  1024
#define RESTLESS  4096 /* threads that run at the same time; more are not waited for */
#define ENOUGH_NS 200000u
#define PAGE_NS	  1000u
#define AGAIN_MS  10

uint64_t shunt_mmu_late_patience = 100000000; /* ns */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shunt_mmu_range queue[ROOM], batch[ROOM + SHUNT_MMU_KINDS];
static unsigned queued;
static struct shunt_mmu_range over[SHUNT_MMU_KINDS]; /* end 0: none */
static uint32_t pushed, done;			     /* counts; done is a futex */

/* Discarded, told, but maybe too early; by the threads that are in `restless`. */
static struct shunt_mmu_range unsure;
static struct restless {
	int tid;
	uint64_t limit; /* ns of its processor time */
} restless[RESTLESS];
static unsigned nrestless;

static int pass(void);
static struct shunt_worker teller = SHUNT_WORKER(pass, "shunt-mmu-late");

int shunt_mmu_late_start(void)
{
	return shunt_worker_kick(&teller);
}

/* --- the queue ------------------------------------------------------------------------ */

static void widen(struct shunt_mmu_range *to, const struct shunt_mmu_range *r)
{
	if (!to->end) {
		*to = *r;
		return;
	}
	to->start = r->start < to->start ? r->start : to->start;
	to->end = r->end > to->end ? r->end : to->end;
	to->new_start = 0;
}

void shunt_mmu_late_push(const struct shunt_mmu_range *r)
{
	pthread_mutex_lock(&lock);
	if (queued < ROOM)
		queue[queued++] = *r;
	else
		widen(&over[r->kind], r);
	__atomic_store_n(&pushed, pushed + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	shunt_worker_wake(&teller);
}

/* All of it, into batch: how many. */
static unsigned take(uint32_t *upto)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = queued;
	memcpy(batch, queue, n * sizeof *queue);
	for (int k = 0; k < SHUNT_MMU_KINDS; k++)
		if (over[k].end)
			batch[n++] = over[k];
	memset(over, 0, sizeof over);
	queued = 0;
	*upto = pushed;
	pthread_mutex_unlock(&lock);
	return n;
}

void shunt_mmu_late_sync(void)
{
	uint32_t target = __atomic_load_n(&pushed, __ATOMIC_ACQUIRE), now;

	if (shunt_worker_self(&teller))
		return;
	while ((int32_t)(now = __atomic_load_n(&done, __ATOMIC_ACQUIRE), target - now) > 0)
		shunt_sys(SYS_futex, &done, FUTEX_WAIT_PRIVATE, now, NULL);
}

void shunt_mmu_late_forget(void)
{
	lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	queued = nrestless = 0;
	memset(over, 0, sizeof over);
	memset(&unsure, 0, sizeof unsure);
	done = pushed;
}

/* --- is it done? ---------------------------------------------------------------------- */

/* Its processor time in ns, up to now; 0 if there is no such thread any more. */
static uint64_t used(int tid)
{
	struct timespec t;
	/* A thread's clock of time on a processor: kernel, posix-timers.h. */
	int clock = (int)(~(unsigned)tid << 3 | 6);

	if (shunt_sys(SYS_clock_gettime, clock, &t))
		return 0;
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * Asleep, and not in a call that discards. Where that file is not for us (after setuid): asleep so that signals wake
 * it, which such a call never is.
 */
static bool elsewhere(int tid)
{
	char text[128];
	long n = shunt_thread_read(-1, tid, "syscall", text, sizeof text), nr;
	const char *behind_name;

	if (n > 0 && text[0] != 'r') { /* not "running" */
		nr = atol(text);
		return nr != SYS_madvise && nr != SYS_process_madvise;
	}
	if (n >= 0 || shunt_thread_read(-1, tid, "stat", text, sizeof text) <= 0)
		return n == 0;
	behind_name = strrchr(text, ')');
	return behind_name && behind_name[1] == ' ' && behind_name[2] == 'S';
}

static void list_restless(uint64_t enough)
{
	int self = (int)shunt_sys(SYS_gettid), tid;
	struct shunt_threads t;

	nrestless = 0;
	if (shunt_threads_open(&t, "self"))
		return;
	while ((tid = shunt_threads_next(&t)) > 0 && nrestless < RESTLESS)
		if (tid != self)
			restless[nrestless++] = (struct restless){tid, used(tid) + enough};
	shunt_threads_close(&t);
}

/* Those leave the list that are through. Whether all are. */
static bool all_through(void)
{
	for (unsigned i = 0; i < nrestless;) {
		uint64_t now = used(restless[i].tid);

		if (!now || now >= restless[i].limit || elsewhere(restless[i].tid))
			restless[i] = restless[--nrestless];
		else
			i++;
	}
	return nrestless == 0;
}

/* Waits until all that discard have done it, or for so long that it is not sure. */
static bool wait_through(uint64_t pages)
{
	static const struct timespec moment = {0, 20000};
	uint64_t enough = ENOUGH_NS + pages * PAGE_NS;
	uint64_t until = shunt_now_ns() + shunt_mmu_late_patience + 4 * pages * PAGE_NS;

	list_restless(enough);
	while (!all_through()) {
		if (shunt_now_ns() >= until)
			return false;
		shunt_sys(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL);
	}
	return true;
}

/* --- telling -------------------------------------------------------------------------- */

static void tell_unsure(void)
{
	struct shunt_mmu_range r = unsure;

	if (!r.end || !all_through())
		return;
	memset(&unsure, 0, sizeof unsure);
	shunt_mmu_tell_late(&r);
}

/* As many ranges as an op has room for; the rest is in the last one. */
static void add_range(struct shunt_mmu_op *op, const struct shunt_mmu_range *r)
{
	if (op->n < SHUNT_MMU_RANGES)
		op->range[op->n++] = *r;
	else
		widen(&op->range[op->n - 1], r);
}

static void tell_discards(unsigned n)
{
	struct shunt_mmu_op op = {.context = SHUNT_MMU_MADE};
	struct shunt_mmu_range all = unsure;
	uint64_t pages = 0;
	bool told;

	for (unsigned i = 0; i < n; i++)
		if (batch[i].kind == SHUNT_MMU_DISCARD) {
			add_range(&op, &batch[i]);
			widen(&all, &batch[i]);
			pages += (batch[i].end - batch[i].start) / 4096;
		}
	if (!op.n)
		return;
	if (unsure.end)
		add_range(&op, &unsure);
	told = shunt_mmu_op_begin(&op);
	memset(&unsure, 0, sizeof unsure);
	if (!wait_through(pages))
		unsure = all;
	if (told)
		shunt_mmu_op_end(&op, 0);
}

static int pass(void)
{
	uint32_t upto;
	unsigned n = take(&upto);

	if (!n) {
		tell_unsure();
		return unsure.end ? AGAIN_MS : -1;
	}
	for (unsigned i = 0; i < n; i++)
		if (batch[i].kind != SHUNT_MMU_DISCARD)
			shunt_mmu_tell_late(&batch[i]);
	tell_discards(n);
	__atomic_store_n(&done, upto, __ATOMIC_RELEASE);
	shunt_sys(SYS_futex, &done, FUTEX_WAKE_PRIVATE, INT32_MAX);
	return 0;
}
