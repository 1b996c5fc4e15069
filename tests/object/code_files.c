/* SPDX-License-Identifier: MIT */
/*
 * code_files.c - the functions of a file as we read them, beside what binutils say:
 * every symbol and every frame is there, with its address and size, and nothing
 * else; landing pads are at instructions. And files that are damaged.
 *
 * usage: code_files DIRECTORY-OF-VICTIMS [rounds [file..]]
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tap.h"
#include "code_sound.h"
#include "object/code.h"
#include "object/elf_code.h"
#include "object/elf_file.h"
#include "object/elf_view.h"

static const char *dir;

/* --- reading ------------------------------------------------------------------ */

static struct shunt_code_list *list_of(const uint8_t *image, size_t size, uint64_t *lo, uint64_t *hi)
{
	struct shunt_code_list *l = NULL;
	struct shunt_elf_code c;

	if (shunt_elf_code_read(image, size, &c))
		return NULL;
	*lo = c.text_lo;
	*hi = c.text_hi;
	if (shunt_code_list_make(&c, 0, &l))
		l = NULL;
	shunt_elf_code_free(&c);
	return l;
}

static struct shunt_code_list *read_list(const char *path)
{
	struct shunt_code_list *l = NULL;
	struct shunt_file file;
	uint64_t lo, hi;

	if (!shunt_file_read_code(path, &file))
		l = list_of(file.image, file.size, &lo, &hi);
	shunt_file_free(&file);
	return l;
}

struct addrs {
	uint64_t *at;
	size_t n, room;
};

static void push(struct addrs *a, uint64_t v)
{
	if (a->n == a->room) {
		a->room = a->room ? a->room * 2 : 1024;
		a->at = realloc(a->at, a->room * sizeof *a->at);
		if (!a->at)
			abort();
	}
	a->at[a->n++] = v;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sort_unique(struct addrs *a)
{
	size_t n = 0;

	if (a->n)
		qsort(a->at, a->n, sizeof *a->at, by_value);
	for (size_t i = 0; i < a->n; i++)
		if (!n || a->at[i] != a->at[n - 1])
			a->at[n++] = a->at[i];
	a->n = n;
}

static bool has(const struct addrs *a, uint64_t v)
{
	return a->n && bsearch(&v, a->at, a->n, sizeof v, by_value);
}

static FILE *tool(const char *command, const char *path)
{
	char text[4200];

	snprintf(text, sizeof text, "LC_ALL=C %s '%s' 2>/dev/null", command, path);
	return popen(text, "r");
}

/* --- beside readelf -------------------------------------------------------------- */

struct versus {
	struct shunt_code_list *list;
	struct addrs starts; /* that somebody named */
	unsigned symbols, frames, wrong;
};

static void wrong(struct versus *v, const char *what, uint64_t addr, const char *name)
{
	if (v->wrong++ < 5)
		diag("%s: %s at %#" PRIx64, what, name, addr);
}

static const struct shunt_code_func *func_at(const struct shunt_code_list *l, uint64_t addr)
{
	const struct shunt_code_func *f = shunt_code_in(l, addr);

	return f && f->start == addr ? f : NULL;
}

static void check_symbol(struct versus *v, uint64_t addr, uint64_t size, const char *type,
	char *name)
{
	const struct shunt_code_list *l = v->list;
	const struct shunt_code_func *f = func_at(l, addr);
	const struct shunt_code_name *n = NULL;
	char *at = strchr(name + 1, '@');

	if (at)
		*at = 0;
	v->symbols++;
	push(&v->starts, addr);
	if (!f) {
		wrong(v, "not found", addr, name);
		return;
	}
	while ((n = shunt_code_named(l, name, n)) && &l->funcs[n->func] != f)
		;
	if (!n)
		wrong(v, "its name is not", addr, name);
	else if (n->name == f->name && size && f->size != size)
		wrong(v, "another size", addr, name);
	/* These are jumped to, or called with more on the stack than a return address. */
	if (f->flags & SHUNT_CODE_NOT_CALLED && !(f->flags & SHUNT_CODE_COLD)
		&& strcmp(name, "_start") && strncmp(name, "_dl_runtime_", 12)
		&& strncmp(name, "shunt_", 6))
		wrong(v, "taken for one that is not called", addr, name);
	if (n && n->ifunc != !strcmp(type, "IFUNC"))
		wrong(v, "IFUNC or not", addr, name);
}

static bool symbols(struct versus *v, const char *path)
{
	FILE *f = tool("readelf -sW", path);
	char line[8192], size[32], type[32], ndx[32], name[4096];
	uint64_t addr;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%*d: %" SCNx64 " %31s %31s %*s %*s %31s %4095s", &addr, size,
			    type, ndx, name) == 5
			&& (!strcmp(type, "FUNC") || !strcmp(type, "IFUNC"))
			&& strcmp(ndx, "UND") && strcmp(ndx, "ABS"))
			check_symbol(v, addr, strtoull(size, NULL, 0), type, name);
	return f && !pclose(f);
}

