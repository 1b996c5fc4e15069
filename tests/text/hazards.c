/* SPDX-License-Identifier: MIT */
/*
 * hazards.c - what else may be going on in a program that is patched. Each case
 * runs in a child process of its own; "exit 0" is a pass, death a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "sites.h"
#include "tap.h"
#include "text/maps.h"
#include "text/text_internal.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

extern char **environ;

static char *const self_argv[] = {(char *)"true", NULL};

/* Ends the child with a remark unless the condition holds. */
#define must(cond, ...) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "# line %d: %s: ", __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
			_exit(1); \
		} \
	} while (0)

/* Runs fn in a child; its wait status. */
static int status_of(void (*fn)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		alarm(60);
		fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}

static void check(const char *name, void (*fn)(void))
{
	int status = status_of(fn);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip("%s", name);
	else
		ok(status == 0, "%s%s", name, WIFSIGNALED(status) ? " (killed)" : "");
}

static struct shunt_text_result res;
static const struct shunt_text_options flip = {.strategy = SHUNT_TEXT_FLIP};
static const struct shunt_text_options trap = {.strategy = SHUNT_TEXT_TRAP};
static const struct shunt_text_options stop = {.strategy = SHUNT_TEXT_STOP};

static bool toggle_both_ways(const struct shunt_text_options *o)
{
	return !site_toggle_n(SITES, true, o, &res) && site_call(SITES - 1) == 2 &&
	       !site_toggle_n(SITES, false, o, &res) && site_call(0) == 1;
}

/* --- blocked signals -------------------------------------------------------------- */

static void workers_block_all(void)
{
	struct runner r[2];

	runners_start(r, 2, 3, 1, true);
	for (int i = 0; i < 10000; i++)
		must(!site_toggle(3, !(i & 1), NULL, &res), "%s", res.reason);
	must(!runners_end(r, 2), "a call returned nonsense");
}

static void trap_refused_when_blocked(void)
{
	struct runner r[1];

	runners_start(r, 1, 3, 1, true);
	must(site_toggle(3, true, &trap, &res) == -EAGAIN, "%s", res.reason);
	must(strstr(res.reason, "SIGTRAP") && site_call(3) == 1, "%s", res.reason);
	must(!site_toggle(3, true, NULL, &res) && res.strategy == SHUNT_TEXT_FLIP, "%s", res.reason);
	runners_end(r, 1);
}

/* --- the program's own SIGTRAP ------------------------------------------------------ */

static volatile int got, got_code, got_blocked;
static volatile uintptr_t got_ip;

static void note(int sig, siginfo_t *si, void *uc)
{
	sigset_t now;

	(void)sig;
	got++;
	got_code = si->si_code;
	got_ip = (uintptr_t)((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP];
	sigprocmask(SIG_BLOCK, NULL, &now);
	got_blocked = sigismember(&now, SIGTRAP);
}

static void plain_note(int sig)
{
	(void)sig;
	got++;
	got_code = 0;
}

static struct sigaction wanted(int flags)
{
	struct sigaction sa = {.sa_flags = flags};

	if (flags & SA_SIGINFO)
		sa.sa_sigaction = note;
	else
		sa.sa_handler = plain_note;
	return sa;
}

static void own_traps(int flags)
{
	got = 0;
	__asm__ volatile("int3");
	must(got == 1, "own int3 was lost (flags %x)", (unsigned)flags);
	if (flags & SA_SIGINFO)
		must(got_code == SI_KERNEL && got_blocked == !(flags & SA_NODEFER),
			"code %d, blocked %d", got_code, got_blocked);
	if (!(flags & SA_RESETHAND)) {
		raise(SIGTRAP);
		must(got == 2, "raise was lost");
	}
}

static const int matrix[] = {0, SA_SIGINFO, SA_NODEFER, SA_SIGINFO | SA_NODEFER, SA_RESETHAND,
	SA_SIGINFO | SA_RESETHAND, SA_SIGINFO | SA_ONSTACK | SA_RESTART};

static void handler_before_us(void)
{
	for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
		struct sigaction sa = wanted(matrix[i]);

		must(!sigaction(SIGTRAP, &sa, NULL), "sigaction");
		must(toggle_both_ways(&trap), "%s", res.reason);
		own_traps(matrix[i]);
	}
}

