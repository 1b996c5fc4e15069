/* SPDX-License-Identifier: MIT */
/*
 * guarantees.c - what <shunt/mmu.h> promises of registering, pairs, release and waiting, with
 * changes that are announced by hand: so each moment can be held still. calls.c does it with real ones.
 */
#include <setjmp.h>

#include "guarantee.h"
#include "mmu/mmu_internal.h"

/* --- bad input ----------------------------------------------------------------------- */

static void no_start(struct shunt_mmu_notifier *n)
{
	(void)n;
}

static void a_page(struct shunt_mmu_notifier *n, uintptr_t page)
{
	(void)page;
	((struct counter *)n)->pages++;
}

static void wrong_notifiers(void)
{
	static const struct shunt_mmu_notifier_ops none, only_release = {.release = no_start},
		only_page = {.invalidate_page = a_page};
	struct shunt_mmu_notifier n = {.ops = NULL};
	struct counter c = {.n = {.ops = &only_page, .flags = SHUNT_MMU_PARTIAL}};

	ok(shunt_mmu_notifier_register(&n) == -EINVAL && !n.node, "no ops: EINVAL");
	n.ops = &none;
	ok(shunt_mmu_notifier_register(&n) == -EINVAL && !n.node, "empty ops: EINVAL");
	n.ops = &only_release;
	ok(shunt_mmu_notifier_register(&n) == -EINVAL && !n.node, "neither start nor page: EINVAL");
	n.ops = &counter_ops;
	n.flags = 1u << 7;
	ok(shunt_mmu_notifier_register(&n) == -EINVAL && !n.node, "unknown flags: EINVAL");
	n.flags = 0;
	n.kinds = 1u << SHUNT_MMU_KINDS;
	ok(shunt_mmu_notifier_register(&n) == -EINVAL && !n.node, "unknown kinds: EINVAL");
	ok(shunt_mmu_notifier_unregister(&n) == -ENOENT, "never registered: ENOENT");
	enter(&c);
	ok(shunt_mmu_notifier_register(&c.n) == -EALREADY, "twice: EALREADY");
	change();
	ok(c.starts == 0, "a notifier of pages alone has no ranges");
	ok(!shunt_mmu_invalidate_page(SOMEWHERE) && c.pages == 1, "EALREADY left it registered, once");
	ok(!shunt_mmu_notifier_unregister(&c.n) && shunt_mmu_notifier_unregister(&c.n) == -ENOENT,
		"unregistered twice: ENOENT");
}

static void wrong_changes(void)
{
	struct shunt_mmu_change c;
	BY_HAND(n);

	enter(&n);
	ok(shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, PAGE, PAGE, 0) == -EINVAL &&
		shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, 2 * PAGE, PAGE, 0) == -EINVAL &&
		shunt_mmu_change_begin(&c, SHUNT_MMU_KINDS, 0, PAGE, 0) == -EINVAL &&
		shunt_mmu_change_begin(&c, SHUNT_MMU_EXEC, 0, PAGE, 0) == -EINVAL &&
		shunt_mmu_change_begin(&c, SHUNT_MMU_EXIT, 0, PAGE, 0) == -EINVAL,
		"changes of nothing, of no kind, or not one's own to make: EINVAL");
	ok(!n.starts && !n.ends, "nobody was told of them");
	shunt_mmu_notifier_unregister(&n.n);
}

static atomic_int hits;

static void hit(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)i;
	(void)e;
	(void)seq;
	hits++;
}

static const struct shunt_mmu_interval_ops hit_ops = {.invalidate = hit}, no_hit;

#define INTERVAL(name) struct shunt_mmu_interval name = {.ops = &hit_ops, .flags = SHUNT_MMU_PARTIAL}

