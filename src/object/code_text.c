/* SPDX-License-Identifier: MIT */
/* code_text.c - what of an object is loaded, as its file has it (code.h). */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "code.h"
#include "elf_code.h"
#include "elf_file.h"
#include "object_internal.h"

static bool has_section(const struct shunt_file *f, const char *name)
{
	Elf64_Shdr sh, names = {0};
	size_t len = strlen(name) + 1;
	Elf64_Ehdr eh;

	memcpy(&eh, f->image, sizeof eh);
	if (eh.e_shentsize != sizeof sh || eh.e_shstrndx >= eh.e_shnum || eh.e_shoff > f->size ||
		(uint64_t)eh.e_shnum * sizeof sh > f->size - eh.e_shoff)
		return false;
	memcpy(&names, f->image + eh.e_shoff + eh.e_shstrndx * sizeof sh, sizeof sh);
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		uint64_t at;

		memcpy(&sh, f->image + eh.e_shoff + i * sizeof sh, sizeof sh);
		at = names.sh_offset + sh.sh_name;
		if (at < f->size && f->size - at >= len && !memcmp(f->image + at, name, len))
			return true;
	}
	return false;
}

static bool read_at(int fd, uint8_t *to, uint64_t n, uint64_t off)
{
	while (n) {
		ssize_t got = pread(fd, to, n, (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		to += got;
		off += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return true;
}

/* More than that between an object's segments is nobody's. */
#define MAX_SPAN (4ull << 30)

/* Calls for each segment; a first time, with t->bytes NULL, to see where they are. */
static int each_segment(int fd, const struct shunt_object *obj, const struct shunt_file *f,
	struct shunt_code_text *t)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	memcpy(&eh, f->image, sizeof eh);
	if (eh.e_phentsize != sizeof ph || eh.e_phoff > f->size ||
		(uint64_t)eh.e_phnum * sizeof ph > f->size - eh.e_phoff)
		return -ESTALE;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		uintptr_t at;

		memcpy(&ph, f->image + eh.e_phoff + i * sizeof ph, sizeof ph);
		if (ph.p_type != PT_LOAD || !ph.p_filesz)
			continue;
		at = obj->base + ph.p_vaddr;
		if (!t->bytes) {
			t->lo = at < t->lo ? at : t->lo;
			t->hi = at + ph.p_filesz > t->hi ? at + ph.p_filesz : t->hi;
		} else if (!read_at(fd, t->bytes + (at - t->lo), ph.p_filesz, ph.p_offset)) {
			return -EIO;
		}
	}
	return 0;
}

static int read_segments(int fd, const struct shunt_object *obj, const struct shunt_file *f,
	struct shunt_code_text *t)
{
	int r = each_segment(fd, obj, f, t);
	void *p;

	if (r || t->hi - t->lo > MAX_SPAN)
		return r ? r : -ESTALE;
	p = mmap(NULL, t->hi - t->lo, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	t->bytes = p;
	return each_segment(fd, obj, f, t);
}

static int read_text(const struct shunt_object *obj, const char *path, struct shunt_code_text *t)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r;
	uint8_t id[SHUNT_BUILD_ID_MAX];
	struct shunt_file file;
	struct stat st;

	if (fd < 0)
		return -errno;
	r = shunt_file_read(path, &file);
	if (r) {
		close(fd);
		return r;
	}
	if (fstat(fd, &st) || st.st_dev != file.dev || st.st_ino != file.ino ||
		!shunt_object_is_file(obj, &file, id,
			shunt_elf_code_build_id(file.image, file.size, id)))
		r = -ESTALE;
	if (!r) {
		t->has_sites = has_section(&file, "shunt_sites");
		r = read_segments(fd, obj, &file, t);
	}
	shunt_file_free(&file);
	close(fd);
	return r;
}

int shunt_code_text_read(const struct shunt_object *obj, struct shunt_code_text *t)
{
	int e = errno, r;

	*t = (struct shunt_code_text){.lo = obj->text_lo, .hi = obj->text_hi};
	r = read_text(obj, obj->path, t);
	if (r)
		shunt_code_text_free(t);
	errno = e;
	return r;
}

void shunt_code_text_free(struct shunt_code_text *t)
{
	if (t->bytes)
		munmap(t->bytes, t->hi - t->lo);
	t->bytes = NULL;
}
