/* SPDX-License-Identifier: MIT */
/* fabric.h - tells libfabric's registration caches what shunt sees. */
#ifndef MMU_ADAPTERS_FABRIC_H
#define MMU_ADAPTERS_FABRIC_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Before the first domain is opened: has libfabric (1.14 and later) take its memory monitor from here. It starts and
 * stops it as caches come and go; nothing is patched before the first. `flags`: SHUNT_MMU_PARTIAL, or
 * 0. 0, or -errno (libfabric's: -FI_EBUSY: another monitor was imported before, or is in use).
 */
int mmu_fabric_import(uint32_t flags);

/* When the last domain is closed. libfabric keeps no other monitor then: caches can be made no more. */
void mmu_fabric_close(void);

/* Whether a cache has started it. */
bool mmu_fabric_started(void);

#endif
