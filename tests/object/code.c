/* SPDX-License-Identifier: MIT */
/*
 * code.c - all functions of what is loaded: when they are read, names to places and
 * back, what is ambiguous or refused, IFUNCs, landing pads beside where exceptions
 * land, debug files, unloading.
 *
 * usage: code DIRECTORY-OF-VICTIMS
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#include "../tap.h"
#include "code_sound.h"
#include "live.h"
#include "object/code.h"
#include "object/object_internal.h"

static char why[600];

static int resolve(const char *text, uint64_t offset, struct shunt_code_place *p)
{
	return shunt_code_resolve(text, offset, p, why, sizeof why);
}

/* The address that a name means, or 0. */
static uintptr_t at(const char *text)
{
	struct shunt_code_place p;

	return resolve(text, 0, &p) ? 0 : p.addr;
}

static const char *name_at(uintptr_t addr, char *buf, size_t size)
{
	const struct shunt_code_list *l;
	const struct shunt_code_func *f = shunt_code_at(addr, &l);

	return f ? shunt_code_name(l, f, buf, size) : "";
}

/* --- reading ------------------------------------------------------------------- */

static struct shunt_object *lib_object, *asked;
static pthread_barrier_t start;

static void *read_it(void *arg)
{
	const struct shunt_code_list *l;

	(void)arg;
	pthread_barrier_wait(&start);
	return shunt_code_of(asked, &l) ? NULL : (void *)l;
}

/* Whether eight threads that ask at once get one list. */
static bool one_list(struct shunt_object *o)
{
	pthread_t thread[8];
	void *list[8];
	bool same = true;

	asked = o;
	for (unsigned i = 0; i < 8; i++)
		pthread_create(&thread[i], NULL, read_it, NULL);
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(thread[i], &list[i]);
		same &= list[i] && list[i] == list[0];
	}
	return same && list[0] == o->code;
}

static void reading(void)
{
	const struct shunt_code_list *l;
	bool same = true, none = true;

	lib_object = live_named("code.so");
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		none &= !o->code;
	ok(lib_object && none, "before anybody asks no list is read");
	pthread_barrier_init(&start, NULL, 8);
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		same &= o == lib_object || one_list(o);
	ok(same, "threads that ask at once get one list");
	ok(!lib_object->code && !shunt_code_of(lib_object, &l), "nobody's else is read");
	ok(lib_object->code->nfuncs && !code_unsound(lib_object->code, lib_object->text_lo,
							  lib_object->text_hi),
		"a list is sound");
	errno = 77;
	at("code.so:nonsense");
	ok(errno == 77, "errno stays");
}

/* --- names ---------------------------------------------------------------------- */

static void names(void *lib)
{
	uintptr_t global = (uintptr_t)dlsym(lib, "code_global");
	uintptr_t weak = (uintptr_t)dlsym(lib, "z_code_weak");
	struct shunt_code_place p;
	char buf[64], text[256];
	bool bare = true;

	ok(global && at("code.so:code_global") == global && at("code.so:code_weak") == global
			&& at("code.so:code_local") == global && at("code.so:code_other") == global,
		"every name of a function leads to it");
	ok(!strcmp(name_at(global + 1, buf, sizeof buf), "code_global"),
		"it is called by a global one");
	ok(weak && at("code.so:a_code_local") == weak
			&& !strcmp(name_at(weak, buf, sizeof buf), "z_code_weak"),
		"or else by a weak one before a local one");
	ok(at("code.so:code_versioned") == (uintptr_t)dlsym(lib, "code_versioned")
			&& at("code.so:code_versioned") != at("code.so:code_versioned_old")
			&& at("code.so:code_versioned_old"),
		"of two versions the current one is meant: %s", why);
	for (uint32_t i = 0; i < lib_object->code->nnames; i++)
		bare &= !strchr(lib_object->code->strings + lib_object->code->names[i].name, '@');
	ok(bare, "versions are no part of names");
	ok(at("code.so:code_outdated") && at("code.so:code_outdated") == at("code.so:code_only_old"),
		"an old one where there is no other: %s", why);
	ok(at(victim("code.so:code_global")) == global, "an object goes by its path");
	snprintf(text, sizeof text, "%s/../%s/code.so:code_global", dir,
		strrchr(dir, '/') ? strrchr(dir, '/') + 1 : "");
	ok(at(text) == global, "also by a roundabout one");
	ok(at("libcode.so.1:code_global") == global, "and by its soname");
	ok(at("code_global") == global, "no object at all: it is looked for in all");
	snprintf(text, sizeof text, "code.so:%#lx", global - lib_object->base);
	ok(!resolve(text, 2, &p) && p.addr == global + 2 && p.func->start == global,
		"an address in an object is one");
}

