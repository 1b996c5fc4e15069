/* SPDX-License-Identifier: MIT */
/*
 * agent.c - what `shunt record` preloads into a program.
 *
 * A program is a guest's house: whatever fails here, it runs on as if we had
 * not come, and the reason goes into the control file for the person who
 * records. Nothing is printed, no descriptor stays open, and no signal is
 * taken. All state is in one structure, filled in once, before the program's
 * main and (in a fork child) before fork returns; afterwards it is read only,
 * but for what `lock` protects.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shunt/ring.h>

#include "agent.h"
#include "base/hold.h"
#include "control/serve.h"
#include "object/object.h"
#include "probe/named.h"
#include "probe/place.h"
#include "site/site.h"
#include "trace/hook.h"
#include "trace/kind.h"
#include "trace/point.h"

struct shunt_agent shunt_agent;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t next_object; /* objects below this have their symbol files */
static bool export_failed;

shunt_agent_fn *shunt_agent_next(const char *name)
{
	return (shunt_agent_fn *)(uintptr_t)dlsym(RTLD_NEXT, name);
}

static int export_one(const struct shunt_object *o)
{
	return o->nfuncs ? shunt_object_export(o, shunt_agent.out, shunt_agent.image) : 0;
}

void shunt_agent_export(void)
{
	int err = 0;

	if (!shunt_agent.ctl)
		return;
	pthread_mutex_lock(&lock);
	for (const struct shunt_object *o = shunt_objects_first(); o; o = o->next) {
		if (o->id < next_object)
			continue;
		err = export_one(o);
		if (err)
			break;
		next_object = o->id + 1;
	}
	if (!err) {
		err = shunt_kinds_export(shunt_agent.out, shunt_agent.image);
		if (err > 0)
			atomic_store(&shunt_agent.ctl->points, 1);
		err = err > 0 ? 0 : err;
	}
	if (err && !export_failed) {
		export_failed = true;
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING,
			"function names cannot be written to %.120s: %s", shunt_agent.out,
			strerror(-err));
	}
	pthread_mutex_unlock(&lock);
}

void shunt_agent_count(const struct shunt_record_change *res)
{
	struct shunt_ctl *ctl = shunt_agent.ctl;

	if (!ctl)
		return;
	atomic_fetch_add(&ctl->toggled, res->changed);
	atomic_fetch_add(&ctl->refused, res->refused);
	atomic_fetch_add(&ctl->patch_ns, res->ns);
	if (res->refused)
		shunt_ctl_note(ctl, SHUNT_NOTE_WARNING, "%u functions could not be switched: %s",
			res->refused, res->reason);
}

/* --- functions that cannot be traced: left-out/IMAGE of the trace ----------------- */

struct leaving {
	FILE *f;
	uint32_t n;
};

static int count_one(const struct shunt_record_left_out *l, void *arg)
{
	struct leaving *to = arg;
	const char *name = l->object->strings + l->object->funcs[l->i].name;

	to->n++;
	if (to->f)
		fprintf(to->f, "%s\t%s\t%s\n", l->why, l->object->path, name);
	return 0;
}

/*
 * Written anew when there are more of them; nothing but a message to people depends on it,
 * so it is not renamed into place.
 */
static void export_left_out(void)
{
	static uint32_t written;
	struct leaving l = {0};
	char path[sizeof shunt_agent.out + 32];

	shunt_record_left_out(count_one, &l);
	if (l.n == written)
		return;
	snprintf(path, sizeof path, "%s/left-out", shunt_agent.out);
	mkdir(path, 0777);
	snprintf(path, sizeof path, "%s/left-out/%u", shunt_agent.out, shunt_agent.image);
	l.f = fopen(path, "we");
	if (!l.f)
		return;
	written = l.n;
	shunt_record_left_out(count_one, &l);
	fclose(l.f);
}

/* Functions that were found since the last time, for the totals. */
static void count_functions(void)
{
	static uint32_t counted;
	struct shunt_record_stats st;

	shunt_record_stats(&st);
	export_left_out();
	pthread_mutex_lock(&lock);
	if (st.functions > counted) {
		atomic_fetch_add(&shunt_agent.ctl->functions, st.functions - counted);
		if (!counted)
			atomic_fetch_add(&shunt_agent.ctl->with_sites, 1);
		counted = st.functions;
	}
	pthread_mutex_unlock(&lock);
}

void shunt_agent_refresh(void)
{
	struct shunt_record_change res;
	int saved = errno;

	if (!shunt_agent.ctl)
		return;
	shunt_trace_be_quiet();
	memset(&res, 0, sizeof res);
	/* Names first: events of a new object never come before its file. */
	shunt_record_look(NULL, 0, NULL);
	shunt_agent_export();
	shunt_record_refresh(&res);
	shunt_agent_count(&res);
	shunt_agent_retry_probes();
	shunt_agent_export();
	count_functions();
	shunt_trace_speak();
	errno = saved;
}

