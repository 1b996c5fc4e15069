/* SPDX-License-Identifier: MIT */
/*
 * sites.c - the places of libc and the loader: what is patched and what comes back, that each function
 * does and says the same armed and not, which changes are told, registers, unwinding, processes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#include <shunt/mmu.h>

#include "mmu/coverage.h"
#include "tap.h"

#define PAGE 4096ul

extern char **environ;

/* --- who listens ----------------------------------------------------------------------- */

static volatile unsigned starts[SHUNT_MMU_KINDS], ends[SHUNT_MMU_KINDS], failed;
static volatile uintptr_t watched; /* only what touches it is counted; 0: all */
static void (*volatile at_start)(const struct shunt_mmu_event *e);

static bool counts(const struct shunt_mmu_event *e)
{
	return !watched || (e->start <= watched && watched < e->end);
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (!counts(e))
		return;
	starts[e->kind]++;
	if (at_start)
		at_start(e);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (!counts(e))
		return;
	ends[e->kind]++;
	failed += !!(e->flags & SHUNT_MMU_FAILED);
}

static int release_to = -1;
static volatile unsigned releases;

static void release(struct shunt_mmu_notifier *n)
{
	(void)n;
	releases++;
	if (release_to >= 0 && write(release_to, "r", 1) != 1)
		abort();
}

static const struct shunt_mmu_notifier_ops ops = {
	.release = release, .invalidate_range_start = start, .invalidate_range_end = end,
};
static struct shunt_mmu_notifier notifier = {.ops = &ops};

static void forget(void)
{
	memset((void *)starts, 0, sizeof starts);
	memset((void *)ends, 0, sizeof ends);
	failed = 0;
	watched = 0;
	at_start = NULL;
}

static void *map(size_t n)
{
	return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* --- the bytes ---------------------------------------------------------------------------- */

struct text {
	const char *path;
	uintptr_t at, offset;
	size_t n;
};

static int find_text(struct dl_phdr_info *i, size_t size, void *arg)
{
	struct text *t = arg;

	(void)size;
	if (!strstr(i->dlpi_name, t->path))
		return 0;
	t->path = i->dlpi_name;
	for (int k = 0; k < i->dlpi_phnum; k++)
		if (i->dlpi_phdr[k].p_type == PT_LOAD && (i->dlpi_phdr[k].p_flags & PF_X)) {
			t->at = i->dlpi_addr + i->dlpi_phdr[k].p_vaddr;
			t->offset = i->dlpi_phdr[k].p_offset;
			t->n = i->dlpi_phdr[k].p_filesz;
		}
	return 1;
}

/* How many bytes of an object's code are not as in its file; -1: it cannot be read. */
static long changed(const char *name)
{
	struct text t = {.path = name};
	long n = 0;
	uint8_t *file;
	int fd;

	if (!dl_iterate_phdr(find_text, &t))
		return -1;
	fd = open(t.path, O_RDONLY | O_CLOEXEC);
	file = malloc(t.n);
	if (fd < 0 || pread(fd, file, t.n, (off_t)t.offset) != (ssize_t)t.n)
		return -1;
	close(fd);
	for (size_t i = 0; i < t.n; i++)
		n += ((const uint8_t *)t.at)[i] != file[i];
	free(file);
	return n;
}

static void test_bytes(void)
{
	unsigned armed = 0;

	ok(changed("libc.so.6") == 0 && changed("ld-linux") == 0, "before: the code is that of the files");
	ok(shunt_mmu_notifier_register(&notifier) == 0, "registered");
	for (uint32_t i = 0; i < shunt_mmu_nplaces; i++)
		armed += shunt_mmu_places[i].armed;
	ok(armed >= 25 && changed("libc.so.6") > 60 && changed("ld-linux") >= 12,
		"while somebody is registered %u places are patched: %ld bytes of libc, %ld of the loader",
		armed, changed("libc.so.6"), changed("ld-linux"));
	ok(shunt_mmu_notifier_unregister(&notifier) == 0 && changed("libc.so.6") == 0 &&
		changed("ld-linux") == 0, "after: every byte is that of the files again");
}

/* --- functions ------------------------------------------------------------------------------ */

struct answer {
	long r;
	int e;
};

static void *area;   /* 16 pages, made anew for each */
static void *file_at;
static int file = -1;
static char file_name[] = "/tmp/shunt-mmu-XXXXXX";
static int shm = -1;

static struct answer answer(long r)
{
	return (struct answer){r, errno};
}

#define CALL(x) (errno = 0, answer((long)(x)))

static struct answer c_munmap(void) { return CALL(munmap(area, 2 * PAGE)); }
static struct answer c_munmap_bad(void) { return CALL(munmap((char *)area + 1, PAGE)); }
static struct answer c_munmap_zero(void) { return CALL(munmap(area, 0)); }
static struct answer c_mmap_over(void)
{
	return CALL(mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area);
}
static struct answer c_mmap_noreplace(void)
{
	return CALL(mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
}
static struct answer c_mmap_bad(void) { return CALL(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0)); }
static struct answer c_mmap_odd(void) { return CALL(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 0, 3)); }
static struct answer c_mremap(void) { return CALL(mremap(area, 2 * PAGE, PAGE, 0) == area); }
static struct answer c_mremap_move(void)
{
	return CALL(mremap(area, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)area + 8 * PAGE) ==
		    (char *)area + 8 * PAGE);
}
static struct answer c_mremap_bad(void) { return CALL(mremap((char *)area + 5, PAGE, PAGE, 0)); }
static struct answer c_mremap_grow(void) { return CALL(mremap(area, PAGE, 64 * PAGE, 0)); }
static struct answer c_mprotect(void) { return CALL(mprotect(area, PAGE, PROT_READ)); }
static struct answer c_mprotect_bad(void) { return CALL(mprotect((char *)area + 1, PAGE, PROT_READ)); }
static struct answer c_pkey(void) { return CALL(pkey_mprotect(area, PAGE, PROT_READ, -1)); }
static struct answer c_madvise(void) { return CALL(madvise(area, PAGE, MADV_DONTNEED)); }
static struct answer c_madvise_bad(void) { return CALL(madvise(area, PAGE, 12345)); }
static struct answer c_posix_madvise(void) { return CALL(posix_madvise(area, PAGE, POSIX_MADV_WILLNEED)); }
static struct answer c_shmdt(void)
{
	void *p = shmat(shm, NULL, 0);

