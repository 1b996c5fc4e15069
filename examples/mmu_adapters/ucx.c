/* SPDX-License-Identifier: MIT */
/*
 * ucx.c - tells UCX's registration caches what shunt sees. To be copied into a program of one's own.
 *
 * UCX asks whoever has hooks of his own to declare the event VM_UNMAPPED external and to call
 * ucm_vm_munmap() before memory goes. Three things are decided here:
 *
 * - SHUNT_MMU_DIRECT. UCX calls its handlers from its hooks with malloc()'s locks held as well, so
 *   <ucm/api/ucm.h> forbids them to allocate, or to wait for who does; a cache that is busy puts the
 *   range into a queue that it looks at before the next answer. That is what DIRECT asks for, and so no change
 *   is made before UCX knows of it, also not those from inside of libc.
 * - It is told twice, before the change and after it. UCX knows no "from .. to": a page that another
 *   thread registers in between is the old one.
 * - All but PROTECT is told. fork() empties the caches: the parent gets a copy of a page that it writes to, and
 *   the registration stays with the old one. Who knows that all of his cards' pages are pinned (this
 *   kernel copies those for the child instead) leaves FORK out.
 */
#include "ucx.h"

#include <errno.h>
#include <ucm/api/ucm.h>

#include <shunt/mmu.h>

static void tell(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	ucm_vm_munmap((void *)e->start, e->end - e->start);
}

static const struct shunt_mmu_notifier_ops ops = {
	.invalidate_range_start = tell, .invalidate_range_end = tell,
};

static struct shunt_mmu_notifier notifier;

int mmu_ucx_start(uint32_t flags)
{
	int r;

	ucm_set_external_event(UCM_EVENT_VM_UNMAPPED);
	notifier = (struct shunt_mmu_notifier){
		.ops = &ops,
		.kinds = 1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_DISCARD |
			 1u << SHUNT_MMU_FORK,
		.flags = flags | SHUNT_MMU_DIRECT,
	};
	r = shunt_mmu_notifier_register(&notifier);
	/* UCX maps and unmaps something, and looks whether a handler of its own hears of it. */
	if (!r && ucm_test_external_events(UCM_EVENT_VM_UNMAPPED) != UCS_OK) {
		shunt_mmu_notifier_unregister(&notifier);
		r = -ENOTSUP;
	}
	if (r)
		ucm_unset_external_event(UCM_EVENT_VM_UNMAPPED);
	return r;
}

void mmu_ucx_stop(void)
{
	shunt_mmu_notifier_unregister(&notifier);
	ucm_unset_external_event(UCM_EVENT_VM_UNMAPPED);
}
