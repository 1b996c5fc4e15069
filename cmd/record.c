/* SPDX-License-Identifier: MIT */
/*
 * record.c - `shunt record`: runs a program and writes down its functions.
 *
 * The recorder makes a directory in shared memory with the ring's pool and the
 * control file, starts the program with the agent preloaded, and then moves
 * full pages from the pool to the trace directory until the program has ended.
 * Program and recorder share nothing else: neither waits for the other, and
 * either may die at any moment without harm to the other.
 *
 * Signals are blocked and taken one by one where the recorder sleeps, so a
 * signal and the end of the program wake it and there is no handler.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "object/object.h"
#include "probe/spec.h"
#include "record.h"
#include "trace/filter.h"

static const char usage[] =
	"Usage: shunt record [OPTION..] [--] PROGRAM [ARG..]\n"
	"       shunt record --recover DIR\n"
	"\n"
	"Runs PROGRAM and records the calls of its functions.\n"
	"\n"
	"  -o, --output DIR       the trace (default: shunt.trace)\n"
	"  -F, --filter GLOB      record functions of this name (default: all); repeatable\n"
	"  -N, --notrace GLOB     but not these; repeatable\n"
	"      --unmodified OBJECT    also functions that were not compiled for tracing, of the\n"
	"                         program or libraries of this name, such as libssl.so.3, or\n"
	"                         '*'; repeatable. A program that has no others is traced so\n"
	"                         without asking, and -F 'libc.so.6:malloc*' does it for those\n"
	"      --no-unmodified    not even then\n"
	"      --why              list functions that could not be traced, each with the reason\n"
	"  -D, --depth N          only the outermost N levels of calls\n"
	"  -e, --event GLOB       tracepoints of this name (provider:name); repeatable\n"
	"      --event-filter EXPRESSION\n"
	"                         of the -e before it, only such events: 'len > 1500'\n"
	"      --probe SPEC       a probe, such as 'libc.so.6:malloc(size=%rdi)'; repeatable\n"
	"  -b, --buffer SIZE      memory for events not yet written, such as 64M\n"
	"      --mode MODE        when that is full: discard new events (default), or\n"
	"                         overwrite the oldest and write at the end\n"
	"      --children WHAT    forked processes: trace (default) or stop\n"
	"      --clock CLOCK      tsc, monotonic or none\n"
	"      --no-control       no thread for 'shunt enable' and its kin in PROGRAM\n"
	"      --recover DIR      complete a trace whose recorder was killed\n";

/* ---- options ---- */

struct rules {
	char *text;
	size_t len;
	bool any_on;
};

static int rules_add(struct rules *r, char sign, const char *glob)
{
	size_t n = strlen(glob);
	char *text;

	if (!n || strchr(glob, '\n')) {
		shunt_say("a pattern is empty or has a line break in it");
		return 2;
	}
	text = realloc(r->text, r->len + n + 3);
	if (!text)
		return 1;
	r->text = text;
	r->len += (size_t)sprintf(text + r->len, "%c%s\n", sign, glob);
	r->any_on |= sign == '+';
	return 0;
}

static int parse_size(const char *text, uint64_t *size)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long n;
	unsigned shift = 0;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end > text && *end) {
		const char *unit = strchr(units, *end & ~32);

		if (unit && *unit)
			shift = 10 * (unsigned)(unit - units + 1);
		else
			end = NULL;
	}
	if (errno || !end || end == text || (shift && end[1]) || *text == '-' || !n ||
		n > (UINT64_C(1) << 46) >> shift) {
		shunt_say("'%s' is no size: write for example -b 64M", text);
		return 2;
	}
	*size = (uint64_t)n << shift;
	return 0;
}

static int parse_depth(const char *text, const char **depth)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || !n || n > 255 || *text == '-') {
		shunt_say("'%s' is no depth: write for example -D 10 (at most 255)", text);
		return 2;
	}
	*depth = text;
	return 0;
}

/* One of two words; 0, 1 or -1 after a message. */
static int one_of(const char *option, const char *word, const char *first, const char *second)
{
	if (!strcmp(word, first))
		return 0;
	if (!strcmp(word, second))
		return 1;
	shunt_say("--%s is '%s' or '%s', not '%s'", option, first, second, word);
	return -1;
}

