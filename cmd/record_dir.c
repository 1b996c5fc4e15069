/* SPDX-License-Identifier: MIT */
/*
 * record_dir.c - the trace directory: docs/formats.md says what is in it.
 *
 * A recording never destroys what it did not make. An older complete trace
 * becomes DIR.old; only files that a trace consists of are ever removed.
 * Files that are written at once get a temporary name first, so a reader sees
 * the old one or the new one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

void shunt_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("shunt: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

/* ---- making room for it ---- */

enum what { NOTHING, EMPTY, TRACE, UNFINISHED, FOREIGN };

static bool is_empty(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool empty = true;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			empty = false;
	if (d)
		closedir(d);
	return d && empty;
}

static enum what what_is(const char *dir)
{
	char path[PATH_MAX + 8], line[1024];
	bool trace = false, complete = false;
	struct stat st;
	FILE *f;

	if (lstat(dir, &st))
		return errno == ENOENT ? NOTHING : FOREIGN;
	if (stat(dir, &st) || !S_ISDIR(st.st_mode))
		return FOREIGN;
	snprintf(path, sizeof path, "%s/info", dir);
	f = fopen(path, "re");
	if (!f)
		return is_empty(dir) ? EMPTY : FOREIGN;
	while (fgets(line, sizeof line, f)) {
		trace |= !strncmp(line, "shunt-trace ", 12);
		complete |= !strcmp(line, "complete yes\n");
	}
	fclose(f);
	return !trace ? FOREIGN : complete ? TRACE : UNFINISHED;
}

static void remove_folder(const char *dir, const char *folder)
{
	char path[PATH_MAX + 300];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "%s/%s", dir, folder);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s/%s/%s", dir, folder, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
	snprintf(path, sizeof path, "%s/%s", dir, folder);
	rmdir(path);
}

static void remove_points(const char *dir)
{
	char path[PATH_MAX + 300];
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		if (!strncmp(e->d_name, "points-", 7))
			unlink(path);
	}
	if (d)
		closedir(d);
}