	watched = (uintptr_t)p;
	return CALL(shmdt(p));
}
static struct answer c_shmdt_bad(void) { return CALL(shmdt(area)); }
static struct answer c_shmat_over(void) { return CALL(shmat(shm, area, SHM_REMAP) == area); }
static struct answer c_ftruncate(void) { return CALL(ftruncate(file, 0)); }
static struct answer c_ftruncate_bad(void) { return CALL(ftruncate(-1, 0)); }
static struct answer c_truncate(void) { return CALL(truncate(file_name, 0)); }
static struct answer c_truncate_bad(void) { return CALL(truncate("/nowhere/at all", 0)); }
static struct answer c_open_trunc(void)
{
	int fd = open(file_name, O_RDWR | O_TRUNC);

	close(fd);
	return CALL(fd >= 0);
}
static struct answer c_open_bad(void) { return CALL(open("/nowhere/at all", O_RDWR | O_TRUNC)); }
static struct answer c_fopen(void)
{
	FILE *f = fopen(file_name, "w");

	fclose(f);
	return CALL(f != NULL);
}
static struct answer c_fopen_nocancel(void)
{
	FILE *f = fopen(file_name, "wc");

	fclose(f);
	return CALL(f != NULL);
}
static struct answer c_hole(void)
{
	return CALL(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
}
static struct answer c_hole_bad(void) { return CALL(fallocate(-1, FALLOC_FL_PUNCH_HOLE, 0, PAGE)); }
static struct answer c_raw(void) { return CALL(syscall(SYS_munmap, area, PAGE)); }
static struct answer c_raw_six(void)
{
	return CALL(syscall(SYS_mmap, area, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0L) == (long)area);
}
static struct answer c_raw_other(void) { return CALL(syscall(SYS_getppid) == getppid()); }
static struct answer c_raw_bad(void) { return CALL(syscall(SYS_munmap, (char *)area + 1, PAGE)); }
static struct answer c_brk(void)
{
	char *p = sbrk(4 * PAGE);
	struct answer a;

