/* SPDX-License-Identifier: MIT */
/*
 * mmu_share.c - cross-process mapping (mmu_share/share.h), and what would happen without the
 * notifier.
 *
 *   mmu_share [--without] [--seed N] [kills]
 *
 * First one change of each kind, the importer in the middle of an access while it is made. Then a
 * storm: the exporter changes its window all the time, gives the pages that it has taken away to
 * somebody else ("the tenant"), the importer attaches, reads, writes, detaches, and one of them is killed
 * at a random moment, `kills` times. 0: all was right; 1: it was not; 3: --without, and the
 * importer found what it should not have, as it should.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#include "mmu_share/share.h"

#define PAGE	4096ul
#define PAGES	4ul /* of the window */
#define WINDOW	(PAGES * PAGE)
#define SLOTS	16ul
#define ARENA	(SLOTS * WINDOW)
#define PLACE	((void *)0x200000000000ul) /* where nothing else of a process comes to lie by itself */
#define TENANT	0x7e4a47ul /* what the pages hold that are somebody else's now */

/* What each page begins with. */
struct stamp {
	atomic_ulong generation; /* of the window's contents */
	atomic_ulong echo;	 /* the importer writes it */
};

enum phase { ATTACHING, READING, ASKED, DETACHING, IDLE, CHANGING, PHASES };
static const char *const phase_name[PHASES] = {
	"attaching", "reading", "being asked to let go", "detaching", "idle", "changing"};

/* All processes see it; nothing of it is under test. */
static struct board {
	char name[SHARE_NAME];
	atomic_bool ready, stop;
	atomic_ulong truth[PAGES]; /* the generation at the window's pages; 0: none, or none to be relied on */
	atomic_ulong last;
	atomic_ulong rounds, accesses, steps;
	atomic_ulong foreign, stale, strays, refused; /* the oracle's */
	atomic_int importer, exporter;		     /* enum phase */
	atomic_int child;			     /* op_fork_stays()'s */
} *board;

static bool told = true;
static int failures;

static void fail(const char *what)
{
	printf("WRONG: %s\n", what);
	failures++;
}

__attribute__((noreturn)) static void give_up(const char *what)
{
	fail(what);
	exit(1);
}

static void *must(void *p)
{
	if (p == MAP_FAILED) {
		perror("mmap");
		_exit(1);
	}
	return p;
}

