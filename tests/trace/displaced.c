/* SPDX-License-Identifier: MIT */
/* displaced.c - functions that nobody compiled for tracing are traced, and do what they did. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/ftrace.h>
#include <shunt/probe.h>
#include <shunt/ring.h>
#include <shunt/text.h>

#include "object/object.h"
#include "trace/displace.h"
#include "trace/record.h"
#include "tap.h"

#define OBJECT "libdisplaced-victim.so"

static void *lib;

typedef int int_fn(int);

static int_fn *find(const char *name)
{
	return (int_fn *)(uintptr_t)dlsym(lib, name);
}

/* What each returns for an argument. */
static const struct shape {
	const char *name;
	int at_0, at_5;
} shapes[] = {
	{"d_plain", 1, 6}, {"d_five", 7, 12}, {"d_rip", 1000, 1005}, {"d_rip_second", 1000, 1005},
	{"d_jcc", -1, 7}, {"d_jrcxz", -1, 8}, {"d_endbr", 4, 9}, {"d_call", 2, 7},
	{"d_call_second", 1, 11}, {"d_tail", 1, 6}, {"d_tail_far", 1, 6}, {"d_red_zone", 0, 10},
	{"d_jmp_own", 5, 10}, {"d_recursive", 0, 15}, {"d_enters", 108, 113}, {"x_short", 1, 6},
	{"x_loop", 6, 6}, {"x_branch", 1, 5}, {"x_entered", 8, 13}, {"x_switch", 1, 6},
	{"d_short", 1, 6}, {"d_switch", 20, 35}, {"x_table", 40, 45}, {"x_address", 50, 55},
	{"x_next", 9, 14}, {"d_inside", 9, 14},
};
#define NSHAPES (sizeof shapes / sizeof *shapes)

static int_fn *fns[NSHAPES], *flags_raw, *flags_back, *misaligned;

/* The name of one that does not do what it should, or NULL. */
static const char *wrong(void)
{
	for (size_t i = 0; i < NSHAPES; i++)
		if (fns[i](0) != shapes[i].at_0 || fns[i](5) != shapes[i].at_5)
			return shapes[i].name;
	if (misaligned(5) != 7)
		return "d_call with another alignment";
	/* CF PF AF ZF SF OF */
	for (int f = 0; f < 0x1000; f++) {
		int in = f & 0x8d5;

		if (f != in)
			continue;
		if (flags_raw(in) != in)
			return "d_flags_raw";
		if (flags_back(in) != in)
			return "d_flags_back";
	}
	return NULL;
}

static bool all_right(const char *when)
{
	const char *w = wrong();

	if (w)
		diag("%s: %s", when, w);
	return !w;
}

/* --- callbacks ------------------------------------------------------------------------ */

static struct {
	uintptr_t ip;
	int entries, exits;
} seen[64];
static int nseen;

static void note(uintptr_t ip, bool exit)
{
	int i = 0;

	while (i < nseen && seen[i].ip != ip)
		i++;
	if (i == 64)
		return;
	nseen = i == nseen ? i + 1 : nseen;
	seen[i].ip = ip;
	seen[i].entries += !exit;
	seen[i].exits += exit;
}

static void on_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)parent;
	(void)ops;
	note(ip, false);
}

static void on_exit_(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)parent;
	(void)ops;
	note(ip, true);
}

static void count(const char *name, int *entries, int *exits)
{
	*entries = *exits = 0;
	for (int i = 0; i < nseen; i++)
		if (seen[i].ip == (uintptr_t)find(name)) {
			*entries = seen[i].entries;
			*exits = seen[i].exits;
		}
}

