/* SPDX-License-Identifier: MIT */
/*
 * decode_oracle.c [rounds [seed]] - what decode() says of a call, against what the kernel then does.
 *
 * Each round builds an arena of mappings at random, notes of every page what is mapped there, its rights,
 * its frame (for root) and its contents, decodes a random call, makes it, and looks again. Whatever
 * was there before and is not the same now has to lie in a range of the right kind; and where it
 * can be known, nothing else may.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/text_sys.h"
#include "decode_test.h"

#define P     4096ul
#define ARENA 96
#define HEAP  8
#define PAGES (ARENA + HEAP)
#define FILES 2
#define LONG_ 32 /* pages of a file */
#define COLLAPSE 25 /* MADV_, 6.1 */

struct page {
	bool mapped;
	uint32_t rights;
	uint64_t device, inode, offset;
	uint64_t frame;	   /* as /proc/self/pagemap has it */
	bool dropped;	   /* after: it was there and was not when the call returned */
	uint64_t contents; /* 0: cannot be read */
};

static uintptr_t arena, heap;
static int pagemap, files[FILES], segment, other;
static char paths[FILES][64];
static uint64_t inodes[FILES], zeroes;
static struct page before[PAGES], after[PAGES];
static uint64_t random_state;
static unsigned attached[ARENA], attachments; /* pages where the segment is */

static uint64_t any(uint64_t below)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % below;
}

static uintptr_t address(unsigned i)
{
	return i < ARENA ? arena + i * P : heap + (i - ARENA) * P;
}

static size_t up_page(size_t v)
{
	return (v + P - 1) & ~(P - 1);
}

/* --- what there is ----------------------------------------------------------------------------- */

static void note_line(const char *line, struct page *to)
{
	unsigned long start, end, offset, inode;
	unsigned major, minor, i;
	char r, w, x, s;

	if (sscanf(line, "%lx-%lx %c%c%c%c %lx %x:%x %lu", &start, &end, &r, &w, &x, &s, &offset,
		    &major, &minor, &inode) != 10)
		return;
	for (i = 0; i < PAGES; i++) {
		if (address(i) < start || address(i) >= end)
			continue;
		to[i].mapped = true;
		to[i].rights = (r == 'r') | (w == 'w') << 1 | (x == 'x') << 2 | (s == 's') << 3;
		to[i].device = (uint64_t)major << 32 | minor;
		to[i].inode = inode;
		to[i].offset = inode ? offset + address(i) - start : 0;
	}
}

static void note_mappings(struct page *to)
{
	static char text[1 << 18];
	size_t have = 0;
	long n;
	char *line, *end;
	int fd = open("/proc/self/maps", O_RDONLY);

	while ((n = read(fd, text + have, sizeof(text) - 1 - have)) > 0)
		have += (size_t)n;
	close(fd);
	text[have] = 0;
	for (line = text; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		note_line(line, to);
	}
}

static void note_frames(struct page *to)
{
	uint64_t e[ARENA] = {0};
	unsigned i;

	if (pread(pagemap, e, ARENA * 8, (off_t)(arena / P * 8)) != ARENA * 8)
		abort();
	for (i = 0; i < ARENA; i++) /* present, and the frame */
		to[i].frame = e[i] & (1ull << 63 | ((1ull << 55) - 1));
	if (pread(pagemap, e, HEAP * 8, (off_t)(heap / P * 8)) != HEAP * 8)
		abort();
	for (i = 0; i < HEAP; i++)
		to[ARENA + i].frame = e[i] & (1ull << 63 | ((1ull << 55) - 1));
}

static uint64_t hash(const uint64_t words[512])
{
	uint64_t h = 1;
	unsigned i;

	for (i = 0; i < 512; i++)
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ull;
	return h | 1;
}

/* Through the kernel: what cannot be read is no fault. */
static void note_contents(struct page *to)
{
	uint64_t words[512];
	unsigned i;

	for (i = 0; i < PAGES; i++) {
		struct iovec here = {words, P}, there = {(void *)address(i), P};

		if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (long)P)
			to[i].contents = hash(words);
	}
}

/* --- the arena --------------------------------------------------------------------------------- */

