/* SPDX-License-Identifier: MIT */
/*
 * look.c - is a thread in one of these zones?
 *
 * A thread that does not run is looked at from outside, and never notices:
 *
 *	how often has it been put on a processor?     /proc/self/task/N/schedstat
 *	is it off, and where are its SP and PC?       /proc/self/task/N/syscall
 *	PC, arguments, all of its stack
 *	how often has it been put on a processor?     unchanged: it has stood still
 *
 * The kernel says SP and PC only of a thread that it has found off the processor; to
 * run it has to be put on one, which it counts before the first instruction
 * (sched_info_arrive). So between equal counts all that was read is of one
 * moment. Where the kernel does not count, its context switches serve: they are
 * counted when a thread stops, so that it must be found off twice.
 *
 * One that runs gets a signal, writes down its registers, and waits a moment while its
 * stack is read (inquire.h).
 *
 * A stack is read conservatively from SP up to the end of its mapping, or to where the
 * thread's descriptor is: libc puts it at a stack's upper end, and the kernel knows
 * it by the robust list that is in it. Every word that is an address in a zone is
 * taken for a return address. Below SP nobody keeps a return address (a signal would
 * overwrite it but for 128 bytes, and those are for data); the 128 are looked at
 * where a thread was interrupted at any instruction, not where it waits in the
 * kernel: there a stale word could keep a zone for as long as the thread sleeps.
 *
 * A signal frame on a stack is known by the segment selectors that the kernel puts
 * into it, between flags and SP: its SP is a stack to be read as well (a handler may run
 * on another one), its other registers are words that are read anyway.
 *
 * What a thread called through our function tracer returns to a stub, which stands
 * for the real return address.
 *
 * A vfork child runs on its parent's stack below what the parent's SP says, and is in no
 * list of threads. While the parent waits for it, it is not seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "arch/x86_64/text_sys.h"
#include "arch/x86_64/trampoline_c.h"
#include "base/clock.h"
#include "base/hold.h"
#include "rcu/inquire.h"
#include "rcu/look.h"
#include "rcu/roots.h"
#include "text/threads.h"

#define RED_ZONE  128
#define CHUNK	  2048 /* words */
#define STACKS	  16
#define DOORWAYS  16
#define STEP_NS	  200000u
#define LOST_NS	  50000000u
#define MAX_STACK_PARTS 64

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct shunt_range doorways[DOORWAYS];
static unsigned ndoorways;
uint64_t shunt_look_threads, shunt_look_tries;
void (*shunt_tasks_test_between)(int tid);
static bool no_readv;

/* A thread that is being looked at. */
struct subject {
	struct shunt_look *l;
	struct shunt_looked *t;
	int tid;
	int why; /* SHUNT_SEEN until something says otherwise */
	uintptr_t pc, own; /* where it stands, and on what stack */
	unsigned nstacks, todo;
	struct shunt_range stack[STACKS]; /* read */
	uintptr_t sp[STACKS];		  /* to be read */
};

void shunt_look_lock(void)
{
	shunt_hold_take(&lock);
}

void shunt_look_unlock(void)
{
	shunt_hold_give(&lock);
}

const char *shunt_look_why(enum shunt_unseen why)
{
	static const char *const text[] = {"seen", "new", "runs with the signal blocked",
		"waits for a vfork child", "is about to enter a zone", "has a stack that cannot be read",
		"is in a zone", "runs, and rt_tgsigqueueinfo(), by which it would be asked, is refused"};

	return text[why];
}

int shunt_tasks_doorway(uintptr_t lo, uintptr_t hi)
{
	int r = -ENOSPC;

	if (lo >= hi)
		return -EINVAL;
	shunt_look_lock();
	if (ndoorways < DOORWAYS) {
		doorways[ndoorways++] = (struct shunt_range){lo, hi};
		r = 0;
	}
	shunt_look_unlock();
	return r;
}

static bool in_doorway(uintptr_t pc)
{
	for (unsigned i = 0; i < ndoorways; i++)
		if (pc - doorways[i].start < doorways[i].end - doorways[i].start)
			return true;
	return false;
}

/* --- words ---------------------------------------------------------------------------- */

