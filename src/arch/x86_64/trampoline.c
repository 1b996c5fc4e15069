/* SPDX-License-Identifier: MIT */
/*
 * trampoline.c - makes slots and finds return stubs.
 *
 * Invariant: a stub's row is complete before its unit can be found through the
 * hash, and neither ever changes again, but for the body of a probe's. A row says "go on in body, return to
 * parent, it was id": true for as long as the process lives, since ids are
 * never used twice; so stubs need no lock, no owner and no end.
 *
 * shunt_stub_make() runs in the traced function's place: any context, signal
 * handlers included; it takes no lock and keeps off the vector registers.
 */
#include <cpuid.h>
#include <string.h>

#include "arch/x86_64/probe.h"
#include "trampoline.h"
#include "trampoline_c.h"

_Static_assert(sizeof(struct shunt_stub) == SHUNT_STUB_ROW, "row size is in the assembly");
_Static_assert(offsetof(struct shunt_stub, parent) == SHUNT_STUB_PARENT, "in the assembly");
_Static_assert(offsetof(struct shunt_stub, id) == SHUNT_STUB_ID, "in the assembly");
_Static_assert(offsetof(struct shunt_stub, kind) == SHUNT_STUB_KIND, "in the assembly");
_Static_assert(sizeof(struct shunt_hash_entry) == 16, "one compare-exchange");
_Static_assert(offsetof(struct shunt_entry_frame, stub) == 88, "in the assembly");
_Static_assert(offsetof(struct shunt_exit_frame, stub) == 88, "in the assembly");

struct shunt_stub shunt_stub_table[SHUNT_STUB_UNITS];
struct shunt_hash_entry shunt_stub_hash[SHUNT_HASH_SIZE + SHUNT_HASH_PROBES];

/* 0: xmm only, 1: ymm, 2: zmm and masks. */
uint32_t shunt_vector_kind;

static uint32_t next_unit = 1;
static uint64_t unserved;

/* Unit 0 of each page is its header. */
static uint32_t take_unit(void)
{
	uint32_t u;

	if (__atomic_load_n(&next_unit, __ATOMIC_RELAXED) >= SHUNT_STUB_UNITS)
		return 0;
	do
		u = __atomic_fetch_add(&next_unit, 1, __ATOMIC_RELAXED);
	while ((u & 255) == 0);
	return u < SHUNT_STUB_UNITS ? u : 0;
}

/* Writes {parent, id, unit} if the entry is empty: 16 bytes at once. */
static bool claim(struct shunt_hash_entry *e, uintptr_t parent, uint32_t id, uint32_t unit)
{
	uint64_t lo = 0, hi = 0;
	bool done;

	__asm__ volatile("lock cmpxchg16b %1\n\tsete %0"
			 : "=q"(done), "+m"(*e), "+a"(lo), "+d"(hi)
			 : "b"(parent), "c"((uint64_t)unit << 32 | id)
			 : "cc", "memory");
	return done;
}

static struct shunt_hash_entry *hash_first(uintptr_t parent, uint32_t id)
{
	uint32_t i = (uint32_t)(parent >> 3) + id * (uint32_t)SHUNT_HASH_MULT;

	return &shunt_stub_hash[i & (SHUNT_HASH_SIZE - 1)];
}

static uintptr_t stub_of(uint32_t unit)
{
	return (uintptr_t)shunt_stub_zone + ((uintptr_t)unit << SHUNT_STUB_SHIFT);
}

/*
 * The stub of (parent, id), made if there is none yet. Ids have 24 bits; the
 * kind above them keeps the kinds' stubs apart in the hash. 0 when there is no room
 * left: the call then goes on without an exit event, and is counted. `slot` is
 * the return address into the function's slot.
 */
static uintptr_t stub_make(uintptr_t parent, uint32_t id, const struct shunt_stub *fill)
{
	struct shunt_hash_entry *e = hash_first(parent, id), *end = e + SHUNT_HASH_PROBES;
	uint32_t unit = 0;
	struct shunt_stub *row;

	for (; e < end; e++) {
		if (e->parent == parent && e->id == id)
			return stub_of(e->unit);
		if (__atomic_load_n(&e->parent, __ATOMIC_ACQUIRE))
			continue;
		if (!unit) {
			unit = take_unit();
			if (!unit)
				break;
			row = &shunt_stub_table[unit];
			*row = *fill;
			row->parent = parent;
			row->id = id & 0xffffff;
		}
		/* x86 keeps the order of stores; the locked operation is a fence. */
		if (claim(e, parent, id, unit))
			return stub_of(unit);
		e--; /* somebody was faster: look at what they wrote */
	}
	__atomic_fetch_add(&unserved, 1, __ATOMIC_RELAXED);
	return 0;
}

