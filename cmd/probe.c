/* SPDX-License-Identifier: MIT */
/*
 * probe.c - `shunt probe add|list|del|enable|disable`: probes in a running program, by the
 * probe language (probe/spec.h).
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "control/request.h"
#include "object/object.h"
#include "out.h"
#include "probe/spec.h"
#include "proc.h"

/* --- one probe as the program tells it ---------------------------------------------- */

struct shown {
	unsigned number;
	char on[4], form[16];
	unsigned long long hits, addr;
	const char *text[3]; /* event, place, specification */
	size_t len[3];
};

static bool read_probe(const struct shunt_ctl_line *line, struct shown *p)
{
	char head[128];
	const char *text;
	size_t len;

	if (!shunt_ctl_key_is(line, "pr") || !shunt_ctl_field(line, 0, &text, &len) || len >= sizeof head)
		return false;
	memcpy(head, text, len);
	head[len] = 0;
	for (unsigned i = 0; i < 3; i++)
		if (!shunt_ctl_field(line, i + 1, &p->text[i], &p->len[i]))
			return false;
	return sscanf(head, "%u %3s %15s %llu %llx", &p->number, p->on, p->form, &p->hits, &p->addr) == 5;
}

static void show_text(const struct shown *p)
{
	printf("%-3s  %-11s  %10llu %s  %12llx  ", p->on, p->form, p->hits, p->hits == 1 ? "hit " : "hits",
		p->addr);
	for (unsigned i = 0; i < 3; i++) {
		shunt_out_plain(stdout, p->text[i], p->len[i]);
		fputs(i < 2 ? "  " : "\n", stdout);
	}
}

static void show_json(unsigned pid, const struct shown *p, bool first)
{
	static const char *const keys[] = {"event", "place", "spec"};

	printf("%s\n{\"pid\":%u,\"on\":%s,\"form\":\"%s\",\"hits\":%llu,\"address\":\"0x%llx\"",
		first ? "" : ",", pid, strcmp(p->on, "on") ? "false" : "true", p->form, p->hits, p->addr);
	for (unsigned i = 0; i < 3; i++) {
		printf(",\"%s\":", keys[i]);
		shunt_out_json(stdout, p->text[i], p->len[i]);
	}
	putchar('}');
}

struct listing {
	bool json;
	unsigned long long shown;
};

/* The number to go on from, or 0 at the end. */
static uint32_t show_answer(void *arg, unsigned pid, const char *reply, size_t len)
{
	struct listing *l = arg;
	struct shunt_ctl_reply r = {reply, reply + len};
	struct shunt_ctl_line line;
	struct shown p;

	while (shunt_ctl_next_line(&r, &line)) {
		if (shunt_ctl_key_is(&line, "next"))
			return (uint32_t)shunt_ctl_number(&line);
		if (!read_probe(&line, &p))
			continue;
		if (l->json)
			show_json(pid, &p, !l->shown);
		else
			show_text(&p);
		l->shown++;
	}
	return 0;
}

/* --- requests to each process that is meant ---------------------------------------------- */

/* What is done with each one's answer; an exit code. */
typedef int (*answered_fn)(const struct shunt_target *t, unsigned entry, const char *reply, size_t len,
	void *arg);

static int ask_each(const struct shunt_target *t, const char *text, size_t len, answered_fn fn, void *arg)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned asked = 0;
	int code = 0;
	size_t got;

	for (unsigned i = 0; shunt_target_next(t, &i); i++, asked++)
		code |= shunt_target_ask(t, i, text, len, reply, &got) ? 1 : fn(t, i, reply, got, arg);
	if (asked)
		return code;
	fprintf(stderr, "shunt: process %d is not being recorded any more\n", t->pid);
	return 1;
}

/* PID WORD..: a request of so many lines of `verb`. */
static int send_words(const char *command, const char *verb, char **argv, int n, answered_fn fn, void *arg)
{
	char text[SHUNT_CTL_REQUEST];
	struct shunt_target t;
	ssize_t len = -E2BIG;
	int code;

	if (n <= SHUNT_CTL_GLOBS)
		len = shunt_ctl_write_lines(text, verb, (const char *const *)argv + 1, (size_t)n);
	if (len < 0) {
		fprintf(stderr, "shunt probe %s: %s\n", command,
			len == -E2BIG ? "too many at once: give fewer"
				      : "a word is empty or has a line break in it");
		return 2;
	}
	code = shunt_target_open("probe", argv[0], &t);
	if (code)
		return code;
	code = ask_each(&t, text, (size_t)len, fn, arg);
	shunt_target_close(&t);
	return code;
}

/* --- add ---------------------------------------------------------------------------------- */

static int added(const struct shunt_target *t, unsigned entry, const char *reply, size_t len, void *arg)
{
	struct listing l = {0};
	uint32_t next = show_answer(&l, t->ctl->procs[entry].pid, reply, len);

	(void)arg;
	if (next)
		printf("... 'shunt probe list %u' shows the others\n", t->ctl->procs[entry].pid);
	return 0;
}

