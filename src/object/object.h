/* SPDX-License-Identifier: MIT */
/*
 * object.h - which programs and libraries are loaded, and which functions in
 * them can be traced. See docs/objects.md for how sites are found.
 *
 * One list, append-only: a struct shunt_object and its funcs and strings stay
 * valid as long as the process lives, also after the object was unloaded
 * (`gone`). What must not be touched then is the *memory* at func->site; only
 * shunt_objects_while_loaded() keeps it from going away.
 *
 * Locks, outermost first: the caller's own (the tracer's) -> objects -> the
 * loader's list lock (dl_iterate_phdr) -> the text engine's. Nothing here takes
 * the loader's other lock (the one that dlopen holds while constructors run), so
 * a constructor may call anything here. A dl_iterate_phdr() callback may not, and
 * nobody may call dlopen, dlclose, dlsym or dladdr with the objects lock held.
 *
 * Any thread, no signal handler, unless said otherwise.
 */
#ifndef SHUNT_OBJECT_OBJECT_H
#define SHUNT_OBJECT_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum shunt_site_kind {
	SHUNT_SITE_NONE,
	SHUNT_SITE_NOP5,	/* one NOP instruction of exactly 5 bytes */
	SHUNT_SITE_NOP1x5,	/* several NOPs, with a border after 5 bytes */
	SHUNT_SITE_CALL_FENTRY, /* a call of __fentry__, 5 or 6 bytes */
	SHUNT_SITE_NOPLONG,	/* one NOP instruction of 6 to 15 bytes */
	/*
	 * No site was left: the function's own first instructions, to be displaced.
	 * What of them can be is for who does it to find out (trace/displace.h).
	 */
	SHUNT_SITE_DISPLACED,
};

struct shunt_func {
	uintptr_t site;	 /* the first byte of the NOP, NOPs or call */
	uintptr_t start; /* the function's address, <= site */
	uint32_t size;	 /* of the function; 0 unknown */
	uint32_t name;	 /* offset into obj->strings, raw; 0 unknown */
	uint8_t kind;	 /* enum shunt_site_kind */
	uint8_t len;	 /* bytes of the site; site + len begins an instruction; 0: displaced */
};

#define SHUNT_BUILD_ID_MAX 32
#define SHUNT_FUNC_IDS (1u << 24)

struct shunt_object {
	struct shunt_object *next;
	uint32_t id; /* 0, 1, 2.. in the order of discovery */
	char *path;
	uint8_t build_id[SHUNT_BUILD_ID_MAX];
	unsigned build_id_len;
	uintptr_t base;		    /* load bias: file address + base = address */
	uintptr_t text_lo, text_hi; /* span of the executable segments */
	dev_t dev;
	ino_t ino;
	uint32_t first_id; /* function i of this object has id first_id + i */
	uint32_t nfuncs;
	struct shunt_func *funcs; /* ascending by site */
	char *strings;		  /* names; offset 0 is "" */
	uint32_t missed;	  /* of nfuncs: not in the section that should name them */
	uint32_t refused;	  /* section entries that are no usable site */
	bool gone;		  /* unloaded */
	const char *why;	  /* why it has no functions, if a reason is known */
	void *trace;		  /* for the tracer */
	struct shunt_code_list *code; /* internal: all its functions (code.h), once read */
	/*
	 * An object's functions that nobody compiled for tracing are an object of their
	 * own, its part: with ids, names and a symbol file of its own, and the same
	 * path and place. `of` is then the object; `part` its part, where it has one.
	 */
	struct shunt_object *of, *part;
	const uint32_t *code_index; /* a part's: function i is of->code->funcs[code_index[i]] */
	uint64_t signature, headers; /* internal: hashes of program headers and name */
};

/*
 * Finds what was loaded, marks what is gone. One short dl_iterate_phdr() when
 * nothing changed. 0 or -ENOMEM. Allocates and reads files. When other threads
 * load and unload without pause, what was seen last is left to the next call.
 */
int shunt_objects_refresh(void);

/* Takes the (recursive) objects lock; the head of the list, gone ones included. */
struct shunt_object *shunt_objects_lock(void);
void shunt_objects_unlock(void);

/*
 * Has the lock held over fork(). Who registers fork handlers for an outer lock
 * calls this first: handlers run in reverse order, and so outer locks first.
 * More than once does nothing.
 */
