/* SPDX-License-Identifier: MIT */
/*
 * named.c - see named.h. A probe is made in steps, each of which can be taken back: read,
 * found, its event described, and then all of a request put in place in one batch. What is
 * recorded is described in the trace before the first event can be.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hold.h"
#include "event_hit.h"
#include "fileoff.h"
#include "insn.h"
#include "named.h"
#include "object/object.h"
#include "place.h"
#include "spec.h"

struct named {
	struct named *next;
	struct shunt_probe probe; /* addr is NULL: waits for its object */
	struct shunt_hit hit;
	struct shunt_spec spec; /* the fetch is in `hit` */
	bool on;
	char text[];
};

static struct shunt_hold lock = SHUNT_HOLD_INIT;
static struct named *list, **end = &list;

static void take_lock(void)
{
	shunt_hold_take(&lock);
}

static void give_lock(void)
{
	shunt_hold_give(&lock);
}

/* What an error is about, and what it says. */
struct sentence {
	char *text;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int say(const struct sentence *why, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why->text, why->size, fmt, ap);
	va_end(ap);
	return err;
}

/* --- names ---------------------------------------------------------------------------- */

static bool taken(const struct named *of, const char *event)
{
	for (const struct named *p = of; p; p = p->next)
		if (!strcmp(p->spec.event, event))
			return true;
	return false;
}

/* Of the request that it is in, too. A name that we gave gets a number. */
static int name_it(struct named *p, const struct named *request, const struct sentence *why)
{
	char *event = p->spec.event;
	size_t n = strnlen(event, sizeof p->spec.event - 6);

	if (p->spec.named && (taken(list, event) || taken(request, event)))
		return say(why, -EEXIST, "there is an event probe:%.64s already: take another name", event);
	for (unsigned i = 2; taken(list, event) || taken(request, event); i++)
		snprintf(event + n, sizeof p->spec.event - n, "_%u", i);
	return 0;
}

static bool matches(const struct named *p, const char *glob)
{
	char name[SHUNT_SPEC_NAME + 8];

	snprintf(name, sizeof name, "probe:%s", p->spec.event);
	return shunt_glob_match(glob, name) || shunt_glob_match(glob, p->spec.event);
}

/* --- places ---------------------------------------------------------------------------- */

/* What a probe that was refused is called, why, and the nearest place that would be right. */
static int refusal(const struct named *p, int err, const struct shunt_probe_result *res,
	const struct sentence *why)
{
	char near[256];

	if (!res->addr)
		return say(why, err, "'%.100s': %s", p->text, *res->reason ? res->reason : strerror(-err));
	shunt_object_symbolize((uintptr_t)res->addr, near, sizeof near);
	return say(why, err, "'%.100s': %s; the nearest is %s", p->text,
		*res->reason ? res->reason : strerror(-err), near);
}

static int find_function(const struct named *p, void **addr, const struct sentence *why)
{
	char symbol[SHUNT_SPEC_OBJECT + SHUNT_SPEC_FUNCTION];
	struct shunt_probe_result res;
	int err;

	memset(&res, 0, sizeof res);
	snprintf(symbol, sizeof symbol, "%s%s%s", p->spec.object, *p->spec.object ? ":" : "", p->spec.function);
	err = shunt_probe_resolve(symbol, p->spec.offset, addr, &res);
	return err ? refusal(p, err, &res, why) : 0;
}

static int find(const struct named *p, void **addr, const struct sentence *why)
{
	uintptr_t at = p->spec.offset;
	int err = 0;

	if (p->spec.function[0])
		return find_function(p, addr, why);
	if (p->spec.object[0])
		err = shunt_fileoff_find(p->spec.object, 0, p->spec.offset, &at);
	*addr = (void *)at;
	if (!err)
		return 0;
	if (err == -ENOENT)
		return say(why, err, "'%.100s': no object %.100s is loaded", p->text, p->spec.object);
	return say(why, err, "'%.100s': nothing of %.100s is loaded from offset 0x%llx", p->text,
		p->spec.object, (unsigned long long)p->spec.offset);
}

