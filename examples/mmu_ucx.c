/* SPDX-License-Identifier: MIT */
/*
 * mmu_ucx.c - UCX's registration cache, with its own hooks and with a notifier.
 *
 *   mmu_ucx			all of them, each in a process of its own; they must differ
 *   mmu_ucx hooks		UCX alone: it patches the first bytes of libc's munmap() and others
 *   mmu_ucx notifier		mmu_adapters/ucx.c, with UCX's hooks off (UCX_MEM_MMAP_HOOK_MODE=none)
 *   mmu_ucx both		mmu_adapters/ucx.c on top of UCX's hooks, which libucs puts on when it is loaded
 *
 * ucs_rcache is the cache that UCX's transports keep their registrations in. Here a registration is a
 * page that a pipe holds (mmu_adapters/change.h), as a card's would. In each of a dozen ways the page at an
 * address becomes another one; then the cache is asked for that address again, and
 * what a card would send is compared with what the program has written there.
 *
 * How many of the answers were stale is printed for each way. Wrong is: any with the notifier; none by a system
 * call that UCX does not see without it, for then this proves nothing.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "mmu_adapters/change.h"
#include "mmu_adapters/ucx.h"

#define ROUNDS	      20
#define THREADS	      4
#define THREAD_ROUNDS 1000

struct region {
	ucs_rcache_region_t super; /* UCX's */
	struct held held;
};

static atomic_uint registered;
static ucs_rcache_t *cache;

/* ---- The cache. ---- */

static ucs_status_t reg(void *context, ucs_rcache_t *c, void *arg, ucs_rcache_region_t *super, uint16_t flags)
{
	struct region *r = (struct region *)super;

	(void)context;
	(void)c;
	(void)arg;
	(void)flags;
	registered++;
	return held_take(&r->held, super->super.start) ? UCS_ERR_IO_ERROR : UCS_OK;
}

static void dereg(void *context, ucs_rcache_t *c, ucs_rcache_region_t *super)
{
	(void)context;
	(void)c;
	registered--;
	held_drop(&((struct region *)super)->held);
}

static void dump(void *context, ucs_rcache_t *c, ucs_rcache_region_t *super, char *to, size_t size)
{
	(void)context;
	(void)c;
	snprintf(to, size, "pipe %d", ((struct region *)super)->held.pipe[0]);
}

static void open_cache(void)
{
	static const ucs_rcache_ops_t ops = {.mem_reg = reg, .mem_dereg = dereg, .dump_region = dump};
	ucs_rcache_params_t params = {
		.region_struct_size = sizeof(struct region),
		.alignment = UCS_RCACHE_MIN_ALIGNMENT,
		.max_alignment = PAGE,
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.max_regions = 100000,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};

	check(ucs_rcache_create(&params, "mmu_ucx", NULL, &cache) == UCS_OK, "ucs_rcache_create");
}

/* What a card would send of the page. */
static uint32_t send_page(char *p)
{
	ucs_rcache_region_t *r;
	uint32_t word;

	check(ucs_rcache_get(cache, p, PAGE, PROT_READ | PROT_WRITE, NULL, &r) == UCS_OK, "ucs_rcache_get");
	word = held_read(&((struct region *)r)->held);
	ucs_rcache_region_put(cache, r);
	return word;
}

/* ---- What is checked. ---- */

/* Between the adapter's start and the change, as another thread might: it registers what is about to go. */
static _Thread_local char *registers;

static void in_between(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (registers && e->start <= (uintptr_t)registers && (uintptr_t)registers < e->end)
		send_page(registers);
}

static const struct shunt_mmu_notifier_ops between_ops = {.invalidate_range_start = in_between};

static bool stale(const struct way *w, uint32_t value, bool between)
{
	char *p = change_page(w);
	bool r;

	*(volatile uint32_t *)p = value;
	check(send_page(p) == value, "a new page");
	registers = between ? p : NULL;
	w->make(p);
	registers = NULL;
	*(volatile uint32_t *)p = ~value;
	r = send_page(p) != ~value;
	change_done(p);
	return r;
}

static unsigned count(const struct way *w, bool between)
{
	unsigned n = 0;

	for (uint32_t i = 1; i <= ROUNDS; i++)
		n += stale(w, i, between);
	return n;
}

