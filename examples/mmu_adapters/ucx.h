/* SPDX-License-Identifier: MIT */
/* ucx.h - tells UCX's registration caches what shunt sees. */
#ifndef MMU_ADAPTERS_UCX_H
#define MMU_ADAPTERS_UCX_H

#include <stdint.h>

/*
 * Before the first cache is made (a context with a card, or ucs_rcache_create()). `flags`: SHUNT_MMU_PARTIAL
 * where UCX's own hooks are on already. 0, or -errno, and then UCX is as it was:
 * -ENOTSUP	not all is seen (the hooks are on), or what is told does not arrive at UCX
 * and what shunt_mmu_notifier_register() says.
 */
int mmu_ucx_start(uint32_t flags);

/* When the last cache is gone: what is left is told nothing more. */
void mmu_ucx_stop(void);

#endif