/* As the interposed sigaction() of a recorded program does. */
static void handler_after_us(void)
{
	must(toggle_both_ways(&trap), "%s", res.reason);
	for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
		struct sigaction sa = wanted(matrix[i]), old;
		struct runner r[1];

		must(!shunt_text_sigaction(SIGTRAP, &sa, NULL), "sigaction");
		must(!shunt_text_sigaction(SIGTRAP, NULL, &old) &&
				old.sa_flags == sa.sa_flags && old.sa_handler == sa.sa_handler,
			"it does not see its own action");
		runners_start(r, 1, 0, SITES, false);
		must(toggle_both_ways(&trap), "%s", res.reason);
		must(!runners_end(r, 1), "nonsense");
		own_traps(matrix[i]);
		if (matrix[i] & SA_RESETHAND)
			must(!shunt_text_sigaction(SIGTRAP, NULL, &old) &&
					old.sa_handler == SIG_DFL, "not reset");
	}
}

static void int3_after_reset(void)
{
	struct sigaction sa = wanted(SA_RESETHAND);

	sigaction(SIGTRAP, &sa, NULL);
	must(toggle_both_ways(&trap), "%s", res.reason);
	__asm__ volatile("int3");
	must(got == 1, "lost");
	__asm__ volatile("int3");
}

static void int3_by_default(void)
{
	must(toggle_both_ways(&trap), "%s", res.reason);
	__asm__ volatile("int3");
}

static void int3_ignored(void)
{
	signal(SIGTRAP, SIG_IGN);
	must(toggle_both_ways(&trap), "%s", res.reason);
	raise(SIGTRAP); /* ignored */
	__asm__ volatile("int3"); /* cannot be ignored */
}

/* --- children ------------------------------------------------------------------------- */

static volatile bool children_stop;

static void *make_children(void *arg)
{
	(void)arg;
	while (!children_stop) {
		int status, how = (int)(random() % 4);
		pid_t pid = 0;

		if (how == 0 && !(pid = fork())) {
			/* The child can patch, too, and its sites are whole. */
			for (unsigned i = 0; i < SITES; i += 97)
				if (site_call(i) != 1 && site_call(i) != 2)
					_exit(1);
			_exit(site_toggle(11, true, NULL, NULL) && site_toggle(11, false, NULL, NULL));
		} else if (how == 1 && !(pid = vfork())) {
			execv("/bin/true", self_argv);
			_exit(1);
		} else if (how == 2) {
			if (posix_spawn(&pid, "/bin/true", NULL, NULL, self_argv, environ))
				abort();
		} else if (how == 3) {
			if (system("exit 0"))
				abort();
			continue;
		}
		if (waitpid(pid, &status, 0) != pid || status)
			abort();
	}
	return NULL;
}

static void fork_while_patching(void)
{
	pthread_t t;
	struct runner r[1];
	time_t end = time(NULL) + 4;
	int i = 0;

	runners_start(r, 1, 0, SITES, false);
	pthread_create(&t, NULL, make_children, NULL);
	while (time(NULL) < end)
		must(!site_toggle_n(SITES, !(i++ & 1), NULL, &res), "%s", res.reason);
	children_stop = true;
	pthread_join(t, NULL);
	must(!runners_end(r, 1), "nonsense");
}

/* --- threads that come and go ----------------------------------------------------------- */

static void *short_life(void *arg)
{
	for (unsigned i = 0; i < 200; i++) {
		int r = site_call((unsigned)(uintptr_t)arg * 131 + i);

		if (r != 1 && r != 2)
			abort();
	}
	return NULL;
}

#define TOGGLES 6 /* at least, among those threads */

static volatile int toggled;

static void *make_threads(void *arg)
{
	pthread_t t[50];

	(void)arg;
	for (int round = 0; round < 20 || toggled < TOGGLES; round++) {
		for (uintptr_t i = 0; i < 50; i++)
			if (pthread_create(&t[i], NULL, short_life, (void *)i))
				abort();
		for (int i = 0; i < 50; i++)
			pthread_join(t[i], NULL);
	}
	children_stop = true;
	return NULL;
}

static void threads_come_and_go(const struct shunt_text_options *o)
{
	pthread_t t;
	int err;

	toggled = 0;
	pthread_create(&t, NULL, make_threads, NULL);
	while (!children_stop || (toggled & 1)) {
		err = site_toggle_n(SITES, !(toggled & 1), o, &res);
		/* New threads begin with all signals blocked. */
		if (err == -EAGAIN)
			continue;
		must(!err, "%s", res.reason);
		toggled++;
	}
	pthread_join(t, NULL);
}

