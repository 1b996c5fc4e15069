/* SPDX-License-Identifier: MIT */
/*
 * dispatch.c - what the trampolines call: the recorder's slow path, callbacks,
 * tail calls.
 *
 * Everything here runs in the traced function's place: any context, signal
 * handlers included. It takes no lock, allocates nothing and is compiled
 * without vector registers. It calls nothing of libc, errno included, which may be
 * traced itself.
 *
 * Recursion. A callback that calls a traced function must not be called for
 * it; a signal handler that interrupts a callback and calls a traced function
 * must be. Both look the same but for the stack between the callback's frame
 * and the new one: there is a signal frame on it, or the new one is on the
 * alternate stack. This is looked at only when a callback is running already.
 */
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>

#include "arch/x86_64/text_sys.h"
#include "arch/x86_64/trampoline_c.h"
#include "hook.h"
#include "rcu/reader.h"
#include "ring/pool.h"
#include "ring/writer.h"

_Static_assert(offsetof(struct shunt_ring_writer, at) == SHUNT_WRITER_AT, "assembly");
_Static_assert(offsetof(struct shunt_ring_writer, words) == SHUNT_WRITER_WORDS, "assembly");
_Static_assert(EMPTY(0) == SHUNT_WORD_EMPTY, "assembly");
_Static_assert(offsetof(struct shunt_ring_writer, hi) == SHUNT_WRITER_HI, "assembly");
_Static_assert(offsetof(struct shunt_ring_writer, written) == SHUNT_WRITER_WRITTEN, "assembly");
_Static_assert(offsetof(struct shunt_reader, callbacks.top) == SHUNT_READER_TOP, "assembly");
_Static_assert(offsetof(struct shunt_srcu, word) == 0, "assembly");
_Static_assert(offsetof(struct shunt_counts, unlock) == 16, "assembly");
_Static_assert(offsetof(struct shunt_hook, entry) == SHUNT_HOOK_ENTRY, "assembly");
_Static_assert(offsetof(struct shunt_hook, ops) == SHUNT_HOOK_OPS, "assembly");
_Static_assert(offsetof(struct shunt_hook, flags) == SHUNT_HOOK_FLAGS, "assembly");

struct shunt_ring *shunt_trace_ring;

/* No clock has such high bits: whoever holds this one takes the slow path. */
static struct shunt_ring_writer no_writer = {.hi = SHUNT_WRITER_IDLE};

__thread struct shunt_ring_writer *shunt_trace_writer = &no_writer;

__thread unsigned shunt_trace_quiet;

void shunt_trace_be_quiet(void)
{
	shunt_trace_quiet++;
	shunt_trace_writer = &no_writer; /* each event asks, and is told no */
}

void shunt_trace_speak(void)
{
	shunt_trace_quiet--;
}

/* --- the recorder ------------------------------------------------------- */

void shunt_record_put(uint32_t tag)
{
	struct shunt_ring *ring = __atomic_load_n(&shunt_trace_ring, __ATOMIC_ACQUIRE);
	struct shunt_ring_writer *w;

	if (!ring || shunt_trace_quiet || shunt_ring_thread_over())
		return;
	w = shunt_ring_writer(ring);
	shunt_ring_put_slow(ring, w, tag);
	/* The fast path reads the TSC: other clocks stay here. */
	if (w && shunt_ring_uses_tsc(ring))
		shunt_trace_writer = w;
}

/* The calling thread's next event looks for its writer anew. */
void shunt_trace_writer_reset(void)
{
	shunt_trace_writer = &no_writer;
}

static uint32_t tag_of(uint32_t id, uintptr_t stack_slot)
{
	return id | shunt_slot_hash(stack_slot) << SHUNT_TAG_HASH_SHIFT;
}

/* --- recursion ---------------------------------------------------------- */

/* The address that the kernel makes signal handlers return to. */
static uintptr_t restorer(void)
{
	static uintptr_t known;
	struct {
		void *handler;
		unsigned long flags;
		uintptr_t restorer;
		uint64_t mask;
	} act;

	for (int sig = 1; !known && sig < 65; sig++)
		if (!shunt_sys(SYS_rt_sigaction, sig, NULL, &act, 8) && act.restorer)
			__atomic_store_n(&known, act.restorer, __ATOMIC_RELAXED);
	return known;
}

/*
 * Whether a signal frame lies between two places of one stack. Read through
 * the kernel: the places may belong to different stacks after all.
 */
