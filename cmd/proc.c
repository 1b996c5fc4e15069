/* SPDX-License-Identifier: MIT */
/*
 * proc.c - from a process number to its mailbox.
 *
 * A recorded process has the control file mapped, so /proc/PID/maps says where
 * it is: no registry, no socket, and the kernel's own check of who may look
 * into whose process. What is found there is checked before it is believed
 * (shunt_ctl_map): a file of ours or, for root, of anybody, of the right size
 * and kind.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/request.h"
#include "proc.h"

#define TIMEOUT_MS 10000

int shunt_target_number(const char *command, const char *word, pid_t *pid)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(word, &end, 10);
	if (!errno && end > word && !*end && n > 0 && n <= INT_MAX) {
		*pid = (pid_t)n;
		return 0;
	}
	fprintf(stderr, "shunt %s: '%s' is not a process number: write 'shunt %s PID'\n",
		command, word, command);
	return 2;
}

/* The path of the control file that the process has mapped. 0 or -errno. */
static int find_mapping(pid_t pid, char *path, size_t size)
{
	char name[64], line[PATH_MAX + 128];
	int err = -ENOENT;
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/maps", pid);
	f = fopen(name, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (err && fgets(line, sizeof line, f)) {
		char *at = strstr(line, " /dev/shm/shunt-"), *end;

		if (!at)
			continue;
		at[strcspn(at, "\n")] = 0;
		end = strstr(++at, "/ctl");
		if (!end || (end[4] && strcmp(end + 4, " (deleted)")))
			continue;
		err = end[4] ? -ESTALE : 0;
		end[4] = 0;
		if (snprintf(path, size, "%s", at) >= (int)size)
			err = -ENAMETOOLONG;
	}
	fclose(f);
	return err;
}

/* The process's number in the innermost namespace. */
static uint32_t inner_pid(pid_t pid)
{
	char name[64], line[256], *last;
	uint32_t found = (uint32_t)pid;
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/status", pid);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof line, f)) {
		if (strncmp(line, "NSpid:", 6))
			continue;
		last = strrchr(line, '\t');
		if (last)
			found = (uint32_t)strtoul(last + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return found;
}

static void say_why_not(pid_t pid, int err)
{
	switch (-err) {
	case ESRCH:
		fprintf(stderr, "shunt: there is no process %d\n", pid);
		break;
	case ENOENT:
		fprintf(stderr,
			"shunt: process %d does not listen to shunt: start it under 'shunt record', "
			"or, if it uses libshunt, with SHUNT_CONTROL=1\n",
			pid);
		break;
	case ESTALE:
		fprintf(stderr, "shunt: the recording of process %d has ended\n", pid);
		break;
	case EACCES:
	case EPERM:
		fprintf(stderr, "shunt: process %d is another user's: be that user, or root\n",
			pid);
		break;
	case EINVAL:
		fprintf(stderr,
			"shunt: process %d is recorded by another version of shunt: use that "
			"version's command\n",
			pid);
		break;
	default:
		fprintf(stderr, "shunt: cannot reach process %d: %s\n", pid, strerror(-err));
	}
}

int shunt_target_find(pid_t pid, struct shunt_target *t)
{
	char path[sizeof t->dir];
	int err = find_mapping(pid, path, sizeof path);

	memset(t, 0, sizeof *t);
	if (!err)
		err = shunt_ctl_map(path, &t->ctl, &t->fd);
	if (err) {
		say_why_not(pid, err);
		return 1;
	}
	t->pid = pid;
	t->recorder = t->ctl->recorder == (uint32_t)pid;
	t->ns_pid = inner_pid(pid);
	snprintf(t->dir, sizeof t->dir, "%.*s", (int)(strlen(path) - 4), path);
	return 0;
}

int shunt_target_open(const char *command, const char *word, struct shunt_target *t)
{
	pid_t pid;

	return shunt_target_number(command, word, &pid) ? 2 : shunt_target_find(pid, t);
}

void shunt_target_close(struct shunt_target *t)
{
	shunt_ctl_unmap(t->ctl);
	close(t->fd);
}

struct shunt_ctl_proc *shunt_target_next(const struct shunt_target *t, unsigned *at)
{
	for (; *at < SHUNT_CTL_PROCS; ++*at) {
		struct shunt_ctl_proc *p = &t->ctl->procs[*at];

		if (atomic_load_explicit(&p->state, memory_order_acquire) == SHUNT_CTL_LIVE &&
			(t->recorder || p->pid == t->ns_pid) && shunt_ctl_alive(p))
			return p;
	}
	return NULL;
}

static int say_no_answer(const struct shunt_ctl_proc *p, ssize_t err, pid_t holder)
{
	unsigned pid = p->pid;

	switch ((int)-err) {
	case EBUSY:
		fprintf(stderr, "shunt: another shunt command (process %d) keeps process %u busy\n",
			holder, pid);
		break;
	case ETIMEDOUT:
		fprintf(stderr,
			"shunt: process %u does not answer, it is stopped or very busy: nothing "
			"was changed\n",
			pid);
		break;
	case EINPROGRESS:
		fprintf(stderr,
			"shunt: process %u has not finished yet: it is still carrying the "
			"request out\n",
			pid);
		break;
	case ESRCH:
		fprintf(stderr, "shunt: process %u has ended\n", pid);
		break;
	case E2BIG:
		fprintf(stderr, "shunt: too many patterns at once: give fewer\n");
		break;
	default:
		fprintf(stderr, "shunt: process %u: %s\n", pid, strerror((int)-err));
	}
	return 1;
}

int shunt_target_ask(const struct shunt_target *t, unsigned entry, const char *text, size_t len,
	char reply[SHUNT_CTL_REPLY + 1], size_t *reply_len)
{
	const struct shunt_ctl_proc *p = &t->ctl->procs[entry];
	struct shunt_ctl_reply r;
	struct shunt_ctl_line line;
	pid_t holder = 0;
	ssize_t n;

	if (!p->control) {
		fprintf(stderr,
			"shunt: process %u has no control thread (started with --no-control, or "
			"its main thread has ended)\n",
			p->pid);
		return 1;
	}
	n = shunt_mail_send(t->ctl, t->fd, entry, text, len, reply, TIMEOUT_MS, &holder);
	if (n < 0)
		return say_no_answer(p, n, holder);
	r.at = reply;
	r.end = reply + n;
	*reply_len = (size_t)n;
	if (shunt_ctl_next_line(&r, &line) && shunt_ctl_key_is(&line, "ok"))
		return 0;
	fprintf(stderr, "shunt: process %u: %.*s\n", p->pid, n ? (int)line.value_len : 0,
		n ? line.value : "");
	return 1;
}

int shunt_target_list(const struct shunt_target *t, unsigned entry, const char *command,
	const char *verb, const char *glob,
	uint32_t (*show)(void *arg, unsigned pid, const char *reply, size_t len), void *arg)
{
	char text[SHUNT_CTL_REQUEST], reply[SHUNT_CTL_REPLY + 1];
	unsigned pid = t->ctl->procs[entry].pid;
	uint32_t from = 0, next;
	size_t got;

	do {
		int n = snprintf(text, sizeof text, "%s %u %s", verb, from, glob);

		if (n < 0 || (size_t)n >= sizeof text) {
			fprintf(stderr, "shunt %s: the pattern is too long\n", command);
			return 2;
		}
		if (shunt_target_ask(t, entry, text, (size_t)n, reply, &got))
			return 1;
		next = show(arg, pid, reply, got);
		if (next && next <= from) {
			fprintf(stderr, "shunt: process %u gives no sensible answer\n", pid);
			return 1;
		}
		from = next;
	} while (next);
	return 0;
}