static void wrong_intervals(void)
{
	INTERVAL(i);
	struct shunt_mmu_interval none = {.ops = &no_hit};

	hits = 0;
	ok(shunt_mmu_interval_insert(&i, SOMEWHERE, 0) == -EINVAL && !i.node, "of length 0: EINVAL");
	ok(shunt_mmu_interval_insert(&i, -PAGE, 2 * PAGE) == -EINVAL && !i.node, "wraps: EINVAL");
	ok(shunt_mmu_interval_insert(&i, 1ul << 62, PAGE) == -EINVAL && !i.node,
		"past the address space: EINVAL");
	ok(shunt_mmu_interval_insert(&none, SOMEWHERE, PAGE) == -EINVAL, "no invalidate: EINVAL");
	i.kinds = 1u << 31;
	ok(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE) == -EINVAL && !i.node, "unknown kinds: EINVAL");
	i.kinds = 0;
	ok(shunt_mmu_interval_remove(&i) == -ENOENT, "never inserted: ENOENT");
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	ok(shunt_mmu_interval_insert(&i, 2 * SOMEWHERE, PAGE) == -EALREADY && i.start == SOMEWHERE,
		"twice: EALREADY");
	change();
	change_of(SHUNT_MMU_UNMAP, 2 * SOMEWHERE);
	ok(hits == 1, "it is where it was, and once");
	ok(!shunt_mmu_interval_remove(&i) && shunt_mmu_interval_remove(&i) == -ENOENT,
		"removed twice: ENOENT");
	change();
	ok(hits == 1, "no callback when it is gone");
}

static void kinds(void)
{
	BY_HAND(c);
	INTERVAL(i);

	c.n.kinds = 1u << SHUNT_MMU_PROTECT | 1u << SHUNT_MMU_FORK;
	i.kinds = 1u << SHUNT_MMU_DISCARD;
	hits = 0;
	enter(&c);
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	for (int k = 0; k < SHUNT_MMU_EXEC; k++)
		change_of((enum shunt_mmu_kind)k, SOMEWHERE);
	ok(c.starts == 2 && c.ends == 2 && c.last.kind == SHUNT_MMU_FORK, "only the kinds asked for");
	ok(hits == 1, "intervals too");
	shunt_mmu_notifier_unregister(&c.n);
	shunt_mmu_interval_remove(&i);
}

static void too_many(void)
{
	static struct counter all[257];
	int i, err = 0;

	for (i = 0; i < 257 && !err; i++) {
		all[i].n = (struct shunt_mmu_notifier){.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL};
		all[i].from = SOMEWHERE;
		all[i].to = 2 * SOMEWHERE;
		err = shunt_mmu_notifier_register(&all[i].n);
	}
	ok(i == 257 && err == -ENOSPC && !all[256].n.node, "the 257th: ENOSPC");
	change();
	for (i = 0; i < 256 && all[i].starts == 1 && all[i].ends == 1; i++)
		;
	ok(i == 256, "all 256 are told");
	shunt_mmu_notifier_unregister(&all[7].n);
	ok(!shunt_mmu_notifier_register(&all[256].n), "the place of one who went is free again");
	change();
	ok(all[256].starts == 1 && all[256].ends == 1 && all[7].starts == 1, "and is the other's");
	for (i = 0; i < 257; i++)
		if (i != 7)
			shunt_mmu_notifier_unregister(&all[i].n);
	for (i = 0; i < 257 && all[i].releases == 1; i++)
		;
	ok(i == 257, "each released once");
}

/* --- pairs and release ------------------------------------------------------------------ */

static void failed_calls(void)
{
	struct shunt_mmu_change ch;
	BY_HAND(c);

	enter(&c);
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_REMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	ok(c.starts == 1 && c.ends == 0, "start before the change");
	shunt_mmu_change_end(&ch, true, 0);
	ok(c.ends == 1 && (c.last.flags & SHUNT_MMU_FAILED), "end after it, when it fails too");
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_REMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	shunt_mmu_change_end(&ch, false, 5 * SOMEWHERE);
	ok(c.ends == 2 && !(c.last.flags & SHUNT_MMU_FAILED) && c.last.new_start == 5 * SOMEWHERE,
		"and says where it went");
	shunt_mmu_notifier_unregister(&c.n);
	ok(c.releases == 1, "release, once");
}

static atomic_int releasing, may_release;

static void sits_in_release(struct counter *c)
{
	(void)c;
	reach(&releasing, 1);
	await(&may_release, 1);
}

static int exits(void *arg)
{
	(void)arg;
	shunt_mmu_exiting();
	return 0;
}

/* The process is at its end and calls release when somebody unregisters. Exits with what went wrong. */
static int exit_and_unregister(void)
{
	BY_HAND(c);
	struct caller e, u;
	int bad;

	c.in_release = sits_in_release;
	enter(&c);
	caller_start(&e, exits, NULL);
	await(&releasing, 1);
	caller_start(&u, unregisters, &c.n);
	bad = !caller_waits(&u);
	reach(&may_release, 1);
	bad |= (caller_end(&u) != 0) << 1;
	caller_end(&e);
	bad |= (c.releases != 1) << 2;
	shunt_mmu_exiting();
	bad |= (c.releases != 1) << 3;
	return bad;
}

