/* SPDX-License-Identifier: MIT */
/*
 * serve.c - the control thread: carries out what `shunt enable` and its kin ask.
 *
 * A thread of our own in somebody else's process must not be noticed:
 *
 * - It has a table of file descriptors of its own, empty at first. Files that
 *   it opens and closes never take a number that the program counts on, and it
 *   keeps none of the program's pipes open.
 * - It blocks all signals, so the program's handlers do not run on it; only
 *   SIGTRAP is left open, because a thread that blocks it rules out patching by
 *   breakpoints.
 * - glibc ends a process when its last thread ends. A program whose main thread
 *   calls pthread_exit() relies on that, so this thread is joined first
 *   (threads.c); should the main thread go in another way, it notices within a
 *   second and ends too.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "control/request.h"
#include "object/object.h"

static pthread_t thread;
static _Atomic bool running, quit;
static _Atomic pid_t thread_id;

/* ---- answers ---- */

struct answer {
	size_t len;
	char text[SHUNT_CTL_REPLY];
};

/* Adds a line unless it does not fit as a whole. */
__attribute__((format(printf, 2, 3))) static bool say(struct answer *a, const char *fmt, ...)
{
	size_t room = sizeof a->text - a->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->len, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room)
		return false;
	a->len += (size_t)n;
	return true;
}

static void answer_change(struct answer *a, int err, const struct shunt_record_change *res)
{
	if (err && err != -ENOENT) {
		say(a, "error %s%s%s\n", strerror(-err), *res->reason ? ": " : "", res->reason);
		return;
	}
	say(a, "ok\nmatched %u\nswitched %u\nrefused %u\nns %llu\n", res->matched, res->changed,
		res->refused, (unsigned long long)res->ns);
	if (*res->reason)
		say(a, "reason %s\n", res->reason);
}

static void change(const struct shunt_ctl_request *req, bool on, struct answer *a)
{
	struct shunt_record_change res;
	int err;

	memset(&res, 0, sizeof res);
	err = shunt_record_set(req->globs, req->nglobs, on, &res);
	shunt_agent_export();
	shunt_agent_count(&res);
	answer_change(a, err, &res);
}

static void answer_stat(struct answer *a)
{
	struct shunt_record_stats st;

	shunt_record_stats(&st);
	say(a, "ok\nfunctions %u\non %u\nobjects %u\nstubs %u\nstubs-max %u\nno-exit %llu\n"
	       "batches %llu\nswitched %llu\nlast-ns %llu\nmemory %llu\n",
		st.functions, st.on, st.objects, st.stubs, st.stubs_max,
		(unsigned long long)st.no_exit, (unsigned long long)st.batches,
		(unsigned long long)st.toggled, (unsigned long long)st.last_ns,
		(unsigned long long)st.memory);
}

struct listing {
	struct answer *a;
	uint32_t first;
	bool full;
};

/* Tabs and line breaks would spoil the line. */
static void printable(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n + 1 < size; n++)
		to[n] = (unsigned char)from[n] < ' ' ? '?' : from[n];
	to[n] = 0;
}

static int list_one(const struct shunt_object *o, uint32_t i, void *arg)
{
	struct listing *l = arg;
	uint32_t id = o->first_id + i;
	const char *slash = strrchr(o->path, '/');
	char object[256], symbol[2048];

	if (id < l->first)
		return 0;
	printable(object, sizeof object, slash ? slash + 1 : o->path);
	printable(symbol, sizeof symbol, o->strings + o->funcs[i].name);
	/* leave room for the line that says where to go on */
	if (l->a->len + strlen(object) + strlen(symbol) + 96 > sizeof l->a->text) {
		say(l->a, "next %u\n", id);
		l->full = true;
		return 1;
	}
	say(l->a, "fn %u %s %llx %u\t%s\t%s\n", id, shunt_record_is_on(id) ? "on" : "off",
		(unsigned long long)o->funcs[i].start, o->funcs[i].size, object,
		*symbol ? symbol : "?");
	return 0;
}

