/* SPDX-License-Identifier: MIT */
/*
 * serve.c - the control thread: has carried out what `shunt enable` and its kin ask.
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
 *   (agent/threads.c); should the main thread go in another way, it notices within a
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

#include "serve.h"
#include "trace/hook.h"

static struct shunt_server server;
static pthread_t thread;
static _Atomic bool running, quit;
static _Atomic pid_t thread_id;

/* --- answers --------------------------------------------------------------------- */

bool shunt_answer_say(struct shunt_answer *a, const char *fmt, ...)
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

void shunt_answer_printable(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n + 1 < size; n++)
		to[n] = (unsigned char)from[n] < ' ' ? '?' : from[n];
	to[n] = 0;
}

/* --- the thread ------------------------------------------------------------------- */

static void serve_mail(void)
{
	/* one thread: not on its small stack */
	static char text[SHUNT_CTL_REQUEST + 1];
	static struct shunt_ctl_request req;
	static struct shunt_answer a;
	const char *why;
	ssize_t n = shunt_mail_take(server.proc, text);

	if (n < 0)
		return;
	a.len = 0;
	if (shunt_ctl_parse_request(text, (size_t)n, &req, &why))
		shunt_answer_say(&a, "error %s\n", why);
	else
		server.carry_out(&req, &a);
	shunt_mail_answer(server.proc, a.text, a.len);
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
	uint32_t bell = atomic_load(&server.proc->bell);

	if (server.quiet)
		shunt_trace_be_quiet();
	atomic_store(&thread_id, (pid_t)syscall(SYS_gettid));
	prctl(PR_SET_NAME, "shunt", 0, 0, 0);
	syscall(SYS_close_range, 0u, ~0u, CLOSE_RANGE_UNSHARE);
	for (;;) {
		if (atomic_load(&quit))
			break;
		serve_mail();
		if (server.idle)
			server.idle();
		shunt_mail_wait(server.proc, bell, server.poll ? 1000 : 0);
		if (atomic_load(&server.proc->bell) == bell && main_thread_gone())
			break;
		bell = atomic_load(&server.proc->bell);
	}
	server.proc->control = 0;
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

int shunt_serve_start(const struct shunt_server *s)
{
	int err;

	server = *s;
	atomic_store(&quit, false);
	server.proc->control = 1;
	err = create();
	if (err)
		server.proc->control = 0;
	else
		atomic_store(&running, true);
	return -err;
}

void shunt_serve_stop(void)
{
	if (!atomic_exchange(&running, false))
		return;
	atomic_store(&quit, true);
	shunt_mail_ring(server.proc);
	pthread_join(thread, NULL);
	/* joined is not gone: the kernel still has a moment's work with it */
	for (int i = 0; i < 10000; i++) {
		if (syscall(SYS_tgkill, getpid(), atomic_load(&thread_id), 0))
			break;
		sched_yield();
	}
}

void shunt_serve_forget(void)
{
	atomic_store(&running, false);
}

bool shunt_serving(void)
{
	return atomic_load(&running);
}
