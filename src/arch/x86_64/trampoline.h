/* SPDX-License-Identifier: MIT */
/*
 * trampoline.h - the permanent code between a traced function and what watches
 * it: slots (one per function and kind of hook, made next to the function's
 * object) and return stubs (one per pair of caller and function, part of this
 * library's text). docs/ftrace.md draws the whole path.
 *
 * Shared by C and assembly. Nothing made here is ever changed or freed, so no
 * thread can be caught on code that goes away.
 */
#ifndef SHUNT_ARCH_TRAMPOLINE_H
#define SHUNT_ARCH_TRAMPOLINE_H

/* --- return stubs ------------------------------------------------------- */

/*
 * The zone of stubs: units of 16 bytes, 256 to a page, unit 0 of each page
 * holds the distance to that page's rows of the table (for the unwinder).
 */
#define SHUNT_STUB_UNITS   (1 << 18)
#define SHUNT_STUB_SHIFT   4
#define SHUNT_STUB_ZONE    (SHUNT_STUB_UNITS << SHUNT_STUB_SHIFT)
#define SHUNT_STUB_MAGIC   0x6e757453 /* in the header, after the distance */
#define SHUNT_STUB_ROW     32 /* sizeof(struct shunt_stub) */

/* offsets in struct shunt_stub */
#define SHUNT_STUB_BODY    0
#define SHUNT_STUB_PARENT  8
#define SHUNT_STUB_ID      16
#define SHUNT_STUB_KIND    20
#define SHUNT_STUB_DOOR    24

#define SHUNT_STUB_RECORD   0 /* the exit goes into the ring */
#define SHUNT_STUB_CALL_GPR 1 /* to callbacks that keep off vector registers */
#define SHUNT_STUB_CALL_VEC 2 /* to any callbacks */
#define SHUNT_STUB_PROBE    3 /* to a probe's handlers, all registers in a frame */
#define SHUNT_STUB_PROBE_VEC 4 /* the same, of handlers that use vector registers */

/* The hash from (return address, function id) to its stub. */
#define SHUNT_HASH_SIZE    (1 << 19)
#define SHUNT_HASH_PROBES  64
#define SHUNT_HASH_MULT    0x9E3779B1
/* offsets in struct shunt_hash_entry */
#define SHUNT_HASH_PARENT  0
#define SHUNT_HASH_ID      8
#define SHUNT_HASH_UNIT    12

/* --- slots -------------------------------------------------------------- */

/*
 * A page of slots: a header of two units, then 254 slots of 16 bytes.
 * Offsets in the header:
 */
#define SHUNT_SLOT_ENTRY   0  /* the common code that every slot calls */
#define SHUNT_SLOT_DATA    8  /* &hooks[] of the page's slot number 0 */
#define SHUNT_SLOT_FIRST   16 /* id of the page's slot number 0 */
#define SHUNT_SLOT_HEADER  2  /* units */
#define SHUNT_SLOTS_A_PAGE 254
/* from a slot's return address (slot + 6) to the distance to the body ... */
#define SHUNT_SLOT_BODY    4
/* ... and to the length of the site; 0: it was displaced, its address is before the body */
#define SHUNT_SLOT_LEN     8
#define SHUNT_BODY_SITE    8

/* --- the event's word (see shunt/ring.h) -------------------------------- */
#define SHUNT_TAG_EXIT       (1 << 30)
#define SHUNT_TAG_HASH_SHIFT 24

/* struct shunt_ring_writer, checked where it is included */
#define SHUNT_WRITER_AT	     0
#define SHUNT_WRITER_HI      8
#define SHUNT_WRITER_WORDS   16
#define SHUNT_WRITER_WRITTEN 24
/* the low half of an empty word (ring/pool.h) */
#define SHUNT_WORD_EMPTY     3

