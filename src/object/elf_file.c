/* SPDX-License-Identifier: MIT */
/*
 * elf_file.c - reading the file behind a loaded object, in a process that is
 * not ours.
 *
 * The file is read, never mapped: a file that is cut short meanwhile must not
 * kill the program by SIGBUS. Only what elf_image.c looks at is read, into an
 * anonymous mapping as large as the file, so that offsets stay what they are
 * and debug information costs nothing. The descriptor is closed before return.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "elf_file.h"

#define SMALL	 (256u << 10) /* read as a whole */
#define MAX_SIZE (64ull << 30)

/* --- maps ---------------------------------------------------------------- */

static int read_all(const char *path, char **text)
{
	size_t room = 64 << 10, n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = 1;
	char *p, *q;

	if (fd < 0)
		return -errno;
	p = malloc(room);
	while (p && got > 0) {
		if (n + 1 == room) {
			room *= 2;
			q = realloc(p, room);
			if (!q)
				free(p);
			p = q;
			continue;
		}
		got = read(fd, p + n, room - n - 1);
		n += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	if (!p)
		return -ENOMEM;
	p[n] = 0;
	*text = p;
	return 0;
}

/* The kernel writes a newline in a path as \012, and nothing else so. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (!strncmp(s, "\\012", 4)) {
			*to++ = '\n';
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

static bool parse_line(char *line, struct shunt_map *m)
{
	unsigned long lo, hi, ino;
	unsigned major_, minor_;
	char perm[5];
	int path = 0;

	if (sscanf(line, "%lx-%lx %4s %*x %x:%x %lu %n", &lo, &hi, perm, &major_, &minor_,
		    &ino, &path) < 6
		|| !path)
		return false;
	unescape(line + path);
	*m = (struct shunt_map){lo, hi, perm[0] == 'r', makedev(major_, minor_), ino,
		line + path};
	return true;
}

int shunt_maps_read(struct shunt_maps *maps)
{
	size_t lines = 0;
	int r;

	memset(maps, 0, sizeof *maps);
	r = read_all("/proc/thread-self/maps", &maps->text);
	if (r)
		return r;
	for (const char *p = maps->text; (p = strchr(p, '\n')); p++)
		lines++;
	maps->map = calloc(lines + 1, sizeof *maps->map);
	if (!maps->map) {
		shunt_maps_free(maps);
		return -ENOMEM;
	}
	for (char *line = maps->text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		maps->n += parse_line(line, &maps->map[maps->n]);
	}
	return 0;
}

void shunt_maps_free(struct shunt_maps *maps)
{
	free(maps->map);
	free(maps->text);
	memset(maps, 0, sizeof *maps);
}

const struct shunt_map *shunt_maps_at(const struct shunt_maps *maps, uintptr_t addr)
{
	size_t lo = 0, hi = maps->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (addr < maps->map[mid].lo)
			hi = mid;
		else if (addr >= maps->map[mid].hi)
			lo = mid + 1;
		else
			return &maps->map[mid];
	}
	return NULL;
}

bool shunt_maps_readable(const struct shunt_maps *maps, uintptr_t lo, uintptr_t hi)
{
	while (lo < hi) {
		const struct shunt_map *m = shunt_maps_at(maps, lo);

		if (!m || !m->readable)
			return false;
		lo = m->hi;
	}
	return true;
}

/* --- the file ------------------------------------------------------------ */

/* Reads a range, as far as there is one. */
static void fetch(int fd, struct shunt_file *f, uint64_t off, uint64_t len)
{
	if (off >= f->size)
		return;
	if (len > f->size - off)
		len = f->size - off;
	while (len) {
		ssize_t got = pread(fd, f->image + off, len, (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return;
		off += (uint64_t)got;
		len -= (uint64_t)got;
	}
}

/* Sections of program data that are read; the first few always. */
static const char *const want[] = {"__patchable_function_entries", "__mcount_loc",
	".eh_frame", ".eh_frame_hdr", ".gcc_except_table", ".gnu_debuglink"};

#define WANT_ALWAYS 4
#define WANT_CODE   (sizeof want / sizeof *want)

static bool wanted(const struct shunt_file *f, const Elf64_Shdr *sh, const Elf64_Shdr *names,
	size_t nwant)
{
	uint64_t at = names->sh_offset + sh->sh_name;

	switch (sh->sh_type) {
	case SHT_SYMTAB:
	case SHT_STRTAB:
	case SHT_DYNSYM:
	case SHT_NOTE:
		return true;
	case SHT_RELA:
		return sh->sh_flags & SHF_ALLOC;
	case SHT_DYNAMIC:
	case SHT_GNU_versym:
		return nwant == WANT_CODE;
	case SHT_NOBITS:
		return false;
	}
	for (size_t i = 0; i < nwant; i++) {
		size_t len = strlen(want[i]) + 1;

		if (at < f->size && f->size - at >= len && !memcmp(f->image + at, want[i], len))
			return true;
	}
	return false;
}

static void fetch_sections(int fd, struct shunt_file *f, size_t nwant)
{
	Elf64_Shdr sh, names = {0};
	uint64_t table, size;
	Elf64_Ehdr eh;

	fetch(fd, f, 0, 4096);
	memcpy(&eh, f->image, sizeof eh);
	fetch(fd, f, eh.e_phoff, (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr));
	table = eh.e_shoff;
	size = (uint64_t)eh.e_shnum * sizeof sh;
	if (eh.e_shentsize != sizeof sh || table > f->size || size > f->size - table)
		return;
	fetch(fd, f, table, size);
	if (eh.e_shstrndx < eh.e_shnum)
		memcpy(&names, f->image + table + eh.e_shstrndx * sizeof sh, sizeof sh);
	fetch(fd, f, names.sh_offset, names.sh_size);
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		memcpy(&sh, f->image + table + i * sizeof sh, sizeof sh);
		if (wanted(f, &sh, &names, nwant))
			fetch(fd, f, sh.sh_offset, sh.sh_size);
	}
}

static int read_open(int fd, struct shunt_file *f, size_t nwant)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr)
		|| (uint64_t)st.st_size > MAX_SIZE)
		return -ENOEXEC;
	f->size = (size_t)st.st_size;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->image = mmap(NULL, f->size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->image == MAP_FAILED)
		return -ENOMEM;
	if (f->size <= SMALL)
		fetch(fd, f, 0, f->size);
	else
		fetch_sections(fd, f, nwant);
	return 0;
}

static int read_file(const char *path, struct shunt_file *file, size_t nwant)
{
	/* Whatever is at that name by now: do not wait for it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int r;

	memset(file, 0, sizeof *file);
	if (fd < 0)
		return -errno;
	r = read_open(fd, file, nwant);
	close(fd);
	if (r)
		memset(file, 0, sizeof *file);
	return r;
}

int shunt_file_read(const char *path, struct shunt_file *file)
{
	return read_file(path, file, WANT_ALWAYS);
}

int shunt_file_read_code(const char *path, struct shunt_file *file)
{
	return read_file(path, file, WANT_CODE);
}

void shunt_file_free(struct shunt_file *file)
{
	if (file->image)
		munmap(file->image, file->size);
	memset(file, 0, sizeof *file);
}