/* @+OFFSET becomes the address that it has now. */
static int place_words(struct named *p, const struct sentence *why)
{
	struct shunt_fetch *f = &p->hit.fetch;

	for (uint32_t i = 0; i < f->nargs; i++) {
		uintptr_t at;

		if (f->arg[i].base != SHUNT_FETCH_FILE)
			continue;
		if (shunt_fileoff_find(NULL, (uintptr_t)p->probe.addr, f->arg[i].word, &at))
			return say(why, -ERANGE, "'%.100s': nothing of its file is loaded from offset @+0x%llx",
				p->text, (unsigned long long)f->arg[i].word);
		f->arg[i].base = SHUNT_FETCH_WORD;
		f->arg[i].word = at;
	}
	return 0;
}

/* --- making ------------------------------------------------------------------------------ */

static void drop(struct named *p)
{
	shunt_event_free(&p->hit.event);
	free(p);
}

static void drop_all(struct named *p)
{
	while (p) {
		struct named *next = p->next;

		drop(p);
		p = next;
	}
}

static int understand(const char *text, struct named **made, const struct sentence *why)
{
	struct named *p = calloc(1, sizeof *p + strlen(text) + 1);
	char what[256];

	*made = p;
	if (!p)
		return say(why, -ENOMEM, "no memory");
	strcpy(p->text, text);
	if (!shunt_spec_parse(text, &p->spec, what, sizeof what))
		return 0;
	free(p);
	return say(why, -EINVAL, "'%.100s': %s", text, what);
}

/* Everything but the probe itself. */
static int prepare(struct named *p, const struct sentence *why)
{
	char object[128];
	void *addr;
	int err = find(p, &addr, why);

	if (err)
		return err;
	p->hit.fetch = p->spec.fetch;
	p->probe.addr = addr;
	err = place_words(p, why);
	shunt_fileoff_object((uintptr_t)addr, object, sizeof object);
	if (!err)
		err = shunt_event_make(&p->hit.event, p->spec.event, object, &p->hit.fetch, why->text,
			why->size);
	if (err) {
		p->probe.addr = NULL;
		return err;
	}
	p->probe.data = &p->hit;
	*(p->spec.ret ? &p->probe.ret : &p->probe.pre) = shunt_hit;
	p->probe.flags = SHUNT_PROBE_GENERAL_REGS | (p->on ? 0 : SHUNT_PROBE_DISABLED);
	return 0;
}

/* An object's or a function's absence may be temporary; nothing else is. */
static bool may_wait(const struct named *p, int err)
{
	return err == -ENOENT && (p->spec.object[0] || p->spec.function[0]);
}

static int make(const char *text, const struct named *request, bool later, struct named **made,
	const struct sentence *why)
{
	int err = understand(text, made, why);

	if (err)
		return err;
	(*made)->on = true;
	err = name_it(*made, request, why);
	if (!err)
		err = prepare(*made, why);
	if (err && later && may_wait(*made, err))
		err = 0;
	if (err)
		drop(*made);
	return err;
}

/* In one batch; those that wait are left out. */
static int put_in_place(struct named *request, size_t n, const struct sentence *why)
{
	struct shunt_probe **batch = calloc(n + 1, sizeof(struct shunt_probe *));
	const struct named **owner = calloc(n + 1, sizeof(struct named *));
	struct shunt_probe_result res;
	size_t k = 0;
	int err;

	memset(&res, 0, sizeof res);
	err = batch && owner ? 0 : say(why, -ENOMEM, "no memory");
	for (struct named *p = request; p && !err; p = p->next)
		if (p->probe.addr) {
			owner[k] = p;
			batch[k++] = &p->probe;
		}
	if (!err && k)
		err = shunt_probe_register_many(batch, k, &res);
	if (err && k)
		refusal(owner[res.index < k ? res.index : 0], err, &res, why);
	free(batch);
	free(owner);
	return err;
}

int shunt_named_add(const char *const *texts, size_t n, bool later, char *text, size_t size)
{
	const struct sentence why = {text, size};
	struct named *request = NULL, **at = &request;
	int err = 0;

	/*
	 * The engine's decoder is a library. Who loads one holds the loader's lock, and when a
	 * constructor loads another may come to shunt_named_retry() with it.
	 */
	shunt_insn_init(NULL);
	take_lock();
	for (size_t i = 0; i < n && !err; i++) {
		struct named *p;

		err = make(texts[i], request, later, &p, &why);
		if (err)
			break;
		*at = p;
		at = &p->next;
	}
	if (!err && request)
		err = put_in_place(request, n, &why);
	if (err) {
		drop_all(request);
	} else if (request) {
		*end = request;
		end = at;
	}
	give_lock();
	return err;
}

