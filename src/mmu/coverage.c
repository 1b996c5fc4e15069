/* SPDX-License-Identifier: MIT */
/*
 * coverage.c - which changes are seen in this process, and when.
 *
 * A source is seen before if each function that libc exports for it holds a place of its
 * number: found by the function's symbol, so that a function that somebody has patched before us, or that
 * another libc builds in another way, is noticed. All that libc does itself (heap, thread stacks) goes
 * through the same functions; the loader has its own.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "mmu/coverage.h"
#include "mmu/watch.h"
#include "object/object.h"

#define BIT(source) (1u << SHUNT_MMU_SRC_##source)
/* In a static program sizes are not known. */
#define STATIC_SIZE 256

/* --- libc's functions --------------------------------------------------------------------- */

/* Not all are in every libc; in a static program only those that are linked in. */
#pragma weak munmap
#pragma weak mmap
#pragma weak mremap
#pragma weak mprotect
#pragma weak pkey_mprotect
#pragma weak madvise
#pragma weak posix_madvise
#pragma weak process_madvise
#pragma weak brk
#pragma weak shmat
#pragma weak shmdt
#pragma weak truncate
#pragma weak ftruncate
#pragma weak open
#pragma weak openat
#pragma weak creat
#pragma weak fallocate
#pragma weak _Fork
#pragma weak clone
#pragma weak execve
#pragma weak execveat
#pragma weak _exit
#pragma weak syscall
pid_t _Fork(void);
#pragma weak remap_file_pages

#define FUNC(name_, source_, nr_) \
	{.name = #name_, .fixed = (void (*)(void))(name_), .source = SHUNT_MMU_SRC_##source_, .nr = (nr_)}

static struct function {
	const char *name;
	void (*fixed)(void);
	enum shunt_mmu_source source;
	int32_t nr;
	uintptr_t at; /* 0: there is none */
	size_t size;
} functions[] = {
	FUNC(munmap, MUNMAP, SYS_munmap),
	FUNC(mmap, MMAP, SYS_mmap),
	FUNC(remap_file_pages, MMAP, SYS_remap_file_pages),
	FUNC(mremap, MREMAP, SYS_mremap),
	FUNC(mprotect, MPROTECT, SYS_mprotect),
	FUNC(pkey_mprotect, MPROTECT, SYS_pkey_mprotect),
	FUNC(madvise, MADVISE, SYS_madvise),
	FUNC(posix_madvise, MADVISE, SYS_madvise),
	FUNC(process_madvise, PROCESS_MADVISE, 440),
	FUNC(brk, BRK, SYS_brk),
	FUNC(shmat, SHM, SYS_shmat),
	FUNC(shmdt, SHM, SYS_shmdt),
	FUNC(truncate, TRUNCATE, SYS_truncate),
	FUNC(ftruncate, TRUNCATE, SYS_ftruncate),
	FUNC(open, TRUNCATE, SYS_openat),
	FUNC(openat, TRUNCATE, SYS_openat),
	FUNC(creat, TRUNCATE, SYS_creat),
	FUNC(fallocate, FALLOCATE, SYS_fallocate),
	FUNC(_Fork, FORK, SYS_clone),
	FUNC(clone, FORK, SYS_clone),
	FUNC(execve, EXEC, SYS_execve),
	FUNC(execveat, EXEC, SYS_execveat),
	FUNC(_exit, EXIT, SYS_exit_group),
	FUNC(syscall, SYSCALL, SHUNT_MMU_ANY),
};
#define FUNCTIONS (sizeof functions / sizeof *functions)

/* Without an interpreter there is no libc but what is in the program. */
static bool is_static(void)
{
	const Elf64_Phdr *p = (const Elf64_Phdr *)getauxval(AT_PHDR);
	size_t n = getauxval(AT_PHNUM);

	for (size_t i = 0; p && i < n; i++)
		if (p[i].p_type == PT_INTERP)
			return false;
	return true;
}

static void find_function(void *libc, struct function *f)
{
	const Elf64_Sym *sym;
	Dl_info info;
	void *p;

	if (!libc) {
		f->at = (uintptr_t)f->fixed;
		f->size = STATIC_SIZE;
		return;
	}
	p = dlsym(libc, f->name);
	if (!p || !dladdr1(p, &info, (void **)&sym, RTLD_DL_SYMENT) || !sym)
		return;
	f->at = (uintptr_t)p;
	f->size = sym->st_size;
}

/*
 * Without locks of ours: this asks the loader. Several threads find the same.
 */
void shunt_mmu_learn(struct shunt_mmu_libc *l)
{
	static bool done;
	static struct shunt_mmu_libc found;
	void *libc = NULL;

	if (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		found.is_static = is_static();
		if (!found.is_static)
			libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
		for (size_t i = 0; i < FUNCTIONS && (libc || found.is_static); i++)
			find_function(libc, &functions[i]);
		if (!found.is_static) {
			found.malloc = (uintptr_t)dlsym(RTLD_DEFAULT, "malloc");
			found.free = (uintptr_t)dlsym(RTLD_DEFAULT, "free");
		}
		if (libc)
			dlclose(libc);
		__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	}
	*l = found;
}

/* --- sources -------------------------------------------------------------------------------- */

/* How many places of its number are in a function. */
static unsigned places_of(const struct function *f)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++) {
		const struct shunt_mmu_place *p = &shunt_mmu_places[i];

		n += p->nr == f->nr && p->addr - f->at < f->size && shunt_mmu_place_works(p);
	}
	return n;
}

