/* SPDX-License-Identifier: MIT */
/*
 * export.c - the side whose memory it is.
 *
 * Each connection is one view, and has a thread here and an interval notifier of its own:
 *
 *   NEW ----- translated, not retried, descriptor sent -----> LIVE ----- invalidated -----> OVER
 *
 * all under the view's lock, which the callback takes too. So a change is either before the look-up
 * or makes it retry, or the callback finds a view that is LIVE, and asks for it back. It sleeps
 * under that lock: another change of the same range waits for the same answer.
 *
 * The callback allocates nothing and waits for nobody in this process but for another callback
 * that waits for the same importer. So it may run while libc's locks are held.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <shunt/mmu.h>

#include "share.h"
#include "translate.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define SHARE_CHANGES \
	(1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_PROTECT | \
	 1u << SHUNT_MMU_DISCARD | 1u << SHUNT_MMU_EXEC)

struct share_export {
	struct shunt_mmu_interval whole; /* hears of the exit, and keeps the notifiers armed between views */
	char name[SHARE_NAME];
	int memfd, listener;
	uintptr_t start;
	size_t length;
	bool told;
	pthread_t thread;
	pthread_mutex_t lock; /* the list, ending */
	pthread_cond_t none;
	struct view *views;
	bool ending;
};

enum state { NEW, LIVE, OVER };

struct view {
	struct shunt_mmu_interval interval;
	struct share_export *x;
	struct view *next, **where;
	int sock, peer;
	pthread_mutex_t lock;
	enum state state;
};

int share_peer(int sock)
{
	struct ucred who;
	socklen_t n = sizeof(int);
	int fd;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &n))
		return fd;
	n = sizeof(who);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &n))
		return -1;
	return (int)syscall(SYS_pidfd_open, who.pid, 0);
}

static bool same_user(int sock)
{
	struct ucred who;
	socklen_t n = sizeof(who);

	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &n) && who.uid == geteuid();
}

/* ---- the end of a view ---- */

/* Either the importer says it, or its end of the connection is gone, or it is. */
static bool has_let_go(const struct view *v, const struct pollfd p[2])
{
	struct share_msg m;
	ssize_t n;

	if (p[1].revents)
		return true;
	if (!p[0].revents)
		return false;
	n = recv(v->sock, &m, sizeof(m), MSG_DONTWAIT);
	if (n == sizeof(m))
		return m.what == SHARE_GONE;
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/*
 * Asks for it back and waits. Whether it could be asked does not matter: who detaches
 * just then closes the connection when there is no view any more, not before.
 */
static void take_back(struct view *v, uint32_t why)
{
	struct share_msg m = {.what = SHARE_REVOKE, .why = why};
	struct pollfd p[2] = {{.fd = v->sock, .events = POLLIN | POLLRDHUP}, {.fd = v->peer, .events = POLLIN}};

	send(v->sock, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
	do {
		poll(p, 2, -1);
	} while (!has_let_go(v, p));
	shutdown(v->sock, SHUT_RDWR); /* its thread goes on */
}

static void end_view(struct view *v, uint32_t why)
{
	pthread_mutex_lock(&v->lock);
	if (v->state == LIVE)
		take_back(v, why);
	v->state = OVER;
	pthread_mutex_unlock(&v->lock);
}

static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	struct view *v = (struct view *)((char *)i - offsetof(struct view, interval));

	(void)seq; /* the library compares it: this user has no use for its value */
	pthread_mutex_lock(&v->lock);
	if (v->state == LIVE) {
		take_back(v, e->kind);
		v->state = OVER;
	}
	pthread_mutex_unlock(&v->lock);
}

static const struct shunt_mmu_interval_ops view_ops = {.invalidate = invalidate};

/* Nobody attaches from here on, and all views are over. */
static void end_all(struct share_export *x, uint32_t why)
{
	pthread_mutex_lock(&x->lock);
	x->ending = true;
	shutdown(x->listener, SHUT_RDWR);
	for (struct view *v = x->views; v; v = v->next)
		end_view(v, why);
	pthread_mutex_unlock(&x->lock);
}

/* The process exits: before its pages go. */
static void exiting(struct shunt_mmu_interval *i, const struct shunt_mmu_event *e, uint64_t seq)
{
	(void)seq;
	end_all((struct share_export *)((char *)i - offsetof(struct share_export, whole)), e->kind);
}

static const struct shunt_mmu_interval_ops whole_ops = {.invalidate = exiting};

/* ---- the beginning of one ---- */

/* A descriptor with no more rights than asked for. */
static int open_for(const struct share_export *x, bool write)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", x->memfd);
	return open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
}

