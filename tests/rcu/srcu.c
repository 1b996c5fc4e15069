/* SPDX-License-Identifier: MIT */
/* srcu.c - sleepable RCU: what its grace periods wait for, and what they do not. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "rcu/reader.h"
#include "../step.h"
#include "rcu_test.h"

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static SHUNT_SRCU_DEFINE(fixed);

/* --- one reader, one who waits -------------------------------------------------- */

struct reader {
	struct shunt_srcu *d;
	pthread_t thread;
	atomic_int at;	 /* 1: inside, 2: may leave, 3: has left, 4: may end */
	bool again;	 /* enters another one before it leaves */
};

static void *reads(void *arg)
{
	struct reader *r = arg;
	int second = -1, idx = shunt_srcu_read_lock(r->d);

	reach(&r->at, 1);
	await(&r->at, 2);
	if (r->again)
		second = shunt_srcu_read_lock(r->d);
	shunt_srcu_read_unlock(r->d, idx);
	reach(&r->at, 3);
	await(&r->at, 4);
	if (r->again)
		shunt_srcu_read_unlock(r->d, second);
	return NULL;
}

static void reader_start(struct reader *r, struct shunt_srcu *d)
{
	*r = (struct reader){.d = d};
	pthread_create(&r->thread, NULL, reads, r);
	await(&r->at, 1);
}

static void reader_end(struct reader *r)
{
	if (r->at < 2)
		reach(&r->at, 2);
	await(&r->at, 3);
	reach(&r->at, 4);
	pthread_join(r->thread, NULL);
}

struct waiter {
	struct shunt_srcu *d;
	pthread_t thread;
	atomic_int done;
	bool hurry;
	int err;
};

static void *waits(void *arg)
{
	struct waiter *w = arg;

	w->err = w->hurry ? shunt_srcu_synchronize_expedited(w->d) : shunt_srcu_synchronize(w->d);
	reach(&w->done, 1);
	return NULL;
}

static void waiter_start(struct waiter *w, struct shunt_srcu *d, bool hurry)
{
	*w = (struct waiter){.d = d, .hurry = hurry};
	pthread_create(&w->thread, NULL, waits, w);
}

/* Whether it still waits after enough rounds of somebody who is not waited for. */
static bool keeps_waiting(struct waiter *w)
{
	SHUNT_SRCU_DEFINE(other);

	for (int i = 0; i < 300 && !w->done; i++) {
		shunt_srcu_synchronize(&other);
		sched_yield();
	}
	for (int i = 0; i < 30 && !w->done; i++)
		usleep(300);
	shunt_srcu_cleanup(&other);
	return !w->done;
}

static void waits_for_readers(bool hurry)
{
	const char *name = hurry ? "expedited" : "synchronize";
	struct waiter w, v;
	struct reader r;

	reader_start(&r, &fixed);
	waiter_start(&w, &fixed, hurry);
	ok(keeps_waiting(&w), "%s waits for a section", name);
	reader_end(&r);
	pthread_join(w.thread, NULL);
	ok(!w.err, "%s returns when it is over", name);

	/* One that enters meanwhile is not waited for: what it began before is. */
	reader_start(&r, &fixed);
	r.again = true;
	waiter_start(&w, &fixed, hurry);
	ok(keeps_waiting(&w), "%s waits, a second time", name);
	reach(&r.at, 2);
	await(&r.at, 3);
	pthread_join(w.thread, NULL);
	ok(!w.err, "%s does not wait for a section that began meanwhile", name);
	waiter_start(&v, &fixed, hurry);
	ok(keeps_waiting(&v), "%s: but the next one does", name);
	reader_end(&r);
	pthread_join(v.thread, NULL);
	ok(shunt_srcu_synchronize(&fixed) == 0, "%s: idle again", name);
}

