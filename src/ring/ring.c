/* SPDX-License-Identifier: MIT */
/* ring.c - making, opening and closing a ring's file. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "pool.h"
#include "writer.h"

static struct shunt_ring *rings[SHUNT_RING_MAX];
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;

static void rings_hold(void)
{
	pthread_mutex_lock(&rings_lock);
}

static void rings_release(void)
{
	pthread_mutex_unlock(&rings_lock);
}

/* A fork child opens a ring of its own. */
static void watch_fork(void)
{
	pthread_atfork(rings_hold, rings_release, rings_release);
}

void shunt_ring_leave(int id, struct shunt_ring_writer *w)
{
	struct shunt_ring *r;

	pthread_mutex_lock(&rings_lock);
	r = rings[id];
	if (r)
		shunt_ring_writer_end(r, w);
	pthread_mutex_unlock(&rings_lock);
}

/* --- the clock ---------------------------------------------------------------- */

static uint64_t ns_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t rdtsc(void)
{
	return __builtin_ia32_rdtsc();
}

/*
 * Invariant TSC: AMD APM 3, E.4.8 (Fn8000_0007 EDX[8]); Intel SDM 3, 18.17.1.
 * A TSC whose high half is still 0 could be mistaken for a wiped writer.
 */
static int tsc_usable(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8) && rdtsc() >> 32;
}

/* A pair of readings that belong together: the closest of a few. */
static void pair(uint64_t *ticks, clockid_t id, uint64_t *ns)
{
	uint64_t best = 0;

	for (int i = 0; i < 20; i++) {
		uint64_t a = rdtsc(), t = ns_of(id), b = rdtsc();

		if (i == 0 || b - a < best) {
			best = b - a;
			*ticks = a + (b - a) / 2;
			*ns = t;
		}
	}
}

/* Against CLOCK_MONOTONIC_RAW over 10 ms: good to some ppm. */
static uint64_t tsc_hz(void)
{
	struct timespec nap = {.tv_nsec = 10000000};
	uint64_t t0 = 0, n0 = 0, t1 = 0, n1 = 1;

	pair(&t0, CLOCK_MONOTONIC_RAW, &n0);
	nanosleep(&nap, NULL);
	pair(&t1, CLOCK_MONOTONIC_RAW, &n1);
	return (uint64_t)((__extension__(unsigned __int128)(t1 - t0)) * 1000000000u / (n1 - n0));
}

static int set_clock(struct pool_super *s, enum shunt_ring_clock clock)
{
	if (clock == SHUNT_RING_CLOCK_AUTO)
		clock = tsc_usable() ? SHUNT_RING_CLOCK_TSC : SHUNT_RING_CLOCK_MONOTONIC;
	if (clock == SHUNT_RING_CLOCK_TSC && !tsc_usable())
		return -EINVAL;
	s->clock = clock;
	s->clock_hz = 1000000000;
	s->clock_base_ns = ns_of(CLOCK_REALTIME);
	if (clock == SHUNT_RING_CLOCK_MONOTONIC)
		s->clock_base_ticks = ns_of(CLOCK_MONOTONIC);
	if (clock == SHUNT_RING_CLOCK_TSC) {
		s->clock_hz = tsc_hz();
		pair(&s->clock_base_ticks, CLOCK_REALTIME, &s->clock_base_ns);
	}
	return 0;
}

/* --- the file --------------------------------------------------------------------- */

static uint64_t round_up(uint64_t x, uint64_t to)
{
	return (x + to - 1) / to * to;
}

/* Some thousand pages, none smaller than 1 KiB or larger than 64. */
static uint32_t default_page_size(uint64_t pool)
{
	uint32_t size = 1024;

	while (size < 65536 && (uint64_t)size * 2 * 4096 <= pool)
		size *= 2;
	return size;
}