static void fill_file(unsigned f)
{
	static uint64_t words[LONG_ * 512];
	static uint64_t stamp;
	unsigned i;

	for (i = 0; i < LONG_; i++)
		words[i * 512] = words[i * 512 + 511] = ++stamp;
	if (shunt_sys(SYS_ftruncate, files[f], LONG_ * P) ||
	    pwrite(files[f], words, sizeof(words), 0) != sizeof(words))
		abort();
}

/* One mapping of n pages at page i. */
static void lay(unsigned i, unsigned n)
{
	static const int rights[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_WRITE, PROT_NONE};
	int prot = rights[any(5)], flags = MAP_FIXED, fd = -1;
	void *at = (void *)address(i);
	uint64_t kind = any(9);
	unsigned j;

	if (kind == 8 && n >= 3) {
		attached[attachments++] = i;
		shunt_sys(SYS_shmat, segment, at, SHM_REMAP);
		return;
	}
	flags |= kind & 1 ? MAP_PRIVATE : MAP_SHARED;
	if (kind < 4)
		fd = files[kind / 2];
	else
		flags |= MAP_ANONYMOUS | (kind == 7 ? MAP_GROWSDOWN : 0);
	if (mmap(at, n * P, prot, flags, fd, (off_t)(any(LONG_ - n) * P)) != at)
		abort();
	for (j = 0; j < n && prot & PROT_WRITE; j++)
		if (any(2))
			*(volatile uint64_t *)(address(i + j) + 8) = any(~0ul);
}

static void build(void)
{
	unsigned i, n;

	for (i = 0; i < FILES; i++)
		fill_file(i);
	shunt_sys(SYS_munmap, arena, ARENA * P);
	attachments = 0;
	for (i = 0; i < ARENA; i += n) {
		n = 1 + (unsigned)any(6);
		n = n < ARENA - i ? n : ARENA - i;
		if (any(10))
			lay(i, n);
	}
	shunt_sys(SYS_brk, heap + HEAP * P - any(P));
	for (i = 0; i < HEAP; i++)
		*(volatile uint64_t *)(heap + i * P) = any(~0ul);
}

/* --- the calls --------------------------------------------------------------------------------- */

static const char *const names[] = {"munmap", "mmap", "mremap", "mprotect", "madvise", "process_madvise",
	"brk", "shmat", "shmdt", "truncate", "open", "fallocate", "remap_file_pages"};
enum { MUNMAP, MMAP, MREMAP, MPROTECT, MADVISE, PROCESS_MADVISE, BRK, SHMAT, SHMDT, TRUNCATE, OPEN,
	FALLOCATE, REMAP_FILE, KINDS };

static struct trial {
	struct shunt_mmu_call c;
	int kind;
	bool frames_may_change; /* as may those of any page at any time */
	bool must;		/* if it succeeds, all that is told is true */
	int file;		/* -1, or only this one is concerned, */
	uint64_t from, to;	/* here */
	long result;
	uint64_t moved; /* bytes that are elsewhere now */
} t;

static struct {
	unsigned done, failed;
	uint64_t changed, told;
} totals[KINDS];

static uintptr_t some_page(void)
{
	return address((unsigned)any(ARENA));
}

/* Mostly whole pages. */
static size_t some_length(void)
{
	return any(12) * P + (any(4) ? 0 : any(P));
}

static void call(long nr, long a, long b, long c, long d, long e, long f)
{
	t.c = (struct shunt_mmu_call){nr, {a, b, c, d, e, f}};
}

static void make_mmap(void)
{
	int flags = any(2) ? MAP_SHARED : MAP_PRIVATE, fd = files[any(FILES)];

	flags |= any(5) ? MAP_FIXED : any(2) ? MAP_FIXED_NOREPLACE : 0;
	if (any(2)) {
		flags |= MAP_ANONYMOUS;
		fd = -1;
	}
	t.must = true;
	call(SYS_mmap, (long)(some_page() + (any(20) ? 0 : 16)), (long)some_length(),
		any(2) ? PROT_READ : PROT_NONE, flags, fd, 0);
	if ((unsigned)flags & MAP_FIXED)
		return;
	t.moved = t.c.a[1] ? up_page((size_t)t.c.a[1]) : 0;
}

