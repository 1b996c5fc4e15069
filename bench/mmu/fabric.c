/* SPDX-License-Identifier: MIT */
/* fabric.c - libfabric's memory monitors, from its static library. */
#include <dlfcn.h>
#include <errno.h>
#include <rdma/fabric.h>
#include <string.h>

#include "mmu.h"

/*
 * Its monitors are started by registration caches, which no provider here has; so start() is called
 * by hand, from the static library. Where it is in 1.17's struct: the sixth word, subscribe() the eighth.
 */
extern void *memhooks_monitor, *uffd_monitor;
static void **monitor;

/* A word of it, as a function. */
typedef int start_fn(void *);
typedef int subscribe_fn(void *, const void *, size_t, void *);
#define CALL(n, type) (*(type *)&monitor[n])

static void load(void)
{
	struct fi_info *info = NULL;

	fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, NULL, &info); /* sets everything up */
}

static int fabric_arm(void *m)
{
	monitor = m;
	return CALL(5, start_fn *)(monitor);
}

/* It gives no events to anybody but caches; that it is armed is seen in the code that it patches. */
static int fabric_memhooks(void)
{
	const void *code = dlsym(RTLD_DEFAULT, "munmap");
	char before[16];
	int r;

	memcpy(before, code, sizeof before);
	r = fabric_arm(memhooks_monitor);
	return r || memcmp(before, code, sizeof before) ? r : -EPROTO;
}

static int fabric_uffd(void)
{
	return fabric_arm(uffd_monitor);
}

static int fabric_keep(void *p, size_t length)
{
	return CALL(7, subscribe_fn *)(monitor, p, length, NULL);
}

int main(int argc, char **argv)
{
	static const struct listener memhooks = {
		.name = "fabric_memhooks", .load = load, .arm = fabric_memhooks,
	};
	static const struct listener by_uffd = {
		.name = "fabric_uffd", .load = load, .arm = fabric_uffd, .keep = fabric_keep,
	};
	static const struct listener *const all[] = { &memhooks, &by_uffd, NULL };

	compare(all, argc, argv);
	return 0;
}
