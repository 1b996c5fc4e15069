/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ops.c - random changes of memory in eight threads, notifiers that come and go, and a judge that does
 * not believe them: io_uring.
 *
 *   fuzz_ops [SECONDS [SEED]]
 *   FUZZ_NEEDS=name	skips where no library has this function: a preloaded allocator that is not there
 *
 * Each worker has some regions that are fixed buffers of a ring of its own. It does something to one, then
 * reads a file into it through the ring. What is not in the memory afterwards went to pages that were there
 * before: a stale translation. If the notifier, or the interval, has not been told of a change in the
 * region since it was given to the ring, it was missed: that is the failure. Also:
 * - in a start on the thread that makes the change, the memory is still what it was;
 * - the starts and ends that a notifier sees are the same ranges and kinds, whether the calls fail or not: some
 *   are refused by the kernel for their arguments, some with ENOMEM by a filter of system calls;
 * - none comes before register, after unregister, in a child of fork(), or of a kind not asked for;
 * - one release each, at exit too (the process that works is a child of the one that judges it);
 * - a change of each sort has been seen to leave stale data, so that the judge is known to be awake.
 *
 * From time to time everybody unregisters for a moment, and the code is as it was built.
 */
#include "fuzz_ops.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

#define SOURCE_WORDS (4096 + LENGTH / 8)

struct shared *shared;
static struct watcher oracle = {.oracle = true};
static unsigned long seed;

/* ---- The process that works. ---- */

static void crashed(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fail("signal %d at %p, worker %d: %s", sig, info->si_addr, self, self < 0 ? "" : workers[self].doing);
}

static void prepare(void)
{
	static uint64_t word[SOURCE_WORDS];
	struct sigaction sa = {.sa_sigaction = crashed, .sa_flags = SA_SIGINFO};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	for (uint64_t i = 0; i < SOURCE_WORDS; i++)
		word[i] = i + 1;
	source_file = memfd_create("source", MFD_CLOEXEC);
	if (write(source_file, word, sizeof(word)) != sizeof(word))
		fail("memfd: %s", strerror(errno));
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	refuse_window();
}

static void oracle_on(struct worker *w)
{
	int err = watcher_on(&oracle, 0, upto(w, 2) ? SHUNT_MMU_DIRECT : 0);

	if (err)
		fail("the oracle cannot be registered: %s", strerror(-err));
}

/* The oracle leaves and comes back; everybody leaves, at times. */
static void come_and_go(struct worker *w)
{
	quiet = !upto(w, 3);
	epoch++;
	watcher_off(&oracle);
	if (quiet)
		usleep(upto(w, 20000));
	oracle_on(w);
	epoch++;
	quiet = false;
}

/* Whether each worker gets on. */
static void watch_over(unsigned tick)
{
	static unsigned long before[WORKERS];
	static unsigned since[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		if (workers[i].done != before[i])
			since[i] = tick;
		before[i] = workers[i].done;
		if (tick - since[i] > 60000)
			fail("worker %u does not get on: %s", i, workers[i].doing);
	}
}

static int run(unsigned seconds)
{
	static const enum shunt_mmu_source needed[] = {
		SHUNT_MMU_SRC_MUNMAP, SHUNT_MMU_SRC_MMAP, SHUNT_MMU_SRC_MREMAP, SHUNT_MMU_SRC_MADVISE,
		SHUNT_MMU_SRC_MPROTECT, SHUNT_MMU_SRC_SYSCALL, SHUNT_MMU_SRC_LIBC, SHUNT_MMU_SRC_LOADER,
	};
	struct worker me = {.seed = seed * 1000003};
	pthread_t t[WORKERS];
	time_t until = time(NULL) + seconds;
	unsigned tick = 0;

	prepare();
	if (shunt_mmu_coverage(&coverage))
		fail("coverage");
	for (unsigned i = 0; i < sizeof(needed) / sizeof(*needed); i++)
		if (coverage.source[needed[i]].when != SHUNT_MMU_SEEN_BEFORE)
			fail("%s cannot be seen: %s", shunt_mmu_source_name(needed[i]), coverage.source[needed[i]].why);
	oracle_on(&me);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.seed = seed * WORKERS + i, .number = i};
		pthread_create(&t[i], NULL, work, &workers[i]);
	}
	while (time(NULL) < until) {
		unsigned ms = 1 + upto(&me, 100);

		usleep(ms * 1000);
		watch_over(tick += ms);
		come_and_go(&me);
	}
	stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(t[i], NULL);
	return 0; /* the oracle stays, exit() must release it */
}

/* ---- The process that judges. ---- */

static unsigned long done_so_far(void)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < OPS; i++)
		sum += shared->done[i];
	return sum;
}

/* The status; what stands still for a minute is killed. */
static int wait_or_kill(pid_t pid)
{
	unsigned long before = 0, now;
	unsigned still = 0;
	int status = 0;

	while (!waitpid(pid, &status, WNOHANG)) {
		usleep(100000);
		now = done_so_far();
		still = now == before ? still + 1 : 0;
		before = now;
		if (still == 600 && !atomic_flag_test_and_set(&verdict->said))
			snprintf(verdict->text, sizeof(verdict->text), "it stands still");
		if (still >= 600)
			kill(pid, SIGKILL);
	}
	return status;
}

static void report(void)
{
	unsigned long sum = 0, stale = 0;

	for (unsigned i = 0; i < OPS; i++) {
		diag("%-22s %8lu, stale data after %lu", ops[i].name, (unsigned long)shared->done[i],
			(unsigned long)shared->stale[i]);
		sum += shared->done[i];
		stale += shared->stale[i];
		if (ops[i].goes_stale && shared->done[i] > 200)
			ok(shared->stale[i], "%s leaves stale data behind: the judge sees it", ops[i].name);
	}
	diag("%lu operations, %lu times stale data (%lu not told, and not to be), about %lu events, of these %lu late, "
	     "%lu handed over; %lu notifiers, of these %lu unregistered themselves", sum, stale, verdict->unseen,
	     verdict->events, verdict->late, verdict->handed, (unsigned long)verdict->registered,
	     verdict->self_quits);
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
	struct uring u;
	int err = uring_open(&u, 1), status = 0;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : (unsigned long)time(NULL) ^ (unsigned long)getpid() << 20;
	if (err) {
		skip("no io_uring with fixed buffers for us here: %s", strerror(-err));
		return done();
	}
	uring_close(&u);
	if (getenv("FUZZ_NEEDS") && !dlsym(RTLD_DEFAULT, getenv("FUZZ_NEEDS"))) {
		skip("the allocator with %s() is not installed", getenv("FUZZ_NEEDS"));
		return done();
	}
	diag("seed %lu, %u s", seed, seconds);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	verdict = &shared->v;
	pid = fork();
	if (!pid)
		exit(run(seconds));
	status = wait_or_kill(pid);
	report();
	ok(!verdict->text[0], "no translation went stale unheard, starts and ends pair%s%s", verdict->text[0] ? ": " : "",
		verdict->text);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "the process came to its end (%x)", (unsigned)status);
	ok(verdict->registered == verdict->released, "each notifier had one release, at exit too (%lu, %lu)",
		(unsigned long)verdict->registered, (unsigned long)verdict->released);
	return done();
}
