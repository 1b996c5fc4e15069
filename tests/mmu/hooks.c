/* SPDX-License-Identifier: MIT */
/*
 * hooks.c ucx|openmpi before|after - the memory hooks of UCX and of Open MPI, which write over the first 13 bytes of
 * libc's functions, are put on before or after ours: each works, and where we cannot, we say so.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "tap.h"

#define PAGE 4096ul
/* <ucm/api/ucm.h>: what is unmapped, and all calls by name */
#define UCM_EVENTS (1 << 17 | 0xf)

static volatile unsigned starts, theirs;

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
	starts++;
}

static const struct shunt_mmu_notifier_ops ops = {.invalidate_range_start = start};

static void their_event(int type, void *event, void *arg)
{
	(void)type;
	(void)event;
	(void)arg;
	theirs++;
}

/* -ENOENT: it is not installed. */
static int put_on_ucx(void)
{
	void *h = dlopen("libucs.so.0", RTLD_NOW | RTLD_GLOBAL);
	int (*set)(int, int, void (*)(int, void *, void *), void *);

	h = h ? dlopen("libucm.so.0", RTLD_NOW | RTLD_GLOBAL) : NULL;
	if (!h)
		return -ENOENT;
	*(void **)&set = dlsym(h, "ucm_set_event_handler");
	return set ? set(UCM_EVENTS, 0, their_event, NULL) : -ENOENT;
}

static void their_release(void *start, size_t length, void *arg, bool from_alloc)
{
	(void)start;
	(void)length;
	(void)arg;
	(void)from_alloc;
	theirs++;
}

/* What MPI_Init() does once a transport asks for it: its headers do not offer it. */
static int put_on_openmpi(void)
{
	void *h = dlopen("libopen-pal.so.40", RTLD_NOW | RTLD_GLOBAL);
	int (*init)(int *, char ***), (*open_framework)(void *, int);
	int (*enter)(void (*)(void *, size_t, void *, bool), void *);
	void (*start_hooks)(void);
	int r;

	if (!h)
		return -ENOENT;
	*(void **)&init = dlsym(h, "opal_init");
	*(void **)&open_framework = dlsym(h, "mca_base_framework_open");
	*(void **)&start_hooks = dlsym(h, "opal_memory_base_malloc_init_hook");
	*(void **)&enter = dlsym(h, "opal_mem_hooks_register_release");
	if (!init || !open_framework || !start_hooks || !enter)
		return -ENOENT;
	r = init(NULL, NULL);
	r = r ? r : open_framework(dlsym(h, "opal_patcher_base_framework"), 0);
	r = r ? r : open_framework(dlsym(h, "opal_memory_base_framework"), 0);
	if (r)
		return r;
	start_hooks();
	return enter(their_release, NULL);
}

/* Whether the calls did what they should; who was told. */
static bool change(unsigned *ours, unsigned *others)
{
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned s = starts, t = theirs;
	bool good;

	*p = 1;
	good = !madvise(p, PAGE, MADV_DONTNEED) && !*p && !munmap(p, PAGE) &&
	       !syscall(SYS_munmap, p + PAGE, PAGE) && munmap(p + 1, PAGE) && errno == EINVAL;
	*ours = starts - s;
	*others = theirs - t;
	return good;
}

static void before(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops}, partial = {.ops = &ops, .flags = SHUNT_MMU_PARTIAL};
	struct shunt_mmu_coverage c;
	unsigned a = 0, b = 0;
	bool good;

	ok(!shunt_mmu_coverage(&c) && c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_UNSEEN,
		"theirs first: %s", c.source[SHUNT_MMU_SRC_MUNMAP].why);
	ok(shunt_mmu_notifier_register(&n) == -ENOTSUP, "who wants everything is refused");
	good = !shunt_mmu_notifier_register(&partial) && change(&a, &b);
	ok(good && a && b, "both are told (%u, %u)", a, b);
	good = !shunt_mmu_notifier_unregister(&partial) && change(&a, &b);
	ok(good && !a && b, "then they alone (%u, %u)", a, b);
}

static void after(struct shunt_mmu_notifier *n)
{
	struct shunt_mmu_notifier partial = {.ops = &ops, .flags = SHUNT_MMU_PARTIAL};
	unsigned a = 0, b = 0;
	bool good;

	good = change(&a, &b);
	ok(good && a >= 3 && b, "theirs later: both are told (%u, %u)", a, b);
	good = !shunt_mmu_notifier_unregister(n) && change(&a, &b);
	ok(good && !a && b, "then they alone (%u, %u)", a, b);
	for (int i = 0; i < 20; i++)
		if (shunt_mmu_notifier_register(&partial) || shunt_mmu_notifier_unregister(&partial))
			abort();
	good = !shunt_mmu_notifier_register(&partial) && change(&a, &b);
	ok(good && a && b, "and both again (%u, %u)", a, b);
	shunt_mmu_notifier_unregister(&partial);
}

int main(int argc, char **argv)
{
	struct shunt_mmu_notifier n = {.ops = &ops};
	bool openmpi = argc > 1 && !strcmp(argv[1], "openmpi"), first = argc > 2 && !strcmp(argv[2], "before");
	int r;

	if (!first && shunt_mmu_notifier_register(&n))
		abort();
	r = openmpi ? put_on_openmpi() : put_on_ucx();
	if (r)
		skip("%s cannot be loaded here, or put its hooks on (%d)", openmpi ? "Open MPI" : "UCX", r);
	else if (first)
		before();
	else
		after(&n);
	return done();
}