static void make_mremap(void)
{
	static const int flags[] = {0, MREMAP_MAYMOVE, MREMAP_MAYMOVE, FIXED, FIXED,
		MREMAP_MAYMOVE | MREMAP_DONTUNMAP, FIXED | MREMAP_DONTUNMAP, MREMAP_FIXED};
	int flag = flags[any(8)];
	size_t old = (1 + any(5)) * P, new = any(3) ? any(2) ? any(old) + 1 : some_length() : old;

	if (!any(8))
		old = 0;
	t.must = (flag & MREMAP_FIXED) != 0;
	t.moved = up_page(new);
	call(SYS_mremap, (long)(some_page() + (any(20) ? 0 : 16)), (long)(old - (any(3) || !old ? 0 : 5)),
		(long)new, flag, (long)some_page(), 0);
}

/* Mostly where a segment is, or what is left of one. */
static void make_shmdt(void)
{
	uintptr_t at = some_page();

	if (attachments && any(4)) {
		at = address(attached[any(attachments)]);
		t.must = any(2); /* with a hole in it, the range holds that too */
		if (!t.must)
			lay((unsigned)((at - arena) / P + any(3)), 1);
	}
	call(SYS_shmdt, (long)at, 0, 0, 0, 0, 0);
}

static const int advices[] = {MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_REMOVE, 24, 102,
	102, 103, MADV_NORMAL, MADV_WILLNEED, MADV_SEQUENTIAL, MADV_DONTFORK, MADV_MERGEABLE,
	MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_COLD,
	MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, COLLAPSE, 77};

static int some_advice(void)
{
	int a = advices[any(sizeof(advices) / sizeof(advices[0]))];

	t.frames_may_change = a == MADV_PAGEOUT || a == COLLAPSE || a == MADV_MERGEABLE ||
			      a == MADV_UNMERGEABLE || a == MADV_POPULATE_WRITE;
	t.must = a == MADV_DONTNEED || a == 24 || a == 102;
	return a;
}

static void make_process_madvise(void)
{
	static struct iovec v[12];
	static const int selves[] = {-10000, -10001, 0, 0, -3};
	int who = selves[any(5)];
	unsigned i, n = (unsigned)any(12);

	for (i = 0; i < n; i++)
		v[i] = (struct iovec){(void *)some_page(), any(3) * P};
	call(SYS_process_madvise, who ? who : other, (long)v, n, some_advice(), 0, 0);
	t.must = false; /* of twelve ranges that become one, not all has to change */
}

static void make_truncate(void)
{
	int f = (int)any(FILES);

	t.file = f;
	t.from = any(LONG_ + 4) * P + (any(3) ? 0 : any(P));
	t.to = ~0ul;
	if (any(2))
		call(SYS_ftruncate, files[f], (long)t.from, 0, 0, 0, 0);
	else
		call(SYS_truncate, (long)paths[f], (long)t.from, 0, 0, 0, 0);
}

static void make_open(void)
{
	static struct open_how how;
	static const int flags[] = {O_RDWR | O_TRUNC, O_TRUNC, O_RDWR, O_RDWR | O_CREAT | O_TRUNC,
		O_RDWR | O_CREAT | O_EXCL | O_TRUNC, O_PATH | O_TRUNC, O_RDWR | O_TRUNC | O_NOFOLLOW};
	int f = (int)any(FILES), flag = flags[any(7)];
	long path = (long)paths[f];

	t.file = f;
	t.from = 0;
	t.to = ~0ul;
	how = (struct open_how){.flags = (uint64_t)flag, .mode = flag & O_CREAT ? 0600 : 0};
	switch (any(4)) {
	case 0:
		call(SYS_open, path, flag, 0600, 0, 0, 0);
		break;
	case 1:
		call(SYS_creat, path, 0600, 0, 0, 0, 0);
		break;
	case 2:
		call(SYS_openat, AT_FDCWD, path, flag, 0600, 0, 0);
		break;
	default:
		call(SYS_openat2, AT_FDCWD, path, (long)&how, sizeof(how), 0, 0);
	}
}

