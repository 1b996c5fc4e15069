/* SPDX-License-Identifier: MIT */
/*
 * ctl.c - making, mapping and filling in the control file. See ctl.h.
 *
 * An entry of the process table is owned by the process that turned its state
 * to CLAIMED; everybody else only reads it, except the mailbox. A process that
 * died without a word leaves LIVE behind: the next one that needs an entry
 * notices that there is no such process and turns LIVE to CLAIMED itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"

static int map_fd(int fd, struct shunt_ctl **ctl)
{
	void *at = mmap(NULL, sizeof **ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ctl = at;
	return 0;
}

int shunt_ctl_create(const char *path, const char *out, struct shunt_ctl **ctl)
{
	int fd, err;

	if (strlen(out) >= sizeof (*ctl)->out)
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = -posix_fallocate(fd, 0, sizeof **ctl);
	if (!err)
		err = map_fd(fd, ctl);
	close(fd);
	if (err) {
		unlink(path);
		return err;
	}
	strcpy((*ctl)->out, out);
	(*ctl)->version = SHUNT_CTL_VERSION;
	(*ctl)->size = sizeof **ctl;
	(*ctl)->recorder = (uint32_t)getpid();
	atomic_thread_fence(memory_order_release);
	(*ctl)->magic = SHUNT_CTL_MAGIC;
	return 0;
}

/* Whether the open file may be believed to be a control file. */
static int check_fd(int fd)
{
	uint64_t magic = 0;
	uint32_t rest[2] = { 0 };
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size != sizeof(struct shunt_ctl))
		return -EINVAL;
	if (st.st_uid != geteuid() && geteuid() != 0)
		return -EPERM;
	if (pread(fd, &magic, sizeof magic, 0) != sizeof magic ||
		pread(fd, rest, sizeof rest, sizeof magic) != sizeof rest)
		return -EINVAL;
	if (magic != SHUNT_CTL_MAGIC || rest[0] != SHUNT_CTL_VERSION ||
		rest[1] != sizeof(struct shunt_ctl))
		return -EINVAL;
	return 0;
}

int shunt_ctl_map(const char *path, struct shunt_ctl **ctl, int *keep_fd)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int err;

	if (fd < 0)
		return -errno;
	err = check_fd(fd);
	if (!err)
		err = map_fd(fd, ctl);
	if (!err && keep_fd)
		*keep_fd = fd;
	else
		close(fd);
	return err;
}

void shunt_ctl_unmap(struct shunt_ctl *ctl)
{
	munmap(ctl, sizeof *ctl);
}

void shunt_ctl_note(struct shunt_ctl *ctl, enum shunt_ctl_note_kind kind, const char *fmt, ...)
{
	uint32_t n = atomic_fetch_add(&ctl->next_note, 1);
	struct shunt_ctl_note *note;
	va_list ap;

	if (n >= SHUNT_CTL_NOTES)
		return;
	note = &ctl->notes[n];
	note->pid = (uint32_t)getpid();
	prctl(PR_GET_NAME, note->comm, 0, 0, 0);
	va_start(ap, fmt);
	vsnprintf(note->text, sizeof note->text, fmt, ap);
	va_end(ap);
	/* release: whoever sees the kind sees the text */
	atomic_store_explicit(&note->kind, kind, memory_order_release);
}

uint32_t shunt_ctl_new_image(struct shunt_ctl *ctl, uint32_t parent, uint32_t objects)
{
	uint32_t image = atomic_fetch_add(&ctl->next_image, 1) + 1;

	if (image < SHUNT_CTL_IMAGES) {
		ctl->images[image].pid = (uint32_t)getpid();
		ctl->images[image].objects = objects;
		ctl->images[image].parent = parent;
	}
	return image;
}

static uint64_t own_pidns(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) ? 0 : (uint64_t)st.st_ino;
}

/* A zombie has a number, but will never do anything again. */
static bool is_zombie(pid_t pid)
{
	char path[32], buf[256], *p;
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buf, sizeof buf - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
	p = strrchr(buf, ')'); /* the name before it may hold anything */
	return p && p[1] && (p[2] == 'Z' || p[2] == 'X');
}

bool shunt_ctl_alive(const struct shunt_ctl_proc *proc)
{
	pid_t pid = (pid_t)proc->pid;

	if (proc->pidns && proc->pidns != own_pidns())
		return true;
	if (pid <= 0 || (kill(pid, 0) && errno == ESRCH))
		return false;
	return !is_zombie(pid);
}

/* Whether the entry can be ours, and the state it was seen in. */
static bool may_claim(struct shunt_ctl_proc *proc, uint32_t *state)
{
	*state = atomic_load_explicit(&proc->state, memory_order_acquire);
	if (*state == SHUNT_CTL_FREE || *state == SHUNT_CTL_EXITED)
		return true;
	return *state == SHUNT_CTL_LIVE && !shunt_ctl_alive(proc);
}

static void fill_in(struct shunt_ctl_proc *proc, uint32_t image)
{
	ssize_t n = readlink("/proc/self/exe", proc->exe, sizeof proc->exe - 1);

	proc->exe[n > 0 ? n : 0] = 0;
	proc->pid = (uint32_t)getpid();
	proc->image = image;
	proc->pidns = own_pidns();
	proc->control = 0;
	/*
	 * A request to the entry's last owner is answered, not left to time
	 * out: its sender still holds the lock and waits.
	 */
	if (atomic_load(&proc->mail) == SHUNT_MAIL_POSTED ||
		atomic_load(&proc->mail) == SHUNT_MAIL_TAKEN) {
		static const char gone[] = "error the process ended or executed another program\n";

		shunt_mail_answer(proc, gone, sizeof gone - 1);
	}
	atomic_store_explicit(&proc->state, SHUNT_CTL_LIVE, memory_order_release);
}

struct shunt_ctl_proc *shunt_ctl_claim(struct shunt_ctl *ctl, uint32_t image)
{
	uint32_t pid = (uint32_t)getpid(), state;
	uint64_t ns = own_pidns();

	for (unsigned i = 0; i < SHUNT_CTL_PROCS; i++) {
		struct shunt_ctl_proc *proc = &ctl->procs[i];

		if (proc->pid == pid && proc->pidns == ns && proc->state == SHUNT_CTL_LIVE) {
			fill_in(proc, image); /* we were here before an exec */
			return proc;
		}
	}
	for (unsigned i = 0; i < SHUNT_CTL_PROCS; i++) {
		struct shunt_ctl_proc *proc = &ctl->procs[i];

		if (!may_claim(proc, &state) ||
			!atomic_compare_exchange_strong(&proc->state, &state, SHUNT_CTL_CLAIMED))
			continue;
		fill_in(proc, image);
		return proc;
	}
	return NULL;
}

void shunt_ctl_leave(struct shunt_ctl_proc *proc)
{
	atomic_store_explicit(&proc->state, SHUNT_CTL_EXITED, memory_order_release);
}