/* Marks all zones that have addr in them, or before it; zones may overlap. */
static bool mark(struct shunt_spots *s, uintptr_t addr, bool at_start, int tid, uintptr_t pc)
{
	size_t lo = 0, hi = s->n;
	bool any = false;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->s[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo-- && s->s[lo].reach > addr)
		if (addr < s->s[lo].end && (at_start || addr != s->s[lo].start)) {
			s->s[lo].tid = tid;
			s->s[lo].pc = pc;
			any = true;
		}
	return any;
}

static void seek(struct subject *s, uintptr_t w, bool at_start)
{
	/* Stubs for stubs: tail calls. */
	for (int i = 0; i < 8 && shunt_stub_contains(w); i++)
		w = shunt_stub_row(w)->parent;
	if (w - s->l->lo < s->l->hi - s->l->lo && mark(s->l->spots, w, at_start, s->tid, s->pc))
		s->t->found = 1;
}

/*
 * To where a zone begins nobody returns, since a return address is behind a call; but
 * it is what a program knows its zones by, also on its stack.
 */
static void word(struct subject *s, uintptr_t w)
{
	if (!s->l->inside)
		seek(s, w, false);
}

/* Where a context stands, not a mere word. In system call nr, or -1. */
static void place_in(struct subject *s, uintptr_t pc, long nr, const uint64_t *arg)
{
	if (shunt_tasks_test_off & SHUNT_TASKS_NO_PC)
		return;
	if (s->l->inside) {
		s->t->found |= s->l->inside(pc, nr, arg);
		return;
	}
	seek(s, pc, true);
	if (in_doorway(pc))
		s->why = SHUNT_UNSEEN_DOOR;
}

static void place(struct subject *s, uintptr_t pc)
{
	place_in(s, pc, -1, NULL);
}

/* --- memory --------------------------------------------------------------------------- */

/*
 * Of this process, without a fault: bytes read, or -errno. By the thread's number: the
 * process's own is the main thread's, which may have ended.
 */
static long read_memory(uintptr_t from, void *to, size_t n)
{
	struct iovec local = {to, n}, remote = {(void *)from, n};
	long r = -EPERM, fd;

	if (!no_readv && !(shunt_tasks_test_off & SHUNT_TASKS_NO_READV))
		r = shunt_sys(SYS_process_vm_readv, shunt_sys(SYS_gettid), &local, 1, &remote, 1, 0);
	if (r != -EPERM && r != -ENOSYS)
		return r;
	no_readv = !(shunt_tasks_test_off & SHUNT_TASKS_NO_READV);
	fd = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/mem", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	r = shunt_sys(SYS_pread64, fd, to, n, from);
	shunt_sys(SYS_close, fd);
	return r == -EIO ? -EFAULT : r;
}

static void stack_later(struct subject *s, uintptr_t sp)
{
	if (shunt_tasks_test_off & SHUNT_TASKS_NO_FRAMES)
		return;
	if (s->todo < STACKS)
		s->sp[s->todo++] = sp;
	else
		s->why = SHUNT_UNSEEN_DEEP;
}

/*
 * w is the word of selectors in a signal frame: CS 0x33 in the lowest 16 bits, SS
 * 0x2b in the highest (older kernels: 0). Flags, PC and SP are just below.
 */
static void frame(struct subject *s, const uintptr_t *w)
{
	uintptr_t flags = w[-1], pc = w[-2], sp = w[-3];

	if ((*w != 0x33 && *w != 0x2b000000000033ull) || !(flags & 2) || flags >> 22)
		return;
	place(s, pc);
	stack_later(s, sp);
}

/* buf[0..3) are the words before. */
static void words(struct subject *s, const uintptr_t *buf, size_t n)
{
	for (const uintptr_t *w = buf + 3; w < buf + 3 + n; w++) {
		word(s, *w);
		if ((*w & 0xffff) == 0x33)
			frame(s, w);
	}
}

/* Where the thread's descriptor is, if above `from`: no stack goes on there. */
static uintptr_t descriptor(int tid, uintptr_t from, uintptr_t end)
{
	uintptr_t head = 0;
	size_t len;

	if (shunt_sys(SYS_get_robust_list, tid, &head, &len))
		return end;
	return head > from && head < end ? head : end;
}

