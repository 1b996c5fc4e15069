/* SPDX-License-Identifier: MIT */
/*
 * mmu_uring.c - a registration cache: io_uring's fixed buffers, which need no special hardware.
 *
 * A fixed buffer is pinned pages. Who registers one for each read pays for the pinning each time, so
 * programs keep them: the next read into the same address uses the buffer that is there already. Once
 * something else is mapped at that address, such a read reports success and has written to pages that
 * nobody can see any more.
 *
 * Here threads share some buffers. Each thread has a ring and a cache of its own, with room for half of
 * the buffers. Now and then one changes what is mapped at a buffer, in one of many ways, and all
 * the threads' caches must notice. First they do without a notifier, to show that this goes wrong, then with one
 * interval per cached buffer.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <shunt/mmu.h>

#include "uring.h"

#define THREADS 4
#define BUFFERS 16
#define SLOTS (BUFFERS / 2)
#define PAGES 4
#define ROUNDS 4000

static size_t page, size; /* of a page, of a buffer */
static int source;	  /* a file whose word at offset o is o + 1 */
static bool listening;
static atomic_ulong reads, hits, stale;

/* What the application has: memory that is used by one thread at a time. */
static struct buffer {
	pthread_mutex_t lock;
	char *at;
	int file; /* of shared memory, or -1 */
} buffers[BUFFERS];

/* ---- The cache. ---- */

struct entry {
	struct shunt_mmu_interval interval;
	struct cache *cache;
	char *at;	   /* NULL: unused */
	atomic_bool valid; /* under the lock */
};

struct cache {
	struct uring ring;
	pthread_mutex_t lock; /* held while a read is under way: invalidate waits for it */
	struct entry entry[SLOTS];
	unsigned oldest;
};

/* The pages of this entry go. */
static void invalidate(struct shunt_mmu_interval *i, const struct shunt_mmu_event *ev, uint64_t seq)
{
	struct entry *e = (struct entry *)((char *)i - offsetof(struct entry, interval));

	(void)ev;
	(void)seq;
	pthread_mutex_lock(&e->cache->lock);
	if (e->valid)
		uring_clear(&e->cache->ring, (unsigned)(e - e->cache->entry));
	e->valid = false;
	pthread_mutex_unlock(&e->cache->lock);
}

static const struct shunt_mmu_interval_ops ops = {.invalidate = invalidate};

static void die(const char *what, int r)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

static void forget(struct entry *e)
{
	if (e->at && listening)
		shunt_mmu_interval_remove(&e->interval);
	if (e->valid)
		uring_clear(&e->cache->ring, (unsigned)(e - e->cache->entry));
	e->valid = false;
	e->at = NULL;
}

/* The entry for a buffer's address: the one that it has, or the oldest, and then it is not valid yet. */
static struct entry *entry_of(struct cache *c, char *at)
{
	struct entry *e;
	int r;

	for (e = c->entry; e < c->entry + SLOTS; e++)
		if (e->at == at)
			return e;
	e = &c->entry[c->oldest++ % SLOTS];
	forget(e);
	e->cache = c;
	e->interval = (struct shunt_mmu_interval){
		.ops = &ops, /* a change of rights or a fork leaves pinned pages where they are */
		.kinds = 1u << SHUNT_MMU_UNMAP | 1u << SHUNT_MMU_REMAP | 1u << SHUNT_MMU_DISCARD,
	};
	r = listening ? shunt_mmu_interval_insert(&e->interval, (uintptr_t)at, size) : 0;
	if (r)
		die("the cache cannot listen", r);
	e->at = at;
	return e;
}

/* Comes back with a buffer that is registered, and the lock. */
static struct entry *lookup(struct cache *c, char *at)
{
	struct entry *e = entry_of(c, at);
	unsigned slot = (unsigned)(e - c->entry);

	hits += e->valid;
	for (;;) {
		uint64_t seq = listening ? shunt_mmu_interval_read_begin(&e->interval) : 0;
		bool valid = e->valid;
		int r = valid ? 0 : uring_set(&c->ring, slot, at, size); /* slow, and not under the lock */

		if (r)
			die("a buffer cannot be registered", r);
		pthread_mutex_lock(&c->lock);
		if (!listening || !shunt_mmu_interval_read_retry(&e->interval, seq)) {
			e->valid = true;
			return e;
		}
		e->valid = false;
		pthread_mutex_unlock(&c->lock);
	}
}

static void read_into(struct cache *c, char *at, uint32_t length, uint64_t offset)
{
	struct entry *e = lookup(c, at);
	int r = uring_read(&c->ring, (unsigned)(e - c->entry), at, length, source, offset);

	pthread_mutex_unlock(&c->lock);
	if (r != (int)length)
		die("a read failed", r < 0 ? r : -EIO);
}

