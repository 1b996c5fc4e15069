/* SPDX-License-Identifier: MIT */
/*
 * import.c - the side that looks.
 *
 * `users` counts the accesses under way; OVER in it refuses new ones. A thread for each view waits for
 * the exporter's word or end, sets OVER, sleeps until the last access has ended, puts nothing in
 * the view's place and says so. After that a stray pointer faults here; it never finds what the
 * exporter made of the memory since.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "share.h"

#define OVER (1u << 31)

struct share_view {
	atomic_uint users;
	atomic_uint why; /* 0: nothing; else a reason + 1 */
	int sock, peer;
	unsigned generation; /* of this process */
	bool write;
	char *at;
	size_t length;
	pthread_t thread;
};

/* fork() makes no copies of views (MADV_DONTFORK): children must not think they had them. */
static unsigned generation;

static void forked(void)
{
	generation++;
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, forked);
}

/* ---- accesses ---- */

static void leave(struct share_view *v)
{
	if (atomic_fetch_sub(&v->users, 1) == (OVER | 1))
		syscall(SYS_futex, &v->users, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0l);
}

int share_begin(struct share_view *v, void **p)
{
	if (v->generation != generation)
		return -ESTALE;
	if (atomic_fetch_add(&v->users, 1) & OVER) {
		leave(v);
		return -ESTALE;
	}
	*p = v->at;
	return 0;
}

void share_end(struct share_view *v)
{
	leave(v);
}

bool share_asked(const struct share_view *v)
{
	return atomic_load(&v->users) & OVER;
}

int share_read(struct share_view *v, size_t at, void *to, size_t n)
{
	void *p;
	int err;

	if (at > v->length || n > v->length - at)
		return -EINVAL;
	err = share_begin(v, &p);
	if (err)
		return err;
	memcpy(to, (char *)p + at, n);
	share_end(v);
	return 0;
}

int share_write(struct share_view *v, size_t at, const void *from, size_t n)
{
	void *p;
	int err;

	if (!v->write)
		return -EACCES;
	if (at > v->length || n > v->length - at)
		return -EINVAL;
	err = share_begin(v, &p);
	if (err)
		return err;
	memcpy((char *)p + at, from, n);
	share_end(v);
	return 0;
}

const char *share_why(const struct share_view *v)
{
	switch (atomic_load(&v->why)) {
	case 0: return NULL;
	case SHUNT_MMU_UNMAP + 1: return "the exporter unmapped it, or mapped something else there";
	case SHUNT_MMU_REMAP + 1: return "the exporter moved it";
	case SHUNT_MMU_PROTECT + 1: return "the exporter changed its access rights";
	case SHUNT_MMU_DISCARD + 1: return "the exporter discarded its contents";
	case SHUNT_MMU_EXEC + 1: return "the exporter runs another program";
	case SHUNT_MMU_EXIT + 1: return "the exporter exited";
	case SHARE_WITHDRAWN + 1: return "the exporter ended the export";
	case SHARE_DETACHED + 1: return "it was detached";
	default: return "the exporter ended without a word";
	}
}

/* ---- its end ---- */

/* The exporter's word, or that there will be none. */
static uint32_t wait_for_word(struct share_view *v)
{
	struct pollfd p[2] = {{.fd = v->sock, .events = POLLIN | POLLRDHUP}, {.fd = v->peer, .events = POLLIN}};
	struct share_msg m;
	ssize_t n = -1;

	while (poll(p, 2, -1) < 0)
		continue;
	if (p[0].revents) /* its word counts, also if it is dead by now */
		n = recv(v->sock, &m, sizeof(m), MSG_DONTWAIT);
	return n == sizeof(m) ? m.why : SHARE_ENDED;
}

static void give_back(struct share_view *v)
{
	unsigned users = atomic_fetch_or(&v->users, OVER) | OVER;

	while (users != OVER) {
		syscall(SYS_futex, &v->users, FUTEX_WAIT_PRIVATE, users, NULL, NULL, 0l);
		users = atomic_load(&v->users);
	}
	/* The addresses stay ours. If even that is refused, then nobody has an access all the same. */
	if (mmap(v->at, v->length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		 0) == MAP_FAILED)
		mprotect(v->at, v->length, PROT_NONE);
}

static void *watches(void *arg)
{
	struct share_view *v = arg;
	struct share_msg m = {.what = SHARE_GONE};
	unsigned none = 0;

	atomic_compare_exchange_strong(&v->why, &none, wait_for_word(v) + 1);
	give_back(v);
	send(v->sock, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
	return NULL;
}

/* ---- attaching ---- */

static int dial(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = strlen(name);
	int sock, err;

	if (n + 1 > sizeof(a.sun_path))
		return -EINVAL;
	memcpy(a.sun_path + 1, name, n);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (!connect(sock, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)))
		return sock;
	err = -errno;
	close(sock);
	return err;
}

/* The exporter's answer, and its descriptor. */
static int hear(int sock, struct share_msg *m, int *fd)
{
	struct iovec iov = {.iov_base = m, .iov_len = sizeof(*m)};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf)};
	struct cmsghdr *c;
	ssize_t n;

	*fd = -1;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*m) || m->what != SHARE_ATTACHED)
		return n < 0 ? -errno : -ECONNRESET;
	if (m->err)
		return m->err;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return 0;
}

static int map(struct share_view *v, int fd, uint64_t offset)
{
	v->at = mmap(NULL, v->length, v->write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd,
		(off_t)offset);
	if (v->at == MAP_FAILED)
		return -errno;
	if (madvise(v->at, v->length, MADV_DONTFORK)) {
		int err = -errno;

		munmap(v->at, v->length);
		return err;
	}
	return 0;
}

/* The exporter may ask for it back as soon as it has answered: it waits until `watches` runs then. */
static int join(struct share_view *v, size_t offset)
{
	struct share_msg m = {
		.what = SHARE_ATTACH, .write = v->write, .offset = offset, .length = v->length};
	int fd, err;

	if (send(v->sock, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m))
		return errno == EPIPE ? -ECONNRESET : -errno;
	err = hear(v->sock, &m, &fd);
	if (err)
		return err;
	err = map(v, fd, m.offset);
	close(fd); /* what was taken back cannot be mapped again */
	if (err)
		return err;
	err = share_start_quiet(&v->thread, watches, v);
	if (err)
		munmap(v->at, v->length);
	return err;
}

int share_attach(struct share_view **out, const char *name, size_t offset, size_t length, bool write)
{
	struct share_view *v = calloc(1, sizeof(*v));
	int err;

	if (!v)
		return -ENOMEM;
	v->write = write;
	v->length = length;
	v->generation = generation;
	err = v->sock = dial(name);
	if (err < 0)
		goto free_it;
	v->peer = share_peer(v->sock);
	if (v->peer < 0) {
		err = -ECONNREFUSED; /* there was one, a moment ago */
		goto close_it;
	}
	err = join(v, offset);
	if (err)
		goto close_peer;
	*out = v;
	return 0;
close_peer:
	close(v->peer);
close_it:
	close(v->sock);
free_it:
	free(v);
	return err;
}

/* The connection is closed last: to the exporter that says that there is no view any more. */
void share_detach(struct share_view *v)
{
	unsigned none = 0;

	if (v->generation == generation) {
		atomic_compare_exchange_strong(&v->why, &none, SHARE_DETACHED + 1);
		shutdown(v->sock, SHUT_RD); /* wakes its thread */
		pthread_join(v->thread, NULL);
		munmap(v->at, v->length);
	}
	close(v->peer);
	close(v->sock);
	free(v);
}