static void threads_auto(void)
{
	threads_come_and_go(NULL);
}

static void threads_stop(void)
{
	threads_come_and_go(&stop);
}

/* --- other people's changes ----------------------------------------------------------------- */

/* As a debugger does it. */
static void poke(void *at, uint8_t byte)
{
	int fd = open("/proc/self/mem", O_RDWR);

	must(fd >= 0 && pwrite(fd, &byte, 1, (off_t)(uintptr_t)at) == 1, "poke");
	close(fd);
}

static void foreign_breakpoint_on_site(void)
{
	struct shunt_text_options o = {0};

	poke(site(77), 0xcc);
	for (int s = SHUNT_TEXT_AUTO; s <= SHUNT_TEXT_PLAIN; s++) {
		o.strategy = (enum shunt_text_strategy)s;
		must(site_toggle_n(SITES, true, &o, &res) == -EBUSY, "%s", res.reason);
		must(res.addr == site(77) && !res.sites, "wrong site");
	}
	for (unsigned i = 0; i < SITES; i++)
		must(i == 77 || site_call(i) == 1, "site %u was changed", i);
}

/* A breakpoint in the same page, not on a site, is carried over. */
static void foreign_breakpoint_nearby(void)
{
	struct shunt_text_options o = {0};
	uint8_t *spot = site(100) + 20;

	poke(spot, 0xcc);
	for (int s = SHUNT_TEXT_AUTO; s <= SHUNT_TEXT_PLAIN; s++) {
		o.strategy = (enum shunt_text_strategy)s;
		must(toggle_both_ways(&o) || s == SHUNT_TEXT_AUTO, "%s", res.reason);
		must(*spot == 0xcc, "strategy %d lost it", s);
	}
}

/* Pages between two touched ones keep what was edited before. */
static void carried_pages(void)
{
	must(!site_toggle(650, true, &flip, &res), "%s", res.reason);
	struct shunt_edit e[2];

	site_edit(&e[0], 325, true); /* 5 pages below */
	site_edit(&e[1], 975, true); /* 5 pages above: one range */
	must(!shunt_text_apply(e, 2, &flip, &res), "%s", res.reason);
	must(site_call(325) == 2 && site_call(650) == 2 && site_call(975) == 2, "lost");
	must(site_call(400) == 1, "clean page");
}

static void maps_name(char *buf, size_t n)
{
	struct shunt_maps m;

	buf[0] = 0;
	must(!shunt_maps_open(&m), "maps");
	shunt_maps_name(&m, (uintptr_t)site(0), buf, n);
	shunt_maps_close(&m);
}

static void file_name_stays(void)
{
	char before[4200], after[4200];

	maps_name(before, sizeof before);
	must(!site_toggle_n(SITES, true, &flip, &res), "%s", res.reason);
	maps_name(after, sizeof after);
	must(before[0] == '/' && !strcmp(before, after), "'%s' became '%s'", before, after);
}

/* Another file has taken the name of ours: its content is not to be used. */
static void replaced_file(void)
{
	char path[] = "/tmp/shunt-replaced-XXXXXX", cmd[8400], exe[4200];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	int fd = mkstemp(path);

	must(n > 0 && fd >= 0, "set-up");
	exe[n] = 0;
	close(fd);
	snprintf(cmd, sizeof cmd, "cp '%s' %s && chmod 755 %s", exe, path, path);
	must(!system(cmd), "copy");
	pid_t pid = fork();
	if (!pid) {
		execl(path, path, "replaced", path, (char *)NULL);
		_exit(1);
	}
	int status;

	waitpid(pid, &status, 0);
	unlink(path);
	snprintf(cmd, sizeof cmd, "%s (deleted)", path);
	unlink(cmd);
	must(!status, "status %x", status);
}

static void replaced_main(const char *path)
{
	char cmd[400];

	/* As the kernel then calls the mapped one, too. */
	snprintf(cmd, sizeof cmd, "cp /bin/ls %s.new && cp /bin/ls '%s (deleted)' && mv %s.new %s",
		path, path, path, path);
	must(!system(cmd), "replace");
	for (int i = 0; i < 2; i++) {
		struct shunt_edit e[2];

		/* The pages between these two are not copied but mapped anew. */
		site_edit(&e[0], 325, true);
		site_edit(&e[1], 975, true);
		must(!shunt_text_apply(e, 2, &flip, &res), "%s", res.reason);
		for (unsigned k = 300; k < 1000; k++)
			must(site_call(k) == 1 + (k == 325 || k == 975), "site %u", k);
		must(toggle_both_ways(&flip), "%s", res.reason);
		shunt_maps_never_query = true;
	}
	_exit(0);
}