enum { OPT_MODE = 256, OPT_CHILDREN, OPT_CLOCK, OPT_NO_CONTROL, OPT_RECOVER,
	OPT_EVENT_FILTER, OPT_PROBE, OPT_UNMODIFIED, OPT_NO_UNMODIFIED, OPT_WHY };

static const struct option long_options[] = {
	{ "output", required_argument, NULL, 'o' },
	{ "filter", required_argument, NULL, 'F' },
	{ "notrace", required_argument, NULL, 'N' },
	{ "depth", required_argument, NULL, 'D' },
	{ "event", required_argument, NULL, 'e' },
	{ "event-filter", required_argument, NULL, OPT_EVENT_FILTER },
	{ "probe", required_argument, NULL, OPT_PROBE },
	{ "buffer", required_argument, NULL, 'b' },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "children", required_argument, NULL, OPT_CHILDREN },
	{ "clock", required_argument, NULL, OPT_CLOCK },
	{ "no-control", no_argument, NULL, OPT_NO_CONTROL },
	{ "recover", required_argument, NULL, OPT_RECOVER },
	{ "unmodified", required_argument, NULL, OPT_UNMODIFIED },
	{ "no-unmodified", no_argument, NULL, OPT_NO_UNMODIFIED },
	{ "why", no_argument, NULL, OPT_WHY },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct parsed {
	struct shunt_record_options o;
	struct rules on, off;
	char *events; /* "glob<TAB>filter" lines; malloced */
	char *probes; /* lines; malloced */
	char *unmodified; /* lines; malloced */
	const char *recover;
	bool help;
};

static int clock_option(const char *word, const char **clock)
{
	if (strcmp(word, "tsc") && strcmp(word, "monotonic") && strcmp(word, "none")) {
		shunt_say("--clock is 'tsc', 'monotonic' or 'none', not '%s'", word);
		return 2;
	}
	*clock = word;
	return 0;
}

static int add_event(struct parsed *p, char before, const char *text)
{
	size_t n = p->events ? strlen(p->events) : 0;
	char *more, why[160];

	if (!*text || strpbrk(text, "\n\t")) {
		shunt_say("a pattern or filter is empty, or has a tab or a line break in it");
		return 2;
	}
	if (before == '\t' && (!n || strchr(strrchr(p->events, '\n') ? strrchr(p->events, '\n') : p->events, '\t'))) {
		shunt_say("--event-filter goes behind the -e that it is for");
		return 2;
	}
	if (before == '\n' ? shunt_glob_check(text) : shunt_filter_check(text, why, sizeof why)) {
		shunt_say("'%s': %s", text, before == '\n' ? "that is not a pattern" : why);
		return 2;
	}
	more = realloc(p->events, n + strlen(text) + 2);
	if (!more)
		return 1;
	p->events = more;
	sprintf(more + n, "%.*s%s", n ? 1 : 0, &before, text);
	return 0;
}

static int add_probe(struct parsed *p, const char *text)
{
	size_t n = p->probes ? strlen(p->probes) : 0;
	struct shunt_spec spec;
	char *more, why[320];

	if (strchr(text, '\n') || shunt_spec_parse(text, &spec, why, sizeof why)) {
		shunt_say("--probe '%s': %s", text, strchr(text, '\n') ? "there is a line break in it" : why);
		return 2;
	}
	more = realloc(p->probes, n + strlen(text) + 2);
	if (!more)
		return 1;
	p->probes = more;
	sprintf(more + n, "%s%s", n ? "\n" : "", text);
	return 0;
}

static int add_unmodified(struct parsed *p, const char *glob)
{
	size_t n = p->unmodified ? strlen(p->unmodified) : 0;
	char *more;

	if (strpbrk(glob, "\n:") || shunt_glob_check(glob)) {
		shunt_say("'%s': that is not a pattern for the names of files", glob);
		return 2;
	}
	more = realloc(p->unmodified, n + strlen(glob) + 2);
	if (!more)
		return 1;
	p->unmodified = more;
	sprintf(more + n, "%s\n", glob);
	return 0;
}