/* The first function of a source that cannot be seen, or NULL. */
static const struct function *blind(enum shunt_mmu_source s)
{
	for (size_t i = 0; i < FUNCTIONS; i++)
		if (functions[i].source == s && functions[i].at && !places_of(&functions[i]))
			return &functions[i];
	return NULL;
}

/* A static program has only those that it calls. */
static bool is_known(enum shunt_mmu_source s, bool is_static)
{
	if (is_static)
		return true;
	for (size_t i = 0; i < FUNCTIONS; i++)
		if (functions[i].source == s && functions[i].at)
			return true;
	return false;
}

/* The loader's own munmap, mmap and mprotect. */
static bool loader_seen(void)
{
	static const int32_t want[] = {SYS_munmap, SYS_mmap, SYS_mprotect};
	unsigned seen = 0;

	for (size_t k = 0; k < 3; k++)
		for (uint32_t i = 0; i < shunt_mmu_nplaces; i++) {
			const struct shunt_mmu_place *p = &shunt_mmu_places[i];

			if (p->nr == want[k] && p->loader && shunt_mmu_place_works(p)) {
				seen++;
				break;
			}
		}
	return seen == 3;
}

/* Sources of libc's own doing: each of their functions. */
static const uint8_t of_libc[] = {SHUNT_MMU_SRC_MUNMAP, SHUNT_MMU_SRC_MMAP, SHUNT_MMU_SRC_MREMAP,
	SHUNT_MMU_SRC_MPROTECT, SHUNT_MMU_SRC_MADVISE, SHUNT_MMU_SRC_BRK};

static const struct function *blind_in_libc(void)
{
	const struct function *f = NULL;

	for (size_t i = 0; i < sizeof of_libc && !f; i++)
		f = blind(of_libc[i]);
	return f;
}

uint32_t shunt_mmu_sites_missing(const struct shunt_mmu_libc *l, char *why, size_t size)
{
	const struct function *f;
	uint32_t missing = 0;

	for (int s = SHUNT_MMU_SRC_MUNMAP; s <= SHUNT_MMU_SRC_SYSCALL; s++) {
		f = s == SHUNT_MMU_SRC_LIBC ? blind_in_libc() : blind(s);
		if (f && !missing)
			shunt_why(why, size, 0, "%s() does not look as it should: somebody else has patched it, "
				"or it is another libc", f->name);
		missing |= (uint32_t)!!f << s;
	}
	if (!l->is_static && !loader_seen()) {
		if (!missing)
			shunt_why(why, size, 0, "the loader's calls do not look as they should");
		missing |= BIT(LOADER);
	}
	return missing;
}

