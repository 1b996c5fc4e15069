/* SPDX-License-Identifier: MIT */
/* decode.c - arguments of system calls, and the ranges that they make invalid. Nothing is really called. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "decode_test.h"
#include "refuse.h"

#define B   0x10000000000l /* nothing is mapped around it */
#define P   4096l
#define M2  (2l << 20)
#define ALL 0, TOP

#define MAP_ANY (MAP_PRIVATE | MAP_ANONYMOUS)

static const struct row {
	const char *name;
	long nr, a[6];
	unsigned n;
	struct shunt_mmu_range r[3]; /* start, end, new_start, kind */
} rows[] = {
	{"munmap", SYS_munmap, {B, 2 * P}, 1, {{B, B + 2 * P, 0, UNMAP}}},
	{"munmap of a part of a page", SYS_munmap, {B, P + 1}, 1, {{B, B + 2 * P, 0, UNMAP}}},
	{"munmap of one byte", SYS_munmap, {B, 1}, 1, {{B, B + P, 0, UNMAP}}},
	{"munmap of nothing", SYS_munmap, {B, 0}, 0, {{0}}},
	{"munmap inside of a page", SYS_munmap, {B + 1, P}, 0, {{0}}},
	{"munmap beyond the end", SYS_munmap, {B, -P}, 0, {{0}}},
	{"munmap round the end", SYS_munmap, {-P, 2 * P}, 0, {{0}}},
	{"munmap of the longest", SYS_munmap, {B, -1}, 0, {{0}}},

	{"mmap anywhere", SYS_mmap, {B, P, 0, MAP_ANY, -1, 0}, 0, {{0}}},
	{"mmap fixed", SYS_mmap, {B, P + 5, 0, MAP_ANY | MAP_FIXED, -1, 0}, 1,
		{{B, B + 2 * P, 0, UNMAP}}},
	{"mmap fixed where nothing is", SYS_mmap,
		{B, P, 0, MAP_ANY | MAP_FIXED_NOREPLACE, -1, 0}, 0, {{0}}},
	{"mmap fixed both ways", SYS_mmap,
		{B, P, 0, MAP_ANY | MAP_FIXED | MAP_FIXED_NOREPLACE, -1, 0}, 0, {{0}}},
	{"mmap fixed of nothing", SYS_mmap, {B, 0, 0, MAP_ANY | MAP_FIXED, -1, 0}, 0, {{0}}},
	{"mmap fixed inside of a page", SYS_mmap, {B + 8, P, 0, MAP_ANY | MAP_FIXED, -1, 0}, 0, {{0}}},
	{"mmap fixed of the longest", SYS_mmap, {B, -1, 0, MAP_ANY | MAP_FIXED, -1, 0}, 0, {{0}}},
	{"mmap fixed of huge pages", SYS_mmap,
		{B, P, 0, MAP_ANY | MAP_FIXED | MAP_HUGETLB | 21 << 26, -1, 0}, 1,
		{{B, B + M2, 0, UNMAP}}},
	{"mmap fixed of gigantic pages", SYS_mmap,
		{B, M2 + P, 0, MAP_ANY | MAP_FIXED | MAP_HUGETLB | 30 << 26, -1, 0}, 1,
		{{B, B + (1l << 30), 0, UNMAP}}},
	{"remap_file_pages rounds down", SYS_remap_file_pages, {B + 7, 2 * P + 9, 0, 3, 0}, 1,
		{{B, B + 2 * P, 0, UNMAP}}},
	{"remap_file_pages with rights", SYS_remap_file_pages, {B, P, 1, 0, 0}, 0, {{0}}},

	{"mremap that shrinks", SYS_mremap, {B, 5 * P, 2 * P - 1, 0}, 1,
		{{B + 2 * P, B + 5 * P, 0, UNMAP}}},
	{"mremap that shrinks and may move", SYS_mremap, {B, 5 * P, 2 * P, MREMAP_MAYMOVE}, 1,
		{{B + 2 * P, B + 5 * P, 0, UNMAP}}},
	{"mremap that grows in place", SYS_mremap, {B, P, 2 * P, 0}, 0, {{0}}},
	{"mremap that grows and may move", SYS_mremap, {B, P, 3 * P, MREMAP_MAYMOVE}, 1,
		{{B, B + P, 0, REMAP}}},
	{"mremap to the same size", SYS_mremap, {B, P, P, MREMAP_MAYMOVE}, 0, {{0}}},
	{"mremap to the same pages", SYS_mremap, {B, P - 5, P, MREMAP_MAYMOVE}, 0, {{0}}},
	{"mremap fixed", SYS_mremap, {B, 2 * P, 2 * P, FIXED, B + 8 * P}, 2,
		{{B, B + 2 * P, B + 8 * P, REMAP}, {B + 8 * P, B + 10 * P, 0, UNMAP}}},
	{"mremap fixed that grows", SYS_mremap, {B, 2 * P, 3 * P, FIXED, B + 8 * P}, 2,
		{{B, B + 2 * P, B + 8 * P, REMAP}, {B + 8 * P, B + 11 * P, 0, UNMAP}}},
	{"mremap fixed that shrinks", SYS_mremap, {B, 3 * P, P, FIXED, B + 8 * P}, 3,
		{{B, B + P, B + 8 * P, REMAP}, {B + P, B + 3 * P, 0, UNMAP},
			{B + 8 * P, B + 9 * P, 0, UNMAP}}},
	{"mremap fixed onto itself", SYS_mremap, {B, 3 * P, 3 * P, FIXED, B + 2 * P}, 0, {{0}}},
	{"mremap fixed inside of a page", SYS_mremap, {B, P, P, FIXED, B + 2 * P + 1}, 0, {{0}}},
	{"mremap fixed that may not move", SYS_mremap, {B, P, P, MREMAP_FIXED, B + 2 * P}, 0, {{0}}},
	{"mremap that maps twice", SYS_mremap, {B, 0, P, MREMAP_MAYMOVE}, 0, {{0}}},
	{"mremap that maps twice, fixed", SYS_mremap, {B, 0, P, FIXED, B + 8 * P}, 1,
		{{B + 8 * P, B + 9 * P, 0, UNMAP}}},
	{"mremap that leaves it mapped", SYS_mremap,
		{B, P, P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0}, 1, {{B, B + P, 0, REMAP}}},
	{"mremap that leaves it mapped, fixed", SYS_mremap,
		{B, P, P, FIXED | MREMAP_DONTUNMAP, B + 8 * P}, 2,
		{{B, B + P, B + 8 * P, REMAP}, {B + 8 * P, B + 9 * P, 0, UNMAP}}},
	{"mremap that leaves it mapped, other size", SYS_mremap,
		{B, 2 * P, P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0}, 0, {{0}}},
	{"mremap to nothing", SYS_mremap, {B, P, 0, MREMAP_MAYMOVE}, 0, {{0}}},
	{"mremap inside of a page", SYS_mremap, {B + 1, P, 2 * P, MREMAP_MAYMOVE}, 0, {{0}}},
	{"mremap with unknown flags", SYS_mremap, {B, P, 2 * P, MREMAP_MAYMOVE | 8}, 0, {{0}}},

	{"mprotect", SYS_mprotect, {B, P + 1, PROT_READ}, 1, {{B, B + 2 * P, 0, PROTECT}}},
	{"pkey_mprotect", SYS_pkey_mprotect, {B, P, PROT_READ, -1}, 1, {{B, B + P, 0, PROTECT}}},
	{"mprotect of nothing", SYS_mprotect, {B, 0, PROT_READ}, 0, {{0}}},
	{"mprotect inside of a page", SYS_mprotect, {B + 1, P, PROT_READ}, 0, {{0}}},
	{"mprotect round the end", SYS_mprotect, {B, -P, PROT_READ}, 0, {{0}}},
	{"mprotect of all that is above", SYS_mprotect, {B, TOP, PROT_READ}, 1,
		{{B, TOP, 0, PROTECT}}},
	{"mprotect that grows up", SYS_mprotect, {B, P, PROT_GROWSUP}, 0, {{0}}},

	{"madvise DONTNEED", SYS_madvise, {B, P, MADV_DONTNEED}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise DONTNEED_LOCKED", SYS_madvise, {B, 1, 24}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise FREE", SYS_madvise, {B, P, MADV_FREE}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise REMOVE", SYS_madvise, {B, P, MADV_REMOVE}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise GUARD_INSTALL", SYS_madvise, {B, P, 102}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise HWPOISON", SYS_madvise, {B, P, MADV_HWPOISON}, 1, {{B, B + P, 0, DISCARD}}},
	{"madvise inside of a page", SYS_madvise, {B + 1, P, MADV_DONTNEED}, 0, {{0}}},
	{"madvise of nothing", SYS_madvise, {B, 0, MADV_DONTNEED}, 0, {{0}}},
	{"madvise round the end", SYS_madvise, {B, -P, MADV_DONTNEED}, 0, {{0}}},

	{"brk that asks", SYS_brk, {0}, 0, {{0}}},
	{"brk that grows", SYS_brk, {-1}, 0, {{0}}},

	{"shmat of none", SYS_shmat, {-1, B, SHM_REMAP}, 0, {{0}}},
	{"shmdt of none", SYS_shmdt, {B}, 0, {{0}}},

	{"fork", SYS_fork, {0}, 1, {{ALL, 0, SHUNT_MMU_FORK}}},
	{"clone of a process", SYS_clone, {CLONE_PARENT_SETTID | 17}, 1, {{ALL, 0, SHUNT_MMU_FORK}}},
	{"clone that waits, with a copy", SYS_clone, {CLONE_VFORK | 17}, 1, {{ALL, 0, SHUNT_MMU_FORK}}},
	{"clone of a thread", SYS_clone, {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}, 0, {{0}}},
	{"vfork", SYS_vfork, {0}, 0, {{0}}},
	{"execve", SYS_execve, {0}, 1, {{ALL, 0, SHUNT_MMU_EXEC}}},
	{"execveat", SYS_execveat, {0}, 1, {{ALL, 0, SHUNT_MMU_EXEC}}},
	{"exit_group", SYS_exit_group, {0}, 0, {{0}}},

	{"ftruncate of no file", SYS_ftruncate, {-1, 0}, 0, {{0}}},
	{"ftruncate below nothing", SYS_ftruncate, {0, -1}, 0, {{0}}},
	{"fallocate of no file", SYS_fallocate, {-1, 3, 0, P}, 0, {{0}}},
	{"getpid", SYS_getpid, {0}, 0, {{0}}},
};

static void table(void)
{
	const struct row *w;
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		w = &rows[i];
		expect(w->name, w->nr, w->a, w->n, w->r);
	}
}

