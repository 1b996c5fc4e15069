/* SPDX-License-Identifier: MIT */
/*
 * tree.c - the intervals, in a tree that is read without a lock.
 *
 * A treap, by (start, number), each node with the greatest end below it. It is kept twice: who
 * changes it changes the one copy while readers use the other, then the other way round. Which
 * one is to be read is the lowest bit of `turn`; a reader for whom that has changed meanwhile reads again. So a
 * reader never waits, not even in a signal handler that interrupted the thread that changes it, and
 * neither inserting nor removing allocates. What a reader finds stays memory of the tree's: it is in a section
 * of the ops.
 */
#include "mmu/core.h"

static struct shunt_mmu_node *root[2];
static uint64_t turn; /* even: readers use copy 0 */
static uint64_t dice = 0x9e3779b97f4a7c15u;

#define DEPTH 128 /* a treap of 2^32 nodes is deeper with a chance of less than 2^-40 */

static struct shunt_mmu_node *left(const struct shunt_mmu_node *n, int c)
{
	return __atomic_load_n(&n->in[c].left, __ATOMIC_ACQUIRE);
}

static struct shunt_mmu_node *right(const struct shunt_mmu_node *n, int c)
{
	return __atomic_load_n(&n->in[c].right, __ATOMIC_ACQUIRE);
}

static uintptr_t max_end(const struct shunt_mmu_node *n, int c)
{
	return n ? __atomic_load_n(&n->in[c].max, __ATOMIC_RELAXED) : 0;
}

static bool before(const struct shunt_mmu_node *n, uintptr_t start, uint64_t number)
{
	return n->start != start ? n->start < start : n->number < number;
}

/* --- reading ---------------------------------------------------------------------- */

static uint64_t read_begin(void)
{
	return __atomic_load_n(&turn, __ATOMIC_ACQUIRE);
}

static bool read_changed(uint64_t t)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&turn, __ATOMIC_RELAXED) != t;
}

/* While the copy is being changed what is found may be wrong, and the way long: it is not followed for ever. */
static bool overlaps(int c, uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_node *n = __atomic_load_n(&root[c], __ATOMIC_ACQUIRE);

	for (int i = 0; n && i < DEPTH; i++) {
		struct shunt_mmu_node *l = left(n, c);

		if (n->start < end && n->end > start)
			return true;
		n = max_end(l, c) > start ? l : right(n, c);
	}
	return false;
}

bool shunt_mmu_tree_overlaps(uintptr_t start, uintptr_t end)
{
	uint64_t t;
	bool found;

	do {
		t = read_begin();
		found = overlaps((int)(t & 1), start, end);
	} while (read_changed(t));
	return found;
}

/* The first in order, of a whole subtree. */
static struct shunt_mmu_node *first(struct shunt_mmu_node *n, int c, uintptr_t start, uintptr_t end)
{
	for (int i = 0; n && max_end(n, c) > start && i < DEPTH; i++) {
		struct shunt_mmu_node *l = left(n, c);

		if (max_end(l, c) > start) {
			n = l; /* who is in there and ends behind start is the first to do so */
		} else if (n->start >= end) {
			return NULL;
		} else if (n->end > start) {
			return n;
		} else {
			n = right(n, c);
		}
	}
	return NULL;
}

static struct shunt_mmu_node *next(int c, uintptr_t start, uintptr_t end, uintptr_t after_start,
	uint64_t after_number)
{
	struct shunt_mmu_node *path[DEPTH], *n = __atomic_load_n(&root[c], __ATOMIC_ACQUIRE), *found;
	int depth = 0;

	/* The ones behind it on the way down; what they have to their right follows each of them. */
	for (int i = 0; n && i < DEPTH; i++) {
		bool behind = !before(n, after_start, after_number + 1);

		if (behind)
			path[depth++] = n;
		n = behind ? left(n, c) : right(n, c);
	}
	while (depth--) {
		n = path[depth];
		if (n->start >= end)
			return NULL;
		if (n->end > start)
			return n;
		found = first(right(n, c), c, start, end);
		if (found)
			return found;
	}
	return NULL;
}

