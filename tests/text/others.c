/* SPDX-License-Identifier: MIT */
/*
 * others.c - beside us: the kernel's uprobes, gdb, and a program that has put its
 * text on huge pages. Each keeps what it has, and the sites are as they were set.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "sites.h"
#include "tap.h"

/* --- all that follows toggles sites 0 to 199 but for this one ---------------------- */

#define PROBED 3
#define N      200

static int toggle_around(unsigned skip, bool on, enum shunt_text_strategy s,
	struct shunt_text_result *res)
{
	struct shunt_text_options o = {.strategy = s};
	struct shunt_edit e[N];
	unsigned n = 0;

	for (unsigned i = 0; i < N; i++)
		if (i != skip)
			site_edit(&e[n++], i, on);
	return shunt_text_apply(e, n, &o, res);
}

static bool around_are(unsigned skip, int what)
{
	for (unsigned i = 0; i < N; i++)
		if (i != skip && site_call(i) != what)
			return false;
	return true;
}

/* --- uprobes -------------------------------------------------------------------- */

static char tracefs[64];

static int put(const char *file, const char *fmt, ...)
{
	char path[256], text[4400];
	va_list ap;
	int fd, n, err = 0;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	snprintf(path, sizeof path, "%s/%s", tracefs, file);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

/* What the kernel has counted of our probe. */
static long hits(void)
{
	char path[128], line[512], name[128];
	long n = -1, misses;
	FILE *f;

	snprintf(path, sizeof path, "%s/uprobe_profile", tracefs);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof line, f))
		if (strstr(line, " shunt_test_site"))
			sscanf(strstr(line, " shunt_test_site"), "%127s %ld %ld", name, &n, &misses);
	if (f)
		fclose(f);
	return n;
}

/* Where an address of ours is in its file. */
static long file_offset(uintptr_t addr, char *path)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long lo, hi, off;
	char line[4300];
	long found = -1;

	while (found < 0 && f && fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %4095s", &lo, &hi, &off, path) == 4 &&
			addr >= lo && addr < hi)
			found = (long)(addr - lo + off);
	if (f)
		fclose(f);
	return found;
}

static void uprobe(void)
{
	uint8_t *probed = site(PROBED) + 5; /* mov $1, %eax */
	struct shunt_text_result res;
	char path[4096] = "";
	long at = file_offset((uintptr_t)probed, path), calls = 0;
	bool right = true;
	int err = 0;

	snprintf(tracefs, sizeof tracefs, "/tmp/shunt-tracefs-%d", (int)getpid());
	mkdir(tracefs, 0700);
	if (mount("tracefs", tracefs, "tracefs", 0, NULL)) {
		rmdir(tracefs);
		diag("no tracefs: %s", strerror(errno));
		ok(true, "uprobe # SKIP tracefs cannot be mounted");
		return;
	}
	if (put("uprobe_events", "p:shunt_test/shunt_test_site %s:0x%lx\n", path, at) ||
		put("events/shunt_test/shunt_test_site/enable", "1")) {
		umount(tracefs);
		rmdir(tracefs);
		ok(true, "uprobe # SKIP the kernel takes no uprobe here");
		return;
	}
	ok(*(volatile uint8_t *)probed == 0xcc, "uprobe: the kernel's breakpoint is in the page");
	for (int i = 0; i < 200 && !err; i++) {
		err = toggle_around(PROBED, !(i & 1), i % 3 ? SHUNT_TEXT_FLIP : SHUNT_TEXT_STOP, &res);
		right = right && around_are(PROBED, i & 1 ? 1 : 2) && site_call(PROBED) == 1;
		calls++;
	}
	ok(!err && right, "uprobe: 200 batches around it, and each site as it was set: %s", res.reason);
	ok(hits() == calls, "uprobe: it goes on counting (%ld of %ld)", hits(), calls);
	put("events/shunt_test/shunt_test_site/enable", "0");
	ok(*(volatile uint8_t *)probed == 0xb8 && site_call(PROBED) == 1 && hits() == calls,
		"uprobe: taken away, the instruction is as it was");
	put("uprobe_events", "-:shunt_test/shunt_test_site\n");
	/* One on a site itself. */
	put("uprobe_events", "p:shunt_test/shunt_test_site %s:0x%lx\n", path, at - 5);
	put("events/shunt_test/shunt_test_site/enable", "1");
	err = toggle_around(PROBED + 1, true, SHUNT_TEXT_AUTO, &res);
	ok(err == -EBUSY && res.addr == site(PROBED) && around_are(PROBED, 1),
		"uprobe on a site: -EBUSY that names it, and nothing is changed: %s", res.reason);
	put("events/shunt_test/shunt_test_site/enable", "0");
	put("uprobe_events", "-:shunt_test/shunt_test_site\n");
	umount(tracefs);
	rmdir(tracefs);
	err = toggle_around(PROBED + 1, true, SHUNT_TEXT_AUTO, &res);
	ok(!err && around_are(PROBED + 1, 2), "and when it is gone the batch goes through");
	toggle_around(PROBED + 1, false, SHUNT_TEXT_AUTO, &res);
}

