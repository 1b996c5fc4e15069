/* SPDX-License-Identifier: MIT */
/*
 * named.c - probes by their texts, on an engine that only remembers what it was asked (the
 * linker puts it in the real one's place): what is registered, what is recorded, what a
 * refusal leaves behind.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/probe.h>
#include <shunt/ring.h>

#include "probe/named.h"
#include "tap.h"

/* Of trace.h and trace/point.h, which have another struct shunt_probe. */
int shunt_trace_describe(const char *provider, const char *name, uint32_t *type, char *text, size_t size);
int shunt_points_switch(const char *glob, const char *filter, struct shunt_ring *ring, bool on);
void shunt_points_ring(struct shunt_ring *ring);
const char *shunt_trace_error(void);

/* --- the engine ---------------------------------------------------------------------- */

enum { PLACES = 64 };
static struct shunt_probe *placed[PLACES];
static bool off[PLACES];
static unsigned nplaced;
static bool hidden; /* obj:late is not there yet */
static char code[PLACES]; /* what is probed */

static int refuse(struct shunt_probe_result *res, size_t i, void *nearest, const char *reason, int err)
{
	*res = (struct shunt_probe_result){.index = i, .addr = nearest};
	snprintf(res->reason, sizeof res->reason, "%s", reason);
	return err;
}

int __wrap_shunt_probe_resolve(const char *symbol, uintptr_t offset, void **addr, struct shunt_probe_result *res);
int __wrap_shunt_probe_register_many(struct shunt_probe *const *p, size_t n, struct shunt_probe_result *res);
int __wrap_shunt_probe_register(struct shunt_probe *p, struct shunt_probe_result *res);
int __wrap_shunt_probe_unregister_many(struct shunt_probe *const *p, size_t n);
int __wrap_shunt_probe_enable(struct shunt_probe *p);
int __wrap_shunt_probe_disable(struct shunt_probe *p);
enum shunt_probe_form __wrap_shunt_probe_form(const struct shunt_probe *p);

/* Functions are obj:a to obj:z, or late; code[10] is in the middle of an instruction. */
int __wrap_shunt_probe_resolve(const char *symbol, uintptr_t offset, void **addr, struct shunt_probe_result *res)
{
	const char *f = !strncmp(symbol, "obj:", 4) ? symbol + 4 : symbol;

	if (!strcmp(f, "late") && !hidden)
		f = "m";
	if (f[0] < 'a' || f[0] > 'z' || f[1])
		return refuse(res, 0, NULL, "there is no such function", -ENOENT);
	*addr = &code[f[0] - 'a' + (int)offset];
	return 0;
}

int __wrap_shunt_probe_register_many(struct shunt_probe *const *p, size_t n, struct shunt_probe_result *res)
{
	for (size_t i = 0; i < n; i++)
		if (p[i]->addr == &code[10])
			return refuse(res, i, &code[9], "in the middle of an instruction", -EILSEQ);
	for (size_t i = 0; i < n; i++) {
		off[nplaced] = p[i]->flags & SHUNT_PROBE_DISABLED;
		placed[nplaced++] = p[i];
	}
	return 0;
}

int __wrap_shunt_probe_register(struct shunt_probe *p, struct shunt_probe_result *res)
{
	return __wrap_shunt_probe_register_many(&p, 1, res);
}

static unsigned index_of(const struct shunt_probe *p)
{
	unsigned i = 0;

	while (i < nplaced && placed[i] != p)
		i++;
	return i;
}

int __wrap_shunt_probe_unregister_many(struct shunt_probe *const *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned k = index_of(p[i]);

		if (k == nplaced)
			return -ENOENT;
		placed[k] = placed[--nplaced];
		off[k] = off[nplaced];
	}
	return 0;
}

int __wrap_shunt_probe_enable(struct shunt_probe *p)
{
	off[index_of(p)] = false;
	return 0;
}

int __wrap_shunt_probe_disable(struct shunt_probe *p)
{
	off[index_of(p)] = true;
	return 0;
}

enum shunt_probe_form __wrap_shunt_probe_form(const struct shunt_probe *p)
{
	return off[index_of(p)] ? SHUNT_PROBE_OFF : SHUNT_PROBE_JUMP_MANY;
}

/* --- events ---------------------------------------------------------------------------- */

static struct shunt_ring *ring;
static unsigned seen;
static uint32_t last_type;
static unsigned char last[4096];
static size_t last_len;

