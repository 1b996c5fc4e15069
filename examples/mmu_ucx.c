/* SPDX-License-Identifier: MIT */
/*
 * mmu_ucx.c - UCX's registration cache, with its own hooks and with a notifier.
 *
 *   mmu_ucx			all of them, each in a process of its own; they must differ
 *   mmu_ucx hooks		UCX alone: it patches the first bytes of libc's munmap() and others
 *   mmu_ucx notifier		mmu_adapters/ucx.c, with UCX's hooks off (UCX_MEM_MMAP_HOOK_MODE=none)
 *   mmu_ucx both		mmu_adapters/ucx.c on top of UCX's hooks, which libucs puts on when it is loaded
 *
 * ucs_rcache is the cache that UCX's transports keep their registrations in. Here a registration is a
 * page that a pipe holds (mmu_adapters/change.h), as a card's would be. In each of a dozen ways the page at
 * an address becomes another one; then the cache is asked for that address again (mmu_adapters/compare.h).
 *
 * How many of the answers were stale is printed for each way. Wrong is: any with the notifier, and none
 * without it, for then this proves nothing.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>

#include <shunt/mmu.h>

#include "mmu_adapters/change.h"
#include "mmu_adapters/compare.h"
#include "mmu_adapters/ucx.h"

struct region {
	ucs_rcache_region_t super; /* UCX's */
	struct held held;
};

static atomic_uint registered, made;
static ucs_rcache_t *cache;

/* ---- The cache. ---- */

static ucs_status_t reg(void *context, ucs_rcache_t *c, void *arg, ucs_rcache_region_t *super, uint16_t flags)
{
	struct region *r = (struct region *)super;

	(void)context;
	(void)c;
	(void)arg;
	(void)flags;
	registered++;
	made++;
	return held_take(&r->held, super->super.start) ? UCS_ERR_IO_ERROR : UCS_OK;
}

static void dereg(void *context, ucs_rcache_t *c, ucs_rcache_region_t *super)
{
	(void)context;
	(void)c;
	registered--;
	held_drop(&((struct region *)super)->held);
}

static void dump(void *context, ucs_rcache_t *c, ucs_rcache_region_t *super, char *to, size_t size)
{
	(void)context;
	(void)c;
	snprintf(to, size, "pipe %d", ((struct region *)super)->held.pipe[0]);
}

static void make_cache(void)
{
	static const ucs_rcache_ops_t ops = {.mem_reg = reg, .mem_dereg = dereg, .dump_region = dump};
	ucs_rcache_params_t params = {
		.region_struct_size = sizeof(struct region),
		.alignment = UCS_RCACHE_MIN_ALIGNMENT,
		.max_alignment = PAGE,
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.max_regions = 100000,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};

	check(ucs_rcache_create(&params, "mmu_ucx", NULL, &cache) == UCS_OK, "ucs_rcache_create");
}

/* What a card would send of the page. */
static uint32_t send_page(char *p)
{
	ucs_rcache_region_t *r;
	uint32_t word;

	check(ucs_rcache_get(cache, p, PAGE, PROT_READ | PROT_WRITE, NULL, &r) == UCS_OK, "ucs_rcache_get");
	word = held_read(&((struct region *)r)->held);
	ucs_rcache_region_put(cache, r);
	return word;
}

/* ---- With UCX's hooks and without. ---- */

static void open_cache(const struct mode *m)
{
	int r = 0;

	if (m->adapter && m->partial)
		check(mmu_ucx_start(0) == -ENOTSUP, "UCX's hooks are on, and nobody is told so");
	if (m->adapter)
		r = mmu_ucx_start(m->partial ? SHUNT_MMU_PARTIAL : 0);
	errno = -r;
	check(!r, "mmu_ucx_start");
	make_cache();
}

static unsigned close_cache(const struct mode *m)
{
	ucs_rcache_destroy(cache);
	if (m->adapter)
		mmu_ucx_stop();
	return registered;
}

static unsigned all_made(void)
{
	return made;
}

int main(int argc, char **argv)
{
	static const struct mode modes[] = {
		{"hooks", "UCX_MEM_MMAP_HOOK_MODE", "bistro", .files = NULL},
		{"notifier", "UCX_MEM_MMAP_HOOK_MODE", "none", .adapter = true},
		{"both", "UCX_MEM_MMAP_HOOK_MODE", "bistro", .adapter = true, .partial = true},
		{0},
	};
	static const struct subject ucx = {"mmu_ucx", modes, open_cache, close_cache, send_page, all_made, NULL, NULL};

	return compare(&ucx, argc, argv);
}