/* What there is above `sp` of its stack: up to where the mappings end, in one piece. */
static int extent(struct subject *s, uintptr_t sp, uintptr_t *from, uintptr_t *end)
{
	struct shunt_vma v, next;
	int parts = 0;

	if (shunt_maps_find(&s->l->maps, sp, &v) || v.start > sp || !(v.flags & SHUNT_VMA_READ)) {
		char byte;

		/* Newer than our table of mappings, or no stack at all. */
		return read_memory(sp, &byte, 1) == 1 ? -EAGAIN : -ENOENT;
	}
	if (*from < v.start)
		*from = v.start;
	*end = descriptor(s->tid, sp, v.end);
	while (*end == v.end && !v.inode && ++parts < MAX_STACK_PARTS &&
		!shunt_maps_find(&s->l->maps, v.end, &next) && next.start == v.end &&
		!next.inode && (next.flags & 3) == 3) {
		v = next;
		*end = descriptor(s->tid, sp, v.end);
	}
	return 0;
}

/* Cuts off what has been read of it before. */
static bool cut(const struct subject *s, uintptr_t from, uintptr_t *end)
{
	for (unsigned i = 0; i < s->nstacks; i++) {
		if (from >= s->stack[i].start && from < s->stack[i].end)
			return false;
		if (from < s->stack[i].start && *end > s->stack[i].start)
			*end = s->stack[i].start;
	}
	return true;
}

static int read_stack(struct subject *s, uintptr_t from, uintptr_t end)
{
	static uintptr_t buf[3 + CHUNK]; /* the look's lock is held */

	memset(buf, 0, 3 * sizeof *buf);
	while (from + 8 <= end) {
		size_t n = (end - from) / 8 < CHUNK ? (end - from) / 8 : CHUNK;
		long r = read_memory(from, buf + 3, n * 8);

		if (r < 8)
			return r == -EFAULT ? -EAGAIN : r < 0 ? (int)r : -EAGAIN;
		n = (size_t)r / 8;
		words(s, buf, n);
		memmove(buf, buf + n, 3 * sizeof *buf);
		from += n * 8;
	}
	return 0;
}

static int look_at_stack(struct subject *s, uintptr_t sp, unsigned below)
{
	uintptr_t from = (sp - below) & -8ul, end;
	int r = extent(s, sp, &from, &end);

	if (r)
		return r == -ENOENT ? 0 : r;
	if (!cut(s, from, &end))
		return 0;
	if (s->nstacks == STACKS) {
		s->why = SHUNT_UNSEEN_DEEP;
		return 0;
	}
	s->stack[s->nstacks++] = (struct shunt_range){from, end};
	r = read_stack(s, from, end);
	/* Code of its own kind may have its stack askew. */
	if (!r && sp % 8)
		r = read_stack(s, from + sp % 8, end);
	return r;
}

static int look_at_stacks(struct subject *s, uintptr_t sp, unsigned below)
{
	int r = 0;

	s->own = sp;
	if (shunt_tasks_test_off & SHUNT_TASKS_NO_STACK)
		return 0;
	r = look_at_stack(s, sp, below);
	for (unsigned i = 0; i < s->todo && !r; i++)
		r = look_at_stack(s, s->sp[i], RED_ZONE);
	return r;
}

/* --- a thread that does not run ----------------------------------------------------------- */

static uint64_t number(const char **p, int base)
{
	uint64_t v = 0;

	while (**p == ' ' || **p == '\t')
		(*p)++;
	if (base == 16 && (*p)[0] == '0' && (*p)[1] == 'x')
		*p += 2;
	for (;; (*p)++) {
		char c = **p;
		unsigned d = c >= '0' && c <= '9' ? (unsigned)(c - '0')
			   : base == 16 && c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 99;

		if (d == 99)
			return v;
		v = v * (unsigned)base + d;
	}
}

/* Voluntary and other context switches. */
static long switches(int dir, int tid, uint64_t *count)
{
	char buf[4096];
	long r = shunt_thread_read(dir, tid, "status", buf, sizeof buf);
	const char *p = r > 0 ? strstr(buf, "\nvoluntary_ctxt_switches:") : NULL;

	if (!p)
		return r == -ENOENT || r >= 0 ? -ESRCH : r;
	p += 25;
	*count = number(&p, 10);
	p = strstr(p, "nonvoluntary_ctxt_switches:");
	if (!p)
		return -ENOENT;
	p += 27;
	*count += number(&p, 10);
	return 0;
}

static long schedstat(const char *text, uint64_t *count)
{
	number(&text, 10); /* time on a processor, waiting for one */
	number(&text, 10);
	*count = number(&text, 10);
	return 1;
}