/* Every other advice that there is, and is not. */
static void other_advice(void)
{
	static const int discards[] = {4, 8, 9, 24, 100, 102};
	unsigned wrong = 0, i, j;
	bool should;

	for (i = 0; i < 256; i++) {
		for (should = false, j = 0; j < sizeof(discards) / sizeof(discards[0]); j++)
			should |= discards[j] == (int)i;
		if (decode(SYS_madvise, (long[6]){B, P, i}) != should && ++wrong)
			diag("advice %u", i);
	}
	ok(!wrong, "no other advice discards");
}

/* --- what pointers lead to ----------------------------------------------------------------------- */

/* Its first page is there, the second is not. */
static char *edge(void)
{
	char *p = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE, MAP_ANY, -1, 0);

	munmap(p + P, P);
	return p + P;
}

static void vectors(void)
{
	struct iovec *v, few[3] = {{(void *)B, P}, {(void *)(B + P), P}, {(void *)(B + 9 * P), 1}};
	char *end = edge();
	unsigned i;

	expect("process_madvise", SYS_process_madvise, (long[6]){-10001, (long)few, 3, MADV_DONTNEED}, 2,
		(struct shunt_mmu_range[]){{B, B + 2 * P, 0, DISCARD},
			{B + 9 * P, B + 10 * P, 0, DISCARD}});
	expect("process_madvise that only says", SYS_process_madvise,
		(long[6]){-10001, (long)few, 3, MADV_COLD}, 0, NULL);
	expect("process_madvise with flags", SYS_process_madvise,
		(long[6]){-10001, (long)few, 3, MADV_DONTNEED, 1}, 0, NULL);
	expect("process_madvise of too many", SYS_process_madvise,
		(long[6]){-10001, (long)few, 1025, MADV_DONTNEED}, 0, NULL);
	expect("process_madvise from nowhere", SYS_process_madvise,
		(long[6]){-10001, 8, 3, MADV_DONTNEED}, 0, NULL);
	memcpy(end - sizeof(few), few, sizeof(few));
	expect("process_madvise from the end of what is mapped", SYS_process_madvise,
		(long[6]){-10001, (long)(end - sizeof(few)), 3, MADV_DONTNEED}, 2,
		(struct shunt_mmu_range[]){{B, B + 2 * P, 0, DISCARD},
			{B + 9 * P, B + 10 * P, 0, DISCARD}});
	expect("process_madvise that runs out of what is mapped", SYS_process_madvise,
		(long[6]){-10001, (long)(end - sizeof(few)), 4, MADV_DONTNEED}, 0, NULL);
	v = calloc(1024, sizeof(*v));
	for (i = 0; i < 1024; i++)
		v[i] = (struct iovec){(void *)(B + 2 * P * i), P};
	expect("process_madvise of as many as there may be", SYS_process_madvise,
		(long[6]){-10001, (long)v, 1024, MADV_DONTNEED}, 1,
		(struct shunt_mmu_range[]){{B, B + 2 * P * 1023 + P, 0, DISCARD}});
	expect("process_madvise of as many as there is room for", SYS_process_madvise,
		(long[6]){-10001, (long)v, 2, MADV_DONTNEED}, 2,
		(struct shunt_mmu_range[]){{B, B + P, 0, DISCARD},
			{B + 2 * P, B + 3 * P, 0, DISCARD}});
	ok(decode(SYS_process_madvise, (long[6]){-10001, (long)v, 8, MADV_DONTNEED}) == 8,
		"eight ranges are told as eight");
	ok(decode(SYS_process_madvise, (long[6]){-10001, (long)v, 9, MADV_DONTNEED}) == 1,
		"nine as one");
	free(v);
}