static bool signal_between(uintptr_t lo, uintptr_t hi)
{
	uintptr_t words[128], want = restorer();

	while (want && lo < hi) {
		size_t n = hi - lo < sizeof words ? hi - lo : sizeof words;
		struct iovec to = {words, n}, from = {(void *)lo, n};

		if (shunt_sys(SYS_process_vm_readv, shunt_sys(SYS_getpid), &to, 1, &from, 1, 0) !=
			(long)n)
			return false;
		for (size_t i = 0; i < n / sizeof *words; i++)
			if (words[i] == want)
				return true;
		lo += n;
	}
	return false;
}

#define SAME_STACK  (256u << 10)
#define MOST_NESTED 4

/*
 * A callback (or several) is marked as running. Whether another may start for
 * a function whose frame is at `sp`; forgets those that were left by longjmp.
 */
static bool may_nest(struct shunt_reader *r, uintptr_t sp)
{
	struct shunt_levels *l = &r->callbacks;
	bool yes = false, alt = shunt_on_altstack(sp);

	while (l->top) {
		uintptr_t cb = shunt_levels_frame(l);

		if (alt && !shunt_on_altstack(cb)) {
			yes = true;
			break;
		}
		if (sp < cb) {
			yes = cb - sp < SAME_STACK && signal_between(sp, cb);
			break;
		}
		/* Below us on the same stack is nothing alive. */
		shunt_level_drop(r, l, &shunt_callbacks);
	}
	return !l->top || (yes && shunt_levels_depth(l) < MOST_NESTED);
}

/*
 * Callbacks that were left by longjmp do not count, if the caller's frame at
 * `sp` lies above theirs.
 */
bool shunt_dispatch_inside(uintptr_t sp)
{
	struct shunt_reader *r = shunt_reader_self;

	if (!r || !r->callbacks.top)
		return false;
	may_nest(r, sp);
	return r->callbacks.top;
}

/* --- callbacks ---------------------------------------------------------- */

/* Frames at or below the new one are gone: the stack grows downwards. */
static uint32_t push_frame(struct shunt_reader *r, uintptr_t stack_slot)
{
	uint32_t n = r->nframes;

	while (n && r->frames[n - 1] <= stack_slot)
		n--;
	if (n < SHUNT_READER_FRAMES)
		r->frames[n] = stack_slot;
	r->nframes = n < SHUNT_READER_FRAMES ? n + 1 : n;
	return n + 1;
}

static void pop_frame(struct shunt_reader *r, uintptr_t stack_slot)
{
	while (r->nframes && r->frames[r->nframes - 1] <= stack_slot)
		r->nframes--;
}

void shunt_hook_nothing(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
}

void shunt_hook_list_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	const struct shunt_hook *h = (const void *)ops;

	for (uint32_t i = 0; i < h->n; i++)
		if (h->users[i]->entry)
			h->users[i]->entry(ip, parent, h->users[i]);
}

/*
 * Whether a user is called: not beyond its depth, and not where vector
 * registers were not saved for it (the hook has changed under a thread that
 * came through the old kind of slot or stub; such a user did not see the
 * entry, or is not registered yet).
 */
static bool called(const struct shunt_ftrace_ops *ops, uint32_t depth, bool vec)
{
	if (ops->max_depth && depth > ops->max_depth)
		return false;
	return vec || (ops->flags & SHUNT_FTRACE_GENERAL_REGS);
}

/* What a running callback of the recorder works on, since `ip` is no id. */
struct event {
	uint32_t tag;
};

static __thread struct event *current_event;

static void recorder_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	shunt_record_put(current_event->tag);
}

struct shunt_ftrace_ops shunt_recorder_ops = {
	.entry = recorder_entry,
	.exit = recorder_entry,
	.flags = SHUNT_FTRACE_GENERAL_REGS,
};

static inline struct shunt_hook *hook_at(struct shunt_hook *const *place)
{
	/* Consumes the store that published it: the address is the dependency. */
	return __atomic_load_n(place, __ATOMIC_RELAXED);
}

struct section {
	struct shunt_reader *r;
};

/* False: no callback for this one. */
static inline bool section_begin(struct section *s, uintptr_t sp)
{
	struct shunt_reader *r = shunt_reader_self;

	if (__builtin_expect(!r, 0)) {
		r = shunt_reader_get();
		if (!r)
			return false;
	}
	if (__builtin_expect(r->callbacks.top != 0, 0) && !may_nest(r, sp))
		return false;
	s->r = r;
	shunt_level_enter(r, &r->callbacks, &shunt_callbacks, sp);
	return true;
}

static inline void section_end(struct section *s)
{
	shunt_level_leave(s->r, &s->r->callbacks);
}

bool shunt_section_begin(struct shunt_section *s, uintptr_t sp)
{
	struct section inner;
	bool yes = section_begin(&inner, sp);

	s->reader = yes ? inner.r : NULL;
	return yes;
}