/* The statics of one name are told apart, and by the addresses that are told reached. */
static void ambiguous(void *lib)
{
	uintptr_t a = (uintptr_t)((void *(*)(void))(uintptr_t)dlsym(lib, "code_twice_a"))();
	uintptr_t b = (uintptr_t)((void *(*)(void))(uintptr_t)dlsym(lib, "code_twice_b"))();
	struct shunt_code_place p;
	char one[64], two[64];
	int r = resolve("code.so:twice", 0, &p);

	snprintf(one, sizeof one, "code.so:%#lx", a - lib_object->base);
	snprintf(two, sizeof two, "code.so:%#lx", b - lib_object->base);
	ok(a != b && r == -ENOTUNIQ && strstr(why, one) && strstr(why, two),
		"statics of one name are not guessed between: %s", why);
	ok(at(one) == a && at(two) == b, "and those addresses lead to them");
	ok(!p.addr && !p.func && !p.obj, "what is refused leaves no place behind");
}

static void refused(void)
{
	static const struct {
		const char *text;
		uint64_t offset;
		int err;
		const char *says;
	} t[] = {
		{"code.so:code_globul", 0, -ENOENT, "mean code.so:code_global?"},
		{"code_globul", 0, -ENOENT, "mean code.so:code_global?"},
		{"code.so:nothing_at_all_like_this", 0, -ENOENT, "no function"},
		{"cude.so:code_global", 0, -ENOENT, "mean code.so?"},
		{"nosuchobject.so:x", 0, -ENOENT, "no object nosuchobject.so"},
		{"code.so:code_global", 100000, -ERANGE, "is not in it"},
		{"code.so:code_global", UINT64_MAX, -ERANGE, "is not in it"},
		{"code.so:code_sizeless", 4, -ERANGE, "has 0x4 bytes"},
		{"code.so:0x10", 0, -ERANGE, "is not in its code"},
		{"code.so:0x1000", UINT64_MAX, -ERANGE, "is not in its code"},
		{"code.so:0xffffffffffffffffff", 0, -EINVAL, "is no address"},
		{"code.so:0x", 0, -EINVAL, "is no address"},
		{"code.so:0x12q", 0, -EINVAL, "is no address"},
		{"[vdso]:__vdso_time", 0, -ENOTSUP, "kernel's"},
		{"linux-vdso.so.1:__vdso_time", 0, -ENOTSUP, "kernel's"},
		{"__vdso_clock_gettime", 0, -ENOTSUP, "kernel's"},
		{"", 0, -EINVAL, "neither"},
		{":", 0, -EINVAL, "neither"},
		{"code.so:", 0, -EINVAL, "neither"},
		{":code_global", 0, -EINVAL, "neither"},
		{"::", 0, -ENOENT, "no function"},
	};
	struct shunt_code_place p;
	char tiny[8];

	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		int r = resolve(t[i].text, t[i].offset, &p);

		ok(r == t[i].err && strstr(why, t[i].says), "'%s' + %#lx: %s (%d)", t[i].text,
			(unsigned long)t[i].offset, why, r);
	}
	ok(shunt_code_resolve("nosuch", 0, &p, NULL, 0) == -ENOENT
			&& shunt_code_resolve("nosuchfunction", 0, &p, tiny, sizeof tiny) == -ENOENT
			&& strlen(tiny) == 7,
		"a reason may be unwanted, or find little room");
	ok(!shunt_code_at(getauxval(AT_SYSINFO_EHDR) + 0x900, NULL)
			&& !shunt_code_at((uintptr_t)&p, NULL),
		"addresses in the vdso and in data lead nowhere");
}

