/* SPDX-License-Identifier: MIT */
/*
 * points.c [LIBRARY] - tracepoints: arguments, fields, filters, probes, in handlers, while
 * threads run through them, and in a library that comes and goes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/ring.h>
#include <shunt/trace.h>

#include "tap.h"
#include "trace/filter.h"

SHUNT_TRACEPOINT(t, none);
SHUNT_TRACEPOINT(t, ints, shunt_integer(int, a), shunt_integer(unsigned char, b));
SHUNT_TRACEPOINT(t, text, shunt_string(s), shunt_sequence(short, q), shunt_integer(long, last));
SHUNT_TRACEPOINT(busy, loop, shunt_integer(unsigned long, i), shunt_integer(unsigned long, twice));

static struct shunt_ring *ring;
static unsigned evaluated;

static int value(int v)
{
	evaluated++;
	return v;
}

/* --- events ------------------------------------------------------------------------ */

static unsigned seen;
static uint32_t last_type;
static unsigned char last[4096];
static size_t last_len;

/* What the ring's full pages hold since the last time. */
static void drain_full(void (*fn)(const struct shunt_ring_event *))
{
	struct shunt_ring_page_ref ref;
	struct shunt_ring_cursor c;
	struct shunt_ring_event e;

	for (seen = 0; !shunt_ring_page_next(ring, &ref); shunt_ring_page_release(ring, &ref)) {
		shunt_ring_events(ref.page, 65536, &c);
		while (shunt_ring_event_next(&c, &e) == 1) {
			seen++;
			last_type = e.tag;
			last_len = e.len;
			memcpy(last, e.data, e.len);
			if (fn)
				fn(&e);
		}
	}
}

/* All that it holds: nobody writes. */
static void drain(void (*fn)(const struct shunt_ring_event *))
{
	shunt_ring_reap(ring, 1);
	drain_full(fn);
}

static void recording(void)
{
	static const short q[] = {1, -2, 300};
	uint32_t type = 0;
	char text[256];
	long l;

	shunt_trace(t, ints, value(1), (unsigned char)value(2));
	ok(!evaluated, "off: arguments are not evaluated");
	ok(shunt_trace_enable("t:*", NULL, ring) == 3, "three are switched on");
	shunt_trace(t, ints, value(-5), (unsigned char)value(250));
	drain(NULL);
	ok(evaluated == 2 && seen == 1 && last_len == 5 && !memcmp(last, "\xfb\xff\xff\xff\xfa", 5) &&
			!shunt_trace_describe("t", "ints", &type, text, sizeof text) &&
			type == last_type && !strcmp(text, "s32 a\tu8 b"),
		"an event of two integers");
	shunt_trace(t, none);
	drain(NULL);
	ok(seen == 1 && !last_len && !shunt_trace_describe("t", "none", &type, text, sizeof text) &&
			type == last_type && !*text,
		"one without fields");
	shunt_trace(t, text, "abc", q, 3, 77L);
	drain(NULL);
	memcpy(&l, last + 14, sizeof l);
	ok(seen == 1 && last_len == 4 + 4 + 6 + 8 && !strcmp((char *)last, "abc") && last[4] == 3 &&
			!memcmp(last + 8, q, 6) && l == 77,
		"a string, a sequence and what is behind them");
	memset(text, 'x', 200);
	text[200] = 0;
	shunt_trace(t, text, NULL, q, 0, 1L);
	drain(NULL);
	ok(last_len == 7 + 4 + 8 && !strcmp((char *)last, "(null)"), "a string that is NULL");
	ok(shunt_trace_disable("t:n*") == 1, "one is switched off");
	shunt_trace(t, none);
	shunt_trace(t, ints, 1, 1);
	drain(NULL);
	ok(seen == 1 && shunt_point_on(t, ints) && !shunt_point_on(t, none), "and the others are not");
	ok(shunt_trace_enable("nobody:*", NULL, ring) == -ENOENT &&
			shunt_trace_enable("t:[", NULL, ring) == -EINVAL && *shunt_trace_error() &&
			shunt_trace_enable("nobody:*", "x >", ring) == -EINVAL &&
			shunt_trace_enable("t:*", NULL, NULL) == -ENXIO && *shunt_trace_error(),
		"errors");
}