static void test_callbacks(unsigned flags, bool exits)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = exits ? on_exit_ : NULL,
		.flags = flags};
	int n, m, bad = 0;
	char name[64];

	shunt_ftrace_filter(&ops, OBJECT ":*");
	ok(!shunt_ftrace_register(&ops), "callbacks%s%s: registered", flags ? ", general" : "",
		exits ? ", exits" : "");
	nseen = 0;
	memset(seen, 0, sizeof seen);
	ok(all_right("traced"), "every function does what it did");
	for (size_t i = 0; i < NSHAPES; i++) {
		count(shapes[i].name, &n, &m);
		/* twice each, and as often as they are called by others */
		if (shapes[i].name[0] == 'd' ? n < 2 || m != (exits ? n : 0) : n || m) {
			diag("%s: %d entries, %d exits", shapes[i].name, n, m);
			bad++;
		}
	}
	ok(!bad, "each that can be is seen, with its own address, the others not");
	count("d_recursive", &n, &m);
	ok(n == 1 + 6, "calls of itself are counted: %d", n);
	ok(!shunt_ftrace_name((uintptr_t)find("d_jcc"), name, sizeof name) &&
		!strcmp(name, "d_jcc"), "an address has its name");
	ok(!shunt_ftrace_unregister(&ops), "unregistered");
	nseen = 0;
	ok(all_right("off again") && !nseen, "off again, nobody is called");
}

/* One, and others later, which were not looked at when the slots were made. */
static void test_one(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = on_exit_};
	int n, m;

	shunt_ftrace_filter(&ops, OBJECT ":d_plain");
	ok(!shunt_ftrace_register(&ops), "one function alone");
	nseen = 0;
	memset(seen, 0, sizeof seen);
	ok(find("d_plain")(1) == 2 && find("d_five")(1) == 8, "it does what it did, as do others");
	count("d_plain", &n, &m);
	ok(n == 1 && m == 1 && nseen == 1, "it is seen alone");
	shunt_ftrace_unregister(&ops);
}

/* Another filter that names no object means functions with sites only. */
static void test_only_named(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry};

	shunt_ftrace_filter(&ops, "d_*");
	ok(shunt_ftrace_register(&ops) == -ENOENT, "a filter without an object does not mean them");
	shunt_ftrace_unregister(&ops);
	shunt_ftrace_filter(&ops, OBJECT ":x_unknown");
	ok(shunt_ftrace_register(&ops) == -ENOENT, "nor one for what cannot be traced");
	shunt_ftrace_unregister(&ops);
	shunt_ftrace_filter(&ops, "trace-displaced:*");
	ok(shunt_ftrace_register(&ops) == -ENOENT, "nor can the program be, which the library is in");
	shunt_ftrace_unregister(&ops);
}

/* --- the recorder ------------------------------------------------------------------------- */

static const char *whys[][2] = {
	{"x_short", "it has less than 5 bytes, and something is behind it"},
	{"x_table", "an indirect jump in the function may lead to within the 5 bytes"},
	{"x_address", "its object has an address that is within its first 5 bytes"},
	{"x_loop", "a loop in it leads to its first byte"},
	{"x_branch", "a branch leads to within the 5 bytes"},
	{"x_entered", "a branch from elsewhere leads to within 5 bytes"},
	{"x_switch", "an indirect jump in the function may lead to within the 5 bytes"},
	{"x_breakpoint", "an instruction cannot be executed elsewhere"},
	{"x_unknown", "it has bytes that are no instruction known"},
	{"x_stack", "it begins by taking another stack: it is not entered by a call"},
	{"mcount", "it asks for its return address, to know its caller"},
	{"x_next", "another function begins within 5 bytes"},
};
#define NWHYS (sizeof whys / sizeof *whys)

struct found {
	int right, others;
};

static int check_why(const struct shunt_record_left_out *l, void *arg)
{
	const char *name = l->object->strings + l->object->funcs[l->i].name;
	struct found *f = arg;

	for (size_t i = 0; i < NWHYS; i++)
		if (!strcmp(name, whys[i][0])) {
			f->right += !strcmp(l->why, whys[i][1]);
			if (strcmp(l->why, whys[i][1]))
				diag("%s: %s", name, l->why);
			return 0;
		}
	if (name[0] == 'd') {
		f->others++;
		diag("%s: %s", name, l->why);
	}
	return 0;
}