/* --- raw calls -------------------------------------------------------------------------------- */

/*
 * Whether a number that is one of ours is put into a register shortly before: else it is another call, or the two
 * bytes are a part of something else.
 */
static bool has_number(const uint8_t *p, const uint8_t *text)
{
	const uint8_t *from = p - text > 32 ? p - 32 : text;

	for (; p - from >= 5; from++) {
		int32_t nr;

		if ((*from & 0xf8) != 0xb8 && !(from[0] == 0xc7 && from[1] == 0xc0 && p - from >= 6))
			continue;
		memcpy(&nr, from + ((*from & 0xf8) == 0xb8 ? 1 : 2), 4);
		if (shunt_mmu_interesting(nr))
			return true;
	}
	return false;
}

static bool is_raw(const uint8_t *p, const uint8_t *text)
{
	if (p > text && p[-1] == 0x90) /* the library's own (text_sys.h) */
		return false;
	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++)
		if (shunt_mmu_places[i].behind == (uintptr_t)p + 2 && shunt_mmu_place_works(&shunt_mmu_places[i]))
			return false;
	return has_number(p, text);
}

struct raw {
	unsigned n, objects;
	char first[40]; /* the name of an object that has some */
};

static void count_raw(const struct shunt_object *o, uintptr_t lo, uintptr_t hi, void *arg)
{
	const uint8_t *text = (const uint8_t *)lo, *end = (const uint8_t *)hi, *p = text;
	struct raw *r = arg;
	unsigned n = 0;

	while ((p = memmem(p, (size_t)(end - p), "\x0f\x05", 2))) {
		n += is_raw(p, text);
		p += 2;
	}
	if (n && !r->n && o->path)
		snprintf(r->first, sizeof r->first, "%.35s", strrchr(o->path, '/') ? strrchr(o->path, '/') + 1
			: o->path);
	r->objects += n != 0;
	r->n += n;
}

/* --- the answer -------------------------------------------------------------------------------- */

static void say(struct shunt_mmu_coverage *c, enum shunt_mmu_source s, bool before, bool watchable,
	const char *fmt, const char *what)
{
	bool late = watchable && shunt_mmu_watched();

	c->source[s].when = before ? SHUNT_MMU_SEEN_BEFORE : late ? SHUNT_MMU_SEEN_LATE : SHUNT_MMU_UNSEEN;
	if (!before) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(c->source[s].why, sizeof c->source[s].why, fmt, what);
#pragma GCC diagnostic pop
	}
}

/* Whether the kernel tells of it (docs/mmu-watch.md). */
static bool is_watchable(enum shunt_mmu_source s)
{
	const uint32_t told = BIT(MUNMAP) | BIT(MMAP) | BIT(MREMAP) | BIT(MADVISE) | BIT(PROCESS_MADVISE) |
		BIT(BRK) | BIT(SYSCALL);

	return told >> s & 1;
}

static void count_sites(struct shunt_mmu_coverage *c, enum shunt_mmu_source s)
{
	for (size_t i = 0; i < FUNCTIONS; i++)
		if (functions[i].source == s && functions[i].at)
			c->source[s].sites += places_of(&functions[i]);
}

static void say_libc(struct shunt_mmu_coverage *c)
{
	const struct function *f = blind_in_libc();

	say(c, SHUNT_MMU_SRC_LIBC, !f, true,
		"%s() in libc is not patched: shunt_mmu_watch() tells late, or load shunt first",
		f ? f->name : "");
	for (size_t i = 0; i < sizeof of_libc; i++)
		c->source[SHUNT_MMU_SRC_LIBC].sites += c->source[of_libc[i]].sites;
}