static void shapes(void)
{
	uintptr_t around = at("code.so:code_around"), within = at("code.so:code_within");
	const struct shunt_code_list *l = lib_object->code;
	struct shunt_code_place p;
	bool right = true;
	char buf[64];

	for (unsigned i = 0; i < 6; i++)
		right &= !strcmp(name_at(around + i, buf, sizeof buf),
			i == 2 || i == 3 ? "code_within" : "code_around");
	ok(around && within == around + 2 && right, "the innermost function holds an address, "
		"and behind its end the outer one");
	ok(!resolve("code.so:code_sizeless", 3, &p) && p.func->size == 4
			&& p.func->flags & SHUNT_CODE_GUESSED,
		"without a size it goes up to the next one");
	ok(!resolve("code.so:code_framed", 1, &p)
			&& shunt_code_in(l, p.addr)->start == p.addr
			&& shunt_code_in(l, p.addr)->flags & SHUNT_CODE_INNER
			&& !(p.func->flags & SHUNT_CODE_INNER),
		"a nameless frame within a function is no function of its own");
	ok(!resolve("code.so:code_split.cold", 0, &p) && p.func->flags & SHUNT_CODE_COLD
			&& p.func->start != at("code.so:code_split"),
		"a cold part is one");
	ok(!resolve("code.so:_init", 0, &p) && p.func->flags & SHUNT_CODE_LINKER, "_init is the "
		"linker's");
	for (uint32_t i = right = 0; i < l->nfuncs; i++)
		right |= !l->funcs[i].name && l->funcs[i].flags & SHUNT_CODE_LINKER
			&& strtoul(shunt_code_name(l, &l->funcs[i], buf, sizeof buf), NULL, 0)
				== l->funcs[i].start - l->base
			&& !strncmp(buf, "0x", 2);
	ok(right, "what has no name is called by its address");
}

/* --- IFUNCs ------------------------------------------------------------------------ */

static void ifuncs(void *lib)
{
	uintptr_t chosen = (uintptr_t)dlsym(lib, "code_chosen"), own;
	struct shunt_code_place p;
	int (*import)(int);
	void *user;
	int r;

	own = at("code.so:chosen");
	ok(own && own == at("code.so:second_choice"), "an IFUNC means what was chosen for it");
	ok(at("code.so:choose") && at("code.so:choose") != own, "its resolver has its own name");
	r = resolve("code.so:code_unbound", 0, &p);
	ok(r == -ENOTSUP && strstr(why, "IFUNC"), "one that nobody bound is refused: %s", why);
	r = resolve("code.so:code_chosen", 0, &p);
	ok(r == -ENOTSUP, "no more is one that only others use, without others");
	user = dlopen(victim("import.so"), RTLD_LAZY);
	if (!user) {
		skip("%s", dlerror());
		return;
	}
	if (!getenv("LD_BIND_NOW"))
		ok(resolve("code.so:code_chosen", 0, &p) == -ENOTSUP,
			"nor while they have not called it");
	import = (int (*)(int))(uintptr_t)dlsym(user, "code_import");
	ok(import(1) == 4 && at("code.so:code_chosen") == chosen, "but once they have");
	dlclose(user);
}