/* The other one was the first. */
static int unregister_and_exit(void)
{
	BY_HAND(c);
	struct caller e, u;
	int bad;

	c.in_release = sits_in_release;
	enter(&c);
	caller_start(&u, unregisters, &c.n);
	await(&releasing, 1);
	caller_start(&e, exits, NULL);
	bad = !caller_waits(&e);
	reach(&may_release, 1);
	caller_end(&e);
	bad |= (caller_end(&u) != 0) << 1;
	bad |= (c.releases != 1) << 2;
	return bad;
}

static void released_once(int (*fn)(void), const char *name)
{
	int bad;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		syscall(SYS_exit_group, fn());
	}
	bad = exit_of(pid);
	ok(!bad, "%s: one release, and the second waits for it (%#x)", name, (unsigned)bad);
}

/* --- who waits for whom ------------------------------------------------------------------- */

static void unregister_waits(void)
{
	BY_HAND(c);
	struct changer ch;
	struct caller u;

	enter(&c);
	c.stay = 1;
	changer_start(&ch, SOMEWHERE);
	await(&c.inside, 1);
	caller_start(&u, unregisters, &c.n);
	ok(caller_waits(&u), "unregister waits for a callback that runs");
	ok(c.releases == 1, "it has called release by then");
	c.stay = 0;
	ok(!caller_end(&u), "and then succeeds");
	ok(c.starts == 1 && c.ends == 1 && c.releases == 1, "the pair was ended before");
	pthread_join(ch.thread, NULL);
	change();
	ok(c.starts == 1, "nothing comes later");
}

/* Until its translations have gone, it must hear of what makes them wrong. */
static void told_until_released(void)
{
	BY_HAND(c);
	struct caller u;

	releasing = may_release = 0;
	c.in_release = sits_in_release;
	enter(&c);
	caller_start(&u, unregisters, &c.n);
	await(&releasing, 1);
	change();
	ok(c.starts == 1 && c.ends == 1, "what changes while release runs is told (%d, %d)", c.starts, c.ends);
	reach(&may_release, 1);
	ok(!caller_end(&u) && c.releases == 1, "and unregister succeeds");
	change();
	ok(c.starts == 1, "nothing comes later");
}

/* Between start and end, nobody in a callback: the pair is open all the same. */
static void unregister_waits_for_end(void)
{
	BY_HAND(c);
	struct shunt_mmu_change ch;
	struct caller u;

	enter(&c);
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_UNMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	caller_start(&u, unregisters, &c.n);
	ok(caller_waits(&u), "unregister waits for the end of a pair");
	shunt_mmu_change_end(&ch, false, 0);
	ok(!caller_end(&u) && c.ends == 1 && c.releases == 1, "and then succeeds");
}

static void sits(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq);
static const struct shunt_mmu_interval_ops sits_ops = {.invalidate = sits};
static atomic_int sitting, may_go;

static void sits(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)i;
	(void)e;
	(void)seq;
	sitting++;
	await(&may_go, 1);
}

static void remove_waits(void)
{
	struct shunt_mmu_interval i = {.ops = &sits_ops, .flags = SHUNT_MMU_PARTIAL};
	struct changer ch;
	struct caller u;

	sitting = may_go = 0;
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	changer_start(&ch, SOMEWHERE);
	await(&sitting, 1);
	caller_start(&u, removes, &i);
	ok(caller_waits(&u), "remove waits for its callback");
	reach(&may_go, 1);
	ok(!caller_end(&u), "and then succeeds");
	pthread_join(ch.thread, NULL);
}