static void apart(void)
{
	SHUNT_SRCU_DEFINE(a);
	SHUNT_SRCU_DEFINE(b);
	struct reader r;

	reader_start(&r, &a);
	ok(shunt_srcu_synchronize(&b) == 0, "a domain does not wait for another's readers");
	ok(shunt_srcu_cleanup(&a) == -EBUSY, "cleanup with a reader inside: -EBUSY");
	reader_end(&r);
	ok(shunt_srcu_cleanup(&a) == 0 && shunt_srcu_cleanup(&b) == 0, "cleanup when all have left");
	ok(shunt_srcu_cleanup(&a) == 0, "cleanup of what is a new one");
}

static void nested(void)
{
	int i = shunt_srcu_read_lock(&fixed), j = shunt_srcu_read_lock(&fixed);

	ok(shunt_srcu_synchronize(&fixed) == -EDEADLK, "synchronize inside: -EDEADLK");
	ok(shunt_srcu_barrier(&fixed) == -EDEADLK, "barrier inside: -EDEADLK");
	shunt_srcu_read_unlock(&fixed, j);
	ok(shunt_srcu_synchronize_expedited(&fixed) == -EDEADLK, "expedited inside: -EDEADLK");
	shunt_srcu_read_unlock(&fixed, i);
	ok(shunt_srcu_synchronize(&fixed) == 0, "and outside: 0");
}

/* --- polling --------------------------------------------------------------------- */

static void polling(void)
{
	uint64_t s, t;
	struct reader r;
	bool early = false;
	int n = 0;

	reader_start(&r, &fixed);
	s = shunt_srcu_get_state(&fixed);
	t = shunt_srcu_start_poll(&fixed);
	for (int i = 0; i < 1000; i++)
		early = shunt_srcu_poll_state(&fixed, s) || shunt_srcu_poll_state(&fixed, t) || early;
	ok(!early, "a state is not reached while a section goes on");
	reader_end(&r);
	while (!shunt_srcu_poll_state(&fixed, t))
		sched_yield();
	ok(shunt_srcu_poll_state(&fixed, s), "it is when it is over, and so are older ones");
	s = shunt_srcu_get_state(&fixed);
	while (!shunt_srcu_poll_state(&fixed, s) && n < 100)
		n++;
	ok(n < 100, "polls alone reach it (%d)", n);
	s = shunt_srcu_get_state(&fixed);
	shunt_srcu_synchronize(&fixed);
	n = (int)fixed.seq;
	ok(shunt_srcu_poll_state(&fixed, s) && (int)fixed.seq == n,
		"a grace period of another's reaches it");
	s = shunt_srcu_start_poll(&fixed);
	/* By the library's thread: nobody else does anything. */
	while (__atomic_load_n(&fixed.seq, __ATOMIC_ACQUIRE) < s)
		sched_yield();
	ok(shunt_srcu_poll_state(&fixed, 0), "start_poll has it done; 0 is always reached");
}

/* --- callbacks --------------------------------------------------------------------- */

struct item {
	struct shunt_rcu_head head;
	int number;
};
static atomic_int calls, out_of_order, hold;
static int last;

static void called(struct shunt_rcu_head *head)
{
	struct item *i = (struct item *)head;

	out_of_order += i->number != last + 1;
	last = i->number;
	free(i);
	calls++;
}

static void hand_over(struct shunt_srcu *d, int n)
{
	struct item *i = malloc(sizeof *i);

	i->number = n;
	shunt_srcu_call(d, &i->head, called);
}

static struct shunt_srcu *again_in;
static atomic_int agains, inner_err;

static void again(struct shunt_rcu_head *head)
{
	inner_err |= shunt_srcu_barrier(again_in) != -EDEADLK;
	inner_err |= shunt_srcu_cleanup(again_in) != -EBUSY;
	inner_err |= shunt_srcu_synchronize(&fixed) != 0;
	if (++agains < 5)
		inner_err |= shunt_srcu_call(again_in, head, again);
}

static void held(struct shunt_rcu_head *head)
{
	(void)head;
	reach(&hold, 1);
	await(&hold, 2);
}

