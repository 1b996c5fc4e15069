/* SPDX-License-Identifier: MIT */
/*
 * values.c - `shunt set`, `shunt watch`, and the values and tracepoints of `shunt
 * list`: what a program keeps in its instructions, from outside.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "control/request.h"
#include "object/object.h"
#include "out.h"
#include "proc.h"
#include "values.h"

/* --- list ------------------------------------------------------------------------- */

struct span {
	const char *text;
	size_t len;
};

/* The words of a `val` line's first field, and its others. */
struct value_line {
	struct span word[7], object, name, value;
};
enum { NUMBER, KIND, TYPE, SIZE, SITES, FLAGS, ADDRESS };

static bool read_value(const struct shunt_ctl_line *line, struct value_line *v)
{
	const char *at, *end;
	size_t len;

	if (!shunt_ctl_key_is(line, "val") || !shunt_ctl_field(line, 0, &at, &len) ||
		!shunt_ctl_field(line, 1, &v->object.text, &v->object.len) ||
		!shunt_ctl_field(line, 2, &v->name.text, &v->name.len) ||
		!shunt_ctl_field(line, 3, &v->value.text, &v->value.len))
		return false;
	end = at + len;
	for (int i = 0; i < 7; i++) {
		const char *space = memchr(at, ' ', (size_t)(end - at));

		v->word[i] = (struct span){at, (size_t)((space ? space : end) - at)};
		if (!space && i < 6)
			return false;
		at = space ? space + 1 : end;
	}
	return true;
}

static void show_text(const struct value_line *v)
{
	printf("%-6.*s  %-8.*s  %6.*s %s  %-16.*s  ", (int)v->word[KIND].len, v->word[KIND].text,
		(int)v->word[TYPE].len, v->word[TYPE].text, (int)v->word[SITES].len, v->word[SITES].text,
		v->word[SITES].len == 1 && *v->word[SITES].text == '1' ? "site " : "sites",
		(int)v->object.len, v->object.text);
	shunt_out_plain(stdout, v->name.text, v->name.len);
	printf(" = ");
	shunt_out_plain(stdout, v->value.text, v->value.len);
	printf("%s\n", *v->word[FLAGS].text == 'p' ? "  (private)" : "");
}

static void show_json(unsigned pid, const struct value_line *v, bool first)
{
	printf("%s\n{\"pid\":%u,\"kind\":\"%.*s\",\"type\":\"%.*s\",\"sites\":%.*s,\"private\":%s,"
	       "\"address\":\"0x%.*s\",\"object\":",
		first ? "" : ",", pid, (int)v->word[KIND].len, v->word[KIND].text,
		(int)v->word[TYPE].len, v->word[TYPE].text, (int)v->word[SITES].len,
		v->word[SITES].text, *v->word[FLAGS].text == 'p' ? "true" : "false",
		(int)v->word[ADDRESS].len, v->word[ADDRESS].text);
	shunt_out_json(stdout, v->object.text, v->object.len);
	printf(",\"name\":");
	shunt_out_json(stdout, v->name.text, v->name.len);
	printf(",\"value\":");
	shunt_out_json(stdout, v->value.text, v->value.len);
	putchar('}');
}

static bool show_point(unsigned pid, bool json, bool first, const struct shunt_ctl_line *line)
{
	struct span f[5];
	unsigned number, sites, probes;
	char on[4];

	for (unsigned i = 0; i < 5; i++)
		if (!shunt_ctl_field(line, i, &f[i].text, &f[i].len))
			return false;
	if (f[0].len > 60 || sscanf(f[0].text, "%u %3s %u %u", &number, on, &sites, &probes) != 4)
		return false;
	if (json) {
		printf("%s\n{\"pid\":%u,\"kind\":\"point\",\"on\":%s,\"sites\":%u,\"probes\":%u",
			first ? "" : ",", pid, !strcmp(on, "on") ? "true" : "false", sites, probes);
		for (unsigned i = 1; i < 5; i++) {
			static const char *const keys[] = {"object", "name", "filter", "fields"};

			printf(",\"%s\":", keys[i - 1]);
			shunt_out_json(stdout, f[i].text, f[i].len);
		}
		putchar('}');
		return true;
	}
	printf("point   %-8s  %6u %s  %-16.*s  ", on, sites, sites == 1 ? "site " : "sites", (int)f[1].len,
		f[1].text);
	shunt_out_plain(stdout, f[2].text, f[2].len);
	putchar('(');
	for (size_t i = 0; i < f[4].len; i++)
		f[4].text[i] == ';' ? printf(", ") : putchar(f[4].text[i]);
	putchar(')');
	if (probes)
		printf("  %u probe%s", probes, probes == 1 ? "" : "s");
	if (f[3].len) {
		printf("  if ");
		shunt_out_plain(stdout, f[3].text, f[3].len);
	}
	putchar('\n');
	return true;
}

bool shunt_values_show(unsigned pid, bool json, bool first, const struct shunt_ctl_line *line)
{
	struct value_line v;

	if (shunt_ctl_key_is(line, "pt"))
		return show_point(pid, json, first, line);
	if (!read_value(line, &v))
		return false;
	if (json)
		show_json(pid, &v, first);
	else
		show_text(&v);
	return true;
}

/* --- set -------------------------------------------------------------------------- */

