/* SPDX-License-Identifier: MIT */
/*
 * kind.c - what tracepoints' events are called and made of, as text: a number stands for it in
 * the ring, and the trace has it in a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kind.h"
#include "site/site.h"

/* "provider:name", a tab, the fields. A number is an index + 1. */
static char **kinds;
static uint32_t nkinds, exported;

static void word_of(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n + 1 < size; n++)
		to[n] = (from[n] >= 'a' && from[n] <= 'z') || (from[n] >= 'A' && from[n] <= 'Z') ||
				(from[n] >= '0' && from[n] <= '9')
			? from[n]
			: '_';
	to[n] = 0;
}

struct line {
	char *at;
	size_t left;
	bool cut;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->at, l->left, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= l->left) {
		l->cut = true;
		n = 0;
	}
	l->at += n;
	l->left -= (size_t)n;
}

/* Names that are alike when they are words get their number. */
static void field_name(const struct shunt_point *p, uint32_t i, char *name, size_t size)
{
	char other[64];

	word_of(name, 64, p->fields[i].name);
	for (uint32_t k = 0; k < p->nfields; k++) {
		word_of(other, sizeof other, p->fields[k].name);
		if (k != i && !strcmp(name, other)) {
			snprintf(name + strlen(name), size - strlen(name), "_%u", i + 1);
			return;
		}
	}
}

static void add_field(struct line *l, const struct shunt_point *p, uint32_t i)
{
	static const char letter[] = {'u', 's', 'f', 'p', 'b'};
	const struct shunt_field *f = &p->fields[i];
	char name[80];

	field_name(p, i, name, sizeof name);
	if (f->shape == SHUNT_FIELD_STRING) {
		add(l, "string %s", name);
		return;
	}
	add(l, "%c%u", letter[f->type < 5 ? f->type : 0], f->size * 8u);
	for (const struct shunt_label *b = f->labels; b && b->name; b++) {
		char label[64];

		word_of(label, sizeof label, b->name);
		add(l, "%c%s=%lld", b == f->labels ? '{' : ',', label, (long long)b->value);
	}
	if (f->labels && f->labels->name)
		add(l, "}");
	if (f->shape == SHUNT_FIELD_ARRAY)
		add(l, "[%u]", f->count);
	if (f->shape == SHUNT_FIELD_SEQUENCE)
		add(l, "[]");
	add(l, " %s", name);
}

int shunt_fields_text(const struct shunt_point *p, char *to, size_t size)
{
	struct line l = {to, size, false};

	*to = 0;
	for (uint32_t i = 0; i < p->nfields; i++) {
		if (i)
			add(&l, "\t");
		add_field(&l, p, i);
	}
	return l.cut ? -ENOSPC : 0;
}

static int kind_text(const struct shunt_point *p, char *to, size_t size)
{
	char provider[64], name[128];
	int n;

	word_of(provider, sizeof provider, p->provider);
	word_of(name, sizeof name, p->name);
	n = snprintf(to, size, "%s:%s%s", provider, name, p->nfields ? "\t" : "");
	return shunt_fields_text(p, to + n, size - (size_t)n);
}

int shunt_kind_find(const struct shunt_point *p, char *why, size_t why_size)
{
	char text[2048], **more;

	if (kind_text(p, text, sizeof text)) {
		snprintf(why, why_size, "the fields of %.40s:%.60s have too long a description",
			p->provider, p->name);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < nkinds; i++)
		if (!strcmp(kinds[i], text))
			return (int)i + 1;
	if (nkinds == SHUNT_POINT_IDS) {
		snprintf(why, why_size, "more than %d different tracepoints", SHUNT_POINT_IDS);
		return -ENOSPC;
	}
	more = realloc(kinds, (nkinds + 1) * sizeof *kinds);
	if (!more)
		return -ENOMEM;
	kinds = more;
	kinds[nkinds] = strdup(text);
	if (!kinds[nkinds])
		return -ENOMEM;
	return (int)++nkinds;
}

bool shunt_kinds_new(void)
{
	return exported < nkinds;
}

int shunt_kinds_export(const char *dir, uint32_t image)
{
	char path[1100];
	int fd, err = 0;
	FILE *f;

	shunt_sites_lock();
	if (exported < nkinds) {
		snprintf(path, sizeof path, "%s/points-%u", dir, image);
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
		f = fd < 0 ? NULL : fdopen(fd, "a");
		if (!f)
			err = -errno;
		for (; f && exported < nkinds; exported++)
			fprintf(f, "%u %s\n", exported + 1, kinds[exported]);
		if (f && fclose(f))
			err = -errno;
	}
	if (!err)
		err = (int)exported;
	shunt_sites_unlock();
	return err;
}

void shunt_kinds_exported_none(void)
{
	exported = 0;
}

SHUNT_API int shunt_trace_describe(const char *provider, const char *name, uint32_t *type, char *text,
	size_t size)
{
	char start[256];
	size_t n = (size_t)snprintf(start, sizeof start, "%s:%s", provider, name);
	int err = -ENOENT;

	shunt_sites_lock();
	for (uint32_t i = 0; i < nkinds && n < sizeof start; i++) {
		const char *rest = kinds[i] + n;

		if (strncmp(kinds[i], start, n) || (*rest && *rest != '\t'))
			continue;
		rest += *rest == '\t';
		err = strlen(rest) < size ? 0 : -ENOSPC;
		if (!err)
			strcpy(text, rest);
		*type = i + 1;
	}
	shunt_sites_unlock();
	return err;
}
