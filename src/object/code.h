/* SPDX-License-Identifier: MIT */
/*
 * code.h - all functions of the loaded objects, also of those that nobody
 * compiled for tracing. See docs/objects.md for where they come from.
 *
 * An object's list is read when it is first asked for: before that it costs
 * nothing. Once read it stays as long as the process lives, like the object
 * itself, also after it was unloaded. Nothing here touches the code.
 *
 * Locks: takes the objects lock (object.h), and nothing of the loader's but its list
 * lock. Not to be called from within shunt_objects_while_loaded(), except for an
 * object whose list was read before. Any thread, no signal handler. Allocates
 * and reads files.
 */
#ifndef SHUNT_OBJECT_CODE_H
#define SHUNT_OBJECT_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "object.h"

/* What is known of a function. */
enum shunt_code_flags {
	/* Who says so. */
	SHUNT_CODE_FDE = 1 << 0,
	SHUNT_CODE_SYMTAB = 1 << 1,
	SHUNT_CODE_DYNSYM = 1 << 2,
	SHUNT_CODE_DEBUG = 1 << 3, /* the symbols of the separate debug file */
	/* An IFUNC's resolver: run once by the loader, not the function of that name. */
	SHUNT_CODE_IFUNC = 1 << 4,
	SHUNT_CODE_COLD = 1 << 5, /* by its name the cold part of a function: jumped to */
	SHUNT_CODE_PART = 1 << 6, /* by its name .part.N: called, but none of the source's */
	SHUNT_CODE_LINKER = 1 << 7, /* in .plt, .init, .fini: not to be traced */
	/*
	 * By its frame description the top of the stack at its start is not its return
	 * address: a cold part without a name, _start, or the like.
	 */
	SHUNT_CODE_NOT_CALLED = 1 << 8,
	SHUNT_CODE_INNER = 1 << 9, /* without a name, and within another function */
	SHUNT_CODE_GUESSED = 1 << 10, /* size: up to the next start, as none was said */
	/* Where its exceptions are caught cannot be told: its pads are not known. */
	SHUNT_CODE_PADS_UNKNOWN = 1 << 11,
};

/* These begin where a call can lead to, and return to what is on the stack. */
#define SHUNT_CODE_NO_ENTRY \
	(SHUNT_CODE_COLD | SHUNT_CODE_LINKER | SHUNT_CODE_NOT_CALLED | SHUNT_CODE_INNER)

/* The lower, the better a name. */
enum shunt_code_rank {
	SHUNT_CODE_GLOBAL,
	SHUNT_CODE_WEAK,
	SHUNT_CODE_LOCAL,
	SHUNT_CODE_OLD, /* of a symbol version that nothing is linked against any more */
	SHUNT_CODE_NAMELESS,
};

#define SHUNT_CODE_NONE UINT32_MAX

struct shunt_code_func {
	uintptr_t start;
	uint32_t size;	/* not 0 */
	uint32_t name;	/* offset into list->strings, raw; 0: none */
	uint32_t outer; /* the closest one before it that reaches beyond its start, or NONE */
	uint16_t flags; /* SHUNT_CODE_* */
	uint8_t rank;	/* of its name */
};

/* Each name of each function. */
struct shunt_code_name {
	uint32_t name; /* offset into list->strings */
	uint32_t func; /* index in list->funcs */
	uint32_t next; /* internal: the next one of this name, 0 or index + 1 */
	uint8_t rank;
	bool exported; /* others can be linked against it */
	bool ifunc;    /* of what the resolver at func chooses, not of the resolver */
};

struct shunt_code_list {
	struct shunt_object *obj; /* the first one it was read for, if several share it */
	uintptr_t base;
	struct shunt_code_func *funcs; /* ascending by start, one an address */
	uint32_t nfuncs;
	uint32_t nnames;
	struct shunt_code_name *names; /* ascending by function */
	char *strings;		       /* offset 0 is "" */
	uint32_t *hash;		       /* internal: the first of each name, 0 or index + 1 */
	uint32_t hash_mask;
	uint32_t npads;
	uintptr_t *pads;  /* all landing pads, ascending */
	uint64_t *slots;  /* internal: of IFUNCs, see elf_code.h */
	uint32_t nslots;
	uint32_t bad_frames, bad_pads; /* not understood */
	char *soname;	  /* "": none */
	char *debug;	  /* the debug file that was used, or NULL */
	const char *why;  /* there are no functions: why, if it is known */
	size_t bytes;	  /* of memory */
};

