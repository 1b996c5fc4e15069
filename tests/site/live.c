/* SPDX-License-Identifier: MIT */
/*
 * live.c LIBRARY - values change while threads and signal handlers read them, while a
 * library full of their sites is loaded and unloaded, and while another tool is at it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/call.h>
#include <shunt/ops.h>

#include "many.h"
#include "tap.h"

SHUNT_DEFINE_KEY_FALSE(flip);
SHUNT_DEFINE_KEY_TRUE(flop);
SHUNT_DEFINE_IMV(unsigned, count, 0);
SHUNT_DEFINE_STATIC_IMV(unsigned long, wide, 0);
SHUNT_DEFINE_STATIC_IMV(unsigned short, narrow, 0);
SHUNT_DEFINE_STATIC_KEY_FALSE(odd);
SHUNT_DEFINE_CHOICE(four, "nothing", "one", "inline", "call");

/* --- what set() promises ------------------------------------------------------ */

/* After set() has returned for a value, it is published here. */
static atomic_ulong settled;
static atomic_int stop;
static atomic_ulong reads, wrong;

/* Values only grow: a read that begins after a set says it or a later one. */
__attribute__((noinline)) static void look(void)
{
	unsigned long least = settled;
	unsigned long w = shunt_imv_read(wide);

	wrong += (uint32_t)w < least || w >> 32 != (uint32_t)w;
	wrong += shunt_imv_read(narrow) < least;
	reads++;
}

static void handler(int sig)
{
	(void)sig;
	look();
}

static void *reader(void *arg)
{
	if (arg) { /* every signal blocked, SIGTRAP too */
		sigset_t all;

		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	}
	while (!stop)
		look();
	return NULL;
}

