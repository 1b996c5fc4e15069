/* SPDX-License-Identifier: MIT */
/*
 * notifier.c - who is registered (the order of things is in core.h).
 *
 * The registry is everything that changes seldom: the list of members, the tree of intervals, whether places are
 * armed. In a fork child it is empty: what there was is the parent's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "mmu/core.h"
#include "text/text_internal.h"

static struct shunt_hold registry = SHUNT_HOLD_INIT;
static uint32_t users; /* members and intervals */
static uint32_t missing_sources;
static uint64_t slots[SHUNT_MMU_NOTIFIERS / 64];
static struct shunt_mmu_member *gone, **gone_end = &gone; /* the oldest first */
static struct shunt_srcu domains[8];  /* a fork child that nobody told takes the next one */
static unsigned domain;

/* --- fork --------------------------------------------------------------------------- */

/*
 * What the parent had is forgotten, not freed: nobody knows what state it is in. The sections of its threads may
 * be open in the domain for ever, so another one is taken.
 */
static void forget(bool told)
{
	shunt_mmu_members = NULL;
	shunt_mmu_kinds = 0;
	gone = NULL;
	gone_end = &gone;
	users = 0;
	memset(slots, 0, sizeof slots);
	shunt_mmu_small = 0;
	shunt_mmu_tree_reset();
	shunt_mmu_interval_forget();
	shunt_mmu_hand_reset();
	if (!told)
		shunt_mmu_ops = &domains[domain++ % 8];
	shunt_mmu_page->armed = 0;
	__atomic_store_n(&shunt_mmu_page->owner, (int32_t)getpid(), __ATOMIC_RELEASE);
}

/*
 * fork() is told of from here, where libc has not yet taken its own locks for it: callbacks may allocate. What
 * the place in _Fork() sees is that this was done. A callback may fork, too.
 */
struct fork_op {
	struct shunt_mmu_op op;
	bool begun;
	uint32_t depth;
	int err; /* errno before; meanwhile it is 0, and says whether fork() failed */
	struct fork_op *outer;
};

__thread uint32_t shunt_mmu_forking;
static __thread struct fork_op *forks;
static __thread uint32_t depth; /* of fork() in callbacks of fork(), told or not */

/* false: there was nobody. Without memory the place in _Fork() tells of it, later. */
static bool tell_fork(void)
{
	struct fork_op *f;

	if (!__atomic_load_n(&shunt_mmu_page->armed, __ATOMIC_ACQUIRE))
		return false;
	f = malloc(sizeof *f);
	if (!f)
		return true;
	f->op.n = 1;
	f->op.context = 0;
	f->op.range[0] = (struct shunt_mmu_range){0, (uintptr_t)1 << 56, 0, SHUNT_MMU_FORK};
	f->begun = shunt_mmu_op_begin(&f->op);
	f->depth = depth;
	f->err = errno;
	errno = 0;
	f->outer = forks;
	forks = f;
	shunt_mmu_forking++;
	return true;
}

/* The one that is over; or NULL: it was not told. */
static struct fork_op *forked(void)
{
	struct fork_op *f = forks;

	if (depth-- != (f ? f->depth : 0))
		return NULL;
	forks = f->outer;
	shunt_mmu_forking--;
	return f;
}

static void before_fork(void)
{
	bool told;

	depth++;
	told = tell_fork();
	shunt_hold_take(&registry);
	/* With the registry nobody comes any more; who came before that has to be told. */
	while (!told && shunt_mmu_page->armed) {
		shunt_hold_give(&registry);
		told = tell_fork();
		shunt_hold_take(&registry);
	}
}

static void after_fork(void)
{
	struct fork_op *f;

	shunt_hold_give(&registry);
	f = forked();
	if (f) {
		int failed = errno;

		errno = failed ? failed : f->err;
		if (f->begun)
			shunt_mmu_op_end(&f->op, -failed);
	}
	free(f);
}

static void in_child(void)
{
	struct fork_op *f = forked();

	forget(true);
	shunt_hold_give(&registry);
	if (f) {
		errno = f->err;
		if (f->begun)
			shunt_mmu_op_forked(&f->op);
	}
	free(f);
}

/* A child that was made by the system call alone: whoever held the lock is not here. */
static void look_forked(void)
{
	static const struct shunt_hold fresh = SHUNT_HOLD_INIT;

	if (__atomic_load_n(&shunt_mmu_page->owner, __ATOMIC_ACQUIRE))
		return;
	registry = fresh;
	forget(false);
}