/*
 * Many at once, and memory that libc gives back with its locks held, on two threads while the others have the
 * cache's and allocate: who waits for each other here hangs.
 */
static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg, *wrong = calloc(1, sizeof *wrong);
	void *blocks[16] = {0};

	for (uint32_t i = 1; i <= THREAD_ROUNDS; i++) {
		void **b = &blocks[rand_r(&seed) % 16];
		unsigned w;

		free(*b);
		*b = malloc(1u << (8 + rand_r(&seed) % 11));
		/* A fork empties the cache, which would hide what else is wrong. */
		w = rand_r(&seed) % 64 ? rand_r(&seed) % (WAYS - 1) : WAYS - 1;
		*wrong += stale(&ways[w], i, false);
	}
	for (int i = 0; i < 16; i++)
		free(blocks[i]);
	return wrong;
}

static unsigned count_threads(void)
{
	pthread_t t[THREADS];
	unsigned n = 0;
	void *wrong;

	mallopt(M_TRIM_THRESHOLD, 4096);
	mallopt(M_TOP_PAD, 0);
	mallopt(M_MMAP_THRESHOLD, 65536);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)), "pthread_create");
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], &wrong);
		n += *(unsigned *)wrong;
		free(wrong);
	}
	return n;
}

enum { HOOKS, NOTIFIER, BOTH, MODES };
static const char *const modes[MODES] = {"hooks", "notifier", "both"};

static void say(int mode, const char *name, unsigned n, unsigned of)
{
	printf("%-8s %-22s %2u of %u stale\n", modes[mode], name, n, of);
}

/* What is wrong in other ways than by single changes. */
static unsigned more(int mode)
{
	struct shunt_mmu_notifier between = {.ops = &between_ops, .flags = SHUNT_MMU_PARTIAL};
	unsigned n, m;

	check(!shunt_mmu_notifier_register(&between), "register");
	n = count(&ways[0], true);
	say(mode, "registered in between", n, ROUNDS);
	shunt_mmu_notifier_unregister(&between);
	m = count_threads();
	say(mode, "on threads", m, THREADS * THREAD_ROUNDS);
	return n + m;
}

static int run(int mode)
{
	unsigned n, all = 0, raw = 0;
	int r = 0;

	if (mode != HOOKS) {
		r = mmu_ucx_start(mode == BOTH ? SHUNT_MMU_PARTIAL : 0);
		errno = -r;
		check(!r, "mmu_ucx_start");
	}
	open_cache();
	for (const struct way *w = ways; w->name; w++) {
		n = count(w, false);
		say(mode, w->name, n, ROUNDS);
		all += n;
		raw += w->raw ? n : 0;
	}
	if (mode != HOOKS)
		all += more(mode);
	ucs_rcache_destroy(cache);
	if (mode != HOOKS)
		mmu_ucx_stop();
	printf("%-8s all: %u stale, by raw system calls: %u; left registered: %u\n", modes[mode], all, raw,
		registered);
	if (registered)
		return 1;
	return mode == HOOKS ? !raw : !!all;
}

/* ---- Each in a process of its own: libucs puts its hooks on, or not, before main(). ---- */

static int start(int mode)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	check(child >= 0, "fork");
	if (!child) {
		setenv("UCX_MEM_MMAP_HOOK_MODE", mode == NOTIFIER ? "none" : "bistro", 1);
		setenv("UCX_MEM_EVENTS", "yes", 1);
		execl("/proc/self/exe", "mmu_ucx", modes[mode], "again", NULL);
		_exit(2);
	}
	check(waitpid(child, &status, 0) == child, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

int main(int argc, char **argv)
{
	int r, worst = 0;

	for (int mode = 0; mode < MODES; mode++) {
		if (argc > 1 && strcmp(argv[1], modes[mode]))
			continue;
		r = argc > 2 ? run(mode) : start(mode);
		worst = r > worst ? r : worst;
	}
	if (argc == 1)
		puts(worst ? "mmu_ucx: wrong" : "mmu_ucx: stale with UCX's hooks alone, never with the notifier");
	return worst;
}