static void drain(void)
{
	struct shunt_ring_page_ref ref;
	struct shunt_ring_cursor c;
	struct shunt_ring_event e;

	shunt_ring_reap(ring, 1);
	for (seen = 0; !shunt_ring_page_next(ring, &ref); shunt_ring_page_release(ring, &ref)) {
		shunt_ring_events(ref.page, 65536, &c);
		while (shunt_ring_event_next(&c, &e) == 1) {
			seen++;
			last_type = e.tag;
			last_len = e.len;
			memcpy(last, e.data, e.len);
		}
	}
}

static struct shunt_regs regs;
static char why[1024];

/* The program comes by the function. */
static void call(char function)
{
	for (unsigned i = 0; i < nplaced; i++)
		if (placed[i]->addr == &code[function - 'a'] && !off[i] && placed[i]->pre)
			placed[i]->pre(placed[i], &regs);
	drain();
}

static void ret(char function)
{
	for (unsigned i = 0; i < nplaced; i++)
		if (placed[i]->addr == &code[function - 'a'] && !off[i] && placed[i]->ret)
			placed[i]->ret(placed[i], &regs);
	drain();
}

static int add(const char *text)
{
	strcpy(why, "");
	return shunt_named_add(&text, 1, false, why, sizeof why);
}

/* What is there of a probe. */
struct found {
	const char *event;
	bool there, on;
	uint64_t hits;
	char form[16];
	uintptr_t addr;
};

static int look(const struct shunt_named_info *info, void *arg)
{
	struct found *f = arg;

	if (strcmp(info->event, f->event))
		return 0;
	f->there = true;
	f->on = info->on;
	f->hits = info->hits;
	f->addr = info->addr;
	snprintf(f->form, sizeof f->form, "%s", info->form);
	return 1;
}

static struct found find(const char *event)
{
	struct found f = {.event = event};

	shunt_named_each(look, &f);
	return f;
}

/* Whether its events are called so in the trace. */
static bool described(const char *event, const char *fields)
{
	char text[512] = "";
	uint32_t type = 0;

	if (shunt_trace_describe("probe", event, &type, text, sizeof text) || strcmp(text, fields) ||
		type != last_type) {
		diag("%s: '%s', type %u of %u", event, text, last_type, type);
		return false;
	}
	return true;
}

static int clean(void)
{
	return shunt_named_remove("*", why, sizeof why);
}

/* --- tests ------------------------------------------------------------------------------ */

static void recording(void)
{
	regs.rdi = 0x1234;
	regs.rsi = (uint64_t)"a path";
	regs.rax = (uint64_t)-2;
	ok(!add("obj:a(size=%rdi, path=+0(%rsi):string)") && nplaced == 1 && placed[0]->pre && !placed[0]->ret &&
			placed[0]->addr == &code[0],
		"a probe is registered %s", why);
	call('a');
	ok(seen == 1 && last_len == 16 && !memcmp(last, "\x34\x12\0\0\0\0\0\0a path\0\0", 16) &&
			described("a", "p64 size\tstring path\tu8{none=0,path=2} fault"),
		"an event, and what it is made of");
	regs.rsi = 8;
	call('a');
	ok(seen == 1 && last_len == 10 && last[8] == 0 && last[9] == 2, "one whose string cannot be read");
	call('b');
	ok(!seen && find("a").hits == 2 && find("a").on && !strcmp(find("a").form, "jump-many") &&
			find("a").addr == (uintptr_t)code,
		"hits are counted");
	ok(!add("got=obj:b%return(ret=$retval:s32,q=\\7:x8,n=%rdi:b4@4/16,c=$comm)") && placed[1]->ret &&
			!placed[1]->pre,
		"a return probe");
	call('b');
	ok(!seen, "is not hit by the call");
	ret('b');
	ok(seen == 1 && !memcmp(last, "\xfe\xff\xff\xff\x07\x03\0", 7) &&
			described("got", "s32 ret\tp8 q\tu16 n\tstring c"),
		"but by the return");
	ok(!add("obj:c(+0(%rdi):s16[3] %rdi:char)"), "an array %s", why);
	regs.rdi = (uint64_t)"\1\0\2\0\3\0";
	call('c');
	ok(seen == 1 && !memcmp(last, "\1\0\2\0\3\0", 6) && described("c", "s16[3] arg1\tstring arg2\tu8{none=0,arg1=1} fault"),
		"and its elements");
	ok(clean() == 3 && !nplaced && !find("a").there, "all are removed");
	call('a');
	ok(!seen, "and see nothing any more");
}

