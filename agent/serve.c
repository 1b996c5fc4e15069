/* SPDX-License-Identifier: MIT */
/* serve.c - what the control thread (control/serve.h) does in a recorded program. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"
#include "control/serve.h"
#include "object/object.h"
#include "probe/named.h"
#include "trace/point.h"

static void answer_change(struct shunt_answer *a, int err, const struct shunt_record_change *res)
{
	if (err && err != -ENOENT) {
		shunt_answer_say(a, "error %s%s%s\n", strerror(-err), *res->reason ? ": " : "", res->reason);
		return;
	}
	shunt_answer_say(a, "ok\nmatched %u\nswitched %u\nrefused %u\nleft-out %u\nns %llu\n",
		res->matched, res->changed, res->refused, res->left_out, (unsigned long long)res->ns);
	if (*res->reason)
		shunt_answer_say(a, "reason %s\n", res->reason);
}

/*
 * Names with a colon may be tracepoints', with a filter behind a tab. Leaves in globs what
 * are, or may be, functions'. The number that matched, or -EINVAL.
 */
static int change_points(char **globs, size_t *n, bool on)
{
	size_t left = 0;
	int matched = 0;

	for (size_t i = 0; i < *n; i++) {
		char *filter = strchr(globs[i], '\t');
		int r;

		if (filter)
			*filter++ = 0;
		if (!filter)
			globs[left++] = globs[i];
		if (!strchr(globs[i], ':'))
			continue;
		r = shunt_points_switch(globs[i], filter, NULL, on);
		if (r < 0 && r != -ENOENT)
			return r;
		matched += r > 0 ? r : 0;
	}
	*n = left;
	return matched;
}

static void change(const struct shunt_ctl_request *req, bool on, struct shunt_answer *a)
{
	struct shunt_record_change res;
	char *globs[SHUNT_CTL_GLOBS];
	size_t n = req->nglobs;
	int err, points;

	memset(&res, 0, sizeof res);
	for (size_t i = 0; i < n; i++)
		globs[i] = (char *)(uintptr_t)req->globs[i]; /* into req->text, which is ours */
	points = change_points(globs, &n, on);
	if (points < 0) {
		shunt_answer_say(a, "error %s\n", *shunt_trace_error() ? shunt_trace_error()
									: strerror(-points));
		return;
	}
	/* Names first: an event never comes before what it is called. */
	if (on && n)
		shunt_record_look((const char *const *)globs, n, NULL);
	shunt_agent_export();
	err = n ? shunt_record_set((const char *const *)globs, n, on, &res) : 0;
	res.matched += (uint32_t)points;
	res.changed += (uint32_t)points;
	shunt_agent_export();
	shunt_agent_count(&res);
	answer_change(a, err, &res);
}

static void answer_stat(struct shunt_answer *a)
{
	struct shunt_record_stats st;

	shunt_record_stats(&st);
	shunt_answer_say(a, "ok\nfunctions %u\non %u\nobjects %u\nstubs %u\nstubs-max %u\nno-exit %llu\n"
	       "batches %llu\nswitched %llu\nlast-ns %llu\nmemory %llu\n",
		st.functions, st.on, st.objects, st.stubs, st.stubs_max,
		(unsigned long long)st.no_exit, (unsigned long long)st.batches,
		(unsigned long long)st.toggled, (unsigned long long)st.last_ns,
		(unsigned long long)st.memory);
}

struct listing {
	struct shunt_answer *a;
	uint32_t first;
	bool full;
};

static int list_one(const struct shunt_object *o, uint32_t i, void *arg)
{
	struct listing *l = arg;
	uint32_t id = o->first_id + i;
	const char *slash = strrchr(o->path, '/');
	char object[256], symbol[2048];

	if (id < l->first)
		return 0;
	shunt_answer_printable(object, sizeof object, slash ? slash + 1 : o->path);
	shunt_answer_printable(symbol, sizeof symbol, o->strings + o->funcs[i].name);
	/* leave room for the line that says where to go on */
	if (l->a->len + strlen(object) + strlen(symbol) + 96 > sizeof l->a->text) {
		shunt_answer_say(l->a, "next %u\n", id);
		l->full = true;
		return 1;
	}
	shunt_answer_say(l->a, "fn %u %s %llx %u\t%s\t%s\n", id, shunt_record_is_on(id) ? "on" : "off",
		(unsigned long long)o->funcs[i].start, o->funcs[i].size, object,
		*symbol ? symbol : "?");
	return 0;
}

static void answer_list(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	struct listing l = { .a = a, .first = req->first };
	const char *glob = req->nglobs ? req->globs[0] : "*";

	shunt_agent_refresh();
	shunt_answer_say(a, "ok\n");
	for (const struct shunt_object *o = shunt_objects_first(); o && !l.full; o = o->next)
		if (!o->gone && o->nfuncs && o->first_id + o->nfuncs > req->first &&
			shunt_object_glob(o, glob, list_one, &l) == -EINVAL) {
			a->len = 0;
			shunt_answer_say(a, "error '%.200s' is not a pattern\n", glob);
			return;
		}
}

static void stop(struct shunt_answer *a)
{
	static const char *const all[] = { "*" };
	struct shunt_record_change res;
	char why[256];
	int err;

	memset(&res, 0, sizeof res);
	shunt_points_ring(NULL);
	shunt_points_switch("*", NULL, NULL, false);
	shunt_named_switch("*", false, why, sizeof why);
	err = shunt_record_set(all, 1, false, &res);
	answer_change(a, err, &res);
}

static void carry_out(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	switch (req->verb) {
	case SHUNT_CTL_ENABLE:
		change(req, true, a);
		break;
	case SHUNT_CTL_DISABLE:
		change(req, false, a);
		break;
	case SHUNT_CTL_LIST:
		answer_list(req, a);
		break;
	case SHUNT_CTL_STAT:
		answer_stat(a);
		break;
	case SHUNT_CTL_STOP:
		stop(a);
		break;
	default:
		if (!shunt_agent_probes(req, a))
			shunt_values_carry_out(req, a);
	}
}

void shunt_agent_serve(void)
{
	struct shunt_server server = {shunt_agent.proc, carry_out, shunt_agent_pending_loads, false, true};
	int err = shunt_serve_start(&server);

	if (err)
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING,
			"recorded, but not controllable: no thread can be made: %s", strerror(-err));
}