uintptr_t shunt_stub_make(uintptr_t parent, uint32_t id, uintptr_t slot, uint32_t kind)
{
	struct shunt_stub fill = {
		.body = shunt_slot_body(slot),
		.kind = (uint8_t)kind,
		.len = *(const uint8_t *)(slot + SHUNT_SLOT_LEN),
		.hook = shunt_slot_hook(slot),
	};

	return stub_make(parent, id, &fill);
}

/*
 * A probe's, which goes on where *door says. It is the only place that says so: what a
 * thread had written into the row might be a detour that is gone when another comes.
 */
uintptr_t shunt_stub_probe(uintptr_t parent, uint32_t id, uint32_t kind, const uintptr_t *door)
{
	struct shunt_stub fill = {.body = (uintptr_t)shunt_probe_enter, .kind = (uint8_t)kind,
		.door = door};
	uint32_t key = id | kind << 24;
	const struct shunt_hash_entry *e = hash_first(parent, key);

	if (e->parent == parent && e->id == key)
		return stub_of(e->unit);
	return stub_make(parent, key, &fill);
}

/* The one for callbacks. */
uintptr_t shunt_stub_find(uintptr_t parent, uint32_t id, uintptr_t slot, uint32_t kind)
{
	uint32_t key = id | kind << 24;
	struct shunt_hash_entry *e = hash_first(parent, key);

	if (e->parent == parent && e->id == key)
		return stub_of(e->unit);
	return shunt_stub_make(parent, key, slot, kind);
}

void shunt_stub_usage(uint32_t *used, uint32_t *max, uint64_t *no_exit)
{
	uint32_t n = __atomic_load_n(&next_unit, __ATOMIC_RELAXED);

	*max = SHUNT_STUB_UNITS / 256 * 255;
	if (n > SHUNT_STUB_UNITS)
		n = SHUNT_STUB_UNITS;
	*used = n - 1 - (n - 1) / 256;
	*no_exit = __atomic_load_n(&unserved, __ATOMIC_RELAXED);
}

/* Which vector registers the kernel keeps for us (Intel SDM 1, 13.3 and 14.3). */
static uint32_t vector_kind(void)
{
	unsigned a, b, c, d;
	uint32_t xcr0, xcr0_hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(xcr0_hi) : "c"(0));
	if ((xcr0 & 6) != 6)
		return 0;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return 1;
	if ((b & bit_AVX512F) && (b & bit_AVX512BW) && (xcr0 & 0xe6) == 0xe6)
		return 2;
	return 1;
}

void shunt_arch_trampoline_init(void)
{
	shunt_vector_kind = vector_kind();
}

void shunt_arch_slots_fill(void *page, uintptr_t at, void (*entry)(void), const void *hooks,
	uint32_t first, const struct shunt_arch_site *sites, size_t n)
{
	uint8_t *p = page;
	uintptr_t fn = (uintptr_t)entry;

	memset(p, 0xcc, 4096);
	memcpy(p + SHUNT_SLOT_ENTRY, &fn, 8);
	memcpy(p + SHUNT_SLOT_DATA, &hooks, 8);
	memcpy(p + SHUNT_SLOT_FIRST, &first, 4);
	for (size_t i = 0; i < n; i++) {
		static const uint8_t jump[4] = {0xff, 0x64, 0x24, 0xe8};
		uint8_t *s = p + (shunt_arch_slot(0, i));
		int32_t back = (int32_t)-(intptr_t)(s + 6 - p);
		uintptr_t body_at = sites[i].addr + sites[i].len;
		int32_t body = (int32_t)(body_at - (at + (uintptr_t)(s - p) + 6));

		s[0] = 0xff; /* call *ENTRY(%rip) */
		s[1] = 0x15;
		memcpy(s + 2, &back, 4);
		memcpy(s + 6, jump, 4); /* jmp *-24(%rsp) */
		memcpy(s + 6 + SHUNT_SLOT_BODY, &body, 4);
		s[6 + SHUNT_SLOT_LEN] = sites[i].len;
	}
}
