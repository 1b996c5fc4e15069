/* SPDX-License-Identifier: MIT */
/*
 * probe.c - who probes what: the interface of probe.h.
 *
 * Invariant: with the lock held, a place's users and what its hook, detour and
 * text are agree. A batch is prepared whole before the first byte is written, and
 * what fails leaves everything as it was.
 *
 * Locks: probes -> objects -> the loader's list -> text. Signals are held back while
 * it is held, and fork() waits for it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/probe.h"
#include "arch/x86_64/trampoline.h"
#include "base/hold.h"
#include "base/log.h"
#include "object/code.h"
#include "probe/detour.h"
#include "probe/insn.h"
#include "probe/place.h"
#include "rcu/reader.h"
#include "rcu/tasks.h"
#include "text/text_internal.h"
#include "trace/hook.h"

static struct shunt_hold lock = SHUNT_HOLD_INIT;

void shunt_probes_lock(void)
{
	shunt_hold_take(&lock);
}

void shunt_probes_unlock(void)
{
	shunt_hold_give(&lock);
}

static void start(void)
{
	shunt_text_at_fork(); /* the innermost lock first */
	shunt_window_at_fork();
	shunt_objects_at_fork();
	pthread_atfork(shunt_probes_lock, shunt_probes_unlock, shunt_probes_unlock);
	shunt_arch_trampoline_init();
	if (shunt_probe_test_off & SHUNT_PROBE_NO_DOORWAY)
		return;
	shunt_tasks_doorway((uintptr_t)shunt_probe_doorway, (uintptr_t)shunt_probe_doorway_end);
	shunt_tasks_doorway((uintptr_t)shunt_stub_zone,
		(uintptr_t)shunt_stub_zone + SHUNT_STUB_ZONE);
}

void shunt_probes_at_fork(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
}

/* --- errors ----------------------------------------------------------------------------- */

static struct shunt_probe_result *begin(struct shunt_probe_result *res,
	struct shunt_probe_result *own)
{
	if (!res)
		res = own;
	memset(res, 0, sizeof *res);
	return res;
}

static int no(struct shunt_probe_result *res, int err, size_t index, const char *why)
{
	res->index = index;
	snprintf(res->reason, sizeof res->reason, "%s", why);
	return err;
}

/* --- registering ------------------------------------------------------------------------ */

#define FLAGS                                                                                \
	(SHUNT_PROBE_GENERAL_REGS | SHUNT_PROBE_DISABLED | SHUNT_PROBE_TRUSTED |             \
		SHUNT_PROBE_BREAKPOINT_ONLY)

static int check_form(const struct shunt_probe *p, struct shunt_probe_result *res, size_t i)
{
	if (!p)
		return no(res, -EINVAL, i, "no probe is given");
	if (p->priv)
		return no(res, -EALREADY, i, "the probe is registered already");
	if (!p->pre && !p->post && !p->ret)
		return no(res, -EINVAL, i, "the probe has no handler: set pre, post or ret");
	if (p->flags & ~FLAGS)
		return no(res, -EINVAL, i, "the probe has flags that are not known");
	if (!p->addr == !p->symbol)
		return no(res, -EINVAL, i, "set one of addr and symbol");
	return 0;
}

static int check_place(const struct shunt_probe *p, const struct shunt_place *place,
	struct shunt_probe_result *res, size_t i)
{
	if (p->post && (place->text.kind != SHUNT_INSN_PLAIN))
		return no(res, -ENOTSUP, i,
			"the instruction may go on elsewhere: a handler behind it would miss that; "
			"probe the instruction there instead");
	if (p->ret && !place->first) {
		res->addr = (void *)place->lo;
		return no(res, -EINVAL, i,
			"a return can be seen only from a function's first instruction");
	}
	return 0;
}

static int find_address(const struct shunt_probe *p, struct shunt_probe_result *res, size_t i,
	uintptr_t *addr)
{
	struct shunt_code_place place;
	int r;

	if (p->addr) {
		*addr = (uintptr_t)p->addr + p->offset;
		return 0;
	}
	r = shunt_code_resolve(p->symbol, p->offset, &place, res->reason, sizeof res->reason);
	res->index = i;
	*addr = r ? 0 : place.addr;
	return r;
}