/* struct shunt_reader and struct shunt_hook, checked in trace/dispatch.c */
#define SHUNT_READER_TOP     0
#define SHUNT_LEVEL_SHIFT    48 /* the frame's address is below */
#define SHUNT_HOOK_ENTRY     0
#define SHUNT_HOOK_OPS	     8
#define SHUNT_HOOK_FLAGS     16

/* hook flags */
#define SHUNT_HOOK_EXIT	     1 /* somebody wants the exit */
#define SHUNT_HOOK_DEPTH     2 /* somebody has a depth limit */
#define SHUNT_HOOK_GPR	     4 /* nobody uses vector registers */
#define SHUNT_HOOK_STATE     8 /* a depth limit, or the recorder among the users */

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shunt_hook;

struct shunt_stub {
	uintptr_t body;	  /* where the traced function goes on */
	uintptr_t parent; /* where it returns to */
	uint32_t id;
	uint8_t kind; /* SHUNT_STUB_* */
	uint8_t len;  /* of the site, which is at body - len; 0: see SHUNT_BODY_SITE */
	uint16_t unused;
	union {
		struct shunt_hook *const *hook; /* the function's place in the table */
		const uintptr_t *door; /* a probe's: where `body` finds where to go on */
	};
};

struct shunt_hash_entry {
	uintptr_t parent;
	uint32_t id;
	uint32_t unit;
} __attribute__((aligned(16)));

/* What a slot's common code leaves on the stack for shunt_call_entry(). */
struct shunt_entry_frame {
	uintptr_t rbp, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uintptr_t body;	  /* cell: where to go on without a stub */
	uintptr_t stub;	  /* cell: the stub to go on through */
	uintptr_t slot;	  /* return address into the slot, slot + 6 */
	uintptr_t parent; /* the function's return address */
};

/* The same for shunt_call_exit(). */
struct shunt_exit_frame {
	uintptr_t rbp, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uintptr_t parent; /* cell: where to return to */
	uintptr_t stub;	  /* in S: return address into the stub, stub + 11 */
};

extern char shunt_stub_zone[];
extern struct shunt_stub shunt_stub_table[SHUNT_STUB_UNITS];
extern struct shunt_hash_entry shunt_stub_hash[SHUNT_HASH_SIZE + SHUNT_HASH_PROBES];

/* The common code behind the three banks of slots. */
void shunt_record_entry(void);
void shunt_call_entry_gpr(void);
void shunt_call_entry_vec(void);
/* The same for functions that were not compiled for it, and may be written by hand. */
void shunt_record_entry_flags(void);
void shunt_call_entry_flags_gpr(void);
void shunt_call_entry_flags_vec(void);

/* Whether an address is a return stub's, for those who walk stacks. */
static inline bool shunt_stub_contains(uintptr_t addr)
{
	return addr - (uintptr_t)shunt_stub_zone < SHUNT_STUB_ZONE;
}

/* The 6 bits by which a reader pairs an entry with its exit. */
static inline uint32_t shunt_slot_hash(uintptr_t stack_slot)
{
	return (uint32_t)(stack_slot >> 4) * (uint32_t)SHUNT_HASH_MULT >> 26;
}

struct shunt_arch_site {
	uintptr_t addr;
	uint8_t len; /* the body begins at addr + len; 0: displaced, addr is its copy's */
};

/* Finds out which vector registers there are to keep. Before the first hook. */
void shunt_arch_trampoline_init(void);

/*
 * Fills one page of slots at `page`, which will be executed at `at`, for the
 * functions [first, first + n) with the given sites; `hooks` is the place of
 * the first one's hook.
 */
void shunt_arch_slots_fill(void *page, uintptr_t at, void (*entry)(void), const void *hooks,
	uint32_t first, const struct shunt_arch_site *sites, size_t n);

/* The address of slot i of a page. */
static inline uintptr_t shunt_arch_slot(uintptr_t page, size_t i)
{
	return page + ((SHUNT_SLOT_HEADER + i) << 4);
}

#endif
#endif
