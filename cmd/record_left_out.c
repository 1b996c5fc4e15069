/* SPDX-License-Identifier: MIT */
/*
 * record_left_out.c - functions that were asked for and cannot be traced, since they were not
 * compiled for it: how many for which reason, and which.
 *
 * The agent writes them to left-out/IMAGE of the trace, a line each: reason, object, name.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define REASONS 32

struct sums {
	const struct shunt_recording *r;
	struct {
		char *why;
		uint64_t n;
	} of[REASONS];
	unsigned n;
	uint64_t total;
};

static void count(struct sums *s, const char *why)
{
	unsigned i = 0;

	s->total++;
	while (i < s->n && strcmp(s->of[i].why, why))
		i++;
	if (i == s->n) {
		if (s->n == REASONS || !(s->of[i].why = strdup(why)))
			return;
		s->n++;
	}
	s->of[i].n++;
}

static void one_line(struct sums *s, char *line)
{
	char *object, *name;

	line[strcspn(line, "\n")] = 0;
	object = strchr(line, '\t');
	name = object ? strchr(object + 1, '\t') : NULL;
	if (!name)
		return;
	*object++ = 0;
	*name++ = 0;
	count(s, line);
	if (s->r->why)
		shunt_say("left out %s (%s): %s", name,
			strrchr(object, '/') ? strrchr(object, '/') + 1 : object, line);
}

static void one_file(struct sums *s, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0)
		one_line(s, line);
	free(line);
	if (f)
		fclose(f);
}

static int by_number(const void *x, const void *y)
{
	const uint64_t *a = &((const __typeof__(((struct sums *)0)->of[0]) *)x)->n;
	const uint64_t *b = &((const __typeof__(((struct sums *)0)->of[0]) *)y)->n;

	return *a > *b ? -1 : *a < *b;
}

void shunt_left_out_say(const struct shunt_recording *r)
{
	struct sums s = {.r = r};
	char path[PATH_MAX + 300], n[32];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "%s/left-out", r->dir);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s/left-out/%s", r->dir, e->d_name);
		if (e->d_name[0] != '.')
			one_file(&s, path);
	}
	if (d)
		closedir(d);
	if (s.total)
		shunt_say("%s function%s left out%s", shunt_grouped(s.total, n),
			s.total == 1 ? "" : "s", r->why ? ":" : " (--why lists them):");
	qsort(s.of, s.n, sizeof s.of[0], by_number);
	for (unsigned i = 0; i < s.n; i++) {
		shunt_say("%9s: %s", shunt_grouped(s.of[i].n, n), s.of[i].why);
		free(s.of[i].why);
	}
}
