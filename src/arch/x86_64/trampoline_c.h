/* SPDX-License-Identifier: MIT */
/* trampoline_c.h - the C half of the trampolines. */
#ifndef SHUNT_ARCH_TRAMPOLINE_C_H
#define SHUNT_ARCH_TRAMPOLINE_C_H

#include "trampoline.h"

struct shunt_hook;

/* Where a slot's function has its hook; from a return address into the slot. */
static inline struct shunt_hook *const *shunt_slot_hook(uintptr_t slot)
{
	const char *page = (const char *)(slot & ~(uintptr_t)4095);
	size_t unit = (slot & 4095) >> 4;
	struct shunt_hook *const *hooks =
		*(struct shunt_hook *const *const *)(page + SHUNT_SLOT_DATA);

	return hooks + (unit - SHUNT_SLOT_HEADER);
}

static inline uint32_t shunt_slot_id(uintptr_t slot)
{
	const char *page = (const char *)(slot & ~(uintptr_t)4095);

	return *(const uint32_t *)(page + SHUNT_SLOT_FIRST) +
	       (uint32_t)((slot & 4095) >> 4) - SHUNT_SLOT_HEADER;
}

/* Where the slot's function goes on, and where its site is. */
static inline uintptr_t shunt_slot_body(uintptr_t slot)
{
	return slot + (uintptr_t)(intptr_t)*(const int32_t *)(slot + SHUNT_SLOT_BODY);
}

static inline uintptr_t shunt_body_site(uintptr_t body, uint8_t len)
{
	return len ? body - len : *(const uintptr_t *)(body - SHUNT_BODY_SITE);
}

static inline uintptr_t shunt_slot_site(uintptr_t slot)
{
	return shunt_body_site(shunt_slot_body(slot), *(const uint8_t *)(slot + SHUNT_SLOT_LEN));
}

/* The row of a stub, from any address in it. */
static inline struct shunt_stub *shunt_stub_row(uintptr_t addr)
{
	return &shunt_stub_table[(addr - (uintptr_t)shunt_stub_zone) >> SHUNT_STUB_SHIFT];
}

uintptr_t shunt_stub_make(uintptr_t parent, uint32_t id, uintptr_t slot, uint32_t kind);
uintptr_t shunt_stub_find(uintptr_t parent, uint32_t id, uintptr_t slot, uint32_t kind);
uintptr_t shunt_stub_probe(uintptr_t parent, uint32_t id, uint32_t kind, const uintptr_t *door);
void shunt_stub_usage(uint32_t *used, uint32_t *max, uint64_t *no_exit);

/* For the assembly (trace/dispatch.c). */
void shunt_record_put(uint32_t tag);
uintptr_t shunt_tail_exit(uintptr_t stub, uintptr_t stack_slot);
uintptr_t shunt_call_entry(struct shunt_entry_frame *f, bool vec);
void shunt_call_exit(struct shunt_exit_frame *f);

extern uint32_t shunt_vector_kind;

#endif