/* Removes a trace of ours, and the directory if nothing else is in it. */
static void remove_trace(const char *dir)
{
	static const char *const files[] = { "info", "data", "threads" };
	char path[PATH_MAX + 16];

	remove_folder(dir, "objects");
	remove_folder(dir, "left-out");
	remove_points(dir);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

static int move_away(const char *dir)
{
	char old[PATH_MAX + 8];

	snprintf(old, sizeof old, "%s.old", dir);
	if (what_is(old) == TRACE)
		remove_trace(old);
	if (!rename(dir, old))
		return 0;
	shunt_say("%s holds a trace already and cannot become %s (%s): name another "
		  "directory with -o",
		dir, old, strerror(errno));
	return 2;
}

static int make_room(const char *dir)
{
	switch (what_is(dir)) {
	case NOTHING:
		break;
	case EMPTY:
		return 0;
	case TRACE:
		if (move_away(dir))
			return 2;
		break;
	case UNFINISHED:
		shunt_say("%s holds a recording that is under way or was interrupted: finish it "
			  "with 'shunt record --recover %s', or name another directory with -o",
			dir, dir);
		return 2;
	case FOREIGN:
		shunt_say("%s exists and is no trace: name another directory with -o", dir);
		return 2;
	}
	if (!mkdir(dir, 0777))
		return 0;
	shunt_say("cannot make %s: %s", dir, strerror(errno));
	return 1;
}

int shunt_dir_prepare(struct shunt_recording *r, const char *dir)
{
	char path[PATH_MAX + 16], trimmed[PATH_MAX];
	size_t n = strlen(dir);
	int code;

	if (!n || n >= sizeof trimmed) {
		shunt_say("-o needs the name of a directory");
		return 2;
	}
	strcpy(trimmed, dir);
	while (n > 1 && trimmed[n - 1] == '/')
		trimmed[--n] = 0;
	code = make_room(trimmed);
	if (code)
		return code;
	if (!realpath(trimmed, r->dir)) {
		shunt_say("%s: %s", dir, strerror(errno));
		return 1;
	}
	snprintf(path, sizeof path, "%s/objects", r->dir);
	mkdir(path, 0777);
	snprintf(path, sizeof path, "%s/data", r->dir);
	r->data = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (r->data >= 0)
		return 0;
	shunt_say("cannot write %s: %s", path, strerror(errno));
	return 1;
}

/* ---- its files ---- */

/* A file that appears as a whole. */
struct file {
	FILE *f;
	char path[PATH_MAX + 32], temp[PATH_MAX + 40];
};

static int file_begin(struct file *file, const char *dir, const char *name)
{
	snprintf(file->path, sizeof file->path, "%s/%s", dir, name);
	snprintf(file->temp, sizeof file->temp, "%s.tmp", file->path);
	file->f = fopen(file->temp, "we");
	return file->f ? 0 : -errno;
}

static int file_end(struct file *file)
{
	int err = ferror(file->f) ? -EIO : 0;

	if (fclose(file->f))
		err = -errno;
	if (!err && rename(file->temp, file->path))
		err = -errno;
	if (err)
		unlink(file->temp);
	return err;
}

static const char *clock_name(int clock)
{
	return clock == SHUNT_RING_CLOCK_TSC ? "tsc" :
	       clock == SHUNT_RING_CLOCK_MONOTONIC ? "monotonic" : "none";
}

int shunt_dir_info(const struct shunt_recording *r, bool complete)
{
	struct shunt_ring_info info;
	struct file file;
	char host[256] = "?";
	int err = file_begin(&file, r->dir, "info");

	if (err)
		return err;
	gethostname(host, sizeof host - 1);
	shunt_ring_info(r->ring, &info);
	fprintf(file.f, "shunt-trace 1\npage-size %u\nclock %s\nclock-hz %llu\n", info.page_size,
		clock_name((int)info.clock), (unsigned long long)info.clock_hz);
	fprintf(file.f, "clock-base-ticks %llu\nclock-base-ns %llu\nmode %s\n",
		(unsigned long long)info.clock_base_ticks,
		(unsigned long long)info.clock_base_ns,
		r->overwrite ? "overwrite" : "discard");
	fprintf(file.f, "command %s\nhostname %s\nstarted %s\n", r->command, host, r->started);
	if (!complete)
		fprintf(file.f, "shm %s\nrecorder %u\n", r->shm, r->ctl->recorder);
	fprintf(file.f, "complete %s\n", complete ? "yes" : "no");
	return file_end(&file);
}

/* ---- symbol files of fork children ---- */

static void copy_object(const char *dir, uint32_t from, uint32_t to, uint32_t n, uint32_t pid)
{
	char name[64], path[PATH_MAX + 64], *line = NULL;
	bool head = true;
	size_t room = 0;
	struct file out;
	FILE *in;

	snprintf(name, sizeof name, "objects/%u-%u", to, n);
	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (!access(path, F_OK))
		return;
	snprintf(path, sizeof path, "%s/objects/%u-%u", dir, from, n);
	in = fopen(path, "re");
	if (!in)
		return; /* an object without functions */
	if (!file_begin(&out, dir, name)) {
		while (getline(&line, &room, in) > 0) {
			if (head && !strncmp(line, "image ", 6))
				fprintf(out.f, "image %u\n", to);
			else if (head && !strncmp(line, "pid ", 4))
				fprintf(out.f, "pid %u\n", pid);
			else
				fputs(line, out.f);
			head = head && strncmp(line, "functions ", 10);
		}
		file_end(&out);
	}
	free(line);
	fclose(in);
}

/* The image that wrote object n, going up through forks. */
static uint32_t writer_of(const struct shunt_ctl *ctl, uint32_t image, uint32_t n)
{
	while (image && image < SHUNT_CTL_IMAGES && ctl->images[image].parent &&
		ctl->images[image].parent < image && n < ctl->images[image].objects)
		image = ctl->images[image].parent;
	return image;
}

void shunt_dir_images(const struct shunt_recording *r)
{
	uint32_t last = atomic_load(&r->ctl->next_image);

	for (uint32_t i = 1; i <= last && i < SHUNT_CTL_IMAGES; i++) {
		const struct shunt_ctl_image *image = &r->ctl->images[i];
		uint32_t objects = image->objects < 65536 ? image->objects : 65536;

		if (!image->parent || !(r->images[i / 8] & 1 << i % 8))
			continue;
		for (uint32_t n = 0; n < objects; n++)
			copy_object(r->dir, writer_of(r->ctl, i, n), i, n, image->pid);
	}
}

/* ---- the account ---- */

/* Names of threads can be anything: one word, in visible characters. */
static void write_word(FILE *f, const char *word, size_t size)
{
	if (!*word)
		fputc('-', f);
	for (size_t i = 0; i < size && word[i]; i++) {
		unsigned char c = (unsigned char)word[i];

		if (c <= ' ' || c == '\\' || c >= 127)
			fprintf(f, "\\x%02x", c);
		else
			fputc(c, f);
	}
}

struct table {
	FILE *f;
	uint32_t threads;
};

static void write_thread(const struct shunt_ring_thread *t, void *arg)
{
	struct table *table = arg;

	table->threads++;
	fprintf(table->f, "%u %u %u %u ", t->slot, t->tag, t->pid, t->tid);
	write_word(table->f, t->comm, sizeof t->comm);
	fprintf(table->f, " %llu %llu %llu %llu %llu\n", (unsigned long long)t->written,
		(unsigned long long)t->discarded, (unsigned long long)t->overwritten,
		(unsigned long long)t->read, (unsigned long long)t->torn);
}

int shunt_dir_threads(const struct shunt_recording *r, struct shunt_record_totals *sum)
{
	struct shunt_ring_thread total;
	struct table table = { 0 };
	struct file file;
	int err = file_begin(&file, r->dir, "threads");

	if (err)
		return err;
	table.f = file.f;
	fprintf(file.f, "slot image pid tid comm written discarded overwritten read torn\n");
	shunt_ring_account(r->ring, &total, write_thread, &table);
	fprintf(file.f, "total %llu %llu %llu %llu %llu\n", (unsigned long long)total.written,
		(unsigned long long)total.discarded, (unsigned long long)total.overwritten,
		(unsigned long long)total.read, (unsigned long long)total.torn);
	*sum = (struct shunt_record_totals){ total.written, total.discarded, total.overwritten,
		total.read, total.torn, table.threads };
	return file_end(&file);
}