static void *cleans_up(void *arg)
{
	struct waiter *w = arg;

	w->err = shunt_srcu_cleanup(w->d);
	reach(&w->done, 1);
	return NULL;
}

static void callbacks(void)
{
	struct shunt_rcu_head one;
	struct shunt_srcu d;
	struct reader r;
	struct waiter w;
	int early;

	ok(!shunt_srcu_init(&d) && shunt_srcu_barrier(&d) == 0, "a barrier for no callbacks");
	reader_start(&r, &d);
	for (int n = 1; n <= 1000; n++)
		hand_over(&d, n);
	hand_over(&fixed, 0), early = -1;
	while (calls < 1)
		sched_yield();
	early += calls;
	ok(!early, "a section keeps its domain's callbacks, and no others (%d)", early);
	ok(shunt_srcu_cleanup(&d) == -EBUSY, "cleanup with callbacks waiting: -EBUSY");
	last = 0;
	out_of_order = 0;
	reader_end(&r);
	early = shunt_srcu_barrier(&d);
	ok(!early && calls == 1001, "barrier: all have been called (%d)", calls);
	ok(!out_of_order, "in the order in which they were handed over");
	again_in = &d;
	agains = 0;
	ok(!shunt_srcu_call(&d, &one, again), "one that hands itself in again");
	for (int i = 0; i < 5; i++)
		shunt_srcu_barrier(&d);
	ok(agains == 5 && !inner_err, "is called again; from it: no barrier, no cleanup; synchronize");

	shunt_srcu_call(&d, &one, held);
	await(&hold, 1);
	w = (struct waiter){.d = &d};
	pthread_create(&w.thread, NULL, cleans_up, &w);
	ok(keeps_waiting(&w), "cleanup waits for a callback that is running");
	reach(&hold, 2);
	pthread_join(w.thread, NULL);
	ok(!w.err, "and goes on behind it");
}

/* --- threads ---------------------------------------------------------------------------- */

static void *leaves(void *arg)
{
	struct reader *r = arg;

	shunt_srcu_read_unlock(r->d, r->at);
	return NULL;
}

static void *enters(void *arg)
{
	struct reader *r = arg;

	r->at = shunt_srcu_read_lock(r->d);
	return NULL;
}

/* Entered on a thread that ends, left on another: this is what coroutines come to. */
static void moved(void)
{
	SHUNT_SRCU_DEFINE(d);
	struct reader r = {.d = &d};
	struct waiter w;

	for (int i = 0; i < 100; i++) {
		pthread_create(&r.thread, NULL, enters, &r);
		pthread_join(r.thread, NULL);
		if (i == 99) {
			waiter_start(&w, &d, false);
			ok(keeps_waiting(&w), "a section whose thread has ended is waited for");
		}
		pthread_create(&r.thread, NULL, leaves, &r);
		pthread_join(r.thread, NULL);
	}
	pthread_join(w.thread, NULL);
	ok(!w.err && !shunt_srcu_synchronize(&d), "until another thread leaves it");
	r.at = shunt_srcu_read_lock(&d);
	pthread_create(&r.thread, NULL, leaves, &r);
	pthread_join(r.thread, NULL);
	reader_start(&r, &d);
	ok(shunt_srcu_cleanup(&d) == -EBUSY, "sums that are not even by thread: still right");
	waiter_start(&w, &d, true);
	ok(keeps_waiting(&w), "waited for");
	reader_end(&r);
	pthread_join(w.thread, NULL);
	ok(!w.err && !shunt_srcu_cleanup(&d), "and then not");
}

static void *one_section(void *arg)
{
	struct shunt_srcu *d = arg;

	shunt_srcu_read_unlock(d, shunt_srcu_read_lock(d));
	return shunt_srcu_self;
}

static int blocks(void)
{
	int n = 0;

	for (struct shunt_reader *r = shunt_reader_first(); r; r = r->next)
		n++;
	return n;
}

