/* SPDX-License-Identifier: MIT */
/* basics.c - the ring, one thing at a time. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "ring_test.h"

static void test_errors(void)
{
	struct shunt_ring_options bad = {.size = 4096, .page_size = 3000};
	struct shunt_ring *r = make(1 << 20, 4096, SHUNT_RING_DISCARD, 0), *again;
	char junk[8192] = "junk";
	int fd;

	ok(shunt_ring_create(ring_path, NULL, &again) == -EEXIST, "an existing file is left alone");
	ok(shunt_ring_create("/dev/shm/shunt-no", &bad, &again) == -EINVAL, "bad sizes");
	bad = (struct shunt_ring_options){.size = 1ULL << 60};
	ok(shunt_ring_create("/dev/shm/shunt-no", &bad, &again) < 0 &&
			access("/dev/shm/shunt-no", F_OK),
		"a pool that cannot be is refused, and leaves no file");
	ok(shunt_ring_write(r, 4096, "x", 1) == -EINVAL, "a type beyond the limit");
	ok(shunt_ring_write(r, 1, junk, 4096) == -EMSGSIZE, "a payload beyond the limit");
	ok(shunt_ring_write(r, 1, junk, 4095) == -EMSGSIZE, "or beyond a page");
	drop(r);
	fd = open(ring_path, O_RDWR | O_CREAT, 0600);
	ok(write(fd, junk, sizeof junk) == sizeof junk &&
			shunt_ring_open(ring_path, 0, 0, &again) == -EINVAL,
		"a file that is no ring");
	close(fd);
	unlink(ring_path);
	ok(shunt_ring_open(ring_path, 0, 0, &again) == -ENOENT, "no file");
}

struct seen {
	uint64_t n, last, bad;
	uint32_t next;
};

static void in_order(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	struct seen *s = arg;

	(void)p;
	s->bad += e->ts < s->last;
	s->last = e->ts;
	if (e->kind == SHUNT_RING_EVENT_SHORT) {
		s->bad += e->tag != s->next;
	} else if (e->kind == SHUNT_RING_EVENT_LONG) {
		const unsigned char *d = e->data;

		s->bad += e->tag != s->next % 4096 || e->len != s->next % 300;
		for (size_t i = 0; i < e->len; i++)
			s->bad += d[i] != (unsigned char)(s->next + i);
	} else {
		s->bad++;
	}
	s->next++;
	s->n++;
}

static void test_content(enum shunt_ring_clock clock, const char *name)
{
	struct shunt_ring *r = make(4 << 20, 1024, SHUNT_RING_DISCARD, clock);
	struct shunt_ring_thread t;
	struct seen s = {0};
	unsigned char data[300];
	uint64_t n = 0;

	for (uint32_t i = 0; i < 100000; i++) {
		if (i % 3) {
			shunt_ring_put(r, i);
		} else {
			for (size_t k = 0; k < i % 300; k++)
				data[k] = (unsigned char)(i + k);
			shunt_ring_write(r, i % 4096, data, i % 300);
		}
		if (i % 1000 == 0)
			n += consume(r, in_order, &s);
	}
	shunt_ring_reap(r, 1);
	n += consume(r, in_order, &s);
	shunt_ring_account(r, &t, NULL, NULL);
	ok(n == 100000 && s.n == n && s.bad == 0, "%s: all events, as written, in order (%lu bad)",
		name, (unsigned long)s.bad);
	ok(t.written == n && t.read == n && !t.discarded && !t.torn, "%s: the account", name);
	drop(r);
}

static void test_full(void)
{
	struct shunt_ring *r = make(64 << 10, 1024, SHUNT_RING_DISCARD, 0);
	uint64_t failed = 0, n;
	struct shunt_ring_thread t;

	for (int i = 0; i < 100000; i++)
		failed += shunt_ring_put(r, 1) == -ENOSPC;
	shunt_ring_account(r, &t, NULL, NULL);
	ok(failed && t.discarded == failed && t.written + failed == 100000,
		"discard: a full pool refuses, and counts");
	ok(shunt_ring_held(r) == t.written, "discard: what was written is there");
	n = consume(r, NULL, NULL);
	ok(n > 0 && shunt_ring_put(r, 1) == 0, "discard: there is room again");
	drop(r);

	r = make(64 << 10, 1024, SHUNT_RING_OVERWRITE, 0);
	for (uint32_t i = 0; i < 100000; i++)
		failed += shunt_ring_put(r, i) != 0 ? 1000000 : 0;
	shunt_ring_account(r, &t, NULL, NULL);
	ok(failed < 1000000 && t.written == 100000 &&
			t.written == t.overwritten + shunt_ring_held(r),
		"overwrite: nothing is refused, and what is gone is counted");
	shunt_ring_reap(r, 1);
	{
		struct seen s = {0};

		s.next = (uint32_t)t.overwritten;
		n = consume(r, in_order, &s);
		ok(n == 100000 - t.overwritten && !s.bad, "overwrite: the newest are kept");
	}
	drop(r);
}

/* --- children --------------------------------------------------------------------- */