/* Whether the kernel counts: we are running, so it must have counted us. */
static bool schedstat_works(void)
{
	static int works; /* -1: no */
	char buf[96];
	uint64_t count = 0;

	if (!works) {
		if (shunt_proc_read("/proc/thread-self/schedstat", buf, sizeof buf) > 0)
			schedstat(buf, &count);
		works = count ? 1 : -1;
	}
	return works > 0 && !(shunt_tasks_test_off & SHUNT_TASKS_NO_SCHEDSTAT);
}

/* A number that changes when the thread runs. 1: one that changes when it begins to. */
static long turns(int dir, int tid, uint64_t *count)
{
	char buf[96];
	long r;

	if (!schedstat_works())
		return switches(dir, tid, count);
	r = shunt_thread_read(dir, tid, "schedstat", buf, sizeof buf);
	if (r <= 0)
		return r == -ENOENT || !r ? -ESRCH : r;
	return schedstat(buf, count);
}

struct syscall_info {
	bool running, in_call;
	long nr;
	uint64_t arg[6];
	uintptr_t sp, pc;
};

/* "running", "-1 SP PC", or "NR six arguments SP PC". */
static int read_syscall(int dir, int tid, struct syscall_info *c)
{
	char buf[256];
	const char *p = buf;
	long r = shunt_thread_read(dir, tid, "syscall", buf, sizeof buf);

	if (r <= 0)
		return r == -ENOENT || r == 0 ? -ESRCH : (int)r;
	*c = (struct syscall_info){.running = *p == 'r'};
	if (c->running)
		return 0;
	c->in_call = *p != '-';
	p += !c->in_call;
	c->nr = (long)number(&p, 10);
	for (int i = 0; i < 6 && c->in_call; i++)
		c->arg[i] = number(&p, 16);
	c->sp = number(&p, 16);
	c->pc = number(&p, 16);
	return 0;
}

/* Waits for a child that runs in our memory. */
static bool in_vfork(const struct syscall_info *c)
{
	uint64_t flags = 0;

	if (!c->in_call || (shunt_tasks_test_off & SHUNT_TASKS_NO_VFORK))
		return false;
	if (c->nr == SYS_clone)
		flags = c->arg[0];
	else if (c->nr == SYS_clone3 && read_memory(c->arg[0], &flags, 8) != 8)
		return true;
	return c->nr == SYS_vfork || (flags & 0x4000 /* CLONE_VFORK */);
}

/* It never comes back to user space, or has never been there (workers of io_uring). */
static bool leaves(const struct syscall_info *c)
{
	return (c->in_call && (c->nr == SYS_exit || c->nr == SYS_exit_group)) || (!c->sp && !c->pc);
}

static int look_at_call(struct subject *s, const struct syscall_info *c)
{
	s->pc = c->pc;
	place_in(s, c->pc, c->in_call ? c->nr : -1, c->arg);
	if (!(shunt_tasks_test_off & SHUNT_TASKS_NO_REGISTERS))
		for (int i = 0; i < 6; i++)
			word(s, c->arg[i]);
	if (in_vfork(c))
		s->why = SHUNT_UNSEEN_VFORK;
	return look_at_stacks(s, c->sp, c->in_call ? 0 : RED_ZONE);
}

/* Has it run since? */
static bool moved(struct subject *s, uint64_t before, long kind)
{
	struct syscall_info again;
	uint64_t now;

	if (shunt_tasks_test_off & SHUNT_TASKS_NO_RECHECK)
		return false;
	if (kind != 1 && (read_syscall(s->l->dir, s->tid, &again) || again.running))
		return true;
	return turns(s->l->dir, s->tid, &now) != kind || now != before;
}

/* 0: seen or not, s->why says; -EAGAIN: it runs; -ESRCH: gone. */
static int look_from_outside(struct subject *s)
{
	struct syscall_info c;
	uint64_t before;
	long kind = turns(s->l->dir, s->tid, &before);
	int r;

	if (kind < 0)
		return (int)kind;
	r = read_syscall(s->l->dir, s->tid, &c);
	if (r)
		return r;
	if (c.running)
		return -EAGAIN;
	if (leaves(&c))
		return 0;
	if (shunt_tasks_test_between)
		shunt_tasks_test_between(s->tid);
	r = look_at_call(s, &c);
	return r ? r : moved(s, before, kind) ? -EAGAIN : 0;
}

