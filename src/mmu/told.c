/* SPDX-License-Identifier: MIT */
/*
 * told.c - which changes of watched memory are under way that their makers tell.
 *
 * Why it works. The kernel sends an event of such a change as well, and its maker sleeps in the kernel until
 * that event is read. So when a descriptor has become readable, the maker of the event that will be read first has
 * not left its slot; who copies the table between poll() and read() has it in the copy. A single
 * thread reads, and the kernel's queue is first in, first out.
 *
 * A slot is owned by who set its bit in `busy`. `turn` is odd while its owner writes, and grows with each
 * owner: a copy that sees the same even number before and after is of one owner. One that is not
 * is of an op that came or went meanwhile: it was not asleep in the kernel, so it does not matter.
 *
 * No lock, no retry that waits for somebody: signal handlers and vfork children run this in the middle of
 * another's enter(). A child that shares our memory has no slot, since a SIGKILL in
 * its call would leave one taken, and that range's events would be dropped for ever.
 */
#include "arch/x86_64/text_sys.h"
#include "mmu/watch.h"

#define WORDS (SHUNT_MMU_TOLD / 64)
/* The kinds of which userfaultfd tells. */
#define KINDS (1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_DISCARD)

uint32_t shunt_mmu_watching;

static uint64_t busy[WORDS];

static struct {
	uint32_t turn;
	uint32_t n;
	struct shunt_mmu_range range[SHUNT_MMU_RANGES];
} __attribute__((aligned(64))) slots[SHUNT_MMU_TOLD];

static int claim(void)
{
	for (int w = 0; w < WORDS; w++) {
		uint64_t now = __atomic_load_n(&busy[w], __ATOMIC_RELAXED);

		while (~now) {
			int bit = __builtin_ctzll(~now);

			if (__atomic_compare_exchange_n(&busy[w], &now, now | 1ull << bit, false,
				    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
				return w * 64 + bit;
		}
	}
	return -1;
}

static bool matters(const struct shunt_mmu_op *op)
{
	if ((op->context & SHUNT_MMU_MADE) || shunt_sys(SYS_getpid) != op->owner)
		return false;
	for (uint32_t i = 0; i < op->n; i++)
		if (KINDS >> op->range[i].kind & 1)
			return true;
	return false;
}

int shunt_mmu_watch_enter(const struct shunt_mmu_op *op)
{
	int slot = matters(op) ? claim() : -1;

	if (slot < 0)
		return -1;
	/* Pairs with the copy's two loads: these stores are between an odd and an even number. */
	__atomic_store_n(&slots[slot].turn, slots[slot].turn + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	slots[slot].n = op->n;
	for (uint32_t i = 0; i < op->n; i++)
		slots[slot].range[i] = op->range[i];
	__atomic_store_n(&slots[slot].turn, slots[slot].turn + 1, __ATOMIC_RELEASE);
	return slot;
}

void shunt_mmu_watch_leave(int slot)
{
	__atomic_fetch_and(&busy[slot / 64], ~(1ull << slot % 64), __ATOMIC_RELEASE);
}

static bool copy(unsigned slot, struct shunt_mmu_told *to)
{
	uint32_t turn = __atomic_load_n(&slots[slot].turn, __ATOMIC_ACQUIRE);

	to->slot = slot;
	to->turn = turn;
	to->n = slots[slot].n;
	if (turn & 1 || to->n > SHUNT_MMU_RANGES)
		return false;
	for (uint32_t i = 0; i < to->n; i++)
		to->range[i] = slots[slot].range[i];
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&slots[slot].turn, __ATOMIC_RELAXED) == turn;
}

unsigned shunt_mmu_told_copy(struct shunt_mmu_told *to)
{
	unsigned n = 0;

	for (int w = 0; w < WORDS; w++)
		for (uint64_t b = __atomic_load_n(&busy[w], __ATOMIC_ACQUIRE); b; b &= b - 1)
			n += copy(w * 64 + __builtin_ctzll(b), &to[n]);
	return n;
}

/* The end of a range of it that has `at` in it; `at` where none has. */
static uintptr_t reach(const struct shunt_mmu_told *t, uintptr_t at, uint32_t kinds)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (kinds >> t->range[i].kind & 1 && at >= t->range[i].start && at < t->range[i].end)
			return t->range[i].end;
	return at;
}

bool shunt_mmu_told_covers(const struct shunt_mmu_told *t, uintptr_t start, uintptr_t end, uint32_t kinds)
{
	while (start < end) {
		uintptr_t next = reach(t, start, kinds);

		if (next == start)
			return false;
		start = next;
	}
	return true;
}

void shunt_mmu_told_forget(void)
{
	for (int w = 0; w < WORDS; w++)
		__atomic_store_n(&busy[w], 0, __ATOMIC_RELEASE);
	__atomic_store_n(&shunt_mmu_watching, 0, __ATOMIC_RELEASE);
}