int shunt_named_retry(void (*complain)(const char *sentence))
{
	char text[512];
	const struct sentence why = {text, sizeof text};
	int set = 0;

	if (!__atomic_load_n(&list, __ATOMIC_RELAXED))
		return 0;
	take_lock();
	for (struct named *p = list; p; p = p->next) {
		struct shunt_probe_result res;
		int err;

		if (p->probe.addr || prepare(p, &why))
			continue;
		memset(&res, 0, sizeof res);
		err = shunt_probe_register(&p->probe, &res);
		set += !err;
		if (!err)
			continue;
		refusal(p, err, &res, &why);
		shunt_event_free(&p->hit.event);
		p->probe.addr = NULL;
		if (complain)
			complain(text);
	}
	give_lock();
	return set;
}

/* --- afterwards -------------------------------------------------------------------------- */

static int check_glob(const char *glob, const struct sentence *why)
{
	return shunt_glob_check(glob) ? say(why, -EINVAL, "'%.200s' is not a pattern", glob) : 0;
}

/* All that match go in one batch. */
static int take_out(const char *glob, const struct sentence *why)
{
	struct shunt_probe **batch;
	size_t n = 0, k = 0;
	int err = 0;

	for (const struct named *p = list; p; p = p->next)
		n++;
	batch = calloc(n + 1, sizeof(struct shunt_probe *));
	if (!batch)
		return say(why, -ENOMEM, "no memory");
	for (struct named *p = list; p; p = p->next)
		if (p->probe.addr && matches(p, glob))
			batch[k++] = &p->probe;
	if (k)
		err = shunt_probe_unregister_many(batch, k);
	free(batch);
	return err ? say(why, err, "they cannot be taken out: %s", strerror(-err)) : 0;
}

int shunt_named_remove(const char *glob, char *text, size_t size)
{
	const struct sentence why = {text, size};
	int err = check_glob(glob, &why), n = 0;

	if (err)
		return err;
	take_lock();
	err = take_out(glob, &why);
	for (struct named **at = &list; *at && !err;) {
		struct named *p = *at;

		if (!matches(p, glob)) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		drop(p);
		n++;
	}
	for (end = &list; *end;)
		end = &(*end)->next;
	give_lock();
	return err ? err : n;
}

static int switch_one(struct named *p, bool on, const struct sentence *why)
{
	int err = 0;

	if (p->probe.addr && p->on != on)
		err = on ? shunt_probe_enable(&p->probe) : shunt_probe_disable(&p->probe);
	if (err)
		return say(why, err, "'%.100s' cannot be switched: %s", p->text, strerror(-err));
	p->on = on;
	return 0;
}

int shunt_named_switch(const char *glob, bool on, char *text, size_t size)
{
	const struct sentence why = {text, size};
	int err = check_glob(glob, &why), n = 0;

	if (err)
		return err;
	take_lock();
	for (struct named *p = list; p && !err; p = p->next) {
		if (!matches(p, glob))
			continue;
		err = switch_one(p, on, &why);
		n++;
	}
	give_lock();
	return err ? err : n;
}

/* --- for people --------------------------------------------------------------------------- */

static const char *form_of(const struct named *p)
{
	if (!p->probe.addr)
		return "waiting";
	switch (shunt_probe_form(&p->probe)) {
	case SHUNT_PROBE_JUMP:
		return "jump";
	case SHUNT_PROBE_JUMP_SHARED:
		return "jump-shared";
	case SHUNT_PROBE_JUMP_MANY:
		return "jump-many";
	case SHUNT_PROBE_BREAKPOINT:
		return "breakpoint";
	default:
		return "off";
	}
}

int shunt_named_each(int (*fn)(const struct shunt_named_info *info, void *arg), void *arg)
{
	int r = 0;

	take_lock();
	for (const struct named *p = list; p && !r; p = p->next) {
		const struct shunt_named_info info = {.event = p->spec.event, .text = p->text,
			.form = form_of(p), .addr = (uintptr_t)p->probe.addr,
			.hits = __atomic_load_n(&p->hit.count, __ATOMIC_RELAXED), .on = p->on};

		r = fn(&info, arg);
	}
	give_lock();
	return r;
}

/* --- fork --------------------------------------------------------------------------------- */

void shunt_named_at_fork(void)
{
	static bool done;

	shunt_probes_at_fork(); /* the inner one first */
	if (!done)
		pthread_atfork(take_lock, give_lock, give_lock);
	done = true;
}