static void say_loader(struct shunt_mmu_coverage *c, bool is_static)
{
	say(c, SHUNT_MMU_SRC_LOADER, is_static || loader_seen(), true,
		"%s does not have its calls in the expected form: shunt_mmu_watch() tells late", "ld.so");
	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++)
		c->source[SHUNT_MMU_SRC_LOADER].sites += shunt_mmu_places[i].loader &&
							 shunt_mmu_place_works(&shunt_mmu_places[i]);
}

static void say_raw(struct shunt_mmu_coverage *c)
{
	struct raw r = {0};
	char what[72];

	shunt_mmu_each_text(count_raw, &r);
	if (r.n)
		snprintf(what, sizeof what, "%u in %s%s", r.n, r.first, r.objects > 1 ? " and others" : "");
	else
		snprintf(what, sizeof what, "none in what is loaded, but code made at run time may");
	say(c, SHUNT_MMU_SRC_RAW, false, true,
		"not through libc (%s): shunt_mmu_syscall(), or shunt_mmu_watch() late", what);
	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++)
		c->source[SHUNT_MMU_SRC_RAW].sites += shunt_mmu_places[i].raw &&
						      shunt_mmu_place_works(&shunt_mmu_places[i]);
}

static void fill(struct shunt_mmu_coverage *c, const struct shunt_mmu_libc *l)
{
	for (int s = SHUNT_MMU_SRC_MUNMAP; s <= SHUNT_MMU_SRC_SYSCALL; s++) {
		const struct function *f = blind(s);

		if (s == SHUNT_MMU_SRC_LIBC || s == SHUNT_MMU_SRC_LOADER)
			continue;
		count_sites(c, s);
		if (f)
			say(c, s, false, is_watchable(s),
				"%s() is not in the expected form, or patched by somebody else: load shunt first",
				f->name);
		else
			say(c, s, is_known(s, l->is_static), is_watchable(s),
				"libc's functions were not found%s", "");
	}
	say_libc(c);
	say_loader(c, l->is_static);
	say_raw(c);
	say(c, SHUNT_MMU_SRC_IO_URING, false, true,
		"the kernel makes it without a call%s: shunt_mmu_change_begin() around it, or shunt_mmu_watch()",
		"");
	say(c, SHUNT_MMU_SRC_OTHERS, false, true,
		"other processes do it%s: shunt_mmu_watch() tells late of what it watches", "");
}

int shunt_mmu_coverage(struct shunt_mmu_coverage *c)
{
	struct shunt_mmu_libc l;
	int r;

	memset(c, 0, sizeof *c);
	shunt_mmu_learn(&l);
	r = shunt_mmu_sites_look();
	if (r)
		return r;
	fill(c, &l);
	shunt_mmu_sites_done();
	return 0;
}

const char *shunt_mmu_source_name(enum shunt_mmu_source s)
{
	static const char *const names[] = {"munmap", "mmap", "mremap", "mprotect", "madvise",
		"process_madvise", "brk", "shm", "truncate", "fallocate", "fork", "exec", "exit", "libc",
		"loader", "syscall", "raw", "io_uring", "others"};

	_Static_assert(sizeof names / sizeof *names == SHUNT_MMU_SOURCES, "a name each");
	return (unsigned)s < SHUNT_MMU_SOURCES ? names[s] : NULL;
}

const char *shunt_mmu_when_name(enum shunt_mmu_when w)
{
	static const char *const names[] = {"unseen", "late", "before"};

	return (unsigned)w < sizeof names / sizeof *names ? names[w] : NULL;
}

const char *shunt_mmu_kind_name(enum shunt_mmu_kind k)
{
	static const char *const names[] = {"unmap", "remap", "protect", "discard", "fork", "exec", "exit"};

	_Static_assert(sizeof names / sizeof *names == SHUNT_MMU_KINDS, "a name each");
	return (unsigned)k < SHUNT_MMU_KINDS ? names[k] : NULL;
}