static int answer(int sock, int err, uint64_t offset, int fd)
{
	struct share_msg m = {.what = SHARE_ATTACHED, .err = err, .offset = offset};
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {.buf = {0}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = u.buf;
		msg.msg_controllen = sizeof(u.buf);
		u.align.cmsg_level = SOL_SOCKET;
		u.align.cmsg_type = SCM_RIGHTS;
		u.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&u.align), &fd, sizeof(fd));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == sizeof(m) ? 0 : -errno;
}

/* With what is at the addresses now: hands it out unless it has changed since seq. 1: look again. */
static int hand_out(struct view *v, uint64_t seq, const struct translation *t, int fd)
{
	int err;

	pthread_mutex_lock(&v->lock);
	if (v->state == OVER)
		err = -ESTALE;
	else if (v->x->told && shunt_mmu_interval_read_retry(&v->interval, seq))
		err = 1;
	else
		err = answer(v->sock, 0, t->offset, fd);
	if (!err)
		v->state = LIVE;
	pthread_mutex_unlock(&v->lock);
	return err;
}

static int check(const struct share_export *x, const struct share_msg *m)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (m->what != SHARE_ATTACH || !m->length || (m->offset | m->length) % page)
		return -EINVAL;
	return m->offset > x->length || m->length > x->length - m->offset ? -EINVAL : 0;
}

/* The collision-retry idiom: read_begin sleeps while a change is under way. */
static int attach(struct view *v, const struct share_msg *m)
{
	uintptr_t start = v->x->start + m->offset;
	struct translation t;
	uint64_t seq = 0;
	int fd = open_for(v->x, m->write), err;

	if (fd < 0)
		return -errno;
	do {
		if (v->x->told)
			seq = shunt_mmu_interval_read_begin(&v->interval);
		err = translate(v->x->memfd, start, m->length, &t);
		if (!err && (!(t.prot & PROT_READ) || (m->write && !(t.prot & PROT_WRITE))))
			err = -EACCES;
		if (!err)
			err = hand_out(v, seq, &t, fd);
		else if (v->x->told && shunt_mmu_interval_read_retry(&v->interval, seq))
			err = 1; /* "nothing there" may be half of a change */
	} while (err == 1);
	close(fd);
	return err;
}

static int begin_view(struct view *v, const struct share_msg *m)
{
	int err = check(v->x, m);

	if (err || !v->x->told)
		return err ? err : attach(v, m);
	v->interval = (struct shunt_mmu_interval){.ops = &view_ops, .kinds = SHARE_CHANGES};
	err = shunt_mmu_interval_insert(&v->interval, v->x->start + m->offset, m->length);
	return err ? err : attach(v, m);
}

/* Until the importer detaches, or dies, or there is nothing any more that it could hold on to. */
static void wait_for_end(const struct view *v)
{
	struct pollfd p[2] = {{.fd = v->sock, .events = POLLRDHUP}, {.fd = v->peer, .events = POLLIN}};

	while (!p[0].revents && !p[1].revents)
		poll(p, 2, -1);
}

static void drop(struct view *v)
{
	struct share_export *x = v->x;

	if (v->interval.node)
		shunt_mmu_interval_remove(&v->interval); /* no callback uses v from here on */
	pthread_mutex_lock(&x->lock);
	*v->where = v->next;
	if (v->next)
		v->next->where = v->where;
	if (!x->views)
		pthread_cond_signal(&x->none);
	pthread_mutex_unlock(&x->lock);
	close(v->peer);
	close(v->sock);
	free(v);
}