/* ---- start ---- */

static bool copy_env(const char *name, char *to, size_t size)
{
	const char *value = getenv(name);

	if (!value || !*value || strlen(value) >= size)
		return false;
	strcpy(to, value);
	return true;
}

/* "+glob" and "-glob" lines. */
static int add_rules(const char *text)
{
	char glob[SHUNT_CTL_REQUEST];
	int err = 0;

	while (*text && !err) {
		size_t n = strcspn(text, "\n");

		if (n > 1 && n <= sizeof glob) {
			memcpy(glob, text + 1, n - 1);
			glob[n - 1] = 0;
			err = shunt_record_rule(glob, *text == '+');
		}
		text += n + (text[n] == '\n');
	}
	return err;
}

/* Globs of objects' names, one a line; "-": not even the program's. */
static int add_unmodified(const char *text)
{
	int err = 0;

	while (*text && !err) {
		size_t n = strcspn(text, "\n");
		char *glob = strndup(text, n);

		err = glob ? shunt_record_unmodified(strcmp(glob, "-") ? glob : NULL) : -ENOMEM;
		free(glob);
		text += n + (text[n] == '\n');
	}
	return err;
}

static int open_ring(uint32_t image, struct shunt_ring **ring)
{
	char path[sizeof shunt_agent.dir + 8];

	snprintf(path, sizeof path, "%s/pool", shunt_agent.dir);
	return shunt_ring_open(path, image, SHUNT_RING_WRITE, ring);
}

/* "glob<TAB>filter" lines. */
static void add_events(const char *text)
{
	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		char *line = strndup(text, strcspn(text, "\n")), *filter = line ? strchr(line, '\t') : NULL;
		int err = line ? 0 : -ENOMEM;

		if (filter)
			*filter++ = 0;
		if (line && *line)
			err = shunt_points_switch(line, filter, NULL, true);
		if (err < 0 && err != -ENOENT)
			shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING, "%s",
				*shunt_trace_error() ? shunt_trace_error() : strerror(-err));
		free(line);
	}
}

static void complain(const char *sentence)
{
	if (shunt_agent.ctl)
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING, "%s", sentence);
}

/*
 * A program that was compiled for tracing is traced where it was, and no more; nor are
 * the shells and compilers that it starts. Unless asked for.
 */
static void decide_style(void)
{
	struct shunt_record_stats st;
	uint32_t style = 0;

	shunt_record_stats(&st);
	atomic_compare_exchange_strong(&shunt_agent.ctl->style, &style,
		st.functions ? SHUNT_CTL_COMPILED : SHUNT_CTL_UNMODIFIED);
	if (st.functions || style == SHUNT_CTL_COMPILED)
		shunt_record_unmodified(NULL);
}

/* Tracing itself; a sentence if it cannot be. */
static const char *start_recording(struct shunt_record_change *res, int *err)
{
	const char *rules = getenv("SHUNT_RULES"), *depth = getenv("SHUNT_DEPTH");
	const char *events = getenv("SHUNT_EVENTS"), *probes = getenv("SHUNT_PROBES");
	const char *unmodified = getenv("SHUNT_UNMODIFIED"), *why = NULL;

	*err = open_ring(shunt_agent.image, &shunt_agent.ring);
	if (*err)
		return "the event buffer cannot be opened";
	if (depth)
		shunt_record_depth((unsigned)strtoul(depth, NULL, 10));
	*err = add_rules(rules ? rules : "+*");
	if (!*err && unmodified)
		*err = add_unmodified(unmodified);
	if (*err)
		return "a pattern is not usable";
	*err = shunt_record_start(shunt_agent.ring);
	if (*err)
		return "tracing cannot start";
	shunt_points_hooks(shunt_agent_export, complain);
	shunt_points_ring(shunt_agent.ring);
	if (events)
		add_events(events);
	if (probes)
		shunt_agent_add_probes(probes);
	decide_style();
	if (shunt_record_look(NULL, 0, &why) && why)
		complain(why);
	shunt_agent_export();
	*err = shunt_record_refresh(res);
	return *err ? "functions cannot be switched on" : NULL;
}

static void say_if_nothing_to_trace(void)
{
	struct shunt_record_stats st;

	shunt_record_stats(&st);
	if (st.functions && st.functions == st.unmodified)
		atomic_store(&shunt_agent.ctl->unmodified, 1);
	if (!st.functions && !getenv("SHUNT_EVENTS") && !getenv("SHUNT_PROBES"))
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_NOSITES, "no patchable functions");
}

static void claim_entry(void)
{
	shunt_agent.proc = shunt_ctl_claim(shunt_agent.ctl, shunt_agent.image);
	if (!shunt_agent.proc)
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING,
			"recorded, but not controllable: %d processes are alive already",
			SHUNT_CTL_PROCS);
	else if (shunt_agent.want_control)
		shunt_agent_serve();
}

/* ---- fork ---- */

