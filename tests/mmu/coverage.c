/* SPDX-License-Identifier: MIT */
/*
 * coverage.c - what shunt_mmu_coverage() says of this process, of one whose munmap somebody else has
 * patched, and where calls come from: the program, or libc itself. Also linked as a static program.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/mmu.h>
#include <shunt/text.h>

#include "mmu/coverage.h"
#include "tap.h"

#define PAGE 4096ul

static struct shunt_mmu_coverage c;

#ifdef STATIC
#define IS_STATIC true
#else
#define IS_STATIC false
#endif

static unsigned how_many(enum shunt_mmu_when w)
{
	unsigned n = 0;

	for (int s = 0; s < SHUNT_MMU_SOURCES; s++)
		n += c.source[s].when == w;
	return n;
}

static void print(void)
{
	for (int s = 0; s < SHUNT_MMU_SOURCES; s++)
		diag("%-16s %-7s %3u  %s", shunt_mmu_source_name(s), shunt_mmu_when_name(c.source[s].when),
			c.source[s].sites, c.source[s].why);
}

static void test_here(void)
{
	bool said = true;

	ok(!shunt_mmu_coverage(&c), "asked while nobody is registered");
	print();
	ok(how_many(SHUNT_MMU_SEEN_BEFORE) == SHUNT_MMU_SRC_SYSCALL + 1u &&
		c.source[SHUNT_MMU_SRC_SYSCALL].when == SHUNT_MMU_SEEN_BEFORE,
		"all that libc and the loader do, and syscall(), is seen before");
	for (int s = 0; s < SHUNT_MMU_SOURCES; s++)
		said &= (c.source[s].when == SHUNT_MMU_SEEN_BEFORE) == !*c.source[s].why;
	ok(said, "for what is not, it says why");
	ok(c.source[SHUNT_MMU_SRC_MUNMAP].sites >= 1 && c.source[SHUNT_MMU_SRC_MMAP].sites >= 1 &&
		(IS_STATIC || c.source[SHUNT_MMU_SRC_LOADER].sites >= 4), "it counts the places");
	ok(shunt_mmu_source_name(SHUNT_MMU_SOURCES) == NULL && !shunt_mmu_when_name(3) &&
		!shunt_mmu_kind_name(SHUNT_MMU_KINDS) && !strcmp(shunt_mmu_kind_name(SHUNT_MMU_EXIT), "exit"),
		"names of what there is");
}

/* --- a call of one's own ------------------------------------------------------------------- */

static long own_munmap(void *p, size_t n)
{
	long r;

	/* Not in the form that is known: the number comes from elsewhere. */
	__asm__ volatile("mov $11, %%ecx; mov %%ecx, %%eax; mov $0, %%r8d; syscall"
			 : "=a"(r) : "D"(p), "S"(n) : "rcx", "r8", "r11", "memory");
	return r;
}

/* Volatile: compilers know that munmap() calls nobody back. */
static volatile unsigned starts;
static volatile uint32_t flags, last_kind;

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	starts++;
	flags = e->flags;
	last_kind = e->kind;
}

static const struct shunt_mmu_notifier_ops ops = {.invalidate_range_start = start};

static void *map(size_t n)
{
	return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void test_raw(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops};
	void *p = map(PAGE), *q = map(PAGE), *s = map(PAGE);

	ok(c.source[SHUNT_MMU_SRC_RAW].when == SHUNT_MMU_UNSEEN && strstr(c.source[SHUNT_MMU_SRC_RAW].why, " in "),
		"a call of our own is found, and said to be unseen (%s)", c.source[SHUNT_MMU_SRC_RAW].why);
	if (shunt_mmu_notifier_register(&n))
		abort();
	starts = 0;
	own_munmap(p, PAGE);
	ok(!starts, "and it is");
	syscall(SYS_munmap, q, PAGE);
	shunt_mmu_sync(); /* of a static program all is handed over, and may be late */
	ok(starts == 1, "by syscall() it is seen");
	starts = 0;
	munmap(s, PAGE);
	shunt_mmu_sync();
	ok(starts == 1 && last_kind == SHUNT_MMU_UNMAP, "by munmap(), too");
	shunt_mmu_notifier_unregister(&n);
}

#ifdef __SANITIZE_ADDRESS__
#define OWN_ALLOCATOR true
#elif defined __has_feature
#define OWN_ALLOCATOR __has_feature(address_sanitizer)
#else
#define OWN_ALLOCATOR false
#endif

/* --- where from ------------------------------------------------------------------------------ */

static void *end_at_once(void *arg)
{
	return arg;
}

/* With libc's allocator: others make their calls themselves. */
static void test_heap(void)
{
	void *p;

	if (OWN_ALLOCATOR) {
		skip("the allocator is the sanitizer's");
		return;
	}
	starts = 0;
	p = malloc(1 << 20);
	__asm__ volatile("" : "+r"(p)); /* else compilers leave the pair out */
	free(p);
	shunt_mmu_sync();
	ok(starts && (flags & SHUNT_MMU_HANDED), "what free() unmaps is handed over (%u)", starts);
	p = malloc(1 << 20);
	__asm__ volatile("" : "+r"(p));
	starts = 0;
	p = realloc(p, 4 << 20);
	__asm__ volatile("" : "+r"(p));
	shunt_mmu_sync();
	ok(starts && last_kind == SHUNT_MMU_REMAP && (flags & SHUNT_MMU_HANDED), "what realloc() moves, too");
	free(p);
}

