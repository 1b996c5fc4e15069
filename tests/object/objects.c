/* SPDX-License-Identifier: MIT */
/*
 * objects.c - the list of what is loaded: loading, unloading, coming back,
 * files replaced, ids, names, globs, export.
 *
 * usage: objects DIRECTORY-OF-VICTIMS
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tap.h"
#include "live.h"
#include "object/object.h"

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* --- loading and unloading -------------------------------------------------- */

static unsigned added, removed;

static void on_added(struct shunt_object *o, void *data)
{
	(void)o;
	(void)data;
	added++;
}

static void on_removed(struct shunt_object *o, void *data)
{
	(void)data;
	removed += o->gone;
}

static bool is_intact = true;

static bool on_intact(const struct shunt_object *o, void *data)
{
	(void)o;
	(void)data;
	return is_intact;
}

static struct shunt_object_listener listener = {on_added, on_removed, on_intact, NULL, NULL};

static int count_live(void *arg)
{
	(void)arg;
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next)
		if (!o->gone)
			++*(unsigned *)arg;
	return 42;
}

static int nested(void *arg)
{
	return shunt_objects_refresh() ? 1 : shunt_objects_while_loaded(count_live, arg);
}

static void loading(void)
{
	void *lib = dlopen(victim("gcc-5.so"), RTLD_NOW);
	struct shunt_object *o = NULL, *again = NULL, *of;
	unsigned live = 0;
	uint32_t id;
	int (*fn)(int);

	shunt_object_listen(&listener);
	ok(!live_named("gcc-5.so"), "nothing is known of a library before a refresh");
	ok(!shunt_objects_refresh() && (o = live_named("gcc-5.so")), "then it is");
	ok(added == 1 && !removed, "the listener heard of it alone");
	ok(o->nfuncs == 5 && o->build_id_len == 20, "functions and build-id are known");
	fn = (int (*)(int))(uintptr_t)dlsym(lib, "victim_two");
	ok(shunt_object_of((uintptr_t)fn) == o, "an address leads to its object");
	of = NULL;
	ok(shunt_func_at((uintptr_t)fn + 9, &of) && of == o
			&& !strcmp(o->strings + shunt_func_at((uintptr_t)fn + 9, NULL)->name,
				"victim_two"),
		"and to its function");
	ok(!shunt_func_at((uintptr_t)&live, &of) && !of, "an address of data leads nowhere");
	id = o->first_id + 2;
	ok(shunt_func_of_id(id, &of) == &o->funcs[2] && of == o, "an id leads to its function");
	ok(!shunt_func_of_id(SHUNT_FUNC_IDS - 1, &of) && !of, "an unknown id leads nowhere");
	ok(shunt_objects_while_loaded(nested, &live) == 42 && live >= 3,
		"what fn returns is handed on, and it may ask again");

	dlclose(lib);
	ok(!shunt_objects_refresh() && o->gone && removed == 1, "an unloaded library is gone");
	ok(shunt_func_of_id(id, &of) == &o->funcs[2] && of == o, "its ids still say what they were");
	ok(shunt_object_of((uintptr_t)fn) != o, "its addresses do not");

	lib = dlopen(victim("gcc-5.so"), RTLD_NOW);
	ok(!shunt_objects_refresh() && (again = live_named("gcc-5.so")) && again != o,
		"loaded again it is another object");
	ok(again->first_id > o->first_id && again->nfuncs == 5, "with new ids");
	if (again->base == o->base)
		ok(again->funcs == o->funcs, "at the same address it shares the tables");
	else
		skip("it came to another address");

	dlclose(lib);
	lib = dlopen(victim("gcc-5.so"), RTLD_NOW);
	ok(!shunt_objects_refresh() && (o = live_named("gcc-5.so")), "swapped unnoticed: it is there");
	if (o->base == again->base)
		ok(o == again, "and held for the old one while its code is intact");
	else
		skip("it came to another address");
	dlclose(lib);
	lib = dlopen(victim("gcc-5.so"), RTLD_NOW);
	is_intact = false;
	again = o;
	shunt_objects_refresh();
	is_intact = true;
	ok((o = live_named("gcc-5.so")) && o != again, "a new one when its code is not");
	dlclose(lib);
	shunt_objects_refresh();
}