struct shunt_mmu_node *shunt_mmu_tree_next(uintptr_t start, uintptr_t end, uintptr_t after_start,
	uint64_t after_number)
{
	struct shunt_mmu_node *n;
	uint64_t t;

	do {
		t = read_begin();
		n = next((int)(t & 1), start, end, after_start, after_number);
	} while (read_changed(t));
	return n;
}

/* --- changing --------------------------------------------------------------------- */

static void store(struct shunt_mmu_node **at, struct shunt_mmu_node *n)
{
	__atomic_store_n(at, n, __ATOMIC_RELEASE);
}

static void update(struct shunt_mmu_node *n, int c)
{
	uintptr_t l = max_end(n->in[c].left, c), r = max_end(n->in[c].right, c);
	uintptr_t max = l > r ? l : r;

	__atomic_store_n(&n->in[c].max, n->end > max ? n->end : max, __ATOMIC_RELAXED);
}

/* Those before (start, number), and the others. */
static void split(struct shunt_mmu_node *t, int c, const struct shunt_mmu_node *at,
	struct shunt_mmu_node **l, struct shunt_mmu_node **r)
{
	struct shunt_mmu_node *part;

	if (!t) {
		*l = *r = NULL;
		return;
	}
	if (before(t, at->start, at->number)) {
		split(t->in[c].right, c, at, &part, r);
		store(&t->in[c].right, part);
		*l = t;
	} else {
		split(t->in[c].left, c, at, l, &part);
		store(&t->in[c].left, part);
		*r = t;
	}
	update(t, c);
}

static struct shunt_mmu_node *merge(struct shunt_mmu_node *l, struct shunt_mmu_node *r, int c)
{
	if (!l || !r)
		return l ? l : r;
	if (l->priority > r->priority) {
		store(&l->in[c].right, merge(l->in[c].right, r, c));
		update(l, c);
		return l;
	}
	store(&r->in[c].left, merge(l, r->in[c].left, c));
	update(r, c);
	return r;
}

static struct shunt_mmu_node *insert(struct shunt_mmu_node *t, struct shunt_mmu_node *n, int c)
{
	if (!t || n->priority > t->priority) {
		struct shunt_mmu_node *l, *r;

		split(t, c, n, &l, &r);
		store(&n->in[c].left, l);
		store(&n->in[c].right, r);
		update(n, c);
		return n;
	}
	if (before(t, n->start, n->number))
		store(&t->in[c].right, insert(t->in[c].right, n, c));
	else
		store(&t->in[c].left, insert(t->in[c].left, n, c));
	update(t, c);
	return t;
}

static struct shunt_mmu_node *erase(struct shunt_mmu_node *t, struct shunt_mmu_node *n, int c)
{
	if (t == n)
		return merge(n->in[c].left, n->in[c].right, c);
	if (before(t, n->start, n->number))
		store(&t->in[c].right, erase(t->in[c].right, n, c));
	else
		store(&t->in[c].left, erase(t->in[c].left, n, c));
	update(t, c);
	return t;
}

/* Sends the readers to the other copy: whoever still reads this one will see that, and read again. */
static void turn_away(void)
{
	__atomic_add_fetch(&turn, 1, __ATOMIC_SEQ_CST);
}

static uint32_t throw_dice(void)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return (uint32_t)(dice >> 32);
}

void shunt_mmu_tree_insert(struct shunt_mmu_node *n)
{
	n->priority = throw_dice();
	for (int c = 0; c < 2; c++) {
		turn_away();
		store(&root[c], insert(root[c], n, c));
	}
}

void shunt_mmu_tree_remove(struct shunt_mmu_node *n)
{
	for (int c = 0; c < 2; c++) {
		turn_away();
		store(&root[c], erase(root[c], n, c));
	}
}

void shunt_mmu_tree_reset(void)
{
	root[0] = root[1] = NULL;
	turn = 0;
}