static void structs(void)
{
	uint64_t args[11] = {0};
	char *end = edge();
	struct shunt_mmu_range all = {ALL, 0, SHUNT_MMU_FORK};

	expect("clone3 of a process", SYS_clone3, (long[6]){(long)args, sizeof(args)}, 1, &all);
	expect("clone3 from nowhere", SYS_clone3, (long[6]){8, sizeof(args)}, 0, NULL);
	expect("clone3 of no struct", SYS_clone3, (long[6]){(long)args, 4}, 0, NULL);
	args[0] = CLONE_VM;
	expect("clone3 of a thread", SYS_clone3, (long[6]){(long)args, sizeof(args)}, 0, NULL);
	memset(end - 8, 0, 8);
	mprotect(end - P, P, PROT_WRITE);
	expect("clone3 from memory that may only be written", SYS_clone3,
		(long[6]){(long)end - 8, sizeof(args)}, 1, &all);
}

static void bad_paths(void)
{
	static const long paths[] = {0, 8, -1, (long)(TOP - 1)};
	struct open_how how = {.flags = O_TRUNC | O_WRONLY};
	unsigned found = 0, i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		found += decode(SYS_open, (long[6]){paths[i], O_TRUNC | O_WRONLY});
		found += decode(SYS_creat, (long[6]){paths[i], 0600});
		found += decode(SYS_truncate, (long[6]){paths[i], 0});
		found += decode(SYS_openat, (long[6]){AT_FDCWD, paths[i], O_TRUNC | O_WRONLY});
		found += decode(SYS_openat2, (long[6]){AT_FDCWD, paths[i], (long)&how, sizeof(how)});
		found += decode(SYS_openat2, (long[6]){AT_FDCWD, (long)"/", paths[i], sizeof(how)});
		found += decode(SYS_open_by_handle_at, (long[6]){AT_FDCWD, paths[i], O_TRUNC});
		found += decode(SYS_process_madvise, (long[6]){-10001, paths[i], 5, MADV_DONTNEED});
	}
	ok(!found, "pointers that lead nowhere are no ranges, and no fault");
}

