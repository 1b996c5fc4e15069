/* SPDX-License-Identifier: MIT */
/*
 * peers.c - UCX's libucm, that patches libc's code (bistro) or relocations (reloc), and a userfaultfd by itself.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mmu.h"

static atomic_ulong events;

static unsigned long heard(void)
{
	return events;
}

/* ---- UCX ---- */

#ifdef WITH_UCM
#include <ucm/api/ucm.h>

static void on_unmap(ucm_event_type_t type, ucm_event_t *e, void *arg)
{
	(void)type;
	(void)e;
	(void)arg;
	atomic_fetch_add_explicit(&events, 1, memory_order_relaxed);
}

/* Loading libucs arms by itself; it is loaded here only, so that there is a time before. */
static int ucm_arm(const char *mode)
{
	ucs_status_t (*set)(int, int, ucm_event_callback_t, void *);
	void *lib;

	setenv("UCX_MEM_MMAP_HOOK_MODE", mode, 1);
	setenv("UCX_ERROR_SIGNALS", "", 1);
	lib = dlopen("libucs.so.0", RTLD_NOW | RTLD_GLOBAL);
	if (!lib)
		return 1;
	*(void **)&set = dlsym(lib, "ucm_set_event_handler");
	if (!set)
		return 1;
	return set(UCM_EVENT_VM_UNMAPPED, 0, on_unmap, NULL) == UCS_OK ? 0 : -EIO;
}

static int bistro(void)
{
	return ucm_arm("bistro");
}

static int reloc(void)
{
	return ucm_arm("reloc");
}

const struct listener ucm_bistro = { .name = "ucm_bistro", .arm = bistro, .heard = heard, .hears_all = true };
const struct listener ucm_reloc = { .name = "ucm_reloc", .arm = reloc, .heard = heard, .hears_all = true };
#endif

/* ---- userfaultfd ---- */

static int ufd = -1;

static void *read_events(void *arg)
{
	struct pollfd p = { .fd = ufd, .events = POLLIN };
	struct uffd_msg m;

	while (poll(&p, 1, -1) >= 0)
		if (read(ufd, &m, sizeof m) == (ssize_t)sizeof m)
			events++;
	return arg;
}

static int uffd_arm(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP,
	};
	pthread_t t;

	ufd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (ufd < 0 || ioctl(ufd, UFFDIO_API, &api))
		return -errno;
	return pthread_create(&t, NULL, read_events, NULL) ? -EAGAIN : 0;
}

static int uffd_keep(void *p, size_t length)
{
	struct uffdio_register r = { .range = { (uintptr_t)p, length }, .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(ufd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

const struct listener uffd = { .name = "uffd", .arm = uffd_arm, .keep = uffd_keep, .heard = heard };