/* --- all threads ---------------------------------------------------------------------------- */

static struct shunt_looked *slot_of(struct shunt_look *l, int tid)
{
	size_t i = (unsigned)tid * 2654435761u & (l->room - 1);

	while (l->t[i].tid && l->t[i].tid != tid)
		i = (i + 1) & (l->room - 1);
	return &l->t[i];
}

static int make_room(struct shunt_look *l, size_t n)
{
	struct shunt_look bigger = *l;
	long p;

	if (n * 2 <= l->room)
		return 0;
	for (bigger.room = 256; bigger.room < n * 3; bigger.room *= 2)
		;
	p = shunt_sys(SYS_mmap, 0, bigger.room * sizeof *l->t, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shunt_sys_failed(p))
		return (int)p;
	bigger.t = (struct shunt_looked *)p;
	for (size_t i = 0; i < l->room; i++)
		if (l->t[i].tid)
			*slot_of(&bigger, l->t[i].tid) = l->t[i];
	if (l->t)
		shunt_sys(SYS_munmap, l->t, l->room * sizeof *l->t);
	*l = bigger;
	return 0;
}

static int note(struct shunt_look *l, int tid, bool *fresh)
{
	struct shunt_looked *t;
	int r = make_room(l, l->n + 1);

	if (r)
		return r;
	t = slot_of(l, tid);
	/* A number that was missing from a listing is another thread's now. */
	if (!t->tid || t->mark + 1 < l->mark) {
		l->n += !t->tid;
		*t = (struct shunt_looked){.tid = tid, .since = shunt_now_ns(),
			.why = l->listed ? SHUNT_SEEN : SHUNT_UNSEEN_NEW};
		*fresh |= !l->listed;
	}
	t->mark = l->mark;
	return 0;
}

/* How many threads there are, as the kernel counts. */
static long thread_count(int dir)
{
	struct stat st;

	return fstat(dir, &st) ? -1 : (long)st.st_nlink - 2;
}

/*
 * Lists the threads. Read in pieces the kernel's list may lack some while others
 * end: it goes on by counting. So in one piece, as many as there were before and
 * after: 0; -EAGAIN: not so.
 */
static int list(struct shunt_look *l, bool *fresh)
{
	long count = thread_count(l->dir), n = 0, got;
	size_t size = ((size_t)(count > 0 ? count : 0) + 64) * 32;
	long p = shunt_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r = 0;

	if (shunt_sys_failed(p))
		return (int)p;
	shunt_sys(SYS_lseek, l->dir, 0, SEEK_SET);
	got = shunt_sys(SYS_getdents64, l->dir, p, size);
	l->mark++;
	for (long at = 0; at < got && !r;) {
		const struct shunt_dirent *d = (const struct shunt_dirent *)(p + at);
		const char *name = d->name;

		at += d->reclen;
		if (*name == '.')
			continue;
		r = note(l, (int)number(&name, 10), fresh);
		n++;
	}
	shunt_sys(SYS_munmap, p, size);
	if (r || got < 0)
		return r ? r : (int)got;
	return n == count && thread_count(l->dir) == n ? 0 : -EAGAIN;
}

static bool is_alive(int tid, void *arg)
{
	struct shunt_look *l = arg;
	struct shunt_looked *t = slot_of(l, tid);

	return t->tid && t->mark == l->mark;
}

/* --- asking those that run --------------------------------------------------------------------- */

/* What came of looking at a thread. */
static void settle(struct shunt_look *l, struct shunt_looked *t, const struct subject *s)
{
	t->pc = s->pc;
	t->why = (uint8_t)s->why;
	if (!s->why && (l->outside || l->inside) && t->found)
		t->why = SHUNT_UNSEEN_ZONE;
	t->found = 0;
	if (!t->why)
		shunt_roots_on(l, s->own);
	for (unsigned i = 0; i < s->todo && !t->why; i++)
		shunt_roots_on(l, s->sp[i]);
	__atomic_add_fetch(&shunt_look_threads, 1, __ATOMIC_RELAXED);
}