static void *serve(void *arg)
{
	struct view *v = arg;
	struct share_msg m;
	int err = same_user(v->sock) ? 0 : -EPERM;

	if (!err && recv(v->sock, &m, sizeof(m), 0) != sizeof(m))
		err = -ECONNRESET;
	if (!err)
		err = begin_view(v, &m);
	if (err)
		answer(v->sock, err, 0, -1);
	else
		wait_for_end(v);
	drop(v);
	return NULL;
}

/* ---- connections ---- */

static bool enlist(struct share_export *x, struct view *v)
{
	bool in;

	pthread_mutex_lock(&x->lock);
	in = !x->ending;
	if (in) {
		v->next = x->views;
		v->where = &x->views;
		if (v->next)
			v->next->where = &v->next;
		x->views = v;
	}
	pthread_mutex_unlock(&x->lock);
	return in;
}

static void welcome(struct share_export *x, int sock)
{
	struct view *v = calloc(1, sizeof(*v));
	pthread_t t;

	if (!v) {
		close(sock);
		return;
	}
	*v = (struct view){.x = x, .sock = sock, .peer = share_peer(sock)};
	pthread_mutex_init(&v->lock, NULL);
	if (v->peer < 0 || !enlist(x, v)) {
		if (v->peer >= 0)
			close(v->peer);
		close(sock);
		free(v);
		return;
	}
	if (share_start_quiet(&t, serve, v))
		drop(v);
	else
		pthread_detach(t);
}

static void *listens(void *arg)
{
	struct share_export *x = arg;
	int sock;

	while ((sock = accept4(x->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == EINTR ||
	       errno == ECONNABORTED || errno == EMFILE) {
		if (sock >= 0)
			welcome(x, sock);
	}
	return NULL;
}

/* ---- the export ---- */

/* An abstract name: nothing is left behind, whoever is killed. */
static int open_listener(struct share_export *x)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint64_t r[2];
	socklen_t n;

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		return -EAGAIN;
	snprintf(x->name, sizeof(x->name), "share-%016llx%016llx", (unsigned long long)r[0],
		(unsigned long long)r[1]);
	memcpy(a.sun_path + 1, x->name, strlen(x->name));
	n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(x->name));
	x->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (x->listener < 0)
		return -errno;
	if (bind(x->listener, (struct sockaddr *)&a, n) || listen(x->listener, 64)) {
		int err = -errno;

		close(x->listener);
		return err;
	}
	return 0;
}

int share_export(struct share_export **out, int memfd, void *start, size_t length, bool told)
{
	struct share_export *x = calloc(1, sizeof(*x));
	int err;

	if (!x)
		return -ENOMEM;
	x->memfd = memfd;
	x->start = (uintptr_t)start;
	x->length = length;
	x->told = told;
	x->whole = (struct shunt_mmu_interval){
		.ops = &whole_ops, .kinds = 1u << SHUNT_MMU_EXIT};
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->none, NULL);
	err = open_listener(x);
	if (err)
		goto free_it;
	if (told)
		err = shunt_mmu_interval_insert(&x->whole, x->start, length);
	if (err)
		goto close_it;
	err = share_start_quiet(&x->thread, listens, x);
	if (err)
		goto remove_it;
	*out = x;
	return 0;
remove_it:
	if (told)
		shunt_mmu_interval_remove(&x->whole);
close_it:
	close(x->listener);
free_it:
	free(x);
	return err;
}

const char *share_export_name(const struct share_export *x)
{
	return x->name;
}

void share_unexport(struct share_export *x)
{
	end_all(x, SHARE_WITHDRAWN);
	pthread_join(x->thread, NULL);
	pthread_mutex_lock(&x->lock);
	/* Those that were about to attach wait for their importer's word. */
	for (struct view *v = x->views; v; v = v->next)
		shutdown(v->sock, SHUT_RDWR);
	while (x->views)
		pthread_cond_wait(&x->none, &x->lock);
	pthread_mutex_unlock(&x->lock);
	if (x->told)
		shunt_mmu_interval_remove(&x->whole);
	close(x->listener);
	free(x);
}