static int layout(struct pool_super *s, const struct shunt_ring_options *o)
{
	uint64_t pool = o->size ? o->size : 16u << 20;
	uint32_t page = o->page_size ? o->page_size : default_page_size(pool);

	if (page < 1024 || page > 65536 || (page & (page - 1)) || pool / page < 2 ||
		pool / page > 1u << 24 || pool / 8 > POOL_WORDS_MAX || o->slots > 1u << 20 || o->mode > SHUNT_RING_OVERWRITE ||
		o->clock > SHUNT_RING_CLOCK_NONE)
		return -EINVAL;
	s->page_size = page;
	s->pages = (uint32_t)(pool / page);
	s->slots = o->slots ? o->slots : 4096;
	s->mode = o->mode;
	s->slots_at = round_up(sizeof *s, 4096);
	s->descs_at = round_up(s->slots_at + (uint64_t)s->slots * sizeof(struct pool_slot), 4096);
	s->pages_at =
		round_up(s->descs_at + (uint64_t)s->pages * sizeof(struct pool_desc), 65536);
	/* A writer may look a payload's length beyond the last page. */
	s->size = s->pages_at + (uint64_t)s->pages * page + POOL_BEYOND;
	s->free = s->pages;
	return 0;
}

static int check(const struct pool_super *s, uint64_t size)
{
	if (size < sizeof *s || s->magic != POOL_MAGIC || s->version != POOL_VERSION)
		return -EINVAL;
	if (s->size != size || s->page_size < 1024 || s->page_size > 65536 ||
		(s->page_size & (s->page_size - 1)) || !s->pages || s->pages > 1u << 24 ||
		(uint64_t)s->pages * s->page_size / 8 > POOL_WORDS_MAX ||
		!s->slots || s->slots > 1u << 20)
		return -EINVAL;
	if (s->slots_at < sizeof *s || s->slots_at % 64 ||
		s->descs_at < s->slots_at + (uint64_t)s->slots * sizeof(struct pool_slot) ||
		s->descs_at % 16 || s->pages_at % 4096 ||
		s->pages_at < s->descs_at + (uint64_t)s->pages * sizeof(struct pool_desc) ||
		s->size < s->pages_at + (uint64_t)s->pages * s->page_size + POOL_BEYOND)
		return -EINVAL;
	return 0;
}

static int attach(void *map, uint32_t tag, struct shunt_ring **out)
{
	struct pool_super *s = map;
	struct shunt_ring *r = calloc(1, sizeof *r);
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int id = 0;

	if (!r)
		return -ENOMEM;
	r->super = s;
	r->slots = (void *)((char *)map + s->slots_at);
	r->descs = (void *)((char *)map + s->descs_at);
	r->pages = (char *)map + s->pages_at;
	r->page_size = s->page_size;
	r->room = s->page_size - 8;
	r->npages = s->pages;
	r->nslots = s->slots;
	r->mode = s->mode;
	r->clock = s->clock;
	r->tag = tag;
	pthread_once(&once, watch_fork);
	pthread_mutex_lock(&rings_lock);
	shunt_ring_writers_init();
	while (id < SHUNT_RING_MAX && rings[id])
		id++;
	if (id < SHUNT_RING_MAX)
		rings[id] = r;
	pthread_mutex_unlock(&rings_lock);
	if (id == SHUNT_RING_MAX) {
		free(r);
		return -EMFILE;
	}
	r->id = id;
	r->writer_at = (size_t)id * sizeof(struct shunt_ring_writer);
	*out = r;
	return 0;
}

/* What /proc/meminfo says could be had without swapping, or "much". */
static uint64_t memory_available(void)
{
	char buf[1024], *at;
	ssize_t n = -1;
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, buf, sizeof buf - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
	at = strstr(buf, "MemAvailable:");
	return at ? strtoull(at + 13, NULL, 10) * 1024 : ~(uint64_t)0;
}

/*
 * Allocates all of the file. What the file system cannot hold is refused before
 * it is filled up, and what would drive the machine out of memory as well.
 */