static void take_answer(struct shunt_look *l, int slot)
{
	struct shunt_inquiry *q = shunt_inquire_slot(slot);
	struct shunt_looked *t = slot_of(l, q->tid);
	struct subject s = {.l = l, .t = t, .tid = q->tid, .pc = q->reg[SHUNT_INQUIRE_RIP]};
	int r = 0;

	if (t->tid && t->why) {
		place(&s, s.pc);
		for (int i = 0; i < SHUNT_INQUIRE_RSP; i++)
			if (!(shunt_tasks_test_off & SHUNT_TASKS_NO_REGISTERS))
				word(&s, q->reg[i]);
		r = look_at_stacks(&s, q->reg[SHUNT_INQUIRE_RSP], RED_ZONE);
	}
	if (shunt_inquire_done(slot) && t->tid && t->why && !r)
		settle(l, t, &s);
}

static void take_answers(struct shunt_look *l)
{
	for (int i = -1; (i = shunt_inquire_next((unsigned)(i + 1))) >= 0;)
		take_answer(l, i);
}

/* Sent long ago and not waiting to be delivered: somebody else's handler has got it. */
static void ask_again(struct shunt_look *l, struct shunt_inquiry *q)
{
	char buf[4096];
	const char *p;
	uint64_t pending;

	if (shunt_now_ns() - q->sent_ns < LOST_NS)
		return;
	q->sent_ns = shunt_now_ns();
	if (shunt_thread_read(l->dir, q->tid, "status", buf, sizeof buf) <= 0)
		return;
	p = strstr(buf, "\nSigPnd:");
	if (!p)
		return;
	p += 8;
	pending = number(&p, 16);
	if (!(pending >> (shunt_inquire_signal - 1) & 1))
		q->tid = 0;
}

static int ask(struct shunt_look *l, uint64_t deadline)
{
	uint64_t now = shunt_now_ns();
	uint32_t seen;
	unsigned asked = 0;
	int r = shunt_inquire_prepare();

	if (r)
		return r;
	for (size_t i = 0; i < l->room; i++) {
		struct shunt_looked *t = &l->t[i];

		if (!t->tid || t->mark != l->mark || t->why != SHUNT_UNSEEN_RUNS)
			continue;
		r = shunt_inquire_send(t->tid);
		if (r >= 0 && ++asked)
			ask_again(l, shunt_inquire_slot(r));
		else if (r == -EPERM || r == -EACCES || r == -ENOSYS)
			t->why = SHUNT_UNSEEN_REFUSED;
	}
	for (uint64_t until = now + STEP_NS; asked && now < until && now < deadline;
		now = shunt_now_ns()) {
		seen = shunt_inquire_answers();
		take_answers(l);
		if (seen == shunt_inquire_answers())
			shunt_inquire_wait(seen, until - now);
	}
	l->answers = shunt_inquire_answers();
	take_answers(l);
	return 0;
}

/* --- a look ------------------------------------------------------------------------------------ */

static void look_at_self(struct shunt_look *l, struct shunt_looked *t)
{
	struct subject s = {.l = l, .t = t, .tid = t->tid};

	if (l->self)
		look_at_stacks(&s, l->self, 0);
	l->own |= t->found;
	settle(l, t, &s);
}

static int look_once(struct shunt_look *l, struct shunt_looked *t, int self)
{
	struct subject s = {.l = l, .t = t, .tid = t->tid};
	int r;

	if (t->tid == self) {
		look_at_self(l, t);
		return 0;
	}
	r = look_from_outside(&s);
	if (r == -ESRCH) {
		t->why = SHUNT_SEEN; /* gone is gone */
		return 0;
	}
	if (r) {
		t->found = 0;
		t->why = SHUNT_UNSEEN_RUNS;
		return r == -EAGAIN ? 0 : r;
	}
	settle(l, t, &s);
	return 0;
}

/* What one listing came to. */
struct tally {
	size_t looked, unseen, running;
};

static int look_at_all(struct shunt_look *l, struct tally *n)
{
	int self = (int)shunt_sys(SYS_gettid), r = 0;

	n->unseen = n->running = 0;
	for (size_t i = 0; i < l->room && !r; i++) {
		struct shunt_looked *t = &l->t[i];

		if (!t->tid || t->mark != l->mark || t->why == SHUNT_SEEN)
			continue;
		r = look_once(l, t, self);
		n->looked++;
		n->unseen += t->why != SHUNT_SEEN;
		n->running += t->why == SHUNT_UNSEEN_RUNS;
	}
	return r;
}

/*
 * Complete when a whole listing holds only threads that had been seen before it:
 * whoever is not in it was made by one that was outside already.
 */