static void come_and_go(void)
{
	pthread_t t[20];
	int before = blocks();

	for (int i = 0; i < 100; i++) {
		for (int k = 0; k < 20; k++)
			pthread_create(&t[k], NULL, one_section, &fixed);
		for (int k = 0; k < 20; k++)
			pthread_join(t[k], NULL);
	}
	ok(blocks() - before <= 60, "2,000 threads came and went: %d blocks more", blocks() - before);
	ok(shunt_srcu_synchronize(&fixed) == 0, "with their sums even");
}

/* --- fork ------------------------------------------------------------------------------------ */

static int in_child(int idx, bool raw)
{
	struct item *i = malloc(sizeof *i);

	end_after(20);
	if (shunt_srcu_synchronize(&fixed) != -EDEADLK)
		return 1; /* its own section is still there */
	shunt_srcu_read_unlock(&fixed, idx);
	if (shunt_srcu_synchronize(&fixed))
		return 2; /* the other thread's is not */
	i->number = 1;
	if (shunt_srcu_call(&fixed, &i->head, called) || shunt_srcu_barrier(&fixed))
		return 3;
	/* A grandchild's is the same. */
	if (!raw) {
		idx = shunt_srcu_read_lock(&fixed);
		pid_t pid = fork();

		if (!pid)
			_exit(shunt_srcu_synchronize(&fixed) != -EDEADLK);
		if (exit_of(pid))
			return 4;
		shunt_srcu_read_unlock(&fixed, idx);
	}
	/* What was waiting is called, too; unless it may be half changed. */
	return calls == (raw ? 1 : 2) ? 0 : 5;
}

static void forks(bool raw)
{
	const char *name = raw ? "the system call" : "fork()";
	struct waiter w;
	struct reader r;
	int idx;
	pid_t pid;

	reader_start(&r, &fixed);
	waiter_start(&w, &fixed, false); /* a grace period is under way */
	keeps_waiting(&w);
	calls = 0;
	hand_over(&fixed, 1);
	idx = shunt_srcu_read_lock(&fixed);
	pid = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0L) : fork();
	if (!pid)
		_exit(in_child(idx, raw));
	idx = (shunt_srcu_read_unlock(&fixed, idx), exit_of(pid));
	ok(idx == 0, "%s: own sections stay, others' vanish, callbacks are called (%d)", name, idx);
	ok(!w.done, "%s: and the parent's are as they were", name);
	reader_end(&r);
	pthread_join(w.thread, NULL);
	ok(!w.err && !shunt_srcu_barrier(&fixed) && calls == 1, "%s: until they are left", name);
}

static void *keeps_busy(void *arg)
{
	atomic_int *stop = arg;
	SHUNT_SRCU_DEFINE(d);

	for (int n = 1; !*stop; n++) {
		int idx = shunt_srcu_read_lock(&fixed);
		struct item *i = malloc(sizeof *i);

		i->number = n;
		shunt_srcu_call(&d, &i->head, called);
		shunt_srcu_read_unlock(&fixed, idx);
		if (n % 50 == 0)
			shunt_srcu_barrier(&d);
		if (n % 5 == 0)
			shunt_srcu_synchronize_expedited(&fixed);
	}
	shunt_srcu_barrier(&d);
	shunt_srcu_cleanup(&d);
	return NULL;
}

/* Forks at any moment of the others' work. */
static void forks_in_between(void)
{
	atomic_int stop = 0;
	pthread_t t[2];
	int bad = 0;

	for (int k = 0; k < 2; k++)
		pthread_create(&t[k], NULL, keeps_busy, &stop);
	for (int n = 0; n < 100 && !bad; n++) {
		pid_t pid = fork();

		if (!pid) {
			struct item *i = malloc(sizeof *i);

			end_after(20);
			i->number = n;
			_exit(shunt_srcu_synchronize(&fixed) ||
			      shunt_srcu_call(&fixed, &i->head, called) || shunt_srcu_barrier(&fixed));
		}
		bad = exit_of(pid);
	}
	stop = 1;
	for (int k = 0; k < 2; k++)
		pthread_join(t[k], NULL);
	ok(!bad, "100 forks while others read, wait and call (%d)", bad);
}