static void others(void)
{
	bool vdso = false, self = false;
	char exe[4096] = "";

	if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
		return;
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next) {
		vdso |= strstr(o->path, "vdso") != NULL || !*o->path;
		self |= !strcmp(o->path, exe);
	}
	ok(self, "the program itself has its real path");
	ok(!vdso, "the vdso is not listed");
	ok(live_named("libc.so.6") && !live_named("libc.so.6")->nfuncs,
		"the C library has no sites");
}

/* --- files that are not what is loaded ---------------------------------------- */

static void copy(const char *from, const char *to)
{
	char buf[4096];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	ssize_t n;

	while ((n = read(in, buf, sizeof buf)) > 0)
		if (write(out, buf, (size_t)n) != n)
			break;
	close(in);
	close(out);
}

static bool right(void *lib, const struct shunt_object *o)
{
	for (uint32_t i = 0; o && i < o->nfuncs; i++) {
		void *sym = dlsym(lib, o->strings + o->funcs[i].name);

		if (sym && (uintptr_t)sym != o->funcs[i].start)
			return false;
	}
	return o;
}

static void replaced(void)
{
	char tmp[] = "/tmp/shunt-objects-XXXXXX", path[64], other[64];
	struct shunt_object *o = NULL;
	void *lib;

	if (!mkdtemp(tmp))
		return;
	snprintf(path, sizeof path, "%s/lib.so", tmp);
	snprintf(other, sizeof other, "%s/new.so", tmp);

	copy(victim("gcc-5.so"), path);
	lib = dlopen(path, RTLD_NOW);
	copy(victim("clang-20-11.so"), other);
	rename(other, path);
	ok(!shunt_objects_refresh() && right(lib, o = live_named("lib.so")),
		"a replaced file lends no wrong names");
	ok(o && (o->nfuncs == 5 || o->why), "what was loaded is found by its mapping (%u), or a reason is given",
		o ? o->nfuncs : 0);
	dlclose(lib);
	shunt_objects_refresh();

	lib = dlopen(path, RTLD_NOW);
	unlink(path);
	shunt_objects_refresh();
	o = live_named("lib.so");
	ok(right(lib, o) && !strcmp(o->path, path), "a deleted file keeps its path");
	dlclose(lib);
	shunt_objects_refresh();

	copy(victim("gcc-5.so"), path);
	lib = dlopen(path, RTLD_NOW);
	unlink(path);
	if (mkfifo(path, 0600))
		diag("no fifo");
	ok(!shunt_objects_refresh() && right(lib, live_named("lib.so")),
		"a pipe in its place is not waited for");
	dlclose(lib);
	unlink(path);
	rmdir(tmp);
	shunt_objects_refresh();
}

/* --- names --------------------------------------------------------------------- */

static int count_match(const struct shunt_object *o, uint32_t i, void *arg)
{
	(void)o;
	(void)i;
	++*(unsigned *)arg;
	return 0;
}

static int stop_at(const struct shunt_object *o, uint32_t i, void *arg)
{
	(void)o;
	*(uint32_t *)arg = i;
	return 7;
}

static unsigned matches(const struct shunt_object *o, const char *glob)
{
	unsigned n = 0;

	return shunt_object_glob(o, glob, count_match, &n) ? 999 : n;
}