/* Appends it to its place's users; it is the library's from here on. */
static int enlist(struct shunt_probe *p, uintptr_t addr, struct shunt_probe_result *res, size_t i,
	struct shunt_arming *a)
{
	struct shunt_probe_user *u, **end;
	struct shunt_place *place;
	int r;

	res->index = i;
	if (p->priv)
		return no(res, -EALREADY, i, "the probe is in the batch twice");
	place = shunt_place_at(addr, p->flags, &res->addr, res->reason, sizeof res->reason);
	if (!place)
		return -errno;
	r = check_place(p, place, res, i);
	if (r)
		return r;
	u = calloc(1, sizeof *u);
	if (!u || shunt_arming_add(a, place)) {
		free(u);
		return no(res, -ENOMEM, i, "no memory");
	}
	*u = (struct shunt_probe_user){.probe = p, .place = place,
		.on = !(p->flags & SHUNT_PROBE_DISABLED)};
	for (end = &place->users; *end; end = &(*end)->next)
		;
	*end = u;
	p->priv = u;
	return 0;
}

static void strike(struct shunt_probe *p)
{
	struct shunt_probe_user *u = p->priv, **at;

	if (!u)
		return;
	at = &u->place->users;
	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	p->priv = NULL;
	free(u);
}

/* The probe whose place is at, or around, an address. */
static size_t index_of(struct shunt_probe *const *p, size_t n, uintptr_t where)
{
	for (size_t i = 0; i < n; i++) {
		const struct shunt_probe_user *u = p[i]->priv;

		if (u && where - u->place->addr < 15)
			return i;
	}
	return 0;
}

static int register_locked(struct shunt_probe *const *p, size_t n, const uintptr_t *addr,
	struct shunt_probe_result *res, struct shunt_arming *a)
{
	size_t done = 0;
	int r = 0;

	for (; done < n && !r; done += !r)
		r = enlist(p[done], addr[done], res, done, a);
	shunt_place_done();
	if (!r) {
		r = shunt_arming_apply(a);
		if (r)
			no(res, r, index_of(p, n, a->where), a->reason);
	} else {
		for (size_t i = 0; i < a->n; i++)
			shunt_arming_forget(a, i);
	}
	while (r && done-- > 0)
		strike(p[done]);
	return r;
}

/* Places whose code has gone with what was ours in it, before others are put there. */
static int drop_lost(const uintptr_t *addr, size_t n, struct shunt_arming *a)
{
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		struct shunt_place *p = shunt_place_lost(addr[i]);

		r = p ? shunt_arming_add(a, p) : 0;
	}
	if (!r)
		return shunt_arming_apply(a);
	for (size_t i = 0; i < a->n; i++)
		shunt_arming_forget(a, i);
	return r;
}

int shunt_probe_register_many(struct shunt_probe *const *p, size_t n,
	struct shunt_probe_result *res)
{
	struct shunt_probe_result own;
	uintptr_t self = (uintptr_t)__builtin_frame_address(0);
	struct shunt_arming a = {.self = self}, lost = {.self = self};
	const char *why;
	uintptr_t *addr;
	int r;

	res = begin(res, &own);
	if (!n)
		return 0;
	if (!p)
		return no(res, -EINVAL, 0, "no probes are given");
	for (size_t i = 0; i < n; i++) {
		r = check_form(p[i], res, i);
		if (r)
			return r;
	}
	shunt_probes_at_fork();
	r = shunt_insn_init(&why);
	if (r)
		return no(res, r, 0, why);
	r = shunt_objects_refresh();
	addr = r ? NULL : malloc(n * sizeof *addr);
	if (!addr)
		return no(res, -ENOMEM, 0, "no memory");
	for (size_t i = 0; i < n && !r; i++)
		r = find_address(p[i], res, i, &addr[i]);
	if (!r) {
		shunt_probes_lock();
		r = drop_lost(addr, n, &lost);
		r = r ? no(res, r, 0, "no memory") : register_locked(p, n, addr, res, &a);
		shunt_probes_unlock();
		shunt_arming_done(&lost);
		shunt_arming_done(&a);
	}
	free(addr);
	if (!r)
		begin(res, &own);
	return r;
}

int shunt_probe_register(struct shunt_probe *p, struct shunt_probe_result *res)
{
	return shunt_probe_register_many(&p, 1, res);
}

/* --- unregistering, on and off ------------------------------------------------------------- */