	watched = ((uintptr_t)p + 2 * PAGE) & -PAGE;
	a = CALL(sbrk(-4 * (long)PAGE) == p + 4 * PAGE);
	return a;
}
static struct answer c_execve_bad(void)
{
	char *argv[] = {(char *)"x", NULL};

	return CALL(execve("/nowhere/at all", argv, environ));
}

#define K(k) (1u << SHUNT_MMU_##k)
#define NONE 0u
#define FAILS 0x80000000u

static const struct {
	const char *name;
	struct answer (*call)(void);
	uint32_t kinds; /* that are told of what is watched */
} calls[] = {
	{"munmap", c_munmap, K(UNMAP)},
	{"munmap, not aligned", c_munmap_bad, FAILS},
	{"munmap of nothing", c_munmap_zero, FAILS},
	{"mmap over something", c_mmap_over, K(UNMAP)},
	{"mmap NOREPLACE over something", c_mmap_noreplace, FAILS},
	{"mmap of no file", c_mmap_bad, NONE},
	{"mmap with an odd offset", c_mmap_odd, NONE},
	{"mremap that shrinks", c_mremap, NONE},
	{"mremap that moves", c_mremap_move, K(REMAP)},
	{"mremap, not aligned", c_mremap_bad, FAILS},
	{"mremap that cannot grow", c_mremap_grow, FAILS},
	{"mprotect", c_mprotect, K(PROTECT)},
	{"mprotect, not aligned", c_mprotect_bad, FAILS},
	{"pkey_mprotect", c_pkey, K(PROTECT)},
	{"madvise", c_madvise, K(DISCARD)},
	{"madvise, unknown", c_madvise_bad, FAILS},
	{"posix_madvise", c_posix_madvise, NONE},
	{"shmdt", c_shmdt, K(UNMAP)},
	{"shmdt of something else", c_shmdt_bad, FAILS},
	{"shmat over something", c_shmat_over, K(UNMAP)},
	{"ftruncate", c_ftruncate, K(DISCARD)},
	{"ftruncate of no file", c_ftruncate_bad, FAILS},
	{"truncate", c_truncate, K(DISCARD)},
	{"truncate of no file", c_truncate_bad, FAILS},
	{"open O_TRUNC", c_open_trunc, K(DISCARD)},
	{"open of no file", c_open_bad, FAILS},
	{"fopen w", c_fopen, K(DISCARD)},
	{"fopen w without cancellation", c_fopen_nocancel, K(DISCARD)},
	{"fallocate of a hole", c_hole, K(DISCARD)},
	{"fallocate of no file", c_hole_bad, FAILS},
	{"syscall munmap", c_raw, K(UNMAP)},
	{"syscall mmap", c_raw_six, K(UNMAP)},
	{"syscall getppid", c_raw_other, NONE},
	{"syscall munmap, not aligned", c_raw_bad, FAILS},
	{"sbrk that shrinks", c_brk, K(UNMAP)},
	{"execve of no program", c_execve_bad, K(EXEC)},
};
#define CALLS (sizeof calls / sizeof *calls)

/* The range that is asked about: whatever a call did is made good. */
static void prepare(void)
{
	if (area)
		munmap(area, 16 * PAGE);
	area = mmap(area, 16 * PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | (area ? MAP_FIXED : 0), -1, 0);
	if (ftruncate(file, 4 * PAGE))
		abort();
	if (!file_at)
		file_at = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, file, 0);
}

static struct answer one(size_t i)
{
	struct answer a;

	prepare();
	forget();
	watched = (uintptr_t)area;
	/* What changes a file is about where that is mapped. */
	if (calls[i].kinds == K(DISCARD) && calls[i].call != c_madvise)
		watched = (uintptr_t)file_at;
	a = calls[i].call();
	shunt_mmu_sync(); /* what libc does itself may be told after it */
	return a;
}