static int allocate(int fd, uint64_t size)
{
	struct statvfs fs;

	if (!fstatvfs(fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize < size)
		return -ENOSPC;
	if (memory_available() < size)
		return -ENOSPC;
	return -posix_fallocate(fd, 0, (off_t)size);
}

SHUNT_API int shunt_ring_create(const char *path, const struct shunt_ring_options *o,
	struct shunt_ring **ring)
{
	static const struct shunt_ring_options defaults;
	struct pool_super s = {.version = POOL_VERSION};
	void *map = MAP_FAILED;
	int fd, r;

	r = layout(&s, o ? o : &defaults);
	if (!r)
		r = set_clock(&s, o ? o->clock : SHUNT_RING_CLOCK_AUTO);
	if (r)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = allocate(fd, s.size);
	if (!r) {
		map = mmap(NULL, s.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		r = map == MAP_FAILED ? -errno : 0;
	}
	close(fd);
	if (!r) {
		memcpy(map, &s, sizeof s);
		r = attach(map, 0, ring);
	}
	if (r) {
		shunt_log(SHUNT_LOG_ERROR, "%s: a ring of %llu bytes: %s", path,
			(unsigned long long)s.size, strerror(-r));
		if (map != MAP_FAILED)
			munmap(map, s.size);
		unlink(path);
		return r;
	}
	/* Last: who opens it before finds no ring. */
	__atomic_store_n(&(*ring)->super->magic, POOL_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

/* After exec: what the program before us held in this thread is nobody's now. */
static void end_predecessors(struct shunt_ring *r)
{
	uint32_t pid = (uint32_t)getpid();

	for (uint32_t i = 0; i < r->nslots; i++) {
		struct pool_slot *s = &r->slots[i];

		if (s->state != SLOT_LIVE || s->pid != pid || s->tag == r->tag)
			continue;
		if (CURRENT_ANY(s->current))
			shunt_ring_seal(r, CURRENT_PAGE(s->current));
		s->current = 0;
		__atomic_store_n(&s->state, SLOT_ENDED, __ATOMIC_RELEASE);
	}
}

SHUNT_API int shunt_ring_open(const char *path, uint32_t tag, unsigned flags,
	struct shunt_ring **ring)
{
	void *map = MAP_FAILED;
	struct stat st;
	int fd, r = 0;

	if (flags & ~SHUNT_RING_WRITE)
		return -EINVAL;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_size < (off_t)sizeof(struct pool_super))
		r = -EINVAL;
	if (!r) {
		map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		r = map == MAP_FAILED ? -errno : check(map, (uint64_t)st.st_size);
	}
	close(fd);
	if (!r)
		r = attach(map, tag, ring);
	if (r) {
		if (map != MAP_FAILED)
			munmap(map, (size_t)st.st_size);
		return r;
	}
	if (flags & SHUNT_RING_WRITE)
		end_predecessors(*ring);
	return 0;
}

SHUNT_API void shunt_ring_close(struct shunt_ring *r)
{
	struct shunt_ring_writer *w;

	if (!r)
		return;
	w = shunt_ring_writer(r);
	if (w) /* of a fork child: not among the others */
		shunt_ring_writer_end(r, w);
	pthread_mutex_lock(&rings_lock);
	shunt_ring_writers_end(r);
	rings[r->id] = NULL;
	pthread_mutex_unlock(&rings_lock);
	munmap(r->super, r->super->size);
	free(r->batch);
	free(r);
}

SHUNT_API void shunt_ring_info(struct shunt_ring *r, struct shunt_ring_info *info)
{
	int64_t free = __atomic_load_n(&r->super->free, __ATOMIC_RELAXED);

	*info = (struct shunt_ring_info){
		.page_size = r->page_size,
		.pages = r->npages,
		.slots = r->nslots,
		.pages_free = free > 0 ? (uint32_t)free : 0,
		.mode = (enum shunt_ring_mode)r->mode,
		.clock = (enum shunt_ring_clock)r->clock,
		.clock_hz = r->super->clock_hz,
		.clock_base_ticks = r->super->clock_base_ticks,
		.clock_base_ns = r->super->clock_base_ns,
		.size = r->super->size,
	};
}