static uint64_t written(struct shunt_ring *ring)
{
	struct shunt_ring_thread t;

	shunt_ring_account(ring, &t, NULL, NULL);
	return t.written + t.discarded;
}

static const char *const all_of_it = OBJECT ":*";

static void test_recorder(struct shunt_ring *ring)
{
	struct shunt_record_change res;
	struct shunt_record_stats st;
	struct found found = {0};
	uint64_t before;

	ok(!shunt_record_set(&all_of_it, 1, true, &res) && !res.refused, "the recorder: on");
	before = written(ring);
	ok(all_right("recorded"), "every function does what it did");
	ok(written(ring) > before + 100, "and is recorded");
	shunt_record_left_out(check_why, &found);
	ok(found.right == (int)NWHYS && !found.others, "what was left out, and why: %d of %zu",
		found.right, NWHYS);
	shunt_record_stats(&st);
	ok(st.left_out >= NWHYS && st.unmodified >= NSHAPES && st.on < st.unmodified,
		"is counted: %u of %u", st.left_out, st.unmodified);
	ok(!shunt_record_set(&all_of_it, 1, false, &res), "off");
	before = written(ring);
	ok(all_right("off") && written(ring) == before, "nothing is recorded any more");
}

/* The last instructions of the first bytes come from the file; memory says otherwise. */
static void test_taken(struct shunt_ring *ring)
{
	static const char *const one = OBJECT ":d_five";
	struct shunt_record_change res;
	uint8_t *site = (uint8_t *)(uintptr_t)find("d_five");
	struct shunt_edit e = {.addr = site, .len = 5, .act = SHUNT_TEXT_RETRY};
	uint64_t before;

	memcpy(e.old, site, 5);
	memcpy(e.new_, "\xb8\x09\0\0\0", 5); /* mov $9,%eax */
	ok(!shunt_text_apply(&e, 1, NULL, NULL), "somebody changes a function's first bytes");
	ok(!shunt_record_set(&one, 1, true, &res) && res.refused == 1 && !res.changed,
		"it is left alone");
	before = written(ring);
	ok(find("d_five")(1) == 10 && written(ring) == before, "and does what they want");
	memcpy(e.new_, e.old, 5);
	memcpy(e.old, "\xb8\x09\0\0\0", 5);
	shunt_text_apply(&e, 1, NULL, NULL);
	ok(!shunt_record_set(&one, 1, true, &res) && res.changed == 1 && find("d_five")(1) == 8 &&
		written(ring) == before + 2, "once it is as it was, it is traced");
	shunt_record_set(&one, 1, false, &res);
}

/* --- where threads cannot be stopped: somebody traces one ------------------------------------- */

static atomic_int other_tid;
static atomic_bool other_end;

static void *other(void *arg)
{
	other_tid = (int)syscall(SYS_gettid);
	while (!other_end)
		sched_yield();
	return arg;
}

/* A child that traces the thread until the pipe is closed. */
static pid_t trace_other(int end[2])
{
	int begun[2];
	char c = 0;
	pid_t pid;

	if (pipe(begun) || pipe(end))
		return -1;
	pid = fork();
	if (!pid) {
		close(end[1]);
		c = !ptrace(PTRACE_SEIZE, other_tid, NULL, NULL);
		if (write(begun[1], &c, 1) == 1 && read(end[0], &c, 1) == 0)
			_exit(0);
		_exit(1);
	}
	prctl(PR_SET_PTRACER, pid, 0, 0, 0);
	if (read(begun[0], &c, 1) != 1)
		c = 0;
	close(begun[0]);
	close(begun[1]);
	close(end[0]);
	return c ? pid : -1;
}

