/* SPDX-License-Identifier: MIT */
/* probes.c - probes that are asked for by a text (probe/named.h), in a recorded program. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "control/serve.h"
#include "object/object.h"
#include "probe/named.h"

/* --- before main --------------------------------------------------------------------- */

static void complain(const char *sentence)
{
	if (shunt_agent.ctl)
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING, "%s", sentence);
}

static const char *recorders = ""; /* probes: the environment is the program's */

/* The recorder's probe that a text is, from 0 on; 64 if it is none of the first 64. */
static unsigned recorders_probe(const char *text)
{
	const char *line = recorders;
	size_t n = strlen(text);
	unsigned i = 0;

	for (; *line && i < 64; i++, line += *line == '\n') {
		if (strcspn(line, "\n") == n && !memcmp(line, text, n))
			return i;
		line += strcspn(line, "\n");
	}
	return 64;
}

/* Who records is told at the end which of the probes found no place in any process. */
static int tell_one(const struct shunt_named_info *p, void *arg)
{
	unsigned i = p->addr ? recorders_probe(p->text) : 64;

	(void)arg;
	if (i < 64 && shunt_agent.ctl)
		atomic_fetch_or(&shunt_agent.ctl->probes, UINT64_C(1) << i);
	return 0;
}

/* One that cannot be set is no reason to go without the others. */
void shunt_agent_add_probes(const char *text)
{
	recorders = strdup(text);
	if (!recorders)
		recorders = "";
	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		char *line = strndup(text, strcspn(text, "\n")), why[512];
		const char *const one[] = {line};

		if (line && *line && shunt_named_add(one, 1, true, why, sizeof why))
			complain(why);
		free(line);
	}
	shunt_named_each(tell_one, NULL);
}

void shunt_agent_retry_probes(void)
{
	if (shunt_named_retry(complain))
		shunt_named_each(tell_one, NULL);
}

/* --- requests ------------------------------------------------------------------------- */

struct listing {
	struct shunt_answer *a;
	const char *glob;
	uint32_t first, at;
};

static int list_one(const struct shunt_named_info *p, void *arg)
{
	struct listing *l = arg;
	char name[80], place[320], text[SHUNT_CTL_REQUEST];
	uint32_t at = l->at++;

	snprintf(name, sizeof name, "probe:%s", p->event);
	if (at < l->first || (!shunt_glob_match(l->glob, name) && !shunt_glob_match(l->glob, p->event)))
		return 0;
	if (p->addr)
		shunt_object_symbolize(p->addr, text, sizeof text);
	shunt_answer_printable(place, sizeof place, p->addr ? text : "");
	shunt_answer_printable(text, sizeof text, p->text);
	/* leave room for the line that says where to go on */
	if (l->a->len + strlen(name) + strlen(place) + strlen(text) + 128 > sizeof l->a->text) {
		shunt_answer_say(l->a, "next %u\n", at);
		return 1;
	}
	shunt_answer_say(l->a, "pr %u %s %s %llu %llx\t%s\t%s\t%s\n", at, p->on ? "on" : "off", p->form,
		(unsigned long long)p->hits, (unsigned long long)p->addr, name, place, text);
	return 0;
}

static int count_one(const struct shunt_named_info *p, void *arg)
{
	(void)p;
	++*(uint32_t *)arg;
	return 0;
}

static void answer_list(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	struct listing l = {a, req->nglobs ? req->globs[0] : "*", req->first, 0};

	shunt_answer_say(a, "ok\n");
	shunt_named_each(list_one, &l);
}

static void add(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	struct listing l = {a, "*", 0, 0};
	char why[1024], said[1024];

	shunt_agent_refresh();
	shunt_named_each(count_one, &l.first);
	if (shunt_named_add(req->globs, req->nglobs, false, why, sizeof why)) {
		shunt_answer_printable(said, sizeof said, why);
		shunt_answer_say(a, "error %s\n", said);
		return;
	}
	shunt_agent_export();
	shunt_answer_say(a, "ok\nadded %zu\n", req->nglobs);
	shunt_named_each(list_one, &l);
}

static void change(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	char why[512], said[512];
	int matched = 0, n = 0;

	for (size_t i = 0; i < req->nglobs && n >= 0; i++) {
		n = req->verb == SHUNT_CTL_UNPROBE
			? shunt_named_remove(req->globs[i], why, sizeof why)
			: shunt_named_switch(req->globs[i], req->verb == SHUNT_CTL_PROBE_ON, why, sizeof why);
		matched += n;
	}
	if (n < 0) {
		shunt_answer_printable(said, sizeof said, why);
		shunt_answer_say(a, "error %s\n", said);
	} else {
		shunt_answer_say(a, "ok\nmatched %d\n", matched);
	}
}

bool shunt_agent_probes(const struct shunt_ctl_request *req, struct shunt_answer *a)
{
	switch (req->verb) {
	case SHUNT_CTL_PROBE:
		add(req, a);
		return true;
	case SHUNT_CTL_UNPROBE:
	case SHUNT_CTL_PROBE_ON:
	case SHUNT_CTL_PROBE_OFF:
		change(req, a);
		return true;
	case SHUNT_CTL_PROBES:
		answer_list(req, a);
		return true;
	default:
		return false;
	}
}
