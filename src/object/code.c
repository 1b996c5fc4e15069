/* SPDX-License-Identifier: MIT */
/*
 * code.c - the list of an object's functions, read when it is asked for.
 *
 * The file is believed on the same terms as for sites (docs/objects.md); nothing of
 * the object's memory is read, so an object that goes away meanwhile does no harm.
 * A separate debug file is taken if its build-id is the object's, or, without
 * one, if the whole file has the checksum that the object gives.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "code.h"
#include "elf_code.h"
#include "elf_file.h"
#include "object_internal.h"

const char *shunt_code_debug_dir = "/usr/lib/debug";

/* What is read for one list. */
struct reading {
	struct shunt_object *obj;
	struct shunt_file file, debug;
	struct shunt_elf_code code;
	char *debug_path;
};

/* --- the object's own file ------------------------------------------------- */

static int read_from(struct reading *r, const char *path)
{
	int err = shunt_file_read_code(path, &r->file);

	if (err)
		return err;
	err = shunt_elf_code_read(r->file.image, r->file.size, &r->code);
	if (!err) {
		if (shunt_object_is_file(r->obj, &r->file, r->code.build_id,
			    r->code.build_id_len))
			return 0;
		err = -ESTALE;
		shunt_elf_code_free(&r->code);
	}
	shunt_file_free(&r->file);
	return err;
}

/* By its name, or, where that is another file by now, by its mapping. */
static int read_object(struct reading *r)
{
	const struct shunt_map *m;
	struct shunt_maps maps;
	char link[64];
	int err = read_from(r, r->obj->path);

	if (!err || err == -ENOMEM || shunt_maps_read(&maps))
		return err;
	m = shunt_maps_at(&maps, r->obj->text_lo);
	if (m) {
		snprintf(link, sizeof link, "/proc/self/map_files/%lx-%lx", m->lo, m->hi);
		err = read_from(r, link);
	}
	shunt_maps_free(&maps);
	return err;
}

/* --- its debug file ---------------------------------------------------------- */

/* The checksum of .gnu_debuglink: CRC-32 as in ISO 3309. */
static uint32_t crc32(uint32_t crc, const uint8_t *p, size_t n)
{
	static uint32_t table[256]; /* whoever fills it writes the same */

	if (!__atomic_load_n(&table[255], __ATOMIC_ACQUIRE))
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t v = i;

			for (unsigned k = 0; k < 8; k++)
				v = v >> 1 ^ (v & 1 ? 0xedb88320u : 0);
			__atomic_store_n(&table[i], v, __ATOMIC_RELEASE);
		}
	crc = ~crc;
	while (n--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return ~crc;
}

static bool has_crc(const char *path, uint32_t want)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint8_t *buf = malloc(64 << 10);
	uint32_t crc = 0;
	ssize_t n = -1;

	while (fd >= 0 && buf && ((n = read(fd, buf, 64 << 10)) > 0 || (n < 0 && errno == EINTR)))
		crc = n > 0 ? crc32(crc, buf, (size_t)n) : crc;
	free(buf);
	if (fd >= 0)
		close(fd);
	return !n && crc == want;
}

static bool is_debug_of(const struct reading *r, const char *path)
{
	const struct shunt_elf_code *c = &r->code;
	uint8_t id[SHUNT_BUILD_ID_MAX];

	if (!c->build_id_len)
		return has_crc(path, c->debuglink_crc);
	return shunt_elf_code_build_id(r->debug.image, r->debug.size, id) == c->build_id_len
		&& !memcmp(id, c->build_id, c->build_id_len);
}

/* 0: it is the one, and was added; -ENOENT: it is not; -ENOMEM. */
static int try_debug(struct reading *r, const char *path)
{
	int err = -ENOENT;

	if (shunt_file_read(path, &r->debug))
		return err;
	/* Without a debug link the object may be its own file there. */
	if ((r->debug.dev != r->file.dev || r->debug.ino != r->file.ino) && is_debug_of(r, path))
		err = shunt_elf_code_add_debug(r->debug.image, r->debug.size, &r->code);
	if (!err)
		r->debug_path = strdup(path);
	else
		shunt_file_free(&r->debug);
	return err && err != -ENOMEM ? -ENOENT : err;
}