static void answer_list(const struct shunt_ctl_request *req, struct answer *a)
{
	struct listing l = { .a = a, .first = req->first };
	const char *glob = req->nglobs ? req->globs[0] : "*";

	shunt_agent_refresh();
	say(a, "ok\n");
	for (const struct shunt_object *o = shunt_objects_first(); o && !l.full; o = o->next)
		if (!o->gone && o->nfuncs && o->first_id + o->nfuncs > req->first &&
			shunt_object_glob(o, glob, list_one, &l) == -EINVAL) {
			a->len = 0;
			say(a, "error '%.200s' is not a pattern\n", glob);
			return;
		}
}

static void stop(struct answer *a)
{
	static const char *const all[] = { "*" };
	struct shunt_record_change res;
	int err;

	memset(&res, 0, sizeof res);
	err = shunt_record_set(all, 1, false, &res);
	answer_change(a, err, &res);
}

static void carry_out(const struct shunt_ctl_request *req, struct answer *a)
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
	}
}

/* ---- the thread ---- */

static void serve_mail(void)
{
	/* one thread: not on its small stack */
	static char text[SHUNT_CTL_REQUEST + 1];
	static struct shunt_ctl_request req;
	static struct answer a;
	const char *why;
	ssize_t n = shunt_mail_take(shunt_agent.proc, text);

	if (n < 0)
		return;
	a.len = 0;
	if (shunt_ctl_parse_request(text, (size_t)n, &req, &why))
		say(&a, "error %s\n", why);
	else
		carry_out(&req, &a);
	shunt_mail_answer(shunt_agent.proc, a.text, a.len);
}

/* The state letter of the main thread. */
static bool main_thread_gone(void)
{
	char buf[128], *p;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof buf - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	p = strrchr(buf, ')');
	return p && (p[1] && (p[2] == 'Z' || p[2] == 'X'));
}

static void *serve(void *arg)
{
	uint32_t bell = atomic_load(&shunt_agent.proc->bell);

	atomic_store(&thread_id, (pid_t)syscall(SYS_gettid));
	prctl(PR_SET_NAME, "shunt", 0, 0, 0);
	syscall(SYS_close_range, 0u, ~0u, CLOSE_RANGE_UNSHARE);
	for (;;) {
		if (atomic_load(&quit))
			break;
		serve_mail();
		shunt_agent_pending_loads();
		shunt_mail_wait(shunt_agent.proc, bell);
		if (atomic_load(&shunt_agent.proc->bell) == bell && main_thread_gone())
			break;
		bell = atomic_load(&shunt_agent.proc->bell);
	}
	shunt_agent.proc->control = 0;
	return arg;
}

static int create(void)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int err;

	sigfillset(&all);
	sigdelset(&all, SIGTRAP);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&thread, &attr, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return err;
}

void shunt_agent_serve(void)
{
	int err;

	atomic_store(&quit, false);
	shunt_agent.proc->control = 1;
	err = create();
	if (!err) {
		atomic_store(&running, true);
		return;
	}
	shunt_agent.proc->control = 0;
	shunt_ctl_note(shunt_agent.ctl, SHUNT_NOTE_WARNING,
		"recorded, but not controllable: no thread can be made: %s", strerror(err));
}

void shunt_agent_stop_serving(void)
{
	if (!atomic_exchange(&running, false))
		return;
	atomic_store(&quit, true);
	shunt_mail_ring(shunt_agent.proc);
	pthread_join(thread, NULL);
	/* joined is not gone: the kernel still has a moment's work with it */
	for (int i = 0; i < 10000; i++) {
		if (syscall(SYS_tgkill, getpid(), atomic_load(&thread_id), 0))
			break;
		sched_yield();
	}
}

void shunt_agent_no_thread(void)
{
	atomic_store(&running, false);
}

bool shunt_agent_has_thread(void)
{
	return atomic_load(&running);
}
