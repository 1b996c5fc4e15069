/* SPDX-License-Identifier: MIT */
/*
 * sites.c - every way to compile victim.c: the functions found are those that
 * the source has, each once, with the site that the compiler left.
 *
 * usage: sites DIRECTORY REPORT.so; what is not there was not built.
 */
#include <dlfcn.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tap.h"
#include "object/elf_file.h"
#include "object/elf_image.h"
#include "object/object.h"

struct variant {
	const char *file;
	int kind, len;
	const char *names; /* sorted; NULL: number only */
	unsigned n;
	bool missed, refused;
};

#define C5    "victim_apply victim_local victim_one victim_two victim_unused"
#define MAIN6 "main victim_apply victim_local victim_one victim_two victim_unused"
#define CXX6 \
	"_ZN6victim12shared_firstEi _ZN6victim13shared_secondEi _ZN6victim3boxIiE3setEi " \
	"_ZN6victim6user_aEi _ZN6victim6user_bEi _ZNK6victim3boxIiE3getEv"

#define NOP5 SHUNT_SITE_NOP5
#define NOPS SHUNT_SITE_NOP1x5
#define LONG SHUNT_SITE_NOPLONG
#define CALL SHUNT_SITE_CALL_FENTRY

static const struct variant variants[] = {
	{"gcc-5.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-5-O0.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-5-cf.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-16-11.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-16-11-cf.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-9-2.so", NOPS, 7, C5, 5, 0, 0},
	{"gcc-5-3.so", 0, 0, "", 0, 0, 1},
	{"gcc-4.so", 0, 0, "", 0, 0, 1},
	{"gcc-5-stripped.so", NOPS, 5, NULL, 5, 0, 0},
	{"gcc-9-2-stripped.so", NOPS, 7, NULL, 5, 0, 0},
	{"gcc-5-gc.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-5-lld.so", NOPS, 5, C5, 5, 0, 0},
	{"gcc-fentry.so", CALL, 6, C5, 5, 0, 0},
	{"gcc-plain.so", 0, 0, "", 0, 0, 0},
	{"clang-5.so", NOP5, 5, C5, 5, 0, 0},
	{"clang-5-cf.so", NOP5, 5, C5, 5, 0, 0},
	{"clang-16-11.so", NOP5, 5, C5, 5, 0, 0},
	{"clang-20-11.so", LONG, 9, C5, 5, 0, 0},
	{"clang-5-stripped.so", NOP5, 5, NULL, 5, 0, 0},
	{"clang-fentry.so", CALL, 5, C5, 5, 0, 0},
	{"gxx-5.so", NOPS, 5, CXX6, 6, 1, 0},
	{"clangxx-5.so", NOP5, 5, CXX6, 6, 0, 0},
	{"gcc-5-pie", NOPS, 5, MAIN6, 6, 0, 0},
	{"gcc-5-nopie", NOPS, 5, MAIN6, 6, 0, 0},
	{"gcc-nop-mcount", NOP5, 5, MAIN6, 6, 0, 0},
	{"gcc-record-mcount", CALL, 5, MAIN6, 6, 0, 0},
	{"gcc-nop-record-mcount", NOP5, 5, MAIN6, 6, 0, 0},
	{"gcc-fentry-static", CALL, 0, NULL, 6, 0, 0},
	{"clang-5-pie", NOP5, 5, MAIN6, 6, 0, 0},
};

#define MAX 64

