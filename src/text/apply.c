/* SPDX-License-Identifier: MIT */
/*
 * apply.c - takes a batch of edits, checks it, and picks a strategy.
 *
 * Invariant: under the batch lock, every pending site holds its old bytes when a
 * strategy begins, and nothing has been written before all of them were
 * compared. So a refusal changes nothing, and batches of several threads follow
 * one another as if one thread had made them.
 *
 * The lock is taken over fork, so a child never inherits a half-made batch. All
 * signals but the synchronous ones are held back meanwhile: no handler of the
 * program runs, or jumps away, in the middle of a batch.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "arch/x86_64/text_arch.h"
#include "arch/x86_64/text_sys.h"
#include "base/log.h"
#include "text/engine.h"
#include "text/trap.h"
#include "text/text_internal.h"

static pthread_mutex_t batch_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
	void *at;
	size_t size;
} scratch[SHUNT_SCRATCHES];

void *shunt_scratch(enum shunt_scratch which, size_t size)
{
	long p;

	if (scratch[which].size >= size)
		return scratch[which].at;
	size = (size + SHUNT_PAGE - 1) & -SHUNT_PAGE;
	p = shunt_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (shunt_sys_failed(p))
		return NULL;
	if (scratch[which].size)
		shunt_sys(SYS_munmap, scratch[which].at, scratch[which].size);
	scratch[which].at = (void *)p;
	scratch[which].size = size;
	return scratch[which].at;
}

int shunt_batch_fail(struct shunt_batch *b, int err, const void *addr, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b->res->reason, sizeof b->res->reason, fmt, ap);
	va_end(ap);
	b->res->addr = (void *)addr;
	return err;
}

const char *shunt_text_strategy_name(enum shunt_text_strategy s)
{
	static const char *const names[] = {"auto", "flip", "trap", "stop", "plain"};

	return (unsigned)s < sizeof names / sizeof *names ? names[s] : "unknown";
}

/* --- order ------------------------------------------------------------------ */

/* Merges runs of `width` from one array into the other. */
static void merge_pass(const struct shunt_edit *from, struct shunt_edit *to, size_t n,
	size_t width)
{
	for (size_t lo = 0; lo < n; lo += 2 * width) {
		size_t mid = lo + width < n ? lo + width : n;
		size_t hi = mid + width < n ? mid + width : n;
		size_t a = lo, b = mid, k = lo;

		while (a < mid || b < hi) {
			bool left = b == hi || (a < mid && shunt_edit_start(&from[a]) <=
								   shunt_edit_start(&from[b]));

			to[k++] = from[left ? a++ : b++];
		}
	}
}

static int sort(struct shunt_batch *b)
{
	struct shunt_edit *x, *y;

	x = shunt_scratch(SHUNT_SCRATCH_SORTED, b->n * sizeof *x);
	y = shunt_scratch(SHUNT_SCRATCH_MERGE, b->n * sizeof *y);
	if (!x || !y)
		return shunt_batch_fail(b, -ENOMEM, NULL, "no memory to sort %zu edits", b->n);
	memcpy(x, b->e, b->n * sizeof *x);
	for (size_t width = 1; width < b->n; width *= 2) {
		struct shunt_edit *t = x;

		merge_pass(x, y, b->n, width);
		x = y;
		y = t;
	}
	b->e = x;
	return 0;
}

/* --- checks ----------------------------------------------------------------- */

/* 1: they are not in order. */
static int check_form(struct shunt_batch *b)
{
	uintptr_t start = 0, end = 0;

	for (size_t i = 0; i < b->n; i++) {
		const struct shunt_edit *e = &b->e[i];

		if (!e->len || e->len > SHUNT_EDIT_MAX || e->act > SHUNT_TEXT_CALL)
			return shunt_batch_fail(b, -EINVAL, e->addr,
				"an edit has a length of %u or an act of %u", e->len, e->act);
		if (shunt_edit_start(e) < start)
			return 1;
		if (shunt_edit_start(e) < end)
			return shunt_batch_fail(b, -EINVAL, e->addr, "two edits overlap");
		start = shunt_edit_start(e);
		end = shunt_edit_end(e);
	}
	return 0;
}

/* [from, to) is readable and executable throughout; *end = as far as is known. */
static bool is_text(struct shunt_batch *b, uintptr_t from, uintptr_t to, uintptr_t *end)
{
	const uint32_t rx = SHUNT_VMA_READ | SHUNT_VMA_EXEC;
	struct shunt_vma v;

	while (from < to) {
		if (shunt_maps_find(b->maps, from, &v) || v.start > from || (v.flags & rx) != rx)
			return false;
		from = v.end;
	}
	*end = from;
	return true;
}

/* 0F 1F 44 00 00 and jumps are what nearly all sites hold. */
static bool several_nops(const struct shunt_edit *e)
{
	bool whole;

	if (e->old[0] == 0xe9 || (e->len == 5 && !memcmp(e->old, "\x0f\x1f\x44\0", 5)))
		return false;
	return shunt_arch_is_nop(e->old, e->len, &whole) && !whole;
}