/* --- filters -------------------------------------------------------------------------- */

static void filtering(void)
{
	ok(shunt_trace_enable("t:ints", "a > 10 && b & 1", ring) == 1, "a filter");
	for (int i = 0; i < 20; i++)
		shunt_trace(t, ints, i, (unsigned char)i);
	drain(NULL);
	ok(seen == 5, "events that pass: 11, 13, 15, 17, 19 (%u)", seen);
	ok(shunt_trace_enable("t:ints", "c == 1", ring) == -EINVAL &&
			strstr(shunt_trace_error(), "there is no field c, there is: a, b"),
		"a field that is not there: %s", shunt_trace_error());
	shunt_trace(t, ints, 11, 1);
	shunt_trace(t, ints, 1, 1);
	drain(NULL);
	ok(seen == 1, "and the filter is as before");
	ok(shunt_trace_enable("t:ints", NULL, ring) == 1, "no filter");
	shunt_trace(t, ints, 1, 1);
	drain(NULL);
	ok(seen == 1, "all events");
}

static const struct shunt_label labels[] = {{"LOW", -1}, {"HIGH", 3}, {NULL, 0}};
static const struct shunt_field fields[] = {
	{"i", SHUNT_FIELD_SCALAR, SHUNT_TYPE_SIGNED, 4, 1, NULL},
	{"s", SHUNT_FIELD_STRING, SHUNT_TYPE_UNSIGNED, 1, 1, NULL},
	{"f", SHUNT_FIELD_SCALAR, SHUNT_TYPE_FLOAT, 8, 1, NULL},
	{"q", SHUNT_FIELD_SEQUENCE, SHUNT_TYPE_UNSIGNED, 2, 1, NULL},
	{"e", SHUNT_FIELD_SCALAR, SHUNT_TYPE_SIGNED, 1, 1, labels},
	{"u", SHUNT_FIELD_SCALAR, SHUNT_TYPE_UNSIGNED, 8, 1, NULL},
	{NULL, 0, 0, 0, 0, NULL},
};

/* i = -7, s = "eth0", f = 2.5, q = {1, 2}, e = HIGH, u = 2^64 - 1 */
static const char event[] = "\xf9\xff\xff\xff"
			    "eth0\0"
			    "\0\0\0\0\0\0\x04\x40"
			    "\2\0\0\0\1\0\2\0"
			    "\3"
			    "\xff\xff\xff\xff\xff\xff\xff\xff";

static int verdict(const char *text)
{
	struct shunt_filter *f;
	char why[200] = "";
	int r = shunt_filter_parse(text, fields, 6, &f, why, sizeof why);

	if (r) {
		if (!*why)
			return -1;
		diag("%s: %s", text, why);
		return r;
	}
	r = shunt_filter_match(f, event, sizeof event - 1);
	for (size_t cut = 0; cut < sizeof event - 1; cut++)
		shunt_filter_match(f, event, cut); /* for the sanitizers */
	shunt_filter_free(f);
	return r;
}