static void test_inside(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops};
	void *p = map(PAGE);
	pthread_attr_t a;
	pthread_t t;

	mallopt(M_MMAP_THRESHOLD, 64 << 10);
	if (shunt_mmu_notifier_register(&n))
		abort();
	starts = 0;
	munmap(p, PAGE);
	shunt_mmu_sync();
	/* A static program cannot tell libc from itself. Who gets no processor for 10 ms is late. */
	ok(starts && !!(flags & SHUNT_MMU_HANDED) == IS_STATIC && (IS_STATIC || !(flags & SHUNT_MMU_LATE)),
		"the program's munmap: %s", IS_STATIC ? "handed over" : "at once");
	test_heap();
	starts = 0;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 64 << 20);
	pthread_create(&t, &a, end_at_once, NULL);
	pthread_join(t, NULL);
	shunt_mmu_sync();
	ok(starts && (flags & SHUNT_MMU_HANDED), "and a thread's stack (%u)", starts);
	if (!IS_STATIC) {
		p = map(2 * PAGE);
		starts = 0;
		mremap(p, 2 * PAGE, PAGE, 0);
		ok(starts == 1 && !(flags & SHUNT_MMU_HANDED),
			"the program's mremap, which has a frame: at once");
	}
	shunt_mmu_notifier_unregister(&n);
}

/* --- somebody else's hook ---------------------------------------------------------------------- */

static int other_munmap(void *p, size_t n)
{
	(void)p;
	(void)n;
	return 77;
}

/* As hooking libraries do it: the first bytes of the function lead elsewhere. */
static void hook(void *at, bool on, const uint8_t old[15])
{
	struct shunt_edit e = {.addr = at, .len = 13, .act = SHUNT_TEXT_RETRY};
	uint64_t to = (uint64_t)other_munmap;
	uint8_t new_[13] = {0x49, 0xbb};
	struct shunt_text_result res;

	memcpy(new_ + 2, &to, 8);
	memcpy(new_ + 10, "\x41\xff\xe3", 3);
	memcpy(on ? e.old : e.new_, old, 13);
	memcpy(on ? e.new_ : e.old, new_, 13);
	if (shunt_text_apply(&e, 1, NULL, &res)) {
		diag("%s", res.reason);
		abort();
	}
}

static void *in_libc(const char *name, void (*linked)(void))
{
	return IS_STATIC ? (void *)(uintptr_t)linked : dlsym(RTLD_NEXT, name);
}

/* The kernel tells of what is unmapped, not of what is cut off from a file. */
static void test_watched(void)
{
	void *unmaps = in_libc("munmap", (void (*)(void))munmap);
	void *cuts = in_libc("ftruncate", (void (*)(void))ftruncate);
	uint8_t unmaps_old[15], cuts_old[15];
	void *p = map(PAGE);

	if (shunt_mmu_watch(p, PAGE)) {
		skip("nothing can be watched here");
		return;
	}
	memcpy(unmaps_old, unmaps, 13);
	memcpy(cuts_old, cuts, 13);
	hook(unmaps, true, unmaps_old);
	hook(cuts, true, cuts_old);
	ok(!shunt_mmu_coverage(&c) && c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_SEEN_LATE &&
		c.source[SHUNT_MMU_SRC_TRUNCATE].when == SHUNT_MMU_UNSEEN,
		"with memory watched munmap() that leads elsewhere is late, ftruncate() is not seen");
	hook(cuts, false, cuts_old);
	hook(unmaps, false, unmaps_old);
	shunt_mmu_unwatch(p, PAGE);
}

static void test_hooked(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops}, partial = {.ops = &ops, .flags = SHUNT_MMU_PARTIAL};
	void *at = in_libc("munmap", (void (*)(void))munmap), *p = map(PAGE);
	uint8_t old[15];

	memcpy(old, at, 13);
	hook(at, true, old);
	ok(!shunt_mmu_coverage(&c) && c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_UNSEEN &&
		c.source[SHUNT_MMU_SRC_LIBC].when == SHUNT_MMU_UNSEEN &&
		strstr(c.source[SHUNT_MMU_SRC_MUNMAP].why, "munmap()"),
		"munmap() that leads elsewhere: %s", c.source[SHUNT_MMU_SRC_MUNMAP].why);
	ok(shunt_mmu_notifier_register(&n) == -ENOTSUP, "who registers for everything is refused");
	ok(shunt_mmu_notifier_register(&partial) == 0 && munmap(p, PAGE) == 77,
		"who takes what there is, is not, and the hook stays");
	starts = 0;
	syscall(SYS_munmap, p, PAGE);
	shunt_mmu_sync();
	ok(starts == 1, "what is seen is told");
	shunt_mmu_notifier_unregister(&partial);
	hook(at, false, old);
	ok(!memcmp(at, old, 13) && !shunt_mmu_coverage(&c) &&
		c.source[SHUNT_MMU_SRC_MUNMAP].when == SHUNT_MMU_SEEN_BEFORE, "without it all is seen again");
}

/* A hook that comes while we are there, and stays when we go. */
static void test_over_us(void)
{
	struct shunt_mmu_notifier n = {.ops = &ops};
	void *at = in_libc("munmap", (void (*)(void))munmap);
	uint8_t old[15], ours[15];

	memcpy(old, at, 13);
	if (shunt_mmu_notifier_register(&n))
		abort();
	memcpy(ours, at, 13);
	hook(at, true, ours);
	shunt_mmu_notifier_unregister(&n);
	ok(munmap(NULL, 0) == 77, "a hook over our jump is not taken away");
	hook(at, false, ours);
	ok(munmap(NULL, 0) == -1 && errno == EINVAL, "our jump that comes back with nobody registered does no harm");
	if (shunt_mmu_notifier_register(&n) || shunt_mmu_notifier_unregister(&n))
		abort();
	ok(!memcmp(at, old, 13), "and goes with the next one");
}

int main(void)
{
	test_here();
	test_raw();
	test_inside();
	test_hooked();
	test_watched();
	test_over_us();
	return done();
}
