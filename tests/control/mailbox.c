/* SPDX-License-Identifier: MIT */
/*
 * mailbox.c - control file and mailboxes between processes that die, stop and
 * get into each other's way.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/ctl.h"
#include "tap.h"

static char dir[] = "/dev/shm/shunt-test-XXXXXX", path[64];

/* An agent: answers every request with its own text, in reverse. */
static void serve(struct shunt_ctl *ctl, int delay_ms)
{
	struct shunt_ctl_proc *p = shunt_ctl_claim(ctl, shunt_ctl_new_image(ctl, 0, 0));
	char text[SHUNT_CTL_REQUEST + 1], back[SHUNT_CTL_REQUEST];
	struct timespec pause = { delay_ms / 1000, delay_ms % 1000 * 1000000L };

	p->control = 1;
	for (;;) {
		uint32_t bell = atomic_load(&p->bell);
		ssize_t n = shunt_mail_take(p, text);

		if (n < 0) {
			shunt_mail_wait(p, bell, 0);
			continue;
		}
		nanosleep(&pause, NULL);
		for (ssize_t i = 0; i < n; i++)
			back[i] = text[n - 1 - i];
		shunt_mail_answer(p, back, (size_t)n);
	}
}

/* Starts one and waits until it has its entry. */
static pid_t start(struct shunt_ctl *ctl, int delay_ms, unsigned *entry)
{
	pid_t pid = fork();

	if (!pid)
		serve(ctl, delay_ms);
	for (unsigned i = 0;; i = (i + 1) % SHUNT_CTL_PROCS)
		if (ctl->procs[i].pid == (uint32_t)pid && ctl->procs[i].state == SHUNT_CTL_LIVE &&
			ctl->procs[i].control) {
			*entry = i;
			return pid;
		}
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static ssize_t ask(struct shunt_ctl *ctl, int fd, unsigned entry, const char *text, int ms,
	char *reply)
{
	pid_t holder = 0;

	return shunt_mail_send(ctl, fd, entry, text, strlen(text), reply, ms, &holder);
}

static void conversation(struct shunt_ctl *ctl, int fd)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned entry, right = 0;
	pid_t pid = start(ctl, 0, &entry);

	for (int i = 0; i < 1000; i++) {
		char text[16], want[16];
		int n = sprintf(text, "%08d", i);

		for (int k = 0; k < n; k++)
			want[k] = text[n - 1 - k];
		right += ask(ctl, fd, entry, text, 5000, reply) == n && !memcmp(reply, want, (size_t)n);
	}
	ok(right == 1000, "1,000 requests get their own answers");
	ok(ask(ctl, fd, entry, "", 5000, reply) == 0, "an empty request gets an answer");
	end(pid);
	ok(ask(ctl, fd, entry, "x", 5000, reply) == -ESRCH, "a dead process is said to be gone");
}

static void two_commands(struct shunt_ctl *ctl)
{
	unsigned entry, right = 0;
	pid_t pid = start(ctl, 0, &entry), command[4];
	int status;

	for (int c = 0; c < 4; c++) {
		command[c] = fork();
		if (!command[c]) {
			char reply[SHUNT_CTL_REPLY + 1], text[2] = { (char)('a' + c), 0 };
			struct shunt_ctl *mine;
			int fd, bad = shunt_ctl_map(path, &mine, &fd) != 0;

			for (int i = 0; i < 300 && !bad; i++)
				bad = ask(mine, fd, entry, text, 20000, reply) != 1 ||
				      reply[0] != text[0];
			_exit(bad);
		}
	}
	for (int c = 0; c < 4; c++) {
		waitpid(command[c], &status, 0);
		right += status == 0;
	}
	ok(right == 4, "four commands at once each get their own answers");
	end(pid);
}

static void stopped(struct shunt_ctl *ctl, int fd)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned entry;
	pid_t pid = start(ctl, 0, &entry);
	uint32_t mail;

	kill(pid, SIGSTOP);
	waitpid(pid, NULL, WUNTRACED);
	ok(ask(ctl, fd, entry, "late", 100, reply) == -ETIMEDOUT, "a stopped process times out");
	mail = ctl->procs[entry].mail;
	ok(mail == SHUNT_MAIL_IDLE, "and its request is withdrawn");
	kill(pid, SIGCONT);
	ok(ask(ctl, fd, entry, "abc", 5000, reply) == 3 && !memcmp(reply, "cba", 3),
		"and it answers the next one when it goes on");
	end(pid);
}

static void slow(struct shunt_ctl *ctl, int fd)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned entry;
	pid_t pid = start(ctl, 400, &entry);

	ok(ask(ctl, fd, entry, "one", 50, reply) == -EINPROGRESS,
		"a request that was taken is said to be under way");
	ok(ask(ctl, fd, entry, "two", 5000, reply) == 3 && !memcmp(reply, "owt", 3),
		"the next command waits for it, and gets its own answer");
	end(pid);
}

/* A command that is killed while it holds the lock and has posted. */
static void killed_command(struct shunt_ctl *ctl, int fd)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned entry;
	pid_t pid = start(ctl, 0, &entry), command, holder = 0;

	kill(pid, SIGSTOP);
	waitpid(pid, NULL, WUNTRACED);
	command = fork();
	if (!command) {
		struct shunt_ctl *mine;
		int own;

		if (shunt_ctl_map(path, &mine, &own))
			_exit(1);
		ask(mine, own, entry, "never", 60000, reply);
		_exit(0);
	}
	while (ctl->procs[entry].mail != SHUNT_MAIL_POSTED)
		;
	ok(shunt_mail_send(ctl, fd, entry, "x", 1, reply, 50, &holder) == -EBUSY &&
			holder == command,
		"the second command says which one is in the way");
	end(command);
	kill(pid, SIGCONT);
	ok(ask(ctl, fd, entry, "xyz", 5000, reply) == 3 && !memcmp(reply, "zyx", 3),
		"a command killed with the mailbox in its hands is in nobody's way");
	end(pid);
}