static unsigned long next_random(unsigned long *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* ---- the exporter's memory ---- */

static int arena;	 /* the memfd */
static char *all;	 /* all of it, for the exporter's own use */
static char *window;	 /* what is exported: shows one slot, or nothing */
static unsigned long slot;

static struct stamp *stamp_of(unsigned long s, unsigned long page)
{
	return (struct stamp *)(all + s * WINDOW + page * PAGE);
}

static void truth_is(unsigned long generation)
{
	for (unsigned long p = 0; p < PAGES; p++)
		atomic_store(&board->truth[p], generation);
}

static void fill(unsigned long s, unsigned long generation)
{
	for (unsigned long p = 0; p < PAGES; p++) {
		atomic_store(&stamp_of(s, p)->echo, generation);
		atomic_store(&stamp_of(s, p)->generation, generation);
	}
}

static void arena_open(void)
{
	arena = memfd_create("share", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (arena < 0 || ftruncate(arena, ARENA) || fcntl(arena, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
		perror("memfd");
		_exit(1);
	}
	all = must(mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED, arena, 0));
	window = must(mmap(PLACE, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		0));
	for (unsigned long s = 0; s < SLOTS; s++)
		fill(s, TENANT);
}

/* Maps another slot over whatever the window shows, and gives the old one to the tenant. */
static void window_show(unsigned long s)
{
	unsigned long old = slot, g = atomic_fetch_add(&board->last, 1) + 1;

	slot = s;
	fill(s, g);
	must(mmap(window, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena,
		(off_t)(s * WINDOW)));
	truth_is(g);
	if (old != s)
		fill(old, TENANT);
}

/* ---- what the exporter may do to it ---- */

static void op_unmap(void)
{
	munmap(window, WINDOW);
	truth_is(0);
	fill(slot, TENANT);
}

static void op_over(void)
{
	must(mmap(window, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	truth_is(0);
	fill(slot, TENANT);
}

static void op_other(void)
{
	window_show((slot + 1) % SLOTS);
}

static void op_move(void)
{
	char *to = must(mremap(window, WINDOW, WINDOW, MREMAP_MAYMOVE | MREMAP_FIXED, window + ARENA));

	truth_is(0);
	munmap(to, WINDOW);
	fill(slot, TENANT);
}

static void op_remove(void)
{
	madvise(window, WINDOW, MADV_REMOVE);
	truth_is(0);
}

static void op_punch(void)
{
	fallocate(arena, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(slot * WINDOW), WINDOW);
	truth_is(0);
}

static void op_readonly(void)
{
	mprotect(window, WINDOW, PROT_READ);
	truth_is(0);
}

static void op_none(void)
{
	mprotect(window, WINDOW, PROT_NONE);
	truth_is(0);
}

static void op_second_page(void)
{
	munmap(window + PAGE, PAGE);
	atomic_store(&board->truth[1], 0); /* the other pages' views stay */
	atomic_store(&stamp_of(slot, 1)->echo, TENANT);
	atomic_store(&stamp_of(slot, 1)->generation, TENANT);
}

static void op_exec(void)
{
	execl("/bin/true", "true", (char *)NULL);
}

static void op_exit(void)
{
	exit(0);
}

static void op_exit_now(void)
{
	_exit(0);
}

static void op_neighbours(void)
{
	char *next = must(mmap(window + WINDOW, WINDOW, PROT_READ, MAP_SHARED, arena, (off_t)(slot * WINDOW)));

	mprotect(next, PAGE, PROT_NONE);
	munmap(next, WINDOW);
}

static void op_fork(void)
{
	pid_t p = fork();

	if (!p)
		_exit(0);
	waitpid(p, NULL, 0);
}

/* It holds the exporter's descriptors for as long as it lives. */
static void op_fork_stays(void)
{
	pid_t p = fork();

	if (!p) {
		pause();
		_exit(0);
	}
	atomic_store(&board->child, p);
}

struct op {
	const char *name;
	void (*fn)(void);
	int again;	 /* what attaching again to the first page, to write, says */
	bool ends;	 /* the exporter does not come back */
	bool harmless;	 /* the view is to stay */
	const char *why; /* how it begins */
};

#define SAYS "the exporter "
static const struct op ops[] = {
	{"munmap", op_unmap, -EFAULT, false, false, SAYS "unmapped"},
	{"MAP_FIXED over it", op_over, -EFAULT, false, false, SAYS "unmapped"},
	{"MAP_FIXED, another part of the same file", op_other, 0, false, false, SAYS "unmapped"},
	{"mremap", op_move, -EFAULT, false, false, SAYS "moved"},
	{"MADV_REMOVE", op_remove, 0, false, false, SAYS "discarded"},
	{"a hole in the file", op_punch, 0, false, false, SAYS "discarded"},
	{"mprotect(PROT_READ)", op_readonly, -EACCES, false, false, SAYS "changed"},
	{"mprotect(PROT_NONE)", op_none, -EACCES, false, false, SAYS "changed"},
	{"munmap of a part", op_second_page, 0, false, false, SAYS "unmapped"},
	{"exit", op_exit, -ECONNREFUSED, true, false, SAYS "exited"},
	{"_exit", op_exit_now, -ECONNREFUSED, true, false, SAYS "exited"},
	{"exec", op_exec, -ECONNREFUSED, true, false, SAYS "runs another"},
	{"changes elsewhere", op_neighbours, 0, false, true, NULL},
	{"fork", op_fork, 0, false, true, NULL},
	{"fork, and it stays", op_fork_stays, 0, false, true, NULL},
};
#define OPS (sizeof(ops) / sizeof(ops[0]))
#define FORK_STAYS (OPS - 1)
#define STORM_OPS 9 /* those before exit */

/* ---- one change after the other ---- */

struct exporter {
	pid_t pid;
	int order, done; /* pipes */
};

/* Does what it is told by number, and says so. */
static void obey(int order, int done)
{
	struct share_export *x;
	unsigned char n;
	int err;

	arena_open();
	err = share_export(&x, arena, window, WINDOW, told);
	if (err) {
		printf("cannot export: %s\n", strerror(-err));
		_exit(1);
	}
	strcpy(board->name, share_export_name(x));
	window_show(0);
	n = 0;
	while (write(done, &n, 1) == 1 && read(order, &n, 1) == 1)
		ops[n].fn();
	share_unexport(x);
	exit(0);
}

static struct exporter exporter_start(void)
{
	int to[2], from[2];
	struct exporter e;
	char c;

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		exit(1);
	fflush(stdout);
	e = (struct exporter){.pid = fork(), .order = to[1], .done = from[0]};
	if (!e.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		obey(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	if (read(e.done, &c, 1) != 1) {
		printf("no exporter\n");
		exit(1);
	}
	return e;
}

static void exporter_end(struct exporter *e)
{
	close(e->order);
	close(e->done);
	waitpid(e->pid, NULL, 0);
}

/* It runs no more until somebody else does something: asleep, or dead. */
static bool asleep(pid_t pid)
{
	char path[40], line[256], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return true;
	p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return !p || strchr("SZX", p[2]);
}

static void tell(const struct exporter *e, unsigned n)
{
	unsigned char c = (unsigned char)n;

	if (write(e->order, &c, 1) != 1)
		fail("no exporter");
}

static bool has_answered(const struct exporter *e)
{
	struct pollfd p = {.fd = e->done, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* In the middle of an access: the exporter has to wait, and what we look at stays what it was. */
static void stay_in_access(struct share_view *v, const struct exporter *e, const struct op *op)
{
	unsigned long was = atomic_load(&board->truth[0]);
	struct stamp *s;
	void *p;

	if (share_begin(v, &p))
		give_up("no access to begin with");
	s = p;
	tell(e, (unsigned)(op - ops));
	while (told && !op->harmless && !share_asked(v))
		sched_yield();
	while (!asleep(e->pid) || (!(told && !op->harmless) && !has_answered(e)))
		sched_yield();
	if (told && !op->harmless && has_answered(e))
		fail("the exporter did not wait for the importer");
	if (told && (atomic_load(&s->generation) != was || atomic_load(&board->truth[1]) != was))
		fail("changed in the middle of an access");
	share_end(v);
}

static void look_after(struct share_view *v, const struct op *op, bool held)
{
	unsigned long found = 0;
	const char *why;
	int err;

	/* Killed: nobody has asked, the kernel tells. */
	while (told && held && !share_asked(v))
		sched_yield();
	err = share_read(v, PAGE, &found, sizeof(found));
	why = share_why(v);
	if (!told) {
		printf("  %-42s the importer reads %s\n", op->name, err ? "nothing" :
			found == TENANT ? "the tenant's data" : "what is no longer there");
		board->foreign += !err && found == TENANT;
		return;
	}
	printf("  %-42s %s%s%s\n", op->name, err ? strerror(-err) : "goes on", why ? ": " : "", why ? why : "");
	if (op->harmless ? err != 0 : err != -ESTALE || !why || strncmp(why, op->why, strlen(op->why)))
		fail("not what it should have been");
}

static void look_again(const struct op *op)
{
	struct share_view *v;
	int err = share_attach(&v, board->name, 0, PAGE, true);

	/* Told of the exec, we may come before the kernel has closed its listening socket. */
	if (op->ends && err == -ECONNRESET)
		err = -ECONNREFUSED;
	if (err != op->again) {
		printf("attaching again: %s\n", strerror(-err));
		fail("not what it should have been");
	}
	if (!err)
		share_detach(v);
}

static void one_change(const struct op *op)
{
	struct exporter e = exporter_start();
	struct share_view *v;
	char c;
	int err = share_attach(&v, board->name, 0, WINDOW, true);

	if (err) {
		printf("attach: %s\n", strerror(-err));
		fail("cannot attach");
	} else {
		stay_in_access(v, &e, op);
		if (read(e.done, &c, 1) != !op->ends)
			fail("the exporter did not go on");
		look_after(v, op, op->ends);
		if (told)
			look_again(op);
		share_detach(v);
	}
	exporter_end(&e);
}

/*
 * Killed, idle: the kernel is who tells the importer; by the death of the process, as the
 * connection is still held by a child.
 */
static void killed_idle(void)
{
	static const struct op op = {"kill -9 of the exporter", NULL, 0, true, false, SAYS "ended without"};
	struct exporter e = exporter_start();
	struct share_view *v;
	unsigned long found;
	char c;

	if (share_attach(&v, board->name, 0, WINDOW, true))
		give_up("cannot attach");
	tell(&e, FORK_STAYS);
	if (read(e.done, &c, 1) != 1 || share_read(v, PAGE, &found, sizeof(found)))
		fail("a fork of the exporter ends the view");
	kill(e.pid, SIGKILL);
	do { /* what it left, or nothing */
		found = atomic_load(&board->last);
	} while (!share_read(v, PAGE, &found, sizeof(found)) && found == atomic_load(&board->last));
	if (found != atomic_load(&board->last))
		fail("a dead one's memory changed");
	look_after(v, &op, true);
	share_detach(v);
	exporter_end(&e);
	kill(board->child, SIGKILL);
}

/* Killed while its callback waits for us. */
static void killed_waiting(void)
{
	static const struct op op = {"kill -9 of the exporter in its callback", op_unmap, 0, true, false,
		SAYS "unmapped"};
	struct exporter e = exporter_start();
	struct share_view *v;
	struct stamp *s;
	void *p;

	if (share_attach(&v, board->name, 0, WINDOW, true) || share_begin(v, &p))
		give_up("cannot attach");
	s = p;
	tell(&e, 0);
	while (!share_asked(v))
		sched_yield();
	kill(e.pid, SIGKILL);
	waitpid(e.pid, NULL, 0);
	if (atomic_load(&s->generation) != atomic_load(&board->last))
		fail("changed in the middle of an access");
	share_end(v);
	look_after(v, &op, true);
	share_detach(v);
	exporter_end(&e);
}

/*
 * The importer is killed while the exporter's callback waits for it: the exporter goes on, though a child
 * of the dead one's still holds the connection.
 */
static void importer_killed(void)
{
	struct exporter e = exporter_start();
	struct share_view *v;
	void *p;
	char c;
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (share_attach(&v, board->name, 0, WINDOW, true) || share_begin(v, &p))
			_exit(1);
		op_fork_stays();
		tell(&e, 0);
		while (!share_asked(v))
			sched_yield();
		atomic_store(&board->ready, true);
		for (;;)
			pause();
	}
	while (!atomic_load(&board->ready))
		sched_yield();
	while (!asleep(e.pid))
		sched_yield();
	if (has_answered(&e))
		fail("the exporter did not wait for the importer");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (read(e.done, &c, 1) != 1)
		fail("the exporter did not go on");
	kill(board->child, SIGKILL);
	printf("  %-42s the exporter goes on\n", "kill -9 of the importer in an access");
	atomic_store(&board->ready, false);
	exporter_end(&e);
}

static void wrong_use(void)
{
	struct exporter e = exporter_start();
	struct share_view *v;
	unsigned long word = 0;
	void *p;
	pid_t pid;
	int status;

	if (share_attach(&v, board->name, 1, PAGE, false) != -EINVAL ||
	    share_attach(&v, board->name, 0, 0, false) != -EINVAL ||
	    share_attach(&v, board->name, WINDOW, PAGE, false) != -EINVAL ||
	    share_attach(&v, board->name, PAGE, -PAGE, false) != -EINVAL ||
	    share_attach(&v, "share-nobody", 0, PAGE, false) != -ECONNREFUSED)
		fail("attached to what there is not");
	if (share_attach(&v, board->name, 0, PAGE, false))
		give_up("cannot attach");
	if (share_read(v, PAGE - 1, &word, 8) != -EINVAL || share_write(v, 0, &word, 8) != -EACCES)
		fail("read beyond the end, or wrote to what is read only");
	pid = fork();
	if (!pid)
		_exit(share_begin(v, &p) != -ESTALE);
	waitpid(pid, &status, 0);
	if (status)
		fail("a fork child believes it has the view");
	share_detach(v);
	exporter_end(&e);
}

/* ---- the storm ---- */

static unsigned long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long)t.tv_sec * 1000000 + (unsigned long)t.tv_nsec / 1000;
}

/* Who yields on a busy machine does not come back for milliseconds: then once is enough. */
static void linger(unsigned long n)
{
	unsigned long until = now_us() + n;

	while (n-- && now_us() <= until)
		sched_yield();
}

/* The pages that are the tenant's still hold what is the tenant's. */
static void check_tenant(unsigned long s)
{
	for (unsigned long p = 0; p < PAGES; p++)
		board->strays += stamp_of(s, p)->echo != TENANT;
}

static void storm_exporter(unsigned long seed)
{
	struct share_export *x;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	arena_open();
	if (share_export(&x, arena, window, WINDOW, told))
		_exit(1);
	strcpy(board->name, share_export_name(x));
	atomic_store(&board->ready, true);
	while (!atomic_load(&board->stop)) {
		unsigned long s = (slot + 1 + next_random(&seed) % (SLOTS - 1)) % SLOTS;

		check_tenant(s);
		atomic_store(&board->exporter, CHANGING);
		window_show(s);
		atomic_store(&board->exporter, IDLE);
		board->steps++;
		linger(next_random(&seed) % 512);
		atomic_store(&board->exporter, CHANGING);
		ops[next_random(&seed) % STORM_OPS].fn();
		atomic_store(&board->exporter, IDLE);
		board->steps++;
		board->rounds++;
		if (!(next_random(&seed) % 4))
			linger(next_random(&seed) % 64);
	}
	exit(0); /* the importer is told */
}

/* What there was to see around an access. */
struct sight {
	bool changing; /* a change was under way, at its begin or its end */
	unsigned long before, found, after;
};

/*
 * `mine`: what this view showed when nothing was under way. From then on, until it is over, the
 * truth is that and nothing else. (A view that begins just behind a change may see that the
 * truth is not yet written down; it has none of its own as yet.)
 */
static void judge(const struct sight *s, unsigned long *mine)
{
	board->accesses++;
	board->foreign += s->found == TENANT;
	if (*mine)
		board->stale += s->before != *mine || s->found != *mine || s->after != *mine;
	else if (!s->changing && s->before == s->after && s->before) {
		board->stale += s->found != s->before;
		*mine = s->before;
	}
}

static int access_once(struct share_view *v, const atomic_ulong *truth, bool write, unsigned long *seed,
	unsigned long *mine)
{
	struct sight look;
	struct stamp *s;
	void *p;
	int err = share_begin(v, &p);

	if (err)
		return err;
	s = p;
	look.changing = atomic_load(&board->exporter) == CHANGING;
	look.before = atomic_load(truth);
	look.found = atomic_load(&s->generation);
	linger(next_random(seed) % 3);
	if (share_asked(v)) {
		atomic_store(&board->importer, ASKED);
		linger(next_random(seed) % 256);
	}
	if (write)
		atomic_store(&s->echo, look.before);
	look.after = atomic_load(truth);
	look.changing |= atomic_load(&board->exporter) == CHANGING;
	judge(&look, mine);
	share_end(v);
	return 0;
}

static void storm_importer(unsigned long seed)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!atomic_load(&board->stop)) {
		bool write = next_random(&seed) & 1;
		unsigned long mine = 0, n = next_random(&seed) % 200, page = next_random(&seed) % PAGES;
		struct share_view *v;
		int err;

		atomic_store(&board->importer, ATTACHING);
		err = share_attach(&v, board->name, page * PAGE, PAGE, write);
		board->steps++;
		if (err == -ECONNREFUSED || err == -ECONNRESET)
			exit(0);
		if (err) {
			board->refused++;
			if (err != -EFAULT && err != -EACCES && err != -ESTALE) {
				printf("attach: %s\n", strerror(-err));
				exit(1);
			}
			continue;
		}
		atomic_store(&board->importer, READING);
		while (n-- && !access_once(v, &board->truth[page], write, &seed, &mine))
			linger(next_random(&seed) % 4);
		atomic_store(&board->importer, DETACHING);
		board->steps++;
		share_detach(v);
	}
	exit(0);
}

static pid_t start(void (*fn)(unsigned long), unsigned long seed)
{
	pid_t p;

	fflush(stdout);
	p = fork();
	if (!p)
		fn(seed);
	return p;
}

static pid_t start_exporter(unsigned long *seed)
{
	pid_t p;

	atomic_store(&board->ready, false);
	truth_is(0);
	p = start(storm_exporter, next_random(seed));
	while (!atomic_load(&board->ready) && !waitpid(p, NULL, WNOHANG))
		sched_yield();
	return p;
}

static void reap(pid_t p, bool was_killed, const char *who)
{
	int status = -1;

	if (waitpid(p, &status, 0) != p ||
	    (was_killed ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL : status != 0)) {
		printf("the %s: status %#x\n", who, (unsigned)status);
		fail("it did not end as it should");
	}
}

/* Until more than `more` of what is counted have happened. */
static void until_more(const atomic_ulong *counter, unsigned long more)
{
	unsigned long from = atomic_load(counter);

	while (atomic_load(counter) - from < more)
		sched_yield();
}

static void storm(unsigned long kills, unsigned long seed)
{
	unsigned long hit[2][PHASES] = {{0}};
	pid_t exporter = start_exporter(&seed), importer = start(storm_importer, next_random(&seed));

	for (unsigned long k = 0; k < kills; k++) {
		until_more(&board->steps, next_random(&seed) % 40);
		for (volatile unsigned long spin = next_random(&seed) % 20000; spin; spin--)
			;
		if (next_random(&seed) % 3) {
			kill(importer, SIGKILL);
			reap(importer, true, "importer");
			hit[0][board->importer]++;
			until_more(&board->rounds, 3); /* nobody waits for the dead */
		} else {
			kill(exporter, SIGKILL);
			reap(exporter, true, "exporter");
			hit[1][board->exporter]++;
			reap(importer, false, "importer"); /* it noticed, and ended by itself */
			exporter = start_exporter(&seed);
		}
		importer = start(storm_importer, next_random(&seed));
	}
	atomic_store(&board->stop, true);
	reap(importer, false, "importer");
	reap(exporter, false, "exporter");
	for (int i = 0; i < PHASES; i++)
		if (hit[0][i] + hit[1][i])
			printf("  %lu killed while %s\n", hit[0][i] + hit[1][i], phase_name[i]);
	printf("  %lu changes, %lu accesses, %lu times nothing to attach to\n", board->rounds,
		board->accesses, board->refused);
	printf("  the tenant's data read: %lu, other stale data: %lu, written over the tenant's: %lu\n",
		board->foreign, board->stale, board->strays);
}

int main(int argc, char **argv)
{
	unsigned long seed = (unsigned long)time(NULL) ^ (unsigned long)getpid() << 20, kills = 60;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--without"))
			told = false;
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoul(argv[++i], NULL, 0);
		else
			kills = strtoul(argv[i], NULL, 0);
	}
	signal(SIGPIPE, SIG_IGN);
	board = must(mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	printf("%s notifiers, one change after the other:\n", told ? "with" : "without");
	for (unsigned i = 0; i < FORK_STAYS; i++)
		if (told || !(ops[i].ends || ops[i].harmless))
			one_change(&ops[i]);
	if (told) {
		killed_idle();
		killed_waiting();
		importer_killed();
		wrong_use();
	}
	printf("%lu kills, seed %lu:\n", kills, seed);
	storm(kills, seed | 1);
	if (!told)
		return board->foreign && board->stale && board->strays ? 3 : 1;
	return failures || board->foreign || board->stale || board->strays;
}