/* Is it one that we know? `priv` may be anything. */
static struct shunt_probe_user *user_of(const struct shunt_probe *p)
{
	struct shunt_probe_user *u = p ? p->priv : NULL;

	return u && u->probe == p ? u : NULL;
}

/* Fails only for want of memory: a place in which nobody is called any more may stay. */
static int switch_off(struct shunt_arming a[2])
{
	int r = shunt_arming_apply(&a[0]);

	if (!r)
		return 0;
	shunt_log(SHUNT_LOG_INFO, "probes stay in the text, without handlers: %s", a[0].reason);
	a[1].keep = true;
	r = 0;
	for (size_t i = 0; i < a[0].n && !r; i++)
		r = shunt_arming_add(&a[1], shunt_arming_place(&a[0], i));
	return r ? r : shunt_arming_apply(&a[1]);
}

static int switch_users(struct shunt_probe *const *p, size_t n, bool on, struct shunt_arming a[2])
{
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		r = user_of(p[i]) && !(on && user_of(p[i])->lost) ? 0 : -ENOENT;
		if (!r)
			r = shunt_arming_add(a, user_of(p[i])->place);
	}
	if (r) {
		for (size_t i = 0; i < a->n; i++)
			shunt_arming_forget(a, i);
		return r;
	}
	for (size_t i = 0; i < n; i++) {
		struct shunt_probe_user *u = p[i]->priv;

		u->was_on = u->on;
		u->on = on;
	}
	r = on ? shunt_arming_apply(a) : switch_off(a);
	for (size_t i = 0; i < n && r; i++) {
		struct shunt_probe_user *u = p[i]->priv;

		u->on = u->was_on;
	}
	return r;
}

int shunt_probe_unregister_many(struct shunt_probe *const *p, size_t n)
{
	uintptr_t self = (uintptr_t)__builtin_frame_address(0);
	struct shunt_arming a[2] = {{.self = self}, {.self = self}};
	int r;

	if (!n)
		return 0;
	if (!p)
		return -EINVAL;
	if (shunt_dispatch_inside(self))
		return -EDEADLK;
	shunt_objects_refresh(); /* or what was unloaded would be read */
	shunt_probes_lock();
	r = switch_users(p, n, false, a);
	for (size_t i = 0; i < n && !r; i++)
		strike(p[i]);
	shunt_probes_unlock();
	shunt_arming_done(&a[0]);
	shunt_arming_done(&a[1]);
	return r;
}

int shunt_probe_unregister(struct shunt_probe *p)
{
	return shunt_probe_unregister_many(&p, 1);
}

static int switch_one(struct shunt_probe *p, bool on)
{
	uintptr_t self = (uintptr_t)__builtin_frame_address(0);
	struct shunt_arming a[2] = {{.self = self}, {.self = self}};
	int r;

	if (!on && shunt_dispatch_inside(self))
		return -EDEADLK;
	shunt_objects_refresh();
	shunt_probes_lock();
	r = switch_users(&p, 1, on, a);
	shunt_probes_unlock();
	shunt_arming_done(&a[0]);
	shunt_arming_done(&a[1]);
	return r;
}

int shunt_probe_enable(struct shunt_probe *p)
{
	return switch_one(p, true);
}

int shunt_probe_disable(struct shunt_probe *p)
{
	return switch_one(p, false);
}

/* --- questions ------------------------------------------------------------------------------ */

int shunt_probe_resolve(const char *symbol, uintptr_t offset, void **addr,
	struct shunt_probe_result *res)
{
	struct shunt_probe_result own;
	struct shunt_code_place place;
	int r;

	res = begin(res, &own);
	if (!symbol || !addr)
		return no(res, -EINVAL, 0, "no symbol, or no place for its address, is given");
	r = shunt_code_resolve(symbol, offset, &place, res->reason, sizeof res->reason);
	if (!r)
		*addr = (void *)place.addr;
	return r;
}

enum shunt_probe_form shunt_probe_form(const struct shunt_probe *p)
{
	enum shunt_probe_form form = SHUNT_PROBE_OFF;
	const struct shunt_probe_user *u;

	shunt_probes_lock();
	u = user_of(p);
	if (u && u->on)
		form = (enum shunt_probe_form)u->place->form;
	shunt_probes_unlock();
	return form;
}