static int one_round(struct shunt_look *l, uint64_t deadline)
{
	struct tally n = {0};
	bool fresh = false;
	int contexts = l->inside ? 0 : shunt_roots_look(l), listed, r;

	if (contexts && contexts != -EAGAIN)
		return contexts;
	listed = list(l, &fresh);
	if (listed && listed != -EAGAIN)
		return listed;
	l->listed |= l->inside && !listed;
	shunt_inquire_reap(is_alive, l);
	r = look_at_all(l, &n);
	if (!r && n.running) /* once more, before a signal is sent */
		r = look_at_all(l, &n);
	if (!r && n.running)
		r = ask(l, deadline);
	l->left = n.unseen + (contexts != 0);
	if (!r && l->listed && !listed && !n.unseen)
		return 0;
	return r ? r : n.looked || fresh || listed || contexts ? -EAGAIN : 0;
}

int shunt_look_set_signal(uint64_t sig)
{
	if (sig > 64 || sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33 ||
		(sig && sig < 32 && sig != SIGUSR1 && sig != SIGUSR2 && sig != SIGURG))
		return -EINVAL;
	shunt_look_lock();
	if ((int)sig != shunt_inquire_signal)
		shunt_inquire_use((int)sig);
	shunt_look_unlock();
	return 0;
}

static int rounds(struct shunt_look *l, uint64_t deadline)
{
	int r, more = 16; /* when all were seen and only that is to be made sure of */

	for (unsigned us = 20;; us *= us < 1000 ? 2 : 1) {
		bool late = shunt_now_ns() >= deadline;

		r = one_round(l, deadline);
		if (r != -EAGAIN || (late && (l->left || !more--)))
			return r;
		/* Whoever answers meanwhile must not be kept waiting. */
		if (l->left || late)
			shunt_inquire_wait(l->answers, us * 1000ull);
	}
}

int shunt_look_begin(struct shunt_look *l, struct shunt_spots *spots)
{
	*l = (struct shunt_look){.spots = spots, .dir = -1, .lo = ~0ul};
	for (size_t i = 0; i < spots->n; i++) {
		struct shunt_spot *s = &spots->s[i];

		s->reach = i && spots->s[i - 1].reach > s->end ? spots->s[i - 1].reach : s->end;
	}
	if (spots->n) {
		l->lo = spots->s[0].start;
		l->hi = spots->s[spots->n - 1].reach;
	}
	/* The door is closed for all: nobody has an older branch in his pipeline. */
	shunt_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	shunt_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	return 0;
}

int shunt_look_try(struct shunt_look *l, unsigned ms)
{
	uint64_t deadline = shunt_now_ns() + ms * 1000000ull;
	int r;

	shunt_look_lock();
	l->dir = (int)shunt_sys(SYS_openat, AT_FDCWD, "/proc/self/task",
		O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = l->dir < 0 ? l->dir : shunt_maps_open(&l->maps);
	if (!r) {
		r = rounds(l, deadline);
		shunt_maps_close(&l->maps);
	}
	if (l->dir >= 0)
		shunt_sys(SYS_close, l->dir);
	__atomic_add_fetch(&shunt_look_tries, 1, __ATOMIC_RELEASE);
	shunt_look_unlock();
	return r;
}

int shunt_look_context(struct shunt_look *l, uintptr_t sp, uintptr_t hi)
{
	struct shunt_looked t = {.tid = -1};
	struct subject s = {.l = l, .t = &t, .tid = -1};
	int r = 0;

	if (shunt_tasks_test_off & SHUNT_TASKS_NO_STACK)
		return 0;
	s.stack[s.nstacks++] = (struct shunt_range){(sp - RED_ZONE) & -8ul, hi};
	r = read_stack(&s, s.stack[0].start, hi);
	for (unsigned i = 0; i < s.todo && !r; i++)
		r = look_at_stack(&s, s.sp[i], RED_ZONE);
	if (t.found && (l->outside || l->inside))
		return -EAGAIN;
	return r ? r : s.why ? -EAGAIN : 0;
}

void shunt_look_again(struct shunt_look *l)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->t[i].tid)
			l->t[i].why = SHUNT_UNSEEN_NEW;
}

void shunt_look_end(struct shunt_look *l)
{
	if (l->t)
		shunt_sys(SYS_munmap, l->t, l->room * sizeof *l->t);
	shunt_roots_end(l);
	l->t = NULL;
}