/* --- what the system forbids ------------------------------------------------------------------- */

static void mdwe(void)
{
	struct runner r[2];

	if (prctl(PR_SET_MDWE, 1, 0, 0, 0))
		_exit(77);
	runners_start(r, 2, 0, SITES, true);
	must(toggle_both_ways(&flip), "%s", res.reason);
	must(toggle_both_ways(NULL), "%s", res.reason);
	must(!runners_end(r, 2), "nonsense");
	must(toggle_both_ways(NULL), "%s", res.reason);
}

static void locked_text(void)
{
	must(!mlock(test_sites, (size_t)(test_sites_end - test_sites)), "mlock");
	must(toggle_both_ways(&flip), "%s", res.reason);
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	unsigned long kb = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "VmLck: %lu", &kb) == 1)
			break;
	must(kb * 1024 >= (unsigned long)(test_sites_end - test_sites), "%lu kB locked", kb);
}

static void refuse(const long *nrs, size_t n)
{
	struct sock_filter f[40] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	struct sock_fprog prog = {.filter = f};
	unsigned k = 1;

	for (size_t i = 0; i < n; i++) {
		f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nrs[i], 0, 1);
		f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = (unsigned short)k;
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, 2, &prog), "seccomp");
}

static void everything_refused(void)
{
	static const long nrs[] = {SYS_mremap, SYS_mprotect, SYS_pwrite64, SYS_ptrace};
	struct shunt_text_options o = {0};
	struct runner r[2];

	runners_start(r, 2, 0, SITES, false);
	refuse(nrs, 4);
	for (int s = SHUNT_TEXT_AUTO; s <= SHUNT_TEXT_STOP; s++) {
		o.strategy = (enum shunt_text_strategy)s;
		must(site_toggle_n(SITES, true, &o, &res) < 0, "strategy %d worked", s);
		must(res.reason[0] && !res.sites, "no reason");
	}
	must(!runners_end(r, 2), "nonsense");
	must(site_toggle_n(SITES, true, NULL, &res) < 0 && res.reason[0], "alone");
	for (unsigned i = 0; i < SITES; i++)
		must(site_call(i) == 1, "site %u was changed", i);
}

/* Each refusal leads to the next way. */
static void flip_refused(void)
{
	static const long nrs[] = {SYS_mremap};
	struct runner r[2];

	runners_start(r, 2, 0, SITES, false);
	refuse(nrs, 1);
	must(toggle_both_ways(NULL) && res.strategy == SHUNT_TEXT_TRAP, "%s", res.reason);
	must(!runners_end(r, 2), "nonsense");
}

static void flip_and_trap_refused(void)
{
	static const long nrs[] = {SYS_mremap, SYS_membarrier};
	struct runner r[2];

	runners_start(r, 2, 0, SITES, true);
	refuse(nrs, 2);
	must(toggle_both_ways(NULL) && res.strategy == SHUNT_TEXT_STOP, "%s", res.reason);
	must(!runners_end(r, 2), "nonsense");
}

/* --- tracers -------------------------------------------------------------------------------------- */

static void traced(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		raise(SIGSTOP);
		must(site_toggle(5, true, &trap, &res) == -EPERM, "%s", res.reason);
		must(site_toggle(5, true, &flip, &res) == 0 && site_call(5) == 2, "%s", res.reason);
		struct runner r[1];

		runners_start(r, 1, 0, SITES, false);
		must(site_toggle(5, false, &stop, &res) == -EPERM, "%s", res.reason);
		must(toggle_both_ways(NULL) == false || res.strategy == SHUNT_TEXT_FLIP, "flip");
		runners_end(r, 1);
		_exit(0);
	}
	waitpid(pid, &status, WUNTRACED);
	must(!ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACECLONE), "seize");
	kill(pid, SIGCONT);
	for (;;) {
		pid_t p = waitpid(-1, &status, __WALL);

		must(p > 0, "wait");
		if (p == pid && (WIFEXITED(status) || WIFSIGNALED(status)))
			break;
		if (WIFSTOPPED(status))
			ptrace(PTRACE_CONT, p, 0,
				status >> 16 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
	}
	must(!status, "status %x", status);
}