static void make_fallocate(void)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, 0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE};
	int f = (int)any(FILES), mode = modes[any(7)];
	size_t length = some_length();

	t.file = f;
	t.from = any(LONG_ + 2) * P + (any(3) ? 0 : any(P));
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
		t.from &= ~(P - 1);
		length &= ~(P - 1);
	}
	t.to = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) ? ~0ul : t.from + length;
	call(SYS_fallocate, files[f], mode, (long)t.from, (long)length, 0, 0);
}

static void make(void)
{
	static const int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_EXEC, PROT_READ | PROT_GROWSDOWN, PROT_GROWSDOWN, PROT_GROWSUP};

	memset(&t, 0, sizeof(t));
	t.file = -1;
	switch (t.kind = (int)any(KINDS)) {
	case MUNMAP:
		t.must = true;
		call(SYS_munmap, (long)(some_page() + (any(20) ? 0 : 1)), (long)some_length(), 0, 0, 0, 0);
		break;
	case MMAP:
		make_mmap();
		break;
	case MREMAP:
		make_mremap();
		break;
	case MPROTECT:
		call(any(2) ? SYS_mprotect : SYS_pkey_mprotect, (long)some_page(), (long)some_length(),
			rights[any(7)], -1, 0, 0);
		break;
	case MADVISE:
		call(SYS_madvise, (long)some_page(), (long)some_length(), some_advice(), 0, 0, 0);
		break;
	case PROCESS_MADVISE:
		make_process_madvise();
		break;
	case BRK:
		t.must = true;
		call(SYS_brk, (long)(heap + any(HEAP + 2) * P + any(P)), 0, 0, 0, 0, 0);
		break;
	case SHMAT:
		t.must = true;
		call(SYS_shmat, segment, (long)(some_page() + (any(4) ? 0 : 99)),
			(any(4) ? SHM_REMAP : 0) | (any(2) ? SHM_RND : 0), 0, 0, 0);
		break;
	case SHMDT:
		make_shmdt();
		break;
	case TRUNCATE:
		make_truncate();
		break;
	case OPEN:
		make_open();
		break;
	case FALLOCATE:
		make_fallocate();
		break;
	case REMAP_FILE: /* may map the same pages again */
		call(SYS_remap_file_pages, (long)(some_page() + any(2) * 5), (long)some_length(), 0,
			(long)any(LONG_), 0, 0);
	}
}

/* --- the comparison ---------------------------------------------------------------------------- */

static bool changed(unsigned i)
{
	const struct page *b = &before[i], *a = &after[i];

	if (!b->mapped)
		return false;
	if (!a->mapped || a->rights != b->rights || a->device != b->device || a->inode != b->inode ||
	    a->offset != b->offset)
		return true;
	if (b->contents && a->contents != b->contents)
		return true;
	/* A page table's entry may go and come back: a large folio is split so when its file is cut. */
	return (b->frame & a->frame) >> 63 && a->frame != b->frame && !t.frames_may_change;
}

/* The range that holds the page, or NULL. */
static const struct shunt_mmu_range *range_of(unsigned i, unsigned n)
{
	unsigned j;

	for (j = 0; j < n; j++)
		if (address(i) >= got[j].start && address(i) < got[j].end)
			return &got[j];
	return NULL;
}

/* mremap() moves several mappings at once and leaves alone what their gaps would come over. */
static bool gap_came(unsigned i)
{
	uintptr_t into = address(i) - (uintptr_t)t.c.a[4], from = (uintptr_t)t.c.a[0] + into;

	if (into >= up_page((size_t)t.c.a[2]))
		return false;
	return from >= arena + ARENA * P || !before[(from - arena) / P].mapped;
}

/* Told of, and yet it cannot have been meant. */
static bool told_wrongly(unsigned i, unsigned n)
{
	const struct page *b = &before[i];

	if (!b->mapped || (b->contents == 0 && b->frame >> 63 == 0))
		return false;
	if (t.file >= 0) /* one may be many that there was no room for */
		return n > 1 && (b->inode != inodes[t.file] || b->offset + P <= t.from ||
		       b->offset >= (t.to == ~0ul ? t.to : (t.to + P - 1) & ~(P - 1)));
	/* The same page of the same file may have come there, or the one that is all zeroes. */
	if (t.kind == MREMAP && (b->inode || b->contents == zeroes || gap_came(i)))
		return false;
	if (t.kind == SHMAT && !((uintptr_t)t.c.a[1] >> 12 << 12 & ((1ul << 21) - 1)))
		return false; /* the segment might have had huge pages */
	return t.must && !shunt_sys_failed(t.result) && b->frame >> 63 && !after[i].dropped &&
	       !changed(i);
}

