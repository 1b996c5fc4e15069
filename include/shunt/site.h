/* SPDX-License-Identifier: MIT */
/*
 * site.h - what imv.h, key.h and call.h share: how an instruction that belongs to a
 * variable is found. Nothing here is for direct use.
 *
 * Each such instruction is a *site*. Its record lies in the section shunt_sites
 * of the object (program or library) that it is in; a constructor of that
 * object, of priority 101, has libshunt bring all of the object's sites to what
 * their variables are by then, before those of a later priority or none run; a
 * destructor has them forgotten.
 *
 * Records are PC-relative: they need no relocation and stay shared between
 * processes. They are linked to the code that they describe (SHF_LINK_ORDER)
 * and in its group, so that they go where it goes when the linker discards a
 * COMDAT or collects garbage.
 */
#ifndef SHUNT_SITE_H
#define SHUNT_SITE_H

#include <stddef.h>
#include <stdint.h>

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Instructions can hold values here; else every read is a load. */
#if defined(__x86_64__) && !defined(SHUNT_GENERIC)
#define SHUNT_SITES 1
#else
#define SHUNT_SITES 0
#endif

struct shunt_site {
	int32_t at;     /* the instruction, from here */
	int32_t target; /* key: where it jumps; choice: for each state; op: its variants */
	int32_t ref;    /* the pointer to the variable, from here */
	uint8_t kind;   /* enum shunt_kind, and SHUNT_SITE_* */
	uint8_t len;    /* bytes of the instruction */
	uint16_t index; /* of the variable in an array; choice, op: how many targets */
};

enum shunt_kind {
	SHUNT_KIND_KEY = 0,
	SHUNT_KIND_IMV = 1,
	SHUNT_KIND_CALL = 2,
	SHUNT_KIND_CHOICE = 3,
	SHUNT_KIND_OP = 4, /* a site's only: an instruction of a choice */
};
#define SHUNT_SITE_KIND	   0x0f
#define SHUNT_SITE_JUMP_ON 0x10 /* key: jumps while the key is true */
#define SHUNT_SITE_JUMPS   0x20 /* key: was compiled as a jump */
#define SHUNT_SITE_WIDE	   0x40 /* imv: of eight bytes */

struct shunt_point;
struct shunt_sites; /* a variable's sites in one object */

/* What is behind an immediate value, a key, a call or a choice. All zero is a key, so that an array
 * of keys needs no initializer. */
struct shunt_var {
	void *at; /* its value; NULL: right behind this */
	const char *name;
	struct shunt_sites *sites;
	uint8_t kind; /* enum shunt_kind */
	uint8_t size; /* bytes of the value */
	uint8_t type; /* enum shunt_type */
	uint8_t flags;
	uint32_t unused;
};

/* struct shunt_var.flags */
#define SHUNT_VAR_PRIVATE 1u /* `shunt set` leaves it alone */
#define SHUNT_VAR_POINT	  2u /* a tracepoint's key */

enum shunt_type {
	SHUNT_TYPE_UNSIGNED = 0,
	SHUNT_TYPE_SIGNED = 1,
	SHUNT_TYPE_FLOAT = 2,
	SHUNT_TYPE_POINTER = 3,
	SHUNT_TYPE_BOOL = 4,
};

/* A definition, in the section shunt_defs of its object. */
struct shunt_def {
	struct shunt_var *var; /* the first of `count` */
	const volatile void *ref; /* C: stands for it in this unit, if it says NULL */
	const char *name;
	uint64_t count;
	struct shunt_point *point; /* it is a tracepoint's key (trace.h) */
};

/* A function that `shunt set` may make a call's target, in the section shunt_offers. */
struct shunt_offer {
	struct shunt_var *var;
	void (*target)(void);
	const char *name;
};

/* All there is of an object. */
struct shunt_object_sites {
	const struct shunt_site *sites, *sites_end;
	const struct shunt_def *defs, *defs_end;
	const struct shunt_offer *offers, *offers_end;
};

/*
 * Called by an object's constructor and destructor for its records. A second
 * call for the same ones does nothing. Allocates, locks.
 */
SHUNT_API void shunt_sites_add(const struct shunt_object_sites *object);
SHUNT_API void shunt_sites_remove(const struct shunt_object_sites *object);

