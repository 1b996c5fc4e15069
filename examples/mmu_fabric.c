/* SPDX-License-Identifier: MIT */
/*
 * mmu_fabric.c - libfabric's registration cache, with its own monitors and with a notifier.
 *
 *   mmu_fabric			all of them, each in a process of its own; they must differ
 *   mmu_fabric memhooks	libfabric alone: it patches the first bytes of libc's munmap() and others
 *   mmu_fabric userfaultfd	libfabric alone: the kernel tells it, after the change
 *   mmu_fabric notifier	mmu_adapters/fabric.c, as a program imports it
 *   mmu_fabric import		without a cache: what an import promises, with the shared library
 *
 * Providers for cards (verbs, efa) keep their registrations in the cache that is checked here, ofi_mr_cache. None of
 * those that do without a card has one, and a program cannot open one by itself. So this program does what such a
 * provider does, in a domain of the provider tcp: it calls the functions of the cache in libfabric's static
 * library, whose structures it knows of 1.17 only. Import, start, stop, subscribe, unsubscribe, valid and notify are all
 * as with a card; what a card itself does with its pages is not shown, a registration is a page that a pipe
 * holds (mmu_adapters/change.h).
 *
 * In each of a dozen ways the page at an address becomes another one; then the cache is asked for that
 * address again (mmu_adapters/compare.h). How many answers were stale is printed for each way. Wrong is:
 * any with the notifier, and none without it.
 */
#include <errno.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_ext.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include <shunt/mmu.h>

#include "mmu_adapters/change.h"
#include "mmu_adapters/compare.h"
#include "mmu_adapters/fabric.h"

#define SKIP 77

/* ---- What an import promises: with any libfabric since 1.14. ---- */

static int check_import(void)
{
	struct fid_mem_monitor other = {.fid.fclass = FI_CLASS_MEM_MONITOR};
	struct fid *caches;
	int r = mmu_fabric_import(SHUNT_MMU_PARTIAL);

	errno = -r;
	check(!r, "mmu_fabric_import");
	check(!mmu_fabric_started(), "started without a cache");
	check(!fi_open(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &caches, NULL), "fi_open");
	check(fi_import_fid(caches, &other.fid, 0) == -FI_EBUSY, "a second import is refused");
	fi_close(caches);
	mmu_fabric_close();
	printf("import      of libfabric %u.%u: taken, the second is refused, not started without a cache\n",
		FI_MAJOR(fi_version()), FI_MINOR(fi_version()));
	return 0;
}

#ifdef WITH_CACHE
/* ---- The cache, as libfabric 1.17's providers see it. ---- */

#define IFACES 6 /* kinds of memory; the first is the system's */

struct mr_info {
	struct iovec range;
	uint32_t iface;
	uint64_t peer[10];
};

struct mr_entry {
	struct mr_info info;
	void *node;
	int users;
	void *list[2];
	uint64_t device;
	struct held held; /* ours */
};

struct mr_cache {
	struct fid_domain *domain;
	void *monitors[IFACES];
	void *lists[IFACES][2];
	size_t our_size;
	uint64_t private_1[25]; /* tree, lists, lock, counts */
	void *entries;
	int (*add)(struct mr_cache *c, struct mr_entry *e);
	void (*drop)(struct mr_cache *c, struct mr_entry *e);
};

_Static_assert(offsetof(struct mr_entry, users) == 0x70 && offsetof(struct mr_entry, held) == 0x90, "1.17");
_Static_assert(offsetof(struct mr_cache, our_size) == 0x98 && offsetof(struct mr_cache, add) == 0x170, "1.17");

extern void *default_monitor;
int ofi_mr_cache_init(struct fid_domain *domain, void **monitors, struct mr_cache *c);
void ofi_mr_cache_cleanup(struct mr_cache *c);
int ofi_mr_cache_search(struct mr_cache *c, struct mr_info *info, struct mr_entry **e);
void ofi_mr_cache_delete(struct mr_cache *c, struct mr_entry *e);

static atomic_uint registered, made;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct mr_cache cache;