static void test_not_stopped(struct shunt_ring *ring)
{
	struct shunt_record_change res;
	pthread_t thread;
	uint64_t before;
	int end[2];

	pthread_create(&thread, NULL, other, NULL);
	while (!other_tid)
		sched_yield();
	if (trace_other(end) < 0) {
		skip("ptrace is not allowed");
	} else {
		ok(!shunt_record_set(&all_of_it, 1, true, &res) && res.changed && res.refused &&
			strstr(res.reason, "ptrace"),
			"a thread cannot be stopped: some stay off, and it is said why");
		before = written(ring);
		ok(find("d_five")(1) == 8 && written(ring) == before + 2,
			"those of which one instruction is displaced are traced");
		before = written(ring);
		ok(find("d_plain")(1) == 2 && written(ring) == before, "the others are not");
		close(end[1]);
		wait(NULL);
		ok(!shunt_record_set(&all_of_it, 1, true, &res) && res.changed && !res.refused &&
			find("d_plain")(1) == 2 && written(ring) == before + 2, "until it can be");
	}
	other_end = true;
	pthread_join(thread, NULL);
	shunt_record_set(&all_of_it, 1, false, &res);
}

/* --- live ------------------------------------------------------------------------------------ */

static atomic_bool stop;
static atomic_ulong rounds;
static const char *volatile broken;

static void *run(void *arg)
{
	(void)arg;
	while (!stop && !broken) {
		broken = wrong();
		rounds++;
	}
	return NULL;
}

static void test_live(struct shunt_ring *ring, int times)
{
	uint64_t before = written(ring);
	struct shunt_record_change res;
	pthread_t t[3];
	int failed = 0;

	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, run, NULL);
	for (int i = 0; i < times && !broken; i++) {
		unsigned long seen_at = rounds;
		int r = shunt_record_set(&all_of_it, 1, true, &res);

		if (r || res.refused)
			diag("on: %d, %u refused: %s", r, res.refused, res.reason);
		failed += r || res.refused;
		while (rounds < seen_at + 2 && !broken)
			sched_yield();
		r = shunt_record_set(&all_of_it, 1, false, &res);
		if (r || res.refused)
			diag("off: %d, %u refused: %s", r, res.refused, res.reason);
		failed += r || res.refused;
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	if (broken)
		diag("%s", broken);
	ok(!broken && !failed, "on and off %d times beside three busy threads", times);
	ok(written(ring) > before, "and they were recorded");
}

/* --- a library that comes and goes ------------------------------------------------------------ */

static void look_up(void)
{
	for (size_t i = 0; i < NSHAPES; i++)
		fns[i] = find(shapes[i].name);
	flags_raw = find("call_flags_raw");
	flags_back = find("call_flags_back");
	misaligned = find("call_misaligned");
}

static void test_reload(struct shunt_ring *ring, const char *path)
{
	struct shunt_record_change res;
	int right = 0, seen_again = 0;

	shunt_record_set(&all_of_it, 1, true, &res);
	for (int i = 0; i < 10; i++) {
		uint64_t before;

		dlclose(lib);
		if (i & 1) /* else nobody sees that it was gone */
			shunt_record_refresh(NULL);
		lib = dlopen(path, RTLD_NOW);
		look_up();
		right += !wrong();
		shunt_record_refresh(&res);
		before = written(ring);
		right += !wrong();
		seen_again += written(ring) > before + 100;
	}
	ok(right == 20 && seen_again == 10, "unloaded and loaded anew: %d, %d of 10", right, seen_again);
	shunt_record_set(&all_of_it, 1, false, &res);
}

/* --- for probes --------------------------------------------------------------------------------- */

static void test_for_probes(void)
{
	uintptr_t at = (uintptr_t)find("d_plain");
	struct shunt_record_change res;
	uint8_t was[16], copy[16];

	memcpy(was, (void *)at, sizeof was);
	ok(!shunt_displaced_within(at, at + 16), "off, no byte is ours");
	shunt_record_set(&all_of_it, 1, true, &res);
	memcpy(copy, (void *)at, sizeof copy);
	ok(copy[0] == 0xe9 && shunt_displaced_within(at, at + 1) &&
		shunt_displaced_within(at + 4, at + 5) && !shunt_displaced_within(at + 5, at + 16),
		"on, five are");
	shunt_displaced_original(at, copy, sizeof copy);
	ok(!memcmp(copy, was, sizeof was), "a copy is made what the program has");
	memcpy(copy, (void *)(at + 3), 8);
	shunt_displaced_original(at + 3, copy, 8);
	ok(!memcmp(copy, was + 3, 8), "also of a piece");
	shunt_record_set(&all_of_it, 1, false, &res);
}