/* A slow callback is nobody's business but of who asked for its range. */
static void slow_one(void)
{
	struct shunt_mmu_interval slow = {.ops = &sits_ops, .flags = SHUNT_MMU_PARTIAL};
	INTERVAL(other);
	INTERVAL(third);
	struct changer ch;
	BY_HAND(c);
	uint64_t seq;

	hits = sitting = may_go = 0;
	c.n.kinds = 1u << SHUNT_MMU_PROTECT;
	enter(&c);
	must(shunt_mmu_interval_insert(&slow, SOMEWHERE, PAGE), "insert");
	must(shunt_mmu_interval_insert(&other, 2 * SOMEWHERE, PAGE), "insert");
	seq = shunt_mmu_interval_read_begin(&other);
	changer_start(&ch, SOMEWHERE);
	await(&sitting, 1);
	change_of(SHUNT_MMU_UNMAP, 2 * SOMEWHERE);
	ok(hits == 1, "another range changes while a callback sits");
	ok(shunt_mmu_interval_read_retry(&other, seq), "and its readers hear of it");
	change_of(SHUNT_MMU_PROTECT, 2 * SOMEWHERE);
	ok(c.starts == 1 && c.ends == 1, "others are told of other changes");
	must(shunt_mmu_interval_insert(&third, 3 * SOMEWHERE, PAGE), "insert");
	ok(!shunt_mmu_interval_remove(&third) && !shunt_mmu_interval_remove(&other),
		"intervals come and go meanwhile");
	ok(!shunt_mmu_notifier_unregister(&c.n) && c.releases == 1, "notifiers that are no part of it go");
	ok(atomic_load(&ch.done) == 0, "the slow one has sat there all the time");
	reach(&may_go, 1);
	pthread_join(ch.thread, NULL);
	shunt_mmu_interval_remove(&slow);
}

/* It was begun before: neither half, and no return until it has ended. */
static void register_in_the_middle(void)
{
	BY_HAND(first);
	BY_HAND(late);
	struct shunt_mmu_change ch;
	struct changer beside;
	struct caller r;

	enter(&first);
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_UNMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	caller_start(&r, registers, &late.n);
	ok(caller_waits(&r), "register waits for a change under way");
	changer_start(&beside, 2 * SOMEWHERE);
	pthread_join(beside.thread, NULL);
	ok(late.starts == late.ends, "of another change it is told both halves or none (%d, %d)", late.starts,
		late.ends);
	late.starts = late.ends = 0;
	shunt_mmu_change_end(&ch, false, 0);
	ok(!caller_end(&r), "and then returns");
	ok(late.starts == 0 && late.ends == 0, "told of neither half");
	change();
	ok(late.starts == 1 && late.ends == 1, "of the next change of both");
	shunt_mmu_notifier_unregister(&first.n);
	shunt_mmu_notifier_unregister(&late.n);
}

/* Looking up in an interval that came in the middle of a change: only after that. */
static int reads_begin(void *i)
{
	shunt_mmu_interval_read_begin(i);
	return 0;
}

static void insert_in_the_middle(void)
{
	BY_HAND(c);
	INTERVAL(i);
	struct shunt_mmu_change ch;
	struct caller r;

	enter(&c);
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_UNMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	caller_start(&r, reads_begin, &i);
	ok(caller_waits(&r), "who looks up in a new interval waits for changes that did not see it");
	shunt_mmu_change_end(&ch, false, 0);
	caller_end(&r);
	must(shunt_mmu_change_begin(&ch, SHUNT_MMU_UNMAP, SOMEWHERE, SOMEWHERE + PAGE, 0), "begin");
	caller_start(&r, reads_begin, &i);
	ok(caller_waits(&r), "who looks up while it changes waits");
	shunt_mmu_change_end(&ch, false, 0);
	caller_end(&r);
	shunt_mmu_interval_remove(&i);
	shunt_mmu_notifier_unregister(&c.n);
}

/* --- from callbacks -------------------------------------------------------------------- */

static struct counter *victim;
static int said;

static void unregisters_victim(struct counter *c)
{
	(void)c;
	if (victim)
		said = shunt_mmu_notifier_unregister(&victim->n);
	victim = NULL;
}

static void from_own(bool in_end)
{
	BY_HAND(c);

	*(in_end ? &c.in_end : &c.in_start) = unregisters_victim;
	victim = &c;
	said = 1;
	enter(&c);
	change();
	ok(!said && c.starts == 1 && c.ends == in_end && c.releases == 1,
		"unregistered from its own %s: release takes the place of what is left", in_end ? "end" : "start");
	change();
	ok(c.starts == 1 && shunt_mmu_notifier_unregister(&c.n) == -ENOENT, "and is gone");
}

/* The one who goes comes before or after the one who makes it go. */
static void from_anothers(bool after)
{
	BY_HAND(a);
	BY_HAND(b);
	struct counter *who = after ? &a : &b, *goes = after ? &b : &a;

	who->in_start = unregisters_victim;
	victim = goes;
	said = 1;
	enter(&a);
	enter(&b);
	change();
	ok(!said && goes->releases == 1 && goes->starts == !after && goes->ends == 0,
		"unregistered from another's callback, %s its own", after ? "before" : "after");
	ok(who->starts == 1 && who->ends == 1 && !who->releases, "whose pair is whole");
	change();
	ok(who->ends == 2 && goes->starts == !after, "one goes on, the other is gone");
	shunt_mmu_notifier_unregister(&who->n);
}