static void test_calls(void)
{
	struct answer before[CALLS];

	file = mkstemp(file_name);
	shm = shmget(IPC_PRIVATE, PAGE, 0600);
	for (size_t i = 0; i < CALLS; i++)
		before[i] = one(i);
	if (shunt_mmu_notifier_register(&notifier))
		abort();
	for (size_t i = 0; i < CALLS; i++) {
		struct answer a = one(i);
		uint32_t seen = 0, seen_ends = 0;

		watched = 1;
		for (int k = 0; k < SHUNT_MMU_KINDS; k++) {
			seen |= (uint32_t)(starts[k] == 1) << k;
			seen_ends |= (uint32_t)(ends[k] == 1) << k;
		}
		ok(a.r == before[i].r && a.e == before[i].e && seen == seen_ends &&
				(calls[i].kinds == FAILS ? failed == !!seen : seen == calls[i].kinds),
			"%s: %ld, %s, as without; told %x", calls[i].name, a.r, strerrorname_np(a.e)
				? strerrorname_np(a.e) : "0", seen);
	}
	forget();
	shunt_mmu_notifier_unregister(&notifier);
	shmctl(shm, IPC_RMID, NULL);
	unlink(file_name);
}

/* --- registers ------------------------------------------------------------------------------ */

struct all {
	uint64_t r[15]; /* rax rbx rcx rdx rsi rdi rbp r8..r15 */
	_Alignas(16) uint64_t x[16][2];
};

/* Loads all of *a, calls a function that makes a system call and no more, stores all. */
void call_with(struct all *a, void *fn);
__asm__(".text\n.globl call_with\n.type call_with,@function\ncall_with:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"push %rdi; push %rsi\n"
	".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups 128+16*\\i(%rdi),%xmm\\i\n .endr\n"
	"mov 0(%rdi),%rax; mov 8(%rdi),%rbx; mov 16(%rdi),%rcx; mov 24(%rdi),%rdx; mov 32(%rdi),%rsi\n"
	"mov 48(%rdi),%rbp; mov 56(%rdi),%r8; mov 64(%rdi),%r9; mov 72(%rdi),%r10; mov 80(%rdi),%r11\n"
	"mov 88(%rdi),%r12; mov 96(%rdi),%r13; mov 104(%rdi),%r14; mov 112(%rdi),%r15; mov 40(%rdi),%rdi\n"
	"call *(%rsp)\n"
	"push %rdi; mov 16(%rsp),%rdi\n"
	"mov %rax,0(%rdi); mov %rbx,8(%rdi); mov %rcx,16(%rdi); mov %rdx,24(%rdi); mov %rsi,32(%rdi)\n"
	"mov %rbp,48(%rdi); mov %r8,56(%rdi); mov %r9,64(%rdi); mov %r10,72(%rdi); mov %r11,80(%rdi)\n"
	"mov %r12,88(%rdi); mov %r13,96(%rdi); mov %r14,104(%rdi); mov %r15,112(%rdi); pop %rax\n"
	"mov %rax,40(%rdi)\n"
	".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups %xmm\\i,128+16*\\i(%rdi)\n .endr\n"
	"add $16,%rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
	".size call_with,.-call_with\n");

static volatile double noise;

static void make_noise(const struct shunt_mmu_event *e)
{
	char text[64];

	snprintf(text, sizeof text, "%f", (double)e->start / 7);
	noise = atof(text);
	__asm__ volatile("pcmpeqd %%xmm15,%%xmm15; pcmpeqd %%xmm0,%%xmm0" ::: "xmm0", "xmm15");
}

static void test_registers(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *p = map(PAGE);
	struct all a, b;
	unsigned bad = 0;

	for (size_t i = 0; i < sizeof a / 8; i++)
		((uint64_t *)&a)[i] = 0x0123456789abcdefull * (i + 3);
	a.r[5] = (uint64_t)p;
	a.r[4] = PAGE;
	b = a;
	at_start = make_noise;
	call_with(&b, dlsym(libc, "munmap"));
	at_start = NULL;
	for (size_t i = 0; i < 15; i++)
		bad += i != 0 && i != 2 && i != 10 && b.r[i] != a.r[i];
	ok(b.r[0] == 0 && !bad, "all registers but rax, rcx and r11 are kept (%u)", bad);
	ok(!memcmp(a.x, b.x, sizeof a.x), "and the vector registers");
	dlclose(libc);
}

/* --- places of the program's own ------------------------------------------------------------ */

/*
 * munmap(a, n) with all of the red zone in use; whether that is as before. And getpid by what looks
 * like a place of munmap's, but is the middle of another instruction.
 */