static void check_frame(struct versus *v, uint64_t lo, uint64_t hi)
{
	const struct shunt_code_func *f = func_at(v->list, lo);

	v->frames++;
	push(&v->starts, lo);
	if (!f || !(f->flags & SHUNT_CODE_FDE))
		wrong(v, "no function", lo, "frame");
	else if (!f->name && f->size != hi - lo)
		wrong(v, "another size", lo, "frame");
}

static bool frames(struct versus *v, const char *path)
{
	FILE *f = tool("readelf -wNf", path);
	uint64_t cie = 0, lo, hi;
	struct addrs signals = {0};
	char line[4096], *p;

	while (f && fgets(line, sizeof line, f)) {
		if (strstr(line, " CIE"))
			cie = strtoull(line, NULL, 16);
		else if ((p = strstr(line, "Augmentation: ")) && strchr(p, '"')
			&& strchr(strchr(p, '"'), 'S'))
			push(&signals, cie);
		else if ((p = strstr(line, " FDE cie="))
			&& sscanf(p, " FDE cie=%" SCNx64 " pc=%" SCNx64 "..%" SCNx64, &cie, &lo,
				   &hi) == 3
			&& !has(&signals, cie))
			check_frame(v, lo, hi);
	}
	free(signals.at);
	return f && !pclose(f);
}

static void beside_binutils(const char *path)
{
	struct versus v = {.list = read_list(path)};

	if (!v.list) {
		skip("%s is not here", path);
		return;
	}
	if (!symbols(&v, path) || !frames(&v, path)) {
		skip("no readelf");
	} else {
		sort_unique(&v.starts);
		ok(!v.wrong && v.symbols + v.frames,
			"%s: %u symbols and %u frames are as readelf has them", path, v.symbols,
			v.frames);
		ok(v.list->nfuncs == v.starts.n && !v.list->bad_frames && !v.list->bad_pads,
			"and nothing else is there: %u functions", v.list->nfuncs);
	}
	free(v.starts.at);
	shunt_code_list_free(v.list);
}

/* --- landing pads, beside objdump --------------------------------------------------- */

static void pads_at_instructions(const char *path)
{
	struct shunt_code_list *l = read_list(path);
	FILE *f = tool("objdump -dw --no-show-raw-insn", path);
	struct addrs insns = {0};
	unsigned off = 0, homeless = 0;
	char line[4096], *end;

	while (f && fgets(line, sizeof line, f)) {
		uint64_t addr = strtoull(line, &end, 16);

		if (*line == ' ' && end[0] == ':' && end[1] == '\t')
			push(&insns, addr);
	}
	sort_unique(&insns);
	for (uint32_t i = 0; l && i < l->npads; i++) {
		const struct shunt_code_func *fn = shunt_code_in(l, l->pads[i]);

		off += !has(&insns, l->pads[i]);
		homeless += !fn || fn->start == l->pads[i];
	}
	if (!f || pclose(f) || !l)
		skip("no objdump, or no %s", path);
	else
		ok(l->npads && !off && !homeless, "%s: %u landing pads are at instructions in "
			"functions, at no start (%u, %u)", path, l->npads, off, homeless);
	free(insns.at);
	shunt_code_list_free(l);
}

/* --- damage ------------------------------------------------------------------------ */

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* In memory of exactly that size, for the sanitizer to see. */
static const char *unsound(const uint8_t *image, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct shunt_code_list *l;
	const char *bad = NULL;
	uint64_t lo, hi;

	if (!copy)
		abort();
	memcpy(copy, image, size);
	l = list_of(copy, size, &lo, &hi);
	free(copy);
	if (l)
		bad = code_unsound(l, lo, hi);
	shunt_code_list_free(l);
	return bad;
}

static void damaged(const char *path, unsigned rounds)
{
	static const uint8_t nasty[] = {0, 1, 0x7f, 0x80, 0xff, 0x3f, 0x1b, 0x9b};
	const char *bad = NULL, *cut = NULL;
	struct shunt_file file;
	uint8_t *image;

	if (shunt_file_read_code(path, &file)) {
		ok(0, "%s can be read", path);
		return;
	}
	image = malloc(file.size);
	for (unsigned i = 0; image && i < rounds && !bad; i++) {
		unsigned n = 1 + (unsigned)(rnd() % 8);

		memcpy(image, file.image, file.size);
		for (unsigned k = 0; k < n; k++) /* headers at both ends, and anywhere */
			image[rnd() % 4 ? rnd() % file.size : rnd() % 2 ? rnd() % 1024
					: file.size - 1 - rnd() % 2048] =
				rnd() % 2 ? (uint8_t)rnd() : nasty[rnd() % sizeof nasty];
		bad = unsound(image, file.size);
	}
	ok(image && !bad, "%s, damaged %u times: what is read is sound %s", path, rounds,
		bad ? bad : "");
	for (size_t n = 0; n < file.size && !cut; n += 1 + file.size / 200)
		cut = unsound(file.image, n);
	ok(!cut, "cut short anywhere: what is read is sound %s", cut ? cut : "");
	free(image);
	shunt_file_free(&file);
}