static void libc_ifuncs(void)
{
	static const char *const name[] = {"memcpy", "memmove", "memset", "strlen", "strchr",
		"strcmp", "memchr", "strncmp", "time", "gettimeofday"};
	void *libc = dlopen("libc.so.6", RTLD_NOW);
	unsigned right = 0, wrong = 0, refused_ = 0;

	for (size_t i = 0; libc && i < sizeof name / sizeof *name; i++) {
		struct shunt_code_place p;
		char text[64];
		int r;

		snprintf(text, sizeof text, "libc.so.6:%s", name[i]);
		r = resolve(text, 0, &p);
		if (!r && p.addr == (uintptr_t)dlsym(libc, name[i]))
			right++;
		else if (r == -ENOTSUP)
			refused_++;
		else
			wrong++;
	}
	ok(right >= 6 && !wrong, "libc's IFUNCs: %u are where dlsym finds them, %u refused, %u wrong",
		right, refused_, wrong);
}

/* --- landing pads ------------------------------------------------------------------- */

static uintptr_t landed[256];
static unsigned nlanded;

/* The personality routine calls this with each landing pad that it goes to. */
void _Unwind_SetIP(struct _Unwind_Context *c, _Unwind_Ptr ip)
{
	static void (*real)(struct _Unwind_Context *, _Unwind_Ptr);

	if (!real)
		real = (void (*)(struct _Unwind_Context *, _Unwind_Ptr))(uintptr_t)dlsym(
			dlopen("libgcc_s.so.1", RTLD_NOW), "_Unwind_SetIP");
	if (nlanded < 256)
		landed[nlanded++] = ip;
	real(c, ip);
}

static bool is_pad(const struct shunt_code_list *l, uintptr_t addr)
{
	const struct shunt_code_func *f = shunt_code_in(l, addr);
	const uintptr_t *pad;
	size_t n = f ? shunt_code_pads(l, f->start, f->start + f->size, &pad) : 0;

	for (size_t i = 0; i < n; i++)
		if (pad[i] == addr)
			return true;
	return false;
}

static void pads(const char *file)
{
	void *lib = dlopen(victim(file), RTLD_NOW);
	int (*thrower)(void) = lib ? (int (*)(void))(uintptr_t)dlsym(lib, "code_throw") : NULL;
	const struct shunt_code_list *l;
	struct shunt_object *o;
	unsigned missed = 0, within = 0;
	const uintptr_t *pad;

	nlanded = 0;
	if (!thrower || thrower() <= 0 || shunt_objects_refresh() || !(o = live_named(file))) {
		skip("%s", lib ? "not thrown" : dlerror());
		return;
	}
	shunt_code_of(o, &l);
	for (unsigned i = 0; i < nlanded; i++)
		if (landed[i] - o->text_lo < o->text_hi - o->text_lo) {
			within++;
			missed += !is_pad(l, landed[i]);
		}
	ok(within > 10 && !missed, "%s: wherever an exception lands is known (%u landings, %u pads)",
		file, within, l->npads);
	ok(!l->bad_pads && !shunt_code_pads(l, o->text_lo, o->text_lo, &pad)
			&& shunt_code_pads(l, 0, UINTPTR_MAX, &pad) == l->npads
			&& shunt_code_pads(l, pad[0], pad[0] + 1, &pad) == 1,
		"and those of any range are counted right");
	dlclose(lib);
	shunt_objects_refresh();
}

static int count(const struct shunt_code_list *l, const struct shunt_code_func *f, void *arg)
{
	unsigned *n = arg;

	(void)l;
	(void)f;
	return ++*n == 7 ? 7 : 0;
}

/* How many functions; 100 + the error for one. */
static int matches(struct shunt_object *o, const char *glob)
{
	unsigned n = 0;
	int r = shunt_code_glob(o, glob, count, &n);

	return r < 0 ? 100 - r : (int)n;
}

static void globs(void)
{
	struct shunt_object *o = lib_object;

	ok(matches(o, "code_global") == 1 && matches(o, "code_w*") == 2 && matches(o, "twice") == 2,
		"a glob picks functions, by any of their names");
	ok(matches(o, "code_[gwo]*") == 3, "each once, also where several names of it match (%d)",
		matches(o, "code_[gwo]*"));
	ok(matches(o, "code.so:twice") == 2 && !matches(o, "libc*:*")
			&& matches(o, "co*:code_weak") == 1,
		"and objects");
	ok(matches(o, "*") == 7, "whoever has enough ends it");
	ok(matches(o, "0x10*") > 0 && !matches(o, "code_nothing*"), "nameless ones go by address");
	ok(matches(o, "[") == 100 + EINVAL && matches(o, "") == 100 + EINVAL, "a bad one is refused");
}