static void names(void)
{
	static const struct {
		const char *glob, *text;
		bool hit;
	} t[] = {
		{"*", "", true}, {"*", "abc", true}, {"a*c", "abc", true}, {"a*c", "abcd", false},
		{"a?c", "abc", true}, {"?", "", false}, {"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false}, {"[]]", "]", true}, {"[a-]", "-", true},
		{"\\*", "*", true}, {"\\*", "a", false}, {"*a*b*c", "xaxbxbc", true},
		{"*aab", "aaaaab", true}, {"abc", "ab", false}, {"", "", true},
		{"ns::*(int)", "ns::f(int)", true}, {"a**b", "ab", true},
	};
	void *c = dlopen(victim("gcc-5.so"), RTLD_NOW);
	void *cxx = dlopen(victim("gxx-5.so"), RTLD_NOW);
	struct shunt_object *o, *x;
	char buf[256];
	uint32_t at = 99;

	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		ok(shunt_glob_match(t[i].glob, t[i].text) == t[i].hit, "'%s' %s '%s'", t[i].glob,
			t[i].hit ? "matches" : "does not match", t[i].text);
	shunt_objects_refresh();
	o = live_named("gcc-5.so");
	x = live_named("gxx-5.so");
	ok(matches(o, "*") == 5 && matches(o, "victim_[ot]*") == 2, "a glob picks functions");
	ok(matches(o, "gcc-5.so:*") == 5 && matches(o, "gcc*:victim_one") == 1
			&& matches(o, "libc*:*") == 0,
		"a glob may name the object");
	ok(shunt_object_glob(o, "*", stop_at, &at) == 7 && at == 0, "a callback may stop");
	ok(shunt_object_glob(o, "", stop_at, &at) == -EINVAL
			&& shunt_object_glob(o, "a[b", stop_at, &at) == -EINVAL
			&& shunt_object_glob(o, ":a", stop_at, &at) == -EINVAL
			&& shunt_object_glob(o, "a:", stop_at, &at) == -EINVAL
			&& shunt_object_glob(o, "a\\", stop_at, &at) == -EINVAL,
		"a bad glob is refused");
	ok(matches(x, "_ZN6victim*") == 5, "raw names match");
	if (!live_named("libstdc++.so.6")) {
		skip("no C++ runtime is loaded");
	} else {
		ok(matches(x, "victim::user_?(int)") == 2 && matches(x, "gxx*:victim::box<int>::*") == 2,
			"demangled names match");
		ok(!strcmp(shunt_object_demangle("_ZN6victim6user_aEi", buf, sizeof buf),
			   "victim::user_a(int)"),
			"a name is demangled");
	}
	ok(!strcmp(shunt_object_demangle("victim_one", buf, 4), "vic"), "a name is cut to fit");
	shunt_object_symbolize((uintptr_t)dlsym(c, "victim_one") + 2, buf, sizeof buf);
	ok(!strcmp(buf, "victim_one+0x2 (gcc-5.so)"), "an address has a name for people: %s", buf);
	shunt_object_symbolize(1, buf, sizeof buf);
	ok(!strcmp(buf, "0x1"), "or is just a number");
	dlclose(c);
	dlclose(cxx);
	shunt_objects_refresh();
}

/* --- export --------------------------------------------------------------------- */

static bool well_formed(FILE *f, const struct shunt_object *o)
{
	static const char *const keys[] = {"shunt-object 1", "image 3", "pid ", "path ",
		"build-id ", "base ", "first-id ", "functions "};
	char line[4096], name[1024];
	unsigned long off, size;

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!fgets(line, sizeof line, f) || strncmp(line, keys[i], strlen(keys[i])))
			return false;
	for (uint32_t i = 0; i < o->nfuncs; i++)
		if (!fgets(line, sizeof line, f)
			|| sscanf(line, "%lx %lx %1023s", &off, &size, name) != 3
			|| off != o->funcs[i].start - o->base || size != o->funcs[i].size
			|| strcmp(name, o->strings + o->funcs[i].name))
			return false;
	return fgets(line, sizeof line, f) && !strcmp(line, "end\n") && !fgets(line, sizeof line, f);
}

static void export(void)
{
	char tmp[] = "/tmp/shunt-objects-XXXXXX", path[256];
	void *lib = dlopen(victim("gcc-5.so"), RTLD_NOW);
	struct shunt_object *o;
	FILE *f;

	shunt_objects_refresh();
	o = live_named("gcc-5.so");
	if (!mkdtemp(tmp) || !o)
		return;
	ok(!shunt_object_export(o, tmp, 3), "an object is written");
	snprintf(path, sizeof path, "%s/objects/3-%u", tmp, o->id);
	f = fopen(path, "r");
	ok(f && well_formed(f, o), "its file says all functions");
	if (f)
		fclose(f);
	ok(shunt_object_export(o, "/nonexistent/dir", 3) == -ENOENT, "no directory: an error");
	unlink(path);
	snprintf(path, sizeof path, "%s/objects", tmp);
	ok(!rmdir(path) && !rmdir(tmp), "no temporary file stays");
	dlclose(lib);
	shunt_objects_refresh();
}

static void forked(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		void *lib = dlopen(victim("clang-5.so"), RTLD_NOW);

		alarm(20);
		_exit(!lib || shunt_objects_refresh() || !live_named("clang-5.so"));
	}
	waitpid(pid, &status, 0);
	ok(!status, "a fork child can look on its own");
}

int main(int argc, char **argv)
{
	unsigned fds;

	if (argc < 2)
		return 2;
	dir = argv[1];
	shunt_objects_refresh();
	fds = descriptors();
	loading();
	others();
	replaced();
	names();
	export();
	forked();
	ok(descriptors() == fds, "no descriptor stays open");
	return done();
}