static struct {
	atomic_int at; /* 1: the child is gone, 2: the thread may end */
	int status;
	void *self;
} vforked;

static void *vforks(void *arg)
{
	pid_t pid = vfork();
	int idx;

	if (!pid) {
		/* The thread's first section, and one inside another. */
		idx = shunt_srcu_read_lock(&fixed);
		shunt_srcu_read_unlock(&fixed, shunt_srcu_read_lock(&fixed));
		shunt_srcu_read_unlock(&fixed, idx);
		_exit(0);
	}
	vforked.status = exit_of(pid);
	vforked.self = shunt_srcu_self;
	reach(&vforked.at, 1);
	await(&vforked.at, 2);
	return arg;
}

static void vfork_reads(void)
{
	int shared = 0, bad = 0;
	pthread_t t, u;
	void *others;

	for (int i = 0; i < 20; i++) {
		vforked.at = 0;
		pthread_create(&t, NULL, vforks, NULL);
		await(&vforked.at, 1);
		/* Each looks at some; all have been looked at in the end. */
		for (int k = 0; k < 10; k++) {
			pthread_create(&u, NULL, one_section, &fixed);
			pthread_join(u, &others);
			shared += vforked.self == others;
		}
		bad += vforked.status;
		reach(&vforked.at, 2);
		pthread_join(t, NULL);
	}
	ok(!bad, "a vfork child reads, also before its thread has (%d)", bad);
	ok(!shared, "and what it made for its thread is nobody else's (%d)", shared);
	ok(shunt_srcu_synchronize(&fixed) == 0, "and its sums are even");
}

/* --- signal handlers ---------------------------------------------------------------------------- */

static struct shunt_srcu *stepped;

/* At the instruction that is due. */
static void read_there(void)
{
	for (int i = 0; i < 3; i++)
		shunt_srcu_read_unlock(stepped, shunt_srcu_read_lock(stepped));
}

static void *steps(void *arg)
{
	(void)arg;
	step = 0;
	stepping = true;
	step_flag();
	shunt_srcu_read_unlock(stepped, shunt_srcu_read_lock(stepped));
	stepping = false;
	return NULL;
}