static void promise(void)
{
	struct itimerval fast = {{0, 1000}, {0, 1000}}, off = {0};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	pthread_t t[4];
	int err = 0;

	sigaction(SIGALRM, &sa, NULL);
	for (long i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, reader, (void *)(i & 1));
	setitimer(ITIMER_REAL, &fast, NULL);
	for (unsigned long v = 1; v <= 3000; v++) {
		err |= shunt_imv_set(wide, v << 32 | v) | shunt_imv_set(narrow, (unsigned short)v);
		settled = v;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	stop = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	stop = 0;
	ok(!err && reads > 3000 && !wrong,
		"6,000 sets, each seen by every read after it, none half (%lu reads, %lu wrong)",
		(unsigned long)reads, (unsigned long)wrong);
}

/* --- a key: one side before, the other side after -------------------------------- */

static atomic_int phase; /* odd: it is changing; else bit 1 says whether it is on */

static void *branch(void *arg)
{
	unsigned long *bad = arg;

	while (!stop) {
		int before = phase;
		bool on = shunt_key_unlikely(odd);

		/* Between two looks at the same settled phase it was in that state. */
		if (!(before & 1) && phase == before)
			*bad += on != !!(before & 2);
	}
	return NULL;
}

static void key_promise(void)
{
	unsigned long bad[3] = {0};
	pthread_t t[3];
	int err = 0;

	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, branch, &bad[i]);
	for (int i = 0; i < 5000; i++) {
		phase++;
		err |= shunt_key_set(&odd.key, i % 2 == 0);
		phase++;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	stop = 0;
	ok(!err && !(bad[0] + bad[1] + bad[2]), "a key, 5,000 times: every branch as it was set");
}

/* --- a choice: branches, and instructions of four kinds ------------------------------ */

void add_three(long *at);
__attribute__((used)) void add_three(long *at)
{
	*at += 3;
}

static void *chooser(void *arg)
{
	unsigned long *bad = arg;

	while (!stop) {
		int before = phase, way;
		long n = 0, *at = &n;

		way = shunt_choice(four);
		shunt_op(four, ("+D"(at)), ("i"(0)),
			("memory", "cc", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11"),
			SHUNT_OP_NOP, "incq (%%rdi)", SHUNT_OP_CODE(two, "incq (%%rdi); incq (%%rdi)"),
			SHUNT_OP_CALL(add_three));
		if (!(before & 1) && phase == before)
			*bad += way != before / 2 % 4 || n != way;
		*bad += way < 0 || way > 3 || n < 0 || n > 3;
	}
	return NULL;
}

static void choice_promise(void)
{
	unsigned long bad[3] = {0};
	pthread_t t[3];
	int err = 0;

	phase = 0;
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, chooser, &bad[i]);
	for (int i = 1; i <= 5000; i++) {
		phase++;
		err |= shunt_choice_set(four, (uint64_t)(i % 4));
		phase++;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	stop = 0;
	ok(!err && !(bad[0] + bad[1] + bad[2]), "a choice among four, 5,000 times (%lu)",
		bad[0] + bad[1] + bad[2]);
}

/* --- loading --------------------------------------------------------------------- */

static const char *library;
static pthread_mutex_t quiet = PTHREAD_MUTEX_INITIALIZER;

static void *changer(void *arg)
{
	int *err = arg;

	for (unsigned i = 0; !stop; i++) {
		pthread_mutex_lock(&quiet);
		pthread_mutex_unlock(&quiet);
		*err |= shunt_key_set(&flip.key, i & 1);
		*err |= shunt_key_set(&flop.key, i >> 1 & 1);
		*err |= shunt_imv_set(count, i % 1000);
		usleep(200); /* or the loader seldom gets the lock */
	}
	return NULL;
}

static long lines_of_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	long n = 0;

	for (int c; (c = getc(f)) != EOF;)
		n += c == '\n';
	fclose(f);
	return n;
}

static long rss_kb(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size = 0, pages = 0;

	if (fscanf(f, "%ld %ld", &size, &pages) != 2)
		pages = -1;
	fclose(f);
	return pages * 4;
}

static int now(void)
{
	return (shunt_key_enabled(flip) ? 1 : 0) | (shunt_key_enabled(flop) ? 2 : 0) |
	       (int)(shunt_value_count << 2);
}

static void loading(void)
{
	long maps = 0, rss = 0;
	unsigned stale = 0, failed = 0;
	pthread_t t;
	int err = 0;

	pthread_create(&t, NULL, changer, &err);
	for (int round = 0; round < 1000; round++) {
		void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
		int (*sees)(unsigned);

		if (!lib) {
			diag("%s", dlerror());
			failed++;
			break;
		}
		*(void **)&sees = dlsym(lib, "many_sees");
		if (round % 10 == 0) {
			/* The changer waits, or is in the middle of its three. */
			pthread_mutex_lock(&quiet);
			for (int same = 0, last = now(); same < 20; same = now() == last ? same + 1 : 0) {
				last = now();
				usleep(100);
			}
			for (unsigned i = 0; i < MANY_FUNCTIONS; i++)
				stale += sees(i) != now();
			pthread_mutex_unlock(&quiet);
		}
		failed += dlclose(lib) != 0;
		if (round == 100) {
			maps = lines_of_maps();
			rss = rss_kb();
		}
	}
	stop = 1;
	pthread_join(t, NULL);
	stop = 0;
	ok(!failed && !err, "a library of 1,000 sites, loaded and unloaded 1,000 times, its keys set");
	ok(!stale, "no stale site (%u)", stale);
	ok(lines_of_maps() <= maps + 8 && rss_kb() <= rss + 1024,
		"memory flat: %ld mappings then %ld, %ld KiB then %ld", maps, lines_of_maps(), rss,
		rss_kb());
}

static void first_look(void)
{
	void *lib;
	int (*first)(void);

	shunt_key_enable(flip);
	shunt_key_disable(flop);
	shunt_imv_set(count, 12345);
	lib = dlopen(library, RTLD_NOW);
	*(void **)&first = dlsym(lib, "many_first");
	ok(first() == (1 | 12345 << 2), "a library's constructor finds the values of now (%d)", first());
	dlclose(lib);
}

/* --- somebody else's hand ---------------------------------------------------------- */

__attribute__((noinline)) static int victim(void)
{
	return shunt_key_unlikely(flip) ? 1 : 2;
}

static uint8_t *find_nop(uint8_t *p)
{
	static const uint8_t nop[] = {0x0f, 0x1f, 0x44, 0, 0};

	for (int i = 0; i < 64; i++)
		if (!memcmp(p + i, nop, 5))
			return p + i;
	return NULL;
}

static void foreign(void)
{
	uint8_t *site, *page;
	int err;

	shunt_key_disable(flip);
	site = find_nop((uint8_t *)(uintptr_t)victim);
	ok(site != NULL, "the branch is a NOP");
	page = (uint8_t *)((uintptr_t)site & ~4095ul);
	mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	site[4] = 1; /* still a NOP */
	err = shunt_key_enable(flip);
	ok(err == -EBUSY && !shunt_key_enabled(flip) && victim() == 2 && site[4] == 1,
		"a site that another tool has changed: -EBUSY, and nothing has (%d)", err);
	site[4] = 0;
	mprotect(page, 8192, PROT_READ | PROT_EXEC);
	ok(!shunt_key_enable(flip) && victim() == 1 && !shunt_key_disable(flip), "and afterwards it works");
}

static void forked(void)
{
	pid_t pid;
	int status = 0;

	shunt_imv_set(count, 1);
	pid = fork();
	if (!pid)
		_exit(shunt_imv_set(count, 2) || shunt_imv_read(count) != 2);
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status) && shunt_imv_read(count) == 1,
		"a fork child sets its own");
}

