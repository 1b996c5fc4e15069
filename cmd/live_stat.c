/* SPDX-License-Identifier: MIT */
/*
 * live_stat.c - `shunt stat`: how a recording is doing.
 *
 * What a process knows about its functions it is asked for; what was written is
 * read from the ring, which needs nobody's help.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shunt/ring.h>

#include "cmd.h"
#include "control/request.h"
#include "live_out.h"
#include "out.h"
#include "proc.h"

#define ull unsigned long long

/* What a process answers, in the order in which it is shown. */
static const char *const keys[] = { "functions", "on", "objects", "batches", "switched",
	"last-ns", "stubs", "stubs-max", "no-exit", "memory" };
enum { FUNCTIONS, ON, OBJECTS, BATCHES, SWITCHED, LAST_NS, STUBS, STUBS_MAX, NO_EXIT, MEMORY,
	KEYS };

struct counters {
	uint64_t n[KEYS];
};

static void read_counters(const char *reply, size_t len, struct counters *c)
{
	struct shunt_ctl_reply r = { reply, reply + len };
	struct shunt_ctl_line line;

	memset(c, 0, sizeof *c);
	while (shunt_ctl_next_line(&r, &line))
		for (unsigned i = 0; i < KEYS; i++)
			if (shunt_ctl_key_is(&line, keys[i]))
				c->n[i] = shunt_ctl_number(&line);
}

static void show_process(const struct shunt_ctl_proc *p, const struct counters *c)
{
	printf("process %u (%.*s), image %u\n", p->pid, (int)strnlen(p->exe, sizeof p->exe), p->exe,
		p->image);
	printf("  functions      %llu known in %llu objects, %llu on\n", (ull)c->n[FUNCTIONS],
		(ull)c->n[OBJECTS], (ull)c->n[ON]);
	printf("  patching       %llu batches, %llu sites switched, the last took %.3f ms\n",
		(ull)c->n[BATCHES], (ull)c->n[SWITCHED], (double)c->n[LAST_NS] / 1e6);
	printf("  return stubs   %llu of %llu in use, %llu exits not recorded for want of one\n",
		(ull)c->n[STUBS], (ull)c->n[STUBS_MAX], (ull)c->n[NO_EXIT]);
	printf("  memory         %.1f KiB\n\n", (double)c->n[MEMORY] / 1024);
}

static void show_process_json(const struct shunt_ctl_proc *p, const struct counters *c, bool first)
{
	printf("%s\n{\"pid\":%u,\"image\":%u,\"exe\":", first ? "" : ",", p->pid, p->image);
	shunt_out_json(stdout, p->exe, strnlen(p->exe, sizeof p->exe));
	for (unsigned i = 0; i < KEYS; i++)
		printf(",\"%s\":%llu", keys[i], (ull)c->n[i]);
	putchar('}');
}

static int show_processes(const struct shunt_target *t, bool json)
{
	char reply[SHUNT_CTL_REPLY + 1];
	struct shunt_ctl_proc *p;
	struct counters c;
	bool first = true;
	int code = 0;
	size_t got;

	if (json)
		printf("{\"processes\":[");
	for (unsigned i = 0; (p = shunt_target_next(t, &i)); i++) {
		if (shunt_target_ask(t, i, "stat", 4, reply, &got)) {
			code = 1;
			continue;
		}
		read_counters(reply, got, &c);
		if (json)
			show_process_json(p, &c, first);
		else
			show_process(p, &c);
		first = false;
	}
	if (json)
		printf("]");
	return code;
}

/* ---- the ring ---- */

struct rows {
	const struct shunt_target *t;
	bool json;
	unsigned n;
};

static void show_numbers(const struct shunt_ring_thread *th, bool json)
{
	if (json)
		printf("\"written\":%llu,\"discarded\":%llu,\"overwritten\":%llu,\"read\":%llu,"
		       "\"torn\":%llu}",
			(ull)th->written, (ull)th->discarded, (ull)th->overwritten, (ull)th->read,
			(ull)th->torn);
	else
		printf("%14llu %12llu %12llu %14llu\n", (ull)th->written, (ull)th->discarded,
			(ull)th->overwritten, (ull)th->read);
}

static void show_thread(const struct shunt_ring_thread *th, void *arg)
{
	struct rows *rows = arg;
	size_t len = strnlen(th->comm, sizeof th->comm);

	if (!rows->t->recorder && th->pid != rows->t->ns_pid)
		return;
	if (rows->json) {
		printf("%s\n{\"pid\":%u,\"tid\":%u,\"image\":%u,\"live\":%s,\"comm\":",
			rows->n ? "," : "", th->pid, th->tid, th->tag, th->live ? "true" : "false");
		shunt_out_json(stdout, th->comm, len);
		putchar(',');
	} else {
		printf("%8u %8u ", th->pid, th->tid);
		shunt_out_plain(stdout, th->comm, len);
		printf("%*s", len < 16 ? (int)(16 - len) : 0, "");
	}
	show_numbers(th, rows->json);
	rows->n++;
}

static int show_ring(const struct shunt_target *t, bool json)
{
	struct rows rows = { .t = t, .json = json };
	char path[sizeof t->dir + 8];
	struct shunt_ring_thread total;
	struct shunt_ring_info info;
	struct shunt_ring *ring;
	int err;

	snprintf(path, sizeof path, "%s/pool", t->dir);
	err = shunt_ring_open(path, 0, SHUNT_RING_READ, &ring);
	if (err) {
		fprintf(stderr, "shunt stat: %s: %s\n", path, strerror(-err));
		return 1;
	}
	if (json)
		printf(",\n\"threads\":[");
	else
		printf("%8s %8s %-16s%14s %12s %12s %14s\n", "pid", "tid", "thread", "written",
			"discarded", "overwritten", "read");
	shunt_ring_account(ring, &total, show_thread, &rows);
	shunt_ring_info(ring, &info);
	if (json)
		printf("],\n\"total\":{");
	else
		printf("%-34s", "whole recording");
	show_numbers(&total, json);
	if (json)
		printf(",\n\"buffer\":{\"pages\":%u,\"pages-free\":%u,\"page-size\":%u}}\n",
			info.pages, info.pages_free, info.page_size);
	else
		printf("\nbuffer: %u pages, %u of them free, %u bytes each\n", info.pages,
			info.pages_free, info.page_size);
	shunt_ring_close(ring);
	return 0;
}

int shunt_cmd_stat(int argc, char **argv)
{
	bool json = argc == 3 && (!strcmp(argv[1], "--json") || !strcmp(argv[2], "--json"));
	struct shunt_target t;
	int code;

	if (argc != 2 && !json) {
		fprintf(stderr, "shunt stat: write 'shunt stat [--json] PID'\n");
		return 2;
	}
	code = shunt_target_open("stat", argv[json && !strcmp(argv[1], "--json") ? 2 : 1], &t);
	if (code)
		return code;
	code = show_processes(&t, json);
	code |= show_ring(&t, json);
	shunt_target_close(&t);
	return code;
}