static void switching(void)
{
	ok(!add("obj:a(x=%rdi:u32)"), "added anew");
	ok(shunt_points_switch("probe:a", NULL, NULL, false) == 1, "its events are switched off");
	call('a');
	ok(!seen && find("a").hits == 1, "hits are counted all the same");
	shunt_points_switch("probe:a", NULL, NULL, true);
	ok(shunt_named_switch("probe:a", false, why, sizeof why) == 1 && off[0] && !find("a").on &&
			!strcmp(find("a").form, "off"),
		"off: the engine's");
	ok(shunt_named_switch("?", true, why, sizeof why) == 1 && !off[0] && find("a").on, "on");
	ok(shunt_named_switch("nobody", true, why, sizeof why) == 0, "nobody matches");
	ok(shunt_named_switch("[", true, why, sizeof why) == -EINVAL && strstr(why, "no") &&
			shunt_named_remove("[", why, sizeof why) == -EINVAL && strstr(why, "not a pattern"),
		"no pattern");
	ok(shunt_points_switch("probe:a", "x > 100", NULL, true) == 1, "a filter, as of any tracepoint");
	for (regs.rdi = 99; regs.rdi < 103; regs.rdi++)
		call('a');
	ok(seen == 1 && last[0] == 102, "what passes is recorded");
	regs.rdi = 100;
	call('a');
	ok(!seen && find("a").hits == 6, "what does not, is counted");
	ok(shunt_points_switch("probe:*", NULL, NULL, false) == 1, "recorded no more");
	regs.rdi = 200;
	call('a');
	ok(!seen && find("a").hits == 7, "is still hit");
	clean();
	ok(shunt_points_switch("probe:q*", "x == 5", NULL, true) == -ENOENT && !add("obj:q(x=%rdi)"),
		"a filter for probes to come");
	call('q');
	ok(!seen, "holds for them");
	regs.rdi = 5;
	call('q');
	ok(seen == 1, "and lets through what it should");
	shunt_points_switch("probe:*", NULL, NULL, false);
	clean();
}

/* --- registers that are the program's ------------------------------------------------------ */

struct state {
	uint8_t bytes[4096];
} __attribute__((aligned(64)));

enum { SSE_AVX_AVX512 = 0xe6, MXCSR = 24, XMM = 160, XMM_END = 416, HEADER = 512, YMM = 576 };

/* The handler runs with the registers of `before`; `after` is what it leaves. */
static void hit_with(struct shunt_probe *p, const struct state *before, struct state *after, uint32_t mask)
{
	void (*fn)(struct shunt_probe *, struct shunt_regs *) = p->pre;
	register struct shunt_regs *r __asm__("rsi") = &regs;
	register const struct state *from __asm__("r12") = before;
	register struct state *to __asm__("r13") = after;
	register uint32_t m __asm__("ebx") = mask;

	__asm__ volatile("mov %%rsp, %%r14\n\tsub $128, %%rsp\n\tand $-64, %%rsp\n\t"
			 "mov %%ebx, %%eax\n\txor %%edx, %%edx\n\txrstor64 (%%r12)\n\t"
			 "call *%[fn]\n\t"
			 "mov %%ebx, %%eax\n\txor %%edx, %%edx\n\txsave64 (%%r13)\n\t"
			 "mov %%r14, %%rsp"
			 : "+D"(p), "+r"(r)
			 : [fn] "r"(fn), "r"(from), "r"(to), "r"(m)
			 : "memory", "cc", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r14", "xmm0", "xmm1",
			 "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
			 "xmm12", "xmm13", "xmm14", "xmm15");
}

static bool has_xsave(void)
{
	uint32_t a = 1, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c >> 27 & 1;
}

static unsigned differ(const struct state *a, const struct state *b, uint32_t from, uint32_t size)
{
	unsigned n = 0;

	for (uint32_t i = from; i < from + size; i++)
		n += a->bytes[i] != b->bytes[i];
	return n;
}

