/* SPDX-License-Identifier: MIT */
/*
 * live.c - `shunt enable`, `shunt disable`, `shunt list`: what is recorded,
 * changed and shown while the program runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "control/request.h"
#include "live_out.h"
#include "out.h"
#include "proc.h"
#include "values.h"

/* ---- enable, disable ---- */

struct outcome {
	uint64_t matched, switched, refused, left_out, ns;
	char reason[200];
};

static void read_outcome(const char *reply, size_t len, struct outcome *out)
{
	struct shunt_ctl_reply r = { reply, reply + len };
	struct shunt_ctl_line line;

	memset(out, 0, sizeof *out);
	while (shunt_ctl_next_line(&r, &line)) {
		if (shunt_ctl_key_is(&line, "matched"))
			out->matched = shunt_ctl_number(&line);
		else if (shunt_ctl_key_is(&line, "switched"))
			out->switched = shunt_ctl_number(&line);
		else if (shunt_ctl_key_is(&line, "left-out"))
			out->left_out = shunt_ctl_number(&line);
		else if (shunt_ctl_key_is(&line, "refused"))
			out->refused = shunt_ctl_number(&line);
		else if (shunt_ctl_key_is(&line, "ns"))
			out->ns = shunt_ctl_number(&line);
		else if (shunt_ctl_key_is(&line, "reason"))
			snprintf(out->reason, sizeof out->reason, "%.*s",
				(int)line.value_len, line.value);
	}
}

static int show_outcome(unsigned pid, bool on, const struct outcome *o)
{
	if (!o->matched) {
		fprintf(stderr,
			"shunt: process %u has no function or tracepoint of that name: 'shunt list %u' shows "
			"them all\n",
			pid, pid);
		return 1;
	}
	printf("process %u: %llu matched, %llu switched %s in %.3f ms\n", pid,
		(unsigned long long)o->matched, (unsigned long long)o->switched,
		on ? "on" : "off", (double)o->ns / 1e6);
	if (o->left_out)
		printf("process %u: %llu left out: they were not compiled for tracing, and cannot be "
		       "traced as they are\n", pid, (unsigned long long)o->left_out);
	if (!o->refused)
		return 0;
	fprintf(stderr, "shunt: process %u: %llu functions could not be switched: %s\n", pid,
		(unsigned long long)o->refused, o->reason);
	return 1;
}

static int switch_all(const struct shunt_target *t, bool on, const char *text, size_t len)
{
	char reply[SHUNT_CTL_REPLY + 1];
	struct shunt_ctl_proc *p;
	struct outcome out;
	unsigned n = 0;
	int code = 0;
	size_t got;

	for (unsigned i = 0; (p = shunt_target_next(t, &i)); i++, n++) {
		unsigned pid = p->pid;

		if (shunt_target_ask(t, i, text, len, reply, &got)) {
			code = 1;
			continue;
		}
		read_outcome(reply, got, &out);
		code |= show_outcome(pid, on, &out);
	}
	if (n)
		return code;
	fprintf(stderr, "shunt: process %d is not being recorded any more\n", t->pid);
	return 1;
}

/* [--filter EXPRESSION] PID GLOB..: the filter is put behind each pattern. */
static ssize_t write_request(char *text, const char *const *globs, size_t n, bool on, const char *filter)
{
	char *with[SHUNT_CTL_GLOBS];
	ssize_t len = 0;
	size_t made = 0;

	if (!filter)
		return shunt_ctl_write_rules(text, globs, n, on);
	if (strchr(filter, '\t') || n > SHUNT_CTL_GLOBS)
		return -EINVAL;
	for (; made < n && len >= 0; made++) {
		with[made] = NULL;
		if (!*globs[made] || asprintf(&with[made], "%s\t%s", globs[made], filter) < 0)
			len = -EINVAL;
	}
	if (len >= 0)
		len = shunt_ctl_write_rules(text, (const char *const *)with, n, on);
	while (made)
		free(with[--made]);
	return len;
}

static int switch_functions(const char *command, bool on, int argc, char **argv)
{
	char text[SHUNT_CTL_REQUEST];
	const char *filter = NULL;
	struct shunt_target t;
	ssize_t len;
	pid_t pid;
	int code;

	if (on && argc > 2 && !strcmp(argv[1], "--filter")) {
		filter = argv[2];
		argv += 2;
		argc -= 2;
	}
	if (argc < 3) {
		fprintf(stderr, "shunt %s: write 'shunt %s %sPID GLOB..', such as: shunt %s 123 '*'\n",
			command, command, on ? "[--filter EXPRESSION] " : "", command);
		return 2;
	}
	if (shunt_target_number(command, argv[1], &pid))
		return 2;
	len = write_request(text, (const char *const *)argv + 2, (size_t)argc - 2, on, filter);
	if (len < 0) {
		fprintf(stderr, "shunt %s: %s\n", command,
			len == -E2BIG ? "too many patterns at once: give fewer" :
					"a pattern is empty or has a line break in it");
		return 2;
	}
	if (shunt_target_find(pid, &t))
		return 1;
	code = switch_all(&t, on, text, (size_t)len);
	shunt_target_close(&t);
	return code;
}

