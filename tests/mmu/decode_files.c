/* SPDX-License-Identifier: MIT */
/*
 * decode_files.c - calls that change a file, or a System V segment: where it is mapped here. All of it
 * twice: as this kernel tells mappings, and as older ones do.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "decode_test.h"

#define P  4096l
#define M2 (2l << 20)

typedef struct shunt_mmu_range range;

static char folder[] = "/tmp/shunt-decode-XXXXXX";
static const char *how; /* the mappings are told */

static char *in_folder(const char *name)
{
	static char paths[4][128];
	static unsigned n;
	char *p = paths[n++ % 4];

	snprintf(p, sizeof(paths[0]), "%s/%s", folder, name);
	return p;
}

static int file_of(const char *path, long pages)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0 || ftruncate(fd, pages * P))
		diag("%s: %s", path, strerror(errno));
	return fd;
}

static uintptr_t map(int fd, long first, long pages, int flags)
{
	return (uintptr_t)mmap(NULL, (size_t)(pages * P), PROT_READ, flags, fd, first * P);
}

static void unmap(uintptr_t at, long pages)
{
	munmap((void *)at, (size_t)(pages * P));
}

static bool cuts_at(const char *name, long nr, const long a[6], uintptr_t start, uintptr_t end)
{
	char text[160];
	range r = {start, end, 0, DISCARD};

	snprintf(text, sizeof(text), "%s: %s", how, name);
	return expect(text, nr, a, start != end, &r);
}

static void nothing(const char *name, long nr, const long a[6])
{
	cuts_at(name, nr, a, 0, 0);
}

/* --- every way to change it ------------------------------------------------------------------ */

static void sizes(const char *kind, int fd)
{
	uintptr_t at = map(fd, 2, 6, MAP_SHARED);
	char n[100];

#define NAMED(text) (snprintf(n, sizeof(n), "%s, %s", kind, text), n)
	cuts_at(NAMED("cut off before"), SYS_ftruncate, (long[6]){fd, P}, at, at + 6 * P);
	cuts_at(NAMED("cut in two"), SYS_ftruncate, (long[6]){fd, 4 * P}, at + 2 * P, at + 6 * P);
	cuts_at(NAMED("cut through a page"), SYS_ftruncate, (long[6]){fd, 4 * P + 1},
		at + 2 * P, at + 6 * P);
	nothing(NAMED("cut off behind"), SYS_ftruncate, (long[6]){fd, 8 * P});
	nothing(NAMED("as long as it is"), SYS_ftruncate, (long[6]){fd, 10 * P});
	nothing(NAMED("longer"), SYS_ftruncate, (long[6]){fd, 20 * P});
	cuts_at(NAMED("hole"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * P, 2 * P},
		at + P, at + 3 * P);
	cuts_at(NAMED("hole in a page"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * P + 7, 9},
		at + P, at + 2 * P);
	nothing(NAMED("hole before"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * P});
	nothing(NAMED("hole behind the end"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * P, 2 * P});
	cuts_at(NAMED("zeroes"), SYS_fallocate, (long[6]){fd, FALLOC_FL_ZERO_RANGE, 0, 3 * P},
		at, at + P);
	cuts_at(NAMED("zeroes written"), SYS_fallocate, (long[6]){fd, 0x80, 0, 3 * P}, at, at + P);
	cuts_at(NAMED("taken out"), SYS_fallocate, (long[6]){fd, FALLOC_FL_COLLAPSE_RANGE, 3 * P, P},
		at + P, at + 6 * P);
	cuts_at(NAMED("put in"), SYS_fallocate, (long[6]){fd, FALLOC_FL_INSERT_RANGE, 4 * P, P},
		at + 2 * P, at + 6 * P);
	nothing(NAMED("allocated"), SYS_fallocate, (long[6]){fd, 0, 0, 30 * P});
	nothing(NAMED("unshared"), SYS_fallocate, (long[6]){fd, FALLOC_FL_UNSHARE_RANGE, 0, 8 * P});
	nothing(NAMED("hole of nothing"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * P, 0});
	nothing(NAMED("hole beyond all"), SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * P, INT64_MAX});
	unmap(at, 6);
	nothing(NAMED("no longer mapped"), SYS_ftruncate, (long[6]){fd, 0});
