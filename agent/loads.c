/* SPDX-License-Identifier: MIT */
/*
 * loads.c - dlopen and dlclose, so that a plugin is recorded as soon as it is
 * loaded.
 *
 * The loader looks at dlopen's return address to find out on whose behalf it
 * searches: the caller's RUNPATH or RPATH and $ORIGIN count. A wrapper that
 * calls the real function would make that the agent. So the wrapper only calls
 * it where the caller makes no difference; elsewhere it jumps to the real
 * function, which then returns to the caller past us, and leaves it to the
 * control thread to see what was loaded (a few milliseconds late).
 *
 * The caller makes no difference when the name is a path without a $, or when
 * neither the caller has RUNPATH or RPATH nor any library RPATH (which is
 * inherited by whatever that library loads). Callers in other namespaces than
 * the agent's never come here: they have no agent. For that reason dlmopen is
 * let alone as well.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "agent.h"

typedef void *dlopen_fn(const char *, int);
typedef int dlclose_fn(void *);

static _Atomic(dlopen_fn *) real_dlopen;
static _Atomic(dlclose_fn *) real_dlclose;
static _Atomic unsigned pending;

static dlopen_fn *next_dlopen(void)
{
	if (!real_dlopen)
		real_dlopen = (dlopen_fn *)shunt_agent_next("dlopen");
	return real_dlopen;
}

static void *wrapped_dlopen(const char *file, int mode)
{
	void *handle = next_dlopen()(file, mode);

	if (handle && !(mode & RTLD_NOLOAD))
		shunt_agent_refresh();
	return handle;
}

struct search {
	uintptr_t caller;
	bool first; /* the main program's RPATH counts for everybody */
	bool matters;
};

static bool holds(const struct dl_phdr_info *info, uintptr_t addr)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && addr - info->dlpi_addr - p->p_vaddr < p->p_memsz)
			return true;
	}
	return false;
}

static bool has_tag(const struct dl_phdr_info *info, ElfW(Sxword) tag)
{
	const ElfW(Dyn) *dyn = NULL;

	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dyn = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; dyn && dyn->d_tag != DT_NULL; dyn++)
		if (dyn->d_tag == tag)
			return true;
	return false;
}

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *s = arg;
	bool rpath = !s->first && has_tag(info, DT_RPATH);

	(void)size;
	s->first = false;
	s->matters = rpath || (holds(info, s->caller) &&
				      (has_tag(info, DT_RUNPATH) || has_tag(info, DT_RPATH)));
	return s->matters;
}

static bool caller_matters(const char *file, uintptr_t caller)
{
	struct search s = { .caller = caller, .first = true };

	if (strchr(file, '/') && !strchr(file, '$'))
		return false;
	dl_iterate_phdr(look, &s);
	return s.matters || strchr(file, '$');
}

/* The agent's own, by the linker's names. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static bool is_ours(uintptr_t caller)
{
	return caller - (uintptr_t)__ehdr_start < (uintptr_t)_end - (uintptr_t)__ehdr_start;
}

/* What the wrapper jumps to. */
__attribute__((used)) dlopen_fn *shunt_agent_route_dlopen(const char *file, int mode,
	uintptr_t caller);

dlopen_fn *shunt_agent_route_dlopen(const char *file, int mode, uintptr_t caller)
{
	(void)mode;
	if (!shunt_agent.ctl || !file || is_ours(caller))
		return next_dlopen();
	if (!caller_matters(file, caller))
		return wrapped_dlopen;
	atomic_fetch_add(&pending, 1);
	if (shunt_agent.proc)
		shunt_mail_ring(shunt_agent.proc);
	return next_dlopen();
}

/* dlopen: ask where to, with the caller's address; go there as if called by it. */
__asm__(".text\n"
	".globl dlopen\n"
	".type dlopen, @function\n"
	"dlopen:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	push %rdi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	push %rsi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	sub $8, %rsp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	mov 24(%rsp), %rdx\n"
	"	call shunt_agent_route_dlopen\n"
	"	add $8, %rsp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	pop %rsi\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	pop %rdi\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	jmp *%rax\n"
	"	.cfi_endproc\n"
	".size dlopen, .-dlopen\n");

SHUNT_INTERPOSE int dlclose(void *handle)
{
	int err;

	if (!real_dlclose)
		real_dlclose = (dlclose_fn *)shunt_agent_next("dlclose");
	err = real_dlclose(handle);
	if (!err)
		shunt_agent_refresh();
	return err;
}

static int count_loads(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	*(unsigned long long *)arg = info->dlpi_adds;
	return 1;
}

/*
 * Control thread: a dlopen that was jumped to is under way. dladdr waits for
 * the loader's lock, so it returns when that dlopen has, if it got there first;
 * if we were faster, look again a little later, for a tenth of a second.
 */
void shunt_agent_pending_loads(void)
{
	struct timespec pause = { 0, 50000 };
	unsigned long long seen = 0, now = 0;
	Dl_info info;

	if (!atomic_exchange(&pending, 0))
		return;
	dl_iterate_phdr(count_loads, &seen);
	shunt_agent_refresh();
	for (unsigned i = 0; i < 12; i++) {
		nanosleep(&pause, NULL);
		dladdr(&shunt_agent, &info);
		dl_iterate_phdr(count_loads, &now);
		if (now != seen)
			break;
		pause.tv_nsec = pause.tv_nsec < 20000000 ? pause.tv_nsec * 2 : pause.tv_nsec;
	}
	shunt_agent_refresh();
}