/* --- one-byte NOPs ---------------------------------------------------------------------------------- */

__asm__(".text\n.balign 64\none_nops:\n.rept 1024\n.rept 5\nnop\n.endr\n.endr\nmov $3,%eax\nret\n");
extern uint8_t one_nops[];
static volatile bool nops_stop;

static void *run_nops(void *arg)
{
	uint64_t *n = arg;

	while (!nops_stop) {
		if (((int (*)(void))(uintptr_t)one_nops)() != 3)
			abort();
		++*(volatile uint64_t *)n;
	}
	return NULL;
}

static void merge_nops(void)
{
	static struct shunt_edit e[1024];
	pthread_t t[2];
	uint64_t n[2] = {0, 0};

	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, run_nops, &n[i]);
	for (int i = 0; i < 1024; i++) {
		e[i] = (struct shunt_edit){.addr = one_nops + i * 5, .len = 5, .act = SHUNT_TEXT_SKIP};
		memset(e[i].old, 0x90, 5);
		memcpy(e[i].new_, site_nop, 5);
	}
	while (!*(volatile uint64_t *)&n[0] || !*(volatile uint64_t *)&n[1])
		sched_yield();
	must(shunt_text_apply(e, 1024, &flip, &res) == -ENOTSUP, "%s", res.reason);
	must(shunt_text_apply(e, 1024, &trap, &res) == -ENOTSUP, "%s", res.reason);
	for (int round = 0; round < 100; round++) {
		/* Merged in even rounds, split again in odd ones. */
		must(!shunt_text_apply(e, 1024, round & 3 ? NULL : &stop, &res), "%s", res.reason);
		must(round & 1 || res.strategy == SHUNT_TEXT_STOP, "not stopped");
		for (int i = 0; i < 1024; i++) {
			uint8_t b[5];

			memcpy(b, e[i].old, 5);
			memcpy(e[i].old, e[i].new_, 5);
			memcpy(e[i].new_, b, 5);
		}
	}
	nops_stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* --- being stopped ------------------------------------------------------------------------------------ */

static volatile int sleeps, sleeps_cut;

static void *sleeper(void *arg)
{
	struct timespec ts = {0, 50000000};

	(void)arg;
	while (!nops_stop) {
		if (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL))
			sleeps_cut++;
		sleeps++;
	}
	return NULL;
}

static void *reader(void *arg)
{
	char c;

	if (read(*(int *)arg, &c, 1) != 1)
		sleeps_cut++;
	return NULL;
}

static void syscalls_survive_stop(void)
{
	pthread_t t, u;
	int p[2];

	must(!pipe(p), "pipe");
	pthread_create(&t, NULL, sleeper, NULL);
	pthread_create(&u, NULL, reader, &p[0]);
	for (int i = 0; i < 200 || sleeps < 5; i++)
		must(!site_toggle(9, !(i & 1), &stop, &res), "%s", res.reason);
	nops_stop = true;
	must(write(p[1], "x", 1) == 1, "write");
	pthread_join(t, NULL);
	pthread_join(u, NULL);
	must(!sleeps_cut, "%d system calls were cut short", sleeps_cut);
}

static volatile int signals_seen;

static void count_signal(int sig)
{
	(void)sig;
	signals_seen++;
}

static void *signalled(void *arg)
{
	(void)arg;
	while (!nops_stop)
		site_call(9);
	return NULL;
}

/* A signal that was about to be delivered when its thread was stopped. */
static void signals_survive_stop(void)
{
	struct sigaction sa = {.sa_handler = count_signal};
	const union sigval none = {0};
	int sent = 0;
	pthread_t t;

	sigaction(SIGRTMIN, &sa, NULL);
	pthread_create(&t, NULL, signalled, NULL);
	for (int i = 0; i < 400; i++) {
		for (int k = 0; k < 50; k++)
			sent += !pthread_sigqueue(t, SIGRTMIN, none);
		must(!site_toggle(9, !(i & 1), &stop, &res), "%s", res.reason);
	}
	nops_stop = true;
	pthread_join(t, NULL);
	must(sent == 20000 && signals_seen == sent, "%d of %d signals arrived", signals_seen, sent);
}

/* --- bad input ------------------------------------------------------------------------------------------ */