/* A copy that ends where memory ends: who reads on gets a signal. */
static uint8_t *guarded(const uint8_t *from, size_t n)
{
	size_t page = 4096, size = (n + page - 1) / page * page;
	uint8_t *p = mmap(NULL, size + page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + size, page, PROT_NONE))
		abort();
	return memcpy(p + size - n, from, n);
}

static struct shunt_elf_bytes section(const struct shunt_elf_view *v, const char *name)
{
	struct shunt_elf_table t;
	Elf64_Shdr sh;

	for (uint32_t i = 0; shunt_elf_section(v, i, &sh); i++)
		if (shunt_elf_named(v, &sh, name) && shunt_elf_table_of(v, &sh, 1, &t))
			return (struct shunt_elf_bytes){t.at, sh.sh_addr, t.n};
	return (struct shunt_elf_bytes){0};
}

/* The sections alone, as long as they are, and cut short anywhere. */
static void frames_cut(const char *path)
{
	struct shunt_elf_bytes frames_, lsda, f, t;
	struct shunt_elf_code c = {.text_hi = 1 << 20, .parts = {{0, 1 << 20, false}},
		.nparts = 1};
	struct shunt_elf_view v;
	struct shunt_file file;
	size_t whole = 0, pads = 0;
	bool more = false;
	int err = 0;

	if (shunt_file_read_code(path, &file) || shunt_elf_open(&v, file.image, file.size)) {
		ok(0, "%s can be read", path);
		return;
	}
	frames_ = f = section(&v, ".eh_frame");
	lsda = t = section(&v, ".gcc_except_table");
	f.at = guarded(frames_.at, f.n);
	t.at = guarded(lsda.at, t.n);
	for (size_t n = frames_.n; n; n--) {
		f = (struct shunt_elf_bytes){f.at + f.n - n, frames_.addr, n};
		memcpy((uint8_t *)f.at, frames_.at, n);
		c.nsaid = c.npads = 0;
		err |= shunt_elf_frames(&c, &f, &t);
		whole = n == frames_.n ? c.nsaid : whole;
		more |= c.nsaid > whole;
	}
	f = (struct shunt_elf_bytes){frames_.at, frames_.addr, frames_.n};
	for (size_t n = lsda.n; n; n--) {
		t = (struct shunt_elf_bytes){t.at + t.n - n, lsda.addr, n};
		memcpy((uint8_t *)t.at, lsda.at, n);
		c.nsaid = c.npads = 0;
		err |= shunt_elf_frames(&c, &f, &t);
		pads = n == lsda.n ? c.npads : pads;
		more |= c.npads > pads || c.nsaid != whole;
	}
	ok(!err && !more && whole > 10 && pads > 10, "frames and tables cut short anywhere are not read beyond");
	shunt_elf_code_free(&c);
	shunt_file_free(&file);
}

/* --- no memory ---------------------------------------------------------------------- */

static long left = -1; /* allocations that succeed; -1: all */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);

static bool fails(void)
{
	return left >= 0 && !left--;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
	return fails() ? NULL : __real_calloc(n, each);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

/* Each allocation fails in turn; a sanitizer sees what is lost. */
static void no_memory(const char *path)
{
	struct shunt_code_list *l;
	struct shunt_file file;
	unsigned refused = 0, round = 0;
	const char *bad = NULL;
	bool whole = false;
	uint64_t lo, hi;

	if (shunt_file_read_code(path, &file)) {
		ok(0, "%s can be read", path);
		return;
	}
	for (bool spent = true; spent && round < 1000 && !bad; round++) {
		left = round;
		l = list_of(file.image, file.size, &lo, &hi);
		spent = left < 0; /* one did fail; where memory is given back, no matter */
		left = -1;
		whole = l;
		refused += !whole;
		bad = l ? code_unsound(l, lo, hi) : NULL;
		shunt_code_list_free(l);
	}
	ok(whole && !bad && refused > 10 && round < 1000,
		"%s: whichever of %u allocations fails, nothing or a whole list comes of it", path,
		round - 1);
	shunt_file_free(&file);
}

static const char *victim(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

int main(int argc, char **argv)
{
	static const char *const system_files[] = {"/lib/x86_64-linux-gnu/libc.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/python3.11", "/usr/bin/git",
		"/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/bin/gdb"};
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 1000;

	dir = argc > 1 ? argv[1] : ".";
	if (argc > 3) {
		for (int i = 3; i < argc; i++)
			beside_binutils(argv[i]);
		return done();
	}
	for (size_t i = 0; i < sizeof system_files / sizeof *system_files; i++)
		beside_binutils(system_files[i]);
	beside_binutils(victim("code.so"));
	beside_binutils(victim("throw.so"));
	beside_binutils(victim("own-static"));
	beside_binutils(victim("throw-nopie"));
	pads_at_instructions(victim("throw.so"));
	pads_at_instructions(victim("throw-large.so"));
	pads_at_instructions(victim("throw-nopie"));
	pads_at_instructions("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
	frames_cut(victim("throw.so"));
	no_memory(victim("throw.so"));
	damaged(victim("code.so"), rounds);
	damaged(victim("throw.so"), rounds);
	return done();
}