static void entries(struct shunt_ctl *ctl)
{
	struct shunt_ctl_proc *mine, *again;
	unsigned claimed = 0, entry;
	pid_t first;

	for (unsigned i = 0; i < 3 * SHUNT_CTL_PROCS; i++) {
		pid_t pid = fork();
		int status;

		if (!pid)
			_exit(shunt_ctl_claim(ctl, 1) ? 0 : 1);
		waitpid(pid, &status, 0);
		claimed += status == 0;
	}
	ok(claimed == 3 * SHUNT_CTL_PROCS, "entries of dead processes are used again");
	mine = shunt_ctl_claim(ctl, 2);
	again = shunt_ctl_claim(ctl, 3);
	ok(mine && mine == again && again->image == 3, "after an exec a process keeps its entry");
	shunt_ctl_leave(mine);

	first = start(ctl, 0, &entry);
	for (unsigned i = 0; i < SHUNT_CTL_PROCS; i++)
		if (i != entry) {
			ctl->procs[i].pid = (uint32_t)getppid();
			ctl->procs[i].pidns = ctl->procs[entry].pidns;
			ctl->procs[i].state = SHUNT_CTL_LIVE;
		}
	ok(!shunt_ctl_claim(ctl, 4), "a full table is full");
	for (unsigned i = 0; i < SHUNT_CTL_PROCS; i++)
		ctl->procs[i].state = i == entry ? SHUNT_CTL_LIVE : SHUNT_CTL_FREE;
	end(first);
}

static void damaged(struct shunt_ctl *ctl, int fd)
{
	char reply[SHUNT_CTL_REPLY + 1];
	unsigned entry;
	pid_t pid = start(ctl, 0, &entry);

	/* the request's length is wild: the agent must not read beyond */
	ctl->procs[entry].request_len = 0xffffffff;
	ctl->procs[entry].mail = SHUNT_MAIL_POSTED;
	shunt_mail_ring(&ctl->procs[entry]);
	while (ctl->procs[entry].mail != SHUNT_MAIL_DONE)
		;
	ok(ctl->procs[entry].reply_len == 0, "a wild request length is an empty request");
	ctl->procs[entry].mail = 77;
	ok(ask(ctl, fd, entry, "ab", 5000, reply) == 2, "a wild mailbox state is no obstacle");
	end(pid);
}

static void files(void)
{
	struct shunt_ctl *ctl;
	char other[80];
	int fd, err;

	snprintf(other, sizeof other, "%s/other", dir);
	ok(shunt_ctl_create(path, "/x", &ctl) == -EEXIST, "an existing file is not taken over");
	ok(shunt_ctl_map("/dev/null", &ctl, NULL) < 0, "a device is no control file");
	fd = open(other, O_CREAT | O_RDWR, 0600);
	ok(shunt_ctl_map(other, &ctl, NULL) == -EINVAL, "an empty file is none");
	ok(!ftruncate(fd, sizeof *ctl) && shunt_ctl_map(other, &ctl, NULL) == -EINVAL,
		"a file of zeros is none");
	close(fd);
	unlink(other);
	err = symlink(path, other);
	ok(!err && shunt_ctl_map(other, &ctl, NULL) < 0, "a symbolic link is not followed");
	unlink(other);
}

static void limited(void)
{
	struct rlimit was, small = { 4096, 4096 };
	struct shunt_ctl *ctl;
	char other[80];
	int err;

	snprintf(other, sizeof other, "%s/full", dir);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	err = shunt_ctl_create(other, "/x", &ctl);
	setrlimit(RLIMIT_FSIZE, &was);
	ok(err < 0 && access(other, F_OK), "what does not fit is refused and leaves nothing behind");
}

static void notes(struct shunt_ctl *ctl)
{
	char text[600];

	memset(text, 't', sizeof text);
	text[sizeof text - 1] = 0;
	for (int i = 0; i < 3 * SHUNT_CTL_NOTES; i++)
		shunt_ctl_note(ctl, SHUNT_NOTE_WARNING, "%d %s", i, text);
	ok(!strncmp(ctl->notes[0].text, "0 t", 3) &&
			strlen(ctl->notes[SHUNT_CTL_NOTES - 1].text) == SHUNT_CTL_NOTE_TEXT - 1,
		"the first notes are kept, long ones cut");
}

int main(void)
{
	struct shunt_ctl *made = NULL, *ctl = NULL;
	int fd = -1;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof path, "%s/ctl", dir);
	ok(!shunt_ctl_create(path, "/tmp/out", &made) && !shunt_ctl_map(path, &ctl, &fd) &&
			!strcmp(ctl->out, "/tmp/out"),
		"a control file is made and mapped");
	files();
	limited();
	conversation(ctl, fd);
	two_commands(ctl);
	stopped(ctl, fd);
	slow(ctl, fd);
	killed_command(ctl, fd);
	damaged(ctl, fd);
	entries(ctl);
	notes(ctl);
	unlink(path);
	rmdir(dir);
	return done();
}