/* --- gdb ------------------------------------------------------------------------ */

static volatile bool gdb_done;

/* What gdb looks at: calls the probed site, while the others toggle. */
static void *toggler(void *arg)
{
	struct shunt_text_result res;
	long *bad = arg;

	for (long i = 0; !gdb_done; i++) {
		struct timespec pause = {0, 200000};

		if (toggle_around(PROBED, !(i & 1), SHUNT_TEXT_AUTO, &res) ||
			!around_are(PROBED, i & 1 ? 1 : 2))
			++*bad;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void debugged(int stop)
{
	long bad = 0, calls = 0;
	pthread_t t;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_create(&t, NULL, toggler, &bad);
	fcntl(stop, F_SETFL, O_NONBLOCK);
	while (read(stop, &c, 1) < 0) {
		struct timespec pause = {0, 100000};

		if (site_call(PROBED) != 1)
			bad++;
		calls++;
		nanosleep(&pause, NULL);
	}
	gdb_done = true;
	pthread_join(t, NULL);
	_exit(bad || !calls || *(volatile uint8_t *)(site(PROBED) + 5) != 0xb8);
}

static void gdb(void)
{
	char script[64], cmd[200], out[8192] = "";
	int ends[2], status = -1, n = 0;
	size_t got;
	FILE *f;
	pid_t pid;

	if (system("gdb --version >/dev/null 2>&1")) {
		ok(true, "gdb # SKIP there is none");
		return;
	}
	if (pipe(ends))
		return;
	pid = fork();
	if (!pid)
		debugged(ends[0]);
	/* A breakpoint between two sites that toggle; ten hits, then detach. */
	snprintf(script, sizeof script, "/tmp/shunt-test-gdb-%d", (int)getpid());
	f = fopen(script, "w");
	if (!f)
		return;
	fprintf(f, "break *%p\nset $n = 0\nwhile $n < 10\ncontinue\nset $n = $n + 1\nend\n"
		   "info breakpoints\ndelete\ndetach\n", (void *)(site(PROBED) + 5));
	fclose(f);
	snprintf(cmd, sizeof cmd, "timeout 40 gdb -q -nx -batch -p %d -x %s 2>&1", (int)pid, script);
	f = popen(cmd, "r");
	got = f ? fread(out, 1, sizeof out - 1, f) : 0;
	out[got] = 0;
	if (f)
		pclose(f);
	unlink(script);
	for (char *p = out; (p = strstr(p, "Breakpoint 1, ")); p++)
		n++;
	ok(n == 10 && strstr(out, "already hit 10 times"),
		"gdb: its breakpoint beside toggling sites is hit (%d of 10)", n);
	if (n != 10)
		diag("%s", out);
	/* It goes on for a while without gdb. */
	nanosleep(&(struct timespec){0, 50000000}, NULL);
	if (write(ends[1], "", 1) == 1)
		waitpid(pid, &status, 0);
	ok(status == 0, "gdb: after it has gone, all sites are right (status %x)", (unsigned)status);
	close(ends[0]);
	close(ends[1]);
}

/* --- huge pages ------------------------------------------------------------------ */

static long huge_kb(uintptr_t at)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long lo, hi;
	char line[4300];
	bool in = false;
	long kb = -1;

	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			in = at >= lo && at < hi;
		if (in)
			sscanf(line, "AnonHugePages: %ld", &kb);
	}
	if (f)
		fclose(f);
	return kb;
}