static int check_bytes(struct shunt_batch *b)
{
	uintptr_t text_end = 0, page = 0;
	struct shunt_text_result *res = b->res;

	for (size_t i = 0; i < b->n; i++) {
		const struct shunt_edit *e = &b->e[i];
		uintptr_t from = shunt_edit_start(e), to = shunt_edit_end(e);

		if (to > text_end && !is_text(b, from, to, &text_end))
			return shunt_batch_fail(b, -EFAULT, e->addr,
				"the site is not in readable executable memory");
		if (shunt_bytes_equal(e->addr, e->old, e->len)) {
			b->pending[i] = !shunt_bytes_equal(e->old, e->new_, e->len);
		} else if (shunt_bytes_equal(e->addr, e->new_, e->len)) {
			b->pending[i] = 0;
		} else {
			return shunt_batch_fail(b, -EBUSY, e->addr,
				"the site holds other bytes than recorded%s",
				*(uint8_t *)e->addr == 0xcc ? ": a breakpoint is on it" : "");
		}
		if (!b->pending[i])
			continue;
		if (!b->many && several_nops(e))
			b->many = e;
		res->sites++;
		if ((from & -SHUNT_PAGE) != page) {
			page = from & -SHUNT_PAGE;
			res->pages++;
		}
		if (((to - 1) & -SHUNT_PAGE) != page) {
			page = (to - 1) & -SHUNT_PAGE;
			res->pages++;
		}
	}
	return 0;
}

/* --- choice ----------------------------------------------------------------- */

static int run(struct shunt_batch *b, enum shunt_text_strategy s)
{
	b->res->strategy = s;
	if (b->many && (s == SHUNT_TEXT_FLIP || s == SHUNT_TEXT_TRAP))
		return shunt_batch_fail(b, -ENOTSUP, b->many->addr,
			"the site holds several NOPs, and a thread may stand between them");
	switch (s) {
	case SHUNT_TEXT_FLIP:
		return shunt_flip(b);
	case SHUNT_TEXT_TRAP:
		return shunt_trap(b);
	case SHUNT_TEXT_STOP:
		return shunt_stop(b);
	case SHUNT_TEXT_PLAIN:
		return shunt_plain(b);
	default:
		return shunt_batch_fail(b, -EINVAL, NULL, "unknown strategy %d", (int)s);
	}
}

/*
 * A flip costs about as much as three pages written one by one; and who asked
 * for a way of writing gets it.
 */
static bool plain_is_better(const struct shunt_batch *b)
{
	return b->status.threads == 1 && (b->res->pages <= 3 || b->opts->write);
}

static int choose(struct shunt_batch *b)
{
	static const enum shunt_text_strategy order[] = {
		SHUNT_TEXT_FLIP, SHUNT_TEXT_TRAP, SHUNT_TEXT_STOP,
	};
	char first[sizeof b->res->reason] = "";
	int r = -ENOTSUP, first_r = 0;

	if (b->opts->strategy)
		return run(b, b->opts->strategy);
	if (plain_is_better(b) && !run(b, SHUNT_TEXT_PLAIN))
		return 0;
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		r = run(b, order[i]);
		if (!r || r == -EIO || r == -EBUSY)
			return r;
		shunt_log(SHUNT_LOG_INFO, "patching by %s is not possible: %s",
			shunt_text_strategy_name(order[i]), b->res->reason);
		if (!first_r) {
			first_r = r;
			memcpy(first, b->res->reason, sizeof first);
		}
	}
	if (b->status.threads == 1 && !run(b, SHUNT_TEXT_PLAIN))
		return 0;
	/* What stood in the way of the best strategy tells most. */
	memcpy(b->res->reason, first, sizeof first);
	return first_r;
}

static int apply_locked(struct shunt_batch *b)
{
	int r = check_form(b);

	if (r > 0) {
		r = sort(b);
		if (!r)
			r = check_form(b);
	}
	if (r)
		return r;
	b->pending = shunt_scratch(SHUNT_SCRATCH_PENDING, b->n);
	if (!b->pending)
		return shunt_batch_fail(b, -ENOMEM, NULL, "no memory for %zu edits", b->n);
	r = shunt_maps_open(b->maps);
	if (r)
		return shunt_batch_fail(b, r, NULL, "/proc/thread-self/maps cannot be read: %s",
			strerror(-r));
	r = check_bytes(b);
	if (!r && b->res->sites) {
		if (shunt_status_read(&b->status))
			b->status.threads = 2; /* cannot be told: be careful */
		r = choose(b);
	}
	shunt_maps_close(b->maps);
	return r;
}

/* --- entry ------------------------------------------------------------------ */

static const uint64_t synchronous = 1ull << (SIGTRAP - 1) | 1ull << (SIGSEGV - 1) |
				    1ull << (SIGBUS - 1) | 1ull << (SIGILL - 1) |
				    1ull << (SIGFPE - 1);

int shunt_text_apply(const struct shunt_edit *edits, size_t n,
	const struct shunt_text_options *opts, struct shunt_text_result *res)
{
	static const struct shunt_text_options none;
	struct shunt_text_result own;
	struct shunt_maps maps;
	struct shunt_batch b = {.e = edits, .n = n, .maps = &maps,
		.opts = opts ? opts : &none, .res = res ? res : &own};
	uint64_t block = ~synchronous, mask = 0, t = shunt_now_ns();
	int r;

	memset(b.res, 0, sizeof *b.res);
	if (!n)
		return 0;
	if ((unsigned)b.opts->write > SHUNT_TEXT_WRITE_ALIAS)
		return shunt_batch_fail(&b, -EINVAL, NULL, "unknown way of writing");
	shunt_text_at_fork();
	shunt_sys(SYS_rt_sigprocmask, SIG_BLOCK, &block, &mask, 8);
	pthread_mutex_lock(&batch_lock);
	r = apply_locked(&b);
	pthread_mutex_unlock(&batch_lock);
	shunt_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8);
	if (r)
		b.res->sites = b.res->pages = 0;
	else
		b.res->reason[0] = 0;
	b.res->ns = shunt_now_ns() - t;
	return r;
}

/* --- fork ------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&batch_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&batch_lock);
}

static void after_fork_child(void)
{
	shunt_trap_forked();
	after_fork();
}

static void watch_fork(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_child);
}

void shunt_text_at_fork(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_fork);
}
