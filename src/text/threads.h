/* SPDX-License-Identifier: MIT */
/* threads.h - the threads of a process, from /proc, without libc's directories. */
#ifndef SHUNT_TEXT_THREADS_H
#define SHUNT_TEXT_THREADS_H

#include <stddef.h>
#include <stdint.h>

/* What getdents64(2) writes. */
struct shunt_dirent {
	uint64_t ino, off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

struct shunt_threads {
	long fd, n, at;
	_Alignas(8) char buf[4096];
};

/* Of a process by its number, or "self". Close it when this has returned 0; else -errno. */
int shunt_threads_open(struct shunt_threads *t, const char *process);
void shunt_threads_close(struct shunt_threads *t);
/*
 * The next one's number, 0 at the end. Threads that come or go meanwhile may be left
 * out, or be gone already.
 */
int shunt_threads_next(struct shunt_threads *t);
/*
 * What the kernel says of a thread of this process in its file of that name, ended by a zero byte: bytes, or
 * -errno. `dir` is /proc/self/task, or negative.
 */
long shunt_thread_read(int dir, int tid, const char *name, char *text, size_t size);

#endif