static void demangled(void)
{
	void *lib = dlopen(victim("throw.so"), RTLD_NOW);
	struct shunt_code_place p;
	uintptr_t leaf;

	if (!lib) {
		skip("%s", dlerror());
		return;
	}
	leaf = at("throw.so:_ZN7thrower4leafEi");
	ok(leaf && at("throw.so:thrower::leaf(int)") == leaf && at("throw.so:thrower::leaf") == leaf
			&& at("thrower::leaf(int)") == leaf,
		"C++ names lead there, with and without arguments: %s", why);
	ok(!at("throw.so:thrower::lea") && !at("throw.so:leaf") && !at("throw.so:thrower::leaf(in"),
		"parts of a name do not");
	ok(at("throw.so:thrower::many<int>") == at("throw.so:_ZN7thrower4manyIiEET_S1_")
			&& at("throw.so:int thrower::many<int>(int)")
				== at("throw.so:_ZN7thrower4manyIiEET_S1_"),
		"a template's do, with and without what it returns: %s", why);
	ok(resolve("throw.so:thrower::many", 0, &p) == -ENOTUNIQ, "without its arguments it is "
		"several: %s", why);
	ok(matches(live_named("throw.so"), "thrower::many<*>(*)") == 0
			&& matches(live_named("throw.so"), "* thrower::many<*>(*)") == 2
			&& matches(live_named("throw.so"), "thrower::leaf(*)") == 1,
		"globs match demangled names as well");
	dlclose(lib);
	shunt_objects_refresh();
}

/* --- debug files ---------------------------------------------------------------------- */

static bool run(const char *fmt, const char *a, const char *b)
{
	char text[9000];

	snprintf(text, sizeof text, fmt, a, b);
	return !system(text);
}

static uintptr_t cold; /* in the library, relative */

/* Loads the stripped library and says what became of the debug file. */
static void has_debug(const char *tmp, bool want, const char *what)
{
	const struct shunt_code_list *l = NULL;
	struct shunt_object *o;
	char path[256];
	void *lib;

	snprintf(path, sizeof path, "%s/lib.so", tmp);
	lib = dlopen(path, RTLD_NOW);
	shunt_objects_refresh();
	o = live_named("lib.so");
	if (o)
		shunt_code_of(o, &l);
	ok(lib && l && l->nfuncs && !l->debug == !want && !at("lib.so:first_choice") == !want
			&& (!want || l->funcs[l->nfuncs / 2].start)
			&& at("lib.so:code_global"),
		"%s (%s)", what, l && l->debug ? "read" : "not read");
	if (!want && o && l) {
		const struct shunt_code_func *f = shunt_code_in(l, o->base + cold);

		ok(f && f->start == o->base + cold && !f->name && f->flags & SHUNT_CODE_NOT_CALLED
				&& at("lib.so:code_versioned") == (uintptr_t)dlsym(lib, "code_versioned"),
			"a cold part is known by its frame, versions by their table");
	}
	if (lib)
		dlclose(lib);
	shunt_objects_refresh();
}