/* --- fork and signals in the middle of it ------------------------------------------- */

static void *setter(void *arg)
{
	unsigned long *sets = arg;

	for (unsigned i = 0; !stop; i++, ++*sets)
		if (shunt_imv_set(count, i & 1023))
			return "failed";
	return NULL;
}

static void forks(void)
{
	unsigned long sets = 0;
	void *failed = NULL;
	int bad = 0, status = 0;
	pthread_t t;

	pthread_create(&t, NULL, setter, &sets);
	for (int i = 0; i < 300; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(shunt_imv_set(count, 5000) || shunt_imv_read(count) != 5000);
		bad |= waitpid(pid, &status, 0) != pid || status;
	}
	stop = 1;
	pthread_join(t, &failed);
	stop = 0;
	ok(!bad && !failed && sets, "300 forks while another thread sets (%lu)", sets);
}

static sigjmp_buf back;
static volatile int handled;

static void forker(int sig)
{
	pid_t pid = fork();
	int status;

	(void)sig;
	if (!pid)
		_exit(0);
	waitpid(pid, &status, 0);
	handled++;
}

static void jumper(int sig)
{
	(void)sig;
	handled++;
	siglongjmp(back, 1);
}

static void handlers(void (*fn)(int), const char *what)
{
	struct itimerval fast = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
	struct sigaction sa = {.sa_handler = fn}, old;
	volatile int sets = 0;

	handled = 0;
	sigaction(SIGALRM, &sa, &old);
	setitimer(ITIMER_REAL, &fast, NULL);
	sigsetjmp(back, 1);
	while (handled < 300)
		sets += !shunt_imv_set(count, (unsigned)sets & 1023);
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	ok(!shunt_imv_set(count, 9) && shunt_imv_read(count) == 9, "a handler that %s while it sets (%d)",
		what, sets);
}

/* The main thread ends; another one goes on. */
static void *survivor(void *arg)
{
	pthread_t *main_thread = arg;

	pthread_join(*main_thread, NULL);
	_exit(shunt_imv_set(count, 77) || shunt_imv_read(count) != 77 || shunt_key_enable(flip) ||
		!shunt_key_unlikely(flip));
}

static void main_ends(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		static pthread_t self;
		pthread_t t;

		self = pthread_self();
		pthread_create(&t, NULL, survivor, &self);
		pthread_exit(NULL);
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "after the main thread's pthread_exit");
}

/* --- before any constructor ------------------------------------------------------------ */

static int thrice(int x)
{
	return 3 * x;
}

SHUNT_DEFINE_CALL(early_call, thrice);
SHUNT_DEFINE_NULL_CALL(early_null, add_three);
static int early;

static void before_all(void)
{
	long n = 1;

	shunt_call(early_null)(&n);
	early = shunt_call(early_call)(7) + (int)n;
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = before_all;

/* --- exit handlers that unload --------------------------------------------------------- */

static void *late_library;

static void unload_late(void)
{
	dlclose(late_library);
	if (shunt_key_enable(flip) || shunt_key_disable(flop))
		_exit(3);
}

static void exits(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		atexit(unload_late);
		late_library = dlopen(library, RTLD_NOW);
		exit(late_library ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "an exit handler that unloads, and sets (%d)", status);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	library = argv[1];
	promise();
	key_promise();
	choice_promise();
	first_look();
	loading();
	foreign();
	forked();
	forks();
	handlers(forker, "forks");
	handlers(jumper, "jumps away");
	main_ends();
	exits();
	ok(early == 22, "calls before any constructor (%d)", early);
	return done();
}
