/* SPDX-License-Identifier: MIT */
/* The core by itself: order, pairs, who is told, sequences; changes are announced by hand. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mmu/core.h"
#include "tap.h"

static char said[400];

static void say(const char *what, const void *who)
{
	size_t n = strlen(said);

	snprintf(said + n, sizeof said - n, "%s%c ", what, *((const char *)who + sizeof(struct shunt_mmu_notifier)));
}

struct named {
	struct shunt_mmu_notifier n;
	char name;
};

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	say(e->flags & SHUNT_MMU_NESTED ? "ns" : "s", n);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	say(e->flags & SHUNT_MMU_FAILED ? "ef" : "e", n);
}

static void release(struct shunt_mmu_notifier *n)
{
	say("r", n);
}

static const struct shunt_mmu_notifier_ops ops = {
	.invalidate_range_start = start, .invalidate_range_end = end, .release = release,
};

static struct named a = {{.ops = &ops}, 'a'}, b = {{.ops = &ops}, 'b'};

static void change_at(uintptr_t at, bool failed)
{
	struct shunt_mmu_change c;

	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, at, at + 1, 0);
	strcat(said, "! ");
	shunt_mmu_change_end(&c, failed, 0);
}

static void is(const char *want, const char *name)
{
	ok(!strcmp(said, want), "%s (%s)", name, said);
	said[0] = 0;
}

static void order(void)
{
	change_at(4096, false);
	is("! ", "nobody: nothing is called");
	ok(!shunt_mmu_notifier_register(&a.n) && !shunt_mmu_notifier_register(&b.n), "two register");
	ok(shunt_mmu_notifier_register(&a.n) == -EALREADY, "once");
	change_at(4096, false);
	is("sa sb ! ea eb ", "start before, end after, in order");
	change_at(4096, true);
	is("sa sb ! efa efb ", "a call that fails has its end");
	ok(!shunt_mmu_notifier_unregister(&a.n), "unregister");
	is("ra ", "calls release");
	ok(shunt_mmu_notifier_unregister(&a.n) == -ENOENT, "once");
	change_at(4096, false);
	is("sb ! eb ", "the other goes on");
	ok(!shunt_mmu_notifier_register(&a.n), "again");
	change_at(4096, false);
	is("sb sa ! eb ea ", "it is the last now");
	shunt_mmu_notifier_unregister(&b.n);
	shunt_mmu_notifier_unregister(&a.n);
	is("rb ra ", "both go");
}

static void start_nests(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	start(n, e);
	change_at(8192, false);
}

static void start_leaves(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	start(n, e);
	shunt_mmu_notifier_unregister(n);
}

static void in_callbacks(void)
{
	static const struct shunt_mmu_notifier_ops nests = {
		.invalidate_range_start = start_nests, .invalidate_range_end = end, .release = release};
	static const struct shunt_mmu_notifier_ops leaves = {
		.invalidate_range_start = start_leaves, .invalidate_range_end = end, .release = release};
	struct named c = {{.ops = &nests}, 'c'}, d = {{.ops = &leaves}, 'd'};

	shunt_mmu_notifier_register(&a.n);
	shunt_mmu_notifier_register(&c.n);
	change_at(4096, false);
	is("sa sc nsa ! ea ! ea ec ", "what a callback changes is told to the others, not to itself");
	shunt_mmu_notifier_unregister(&c.n);
	said[0] = 0;
	shunt_mmu_notifier_register(&d.n);
	change_at(4096, false);
	is("sa sd rd ! ea ", "a callback unregisters its own notifier: no end, release instead");
	ok(shunt_mmu_notifier_unregister(&d.n) == -ENOENT, "and it is gone");
	shunt_mmu_notifier_unregister(&a.n);
	said[0] = 0;
}

static atomic_int invalidated;

static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)e;
	invalidated++;
	if (!shunt_mmu_interval_read_retry(i, seq - 2) || shunt_mmu_interval_read_begin(i))
		invalidated += 1000;
}

static const struct shunt_mmu_interval_ops interval_ops = {.invalidate = invalidate};

static void intervals(void)
{
	struct shunt_mmu_interval i = {.ops = &interval_ops}, none = {.ops = NULL};
	struct shunt_mmu_change c;
	uint64_t seq;

	ok(shunt_mmu_interval_insert(&i, 4096, 0) == -EINVAL &&
			shunt_mmu_interval_insert(&i, 4096, SIZE_MAX) == -EINVAL &&
			shunt_mmu_interval_insert(&none, 4096, 1) == -EINVAL,
		"bad intervals");
	ok(!shunt_mmu_interval_insert(&i, 0x10000, 0x2000), "insert");
	seq = shunt_mmu_interval_read_begin(&i);
	ok(!shunt_mmu_interval_read_retry(&i, seq), "nothing has changed");
	change_at(0x12000, false);
	ok(!invalidated && !shunt_mmu_interval_read_retry(&i, seq), "a neighbour is not its concern");
	shunt_mmu_change_begin(&c, SHUNT_MMU_DISCARD, 0x11fff, 0x12000, 0);
	ok(invalidated == 1 && shunt_mmu_interval_read_retry(&i, seq), "its last byte is");
	shunt_mmu_change_end(&c, false, 0);
	ok(shunt_mmu_interval_read_retry(&i, seq), "also after the end");
	seq = shunt_mmu_interval_read_begin(&i);
	ok(!shunt_mmu_interval_read_retry(&i, seq), "a new look");
	ok(!shunt_mmu_interval_remove(&i) && shunt_mmu_interval_remove(&i) == -ENOENT, "remove, once");
	change_at(0x10000, false);
	ok(invalidated == 1, "no more");
	said[0] = 0;
}

/* From inside of libc: the callback runs on the library's thread; it needs a lock that we hold. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int locked, ended;
static uint32_t end_flags;

static void start_locks(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	(void)e;
	pthread_mutex_lock(&lock);
	locked++;
	pthread_mutex_unlock(&lock);
}

static void end_locks(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	end_flags = e->flags;
	ended++;
}

/* Whether it was told in time: the library's thread has to get a processor in 10 ms. */
static bool handed(bool contended)
{
	static const struct shunt_mmu_notifier_ops locks = {
		.invalidate_range_start = start_locks, .invalidate_range_end = end_locks};
	struct shunt_mmu_notifier n = {.ops = &locks};
	struct shunt_mmu_interval i = {.ops = &interval_ops};
	struct shunt_mmu_op op = {.range = {{0x10000, 0x11000, 0, SHUNT_MMU_DISCARD}}, .n = 1,
		.context = SHUNT_MMU_IN_LIBC};
	uint64_t seq;
	bool ran, late;

	locked = ended = invalidated = 0;
	shunt_mmu_notifier_register(&n);
	shunt_mmu_interval_insert(&i, 0x10000, 0x1000);
	seq = shunt_mmu_interval_read_begin(&i);
	if (contended)
		pthread_mutex_lock(&lock);
	shunt_mmu_op_begin(&op);
	ran = locked == 1;
	ok(shunt_mmu_interval_read_retry(&i, seq), "whoever looked before looks again");
	shunt_mmu_op_end(&op, 0);
	if (contended)
		pthread_mutex_unlock(&lock);
	shunt_mmu_sync();
	ok(locked == 1 && ended == 1 && invalidated == 1, "all of it has run after sync (%d, %d, %d)", locked,
		ended, invalidated);
	late = end_flags & SHUNT_MMU_LATE;
	ok((end_flags & SHUNT_MMU_HANDED) && (late || ran) && !(contended && ran),
		"and says that it was handed over, and whether late (%x)", end_flags);
	seq = shunt_mmu_interval_read_begin(&i);
	ok(!shunt_mmu_interval_read_retry(&i, seq), "the interval is at rest");
	shunt_mmu_interval_remove(&i);
	shunt_mmu_notifier_unregister(&n);
	return !late;
}