struct result {
	unsigned n;
	const char *name[MAX];
	int kind[MAX], len[MAX];
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void join(const struct result *r, char *out, size_t size)
{
	const char *names[MAX];

	memcpy(names, r->name, sizeof names);
	qsort(names, r->n, sizeof *names, by_name);
	*out = 0;
	for (unsigned i = 0; i < r->n; i++) {
		strncat(out, i ? " " : "", size - strlen(out) - 1);
		strncat(out, names[i], size - strlen(out) - 1);
	}
}

static void compare(const struct variant *v, const char *how, const struct result *r)
{
	bool shapes = true;
	char names[4096];

	join(r, names, sizeof names);
	for (unsigned i = 0; i < r->n; i++)
		shapes &= r->kind[i] == v->kind && (!v->len || r->len[i] == v->len);
	if (!ok(r->n == v->n && (!v->names || !strcmp(names, v->names)),
		    "%s, %s: exactly its own functions are found", v->file, how))
		diag("%u: %s", r->n, names);
	if (!ok(shapes, "%s, %s: each site is what the compiler left", v->file, how))
		for (unsigned i = 0; i < r->n; i++)
			diag("%s kind %d len %d", r->name[i], r->kind[i], r->len[i]);
}

static size_t file_code(const struct shunt_file *f, struct shunt_code *code, size_t max)
{
	const Elf64_Ehdr *eh = (const void *)f->image;
	const Elf64_Phdr *ph = (const void *)(f->image + eh->e_phoff);
	size_t n = 0;

	for (int i = 0; i < eh->e_phnum && n < max; i++)
		if (ph[i].p_type == PT_LOAD && ph[i].p_flags & PF_X)
			code[n++] = (struct shunt_code){f->image + ph[i].p_offset,
				ph[i].p_vaddr, ph[i].p_filesz};
	return n;
}

/* The functions a static libc brings are not ours to count. */
static bool counts(const struct variant *v, const char *name)
{
	return !strstr(v->file, "static") || !strncmp(name, "victim", 6)
		|| !strcmp(name, "main");
}

static void from_file(const struct variant *v, const char *path)
{
	struct shunt_finding found = {0};
	struct shunt_code code[4];
	struct result r = {0};
	struct shunt_file f;
	struct shunt_elf e;

	if (!ok(!shunt_file_read(path, &f) && !shunt_elf_parse(f.image, f.size, &e),
		    "%s: can be read", v->file))
		return;
	/* In case it is too large to have been read as a whole. */
	if (f.size > 256 << 10) {
		FILE *in = fopen(path, "r");

		ok(in && fread(f.image, 1, f.size, in) == f.size, "%s: read whole", v->file);
		fclose(in);
	}
	found.found = calloc(shunt_elf_room(&e), sizeof *found.found);
	shunt_elf_find(&e, code, file_code(&f, code, 4), &found);
	for (size_t i = 0; i < found.n && r.n < MAX; i++) {
		const struct shunt_found *s = &found.found[i];
		const char *name = s->start != UINT32_MAX ? e.starts[s->start].name : NULL;

		name = name ? name : "";
		if (!counts(v, name))
			continue;
		r.name[r.n] = name;
		r.kind[r.n] = s->kind;
		r.len[r.n++] = s->len;
	}
	compare(v, "in the file", &r);
	ok(!!found.missed == v->missed, "%s: %u missed by its section", v->file, found.missed);
	ok(!!found.refused == v->refused, "%s: %u entries refused", v->file, found.refused);
	free(found.found);
	shunt_elf_free(&e);
	shunt_file_free(&f);
}

static struct shunt_object *object_named(const char *path)
{
	char real[4096];

	if (!realpath(path, real))
		return NULL;
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		if (!o->gone && !strcmp(o->path, real))
			return o;
	return NULL;
}

static void from_library(const struct variant *v, const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	struct shunt_object *o = NULL;
	struct result r = {0};
	bool right = true;

	if (!ok(lib && !shunt_objects_refresh() && (o = object_named(path)),
		    "%s: is seen when loaded", v->file)) {
		diag("%s", lib ? "not found" : dlerror());
		return;
	}
	for (uint32_t i = 0; i < o->nfuncs && r.n < MAX; i++) {
		const struct shunt_func *f = &o->funcs[i];
		const char *name = o->strings + f->name;
		void *sym = *name ? dlsym(lib, name) : NULL;

		r.name[r.n] = name;
		r.kind[r.n] = f->kind;
		r.len[r.n++] = f->len;
		right &= !sym || (uintptr_t)sym == f->start;
		right &= f->site == f->start || f->site == f->start + 4;
		right &= f->size > 5 || !f->name;
	}
	compare(v, "in memory", &r);
	ok(right, "%s: functions are where the loader says", v->file);
	dlclose(lib);
}

static void from_program(const struct variant *v, const char *path, const char *report)
{
	char out[] = "/tmp/shunt-sites-XXXXXX", line[256], names[MAX][64];
	int fd = mkstemp(out), status = -1;
	struct result r = {0};
	char program[4096], preload[4096];
	pid_t pid;
	FILE *f;

	if (!realpath(path, program) || !realpath(report, preload))
		return;
	pid = fork();
	if (!pid) {
		setenv("LD_PRELOAD", preload, 1);
		setenv("VICTIM_REPORT", out, 1);
		if (chdir("/tmp")) /* where gmon.out may go */
			_exit(98);
		execl(program, program, (char *)NULL);
		_exit(97);
	}
	waitpid(pid, &status, 0);
	ok(!status, "%s: runs with the report preloaded", v->file);
	f = fdopen(fd, "r");
	while (f && r.n < MAX && fgets(line, sizeof line, f)
		&& sscanf(line, "%63s %d %d", names[r.n], &r.kind[r.n], &r.len[r.n]) == 3) {
		r.name[r.n] = names[r.n];
		r.n++;
	}
	fclose(f);
	unlink(out);
	compare(v, "in the running program", &r);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
		const struct variant *v = &variants[i];
		char path[4096];

		snprintf(path, sizeof path, "%s/%s", argv[1], v->file);
		if (access(path, R_OK)) {
			skip("%s was not built", v->file);
			continue;
		}
		from_file(v, path);
		if (strstr(v->file, ".so"))
			from_library(v, path);
		else if (!strstr(v->file, "static"))
			from_program(v, path, argv[2]);
	}
	return done();
}