static void show_set(unsigned pid, const char *what, const char *reply, size_t len)
{
	struct shunt_ctl_reply r = {reply, reply + len};
	struct shunt_ctl_line line, before = {0}, after = {0}, sites = {0};

	while (shunt_ctl_next_line(&r, &line)) {
		if (shunt_ctl_key_is(&line, "before"))
			before = line;
		else if (shunt_ctl_key_is(&line, "after"))
			after = line;
		else if (shunt_ctl_key_is(&line, "sites"))
			sites = line;
	}
	printf("process %u: %.*s: ", pid, (int)strcspn(what, "="), what);
	shunt_out_plain(stdout, before.value, before.value_len);
	printf(" -> ");
	shunt_out_plain(stdout, after.value, after.value_len);
	printf(", %.*s sites\n", (int)sites.value_len, sites.value);
}

static int set_one(const struct shunt_target *t, const char *what)
{
	char text[SHUNT_CTL_REQUEST], reply[SHUNT_CTL_REPLY + 1];
	struct shunt_ctl_proc *p;
	int n = snprintf(text, sizeof text, "set %s", what), code = 0;
	unsigned asked = 0;
	size_t got;

	if (n < 0 || (size_t)n >= sizeof text) {
		fprintf(stderr, "shunt set: '%.40s...' is too long\n", what);
		return 2;
	}
	for (unsigned i = 0; (p = shunt_target_next(t, &i)); i++, asked++) {
		if (shunt_target_ask(t, i, text, (size_t)n, reply, &got))
			code = 1;
		else
			show_set(p->pid, what, reply, got);
	}
	if (asked)
		return code;
	fprintf(stderr, "shunt: process %d does not listen any more\n", t->pid);
	return 1;
}

int shunt_cmd_set(int argc, char **argv)
{
	struct shunt_target t;
	int code;

	for (int i = 2; i < argc; i++)
		if (!strchr(argv[i], '=') || argv[i][0] == '=' || strchr(argv[i], '\n'))
			argc = 0;
	if (argc < 3) {
		fprintf(stderr, "shunt set: write 'shunt set PID NAME=VALUE..', such as: shunt set 123 "
			"batch=64\n");
		return 2;
	}
	code = shunt_target_open("set", argv[1], &t);
	if (code)
		return code;
	for (int i = 2; i < argc && !code; i++)
		code = set_one(&t, argv[i]);
	shunt_target_close(&t);
	return code;
}

/* --- watch ------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void show_change(const char *glob, const struct shunt_ctl_line *line)
{
	const char *name, *value;
	size_t name_len, value_len;
	struct timespec now;
	char one[256], when[32];
	struct tm tm;

	if (!shunt_ctl_field(line, 1, &name, &name_len) || !shunt_ctl_field(line, 2, &value, &value_len))
		return;
	snprintf(one, sizeof one, "%.*s", (int)name_len, name);
	if (!shunt_glob_match(glob, one))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	strftime(when, sizeof when, "%H:%M:%S", localtime_r(&now.tv_sec, &tm));
	printf("%s.%03ld  ", when, now.tv_nsec / 1000000);
	shunt_out_plain(stdout, name, name_len);
	printf(" = ");
	shunt_out_plain(stdout, value, value_len);
	putchar('\n');
}

/* Asks for the changes from *from on. */
static int watch_once(const struct shunt_target *t, unsigned entry, const char *glob, uint64_t *from,
	bool show)
{
	char text[64], reply[SHUNT_CTL_REPLY + 1];
	struct shunt_ctl_reply r;
	struct shunt_ctl_line line;
	uint64_t next = *from, n;
	size_t got;

	do {
		*from = next;
		snprintf(text, sizeof text, "changes %llu", (unsigned long long)*from);
		if (shunt_target_ask(t, entry, text, strlen(text), reply, &got))
			return 1;
		r = (struct shunt_ctl_reply){reply, reply + got};
		while (shunt_ctl_next_line(&r, &line)) {
			if (shunt_ctl_key_is(&line, "next")) {
				next = shunt_ctl_number(&line);
			} else if (show && shunt_ctl_key_is(&line, "chg")) {
				n = strtoull(line.value, NULL, 10);
				if (n > *from)
					printf("... %llu changes are not known any more\n",
						(unsigned long long)(n - *from));
				*from = n + 1;
				show_change(glob, &line);
			}
		}
	} while (next > *from);
	fflush(stdout);
	return 0;
}

int shunt_cmd_watch(int argc, char **argv)
{
	const struct timespec pause = {0, 50000000};
	const char *glob = argc > 2 ? argv[2] : "*";
	struct sigaction sa = {.sa_handler = interrupt};
	uint64_t from = 1;
	struct shunt_target t;
	unsigned entry = 0;
	int code;

	if (argc < 2 || argc > 3 || shunt_glob_check(glob)) {
		fprintf(stderr, "shunt watch: write 'shunt watch PID [GLOB]'\n");
		return 2;
	}
	code = shunt_target_open("watch", argv[1], &t);
	if (code)
		return code;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	if (!shunt_target_next(&t, &entry)) {
		fprintf(stderr, "shunt: process %d does not listen any more\n", t.pid);
		shunt_target_close(&t);
		return 1;
	}
	code = watch_once(&t, entry, glob, &from, false);
	while (!code && !interrupted && shunt_target_next(&t, &entry)) {
		code = watch_once(&t, entry, glob, &from, true);
		if (!code)
			nanosleep(&pause, NULL);
	}
	shunt_target_close(&t);
	return code;
}