long unmap_over_red_zone(void *a, size_t n);
long get_pid_beside(void);
extern const uint8_t beside_at[];
__asm__(".text\n.globl unmap_over_red_zone\n.type unmap_over_red_zone,@function\nunmap_over_red_zone:\n"
	".set i,8\n.rept 16\n movq $i,-i(%rsp)\n .set i,i+8\n.endr\n"
	"mov $11,%eax; syscall\n"
	".set i,8\n.rept 16\n xorq $i,-i(%rsp)\n or -i(%rsp),%rax\n .set i,i+8\n.endr\n"
	"ret\n.size unmap_over_red_zone,.-unmap_over_red_zone\n"
	".globl get_pid_beside\n.type get_pid_beside,@function\nget_pid_beside:\n"
	"mov $39,%eax\n.globl beside_at\nbeside_at: mov $11,%r8d; syscall; ret\n"
	".size get_pid_beside,.-get_pid_beside\n");

static void test_own(void)
{
	void *p = map(PAGE);
	bool kept;

	forget();
	watched = (uintptr_t)p;
	kept = !unmap_over_red_zone(p, PAGE);
	shunt_mmu_sync(); /* it has no tables to unwind by, so it counts as libc's */
	ok(kept && starts[SHUNT_MMU_UNMAP] == 1,
		"a place of the program's own is seen, and its red zone is kept");
	ok(!memcmp(beside_at, "\x41\xb8\x0b\0\0\0\x0f\x05", 8) && get_pid_beside() == getpid(),
		"what only looks like one is left alone");
	forget();
}

/* --- unwinding ------------------------------------------------------------------------------ */

static volatile unsigned frames, in_main, in_wrapper;
static uintptr_t test_at, munmap_at;

static _Unwind_Reason_Code frame(struct _Unwind_Context *c, void *arg)
{
	uintptr_t f = _Unwind_GetRegionStart(c);

	(void)arg;
	frames++;
	in_main |= f == test_at;
	in_wrapper |= f == munmap_at;
	return _URC_NO_REASON;
}

static void walk(const struct shunt_mmu_event *e)
{
	(void)e;
	_Unwind_Backtrace(frame, NULL);
}

__attribute__((noinline)) static void test_unwinding(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *p = map(PAGE);

	test_at = (uintptr_t)test_unwinding;
	munmap_at = (uintptr_t)dlsym(libc, "munmap");
	forget();
	watched = (uintptr_t)p;
	at_start = walk;
	munmap(p, PAGE);
	ok(in_main && in_wrapper && frames > 5,
		"a backtrace from a callback leads through the place and the function to here (%u frames)", frames);
	forget();
	dlclose(libc);
}

/* --- processes ------------------------------------------------------------------------------ */

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static int child_unmaps(void *arg)
{
	return munmap(arg, PAGE) ? 1 : 7;
}

static void test_fork(void)
{
	void *p = map(PAGE);
	pid_t pid;
	int status;

	forget();
	pid = fork();
	if (!pid) {
		unsigned before = starts[SHUNT_MMU_UNMAP];
		struct shunt_mmu_notifier own = {.ops = &ops};

		if (munmap(p, PAGE) || starts[SHUNT_MMU_UNMAP] != before)
			_exit(1);
		p = map(PAGE);
		if (shunt_mmu_notifier_register(&own))
			_exit(2);
		forget();
		watched = (uintptr_t)p;
		munmap(p, PAGE);
		if (starts[SHUNT_MMU_UNMAP] != 1 || shunt_mmu_notifier_unregister(&own))
			_exit(3);
		_exit(changed("libc.so.6") ? 4 : 7);
	}
	status = wait_for(pid);
	shunt_mmu_sync();
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7,
		"in a fork child nothing is told, unless it registers itself, and then disarms (%x)", status);
	ok(starts[SHUNT_MMU_FORK] >= 1 && starts[SHUNT_MMU_FORK] == ends[SHUNT_MMU_FORK],
		"fork is told, start and end (%u, %u)", starts[SHUNT_MMU_FORK], ends[SHUNT_MMU_FORK]);
	munmap(p, PAGE);
}

static volatile uint32_t flags_there;

static void note_flags(const struct shunt_mmu_event *e)
{
	flags_there = e->flags;
}