static int by_build_id(struct reading *r)
{
	const struct shunt_elf_code *c = &r->code;
	char path[4096];
	int n;

	if (c->build_id_len < 2)
		return -ENOENT;
	n = snprintf(path, sizeof path, "%s/.build-id/%02x/", shunt_code_debug_dir,
		c->build_id[0]);
	if (n < 0 || (size_t)n + 2 * SHUNT_BUILD_ID_MAX + 8 > sizeof path)
		return -ENOENT;
	for (unsigned i = 1; i < c->build_id_len; i++)
		n += sprintf(path + n, "%02x", c->build_id[i]);
	strcpy(path + n, ".debug");
	return try_debug(r, path);
}

/* The three places where it may be, as gdb has them. */
static int by_link(struct reading *r)
{
	const char *name = r->code.debuglink, *file = strrchr(r->obj->path, '/');
	int dir = file ? (int)(file - r->obj->path) : 0, err = -ENOENT;
	char path[8192];

	if (!*name || strchr(name, '/') || !file || strlen(r->obj->path) > 4096)
		return err;
	for (unsigned i = 0; i < 3 && err == -ENOENT; i++) {
		snprintf(path, sizeof path, "%s%.*s/%s%s", i == 2 ? shunt_code_debug_dir : "",
			dir, r->obj->path, i == 1 ? ".debug/" : "", name);
		err = try_debug(r, path);
	}
	return err;
}

/* --- the list ---------------------------------------------------------------- */

static int read_list(struct reading *r, struct shunt_code_list **list)
{
	int err = read_object(r);

	if (err && err != -ENOMEM) { /* a list that says so */
		err = shunt_code_list_make(&r->code, r->obj->base, list);
		if (!err)
			(*list)->why = "its file cannot be read, or is not what is loaded";
		return err;
	}
	if (!err)
		err = by_build_id(r);
	if (err == -ENOENT)
		err = by_link(r);
	if (err && err != -ENOENT)
		return err;
	err = shunt_code_list_make(&r->code, r->obj->base, list);
	if (err)
		return err;
	(*list)->debug = r->debug_path;
	r->debug_path = NULL;
	if (!(*list)->nfuncs)
		(*list)->why = "its file names no functions";
	return 0;
}

/* One that went and came back at the same place has the same functions. */
static struct shunt_code_list *of_twin(const struct shunt_object *obj)
{
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		if (o != obj && o->code && o->code->nfuncs && o->base == obj->base
			&& o->build_id_len && o->build_id_len == obj->build_id_len
			&& !memcmp(o->build_id, obj->build_id, obj->build_id_len)
			&& o->signature == obj->signature && !strcmp(o->path, obj->path))
			return o->code;
	return NULL;
}

static int make_list(struct shunt_object *obj, struct shunt_code_list **list)
{
	struct reading r = {.obj = obj};
	int err;

	*list = of_twin(obj);
	if (*list)
		return 0;
	err = read_list(&r, list);
	if (!err) {
		(*list)->obj = obj;
		shunt_log(SHUNT_LOG_DEBUG, "%s: %u functions, %u names, %u landing pads, %zu bytes",
			obj->path, (*list)->nfuncs, (*list)->nnames, (*list)->npads,
			(*list)->bytes);
	}
	free(r.debug_path);
	shunt_elf_code_free(&r.code);
	shunt_file_free(&r.file);
	shunt_file_free(&r.debug);
	return err;
}

int shunt_code_of(struct shunt_object *obj, const struct shunt_code_list **list)
{
	struct shunt_code_list *l;
	int e = errno, err = 0;

	obj = obj->of ? obj->of : obj;
	l = __atomic_load_n(&obj->code, __ATOMIC_ACQUIRE);
	if (!l) {
		shunt_objects_lock();
		l = obj->code;
		if (!l) {
			err = make_list(obj, &l);
			if (!err) /* pairs with the load above */
				__atomic_store_n(&obj->code, l, __ATOMIC_RELEASE);
		}
		shunt_objects_unlock();
	}
	*list = err ? NULL : l;
	errno = e;
	return err;
}

const struct shunt_code_func *shunt_code_at(uintptr_t addr, const struct shunt_code_list **list)
{
	struct shunt_object *obj = shunt_object_of(addr);
	const struct shunt_code_list *l = NULL;
	const struct shunt_code_func *f = NULL;

	if (obj && !shunt_code_of(obj, &l))
		f = shunt_code_in(l, addr);
	if (list)
		*list = l;
	return f;
}