void shunt_section_end(struct shunt_section *s)
{
	shunt_level_leave(s->reader, &s->reader->callbacks);
}

/* All cases: the recorder, depth limits, changes under way. */
static __attribute__((noinline)) bool entry_slow(struct section *s, const struct shunt_hook *h,
	struct shunt_entry_frame *f, bool vec)
{
	struct event e = {tag_of(shunt_slot_id(f->slot), (uintptr_t)&f->parent)};
	struct event *outer = current_event;
	bool limited = h->flags & SHUNT_HOOK_DEPTH, any = false;
	uint32_t depth = limited ? push_frame(s->r, (uintptr_t)&f->parent) : 0;

	current_event = &e;
	for (uint32_t i = 0; i < h->n; i++) {
		if (!called(h->users[i], depth, vec))
			continue;
		any = true;
		if (h->users[i]->entry)
			h->users[i]->entry(shunt_slot_site(f->slot), f->parent, h->users[i]);
	}
	current_event = outer;
	if (!any && limited)
		pop_frame(s->r, (uintptr_t)&f->parent);
	return any;
}

/*
 * From a slot of one of the callback banks. Returns the stub to go on through,
 * or 0 when the exit is not wanted.
 */
uintptr_t shunt_call_entry(struct shunt_entry_frame *f, bool vec)
{
	struct shunt_hook *const *place = shunt_slot_hook(f->slot);
	const struct shunt_hook *h;
	uintptr_t stub = 0;
	struct section s;
	bool any = true;

	if (__builtin_expect(shunt_stub_contains(f->parent), 0))
		f->parent = shunt_tail_exit(f->parent, (uintptr_t)&f->parent);
	if (!section_begin(&s, (uintptr_t)f))
		return 0;
	h = hook_at(place);
	if (h) {
		if (__builtin_expect((h->flags & SHUNT_HOOK_STATE) ||
					     (!vec && !(h->flags & SHUNT_HOOK_GPR)),
			    0))
			any = entry_slow(&s, h, f, vec);
		else
			h->entry(shunt_slot_site(f->slot), f->parent, h->ops);
		if (any && (h->flags & SHUNT_HOOK_EXIT))
			stub = shunt_stub_find(f->parent, shunt_slot_id(f->slot), f->slot,
				vec ? SHUNT_STUB_CALL_VEC : SHUNT_STUB_CALL_GPR);
	}
	section_end(&s);
	return stub;
}

static void exit_callbacks(const struct shunt_stub *row, uintptr_t stack_slot, uintptr_t sp)
{
	struct event e = {tag_of(row->id, stack_slot) | SHUNT_TAG_EXIT};
	struct event *outer = current_event;
	bool vec = row->kind == SHUNT_STUB_CALL_VEC;
	const struct shunt_hook *h;
	struct section s;
	uint32_t depth = 0;

	if (!section_begin(&s, sp))
		return;
	h = hook_at(row->hook);
	if (h && (h->flags & SHUNT_HOOK_DEPTH)) {
		pop_frame(s.r, stack_slot);
		depth = s.r->nframes + 1;
	}
	current_event = &e;
	for (uint32_t i = h ? h->n : 0; i-- > 0;)
		if (h->users[i]->exit && called(h->users[i], depth, vec))
			h->users[i]->exit(shunt_body_site(row->body, row->len), row->parent, h->users[i]);
	current_event = outer;
	section_end(&s);
}

/* From a stub: fills in where to return to. */
void shunt_call_exit(struct shunt_exit_frame *f)
{
	const struct shunt_stub *row = shunt_stub_row(f->stub);

	f->parent = row->parent;
	exit_callbacks(row, (uintptr_t)&f->stub, (uintptr_t)f);
}

/*
 * A function is entered with a stub as its return address: the function that
 * the stub belongs to has left by a tail call, and ends now. Returns its real
 * return address. Without this a loop of tail calls would pile stub on stub.
 */
uintptr_t shunt_tail_exit(uintptr_t stub, uintptr_t stack_slot)
{
	const struct shunt_stub *row = shunt_stub_row(stub);

	/* A probe's handlers want the value that the last of them returns: stub upon stub. */
	if (row->kind >= SHUNT_STUB_PROBE)
		return stub;
	if (row->kind == SHUNT_STUB_RECORD)
		shunt_record_put(tag_of(row->id, stack_slot) | SHUNT_TAG_EXIT);
	else
		exit_callbacks(row, stack_slot, stack_slot);
	return row->parent;
}

SHUNT_API int shunt_ftrace_is_stub(uintptr_t addr)
{
	return shunt_stub_contains(addr);
}