/* `first`: each on a new thread and in a new domain, so that all is made in between. */
static void every_instruction(bool first)
{
	struct sigaction sa = {.sa_sigaction = step_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
	SHUNT_SRCU_DEFINE(d);
	int bad = 0;
	long n = 0;
	pthread_t t;

	at_due = read_there;
	sigaction(SIGTRAP, &sa, NULL);
	stepped = &d;
	for (due = 1; !n && due < 2000; due++) {
		if (first) {
			pthread_create(&t, NULL, steps, NULL);
			pthread_join(t, NULL);
		} else {
			steps(NULL);
		}
		if (step < due)
			n = due;
		bad += shunt_srcu_synchronize(&d) != 0;
		if (first)
			bad += shunt_srcu_cleanup(&d) != 0;
	}
	signal(SIGTRAP, SIG_DFL);
	ok(n > (first ? 40 : 10) && !bad, "%s: a handler reads at each of %ld instructions",
		first ? "the first section" : "a section", n);
	shunt_srcu_cleanup(&d);
}

/* --- many ---------------------------------------------------------------------------------------------- */

static void thousand(void)
{
	struct shunt_srcu *d = calloc(1000, sizeof *d);
	struct reader r;
	int bad = 0, *idx = calloc(1000, sizeof *idx);

	for (int i = 0; i < 1000; i++)
		bad += shunt_srcu_init(&d[i]) != 0;
	for (int i = 0; i < 1000; i++)
		idx[i] = shunt_srcu_read_lock(&d[i]);
	reader_start(&r, &d[500]);
	for (int i = 0; i < 1000; i++)
		shunt_srcu_read_unlock(&d[i], idx[i]);
	for (int i = 0; i < 1000; i++)
		if (i != 500)
			bad += shunt_srcu_synchronize(&d[i]) != 0;
	ok(!bad, "1,000 domains, each with its own grace periods");
	calls = 0;
	for (int i = 0; i < 1000; i++)
		hand_over(&d[i], 0);
	for (int i = 0; i < 1000; i++)
		if (i != 500)
			bad += shunt_srcu_barrier(&d[i]) != 0;
	ok(!bad && calls == 999, "one slow domain does not hold up the callbacks of 999 (%d)", calls);
	reader_end(&r);
	for (int i = 0; i < 1000; i++)
		bad += shunt_srcu_barrier(&d[i]) || shunt_srcu_cleanup(&d[i]);
	ok(!bad && calls == 1000, "all cleaned up");
	free(d);
	free(idx);
}

/* All indexes taken: what comes then is slow, and right. */
static void too_many(void)
{
	static struct shunt_srcu d[SHUNT_INDEXES];
	int n = 0, bad = 0, idx;

	while (!shunt_srcu_init(&d[n]))
		n++;
	ok(n + 100 > SHUNT_SRCU_DOMAINS, "%d domains, and then -ENOSPC", n);
	memset(&d[n], 0, sizeof *d);
	idx = shunt_srcu_read_lock(&d[n]);
	bad += shunt_srcu_cleanup(&d[n]) != -EBUSY;
	shunt_srcu_read_unlock(&d[n], idx);
	bad += shunt_srcu_synchronize(&d[n]) != 0;
	bad += shunt_srcu_cleanup(&d[n]) != 0;
	for (int i = 0; i < n; i++)
		bad += shunt_srcu_cleanup(&d[i]) != 0;
	ok(!bad, "one more works all the same");
	ok(!shunt_srcu_init(&d[0]) && !shunt_srcu_cleanup(&d[0]), "and their places are free again");
}

static void *reads_without_memory(void *arg)
{
	struct shunt_srcu *d = arg;
	int idx = shunt_srcu_read_lock(d);
	int inside = shunt_srcu_cleanup(d);

	shunt_srcu_read_unlock(d, idx);
	return (void *)(intptr_t)(shunt_srcu_self || inside != -EBUSY);
}

/* No memory for a block: the sections count all the same. In a child, for the limit's sake. */
static void no_memory(void)
{
	int status;
	pid_t pid;

	if (SANITIZED) {
		skip("the sanitizer would have no memory either");
		return;
	}
	pid = fork();
	if (!pid) {
		SHUNT_SRCU_DEFINE(d);
		struct rlimit none = {0, 0};
		pthread_attr_t attr;
		pthread_t t[40];
		void *bad = NULL;
		void *stack = mmap(NULL, 40 << 16, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		end_after(20);
		pthread_attr_init(&attr);
		setrlimit(RLIMIT_AS, &none);
		/* Those that there are of others' are taken first: then this thread has none. */
		for (struct shunt_reader *r = shunt_reader_first(); r; r = r->next)
			r->tid = getpid();
		pthread_attr_setstack(&attr, stack, 1 << 16);
		if (pthread_create(&t[0], &attr, reads_without_memory, &d))
			_exit(3);
		pthread_join(t[0], &bad);
		_exit(bad || shunt_srcu_synchronize(&d) || shunt_srcu_cleanup(&d));
	}
	status = exit_of(pid);
	ok(status == 0, "no memory for a thread's sums: counted all the same (%d)", status);
}

int main(void)
{
	end_after(100);
	waits_for_readers(false);
	waits_for_readers(true);
	apart();
	nested();
	polling();
	callbacks();
	moved();
	come_and_go();
	forks(false);
	forks(true);
	/* gcc 12's has no handlers for fork(): a child may find its allocator's lock taken by a thread that is gone. */
	if (SANITIZED)
		skip("100 forks while others allocate: the sanitizer's allocator does not stand that");
	else
		forks_in_between();
	vfork_reads();
	every_instruction(false);
	every_instruction(true);
	thousand();
	too_many();
	no_memory();
	return done();
}