/* A change of its kind: nothing unmapped is called protected. */
static bool right_kind(unsigned i, const struct shunt_mmu_range *r)
{
	const struct page *b = &before[i], *a = &after[i];

	switch (r->kind) {
	case PROTECT:
		return a->mapped && a->inode == b->inode && (!a->contents || !b->contents ||
							      a->contents == b->contents);
	case DISCARD:
		return a->mapped && a->rights == b->rights && a->inode == b->inode;
	}
	return true;
}

static void say(const char *what, unsigned i, unsigned n)
{
	unsigned j;

	diag("%s of %s: call %ld (%lx, %lx, %lx, %lx, %lx) = %ld, page %u at %lx", what, names[t.kind],
		t.c.nr, t.c.a[0], t.c.a[1], t.c.a[2], t.c.a[3], t.c.a[4], t.result, i, address(i));
	diag("  mapped %d-%d rights %x-%x inode %lu-%lu offset %lx-%lx frame %lx-%lx contents %lx-%lx",
		before[i].mapped, after[i].mapped, before[i].rights, after[i].rights, before[i].inode,
		after[i].inode, before[i].offset, after[i].offset, before[i].frame, after[i].frame,
		before[i].contents, after[i].contents);
	for (j = 0; j < n; j++)
		diag("  range %lx-%lx kind %u", got[j].start, got[j].end, got[j].kind);
}

static unsigned compare(unsigned n)
{
	const struct shunt_mmu_range *r;
	unsigned i, wrong = 0;

	for (i = 0; i < PAGES; i++) {
		r = range_of(i, n);
		totals[t.kind].changed += changed(i);
		totals[t.kind].told += r && before[i].mapped;
		if (changed(i) && !r && ++wrong < 3)
			say("silence", i, n);
		else if (changed(i) && r && !right_kind(i, r) && ++wrong < 3)
			say("wrong kind", i, n);
		else if (r && told_wrongly(i, n) && ++wrong < 3)
			say("false alarm", i, n);
	}
	return wrong;
}

/* What a call left behind outside of the arena. */
static void undo(void)
{
	uintptr_t at = (uintptr_t)t.result;

	if (shunt_sys_failed(t.result))
		return;
	if (t.kind == OPEN)
		shunt_sys(SYS_close, t.result);
	if (t.moved && (at < arena || at >= arena + ARENA * P))
		shunt_sys(SYS_munmap, at, t.moved);
	if (t.moved && at < arena + ARENA * P && at + t.moved > arena + ARENA * P)
		shunt_sys(SYS_munmap, arena + ARENA * P, at + t.moved - arena - ARENA * P);
}

static unsigned round_(void)
{
	unsigned n, i, wrong;

	build();
	memset(before, 0, sizeof(before));
	memset(after, 0, sizeof(after));
	make();
	note_contents(before); /* what is read is there then */
	note_mappings(before);
	note_frames(before);
	n = shunt_mmu_decode(&t.c, got);
	t.result = shunt_sys(t.c.nr, t.c.a[0], t.c.a[1], t.c.a[2], t.c.a[3], t.c.a[4], t.c.a[5]);
	note_frames(after);
	for (i = 0; i < PAGES; i++)
		after[i].dropped = before[i].frame >> 63 && !(after[i].frame >> 63);
	note_mappings(after);
	note_contents(after);
	note_frames(after);
	totals[t.kind].done++;
	totals[t.kind].failed += shunt_sys_failed(t.result);
	wrong = compare(n);
	undo();
	return wrong;
}