static void expressions(void)
{
	static const char *const yes[] = {"i == -7", "i < 0", "i <= -7", "i != 7", "i & 1", "!(i > 0)",
		"s == \"eth0\"", "s == \"e*[0-9]\"", "s != \"lo\"", "f > 2.4", "f == 2.5", "f < 1e9",
		"e == HIGH", "e != LOW", "e > 2", "u == 18446744073709551615", "u == 0xffffffffffffffff",
		"u > 5", "i > 0 || e == 3", "i < 0 && (s == \"x\" || f >= 2.5)", "!i == 7",
		"!!(i == -7)", "i == 1 || i == 2 || i == -7", "i == -7 && e == 3 || i == 1",
		"i == 1 && e == 3 || u > 0", "(((i == -7)))"};
	static const char *const no[] = {"i == 7", "i > -7", "s == \"eth\"", "f != 2.5", "e == LOW",
		"u < 5", "i == -7 && e == LOW", "!(i < 0 || e == 3)", "i & 0", "u == 0",
		"i == 1 && (e == 3 || u > 0)"};
	static const char *const bad[] = {"", " ", "i", "i ==", "i == x", "j == 1", "i = 1", "== 1",
		"i == 1 &&", "i == 1 || ", "(i == 1", "i == 1)", "i == 1 1", "s == eth0", "s == \"a",
		"s < \"a\"", "s == \"[\"", "q == 1", "f & 1", "u == -1", "u == 99999999999999999999",
		"i == 1.5", "i == 1x", "e == MIDDLE", "!", "i == 1 & & e == 1", "\"eth0\" == s"};
	char deep[200] = "", many[2000] = "i == 0", why[200];
	unsigned good = 0;

	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		if (verdict(yes[i]) == 1)
			good++;
		else
			diag("wrong: %s", yes[i]);
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		if (verdict(no[i]) == 0)
			good++;
		else
			diag("wrong: %s", no[i]);
	ok(good == sizeof yes / sizeof *yes + sizeof no / sizeof *no, "filters that are right, and not");
	good = 0;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		good += !shunt_filter_check(yes[i], why, sizeof why);
	ok(good == sizeof yes / sizeof *yes && shunt_filter_check("a >", why, sizeof why) == -EINVAL &&
			shunt_filter_check("(a == 1", why, sizeof why) == -EINVAL,
		"their form, without fields");
	good = 0;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (verdict(bad[i]) == -EINVAL)
			good++;
		else
			diag("accepted: %s", bad[i]);
	ok(good == sizeof bad / sizeof *bad, "filters that are refused, with a reason");
	memset(deep, '(', 100);
	strcat(deep, "i == 1");
	for (int i = 0; i < 70; i++)
		strcat(many, " || i == 0");
	ok(verdict(deep) == -EINVAL && verdict(many) == -EINVAL, "too deep, too many");
}

/* --- probes ---------------------------------------------------------------------------- */

static long sum;

static void add_a(int a, unsigned char b, void *data)
{
	(void)b;
	*(long *)data += a;
}

static void add_b(int a, unsigned char b, void *data)
{
	(void)a;
	*(long *)data += b;
}

static long inside; /* also add_b's sum */

static void from_inside(int a, unsigned char b, void *data)
{
	(void)a;
	(void)b;
	inside = shunt_trace_unregister(t, ints, from_inside, data);
	if (shunt_trace_register(t, ints, add_b, &inside))
		inside = 1;
}

static void probing(void)
{
	shunt_trace_disable("t:*");
	ok(!shunt_point_on(t, ints) && !shunt_trace_register(t, ints, add_a, &sum) &&
			shunt_point_on(t, ints) && !shunt_trace_register(t, ints, add_b, &sum),
		"two probes");
	shunt_trace(t, ints, 1000, 7);
	ok(sum == 1007, "both are called");
	ok(shunt_trace_register(t, ints, add_a, &sum) == -EEXIST &&
			shunt_trace_unregister(t, ints, add_a, &inside) == -ENOENT,
		"twice the same, and none such");
	ok(!shunt_trace_unregister(t, ints, add_a, &sum), "one goes");
	shunt_trace(t, ints, 1000, 7);
	ok(sum == 1014 && !shunt_trace_unregister(t, ints, add_b, &sum) && !shunt_point_on(t, ints),
		"then the other");
	shunt_trace_register(t, ints, from_inside, NULL);
	shunt_trace(t, ints, 1, 5);
	ok(inside == -EDEADLK, "a probe cannot wait for itself");
	shunt_trace(t, ints, 1, 100);
	ok(!shunt_trace_unregister(t, ints, from_inside, NULL) &&
			!shunt_trace_unregister(t, ints, add_b, &inside),
		"but may register another");
}

