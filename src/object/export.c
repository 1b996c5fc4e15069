/* SPDX-License-Identifier: MIT */
/*
 * export.c - an object's symbols, for whoever reads the trace later.
 *
 * A reader sees a whole file or none: it is written under a name that begins
 * with a dot and then renamed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "object.h"

struct out {
	int fd, err;
	size_t n;
	char buf[16 << 10];
	char path[PATH_MAX], tmp[PATH_MAX];
};

static void flush(struct out *o)
{
	size_t done = 0;

	while (!o->err && done < o->n) {
		ssize_t r = write(o->fd, o->buf + done, o->n - done);

		if (r < 0 && errno != EINTR)
			o->err = -errno;
		done += r > 0 ? (size_t)r : 0;
	}
	o->n = 0;
}

static void put(struct out *o, char c)
{
	if (o->n == sizeof o->buf)
		flush(o);
	o->buf[o->n++] = c;
}

static void puts_raw(struct out *o, const char *s)
{
	while (*s)
		put(o, *s++);
}

static void put_hex(struct out *o, uint64_t v)
{
	unsigned shift = 60;

	while (shift && !(v >> shift))
		shift -= 4;
	for (;; shift -= 4) {
		put(o, "0123456789abcdef"[v >> shift & 15]);
		if (!shift)
			return;
	}
}

/* Control characters and backslashes as \xNN: a line stays a line. */
static void put_text(struct out *o, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c >= 0x20 && c != 0x7f && c != '\\') {
			put(o, *s);
			continue;
		}
		puts_raw(o, "\\x");
		put(o, "0123456789abcdef"[c >> 4]);
		put(o, "0123456789abcdef"[c & 15]);
	}
}

static void put_head(struct out *o, const struct shunt_object *obj, uint32_t image)
{
	char line[128];

	snprintf(line, sizeof line, "shunt-object 1\nimage %u\npid %d\npath ", image,
		(int)getpid());
	puts_raw(o, line);
	put_text(o, obj->path);
	puts_raw(o, "\nbuild-id ");
	for (unsigned i = 0; i < obj->build_id_len; i++) {
		put(o, "0123456789abcdef"[obj->build_id[i] >> 4]);
		put(o, "0123456789abcdef"[obj->build_id[i] & 15]);
	}
	if (!obj->build_id_len)
		put(o, '-');
	snprintf(line, sizeof line, "\nbase %lx\nfirst-id %u\nfunctions %u\n", obj->base,
		obj->first_id, obj->nfuncs);
	puts_raw(o, line);
}

static void put_func(struct out *o, const struct shunt_object *obj, const struct shunt_func *f)
{
	put_hex(o, f->start - obj->base);
	put(o, ' ');
	put_hex(o, f->size);
	put(o, ' ');
	if (f->name)
		put_text(o, obj->strings + f->name);
	else
		put(o, '?');
	put(o, '\n');
}

static int write_file(struct out *o, const struct shunt_object *obj, uint32_t image)
{
	o->n = 0;
	o->err = 0;
	o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (o->fd < 0)
		return -errno;
	put_head(o, obj, image);
	for (uint32_t i = 0; i < obj->nfuncs; i++)
		put_func(o, obj, &obj->funcs[i]);
	puts_raw(o, "end\n");
	flush(o);
	if (close(o->fd) && !o->err && errno != EINTR)
		o->err = -errno;
	return o->err;
}

static int export_to(struct out *o, const struct shunt_object *obj, const char *dir,
	uint32_t image)
{
	int a = snprintf(o->path, PATH_MAX, "%s/objects/%u-%u", dir, image, obj->id);
	int b = snprintf(o->tmp, PATH_MAX, "%s/objects/.%u-%u.%d", dir, image, obj->id,
		(int)getpid());
	char *slash;
	int r;

	if (a >= PATH_MAX || b >= PATH_MAX)
		return -ENAMETOOLONG;
	r = write_file(o, obj, image);
	if (r == -ENOENT) {
		slash = strrchr(o->tmp, '/');
		*slash = 0;
		if (mkdir(o->tmp, 0777) && errno != EEXIST)
			return -errno;
		*slash = '/';
		r = write_file(o, obj, image);
	}
	if (!r && rename(o->tmp, o->path))
		r = -errno;
	if (r)
		unlink(o->tmp);
	return r;
}

int shunt_object_export(const struct shunt_object *obj, const char *dir, uint32_t image)
{
	struct out *o = malloc(sizeof *o); /* too large for a small stack */
	int e = errno, r = o ? export_to(o, obj, dir, image) : -ENOMEM;

	free(o);
	errno = e;
	return r;
}
