/* SPDX-License-Identifier: MIT */
/* threads.c - see threads.h. */
#include <fcntl.h>
#include <stdio.h>

#include "arch/x86_64/text_sys.h"
#include "text/maps.h"
#include "text/threads.h"

int shunt_threads_open(struct shunt_threads *t, const char *process)
{
	char path[48];

	snprintf(path, sizeof path, "/proc/%s/task", process);
	t->n = t->at = 0;
	t->fd = shunt_sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->fd < 0 ? (int)t->fd : 0;
}

void shunt_threads_close(struct shunt_threads *t)
{
	shunt_sys(SYS_close, t->fd);
}

static int tid_of(const char *name)
{
	int n = 0;

	for (; *name >= '0' && *name <= '9'; name++)
		n = n * 10 + (*name - '0');
	return *name ? 0 : n;
}

int shunt_threads_next(struct shunt_threads *t)
{
	for (;;) {
		const struct shunt_dirent *d;
		int tid;

		if (t->at >= t->n) {
			t->n = shunt_sys(SYS_getdents64, t->fd, t->buf, sizeof t->buf);
			t->at = 0;
			if (t->n <= 0)
				return 0;
		}
		d = (const struct shunt_dirent *)(t->buf + t->at);
		t->at += d->reclen;
		tid = tid_of(d->name);
		if (tid)
			return tid;
	}
}

long shunt_thread_read(int dir, int tid, const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof path, "%s%d/%s", dir < 0 ? "/proc/self/task/" : "", tid, name);
	return shunt_proc_read_at(dir < 0 ? AT_FDCWD : dir, path, text, size);
}