/* --- the heap ---------------------------------------------------------------------------------- */

static void heap(void)
{
	uintptr_t now = (uintptr_t)sbrk(0), odd = (now & ~(P - 1ul)) + 4 * P + 100;

	brk((void *)odd);
	ok((uintptr_t)sbrk(0) == odd, "a heap may end inside of a page");
	expect("brk that shrinks", SYS_brk, (long[6]){(long)odd - 2 * P}, 1,
		(struct shunt_mmu_range[]){{(odd & ~(P - 1ul)) - P, (odd & ~(P - 1ul)) + P, 0, UNMAP}});
	expect("brk that shrinks in a page", SYS_brk, (long[6]){(long)odd - 50}, 0, NULL);
	expect("brk to where it is", SYS_brk, (long[6]){(long)odd}, 0, NULL);
	brk((void *)now);
}

/* --- what may come, and where from --------------------------------------------------------------- */

static void numbers(void)
{
	unsigned wrong = 0;
	size_t i;
	long nr;

	for (nr = -2; nr < 600; nr++)
		if (shunt_mmu_interesting(nr) != (shunt_mmu_source_of(nr) != SHUNT_MMU_SOURCES))
			wrong++;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].n && !shunt_mmu_interesting(rows[i].nr) && ++wrong)
			diag("%s is not interesting", rows[i].name);
	ok(!wrong, "what has ranges is interesting, and has a source");
	ok(shunt_mmu_interesting(SYS_exit_group) && !shunt_mmu_interesting(SYS_exit) &&
		!shunt_mmu_interesting(SYS_vfork) && !shunt_mmu_interesting(SYS_getpid),
		"the end of the process is interesting, that of a thread and vfork are not");
	ok(shunt_mmu_source_of(SYS_creat) == SHUNT_MMU_SRC_TRUNCATE &&
		shunt_mmu_source_of(SYS_remap_file_pages) == SHUNT_MMU_SRC_MMAP &&
		shunt_mmu_source_of(SYS_shmdt) == SHUNT_MMU_SRC_SHM &&
		shunt_mmu_source_of(SYS_pkey_mprotect) == SHUNT_MMU_SRC_MPROTECT,
		"calls of one kind have one source");
}