static uint32_t pids[2];
static uint64_t by_pid[2], wrong;

static void whose(const struct shunt_ring_page *p, const struct shunt_ring_event *e, void *arg)
{
	(void)arg;
	if (p->pid == pids[0] && e->tag == 1)
		by_pid[0]++;
	else if (p->pid == pids[1] && e->tag == 2)
		by_pid[1]++;
	else
		wrong++;
}

static void test_raw_fork(void)
{
	struct shunt_ring *r = make(4 << 20, 1024, SHUNT_RING_DISCARD, 0);
	long pid;

	for (int i = 0; i < 10; i++)
		shunt_ring_put(r, 1);
	/* No atfork handler runs: the child has all of its parent's memory. */
	pid = syscall(SYS_fork);
	for (int i = 0; i < 50000; i++)
		shunt_ring_put(r, pid ? 1 : 2);
	if (!pid)
		syscall(SYS_exit_group, 0);
	waitpid((pid_t)pid, NULL, 0);
	pids[0] = (uint32_t)getpid();
	pids[1] = (uint32_t)pid;
	shunt_ring_reap(r, 1);
	consume(r, whose, NULL);
	ok(by_pid[0] == 50010 && by_pid[1] == 50000 && !wrong,
		"a child by a bare fork writes pages of its own (%lu, %lu, %lu)",
		(unsigned long)by_pid[0], (unsigned long)by_pid[1], (unsigned long)wrong);
	drop(r);
}

/* --- a ring closed beside a thread that wrote, and its place taken by another ------ */

static struct shunt_ring *closing;
static pthread_barrier_t turn;

static void *outlives(void *arg)
{
	(void)arg;
	shunt_ring_put(closing, 1);
	shunt_ring_write(closing, 1, "12345678", 8);
	pthread_barrier_wait(&turn);
	/* The ring is closed here, and another made. */
	pthread_barrier_wait(&turn);
	for (int i = 0; i < 10; i++) {
		shunt_ring_put(closing, 2);
		shunt_ring_write(closing, 1, "12345678", 8);
	}
	return NULL;
}

static void test_close(void)
{
	struct shunt_ring *reader;
	struct shunt_ring_thread t;
	pthread_t thread;
	uint64_t n;

	closing = make(1 << 20, 4096, SHUNT_RING_DISCARD, 0);
	pthread_barrier_init(&turn, NULL, 2);
	pthread_create(&thread, NULL, outlives, NULL);
	pthread_barrier_wait(&turn);
	ok(!shunt_ring_open(ring_path, 0, SHUNT_RING_READ, &reader), "another handle of a ring");
	drop(closing);
	n = consume(reader, NULL, NULL);
	shunt_ring_account(reader, &t, NULL, NULL);
	ok(n == 2 && t.read == 2, "a closed ring has what its living threads wrote (%lu)",
		(unsigned long)n);
	closing = make(1 << 20, 4096, SHUNT_RING_DISCARD, 0);
	pthread_barrier_wait(&turn);
	pthread_join(thread, NULL);
	ok(consume(closing, NULL, NULL) == 20, "and they write to the next one");
	drop(closing);
	shunt_ring_close(reader);
}

/* --- many threads ------------------------------------------------------------------ */

static struct shunt_ring *many;
static pthread_barrier_t gate;

static void *one_of_many(void *arg)
{
	pthread_barrier_wait(&gate);
	for (int i = 0; i < 200; i++)
		shunt_ring_put(many, (uint32_t)(long)arg);
	pthread_barrier_wait(&gate); /* all have a page at the same time */
	return NULL;
}