/*
 * The functions of an object, read if that was not done yet. 0; -ENOMEM. A list without
 * functions says `why`: its file cannot be read, or is another one.
 */
int shunt_code_of(struct shunt_object *obj, const struct shunt_code_list **list);

/*
 * The innermost function that holds `addr`, or NULL. `list` may be NULL. Objects are
 * as of the last shunt_objects_refresh().
 */
const struct shunt_code_func *shunt_code_at(uintptr_t addr, const struct shunt_code_list **list);

/* The same within a list that is at hand. Neither locks nor allocates; any context. */
const struct shunt_code_func *shunt_code_in(const struct shunt_code_list *list, uintptr_t addr);

/*
 * The landing pads in lo..hi: addresses that are entered neither by a call nor by
 * a branch that one sees, but by the unwinder, ascending. Their number; *pads is
 * not to be freed. Any context. SHUNT_CODE_PADS_UNKNOWN says of a function that there
 * may be others, in it or in its cold part.
 */
size_t shunt_code_pads(const struct shunt_code_list *list, uintptr_t lo, uintptr_t hi,
	const uintptr_t **pads);

/*
 * The function's name: raw, or for one that has none its address relative to the
 * object as `0x41c30`, written to buf. Any context.
 */
const char *shunt_code_name(const struct shunt_code_list *list,
	const struct shunt_code_func *func, char *buf, size_t size);

/* The first name in the list that is `name`, or the next one after `from`; NULL: none. */
const struct shunt_code_name *shunt_code_named(const struct shunt_code_list *list,
	const char *name, const struct shunt_code_name *from);

/* A function of a list. Not 0: end here. */
typedef int (*shunt_code_match_fn)(const struct shunt_code_list *list,
	const struct shunt_code_func *func, void *arg);

/*
 * Calls fn once for each function of which any name, raw or demangled, matches, as
 * shunt_object_glob() does for those with sites; ascending. One without a name has that of
 * shunt_code_name(). What fn returned, if not 0; 0; -EINVAL: a bad glob; -ENOMEM.
 */
int shunt_code_glob(struct shunt_object *obj, const char *glob, shunt_code_match_fn fn,
	void *arg);

/* What of an object is loaded, as its file has it. */
struct shunt_code_text {
	uintptr_t lo, hi; /* as loaded: all segments */
	uint8_t *bytes;	  /* hi - lo; zeros between the segments */
	bool has_sites;	  /* keys, values or calls of ours (shunt/site.h) are in it */
};

/*
 * Reads them. 0; -ESTALE: the file is not what is loaded; -ENOMEM; -errno of reading. Free
 * with shunt_code_text_free(). Any thread; allocates.
 */
int shunt_code_text_read(const struct shunt_object *obj, struct shunt_code_text *t);
void shunt_code_text_free(struct shunt_code_text *t);

/* A place in code. */
struct shunt_code_place {
	struct shunt_object *obj;
	const struct shunt_code_list *list;
	const struct shunt_code_func *func;
	uintptr_t addr;
};

/*
 * What "FUNC", "OBJ:FUNC", "0xADDR" or "OBJ:0xADDR" means, and `offset` bytes on.
 *
 * OBJ is a file name, the path, or the soname. FUNC is a raw name, or, where the program
 * has a C++ runtime, a demangled one with or without its arguments; an old version of a
 * symbol is meant only where there is no other. Without OBJ the program itself is
 * asked first, then everything else that is loaded, except for this library; there one
 * that is exported is meant rather than those that are not. ADDR is relative to the
 * object, or to the program. Refreshes the list of objects.
 *
 * An IFUNC means the function that was chosen for it; that is read from where the
 * loader put it, and nothing is called.
 *
 * 0, or a reason in why (if size is not 0) and -ENOENT: no such object or function, and
 * what is close to it; -ENOTUNIQ: which there are; -ERANGE: behind the end of the
 * function, or not in code; -ENOTSUP: the vdso, or an IFUNC of which the choice
 * cannot be told; -EINVAL: not understood; -ENOMEM.
 */
int shunt_code_resolve(const char *text, uint64_t offset, struct shunt_code_place *place,
	char *why, size_t size);

#endif