/* The page whose words are zero in every child. Without it (no MADV_WIPEONFORK) raw children go unnoticed. */
__attribute__((constructor)) static void begin(void)
{
	struct shunt_mmu_page *page = (void *)shunt_sys(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!shunt_sys_failed((long)page)) {
		shunt_sys(SYS_madvise, page, 4096, MADV_WIPEONFORK);
		shunt_mmu_page = page;
	}
	shunt_mmu_page->owner = (int32_t)getpid();
	shunt_mmu_sites_at_fork();
	pthread_atfork(before_fork, after_fork, in_child);
}

void shunt_mmu_registry_take(void)
{
	look_forked();
	shunt_hold_take(&registry);
}

void shunt_mmu_registry_give(void)
{
	shunt_hold_give(&registry);
}

/* --- users --------------------------------------------------------------------------- */

int shunt_mmu_user_add(uint32_t *missing)
{
	char why[200];
	int r;

	if (!users) {
		/* Arming waits for the calls of threads, and this one is in one. */
		r = shunt_mmu_inside() ? -EDEADLK : shunt_mmu_hand_stock();
		if (r)
			return r;
		/* First: who comes through a place is in a section from the first moment on. */
		__atomic_store_n(&shunt_mmu_page->armed, 1, __ATOMIC_SEQ_CST);
		r = shunt_mmu_sites_arm(false, &missing_sources, why, sizeof why);
		if (r) {
			__atomic_store_n(&shunt_mmu_page->armed, 0, __ATOMIC_SEQ_CST);
			shunt_log(SHUNT_LOG_ERROR, "mmu: %s", why);
			return r;
		}
	}
	users++;
	*missing = missing_sources;
	return 0;
}

void shunt_mmu_user_drop(void)
{
	if (--users)
		return;
	__atomic_store_n(&shunt_mmu_page->armed, 0, __ATOMIC_SEQ_CST);
	shunt_mmu_sites_disarm();
}

int shunt_mmu_refuse_missing(uint32_t missing)
{
	for (int s = 0; s < SHUNT_MMU_SOURCES; s++)
		if (missing >> s & 1)
			shunt_log(SHUNT_LOG_ERROR,
				"mmu: %s cannot be seen here: shunt_mmu_coverage() says why, "
				"SHUNT_MMU_PARTIAL registers without it",
				shunt_mmu_source_name((enum shunt_mmu_source)s));
	return -ENOTSUP;
}

/* --- members ------------------------------------------------------------------------- */

static int take_slot(void)
{
	for (int i = 0; i < SHUNT_MMU_NOTIFIERS / 64; i++)
		if (~slots[i]) {
			int bit = __builtin_ctzll(~slots[i]);

			slots[i] |= 1ull << bit;
			return i * 64 + bit;
		}
	return -ENOSPC;
}

static void give_slot(uint32_t slot)
{
	slots[slot / 64] &= ~(1ull << slot % 64);
}

static void free_gone(void)
{
	while (gone && shunt_srcu_poll_state(shunt_mmu_ops, gone->state)) {
		struct shunt_mmu_member *m = gone;

		gone = m->gone;
		if (!gone)
			gone_end = &gone;
		give_slot(m->slot);
		free(m);
	}
}

static uint32_t all_kinds(void)
{
	uint32_t kinds = 0;

	for (struct shunt_mmu_member *m = shunt_mmu_members; m; m = m->next)
		kinds |= m->kinds;
	return kinds;
}

/* Readers find it complete; the number says who may. */
static void publish(struct shunt_mmu_member *m)
{
	struct shunt_mmu_member **at = &shunt_mmu_members;

	while (*at)
		at = &(*at)->next;
	m->number = shunt_mmu_last + 1;
	__atomic_store_n(at, m, __ATOMIC_RELEASE);
	__atomic_store_n(&shunt_mmu_last, m->number, __ATOMIC_RELEASE);
	__atomic_store_n(&shunt_mmu_kinds, all_kinds(), __ATOMIC_SEQ_CST);
}

/* A reader that stands on it goes on by its `next`, which stays until the grace period has ended. */
static void unlink_member(struct shunt_mmu_member *m)
{
	struct shunt_mmu_member **at = &shunt_mmu_members;

	while (*at && *at != m)
		at = &(*at)->next;
	if (*at)
		__atomic_store_n(at, m->next, __ATOMIC_RELEASE);
	__atomic_store_n(&shunt_mmu_kinds, all_kinds(), __ATOMIC_SEQ_CST);
	m->state = shunt_srcu_get_state(shunt_mmu_ops);
	m->gone = NULL;
	*gone_end = m;
	gone_end = &m->gone;
}

static int check(const struct shunt_mmu_notifier *n)
{
	if (!n || !n->ops || (!n->ops->invalidate_range_start && !n->ops->invalidate_page) ||
		n->kinds >> SHUNT_MMU_KINDS || (n->flags & ~(SHUNT_MMU_DIRECT | SHUNT_MMU_PARTIAL)))
		return -EINVAL;
	return shunt_mmu_inside() ? -EDEADLK : 0;
}