static int probed;

static void on_probe(struct shunt_probe *p, struct shunt_regs *regs)
{
	(void)p;
	(void)regs;
	probed++;
}

/* A probe at a function's start, or one byte into it, and the tracer's jump: not both. */
static void test_beside_probes(struct shunt_ring *ring)
{
	struct shunt_probe start = {.addr = (void *)(uintptr_t)find("d_plain"), .pre = on_probe};
	struct shunt_probe second = {.addr = (char *)start.addr + 1, .pre = on_probe};
	struct shunt_probe later = {.addr = (char *)(uintptr_t)find("d_jcc") + 7, .pre = on_probe};
	struct shunt_record_change change;
	struct shunt_probe_result res;
	uint64_t before;

	shunt_record_set(&all_of_it, 1, true, &change);
	ok(shunt_probe_register(&start, &res) == -EBUSY && strstr(res.reason, "traced"),
		"no probe at the start of a traced function: %s", res.reason);
	ok(shunt_probe_register(&second, &res) == -EBUSY, "nor within the jump");
	before = written(ring);
	ok(!shunt_probe_register(&later, &res) && find("d_jcc")(1) == 3 && probed == 1 &&
		written(ring) == before + 2, "behind it there is one, and both are hit");
	shunt_probe_unregister(&later);
	shunt_record_set(&all_of_it, 1, false, &change);
	ok(!shunt_probe_register(&second, &res), "off, it can be");
	probed = 0;
	ok(!shunt_record_set(&all_of_it, 1, true, &change) && change.refused == 1,
		"then the tracer leaves that function out");
	before = written(ring);
	ok(find("d_plain")(1) == 2 && probed == 1 && written(ring) == before, "and the probe stays");
	shunt_probe_unregister(&second);
	ok(!shunt_record_set(&all_of_it, 1, true, &change) && change.changed == 1 &&
		find("d_plain")(1) == 2 && written(ring) == before + 2,
		"without the probe it is traced");
	shunt_record_set(&all_of_it, 1, false, &change);
}

int main(int argc, char **argv)
{
	struct shunt_ring_options opts = {.size = 16 << 20, .mode = SHUNT_RING_OVERWRITE};
	struct shunt_ring *ring;
	const char *why = NULL;
	char path[64];

	lib = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!lib) {
		fprintf(stderr, "usage: displaced VICTIM [TIMES]\n");
		return 2;
	}
	look_up();
	ok(all_right("before"), "the functions do what they should");
	shunt_record_unmodified(NULL);
	test_only_named();
	test_one();
	test_only_named();
	test_callbacks(0, true);
	test_callbacks(SHUNT_FTRACE_GENERAL_REGS, true);
	test_callbacks(0, false);
	test_callbacks(SHUNT_FTRACE_GENERAL_REGS, false);
	snprintf(path, sizeof path, "/dev/shm/shunt-displaced-%d", (int)getpid());
	ok(!shunt_ring_create(path, &opts, &ring), "a ring");
	unlink(path);
	ok(!shunt_record_start(ring) && !shunt_record_look(&all_of_it, 1, &why), "the recorder starts");
	test_recorder(ring);
	test_taken(ring);
	test_for_probes();
	test_beside_probes(ring);
	test_reload(ring, argv[1]);
	test_not_stopped(ring);
	test_live(ring, argc > 2 ? atoi(argv[2]) : 20);
	ok(all_right("at the end"), "at the end they do what they should");
	return done();
}
