/* SPDX-License-Identifier: MIT */
/*
 * mailbox.c - one request, one answer, between a command and a recorded
 * process. The states and who may leave which are in ctl.h.
 *
 * Each side writes its text before it turns `mail` (release) and the other
 * reads the text after it saw that turn (acquire), so texts need no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, const struct timespec *timeout)
{
	syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- the agent's side ---- */

ssize_t shunt_mail_take(struct shunt_ctl_proc *proc, char text[SHUNT_CTL_REQUEST + 1])
{
	uint32_t posted = SHUNT_MAIL_POSTED, len;

	/* acquire: pairs with the release in post(), orders the text after it */
	if (!atomic_compare_exchange_strong(&proc->mail, &posted, SHUNT_MAIL_TAKEN))
		return -EAGAIN;
	len = proc->request_len;
	if (len > SHUNT_CTL_REQUEST)
		len = 0;
	memcpy(text, proc->request, len);
	text[len] = 0;
	return (ssize_t)len;
}

void shunt_mail_answer(struct shunt_ctl_proc *proc, const char *text, size_t len)
{
	if (len > SHUNT_CTL_REPLY)
		len = SHUNT_CTL_REPLY;
	memcpy(proc->reply, text, len);
	proc->reply_len = (uint32_t)len;
	/* release: pairs with the acquire in await() */
	atomic_store_explicit(&proc->mail, SHUNT_MAIL_DONE, memory_order_release);
	futex_wake(&proc->mail);
}

void shunt_mail_wait(struct shunt_ctl_proc *proc, uint32_t seen, unsigned ms)
{
	struct timespec limit = { ms / 1000, ms % 1000 * 1000000L };

	futex_wait(&proc->bell, seen, ms ? &limit : NULL);
}

void shunt_mail_ring(struct shunt_ctl_proc *proc)
{
	atomic_fetch_add(&proc->bell, 1);
	futex_wake(&proc->bell);
}

/* ---- the command's side ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct flock entry_lock(const struct shunt_ctl *ctl, unsigned entry, short type)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (const char *)&ctl->procs[entry] - (const char *)ctl,
		.l_len = 1,
	};
}

static int lock_entry(const struct shunt_ctl *ctl, int fd, unsigned entry, int timeout_ms,
	pid_t *holder)
{
	int64_t end = now_ms() + timeout_ms;
	struct timespec pause = { 0, 2000000 };

	for (;;) {
		struct flock lock = entry_lock(ctl, entry, F_WRLCK);

		if (!fcntl(fd, F_SETLK, &lock))
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (now_ms() >= end) {
			*holder = fcntl(fd, F_GETLK, &lock) ? 0 : lock.l_pid;
			return -EBUSY;
		}
		nanosleep(&pause, NULL);
	}
}

static void unlock_entry(const struct shunt_ctl *ctl, int fd, unsigned entry)
{
	struct flock lock = entry_lock(ctl, entry, F_UNLCK);

	fcntl(fd, F_SETLK, &lock);
}

/*
 * Waits until `mail` is one of IDLE and DONE. A POSTED request is withdrawn at
 * the end of the time; 0, -ETIMEDOUT (withdrawn), -EINPROGRESS, -ESRCH.
 */
static int await(struct shunt_ctl_proc *proc, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	const struct timespec slice = { 0, 100000000 };

	for (;;) {
		uint32_t mail = atomic_load_explicit(&proc->mail, memory_order_acquire);

		if (mail != SHUNT_MAIL_POSTED && mail != SHUNT_MAIL_TAKEN)
			return 0;
		if (proc->state != SHUNT_CTL_LIVE || !shunt_ctl_alive(proc)) {
			atomic_store(&proc->mail, SHUNT_MAIL_IDLE);
			return -ESRCH;
		}
		if (now_ms() >= end) {
			if (mail == SHUNT_MAIL_TAKEN)
				return -EINPROGRESS;
			if (atomic_compare_exchange_strong(&proc->mail, &mail, SHUNT_MAIL_IDLE))
				return -ETIMEDOUT;
			continue;
		}
		futex_wait(&proc->mail, mail, &slice);
	}
}

static void post(struct shunt_ctl_proc *proc, const char *text, size_t len)
{
	memcpy(proc->request, text, len);
	proc->request_len = (uint32_t)len;
	/* release: pairs with shunt_mail_take() */
	atomic_store_explicit(&proc->mail, SHUNT_MAIL_POSTED, memory_order_release);
	shunt_mail_ring(proc);
}

/* With the lock held. */
static ssize_t converse(struct shunt_ctl_proc *proc, const char *text, size_t len, char *reply,
	int timeout_ms)
{
	uint32_t n, posted = SHUNT_MAIL_POSTED;
	int err;

	/* A request whose sender died: its lock is ours, so is its request. */
	atomic_compare_exchange_strong(&proc->mail, &posted, SHUNT_MAIL_IDLE);
	err = await(proc, timeout_ms);
	if (err)
		return err;
	if (proc->state != SHUNT_CTL_LIVE || !shunt_ctl_alive(proc))
		return -ESRCH;
	post(proc, text, len);
	err = await(proc, timeout_ms);
	if (err)
		return err;
	n = proc->reply_len;
	if (n > SHUNT_CTL_REPLY)
		n = 0;
	memcpy(reply, proc->reply, n);
	reply[n] = 0;
	return (ssize_t)n;
}

ssize_t shunt_mail_send(struct shunt_ctl *ctl, int fd, unsigned entry, const char *text,
	size_t len, char reply[SHUNT_CTL_REPLY + 1], int timeout_ms, pid_t *holder)
{
	ssize_t n;

	if (len > SHUNT_CTL_REQUEST)
		return -E2BIG;
	n = lock_entry(ctl, fd, entry, timeout_ms, holder);
	if (n)
		return n;
	n = converse(&ctl->procs[entry], text, len, reply, timeout_ms);
	unlock_entry(ctl, fd, entry);
	return n;
}