static int option(struct parsed *p, int opt)
{
	int which;

	switch (opt) {
	case 'o':
		p->o.dir = optarg;
		return 0;
	case 'F':
		return rules_add(&p->on, '+', optarg);
	case 'N':
		return rules_add(&p->off, '-', optarg);
	case 'e':
		return add_event(p, '\n', optarg);
	case OPT_EVENT_FILTER:
		return add_event(p, '\t', optarg);
	case OPT_PROBE:
		return add_probe(p, optarg);
	case 'D':
		return parse_depth(optarg, &p->o.depth);
	case 'b':
		return parse_size(optarg, &p->o.size);
	case OPT_MODE:
		which = one_of("mode", optarg, "discard", "overwrite");
		p->o.overwrite = which == 1;
		return which < 0 ? 2 : 0;
	case OPT_CHILDREN:
		which = one_of("children", optarg, "stop", "trace");
		p->o.children = which == 1;
		return which < 0 ? 2 : 0;
	case OPT_CLOCK:
		return clock_option(optarg, &p->o.clock);
	case OPT_NO_CONTROL:
		p->o.control = false;
		return 0;
	case OPT_RECOVER:
		p->recover = optarg;
		return 0;
	case OPT_UNMODIFIED:
		return add_unmodified(p, optarg);
	case OPT_NO_UNMODIFIED:
		return add_unmodified(p, "-");
	case OPT_WHY:
		p->o.why = true;
		return 0;
	case 'h':
		p->help = true;
		return 0;
	case ':':
		shunt_say("%s needs a value: 'shunt record --help' says which",
			optopt && optopt < 256 ? "the option" : "an option");
		return 2;
	default:
		shunt_say("unknown option: 'shunt record --help' lists them all, and '--' goes "
			  "before a program whose name begins with '-'");
		return 2;
	}
}

static int parse(struct parsed *p, int argc, char **argv)
{
	int opt, code = 0;
	size_t at = 0;
	char *rules;

	optind = 1;
	while (!code && (opt = getopt_long(argc, argv, "+:o:F:N:D:e:b:h", long_options, NULL)) != -1)
		code = option(p, opt);
	if (code || p->help || p->recover)
		return code;
	if (optind >= argc) {
		shunt_say("no program to record: write 'shunt record PROGRAM [ARG..]'");
		return 2;
	}
	p->o.argv = argv + optind;
	rules = malloc(p->on.len + p->off.len + 8);
	if (!rules)
		return 1;
	if (!p->on.any_on)
		at = (size_t)sprintf(rules, "+*\n");
	sprintf(rules + at, "%s%s", p->on.text ? p->on.text : "", p->off.text ? p->off.text : "");
	p->o.rules = rules;
	p->o.events = p->events;
	p->o.probes = p->probes;
	p->o.unmodified = p->unmodified;
	return 0;
}

/* ---- setting up ---- */

static int make_shm(struct shunt_recording *r)
{
	uint64_t random;

	if (getrandom(&random, sizeof random, 0) != sizeof random)
		random = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
	snprintf(r->shm, sizeof r->shm, "/dev/shm/shunt-%u-%016llx", getuid(),
		(unsigned long long)random);
	if (!mkdir(r->shm, 0700))
		return 0;
	shunt_say("cannot make %s: %s", r->shm, strerror(errno));
	return 1;
}

/* 64 MiB, or half of what is free there, whichever is less. */
static uint64_t default_size(const char *dir)
{
	struct statvfs fs;
	uint64_t size = UINT64_C(64) << 20, half;

	if (statvfs(dir, &fs))
		return size;
	half = (uint64_t)fs.f_bavail * fs.f_frsize / 2;
	return half < size ? half : size;
}