static void in_a_child(void)
{
	int status;
	pid_t pid;

	shunt_mmu_notifier_register(&a.n);
	said[0] = 0;
	pid = fork();
	if (!pid) {
		int r = strcmp(said, "sa ");

		said[0] = 0;
		change_at(4096, false);
		r |= strcmp(said, "! ") || shunt_mmu_notifier_unregister(&a.n) != -ENOENT;
		said[0] = 0;
		r |= shunt_mmu_notifier_register(&a.n);
		change_at(4096, false);
		r |= strcmp(said, "sa ! ea ") || shunt_mmu_notifier_unregister(&a.n);
		_exit(r);
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "a fork child has nobody, and can have");
	is("sa ea ", "the parent is told of it");
	pid = (pid_t)syscall(SYS_fork);
	if (!pid) {
		int r;

		said[0] = 0;
		change_at(4096, false);
		r = strcmp(said, "! ") || shunt_mmu_notifier_register(&a.n);
		said[0] = 0;
		change_at(4096, false);
		_exit(r || strcmp(said, "sa ! ea "));
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "one that libc knows nothing of, too");
	said[0] = 0;
	change_at(4096, false);
	is("sa ! ea ", "the parent goes on");
	shunt_mmu_notifier_unregister(&a.n);
}

int main(void)
{
	int i;

	order();
	in_callbacks();
	intervals();
	ok(!handed(true), "with our lock held: late");
	for (i = 0; i < 100 && !handed(false); i++)
		;
	ok(i < 100, "without: the start has run before the change (%d late before)", i);
	in_a_child();
	return done();
}