static int add(struct mr_cache *c, struct mr_entry *e)
{
	(void)c;
	registered++;
	made++;
	return held_take(&e->held, (uintptr_t)e->info.range.iov_base);
}

static void drop(struct mr_cache *c, struct mr_entry *e)
{
	(void)c;
	registered--;
	held_drop(&e->held);
}

static uint32_t send_page(char *p)
{
	struct mr_info info = {.range = {p, PAGE}};
	struct mr_entry *e;
	uint32_t word;

	check(!ofi_mr_cache_search(&cache, &info, &e), "ofi_mr_cache_search");
	word = held_read(&e->held);
	ofi_mr_cache_delete(&cache, e);
	return word;
}

/* Of the lists of caches: who adds one has it, and notify() needs it. */
extern pthread_rwlock_t mm_list_rwlock;

static void take_lock(void)
{
	pthread_rwlock_wrlock(&mm_list_rwlock);
}

static void give_lock(void)
{
	pthread_rwlock_unlock(&mm_list_rwlock);
}

/* A domain of a provider that needs no card. */
static void open_domain(void)
{
	struct fi_info *hints = fi_allocinfo(), *info;

	check(hints != NULL, "fi_allocinfo");
	hints->fabric_attr->prov_name = strdup("tcp");
	if (fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &info)) {
		puts("mmu_fabric: skipped: the provider tcp finds no network, not even the loopback");
		exit(SKIP);
	}
	check(!fi_fabric(info->fabric_attr, &fabric, NULL), "fi_fabric");
	check(!fi_domain(fabric, info, &domain, NULL), "fi_domain");
	fi_freeinfo(info);
	fi_freeinfo(hints);
}

static void open_cache(const struct mode *m)
{
	void *monitors[IFACES] = {NULL};
	int r = m->adapter ? mmu_fabric_import(0) : 0;

	errno = -r;
	check(!r, "mmu_fabric_import");
	open_domain();
	check(!mmu_fabric_started(), "started before there is a cache");
	monitors[0] = default_monitor;
	cache = (struct mr_cache){.our_size = sizeof(struct held), .add = add, .drop = drop};
	r = ofi_mr_cache_init(domain, monitors, &cache);
	errno = -r;
	if (r && m->files) { /* userfaultfd */
		printf("%-11s cannot be had here: %s\n", m->name, strerror(errno));
		exit(0);
	}
	check(!r, "ofi_mr_cache_init");
	check(mmu_fabric_started() == m->adapter, "started with the first cache");
}

static unsigned close_cache(const struct mode *m)
{
	ofi_mr_cache_cleanup(&cache);
	check(!mmu_fabric_started(), "stopped with the last cache");
	check(!fi_close(&domain->fid) && !fi_close(&fabric->fid), "fi_close");
	if (m->adapter)
		mmu_fabric_close();
	return registered;
}

static unsigned all_made(void)
{
	return made;
}

int main(int argc, char **argv)
{
	static const struct mode modes[] = {
		{"memhooks", "FI_MR_CACHE_MONITOR", "memhooks", .files = NULL},
		{"userfaultfd", "FI_MR_CACHE_MONITOR", "userfaultfd",
			.files = "the program would hang at its next access"},
		/* What the user wishes is for libfabric's own; who imports has the last word. */
		{"notifier", "FI_MR_CACHE_MONITOR", "memhooks", .adapter = true},
		{0},
	};
	static const struct subject libfabric = {"mmu_fabric", modes, open_cache, close_cache, send_page,
		all_made, take_lock, give_lock};

	if (argc > 1 && !strcmp(argv[1], "import"))
		return check_import();
	if (fi_version() != FI_VERSION(1, 17)) {
		printf("mmu_fabric: skipped: libfabric %u.%u, its cache is known of 1.17 only\n",
			FI_MAJOR(fi_version()), FI_MINOR(fi_version()));
		return SKIP;
	}
	return compare(&libfabric, argc, argv);
}
#else
int main(void)
{
	return check_import();
}
#endif