/* A file at each place in turn; the list of each is new, as path or content are. */
static void debug_files(void)
{
	const char *old = shunt_code_debug_dir;
	char tmp[] = "/tmp/shunt-code-XXXXXX", source[4200], text[16000], id[80] = "";

	if (!mkdtemp(tmp))
		return;
	snprintf(source, sizeof source, "%s", victim("code.so"));
	snprintf(text, sizeof text, "cd %s && objcopy --only-keep-debug '%s' lib.debug && "
		"objcopy --strip-all --add-gnu-debuglink=lib.debug '%s' lib.so && mkdir d e f", tmp,
		source, source);
	if (system(text)) {
		skip("no objcopy");
		return;
	}
	for (unsigned i = 0; i < lib_object->build_id_len; i++)
		sprintf(id + strlen(id), i == 1 ? "/%02x" : "%02x", lib_object->build_id[i]);
	shunt_code_debug_dir = tmp;
	cold = at("code.so:code_split.cold") - lib_object->base;

	snprintf(text, sizeof text, "%s/d", tmp);
	run("cd %s && cp lib.so d && mkdir -p .build-id/$(dirname %s)", tmp, id);
	/* The checksum is for the other ways. */
	run("cd %s && cp lib.debug .build-id/%s.debug", tmp, id);
	run("cd %s && printf x >>.build-id/%s.debug", tmp, id);
	has_debug(text, true, "a debug file by build-id");

	run("cd %s && rm .build-id/%s.debug && cp lib.so e && mkdir e/.debug && "
	    "cp lib.debug e/.debug", tmp, id);
	snprintf(text, sizeof text, "%s/e", tmp);
	has_debug(text, true, "one in .debug, that the library names");

	run("cd %s && cp lib.so f && cp %s f/lib.debug", tmp, victim("throw.so"));
	snprintf(text, sizeof text, "%s/f", tmp);
	has_debug(text, false, "another library's under its name");

	run("cd %s && mkdir g h && objcopy -R .note.gnu.build-id lib.so g/lib.so && "
	    "cp lib.debug g%s", tmp, "");
	snprintf(text, sizeof text, "%s/g", tmp);
	has_debug(text, true, "one with the right checksum, without a build-id");

	run("cd %s && cp g/lib.so h && cp lib.debug h && printf x >>h/lib.debug%s", tmp, "");
	snprintf(text, sizeof text, "%s/h", tmp);
	has_debug(text, false, "one with a wrong checksum");
	shunt_code_debug_dir = old;
	run("rm -r %s%s", tmp, "");
}

/* --- unloading -------------------------------------------------------------------------- */

static void unloading(void *lib)
{
	const struct shunt_code_list *l = lib_object->code;
	uintptr_t global = at("code.so:code_global");
	uint32_t n = l->nfuncs;
	struct shunt_code_place p;
	struct shunt_object *again;
	pid_t pid = fork();
	int status = 0;

	if (!pid)
		_exit(at("code.so:code_global") == global && at("code_other") == global ? 7 : 1);
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7, "a child looks up the same");
	dlclose(lib);
	ok(resolve("code.so:code_global", 0, &p) == -ENOENT && !shunt_code_at(global, NULL),
		"what was unloaded is not found: %s", why);
	ok(l->nfuncs == n && shunt_code_in(l, global)
			&& !strcmp(l->strings + shunt_code_in(l, global)->name, "code_global"),
		"its list says what it said");
	lib = dlopen(victim("code.so"), RTLD_NOW);
	shunt_objects_refresh();
	again = live_named("code.so");
	ok(lib && again && again != lib_object
			&& at("code.so:code_global") == (uintptr_t)dlsym(lib, "code_global"),
		"loaded again it is found where it is");
	if (again && again->base == lib_object->base)
		ok(again->code == l, "at the same place it shares the list");
	else
		skip("it came to another address");
}

int main(int argc, char **argv)
{
	void *lib;

	dir = argc > 1 ? argv[1] : ".";
	lib = dlopen(victim("code.so"), RTLD_NOW | RTLD_GLOBAL);
	if (!lib || shunt_objects_refresh()) {
		ok(0, "%s", dlerror());
		return done();
	}
	reading();
	names(lib);
	ambiguous(lib);
	refused();
	shapes();
	globs();
	ifuncs(lib);
	libc_ifuncs();
	pads("throw.so");
	pads("throw-large.so");
	pads("throw-clang.so");
	demangled();
	debug_files();
	unloading(lib);
	return done();
}