static void registers_one(struct counter *c)
{
	BY_HAND(other);

	(void)c;
	said = shunt_mmu_notifier_register(&other.n);
}

static void register_from(void)
{
	BY_HAND(c);

	c.in_start = registers_one;
	said = 0;
	enter(&c);
	change();
	ok(said == -EDEADLK, "register from a callback: EDEADLK");
	c.in_start = NULL;
	shunt_mmu_notifier_unregister(&c.n);
}

static struct shunt_mmu_interval *gone;

static void removes_itself(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)e;
	(void)seq;
	hits++;
	said = shunt_mmu_interval_remove(i);
}

static void removes_other(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	hit(i, e, seq);
	said = shunt_mmu_interval_remove(gone);
}

static void remove_from(void)
{
	static const struct shunt_mmu_interval_ops own = {.invalidate = removes_itself},
		others = {.invalidate = removes_other};
	struct shunt_mmu_interval i = {.ops = &own, .flags = SHUNT_MMU_PARTIAL}, j = i;

	hits = 0;
	said = 1;
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	change();
	change();
	ok(!said && hits == 1, "an interval removed by its own callback");
	j.ops = &others;
	hits = 0;
	must(shunt_mmu_interval_insert(&j, SOMEWHERE, PAGE), "insert");
	i.ops = &hit_ops;
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	gone = &i;
	change();
	ok(!said && hits == 1, "by another's, before its turn");
	shunt_mmu_interval_remove(&j);
}

static void changes_too(struct counter *c)
{
	(void)c;
	change();
}

static void nested(void)
{
	BY_HAND(a);
	BY_HAND(b);

	a.in_start = b.in_start = changes_too;
	enter(&a);
	enter(&b);
	change();
	/* a: the change, and b's; b: a's, in which a is not called; the change, b's in which a is. */
	ok(a.starts == 2 && b.starts == 2 && a.ends == 2 && b.ends == 2,
		"what a callback changes is told to the others alone, and ends (%d %d)", a.starts, b.starts);
	ok(a.flags & SHUNT_MMU_NESTED && b.flags & SHUNT_MMU_NESTED, "and says that it is nested");
	shunt_mmu_notifier_unregister(&a.n);
	shunt_mmu_notifier_unregister(&b.n);
}

/* --- signals ---------------------------------------------------------------------------- */

static struct counter *watched;
static volatile int seen_open = -1;

static void on_signal(int sig)
{
	(void)sig;
	seen_open = watched->starts - watched->ends;
}

static void raises(struct counter *c)
{
	(void)c;
	raise(SIGUSR1);
}

static void signals(void)
{
	BY_HAND(c);

	watched = &c;
	c.in_start = raises;
	signal(SIGUSR1, on_signal);
	enter(&c);
	change();
	ok(seen_open == 0, "a handler runs before the start or after the end (%d)", seen_open);
	c.in_start = NULL;
	shunt_mmu_notifier_unregister(&c.n);
	signal(SIGUSR1, SIG_DFL);
}

static void sets_errno(struct counter *c)
{
	(void)c;
	errno = EXDEV;
}

static void errno_stays(void)
{
	BY_HAND(c);

	c.in_start = c.in_end = sets_errno;
	enter(&c);
	errno = ENOTTY;
	change();
	ok(errno == ENOTTY, "errno is what it was");
	shunt_mmu_notifier_unregister(&c.n);
}

/* --- allocating ---------------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(SANITIZED)
#define COUNTS_MALLOC
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
static __thread volatile bool forbidden; /* the compiler knows what malloc() does */
static __thread volatile int allocated;

void *malloc(size_t n)
{
	allocated += forbidden;
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	allocated += forbidden;
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	allocated += forbidden;
	return __libc_realloc(p, n);
}