static void rounds(unsigned n)
{
	unsigned wrong = 0, i;

	for (i = 0; i < n && wrong < 10; i++)
		wrong += round_();
	ok(!wrong, "%u calls changed nothing but what was said before", i);
	for (i = 0; i < KINDS; i++) {
		diag("%-16s %5u calls, %5u failed, %6lu pages changed of %6lu told", names[i], totals[i].done,
			totals[i].failed, totals[i].changed, totals[i].told);
		ok(totals[i].changed && totals[i].done > totals[i].failed, "%s did change something", names[i]);
	}
}

/* --- fork, and other processes' memory --------------------------------------------------------- */

static uint64_t frame_at(volatile uint64_t *p)
{
	uint64_t e = 0;

	if (pread(pagemap, &e, 8, (off_t)((uintptr_t)p / P * 8)) != 8)
		abort();
	return e;
}

static int waits(void *end)
{
	char x;

	return shunt_sys(SYS_read, *(int *)end, &x, 1) < 0;
}

/* Does a private page get another frame when it is written to while such a child lives? */
static void copies(int flags)
{
	static char stack[16384] __attribute__((aligned(16)));
	volatile uint64_t *p = (volatile uint64_t *)heap;
	struct shunt_mmu_call c = {SYS_clone, {flags | SIGCHLD}};
	int ends[2];
	uint64_t was;
	pid_t pid;

	shunt_sys(SYS_brk, heap + P);
	*p = 1;
	was = frame_at(p);
	if (pipe2(ends, O_CLOEXEC))
		abort();
	pid = clone(waits, stack + sizeof(stack), flags | SIGCHLD, &ends[0]);
	*p = 2;
	ok((frame_at(p) != was) == (shunt_mmu_decode(&c, got) == 1),
		"clone with %x: copy-on-write, as said", (unsigned)flags);
	if (write(ends[1], "", 1) != 1)
		abort();
	waitpid(pid, NULL, 0);
	close(ends[0]);
	close(ends[1]);
}

/* What lets process_madvise() be decoded without asking whose memory it is about. */
static void others(void)
{
	static const int advice[] = {MADV_DONTNEED, MADV_FREE, MADV_REMOVE, 24, 102};
	struct iovec v = {(void *)heap, P};
	unsigned i, refused = 0;

	for (i = 0; i < 5; i++)
		refused += shunt_sys_failed(shunt_sys(SYS_process_madvise, other, &v, 1, advice[i], 0));
	ok(refused == 5, "nobody discards others' memory with process_madvise()");
}

static void set_up(pid_t child)
{
	static const uint64_t nothing[512];
	struct stat s;
	unsigned i;

	zeroes = hash(nothing);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	heap = ((uintptr_t)shunt_sys(SYS_brk, 0) + 4 * P - 1) & ~(P - 1);
	arena = (uintptr_t)mmap(NULL, 3 * ARENA * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap((void *)arena, 3 * ARENA * P);
	arena += ARENA * P;
	other = (int)syscall(SYS_pidfd_open, child, 0);
	segment = shmget(IPC_PRIVATE, 3 * P, 0600);
	files[0] = memfd_create("oracle", MFD_CLOEXEC);
	snprintf(paths[0], sizeof(paths[0]), "/proc/self/fd/%d", files[0]);
	snprintf(paths[1], sizeof(paths[1]), "/tmp/shunt-oracle-XXXXXX");
	files[1] = mkstemp(paths[1]);
	for (i = 0; i < FILES; i++) {
		fstat(files[i], &s);
		inodes[i] = s.st_ino;
	}
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 2000;
	pid_t child;
	int ends[2];

	random_state = argc > 2 ? strtoul(argv[2], NULL, 0) : (uint64_t)time(NULL);
	diag("seed %lu", random_state);
	setvbuf(stdout, NULL, _IOLBF, 4096);
	if (pipe2(ends, O_CLOEXEC))
		return 1;
	child = fork();
	if (!child) { /* somebody else, whose memory is not ours */
		close(ends[1]);
		_exit(read(ends[0], &argc, 1) < 0);
	}
	close(ends[0]);
	set_up(child);
	rounds(n);
	shmctl(segment, IPC_RMID, NULL);
	unlink(paths[1]);
	if (geteuid())
		skip("clone: frames are hidden from users");
	else
		copies(0), copies(CLONE_VM);
	others();
	close(ends[1]);
	waitpid(child, NULL, 0);
	return done();
}