void shunt_objects_at_fork(void);

/*
 * The head of the list without the lock. `next`, `id`, `funcs` and the like
 * never change once an object is in the list; only `gone` does.
 */
struct shunt_object *shunt_objects_first(void);

/* The loaded object whose executable span holds `addr`, or NULL. */
struct shunt_object *shunt_object_of(uintptr_t addr);

/* The function whose code holds `addr`; `obj` may be NULL. NULL: none known. */
struct shunt_func *shunt_func_at(uintptr_t addr, struct shunt_object **obj);

/* The function with this id, also of an object that is gone; `obj` may be NULL. */
struct shunt_func *shunt_func_of_id(uint32_t id, struct shunt_object **obj);

/*
 * Somebody who wants to know. All are called with the objects lock held, and
 * must neither refresh (-EDEADLK) nor call shunt_objects_while_loaded.
 * added, removed: without the loader's lock; removed comes when the memory is
 * gone already, or belongs to another object.
 * intact: with the loader's lock. After something was unloaded, an object at
 * the same place with the same content may be the old one or the same file
 * loaded anew, and only who changes its code can tell: "is what you wrote
 * there still there?". It may read the object's code and must not allocate.
 * Without it the object is held to be the old one.
 */
struct shunt_object_listener {
	void (*added)(struct shunt_object *obj, void *data);
	void (*removed)(struct shunt_object *obj, void *data);
	bool (*intact)(const struct shunt_object *obj, void *data);
	void *data;
	struct shunt_object_listener *next; /* internal */
};

/* `l` must stay. Objects known already are not announced. */
void shunt_object_listen(struct shunt_object_listener *l);

/*
 * Refreshes, and calls fn(arg) while no object can be loaded into or unloaded
 * from the list, with `gone` right for every object. fn must not use the loader,
 * and better not allocate: some allocators call dl_iterate_phdr() with their
 * own lock held. What fn returns; or -ENOMEM, or -EAGAIN when other threads
 * load and unload without pause, and fn was not called.
 */
int shunt_objects_while_loaded(int (*fn)(void *arg), void *arg);

/*
 * The part of obj with the functions that were not compiled for tracing, made when
 * it is first asked for: reads files, and gives ids for good. NULL with errno:
 * ENOENT (it has none that can be told, obj->why or the list's says why), ENOMEM.
 * obj itself must not be a part.
 */
struct shunt_object *shunt_object_part(struct shunt_object *obj);

/* Whether the glob has an object's name in it, and it is this one's. */
bool shunt_glob_names(const char *glob, const struct shunt_object *obj);

/* Function i of obj. Not 0: end here. */
typedef int (*shunt_object_match_fn)(const struct shunt_object *obj, uint32_t i, void *arg);

/*
 * Calls fn for each function whose raw or demangled name matches. "OBJ:GLOB"
 * wants the object's file name to match OBJ as well ("::" is no such colon). A part's
 * functions are matched by each of their names.
 * `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character to mean itself. 0;
 * what fn returned, if not 0; -EINVAL for a bad glob. Demangled names are
 * matched when the program has a C++ runtime in it.
 */
int shunt_object_glob(const struct shunt_object *obj, const char *glob,
	shunt_object_match_fn fn, void *arg);

/* Whether `text` as a whole matches `glob`. Any context. */
bool shunt_glob_match(const char *glob, const char *text);

/* 0 or -EINVAL ("", a lone `[` or `\`, an empty side of the colon). Any context. */
int shunt_glob_check(const char *glob);

/*
 * "name+0x12 (libfoo.so)" for any address: for messages to people. Never fails;
 * without a symbol it says the file and offset, or the bare address. Reads the
 * object's file anew each time.
 */
const char *shunt_object_symbolize(uintptr_t addr, char *buf, size_t size);

/* Demangles into buf; a name that is not C++, or with no runtime, is copied. */
const char *shunt_object_demangle(const char *name, char *buf, size_t size);

/*
 * Writes DIR/objects/IMAGE-ID (docs/objects.md says the format), by a temporary
 * name and rename; makes DIR/objects. Leaves no descriptor open. 0 or -errno.
 */
int shunt_object_export(const struct shunt_object *obj, const char *dir, uint32_t image);

#endif