int shunt_cmd_enable(int argc, char **argv)
{
	return switch_functions("enable", true, argc, argv);
}

int shunt_cmd_disable(int argc, char **argv)
{
	return switch_functions("disable", false, argc, argv);
}

/* ---- list ---- */

struct listing {
	bool json;
	unsigned long long shown;
};

static void show_function(struct listing *l, unsigned pid, const struct shunt_ctl_function *fn)
{
	if (!l->json) {
		printf("%-3s  %12llx  %-20.*s  ", fn->on ? "on" : "off",
			(unsigned long long)fn->address, (int)fn->object_len, fn->object);
		shunt_live_symbol(fn->symbol, fn->symbol_len);
		putchar('\n');
		return;
	}
	printf("%s\n{\"pid\":%u,\"kind\":\"function\",\"id\":%u,\"on\":%s,\"address\":%llu,\"size\":%llu,\"object\":",
		l->shown ? "," : "", pid, fn->id, fn->on ? "true" : "false",
		(unsigned long long)fn->address, (unsigned long long)fn->size);
	shunt_out_json(stdout, fn->object, fn->object_len);
	printf(",\"symbol\":");
	shunt_out_json(stdout, fn->symbol, fn->symbol_len);
	putchar('}');
}

/* Shows one answer; the number to go on from, or 0 at the end. */
static uint32_t show_answer(void *arg, unsigned pid, const char *reply, size_t len)
{
	struct listing *l = arg;
	struct shunt_ctl_reply r = { reply, reply + len };
	struct shunt_ctl_function fn;
	struct shunt_ctl_line line;

	while (shunt_ctl_next_line(&r, &line)) {
		if (shunt_ctl_key_is(&line, "next"))
			return (uint32_t)shunt_ctl_number(&line);
		if (!shunt_ctl_key_is(&line, "fn")) {
			l->shown += shunt_values_show(pid, l->json, !l->shown, &line);
		} else if (shunt_ctl_parse_function(&line, &fn)) {
			show_function(l, pid, &fn);
			l->shown++;
		}
	}
	return 0;
}

enum { VALUES = 1, FUNCTIONS = 2, POINTS = 4 };

/* A program that nobody records has no functions to show. */
static bool recorded(const struct shunt_target *t)
{
	return t->ctl->out[0] != 0;
}

static int list_all(const struct shunt_target *t, const char *glob, unsigned what, struct listing *l)
{
	struct shunt_ctl_proc *p;
	int code = 0;

	if (l->json)
		putchar('[');
	for (unsigned i = 0; (p = shunt_target_next(t, &i)); i++) {
		if (t->recorder && recorded(t) && !l->json)
			printf("# process %u %.*s\n", p->pid, (int)sizeof p->exe, p->exe);
		if (what & VALUES)
			code |= shunt_target_list(t, i, "list", "values", glob, show_answer, l);
		if (what & POINTS)
			code |= shunt_target_list(t, i, "list", "points", glob, show_answer, l);
		if (what & FUNCTIONS && recorded(t))
			code |= shunt_target_list(t, i, "list", "list", glob, show_answer, l);
	}
	if (l->json)
		printf("%s]\n", l->shown ? "\n" : "");
	return code;
}

int shunt_cmd_list(int argc, char **argv)
{
	struct listing l = { 0 };
	struct shunt_target t;
	const char *words[2] = { NULL, "*" };
	unsigned what = 0;
	int n = 0, code;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			l.json = true;
		else if (!strcmp(argv[i], "--values"))
			what |= VALUES;
		else if (!strcmp(argv[i], "--functions"))
			what |= FUNCTIONS;
		else if (!strcmp(argv[i], "--points"))
			what |= POINTS;
		else if (n < 2 && (argv[i][0] != '-' || n == 1))
			words[n++] = argv[i];
		else
			n = 3;
	}
	if (n < 1 || n > 2 || !*words[1] || strchr(words[1], '\n')) {
		fprintf(stderr, "shunt list: write 'shunt list [--json] [--values] [--points] "
			"[--functions] PID [GLOB]'\n");
		return 2;
	}
	code = shunt_target_open("list", words[0], &t);
	if (code)
		return code;
	code = list_all(&t, words[1], what ? what : VALUES | POINTS | FUNCTIONS, &l);
	if (!code && !l.shown && !l.json) {
		fprintf(stderr, "shunt: nothing matches '%s'\n", words[1]);
		code = 1;
	}
	shunt_target_close(&t);
	return code;
}