/* How many bytes of the vector registers a hit changes. */
static unsigned changed(struct shunt_probe *p)
{
	static struct state before, after;
	uint32_t lo, hi;
	unsigned n = 0;
	uint64_t use;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	lo &= SSE_AVX_AVX512;
	memset(&before, 0, sizeof before);
	memset(&after, 0, sizeof after);
	__asm__ volatile("xsave64 %0" : "+m"(before) : "a"(lo), "d"(0));
	for (int i = 0; i < 4096; i++)
		if ((i >= XMM && i < XMM_END) || i >= YMM)
			before.bytes[i] = (uint8_t)(i * 7 + 1);
	use = lo;
	memcpy(before.bytes + HEADER, &use, 8);
	hit_with(p, &before, &after, lo);
	n = differ(&before, &after, XMM, XMM_END - XMM);
	for (uint32_t component = 2; component < 8; component++) {
		uint32_t size = 0xd, at, c = component, d;

		__asm__ volatile("cpuid" : "+a"(size), "=b"(at), "+c"(c), "=d"(d));
		n += lo >> component & 1 ? differ(&before, &after, at, size) : 0;
	}
	return n + (memcmp(before.bytes + MXCSR, after.bytes + MXCSR, 4) != 0);
}

static void vectors(void)
{
	unsigned n;

	if (!has_xsave()) {
		skip("no XSAVE here");
		return;
	}
	ok(!add("obj:v(s=+0(%rsi):string,x=%rdi)") && placed[0]->flags & SHUNT_PROBE_GENERAL_REGS,
		"the engine is told that it need not save vector registers");
	regs.rsi = (uint64_t)"some text to be looked through";
	n = changed(placed[0]);
	drain();
	ok(seen == 1 && !n, "an event changes none of their bytes (%u)", n);
	ok(shunt_points_switch("probe:v", "s == \"*through\" && x > 1", NULL, true) == 1, "with a filter");
	n = changed(placed[0]);
	drain();
	ok(seen == 1 && !n, "neither (%u)", n);
	clean();
}

static void names(void)
{
	ok(!add("obj:a") && !add("obj:a") && find("a").there && find("a_2").there && nplaced == 2,
		"a name that is taken gets a number");
	ok(add("a=obj:b") == -EEXIST && strstr(why, "take another name") && nplaced == 2,
		"one that was asked for does not");
	ok(shunt_named_remove("a_2", why, sizeof why) == 1 && find("a").there && nplaced == 1, "one goes");
	ok(!add("obj:a") && find("a_2").there, "and its name is free");
	clean();
}

static void batches(void)
{
	static const char *const good[] = {"obj:a", "obj:a", "obj:b(x=%rdi)"};
	static const char *const unknown[] = {"obj:c", "obj:unknown", "obj:d"};
	static const char *const middle[] = {"obj:c", "obj:d", "obj:j+1"};
	static const char *const wrong[] = {"obj:c", "obj:d(%rdx1)"};
	static const char *const twice[] = {"n=obj:c", "n=obj:d"};

	ok(!shunt_named_add(good, 3, false, why, sizeof why) && nplaced == 3 && find("a_2").there &&
			find("b").there,
		"several at once");
	ok(shunt_named_add(unknown, 3, false, why, sizeof why) == -ENOENT &&
			!strcmp(why, "'obj:unknown': there is no such function"),
		"one that is nowhere: %s", why);
	ok(shunt_named_add(middle, 3, false, why, sizeof why) == -EILSEQ &&
			!strncmp(why, "'obj:j+1': in the middle of an instruction; the nearest is ", 59),
		"one that the engine refuses: %s", why);
	ok(shunt_named_add(wrong, 2, false, why, sizeof why) == -EINVAL && strstr(why, "'obj:d(%rdx1)': at character 7"),
		"one that cannot be read: %s", why);
	ok(shunt_named_add(twice, 2, false, why, sizeof why) == -EEXIST, "one name for two: %s", why);
	ok(nplaced == 3 && !find("c").there && !find("d").there && !find("n").there &&
			shunt_points_switch("probe:c", NULL, NULL, true) == -ENOENT,
		"and of all these nothing is left");
	ok(clean() == 3 && shunt_named_add(good, 3, false, why, sizeof why) == 0 && clean() == 3,
		"it can be said again");
}