static void allocates_nothing(void)
{
	BY_HAND(a);
	BY_HAND(b);
	INTERVAL(i);
	void *volatile p;
	int err;

	enter(&a);
	enter(&b);
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	forbidden = true;
	err = shunt_mmu_notifier_unregister(&a.n);
	change();
	shunt_mmu_sync();
	err |= shunt_mmu_interval_remove(&i);
	err |= shunt_mmu_notifier_unregister(&b.n); /* the last one: disarms */
	forbidden = false;
	ok(!err && !allocated, "unregister, remove and changes allocate nothing (%d)", allocated);
	forbidden = true;
	p = malloc(1);
	free(p);
	forbidden = false;
	ok(allocated == 1, "it would have been seen");
}
#else
static void allocates_nothing(void)
{
	skip("the sanitizer's malloc is not ours to replace");
}
#endif

/* --- left by a jump --------------------------------------------------------------------------- */

static jmp_buf out;

static void jumps(struct counter *c)
{
	(void)c;
	longjmp(out, 1);
}

static void ends_thread(struct counter *c)
{
	(void)c;
	pthread_exit(NULL);
}

static void jumped(bool from_end)
{
	BY_HAND(c);

	*(from_end ? &c.in_end : &c.in_start) = jumps;
	enter(&c);
	if (!setjmp(out))
		change();
	change(); /* nobody could be told rightly any more */
}

static void jumped_start(void)
{
	jumped(false);
}

static void jumped_end(void)
{
	jumped(true);
}

static void thread_ended(void)
{
	BY_HAND(c);

	c.in_start = ends_thread;
	enter(&c);
	change();
}

static void broken_contracts(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} t[] = {{"longjmp out of start", jumped_start}, {"longjmp out of end", jumped_end},
		{"pthread_exit in start", thread_ended}};
	char text[400];

	for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
		int status = child_says(t[i].fn, 2, text, sizeof text);

		ok(status == 1000 + SIGABRT && strstr(text, "callback"), "%s: aborts, and says why (%d: %.60s)",
			t[i].name, status, strtok(text, "\n"));
	}
}

/* --- children ------------------------------------------------------------------------------- */

/* What is the parent's is not here; what one registers here is. Exits with what went wrong. */
static int in_child(struct counter *c, struct shunt_mmu_interval *i)
{
	int bad = 0;

	c->starts = 0;
	change();
	bad |= c->starts != 0;
	bad |= (shunt_mmu_notifier_unregister(&c->n) != -ENOENT) << 1;
	bad |= (shunt_mmu_interval_remove(i) != -ENOENT) << 2;
	bad |= (c->releases != 0) << 3;
	bad |= (shunt_mmu_notifier_register(&c->n) != 0) << 4;
	change();
	bad |= (c->starts != 1 || c->ends != 1) << 5;
	bad |= (shunt_mmu_notifier_unregister(&c->n) != 0 || c->releases != 1) << 6;
	return bad;
}

static pid_t forks(bool raw)
{
	pid_t pid = raw ? (pid_t)syscall(SYS_fork) : fork();

	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a test that hangs nothing is to stay */
	return pid;
}

static void fork_child(bool raw)
{
	BY_HAND(c);
	INTERVAL(i);
	pid_t pid;
	int bad;

	c.n.kinds = 1u << SHUNT_MMU_UNMAP; /* not of the fork itself */
	enter(&c);
	must(shunt_mmu_interval_insert(&i, SOMEWHERE, PAGE), "insert");
	pid = forks(raw);
	if (!pid)
		_exit(in_child(&c, &i));
	bad = exit_of(pid);
	ok(!bad, "a child of %s has nobody, and can register (%#x)", raw ? "the bare system call" : "fork()",
		(unsigned)bad);
	change();
	ok(c.starts == 1 && c.ends == 1 && !c.releases, "the parent's goes on");
	shunt_mmu_notifier_unregister(&c.n);
	shunt_mmu_interval_remove(&i);
}

static atomic_int child_exit;

static void forks_in_callback(struct counter *c)
{
	pid_t pid = fork();

	if (!pid) {
		c->in_start = NULL;
		return; /* goes on in the middle of a change, with nobody to tell */
	}
	child_exit = exit_of(pid);
}

static void fork_in_a_callback(void)
{
	BY_HAND(c);
	pid_t parent = getpid();

	c.n.kinds = 1u << SHUNT_MMU_UNMAP;
	c.in_start = forks_in_callback;
	child_exit = -1;
	enter(&c);
	change();
	if (getpid() != parent) /* its end was not called: what it counts is the start of the parent's */
		_exit(c.ends != 0 || shunt_mmu_notifier_unregister(&c.n) != -ENOENT ||
			shunt_mmu_notifier_register(&c.n) != 0 || shunt_mmu_notifier_unregister(&c.n) != 0);
	ok(child_exit == 0, "a fork in a callback (%d)", child_exit);
	ok(c.starts == 1 && c.ends == 1, "the parent's pair is whole");
	c.in_start = NULL;
	shunt_mmu_notifier_unregister(&c.n);
}