static int probe_add(int n, char **argv)
{
	struct shunt_spec spec;
	char why[320];

	for (int i = 1; i < n; i++) {
		if (!shunt_spec_parse(argv[i], &spec, why, sizeof why))
			continue;
		fprintf(stderr, "shunt probe add: '%s': %s\n", argv[i], why);
		return 2;
	}
	return send_words("add", "probe", argv, n - 1, added, NULL);
}

/* --- del, enable, disable ------------------------------------------------------------------- */

static int changed(const struct shunt_target *t, unsigned entry, const char *reply, size_t len, void *arg)
{
	struct shunt_ctl_reply r = {reply, reply + len};
	unsigned pid = t->ctl->procs[entry].pid;
	unsigned long long matched = 0;
	struct shunt_ctl_line line;

	while (shunt_ctl_next_line(&r, &line))
		if (shunt_ctl_key_is(&line, "matched"))
			matched = shunt_ctl_number(&line);
	if (!matched) {
		fprintf(stderr, "shunt: process %u has no probe of that name: 'shunt probe list %u' shows "
			"them all\n", pid, pid);
		return 1;
	}
	printf("process %u: %llu probe%s %s\n", pid, matched, matched == 1 ? "" : "s", (const char *)arg);
	return 0;
}

static int check_globs(const char *command, int n, char **argv)
{
	for (int i = 1; i < n; i++)
		if (shunt_glob_check(argv[i])) {
			fprintf(stderr, "shunt probe %s: '%s' is not a pattern\n", command, argv[i]);
			return 2;
		}
	return 0;
}

static int probe_del(int n, char **argv)
{
	static char done[] = "removed";

	return check_globs("del", n, argv) ? 2 : send_words("del", "unprobe", argv, n - 1, changed, done);
}

static int probe_enable(int n, char **argv)
{
	static char done[] = "switched on";

	return check_globs("enable", n, argv)
		? 2
		: send_words("enable", "probe-on", argv, n - 1, changed, done);
}

static int probe_disable(int n, char **argv)
{
	static char done[] = "switched off";

	return check_globs("disable", n, argv)
		? 2
		: send_words("disable", "probe-off", argv, n - 1, changed, done);
}

/* --- list ------------------------------------------------------------------------------------- */

static int list_all(const struct shunt_target *t, const char *glob, struct listing *l)
{
	struct shunt_ctl_proc *p;
	int code = 0;

	if (l->json)
		putchar('[');
	for (unsigned i = 0; (p = shunt_target_next(t, &i)); i++) {
		if (t->recorder && !l->json)
			printf("# process %u %.*s\n", p->pid, (int)sizeof p->exe, p->exe);
		code |= shunt_target_list(t, i, "probe list", "probes", glob, show_answer, l);
	}
	if (l->json)
		printf("%s]\n", l->shown ? "\n" : "");
	return code;
}

static int probe_list(int n, char **argv)
{
	struct listing l = {0};
	const char *glob;
	struct shunt_target t;
	int code;

	if (!strcmp(argv[0], "--json")) {
		l.json = true;
		argv++;
		n--;
	}
	glob = n > 1 ? argv[1] : "*";
	if (n < 1 || n > 2 || !*glob || strchr(glob, '\n') || shunt_glob_check(glob)) {
		fprintf(stderr, "shunt probe list: write 'shunt probe list [--json] PID [GLOB]'\n");
		return 2;
	}
	code = shunt_target_open("probe", argv[0], &t);
	if (code)
		return code;
	code = list_all(&t, glob, &l);
	if (!code && !l.shown && !l.json) {
		fprintf(stderr, "shunt: there is no probe%s%s\n", n > 1 ? " that matches " : "",
			n > 1 ? glob : "");
		code = 1;
	}
	shunt_target_close(&t);
	return code;
}

/* --- the command --------------------------------------------------------------------------------- */

int shunt_cmd_probe(int argc, char **argv)
{
	static const struct {
		const char *name, *usage;
		int least; /* words behind it */
		int (*run)(int n, char **argv);
	} verbs[] = {
		{"add", "PID SPEC.., such as shunt probe add 123 'libc.so.6:malloc(size=%rdi)'", 2, probe_add},
		{"list", "[--json] PID [GLOB]", 1, probe_list},
		{"del", "PID GLOB.., such as shunt probe del 123 malloc", 2, probe_del},
		{"enable", "PID GLOB.., such as shunt probe enable 123 malloc", 2, probe_enable},
		{"disable", "PID GLOB.., such as shunt probe disable 123 malloc", 2, probe_disable},
	};

	for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++) {
		if (strcmp(argv[1], verbs[i].name))
			continue;
		if (argc - 2 >= verbs[i].least)
			return verbs[i].run(argc - 2, argv + 2);
		fprintf(stderr, "shunt probe %s: write: shunt probe %s %s\n", verbs[i].name, verbs[i].name,
			verbs[i].usage);
		return 2;
	}
	fprintf(stderr, "shunt probe: write 'shunt probe add|list|del|enable|disable PID ..': "
		"'shunt probe --help' says more\n");
	return 2;
}