/* What programs do that want their code on huge pages: an anonymous copy over it. */
static bool to_huge_pages(void)
{
	const size_t huge = 2 << 20, size = 4 << 20;
	uintptr_t start = (uintptr_t)test_sites, len = 0;
	char *room = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* As far from a huge page's border as the text is, for mremap to keep them. */
	char *copy = (char *)(((uintptr_t)room + huge - 1) & -huge);

	len = ((uintptr_t)(test_sites_end - test_sites) + 4095) & -4096ul;
	madvise(copy, huge, MADV_HUGEPAGE);
	memcpy(copy, test_sites, len);
	diag("%ld kB of the copy are huge", huge_kb((uintptr_t)copy));
	if (mprotect(copy, len, PROT_READ | PROT_EXEC))
		return false;
	return mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) == (void *)start;
}

static void on_huge_pages(void)
{
	static const enum shunt_text_strategy how[] = {SHUNT_TEXT_FLIP, SHUNT_TEXT_TRAP,
		SHUNT_TEXT_STOP, SHUNT_TEXT_AUTO};
	struct shunt_text_result res = {0};
	struct runner r[2];
	uint64_t bad;
	int err = 0;

	ok(to_huge_pages(), "huge: the text is an anonymous copy now");
	runners_start(r, 2, 0, SITES, false);
	for (int i = 0; i < 80 && !err; i++) {
		struct shunt_text_options o = {.strategy = how[i / 2 % 4], .timeout_ms = 10000};

		err = site_toggle_n(SITES, !(i & 1), &o, &res);
	}
	bad = runners_end(r, 2);
	ok(!err && !bad && r[0].old && r[0].new_,
		"huge: 80 toggles of all sites by each strategy, live: %s", res.reason);
	ok(around_are(SITES, 1), "huge: and off at the end");
}

/* Text that is mapped by huge page entries still, not at its own address. */
static void in_huge_pages(void)
{
	const size_t huge = 2 << 20;
	char *room = mmap(NULL, 3 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *text = (uint8_t *)(((uintptr_t)room + huge - 1) & -huge);
	static struct shunt_edit e[SITES];
	struct shunt_text_result res = {0};
	size_t len = (size_t)(test_sites_end - test_sites);
	bool right = true;
	long was;
	int err = 0;

	madvise(text, huge, MADV_HUGEPAGE);
	memcpy(text, test_sites, len);
	mprotect(text, huge, PROT_READ | PROT_EXEC);
	was = huge_kb((uintptr_t)text);
	for (int i = 0; i < 20 && !err; i++) {
		struct shunt_text_options o = {.strategy = i & 2 ? SHUNT_TEXT_FLIP : SHUNT_TEXT_AUTO};

		for (unsigned k = 0; k < SITES; k++) {
			site_edit(&e[k], k, !(i & 1));
			e[k].addr = text + (size_t)k * SITE_SIZE;
			e[k].target = text + (size_t)k * SITE_SIZE + 11;
		}
		err = shunt_text_apply(e, SITES, &o, &res);
		for (unsigned k = 0; k < SITES; k += 97)
			right = right && ((int (*)(void))(uintptr_t)(text + (size_t)k * SITE_SIZE))() ==
						 (i & 1 ? 1 : 2);
	}
	ok(!err && right, "huge: 20 toggles of sites in a huge page (%ld kB at first, %ld kB then): %s",
		was, huge_kb((uintptr_t)text), res.reason);
}

int main(void)
{
	uprobe();
	gdb();
	in_huge_pages();
	on_huge_pages();
	return done();
}