static void say_shm_error(const struct shunt_recording *r, int err, uint64_t size)
{
	struct statvfs fs;
	uint64_t free_mib = statvfs(r->shm, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize >> 20;

	if (err == -ENOSPC)
		shunt_say("/dev/shm is too full for a buffer of %llu MiB, it has %llu MiB left: "
			  "use a smaller one (-b), or make room",
			(unsigned long long)(size >> 20), (unsigned long long)free_mib);
	else if (err == -EINVAL)
		shunt_say("a buffer of %llu bytes is not possible: try -b 64M",
			(unsigned long long)size);
	else
		shunt_say("cannot make the buffer in %s: %s", r->shm, strerror(-err));
}

/* Memory that can be had without driving others out, in bytes. */
static uint64_t memory_available(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib ? (uint64_t)kib << 10 : UINT64_MAX;
}

/*
 * Whether there is room. Asked before, because taking memory until there is no
 * more of it makes the whole machine suffer.
 */
static int check_room(const struct shunt_recording *r, uint64_t size)
{
	uint64_t available = memory_available();
	struct statvfs fs;

	if (!statvfs(r->shm, &fs) && size > (uint64_t)fs.f_bavail * fs.f_frsize) {
		say_shm_error(r, -ENOSPC, size);
		return 1;
	}
	if (size <= available)
		return 0;
	shunt_say("a buffer of %llu MiB is more than the memory that is available, %llu MiB: use "
		  "a smaller one (-b)",
		(unsigned long long)(size >> 20), (unsigned long long)(available >> 20));
	return 1;
}

static int make_shared(struct shunt_recording *r, const struct shunt_record_options *o)
{
	uint64_t size = o->size ? o->size : default_size("/dev/shm");
	struct shunt_ring_options ro = { 0 };
	char path[sizeof r->shm + 8];
	int err;

	if (check_room(r, size))
		return 1;
	snprintf(path, sizeof path, "%s/ctl", r->shm);
	err = shunt_ctl_create(path, r->dir, &r->ctl);
	if (err) {
		say_shm_error(r, err, sizeof(struct shunt_ctl));
		return 1;
	}
	ro.size = size;
	ro.mode = o->overwrite ? SHUNT_RING_OVERWRITE : SHUNT_RING_DISCARD;
	if (o->clock)
		ro.clock = !strcmp(o->clock, "tsc")	  ? SHUNT_RING_CLOCK_TSC :
			   !strcmp(o->clock, "monotonic") ? SHUNT_RING_CLOCK_MONOTONIC :
							    SHUNT_RING_CLOCK_NONE;
	snprintf(path, sizeof path, "%s/pool", r->shm);
	err = shunt_ring_create(path, &ro, &r->ring);
	if (err) {
		say_shm_error(r, err, size);
		return 1;
	}
	r->images = calloc(SHUNT_CTL_IMAGES / 8, 1);
	return r->images ? 0 : 1;
}

/* The words of the command, in one line. */
static void describe(struct shunt_recording *r, char **argv)
{
	size_t n = 0;
	time_t now = time(NULL);
	struct tm tm;

	for (; *argv && n + 1 < sizeof r->command; argv++)
		n += (size_t)snprintf(r->command + n, sizeof r->command - n, "%s%s", n ? " " : "",
			*argv);
	for (char *c = r->command; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' ';
	strftime(r->started, sizeof r->started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
}

/* A recording that did not begin leaves nothing behind. */
static int give_up(struct shunt_recording *r, int code)
{
	char path[PATH_MAX + 16];

	if (*r->shm)
		shunt_remove_shared(r);
	if (*r->dir) {
		snprintf(path, sizeof path, "%s/data", r->dir);
		unlink(path);
		snprintf(path, sizeof path, "%s/info", r->dir);
		unlink(path);
		snprintf(path, sizeof path, "%s/objects", r->dir);
		rmdir(path);
		rmdir(r->dir);
	}
	return code;
}

/* ---- while the program runs ---- */

static void take_signals(sigset_t *taken, sigset_t *old)
{
	static const int signals[] = { SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGHUP };

	sigemptyset(taken);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(taken, signals[i]);
	sigprocmask(SIG_BLOCK, taken, old);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * Ctrl-C and Ctrl-\ reach the program by themselves, the terminal sends them to
 * both; what was sent to us alone is passed on.
 */
static void pass_on(pid_t program, const siginfo_t *si)
{
	bool by_terminal = si->si_code == SI_KERNEL;

	if (si->si_signo == SIGCHLD || by_terminal)
		return;
	kill(program, si->si_signo);
}

/* Between 0.5 ms while pages come and 10 ms while none do. */
static long next_pause(long pause, size_t taken)
{
	if (taken)
		return 500000;
	return pause * 2 < 10000000 ? pause * 2 : 10000000;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

struct progress {
	bool on;
	uint64_t at, written;
};

static void show_progress(struct progress *p, const struct shunt_recording *r)
{
	struct shunt_record_totals sum = { 0 };
	uint64_t now = now_ms();

	if (!p->on || now - p->at < 250)
		return;
	shunt_record_sum(r, &sum);
	if (p->at)
		fprintf(stderr, "\r\033[Kshunt: %.2f M events/s, %llu M in all, %llu pages, %llu lost",
			(double)(sum.written - p->written) / 1e3 / (double)(now - p->at),
			(unsigned long long)sum.written / 1000000, (unsigned long long)r->pages,
			(unsigned long long)(sum.discarded + r->unwritten));
	p->at = now;
	p->written = sum.written;
}

/* Until the program has ended; its wait status. */
static int follow(struct shunt_recording *r, pid_t program, const sigset_t *taken)
{
	struct progress progress = { .on = isatty(STDERR_FILENO) };
	struct timespec pause = { 0, 500000 };
	int status = 0;

	for (;;) {
		siginfo_t si;
		size_t n = r->overwrite ? 0 : shunt_drain_full(r);

		pause.tv_nsec = r->overwrite ? 100000000 : next_pause(pause.tv_nsec, n);
		show_progress(&progress, r);
		if (sigtimedwait(taken, &si, &pause) > 0)
			pass_on(program, &si);
		if (waitpid(program, &status, WNOHANG) == program)
			break;
	}
	if (progress.on)
		fprintf(stderr, "\r\033[K");
	return status;
}

static int exit_code(int status, int ours)
{
	int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

	if (WIFSIGNALED(status))
		shunt_say("the program was killed by signal %d (%s)%s", WTERMSIG(status),
			strsignal(WTERMSIG(status)), WCOREDUMP(status) ? ", core dumped" : "");
	else if (code)
		shunt_say("the program exited with status %d", code);
	return code ? code : ours;
}

static int run(struct shunt_recording *r, struct shunt_program *program)
{
	sigset_t taken, old;
	pid_t pid;
	int status, ours;

	take_signals(&taken, &old);
	pid = shunt_program_start(program, &old);
	if (pid < 0) {
		shunt_say("cannot run %s: %s", program->path, strerror(-pid));
		return give_up(r, pid == -ENOENT ? 127 : 126);
	}
	status = follow(r, pid, &taken);
	ours = shunt_record_finish(r, false);
	return exit_code(status, ours);
}

static int record(const struct shunt_record_options *o)
{
	struct shunt_program program;
	struct shunt_recording r;
	int code;

	memset(&r, 0, sizeof r);
	r.overwrite = o->overwrite;
	r.events = o->events != NULL;
	r.probes = o->probes;
	r.why = o->why;
	code = shunt_program_find(&program, o->argv);
	if (code)
		return code;
	describe(&r, o->argv);
	code = make_shm(&r);
	if (!code)
		code = shunt_dir_prepare(&r, o->dir);
	if (!code)
		code = make_shared(&r, o);
	if (!code)
		code = shunt_program_env(&program, &r, o);
	if (!code && shunt_dir_info(&r, false)) {
		shunt_say("cannot write %s/info: %s", r.dir, strerror(errno));
		code = 1;
	}
	return code ? give_up(&r, code) : run(&r, &program);
}

int shunt_cmd_record(int argc, char **argv)
{
	struct parsed p = { .o = { .dir = "shunt.trace", .children = true, .control = true } };
	int code = parse(&p, argc, argv);

	if (code)
		return code;
	if (p.help) {
		fputs(usage, stdout);
		return 0;
	}
	return p.recover ? shunt_record_recover(p.recover) : record(&p.o);
}