/* ---- The application. ---- */

static void *fresh(struct buffer *b, void *at, int flags)
{
	return mmap(at, size, PROT_READ | PROT_WRITE,
		flags | (b->file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), b->file, 0);
}

/* Nothing is there any more. Maps it again: at the same place, if no other thread was quicker. */
static void again(struct buffer *b)
{
	char *at = fresh(b, b->at, MAP_FIXED_NOREPLACE);

	if (at == MAP_FAILED)
		at = fresh(b, NULL, 0);
	if (at == MAP_FAILED)
		die("a buffer cannot be mapped", -errno);
	b->at = at;
}

static void change(struct buffer *b, unsigned how)
{
	char *other;

	switch (how % 7) {
	case 0:
		munmap(b->at, size);
		again(b);
		break;
	case 1:
		syscall(SYS_munmap, b->at, size);
		again(b);
		break;
	case 2:
		fresh(b, b->at, MAP_FIXED);
		break;
	case 3: /* away, and something new where it was */
		other = mremap(b->at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, fresh(b, NULL, 0));
		munmap(other, size);
		again(b);
		break;
	case 4: /* something new comes over it */
		mremap(fresh(b, NULL, 0), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, b->at);
		break;
	case 5:
		madvise(b->at + page, page, b->file < 0 ? MADV_DONTNEED : MADV_REMOVE);
		break;
	case 6:
		if (b->file < 0)
			syscall(SYS_madvise, b->at, size, MADV_DONTNEED);
		else if (ftruncate(b->file, (off_t)page) || ftruncate(b->file, (off_t)size))
			die("ftruncate", -errno);
		break;
	}
}

/* Reads other words than the last time, and looks whether they are there. */
static void use(struct cache *c, struct buffer *b, uint64_t offset)
{
	uint64_t *words = (uint64_t *)b->at;
	bool good = true;

	read_into(c, b->at, (uint32_t)size, offset * 8);
	for (size_t i = 0; i < size / 8; i++)
		good &= words[i] == offset + i + 1;
	reads++;
	stale += !good;
}

static void *work(void *arg)
{
	static struct cache caches[THREADS];
	struct cache *c = &caches[(uintptr_t)arg];
	unsigned seed = (unsigned)(uintptr_t)arg + 1;
	int r = uring_open(&c->ring, SLOTS);

	if (r)
		die("io_uring", r);
	pthread_mutex_init(&c->lock, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		struct buffer *b = &buffers[(unsigned)rand_r(&seed) % BUFFERS];

		pthread_mutex_lock(&b->lock);
		if (rand_r(&seed) % 4 == 0)
			change(b, (unsigned)rand_r(&seed));
		use(c, b, (uint64_t)rand_r(&seed) % 4096);
		pthread_mutex_unlock(&b->lock);
	}
	for (struct entry *e = c->entry; e < c->entry + SLOTS; e++)
		forget(e);
	uring_close(&c->ring);
	return NULL;
}

static unsigned long run(bool with)
{
	pthread_t t[THREADS];

	listening = with;
	reads = hits = stale = 0;
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, work, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	printf("%s a notifier: %lu reads, %lu through a buffer that was registered already, %lu went to stale pages\n",
		with ? "with" : "without", reads, hits, stale);
	return stale;
}

static void prepare(void)
{
	uint64_t word[512];

	page = (size_t)getpagesize();
	size = PAGES * page;
	source = memfd_create("source", MFD_CLOEXEC);
	for (uint64_t o = 0; o < 4096 + size / 8; o += 512) {
		for (int i = 0; i < 512; i++)
			word[i] = o + (uint64_t)i + 1;
		if (pwrite(source, word, sizeof(word), (off_t)(o * 8)) != sizeof(word))
			die("memfd", -errno);
	}
	for (struct buffer *b = buffers; b < buffers + BUFFERS; b++) {
		pthread_mutex_init(&b->lock, NULL);
		b->file = (b - buffers) % 2 ? memfd_create("buffer", MFD_CLOEXEC) : -1;
		if (b->file >= 0 && ftruncate(b->file, (off_t)size))
			die("memfd", -errno);
		b->at = fresh(b, NULL, 0);
		if (b->at == MAP_FAILED)
			die("mmap", -errno);
	}
}

int main(void)
{
	struct uring u;
	int r = uring_open(&u, 1);

	if (r == -ENOSYS || r == -EPERM || r == -EINVAL) {
		printf("skipped: there is no io_uring with fixed buffers for us here: %s\n", strerror(-r));
		return 77;
	}
	if (r)
		die("io_uring", r);
	uring_close(&u);
	prepare();
	if (!run(false)) {
		printf("nothing went stale without a notifier: this shows nothing\n");
		return 1;
	}
	return run(true) != 0 || !hits;
}