/* Another thread sits in a callback and is not here: register in the child waits for nobody. */
static void fork_beside_a_callback(bool raw)
{
	BY_HAND(c);
	BY_HAND(d);
	struct changer ch;
	pid_t pid;
	int bad;

	c.n.kinds = d.n.kinds = 1u << SHUNT_MMU_UNMAP;
	enter(&c);
	c.stay = 1;
	changer_start(&ch, SOMEWHERE);
	await(&c.inside, 1);
	pid = forks(raw);
	if (!pid) {
		end_after(10);
		bad = shunt_mmu_notifier_unregister(&c.n) != -ENOENT;
		bad |= (shunt_mmu_notifier_register(&d.n) != 0) << 1;
		change();
		bad |= (d.starts != 1 || d.ends != 1) << 2;
		bad |= (shunt_mmu_notifier_unregister(&d.n) != 0) << 3;
		_exit(bad);
	}
	bad = exit_of(pid);
	ok(!bad, "%s while another thread is in a callback (%#x)", raw ? "a bare fork" : "a fork",
		(unsigned)bad);
	c.stay = 0;
	pthread_join(ch.thread, NULL);
	shunt_mmu_notifier_unregister(&c.n);
}

/* --- everything at once ------------------------------------------------------------------------ */

static atomic_bool over;
static atomic_int halves, late_calls, releases_wrong;

static void *keeps_changing(void *arg)
{
	uintptr_t at = SOMEWHERE * (1 + (uintptr_t)arg);

	while (!over)
		change_of(SHUNT_MMU_UNMAP, at);
	return NULL;
}

static void *comes_and_goes(void *arg)
{
	(void)arg;
	for (int i = 0; i < 60; i++) {
		struct counter *c = calloc(1, sizeof *c);

		c->n = (struct shunt_mmu_notifier){.ops = &counter_ops, .flags = SHUNT_MMU_PARTIAL};
		c->from = SOMEWHERE;
		c->to = 8 * SOMEWHERE;
		enter(c);
		for (int j = i % 7; j; j--)
			sched_yield();
		must(shunt_mmu_notifier_unregister(&c->n), "unregister");
		int starts = c->starts;

		halves += starts != c->ends;
		releases_wrong += c->releases != 1;
		sched_yield();
		late_calls += starts != c->starts;
		memset(c, 0x5a, sizeof *c); /* a callback from here on would not survive it */
		free(c);
	}
	return NULL;
}

static void all_at_once(void)
{
	pthread_t t[5];
	BY_HAND(stays);

	enter(&stays);
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, keeps_changing, (void *)i);
	for (int i = 3; i < 5; i++)
		pthread_create(&t[i], NULL, comes_and_goes, NULL);
	for (int i = 3; i < 5; i++)
		pthread_join(t[i], NULL);
	over = true;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ok(stays.starts > 0 && stays.starts == stays.ends, "under load: every start has its end (%d)",
		stays.starts);
	ok(!halves && !late_calls && !releases_wrong,
		"who comes and goes has whole pairs, nothing after unregister, one release (%d %d %d)", halves,
		late_calls, releases_wrong);
	shunt_mmu_notifier_unregister(&stays.n);
}

int main(void)
{
	end_after(250);
	wrong_notifiers();
	wrong_changes();
	wrong_intervals();
	kinds();
	too_many();
	failed_calls();
	released_once(exit_and_unregister, "exit, then unregister");
	released_once(unregister_and_exit, "unregister, then exit");
	unregister_waits();
	told_until_released();
	unregister_waits_for_end();
	remove_waits();
	slow_one();
	register_in_the_middle();
	insert_in_the_middle();
	from_own(false);
	from_own(true);
	from_anothers(false);
	from_anothers(true);
	register_from();
	remove_from();
	nested();
	signals();
	errno_stays();
	allocates_nothing();
	broken_contracts();
	fork_child(false);
	fork_child(true);
	fork_in_a_callback();
	fork_beside_a_callback(false);
	fork_beside_a_callback(true);
	all_at_once();
	return done();
}