/* --- while it runs ----------------------------------------------------------------------- */

static atomic_int stop;
static atomic_ulong probed, wrong;
static int token[2];

/* token[0] is 0 while its probe is not registered. */
static void check(unsigned long i, unsigned long twice, void *data)
{
	if (probed++ % 256 == 0)
		usleep(100); /* long enough to be met by what does not wait */
	wrong += twice != 2 * i || !*(volatile int *)data;
}

static void fire(unsigned long i)
{
	shunt_trace(busy, loop, i, 2 * i);
}

static void *runner(void *arg)
{
	for (unsigned long i = 0; !stop; i++)
		fire(i & 1 ? i : 0); /* no filter lets 0 pass */
	return arg;
}

static void handler(int sig)
{
	fire((unsigned long)sig);
}

static void check_event(const struct shunt_ring_event *e)
{
	unsigned long v[2];

	memcpy(v, e->data, sizeof v);
	wrong += e->len != sizeof v || v[1] != 2 * v[0] || !v[0];
}

static void running(void)
{
	struct itimerval fast = {{0, 700}, {0, 700}}, off = {{0, 0}, {0, 0}};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	pthread_t t[3];
	int err = 0;
	unsigned long events = 0;

	sigaction(SIGALRM, &sa, NULL);
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, runner, NULL);
	setitimer(ITIMER_REAL, &fast, NULL);
	for (int i = 0; i < 300; i++) {
		token[0] = token[1] = 1;
		err |= shunt_trace_register(busy, loop, check, &token[0]);
		err |= shunt_trace_enable("busy:loop", i & 1 ? "i >= 1 && twice >= 2" : "i != 0", ring) != 1;
		err |= shunt_trace_register(busy, loop, check, &token[1]);
		usleep(300);
		err |= shunt_trace_unregister(busy, loop, check, &token[0]);
		token[0] = 0;
		err |= shunt_trace_disable("busy:loop") != 1;
		err |= shunt_trace_unregister(busy, loop, check, &token[1]);
		token[1] = 0;
		drain_full(check_event);
		events += seen;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	drain(check_event);
	events += seen;
	ok(!err && probed > 1000 && events > 100 && !wrong,
		"300 times probes and recording on and off, three threads and a handler (%lu probed, %lu "
		"events, %lu wrong)",
		(unsigned long)probed, events, (unsigned long)wrong);
}

/* --- fork, jumps, closing, the end --------------------------------------------------------- */

static void *switcher(void *arg)
{
	unsigned long *rounds = arg;

	for (; !stop; ++*rounds) {
		shunt_trace_enable("busy:loop", *rounds & 1 ? "i > 100" : "i != 0", ring);
		shunt_trace_register(busy, loop, check, &token[0]);
		shunt_trace_unregister(busy, loop, check, &token[0]);
	}
	return NULL;
}

static void forking(void)
{
	unsigned long rounds = 0;
	pthread_t t[2];
	int status, bad = 0;

	stop = 0;
	token[0] = 1;
	pthread_create(&t[0], NULL, switcher, &rounds);
	pthread_create(&t[1], NULL, runner, NULL);
	for (int i = 0; i < 200; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(shunt_trace_register(busy, loop, check, &token[1]) ||
				shunt_trace_unregister(busy, loop, check, &token[1]));
		bad |= waitpid(pid, &status, 0) != pid || status;
	}
	stop = 1;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	ok(!bad && rounds, "200 forks while filters and probes change (%lu)", rounds);
}

static sigjmp_buf back;
static volatile int jumps;