static sigset_t held_back; /* a handler that forks would wait for the lock */

static void before_fork(void)
{
	sigset_t before;

	shunt_trace_be_quiet();
	shunt_hold_signals(&before);
	pthread_mutex_lock(&lock);
	held_back = before;
	if (shunt_agent.ctl)
		atomic_fetch_add(&shunt_agent.ctl->forking, 1);
}

static void in_parent(void)
{
	sigset_t before = held_back;

	pthread_mutex_unlock(&lock);
	shunt_release_signals(&before);
	shunt_trace_speak();
}

static void leave_recording(void)
{
	shunt_points_ring(NULL);
	shunt_record_in_child(NULL);
	shunt_agent.ctl = NULL;
	shunt_agent.proc = NULL;
}

/*
 * The child's functions are the parent's so far: their names need not be
 * written again, the image table says where they are.
 */
static void come_up_in_child(struct shunt_ctl *ctl)
{
	struct shunt_ring *ring, *parents = shunt_agent.ring;
	uint32_t image;

	if (!shunt_agent.trace_children || atomic_load(&ctl->ended)) {
		leave_recording();
		return;
	}
	image = shunt_ctl_new_image(ctl, shunt_agent.image, next_object);
	if (open_ring(image, &ring)) {
		shunt_ctl_note(ctl, SHUNT_NOTE_WARNING,
			"a forked process is not recorded: it cannot open %s/pool",
			shunt_agent.dir);
		leave_recording();
		return;
	}
	shunt_agent.image = image;
	shunt_agent.ring = ring;
	atomic_fetch_add(&ctl->processes, 1);
	shunt_record_in_child(ring);
	shunt_points_ring(ring);
	shunt_kinds_exported_none();
	shunt_ring_close(parents); /* writes nothing: the child has no page in it */
	if (image >= SHUNT_CTL_IMAGES) { /* nobody will know whose child it is */
		next_object = 0;
		shunt_agent_export();
	}
	if (shunt_kinds_export(shunt_agent.out, image) < 0)
		shunt_ctl_note(ctl, SHUNT_NOTE_WARNING, "tracepoints' fields cannot be written to %.120s",
			shunt_agent.out);
	claim_entry();
}

static void in_child(void)
{
	struct shunt_ctl *ctl = shunt_agent.ctl;
	sigset_t before = held_back;

	pthread_mutex_unlock(&lock);
	shunt_serve_forget();
	if (ctl) {
		come_up_in_child(ctl);
		atomic_fetch_sub(&ctl->forking, 1);
	}
	shunt_release_signals(&before);
	shunt_trace_speak();
}

/* ---- the way in and out ---- */

static void begin(void)
{
	struct shunt_record_change res;
	const char *why;
	int err;

	memset(&res, 0, sizeof res);
	why = start_recording(&res, &err);
	if (why) {
		shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_ERROR, "%s: %s%s%s", why,
			strerror(-err), *res.reason ? ": " : "", res.reason);
		if (!shunt_agent.ring) {
			shunt_agent.ctl = NULL;
			return;
		}
	}
	atomic_fetch_add(&shunt_agent.ctl->processes, 1);
	shunt_agent_count(&res);
	count_functions();
	say_if_nothing_to_trace();
	shunt_sites_at_fork(); /* whose lock is taken with ours held */
	shunt_probes_at_fork(); /* and this one's */
	pthread_atfork(before_fork, in_parent, in_child);
	shunt_named_at_fork(); /* whose lock is held while ours is taken */
	claim_entry();
}

__attribute__((constructor(101))) static void agent_start(void)
{
	const char *children = getenv("SHUNT_CHILDREN"), *control = getenv("SHUNT_CONTROL");
	char path[sizeof shunt_agent.dir + 8];
	int saved = errno;

	if (!copy_env("SHUNT_DIR", shunt_agent.dir, sizeof shunt_agent.dir) ||
		!copy_env("SHUNT_OUT", shunt_agent.out, sizeof shunt_agent.out))
		return;
	shunt_agent.trace_children = !children || strcmp(children, "stop");
	shunt_agent.want_control = !control || strcmp(control, "0");
	snprintf(path, sizeof path, "%s/ctl", shunt_agent.dir);
	if (shunt_ctl_map(path, &shunt_agent.ctl, NULL))
		shunt_agent.ctl = NULL;
	if (shunt_agent.ctl && !atomic_load(&shunt_agent.ctl->ended)) {
		shunt_agent.image = shunt_ctl_new_image(shunt_agent.ctl, 0, 0);
		shunt_trace_be_quiet();
		begin();
		shunt_trace_speak();
	}
	errno = saved;
}

__attribute__((destructor)) static void agent_end(void)
{
	if (!shunt_agent.ctl)
		return;
	shunt_trace_be_quiet();
	shunt_agent_export();
	if (shunt_agent.proc)
		shunt_ctl_leave(shunt_agent.proc);
	shunt_trace_speak();
}
