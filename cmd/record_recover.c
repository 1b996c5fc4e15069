/* SPDX-License-Identifier: MIT */
/*
 * record_recover.c - completing the trace of a recorder that was killed.
 *
 * The pool is where it was, and so are the program's writers, if it still runs.
 * Only the pages that the recorder had in its hands need a closer look: it may
 * or may not have written them before it died. Each use of a page has a number
 * of its own (`instance`), so the data file tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record.h"
#include "ring/pool.h"

struct unfinished {
	char shm[64], command[512], started[32], mode[16], complete[8];
	unsigned recorder;
};

static int read_info(const char *dir, struct unfinished *u)
{
	char path[PATH_MAX + 8], line[1024];
	FILE *f;

	memset(u, 0, sizeof *u);
	snprintf(path, sizeof path, "%s/info", dir);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		sscanf(line, "shm %63s", u->shm);
		sscanf(line, "command %511[^\n]", u->command);
		sscanf(line, "started %31s", u->started);
		sscanf(line, "mode %15s", u->mode);
		sscanf(line, "complete %7s", u->complete);
		sscanf(line, "recorder %u", &u->recorder);
	}
	fclose(f);
	return *u->complete ? 0 : -EINVAL;
}

static int open_left_over(struct shunt_recording *r)
{
	char path[PATH_MAX + 16];
	int err;

	snprintf(path, sizeof path, "%s/ctl", r->shm);
	err = shunt_ctl_map(path, &r->ctl, NULL);
	if (err)
		return err;
	snprintf(path, sizeof path, "%s/pool", r->shm);
	err = shunt_ring_open(path, 0, SHUNT_RING_READ, &r->ring);
	if (err)
		return err;
	r->images = calloc(SHUNT_CTL_IMAGES / 8, 1);
	snprintf(path, sizeof path, "%s/data", r->dir);
	r->data = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	return !r->images ? -ENOMEM : r->data < 0 ? -errno : 0;
}

/* A page that the recorder had in hand, and whether the data file has it. */
struct in_hand {
	uint32_t index;
	uint64_t instance;
	bool written;
};

static size_t find_in_hand(struct shunt_ring *ring, struct in_hand **hands)
{
	size_t n = 0;

	*hands = calloc(ring->npages, sizeof **hands);
	for (uint32_t i = 0; *hands && i < ring->npages; i++)
		if (ring->descs[i].state == PAGE_READING)
			(*hands)[n++] = (struct in_hand){ i, ring->descs[i].instance, false };
		else if (ring->descs[i].state == PAGE_READ)
			shunt_ring_page_free(ring, i);
	return n;
}

static void give_back(struct shunt_ring *ring, const struct in_hand *hand)
{
	struct shunt_ring_page_ref ref = { page_at(ring, hand->index), hand->index };

	if (hand->written)
		shunt_ring_page_release(ring, &ref);
	else
		__atomic_store_n(&ring->descs[hand->index].state, PAGE_FULL, __ATOMIC_RELEASE);
}

static void note_page(struct shunt_recording *r, const struct shunt_ring_page *page,
	struct in_hand *hands, size_t n)
{
	if (page->magic != SHUNT_RING_PAGE_MAGIC)
		return;
	if (page->tag < SHUNT_CTL_IMAGES)
		r->images[page->tag / 8] |= (uint8_t)(1 << page->tag % 8);
	for (size_t i = 0; i < n; i++)
		hands[i].written |= hands[i].instance == page->instance;
}

/* What the killed recorder had written: whole pages, and whose they are. */
static void look_through_data(struct shunt_recording *r)
{
	uint32_t size = r->ring->page_size;
	struct shunt_ring_page page;
	struct in_hand *hands;
	size_t n = find_in_hand(r->ring, &hands);

	r->bytes = (uint64_t)lseek(r->data, 0, SEEK_END) / size * size;
	r->pages = r->bytes / size;
	if (ftruncate(r->data, (off_t)r->bytes))
		shunt_say("%s/data ends in a part of a page", r->dir);
	for (uint64_t at = 0; at < r->bytes; at += size)
		if (pread(r->data, &page, sizeof page, (off_t)at) == sizeof page)
			note_page(r, &page, hands, n);
	for (size_t i = 0; i < n; i++)
		give_back(r->ring, &hands[i]);
	free(hands);
}

int shunt_record_recover(const char *dir)
{
	struct shunt_recording r;
	struct unfinished u;
	int err;

	memset(&r, 0, sizeof r);
	if (!realpath(dir, r.dir) || read_info(dir, &u)) {
		shunt_say("%s is no trace: name the directory that 'shunt record -o' was given",
			dir);
		return 2;
	}
	if (!strcmp(u.complete, "yes")) {
		shunt_say("%s is complete already", dir);
		return 0;
	}
	if (u.recorder && (!kill((pid_t)u.recorder, 0) || errno == EPERM)) {
		shunt_say("%s is still being recorded by process %u: end that first", dir,
			u.recorder);
		return 1;
	}
	memcpy(r.shm, u.shm, sizeof r.shm);
	memcpy(r.command, u.command, sizeof r.command);
	memcpy(r.started, u.started, sizeof r.started);
	r.overwrite = !strcmp(u.mode, "overwrite");
	err = open_left_over(&r);
	if (err) {
		shunt_say("nothing is left of the recording in %s (%s): %s has what was written",
			r.shm, strerror(-err), dir);
		return 1;
	}
	look_through_data(&r);
	return shunt_record_finish(&r, true);
}