#undef NAMED
}

/* Where it is mapped more than once. */
static void places(void)
{
	int fd = memfd_create("places", MFD_CLOEXEC), i;
	uintptr_t all = (uintptr_t)mmap(NULL, 40 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char n[100];
	range r[2];

	if (ftruncate(fd, 4 * P))
		abort();
	mmap((void *)(all + P), P, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	mmap((void *)(all + 3 * P), 4 * P, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	r[0] = (range){all + P, all + 2 * P, 0, DISCARD};
	r[1] = (range){all + 3 * P, all + 7 * P, 0, DISCARD};
	snprintf(n, sizeof(n), "%s: a shared and a private mapping", how);
	expect(n, SYS_ftruncate, (long[6]){fd, 0}, 2, r);
	mprotect((void *)(all + 4 * P), P, PROT_NONE);
	snprintf(n, sizeof(n), "%s: mappings side by side are one range", how);
	expect(n, SYS_ftruncate, (long[6]){fd, 0}, 2, r);
	for (i = 4; i < 12; i++)
		mmap((void *)(all + (uintptr_t)(2 * i * P)), P, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	cuts_at("more places than there is room for", SYS_ftruncate, (long[6]){fd, 0}, all + P,
		all + 23 * P);
	unmap(all, 40);
	close(fd);
}

/* --- every way to name it ---------------------------------------------------------------------- */

static void names(void)
{
	int fd = file_of(in_folder("file"), 4), dir = open(folder, O_RDONLY | O_DIRECTORY), fifo;
	uintptr_t at = map(fd, 0, 4, MAP_SHARED), end = at + 4 * P;
	char by_fd[64];
	struct open_how cut = {.flags = O_WRONLY | O_TRUNC}, keep = {.flags = O_WRONLY};
	long path = (long)in_folder("file"), link = (long)in_folder("link");
	union {
		struct file_handle h;
		char space[sizeof(struct file_handle) + 128];
	} handle = {.h.handle_bytes = 128};
	int mount_id;

	symlink("file", (char *)link);
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
	cuts_at("truncate", SYS_truncate, (long[6]){path, P}, at + P, end);
	cuts_at("truncate through a link", SYS_truncate, (long[6]){link, P}, at + P, end);
	cuts_at("truncate through a descriptor", SYS_truncate, (long[6]){(long)by_fd, P}, at + P, end);
	nothing("truncate that makes longer", SYS_truncate, (long[6]){path, 5 * P});
	nothing("truncate of none", SYS_truncate, (long[6]){(long)in_folder("none"), 0});
	cuts_at("open", SYS_open, (long[6]){path, O_WRONLY | O_TRUNC}, at, end);
	cuts_at("open that may create", SYS_open, (long[6]){path, O_RDWR | O_CREAT | O_TRUNC}, at, end);
	cuts_at("open for reading", SYS_open, (long[6]){path, O_TRUNC}, at, end);
	nothing("open that must create", SYS_open,
		(long[6]){path, O_RDWR | O_CREAT | O_EXCL | O_TRUNC});
	nothing("open that keeps", SYS_open, (long[6]){path, O_RDWR | O_CREAT});
	nothing("open that only names", SYS_open, (long[6]){path, O_PATH | O_TRUNC});
	nothing("open without a name", SYS_open, (long[6]){(long)folder, O_TMPFILE | O_RDWR | O_TRUNC});
	cuts_at("creat", SYS_creat, (long[6]){path, 0600}, at, end);
	cuts_at("openat", SYS_openat, (long[6]){dir, (long)"file", O_WRONLY | O_TRUNC}, at, end);
	cuts_at("openat through a link", SYS_openat, (long[6]){dir, (long)"link", O_WRONLY | O_TRUNC},
		at, end);
	nothing("openat that follows none", SYS_openat,
		(long[6]){dir, (long)"link", O_WRONLY | O_TRUNC | O_NOFOLLOW});
	nothing("openat from nowhere", SYS_openat, (long[6]){-1, (long)"file", O_WRONLY | O_TRUNC});
	cuts_at("openat2", SYS_openat2, (long[6]){dir, (long)"file", (long)&cut, sizeof(cut)}, at, end);
	nothing("openat2 that keeps", SYS_openat2, (long[6]){dir, (long)"file", (long)&keep, sizeof(keep)});
	cut.resolve = RESOLVE_NO_SYMLINKS;
	nothing("openat2 that follows none", SYS_openat2,
		(long[6]){dir, (long)"link", (long)&cut, sizeof(cut)});
	if (name_to_handle_at(dir, "file", &handle.h, &mount_id, 0) ||
	    open_by_handle_at(dir, &handle.h, O_PATH) < 0)
		skip("%s: open_by_handle_at: %s", how, strerror(errno));
	else
		cuts_at("open_by_handle_at", SYS_open_by_handle_at,
			(long[6]){dir, (long)&handle.h, O_WRONLY | O_TRUNC}, at, end);
	nothing("a folder", SYS_open, (long[6]){(long)folder, O_RDONLY | O_TRUNC});
	mkfifo(in_folder("fifo"), 0600);
	fifo = (int)decode(SYS_open, (long[6]){(long)in_folder("fifo"), O_WRONLY | O_TRUNC});
	ok(!fifo, "%s: a FIFO that nobody reads is not waited for", how);
	unlink((char *)path);
	cuts_at("ftruncate of what has no name any more", SYS_ftruncate, (long[6]){fd, 0}, at, end);
	unmap(at, 4);
	unlink((char *)link);
	unlink(in_folder("fifo"));
	close(dir);
	close(fd);
}

/* --- file systems that number devices in their own way ------------------------------------------- */

static void on_overlay(void)
{
	int low, up, again;
	uintptr_t a, b;
	char options[512], n[100];
	const char *m = in_folder("m");

	snprintf(options, sizeof(options), "lowerdir=%s/l,upperdir=%s/t/u,workdir=%s/t/w", folder,
		folder, folder);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		skip("%s: overlayfs: %s", how, strerror(errno));
		return;
	}
	mkdir(in_folder("l"), 0700);
	mkdir(in_folder("t"), 0700);
	mkdir(m, 0700);
	mount("none", in_folder("t"), "tmpfs", 0, NULL);
	mkdir(in_folder("t/u"), 0700);
	mkdir(in_folder("t/w"), 0700);
	close(file_of(in_folder("l/low"), 4));
	if (mount("overlay", in_folder("m"), "overlay", 0, options)) {
		skip("%s: overlayfs: %s", how, strerror(errno));
		return;
	}
	low = open(in_folder("m/low"), O_RDONLY);
	a = map(low, 0, 4, MAP_SHARED);
	cuts_at("overlayfs, a file of the lower layer", SYS_truncate,
		(long[6]){(long)in_folder("m/low"), 0}, a, a + 4 * P);
	up = file_of(in_folder("m/up"), 4);
	b = map(up, 0, 4, MAP_SHARED);
	cuts_at("overlayfs, a file of the upper layer", SYS_ftruncate, (long[6]){up, P}, b + P, b + 4 * P);
	/* Written to, it is copied; mapped again, it is the copy. */
	again = open(in_folder("m/low"), O_RDWR);
	unmap(a, 4);
	a = map(again, 0, 4, MAP_SHARED);
	snprintf(n, sizeof(n), "overlayfs, a file that was copied up");
	cuts_at(n, SYS_openat, (long[6]){AT_FDCWD, (long)in_folder("m/low"), O_WRONLY | O_TRUNC}, a,
		a + 4 * P);
	unmap(a, 4);
	unmap(b, 4);
	close(low);
	close(up);
	close(again);
	umount(in_folder("m"));
	umount(in_folder("t"));
}

/* Two files of one number on two devices. */
static void twins(void)
{
	struct stat s, t;
	uintptr_t a, b;
	int x, y;

	mkdir(in_folder("x"), 0700);
	mkdir(in_folder("y"), 0700);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", in_folder("x"), "tmpfs", 0, NULL) ||
	    mount("none", in_folder("y"), "tmpfs", 0, NULL)) {
		skip("%s: two of the same number: %s", how, strerror(errno));
		return;
	}
	x = file_of(in_folder("x/f"), 2);
	y = file_of(in_folder("y/f"), 2);
	a = map(x, 0, 2, MAP_SHARED);
	b = map(y, 0, 2, MAP_SHARED);
	fstat(x, &s);
	fstat(y, &t);
	if (s.st_ino != t.st_ino)
		skip("%s: two of the same number: they differ", how);
	else
		cuts_at("the other one of the same number", SYS_ftruncate, (long[6]){y, 0}, b, b + 2 * P);
	unmap(a, 2);
	unmap(b, 2);
	close(x);
	close(y);
	umount(in_folder("x"));
	umount(in_folder("y"));
}

/* --- huge pages ---------------------------------------------------------------------------------- */

#define OVERCOMMIT "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"

static long overcommit(long pages)
{
	char text[24] = "";
	int fd = open(OVERCOMMIT, O_RDWR);
	long was = -1;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
		was = atol(text);
		snprintf(text, sizeof(text), "%ld", pages);
		if (pages > was && pwrite(fd, text, strlen(text), 0) < 0)
			was = -1;
	}
	if (fd >= 0)
		close(fd);
	return was;
}

static void check_huge(char *p, int fd)
{
	uintptr_t u = (uintptr_t)p;
	char n[100];

	cuts_at("huge pages, hole", SYS_fallocate,
		(long[6]){fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, M2, M2}, u + M2, u + 2 * M2);
	snprintf(n, sizeof(n), "%s: huge pages move as whole ones", how);
	expect(n, SYS_mremap, (long[6]){(long)p, P, P, FIXED, (long)p + 8 * M2}, 2,
		(range[]){{u, u + M2, u + 8 * M2, REMAP}, {u + 8 * M2, u + 9 * M2, 0, UNMAP}});
	snprintf(n, sizeof(n), "%s: huge pages shrink by whole ones", how);
	expect(n, SYS_mremap, (long[6]){(long)p, 2 * M2, P, 0}, 1,
		(range[]){{u + M2, u + 2 * M2, 0, UNMAP}});
	snprintf(n, sizeof(n), "%s: huge pages are mapped over whole ones", how);
	expect(n, SYS_mmap, (long[6]){(long)p + 8 * M2, P, 0, MAP_SHARED | MAP_FIXED, fd, 0}, 1,
		(range[]){{u + 8 * M2, u + 9 * M2, 0, UNMAP}});
	snprintf(n, sizeof(n), "%s: huge pages of the default size", how);
	expect(n, SYS_mmap, (long[6]){(long)p + 8 * M2, P, 0,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED, -1, 0}, 1,
		(range[]){{u + 8 * M2, u + 9 * M2, 0, UNMAP}});
}

static void huge(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26);
	long was = overcommit(4);
	char *p = MAP_FAILED;

	if (fd >= 0 && was >= 0 && !ftruncate(fd, 2 * M2))
		p = mmap(NULL, 2 * M2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		skip("%s: huge pages: %s", how, strerror(errno));
	else
		check_huge(p, fd);
	if (p != MAP_FAILED)
		munmap(p, 2 * M2);
	if (was >= 0 && was < 4) {
		FILE *f = fopen(OVERCOMMIT, "w");

		fprintf(f, "%ld", was);
		fclose(f);
	}
	close(fd);
}

/* --- System V ------------------------------------------------------------------------------------ */

static void segments(void)
{
	int id = shmget(IPC_PRIVATE, 5 * P - 8, 0600);
	char *room = mmap(NULL, 16 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = shmat(id, room + P, SHM_REMAP), n[100];
	uintptr_t u = (uintptr_t)at;
	range whole = {u, u + 5 * P, 0, UNMAP};

	if (id < 0 || at == (char *)-1) {
		skip("%s: System V segments: %s", how, strerror(errno));
		return;
	}
	snprintf(n, sizeof(n), "%s: shmdt", how);
	expect(n, SYS_shmdt, (long[6]){(long)at}, 1, &whole);
	snprintf(n, sizeof(n), "%s: shmdt inside of it", how);
	expect(n, SYS_shmdt, (long[6]){(long)at + P}, 0, NULL);
	snprintf(n, sizeof(n), "%s: shmdt before it", how);
	expect(n, SYS_shmdt, (long[6]){(long)at - P}, 0, NULL);
	/* A second one right behind it. */
	if (shmat(id, at + 5 * P, SHM_REMAP) != at + 5 * P)
		diag("shmat: %s", strerror(errno));
	snprintf(n, sizeof(n), "%s: shmdt of one of two", how);
	expect(n, SYS_shmdt, (long[6]){(long)at}, 1, &whole);
	shmdt(at + 5 * P);
	snprintf(n, sizeof(n), "%s: shmat over it", how);
	expect(n, SYS_shmat, (long[6]){id, (long)at, SHM_REMAP}, 1, &whole);
	snprintf(n, sizeof(n), "%s: shmat over it, rounded down", how);
	expect(n, SYS_shmat, (long[6]){id, (long)at + 77, SHM_REMAP | SHM_RND}, 1, &whole);
	snprintf(n, sizeof(n), "%s: shmat elsewhere", how);
	expect(n, SYS_shmat, (long[6]){id, (long)at, 0}, 0, NULL);
	/* Mapped over in the middle: the kernel takes off the rest, on both sides. */
	mmap(at + 2 * P, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	snprintf(n, sizeof(n), "%s: shmdt of what is left in two parts", how);
	expect(n, SYS_shmdt, (long[6]){(long)at}, 1, &whole);
	munmap(at, P);
	whole.start += P;
	snprintf(n, sizeof(n), "%s: shmdt where the first page is gone", how);
	expect(n, SYS_shmdt, (long[6]){(long)at}, 1, &whole);
	shmctl(id, IPC_RMID, NULL);
	snprintf(n, sizeof(n), "%s: shmdt of a removed segment", how);
	expect(n, SYS_shmdt, (long[6]){(long)at}, 1, &whole);
	shmdt(at);
	munmap(room, 16 * P);
}

/* --- madvise ------------------------------------------------------------------------------------- */

static void holes(void)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	uintptr_t a, b, none;
	struct iovec parts[2];
	char n[100];

	if (ftruncate(fd, 8 * P))
		abort();
	a = map(fd, 0, 8, MAP_SHARED);
	b = map(fd, 2, 4, MAP_PRIVATE);
	none = map(-1, 0, 2, MAP_PRIVATE | MAP_ANONYMOUS);
	parts[0] = (struct iovec){(void *)a, 2 * P};
	parts[1] = (struct iovec){(void *)(a + 2 * P), 2 * P};
	snprintf(n, sizeof(n), "%s: a hole through memory is a hole in each mapping", how);
	expect(n, SYS_madvise, (long[6]){(long)a + 4 * P, 3 * P, MADV_REMOVE}, 2,
		(range[]){{a + 4 * P, a + 7 * P, 0, DISCARD}, {b + 2 * P, b + 4 * P, 0, DISCARD}});
	snprintf(n, sizeof(n), "%s: also where it is asked for in parts side by side", how);
	expect(n, SYS_process_madvise, (long[6]){-10001, (long)parts, 2, MADV_REMOVE}, 2,
		(range[]){{a, a + 4 * P, 0, DISCARD}, {b, b + 2 * P, 0, DISCARD}});
	snprintf(n, sizeof(n), "%s: a hole through memory of no file is one", how);
	expect(n, SYS_madvise, (long[6]){(long)none, 2 * P, MADV_REMOVE}, 1,
		(range[]){{none, none + 2 * P, 0, DISCARD}});
	snprintf(n, sizeof(n), "%s: what is not needed here is not discarded elsewhere", how);
	expect(n, SYS_madvise, (long[6]){(long)a + 4 * P, 3 * P, MADV_DONTNEED}, 1,
		(range[]){{a + 4 * P, a + 7 * P, 0, DISCARD}});
	unmap(a, 8);
	unmap(b, 4);
	unmap(none, 2);
	close(fd);
}

static void stacks(void)
{
	char *p = mmap(NULL, 8 * P, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK, -1, 0);
	uintptr_t u = (uintptr_t)p;
	char n[100];

	snprintf(n, sizeof(n), "%s: mprotect that grows down", how);
	expect(n, SYS_mprotect, (long[6]){(long)p + 5 * P, P, PROT_READ | PROT_GROWSDOWN}, 1,
		(range[]){{u, u + 6 * P, 0, PROTECT}});
	munmap(p, 8 * P);
}

/* --- what must not be disturbed, and what may be missing ------------------------------------------- */

static long count_of(const char *path)
{
	char c[4096];
	long n = 0, got_, i;
	int fd = open(path, O_RDONLY);

	while ((got_ = read(fd, c, sizeof(c))) > 0)
		for (i = 0; i < got_; i++)
			n += c[i] == '\n';
	close(fd);
	return n;
}

static int next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

/* A second descriptor that is closed would drop them. */
static void locks(void)
{
	char *path = in_folder("locked");
	int fd = file_of(path, 4), status = 0, lowest;
	uintptr_t at = map(fd, 0, 4, MAP_SHARED);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	long lines;

	if (fcntl(fd, F_SETLK, &l))
		diag("lock: %s", strerror(errno));
	lowest = next_fd();
	lines = count_of("/proc/self/maps");
	decode(SYS_open, (long[6]){(long)path, O_WRONLY | O_TRUNC});
	decode(SYS_ftruncate, (long[6]){fd, 0});
	decode(SYS_truncate, (long[6]){(long)path, 0});
	decode(SYS_madvise, (long[6]){(long)at, P, MADV_REMOVE});
	ok(next_fd() == lowest, "%s: no descriptor is left open", how);
	ok(count_of("/proc/self/maps") == lines, "%s: nothing is left mapped", how);
	if (!fork()) {
		fcntl(fd, F_GETLK, &l);
		_exit(l.l_type == F_WRLCK ? 0 : 1);
	}
	wait(&status);
	ok(status == 0, "%s: locks on the file stay", how);
	unmap(at, 4);
	unlink(path);
	close(fd);
}

static void no_descriptors(void)
{
	int fd = memfd_create("none left", MFD_CLOEXEC), status = 0;
	char *path = in_folder("exists");
	range all = {0, TOP, 0, DISCARD};
	struct rlimit none;
	unsigned good;

	if (ftruncate(fd, 4 * P))
		abort();
	close(file_of(path, 2));
	if (!fork()) {
		getrlimit(RLIMIT_NOFILE, &none);
		none.rlim_cur = (rlim_t)next_fd();
		setrlimit(RLIMIT_NOFILE, &none);
		good = decode(SYS_ftruncate, (long[6]){fd, 0}) == 1 && same(&got[0], &all);
		good += decode(SYS_open, (long[6]){(long)path, O_WRONLY | O_TRUNC}) == 1 &&
			same(&got[0], &all);
		good += decode(SYS_ftruncate, (long[6]){fd, 4 * P}) == 0;
		_exit(good == 3 ? 0 : 1);
	}
	wait(&status);
	ok(!status, "%s: where no descriptor is left it is everything", how);
	unlink(path);
	close(fd);
}

static void no_proc(void)
{
	int fd = memfd_create("no proc", MFD_CLOEXEC), status = 0;
	range all = {0, TOP, 0, DISCARD};

	if (ftruncate(fd, 4 * P))
		abort();
	if (!fork()) {
		if (chroot(folder))
			_exit(2);
		_exit(decode(SYS_ftruncate, (long[6]){fd, 0}) == 1 && same(&got[0], &all) ? 0 : 1);
	}
	wait(&status);
	if (WEXITSTATUS(status) == 2)
		skip("%s: without /proc: %s", how, "chroot() is refused");
	else
		ok(!status, "%s: where there is no /proc it is everything", how);
	close(fd);
}

/* The process's own entry in /proc tells nothing once its first thread is gone. */
static void *last_thread(void *first)
{
	int fd = memfd_create("orphan", 0);
	uintptr_t at;
	range r;

	pthread_join(*(pthread_t *)first, NULL);
	if (ftruncate(fd, 4 * P))
		abort();
	at = map(fd, 0, 4, MAP_SHARED);
	r = (range){at, at + 4 * P, 0, DISCARD};
	_exit(decode(SYS_ftruncate, (long[6]){fd, 0}) == 1 && same(&got[0], &r) ? 0 : 1);
}

static void without_first_thread(void)
{
	static pthread_t first;
	pthread_t t;
	int status = 0;

	if (!fork()) {
		first = pthread_self();
		pthread_create(&t, NULL, last_thread, &first);
		pthread_exit(NULL);
	}
	wait(&status);
	ok(!status, "%s: a thread that has outlived the first one", how);
}

static ucontext_t here, there;
static unsigned on_small;

static void deepest(void)
{
	static const long nrs[] = {SYS_madvise, SYS_ftruncate, SYS_openat2, SYS_process_madvise, SYS_shmat};
	int fd = memfd_create("small", MFD_CLOEXEC);
	struct open_how cut = {.flags = O_WRONLY | O_TRUNC};
	char path[] = "/proc/self/fd/00";
	uintptr_t at;
	struct iovec v;
	unsigned i;

	if (syscall(SYS_ftruncate, fd, P))
		return;
	at = map(fd, 0, 1, MAP_SHARED);
	v = (struct iovec){(void *)at, P};
	if (dup2(fd, 42) != 42) /* printf() would need more stack */
		return;
	memcpy(path + 14, "42", 2);
	for (i = 0; i < sizeof(nrs) / sizeof(nrs[0]); i++)
		on_small += decode(nrs[i], nrs[i] == SYS_madvise
			? (long[6]){(long)at, P, MADV_REMOVE}
			: nrs[i] == SYS_ftruncate ? (long[6]){fd, 0}
			: nrs[i] == SYS_openat2 ? (long[6]){-100, (long)path, (long)&cut, sizeof(cut)}
			: nrs[i] == SYS_shmat ? (long[6]){-1, (long)at, SHM_REMAP}
			: (long[6]){-10001, (long)&v, 1, MADV_REMOVE});
	unmap(at, 1);
	close(fd);
	close(42);
}

/* As a signal handler might have: with a page below it that must not be touched. */
static void small_stack(void)
{
	char *p = mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p, P, PROT_NONE);
	getcontext(&there);
	there.uc_stack.ss_sp = p + P;
	there.uc_stack.ss_size = 2 * P;
	there.uc_link = &here;
	makecontext(&there, deepest, 0);
	on_small = 0;
	swapcontext(&here, &there);
	ok(on_small == 4, "%s: 8 KiB of stack are enough", how);
	munmap(p, 4 * P);
}

static void all(void)
{
	int fd = memfd_create("a memfd", MFD_CLOEXEC);

	if (ftruncate(fd, 10 * P))
		abort();
	sizes("memfd", fd);
	close(fd);
	fd = file_of(in_folder("a file"), 10);
	sizes("file", fd);
	unlink(in_folder("a file"));
	close(fd);
	places();
	names();
	segments();
	holes();
	stacks();
	huge();
	locks();
	no_descriptors();
	no_proc();
	without_first_thread();
	small_stack();
	on_overlay();
	twins();
}

int main(void)
{
	char command[64];

	if (!mkdtemp(folder))
		return 1;
	how = "query";
	all();
	how = "text";
	shunt_mmu_areas_as_text(true);
	all();
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command))
		diag("%s stays", folder);
	return done();
}