static void waiting(void)
{
	static const char *const late = "obj:late(x=%rdi:u8)", *const bad = "obj:late(";

	hidden = true;
	ok(shunt_named_add(&late, 1, false, why, sizeof why) == -ENOENT && !find("late").there,
		"what is nowhere is refused");
	ok(!shunt_named_add(&late, 1, true, why, sizeof why) && find("late").there && !nplaced &&
			!strcmp(find("late").form, "waiting") && !find("late").addr,
		"or may wait");
	ok(shunt_named_add(&bad, 1, true, why, sizeof why) == -EINVAL, "what cannot be read may not");
	ok(!shunt_named_retry(NULL) && !nplaced, "while it is nowhere");
	hidden = false;
	ok(shunt_named_retry(NULL) == 1, "one comes");
	regs.rdi = 9;
	call('m');
	ok(nplaced == 1 && seen == 1 && last[0] == 9 && !strcmp(find("late").form, "jump-many"),
		"until it comes");
	ok(!shunt_named_retry(NULL) && nplaced == 1, "once");
	clean();
	hidden = true;
	shunt_named_add(&late, 1, true, why, sizeof why);
	ok(shunt_named_switch("late", false, why, sizeof why) == 1 && !find("late").on, "off while it waits");
	hidden = false;
	shunt_named_retry(NULL);
	ok(nplaced == 1 && off[0], "it comes off");
	ok(clean() == 1, "and goes");
	hidden = true;
	shunt_named_add(&late, 1, true, why, sizeof why);
	ok(clean() == 1, "one that waits goes too");
	hidden = false;
}

/* In this program's file it is elsewhere than in memory, seen from the beginning. */
__attribute__((used)) static char mark[] = "this is in the file";

static void files(void)
{
	char self[512], text[800];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *bytes = NULL, *at;
	size_t size = 0;
	FILE *f = fopen("/proc/self/exe", "r"), *all = open_memstream(&bytes, &size);
	char part[4096];

	self[n] = 0;
	for (size_t got; (got = fread(part, 1, sizeof part, f));)
		fwrite(part, 1, got, all);
	fclose(f);
	fclose(all);
	at = memmem(bytes, size, mark, sizeof mark);
	snprintf(text, sizeof text, "%s:0x%zx(+0(%%rip):u8)", strrchr(self, '/') + 1, (size_t)(at - bytes));
	ok(!add(text) && nplaced == 1 && placed[0]->addr == (void *)(uintptr_t)mark, "%s %s",
		"an offset in an object's file", why);
	clean();
	snprintf(text, sizeof text, "x=%s:0x%zx(m=@+%zu:string,e=@+0:char[4])", self, (size_t)(at - bytes),
		(size_t)(at - bytes));
	ok(!add(text), "by its path %s", why);
	placed[0]->pre(placed[0], &regs);
	drain();
	ok(seen == 1 && !memcmp(last, mark, sizeof mark) && !memcmp(last + sizeof mark, "\177ELF\0\0", 6),
		"memory at offsets of the same file");
	clean();
	ok(add("obj.so:0x10") == -ENOENT && strstr(why, "no object obj.so is loaded"), "no such file: %s", why);
	snprintf(text, sizeof text, "%s:0xffffffff0000", self);
	ok(add(text) == -ERANGE && strstr(why, "from offset 0xffffffff0000"), "no such offset: %s", why);
	snprintf(text, sizeof text, "%s:0x10(@+0xffffffff0000)", self);
	ok(add(text) == -ERANGE && strstr(why, "@+0xffffffff0000"), "nor for an argument: %s", why);
	free(bytes);
}

static atomic_bool stop;

static void *set_and_remove(void *arg)
{
	(void)arg;
	while (!stop) {
		add("f=obj:f");
		shunt_named_remove("f", why, sizeof why);
	}
	return NULL;
}

static int nothing(const struct shunt_named_info *info, void *arg)
{
	(void)info;
	(void)arg;
	return 0;
}

static void forks(void)
{
	unsigned good = 0, rounds = 200;
	pthread_t t;

	shunt_named_at_fork();
	pthread_create(&t, NULL, set_and_remove, NULL);
	for (unsigned i = 0; i < rounds; i++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			alarm(20);
			_exit(shunt_named_each(nothing, NULL));
		}
		good += waitpid(pid, &status, 0) == pid && !status;
	}
	stop = true;
	pthread_join(t, NULL);
	ok(good == rounds, "a child of fork finds the lock free, %u of %u", good, rounds);
	clean();
}

int main(void)
{
	struct shunt_ring_options o = {.size = 4 << 20};
	char path[64];

	ok(add("obj:a") == -ENXIO && strstr(why, "no ring") && !nplaced && !find("a").there,
		"without a ring there is nothing to record into: %s", why);
	snprintf(path, sizeof path, "/dev/shm/shunt-test-named-%d", getpid());
	unlink(path);
	if (shunt_ring_create(path, &o, &ring)) {
		diag("no ring");
		return 1;
	}
	unlink(path);
	shunt_points_ring(ring);
	recording();
	switching();
	vectors();
	names();
	batches();
	waiting();
	files();
	forks();
	return done();
}