/* What is of a parent's is not ours. */
static struct shunt_mmu_member *member_of(const struct shunt_mmu_notifier *n)
{
	struct shunt_mmu_member *m = __atomic_load_n(&n->node, __ATOMIC_SEQ_CST);

	return m && m->process == shunt_mmu_page->owner ? m : NULL;
}

/*
 * What has been loaded since places were armed. Without the registry: it waits for the loader's lock, and who holds
 * that may be in a callback. It stays armed meanwhile, since the caller counts as a user.
 */
static int arm_more(uint32_t *missing)
{
	char why[200];
	int r = shunt_mmu_sites_arm(true, missing, why, sizeof why);

	if (r)
		shunt_log(SHUNT_LOG_ERROR, "mmu: %s", why);
	return r;
}

/* Becomes a user, with what has been loaded up to now armed. */
static int arm(const struct shunt_mmu_notifier *n, uint32_t *missing)
{
	bool first;
	int r;

	shunt_mmu_registry_take();
	first = !users;
	r = member_of(n) ? -EALREADY : shunt_mmu_user_add(missing);
	shunt_mmu_registry_give();
	if (r || first)
		return r;
	r = arm_more(missing);
	shunt_mmu_registry_take();
	if (r)
		shunt_mmu_user_drop();
	else
		missing_sources = *missing;
	shunt_mmu_registry_give();
	return r;
}

/* The caller is a user already, and is none any more if it fails. */
static int add(struct shunt_mmu_notifier *n, struct shunt_mmu_member *m, uint32_t missing)
{
	int slot, r = 0;

	free_gone();
	slot = take_slot();
	if (slot < 0)
		r = slot;
	else if (missing && !(n->flags & SHUNT_MMU_PARTIAL))
		r = shunt_mmu_refuse_missing(missing);
	if (r) {
		if (slot >= 0)
			give_slot((uint32_t)slot);
		shunt_mmu_user_drop();
		return r;
	}
	m->slot = (uint32_t)slot;
	m->process = shunt_mmu_page->owner;
	n->node = m;
	publish(m);
	return 0;
}

SHUNT_API int shunt_mmu_notifier_register(struct shunt_mmu_notifier *n)
{
	struct shunt_mmu_member *m;
	uint32_t missing;
	int r = check(n);

	if (r)
		return r;
	r = shunt_mmu_hand_prepare();
	if (r)
		return r;
	m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->user = n;
	m->ops = n->ops;
	m->kinds = n->kinds ? n->kinds : (1u << SHUNT_MMU_KINDS) - 1;
	m->direct = n->flags & SHUNT_MMU_DIRECT;
	r = arm(n, &missing);
	if (!r) {
		shunt_mmu_registry_take();
		r = add(n, m, missing);
		shunt_mmu_registry_give();
	}
	if (r)
		free(m);
	else
		shunt_srcu_synchronize(shunt_mmu_ops);
	return r;
}

/*
 * Inside of a change nobody waits for the ends of others: what is open stays without an end, and only callbacks
 * that are running are waited for. What was handed over finds it gone: slots are used again, but
 * by those with numbers beyond the limits of now.
 */
static void wait_closed(struct shunt_mmu_member *m)
{
	if (!shunt_mmu_inside() && !shunt_mmu_under_way) {
		shunt_mmu_wait_open(&m->open, 0);
		return;
	}
	__atomic_store_n(&m->cut, 1, __ATOMIC_SEQ_CST);
	shunt_mmu_wait_open(&m->running, shunt_mmu_held_by_self(m));
}

void shunt_mmu_leave(struct shunt_mmu_leaving *l)
{
	if (shunt_mmu_inside()) {
		shunt_mmu_hand_leaving(l);
		return;
	}
	shunt_mmu_registry_take();
	l->out(l);
	shunt_mmu_registry_give();
}

static void take_out(struct shunt_mmu_leaving *l)
{
	unlink_member((void *)((char *)l - offsetof(struct shunt_mmu_member, leaving)));
	shunt_mmu_user_drop();
}

SHUNT_API int shunt_mmu_notifier_unregister(struct shunt_mmu_notifier *n)
{
	struct shunt_mmu_member *m = member_of(n);

	/* Whoever else unregisters it finds nothing. */
	if (!__atomic_exchange_n(&n->node, NULL, __ATOMIC_SEQ_CST) || !m)
		return -ENOENT;
	shunt_mmu_release(m);
	wait_closed(m);
	m->leaving.out = take_out;
	shunt_mmu_leave(&m->leaving);
	return 0;
}