static void test_many(void)
{
	enum { N = 2000 };
	static pthread_t t[N];
	struct shunt_ring_thread total;
	pthread_attr_t a;
	uint64_t n;
	int made = 0;

	many = make(4 << 20, 0, SHUNT_RING_DISCARD, 0);
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	pthread_barrier_init(&gate, NULL, N);
	for (; made < N; made++)
		if (pthread_create(&t[made], &a, one_of_many, (void *)(long)made))
			break;
	if (made < N) {
		skip("only %d threads can be had", made);
		_exit(done());
	}
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	n = consume(many, NULL, NULL);
	shunt_ring_account(many, &total, NULL, NULL);
	ok(total.written + total.discarded == N * 200 && n == total.written && total.read == n,
		"2,000 threads, 4 MiB: %lu written, %lu discarded, none lost",
		(unsigned long)total.written, (unsigned long)total.discarded);
	ok(total.written > N * 100, "and most of it has room");
	drop(many);
}

/* --- longjmp out of a handler ---------------------------------------------------------- */

static struct shunt_ring *jumped;
static sigjmp_buf out;
static volatile int jumping, handled;

static void jump(int sig)
{
	(void)sig;
	shunt_ring_put(jumped, 2);
	handled++;
	if (jumping)
		siglongjmp(out, 1);
}

static void test_longjmp(void)
{
	struct itimerval fast = {{0, 50}, {0, 50}}, off = {0};
	struct shunt_ring_thread t;
	volatile uint64_t tried = 0;
	uint64_t n;

	jumped = make(64 << 20, 4096, SHUNT_RING_OVERWRITE, 0);
	signal(SIGALRM, jump);
	setitimer(ITIMER_REAL, &fast, NULL);
	while (handled < 10000) {
		if (sigsetjmp(out, 1))
			continue;
		jumping = 1;
		for (;;) {
			shunt_ring_put(jumped, 1);
			tried++;
		}
	}
	setitimer(ITIMER_REAL, &off, NULL);
	jumping = 0;
	shunt_ring_put(jumped, 3);
	shunt_ring_account(jumped, &t, NULL, NULL);
	n = shunt_ring_held(jumped) + t.overwritten;
	/*
	 * A jump may come between an event and its count, or between the taking
	 * of a page (503 events) and its count: two instructions in some thousand.
	 */
	ok(n + 10000 >= t.written && n <= t.written + 10000 && t.discarded == 0,
		"10,000 longjmps out of handlers that interrupted a writer (%lu there, %lu written, "
		"%lu discarded)",
		(unsigned long)n, (unsigned long)t.written, (unsigned long)t.discarded);
	ok(n >= tried, "every event that was completed is there");
	drop(jumped);
}

static void test_full_fs(void)
{
	struct shunt_ring_options o = {.size = 8 << 20};
	struct shunt_ring *r;
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
			mount("none", "/dev/shm", "tmpfs", 0, "size=4m"))
			_exit(77);
		if (shunt_ring_create("/dev/shm/small", &o, &r) != -ENOSPC ||
			!access("/dev/shm/small", F_OK))
			_exit(1);
		o.size = 2 << 20;
		_exit(shunt_ring_create("/dev/shm/small", &o, &r) ? 2 : 0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip("no mount namespace here");
	else
		ok(status == 0, "a full file system is -ENOSPC, and no SIGBUS (status %x)", status);
}

static void test_garbage(void)
{
	static uint64_t page[512];
	struct shunt_ring_cursor c;
	struct shunt_ring_event e;
	uint64_t seed = 88172645463325252u, n = 0;

	diag("seed %llu", (unsigned long long)seed);
	for (int round = 0; round < 20000; round++) {
		for (int i = 0; i < 512; i++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			page[i] = seed >> (seed & 31);
		}
		((struct shunt_ring_page *)(void *)page)->magic = SHUNT_RING_PAGE_MAGIC;
		((struct shunt_ring_page *)(void *)page)->version = 1;
		((struct shunt_ring_page *)(void *)page)->header = 64;
		if (shunt_ring_events(page, 64 + (size_t)round % 4033, &c))
			continue;
		while (shunt_ring_event_next(&c, &e) == 1) {
			const char *d = e.data;

			n += 1 + (e.len && d[e.len - 1]);
		}
	}
	ok(n > 0, "garbage is taken apart without a crash");
}

int main(void)
{
	test_errors();
	test_content(SHUNT_RING_CLOCK_AUTO, "auto");
	test_content(SHUNT_RING_CLOCK_MONOTONIC, "monotonic");
	test_content(SHUNT_RING_CLOCK_NONE, "no clock");
	test_full();
	test_raw_fork();
	test_longjmp();
	test_full_fs();
	test_garbage();
	test_close();
	test_many();
	return done();
}