static void jumper(int sig)
{
	(void)sig;
	jumps++;
	siglongjmp(back, 1);
}

static void jumping(void)
{
	struct itimerval fast = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
	struct sigaction sa = {.sa_handler = jumper};
	unsigned long rounds = 0, before;
	sigset_t alarm;
	pthread_t t;

	stop = 0;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	pthread_create(&t, NULL, switcher, &rounds);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &fast, NULL);
	sigsetjmp(back, 1);
	while (jumps < 500)
		for (unsigned long i = 0; i < 100; i++)
			fire(i);
	setitimer(ITIMER_REAL, &off, NULL);
	before = __atomic_load_n(&rounds, __ATOMIC_RELAXED);
	while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) < before + 10)
		fire(1);
	stop = 1;
	pthread_join(t, NULL);
	ok(rounds > 10, "500 jumps out of a handler, and nobody waits for ever (%lu)", rounds);
}

static void closing(void)
{
	struct shunt_ring_options o = {.size = 1 << 20, .mode = SHUNT_RING_OVERWRITE};
	struct shunt_ring *own;
	char path[64];
	pthread_t t[2];
	int err = 0;

	snprintf(path, sizeof path, "/dev/shm/shunt-test-own-%d", getpid());
	stop = 0;
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, runner, NULL);
	for (int i = 0; i < 200 && !err; i++) {
		err = shunt_ring_create(path, &o, &own);
		unlink(path);
		if (err)
			break;
		err = shunt_trace_enable("busy:loop", i & 1 ? "i > 5" : NULL, own) != 1;
		usleep(100);
		err |= shunt_trace_disable("busy:loop") != 1;
		shunt_ring_close(own);
	}
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	ok(!err, "a ring is closed as soon as nothing is recorded into it, 200 times");
}

static void ending(void)
{
	int status, bad = 0;

	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();
		pthread_t t;

		if (!pid) {
			stop = 0;
			shunt_trace_enable("busy:loop", "i > 5 && twice != 3", ring);
			shunt_trace_register(busy, loop, check, &token[0]);
			pthread_create(&t, NULL, runner, NULL);
			usleep(2000);
			exit(0);
		}
		bad |= waitpid(pid, &status, 0) != pid || status;
	}
	ok(!bad, "exit() while others run through filters and probes");
}

/* --- a library ------------------------------------------------------------------------------ */

static void library(const char *path)
{
	void (*fire_library)(int);
	uint32_t type[2] = {0, 0};
	char text[64];
	bool good = true;

	drain(NULL); /* what was written before */
	shunt_trace_enable("library:*", "x < 100", ring);
	for (int i = 0; i < 50; i++) {
		void *lib = dlopen(path, RTLD_NOW);

		if (!lib) {
			diag("%s", dlerror());
			good = false;
			break;
		}
		*(void **)&fire_library = dlsym(lib, "fire_library");
		fire_library(i);
		fire_library(100 + i);
		drain(NULL);
		good = good && seen == 1 && !memcmp(last, &i, sizeof i);
		type[i & 1] = last_type;
		dlclose(lib);
	}
	ok(good && type[0] == type[1] && !shunt_trace_describe("library", "fired", type, text, sizeof text) &&
			!strcmp(text, "s32 x"),
		"a library's: what was said before it is loaded holds, each time, and its kind stays");
}

int main(int argc, char **argv)
{
	struct shunt_ring_options o = {.size = 8 << 20, .mode = SHUNT_RING_OVERWRITE};
	char path[64];

	snprintf(path, sizeof path, "/dev/shm/shunt-test-points-%d", getpid());
	if (shunt_ring_create(path, &o, &ring)) {
		diag("no ring");
		return 1;
	}
	unlink(path);
	recording();
	filtering();
	expressions();
	probing();
	running();
	forking();
	jumping();
	closing();
	ending();
	if (argc > 1)
		library(argv[1]);
	return done();
}