static void test_clone(void)
{
	size_t size = 64 << 10;
	char *stack = map(size), *p = map(PAGE);
	int status;

	forget();
	status = wait_for(clone(child_unmaps, stack + size, SIGCHLD, p));
	shunt_mmu_sync();
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7 && starts[SHUNT_MMU_FORK] &&
			starts[SHUNT_MMU_FORK] == ends[SHUNT_MMU_FORK],
		"a child with a stack of its own, and a copy of the memory (%x)", status);
	forget();
	watched = (uintptr_t)p;
	at_start = note_flags;
	flags_there = SHUNT_MMU_BLOCK;
	status = wait_for(clone(child_unmaps, stack + size, SIGCHLD | CLONE_VM, p));
	ok(!(flags_there & SHUNT_MMU_BLOCK), "a callback there may not wait for its parent");
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7 && starts[SHUNT_MMU_UNMAP] == 1 &&
			ends[SHUNT_MMU_UNMAP] == 1 && !starts[SHUNT_MMU_FORK],
		"a child in the same memory: what it unmaps is told (%x)", status);
	munmap(stack, size);
	forget();
}

static void test_spawn(void)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 7", NULL};
	char line[8] = "";
	int status;
	pid_t pid;
	FILE *f;

	forget();
	releases = 0;
	pid = vfork();
	if (!pid) {
		execve("/nowhere/at all", argv, environ);
		_exit(7);
	}
	status = wait_for(pid);
	ok(WEXITSTATUS(status) == 7 && !starts[SHUNT_MMU_EXEC] && !releases,
		"vfork: the child's exec and exit are not those of the memory (%x)", status);
	ok(!posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) && WEXITSTATUS(wait_for(pid)) == 7,
		"posix_spawn");
	ok(WEXITSTATUS(system("exit 7")) == 7, "system");
	f = popen("echo seven", "r");
	ok(f && fgets(line, sizeof line, f) && !strcmp(line, "seven\n") && !pclose(f), "popen");
}

/* What was blocked is so in a program that is executed, and in fork children. */
static void test_mask(void)
{
	sigset_t now;
	pid_t pid = fork();

	if (!pid) {
		sigprocmask(SIG_SETMASK, NULL, &now);
		if (!sigisemptyset(&now))
			_exit(1);
		if (shunt_mmu_notifier_register(&(struct shunt_mmu_notifier){.ops = &ops}))
			_exit(2);
		/* Not by way of a shell: those unblock all. */
		execl("/bin/grep", "grep", "-q", "SigBlk:.0000000000000000", "/proc/self/status", NULL);
		_exit(4);
	}
	ok(wait_for(pid) == 0, "no signal is blocked in a fork child, nor in what it executes");
}

/* --- the end ------------------------------------------------------------------------------------ */

static void leave_by_exit(void) { exit(7); }
static void leave_by__exit(void) { _exit(7); }
static void leave_by_syscall(void) { syscall(SYS_exit_group, 7L); }
static void leave_by_exec(void)
{
	execl("/bin/sh", "sh", "-c", "exit 7", NULL);
}

static void end_by(void (*leave)(void), int times, const char *name)
{
	struct shunt_mmu_notifier own = {.ops = &ops};
	char got[8];
	int to[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(to, O_CLOEXEC))
		abort();
	pid = fork();
	if (!pid) {
		release_to = to[1];
		if (shunt_mmu_notifier_register(&own))
			_exit(1);
		leave();
	}
	close(to[1]);
	status = wait_for(pid);
	n = read(to[0], got, sizeof got);
	close(to[0]);
	ok(n == times && WEXITSTATUS(status) == 7, "%s: release is called %zd times", name, n);
}

int main(void)
{
	test_bytes();
	test_calls();
	if (shunt_mmu_notifier_register(&notifier))
		abort();
	test_registers();
	test_own();
	test_unwinding();
	test_fork();
	test_clone();
	test_spawn();
	test_mask();
	shunt_mmu_notifier_unregister(&notifier);
	end_by(leave_by_exit, 1, "exit");
	end_by(leave_by__exit, 1, "_exit");
	end_by(leave_by_syscall, 1, "exit by syscall()");
	end_by(leave_by_exec, 0, "exec");
	return done();
}