static void bad_edits(void)
{
	struct shunt_edit e[2];

	site_edit(&e[0], 1, true);
	e[0].len = 0;
	must(shunt_text_apply(e, 1, NULL, &res) == -EINVAL, "length 0");
	site_edit(&e[0], 1, true);
	site_edit(&e[1], 1, true);
	e[1].addr = site(1) + 4;
	must(shunt_text_apply(e, 2, NULL, &res) == -EINVAL && res.addr == e[1].addr, "overlap");
	e[1].addr = (void *)&res;
	must(shunt_text_apply(e, 2, NULL, &res) == -EFAULT && res.addr == e[1].addr, "data");
	e[1].addr = (void *)8;
	must(shunt_text_apply(e, 2, NULL, &res) == -EFAULT, "nowhere");
	must(site_call(1) == 1, "changed");
	site_edit(&e[0], 9000, true);
	site_edit(&e[1], 1, true);
	must(!shunt_text_apply(e, 2, NULL, &res) && site_call(1) == 2 && site_call(9000) == 2,
		"unsorted edits");
}

/* The table of /proc/self/maps, where the kernel cannot be asked for one address. */
static void old_kernel(void)
{
	struct runner r[2];

	shunt_maps_never_query = true;
	runners_start(r, 2, 0, SITES, true);
	for (int i = 0; i < 20; i++)
		must(toggle_both_ways(&flip), "%s", res.reason);
	for (unsigned i = 0; i < 500; i++)
		must(!site_toggle(i * 37, true, &flip, &res), "%s", res.reason);
	must(!runners_end(r, 2), "nonsense");
	must(mappings_of_sites() <= 20, "too many mappings");
}

static void near_memory(void)
{
	uintptr_t lo = (uintptr_t)test_sites, hi = (uintptr_t)test_sites_end;
	static const uint8_t code[] = {0xb8, 7, 0, 0, 0, 0xc3};
	void *at;

	for (int i = 0; i < 20; i++) {
		must(!shunt_text_alloc_near(lo, hi, 70000, &at), "no room");
		must(llabs((long long)((uintptr_t)at - hi)) < 0x7fff0000ll &&
				llabs((long long)((uintptr_t)at + 70000 - lo)) < 0x7fff0000ll, "far");
		must(!shunt_text_write_private((char *)at + 4094, code, sizeof code), "write");
		must(((int (*)(void))((uintptr_t)at + 4094))() == 7, "run");
	}
	must(shunt_text_alloc_near(lo, hi, 1ul << 40, &at) == -EINVAL, "too large");
	/* The heap's way up is free. */
	must(sbrk(64 << 20) != (void *)-1, "brk");
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "replaced"))
		replaced_main(argv[2]);
	check("workers that block all signals survive 10,000 toggles", workers_block_all);
	check("trap is refused while a thread blocks SIGTRAP", trap_refused_when_blocked);
	check("handlers installed before us get their own traps", handler_before_us);
	check("handlers installed after us get their own traps", handler_after_us);
	ok(WTERMSIG(status_of(int3_after_reset)) == SIGTRAP, "SA_RESETHAND: the second int3 kills");
	ok(WTERMSIG(status_of(int3_by_default)) == SIGTRAP, "SIG_DFL: an int3 kills by SIGTRAP");
	ok(WTERMSIG(status_of(int3_ignored)) == SIGTRAP, "SIG_IGN: raise is ignored, int3 kills");
	check("fork, vfork, posix_spawn and system while patching", fork_while_patching);
	check("1,000 threads come and go while 20,000 sites toggle", threads_auto);
	check("the same, stopped each time", threads_stop);
	check("a breakpoint on a site: -EBUSY, nothing changed", foreign_breakpoint_on_site);
	check("a breakpoint beside sites stays", foreign_breakpoint_nearby);
	check("pages between two edits keep earlier edits", carried_pages);
	check("the mapping keeps its file's name", file_name_stays);
	check("a file that was replaced is not used", replaced_file);
	check("PR_SET_MDWE", mdwe);
	check("locked text stays locked", locked_text);
	check("every way refused: an error, nothing changed", everything_refused);
	check("without mremap: trap", flip_refused);
	check("without mremap and membarrier: stop", flip_and_trap_refused);
	check("traced: trap and stop are refused, flip works", traced);
	check("one-byte NOPs become one under running threads, by stop only", merge_nops);
	check("stopping cuts no sleep and no read short", syscalls_survive_stop);
	check("stopping loses no signal on its way", signals_survive_stop);
	check("bad edits are refused, unsorted ones are not", bad_edits);
	check("kernels without PROCMAP_QUERY", old_kernel);
	check("memory within reach", near_memory);
	return done();
}