/* Any arguments: whole pages, in order, of a known kind, and nobody's memory is touched. */
static void garbage(unsigned rounds)
{
	static const long values[] = {0, 1, -1, P, -P, B, B + 1, M2, -10001, AT_FDCWD, 0x7fffffff,
		INT64_MIN, INT64_MAX, 0x7ffffffff000, 3, 4, O_TRUNC, MAP_FIXED, SHM_REMAP, 0x7ffff7000000};
	struct shunt_mmu_range r[SHUNT_MMU_RANGES];
	struct shunt_mmu_call c;
	unsigned i, j, n, wrong = 0;

	srandom(5);
	for (i = 0; i < rounds; i++) {
		c.nr = random() % 460;
		if (!shunt_mmu_interesting(c.nr))
			continue;
		for (j = 0; j < 6; j++)
			c.a[j] = random() % 3 ? values[(size_t)random() % (sizeof(values) / sizeof(long))]
					      : (long)((unsigned long)random() << (random() % 40));
		n = shunt_mmu_decode(&c, r);
		for (j = 0; j < n && n <= SHUNT_MMU_RANGES; j++)
			wrong += (r[j].start | r[j].end) % P || r[j].start >= r[j].end ||
				 r[j].end > TOP || r[j].kind >= SHUNT_MMU_KINDS;
		wrong += n > SHUNT_MMU_RANGES;
	}
	ok(!wrong, "whatever the arguments, ranges are whole pages below the end");
}

int main(void)
{
	table();
	other_advice();
	vectors();
	structs();
	bad_paths();
	heap();
	numbers();
	garbage(200000);
	/* Some sandboxes do not allow it. */
	if (refuse(SYS_process_vm_readv, EPERM)) {
		vectors();
		structs();
		bad_paths();
		garbage(200000);
	} else {
		skip("no seccomp here");
	}
	return done();
}
