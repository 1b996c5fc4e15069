/* SPDX-License-Identifier: MIT */
/*
 * own.c - a control file of a program that nobody records: as `shunt record` makes them
 * (ctl.h), with one process in it and no ring beside it.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shunt/control.h>

#include "base/log.h"
#include "serve.h"
#include "site/site.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shunt_ctl *ctl; /* NULL: not listening */
static char dir[64];
static pid_t owner;

static void remove_files(void)
{
	char path[sizeof dir + 8];

	snprintf(path, sizeof path, "%s/ctl", dir);
	unlink(path);
	rmdir(dir);
}

/* A file like ours of a process that has ended otherwise than by exit(3). */
static bool left_behind(const char *path)
{
	struct shunt_ctl *old;
	bool gone;

	if (shunt_ctl_map(path, &old, NULL))
		return false;
	/* A recording has an output directory, and is its recorder's. */
	gone = !*old->out && old->procs[0].state == SHUNT_CTL_LIVE && !shunt_ctl_alive(&old->procs[0]);
	shunt_ctl_unmap(old);
	return gone;
}

static void sweep(void)
{
	char path[300], start[32];
	DIR *shm = opendir("/dev/shm");
	struct dirent *e;

	snprintf(start, sizeof start, "shunt-%u-", (unsigned)geteuid());
	while (shm && (e = readdir(shm))) {
		if (strncmp(e->d_name, start, strlen(start)))
			continue;
		snprintf(path, sizeof path, "/dev/shm/%s/ctl", e->d_name);
		if (!left_behind(path))
			continue;
		unlink(path);
		*strrchr(path, '/') = 0;
		rmdir(path);
	}
	if (shm)
		closedir(shm);
}

static int start(void)
{
	struct shunt_server server = {NULL, shunt_values_carry_out, NULL, true, false};
	char path[sizeof dir + 8];
	int err;

	sweep();
	snprintf(dir, sizeof dir, "/dev/shm/shunt-%u-XXXXXX", (unsigned)geteuid());
	if (!mkdtemp(dir))
		return -errno;
	snprintf(path, sizeof path, "%s/ctl", dir);
	err = shunt_ctl_create(path, "", &ctl);
	if (err) {
		rmdir(dir);
		return err;
	}
	owner = getpid();
	server.proc = shunt_ctl_claim(ctl, 0);
	err = server.proc ? shunt_serve_start(&server) : -ENOSPC;
	if (err) {
		remove_files();
		shunt_ctl_unmap(ctl);
		ctl = NULL;
	}
	return err;
}

SHUNT_API int shunt_control_start(void)
{
	int err = 0;

	pthread_mutex_lock(&lock);
	/* Recorded: the agent listens. */
	if (!ctl && !shunt_serving())
		err = start();
	pthread_mutex_unlock(&lock);
	return err;
}

SHUNT_API void shunt_control_stop(void)
{
	pthread_mutex_lock(&lock);
	if (ctl && owner == getpid()) {
		shunt_serve_stop();
		remove_files();
		shunt_ctl_unmap(ctl);
		ctl = NULL;
	}
	pthread_mutex_unlock(&lock);
}

/* --- loading, fork, exit -------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* The file is the parent's, who removes it. */
static void in_child(void)
{
	if (ctl) {
		shunt_serve_forget();
		shunt_ctl_unmap(ctl);
		ctl = NULL;
	}
	pthread_mutex_unlock(&lock);
}

__attribute__((constructor(101))) static void loaded(void)
{
	const char *wish = getenv("SHUNT_CONTROL");
	int err;

	shunt_sites_at_fork(); /* whose lock is taken with ours held */
	pthread_atfork(before_fork, in_parent, in_child);
	/* Under `shunt record` the variable is the agent's, and so is the thread. */
	if (!wish || strcmp(wish, "1") || getenv("SHUNT_DIR"))
		return;
	err = shunt_control_start();
	if (err)
		shunt_log(SHUNT_LOG_ERROR, "SHUNT_CONTROL=1: this process cannot be controlled: %s",
			strerror(-err));
}

/* Files only: other threads still run. */
__attribute__((destructor)) static void unloaded(void)
{
	if (ctl && owner == getpid())
		remove_files();
}
