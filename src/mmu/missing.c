/* Replaced by sites, decode: weak, until they are here. */
#include "mmu/core.h"
__attribute__((weak)) void shunt_arch_mmu_call(void (*fn)(void *), void *arg) { fn(arg); }
__attribute__((weak)) int shunt_mmu_sites_arm(uint32_t *m, char *why, size_t n) { *m = 0; (void)why; (void)n; return 0; }
__attribute__((weak)) void shunt_mmu_sites_disarm(void) {}
__attribute__((weak)) unsigned shunt_mmu_decode(const struct shunt_mmu_call *c, struct shunt_mmu_range r[SHUNT_MMU_RANGES]) { (void)c; (void)r; return 0; }
__attribute__((weak)) const char *shunt_mmu_source_name(enum shunt_mmu_source s) { (void)s; return "?"; }
