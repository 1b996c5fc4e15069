/* SPDX-License-Identifier: MIT */
/* uprobe.c - see uprobe.h. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uprobe.h"

static const char *top = "/sys/kernel/tracing";
static char event[64]; /* group and name */
static char instance[PATH_MAX];

static bool say(const char *dir, const char *file, int flags, const char *text)
{
	char path[2 * PATH_MAX];
	bool done = false;
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC | flags);
	if (fd >= 0) {
		done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
		close(fd);
	}
	return done;
}

/* In a mount namespace of our own: it is gone when we are. */
static bool mount_it(void)
{
	return !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("tracefs", top, "tracefs", 0, NULL);
}

const char *uprobe_open(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/uprobe_events", top);
	if (access(path, F_OK) && (!mount_it() || access(path, F_OK)))
		return "tracefs is not there, and cannot be mounted";
	if (access(path, W_OK))
		return "only root may";
	snprintf(event, sizeof event, "shunt_bench/hit_%d", (int)getpid());
	snprintf(instance, sizeof instance, "%s/instances/shunt_bench_%d", top, (int)getpid());
	return mkdir(instance, 0700) ? "no trace instance can be made" : NULL;
}

void uprobe_close(void)
{
	rmdir(instance);
}

/* The file that an address is mapped from, and where in it. */
static bool find_file(uintptr_t addr, char path[PATH_MAX], unsigned long *offset)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long lo, hi, off;
	char line[PATH_MAX + 128];
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %4095s", &lo, &hi, &off, path) == 4 &&
			addr >= lo && addr < hi) {
			*offset = off + (addr - lo);
			found = true;
		}
	if (f)
		fclose(f);
	return found;
}

static bool enable(bool on)
{
	char file[128];

	snprintf(file, sizeof file, "events/%s/enable", event);
	return say(instance, file, 0, on ? "1" : "0");
}

bool uprobe_put(const void *fn, bool at_return)
{
	char path[PATH_MAX], text[PATH_MAX + 128];
	unsigned long offset;

	if (!find_file((uintptr_t)fn, path, &offset))
		return false;
	snprintf(text, sizeof text, "%c:%s %s:0x%lx", at_return ? 'r' : 'p', event, path, offset);
	return say(top, "uprobe_events", O_APPEND, text) && enable(true);
}

unsigned long uprobe_take(void)
{
	char line[PATH_MAX + 128], text[128], name[64];
	unsigned long hits = 0, n;
	FILE *f;

	snprintf(text, sizeof text, "%s/uprobe_profile", top);
	f = fopen(text, "re");
	/* FILE EVENT HITS MISSED; an event's group is not said, so its name is ours alone. */
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%*s %63s %lu", name, &n) == 2 && !strcmp(name, strchr(event, '/') + 1))
			hits = n;
	if (f)
		fclose(f);
	enable(false);
	snprintf(text, sizeof text, "-:%s", event);
	say(top, "uprobe_events", O_APPEND, text);
	return hits;
}

void uprobe_record(bool on)
{
	say(instance, "tracing_on", 0, on ? "1" : "0");
}