/* Of the object that this unit becomes part of; NULL where there are none. */
#define SHUNT_BOUND_(type, name) extern const type name[] __attribute__((weak, visibility("hidden")))
SHUNT_BOUND_(struct shunt_site, __start_shunt_sites);
SHUNT_BOUND_(struct shunt_site, __stop_shunt_sites);
SHUNT_BOUND_(struct shunt_def, __start_shunt_defs);
SHUNT_BOUND_(struct shunt_def, __stop_shunt_defs);
SHUNT_BOUND_(struct shunt_offer, __start_shunt_offers);
SHUNT_BOUND_(struct shunt_offer, __stop_shunt_offers);

__attribute__((constructor(101), used)) static void shunt_sites_begin_(void)
{
	struct shunt_object_sites o = {__start_shunt_sites, __stop_shunt_sites, __start_shunt_defs,
		__stop_shunt_defs, __start_shunt_offers, __stop_shunt_offers};

	shunt_sites_add(&o);
}

__attribute__((destructor(101), used)) static void shunt_sites_end_(void)
{
	struct shunt_object_sites o = {__start_shunt_sites, __stop_shunt_sites, __start_shunt_defs,
		__stop_shunt_defs, __start_shunt_offers, __stop_shunt_offers};

	shunt_sites_remove(&o);
}

#ifdef __cplusplus
}
#endif

/*
 * SHUNT_PRIVATE(name), at file scope, behind a definition: `shunt set` refuses the
 * immediate value, key, call or choice. From the constructors on.
 */
#define SHUNT_PRIVATE(name) \
	__attribute__((constructor(102), used)) static void shunt_private_##name(void) \
	{ \
		((struct shunt_var *)(void *)&(name))->flags |= SHUNT_VAR_PRIVATE; \
	} \
	struct shunt_site

/*
 * How sites refer to a variable: by a pointer to it, of their own unit or object,
 * for the variable itself may be another object's.
 *
 * C: the declaration initializes it; a definition has the same name, which C
 * allows if it has no initializer. Where there is no declaration it is NULL, and
 * the definition's record says for whom it stands. volatile: -fmerge-all-constants
 * would make one of all that are NULL. C++: a template's member. A unit declares a
 * variable once.
 */
/* retain: lld lets go of a section that nothing but __start_ refers to. */
#if __has_attribute(retain)
#define SHUNT_RETAIN_ retain,
#else
#define SHUNT_RETAIN_
#endif
#define SHUNT_DEF_(name, count) \
	static const struct shunt_def shunt_def_##name \
		__attribute__((section("shunt_defs"), used, SHUNT_RETAIN_ aligned(8)))
#ifdef __cplusplus
template <typename T, T &Var> struct __attribute__((visibility("hidden"))) shunt_ref_ {
	static T *const ref;
};
template <typename T, T &Var> T *const shunt_ref_<T, Var>::ref = &Var;
#define SHUNT_STATIC_ASSERT_ static_assert
#define SHUNT_DECLARED_(type, name, address)
#define SHUNT_DEFINED_(type, name, address, count) \
	SHUNT_DEF_(name, count) = {&(address)->var, NULL, #name, count, NULL}
#else
#define SHUNT_STATIC_ASSERT_ _Static_assert
#define SHUNT_DECLARED_(type, name, address) \
	static type *const volatile shunt_ref_##name __attribute__((unused)) = address;
#define SHUNT_DEFINED_(type, name, address, count) \
	static type *const volatile shunt_ref_##name __attribute__((unused)); \
	SHUNT_DEF_(name, count) = {&(address)->var, &shunt_ref_##name, #name, count, NULL}
#endif

/*
 * A record's text: the instruction is between .Lshunt%= and .Lshunte%=. The .reloc has no
 * bytes: it tells linkers that two functions whose code is the same but for whose
 * instructions they hold are not (--icf).
 */
#define SHUNT_SITE_RECORD_(target, ref, kind, index) \
	".reloc .Lshuntn%=, R_X86_64_NONE, " ref "\n\t" \
	".pushsection shunt_sites, \"ao?\", @progbits, .Lshunt%=\n\t" \
	".p2align 2\n\t" \
	".long .Lshunt%= - ., " target " - ., " ref " - .\n\t" \
	".byte " kind ", .Lshunte%= - .Lshunt%=\n\t" \
	".short " index "\n\t" \
	".popsection"

#endif
