/* SPDX-License-Identifier: MIT */
/* place.c - places by address, and whether an address can be one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/trampoline.h"
#include "base/log.h"
#include "object/code.h"
#include "probe/detour.h"
#include "probe/insn.h"
#include "probe/place.h"
#include "rcu/tasks.h"
#include "site/site.h"
#include "text/maps.h"
#include "trace/displace.h"

#define HASH_BITS 16
static struct shunt_place *hash[1 << HASH_BITS];
static uint32_t nplaces;
size_t shunt_places_held;

/* Who asks for an address asks for the twenty around it: they are in two or three buckets. */
static struct shunt_place **bucket(uintptr_t addr)
{
	return &hash[(addr >> 4) * 0x9E3779B97F4A7C15ull >> (64 - HASH_BITS)];
}

struct shunt_place *shunt_place_find(uintptr_t addr)
{
	struct shunt_place *p = *bucket(addr);

	while (p && p->addr != addr)
		p = p->hash_next;
	return p;
}

static struct shunt_place *place_new(uintptr_t addr)
{
	struct shunt_place **block = &shunt_place_blocks[nplaces / SHUNT_PLACE_BLOCK], *p;

	if (nplaces == SHUNT_PLACES_MAX)
		return NULL;
	if (!*block)
		*block = calloc(SHUNT_PLACE_BLOCK, sizeof **block);
	if (!*block)
		return NULL;
	p = shunt_place_of(nplaces);
	p->addr = p->tail = addr;
	p->id = nplaces++;
	p->hash_next = *bucket(addr);
	*bucket(addr) = p;
	return p;
}

bool shunt_place_gone(const struct shunt_place *p)
{
	return p->lost || (p->object && p->object->gone);
}

static bool is_readable(struct shunt_maps *maps, uintptr_t addr)
{
	struct shunt_vma v;

	return !shunt_maps_find(maps, addr, &v) && v.start <= addr && v.flags & SHUNT_VMA_READ;
}

bool shunt_place_there(const struct shunt_place *p)
{
	struct shunt_maps maps;
	bool yes;

	if (shunt_maps_open(&maps))
		return false;
	yes = is_readable(&maps, p->addr) && is_readable(&maps, p->addr + p->held - 1);
	shunt_maps_close(&maps);
	/* A debugger's breakpoint on what is ours leaves it ours. */
	return yes && (*(const uint8_t *)p->addr == 0xcc ||
			      !memcmp((const void *)p->addr, p->bytes, p->held));
}

/* --- the program's own text ----------------------------------------------------------- */

void shunt_place_read(uintptr_t from, uint8_t *to, size_t n)
{
	memcpy(to, (const void *)from, n);
	shunt_displaced_original(from, to, n);
	for (uintptr_t a = from - 4; a < from + n && shunt_places_held; a++) {
		const struct shunt_place *p = shunt_place_find(a);

		for (size_t i = 0; p && !shunt_place_gone(p) && i < p->held; i++)
			if (a + i - from < n)
				to[a + i - from] = p->text.old[i];
	}
}

/* The function that was looked at last: probes come in the order of functions. */
static struct {
	uintptr_t lo, hi;
	uint8_t *bytes;
	struct shunt_code_map *map;
	bool pads_unknown;
} last;

/* The mapping that was looked at last, if it is one of code: a batch is in few. */
static struct {
	uintptr_t lo, hi;
} mapping;

static void forget_function(void)
{
	free(last.bytes);
	free(last.map);
	memset(&last, 0, sizeof last);
}

void shunt_place_done(void)
{
	forget_function();
	mapping.lo = mapping.hi = 0;
}

static int map_function(const struct shunt_code_list *list, const struct shunt_code_func *f,
	char *why, size_t size)
{
	struct shunt_code code = {.lo = f->start, .hi = f->start + f->size};
	uintptr_t where = 0;

	if (last.map && last.lo == code.lo && last.hi == code.hi)
		return 0;
	forget_function();
	last.bytes = malloc(f->size);
	if (!last.bytes)
		return shunt_why(why, size, -ENOMEM, "no memory");
	shunt_place_read(code.lo, last.bytes, f->size);
	code.bytes = last.bytes;
	code.nentries = shunt_code_pads(list, code.lo, code.hi, &code.entries);
	last.map = shunt_code_map(&code, &where);
	if (!last.map) {
		int err = errno;

		return shunt_why(why, size, -err, err == ENOMEM ? "no memory" :
			"the function has bytes at +0x%zx that are no instruction known",
			(size_t)(where - code.lo));
	}
	last.lo = code.lo;
	last.hi = code.hi;
	last.pads_unknown = f->flags & SHUNT_CODE_PADS_UNKNOWN;
	return 0;
}

/* Also fills in what the place needs from then on. */
static int look(struct shunt_place *p, char *why, size_t size)
{
	struct shunt_place_text *t = &p->text;
	struct shunt_insn insn;
	struct shunt_room room = {.why = "no function is known there"};
	uint8_t moved[SHUNT_INSN_MOVED_MAX];
	const char *reason = NULL;
	size_t n = p->hi - p->addr < sizeof t->old ? p->hi - p->addr : sizeof t->old;
	int r;

	shunt_place_read(p->addr, t->old, n);
	t->n = (uint8_t)n;
	if (shunt_insn_decode(t->old, n, p->addr, &insn))
		return shunt_why(why, size, -EINVAL, "there is no instruction at %#lx", p->addr);
	t->len = insn.len;
	t->kind = insn.kind;
	t->goes_on = shunt_insn_goes_on(&insn);
	p->next = p->addr + insn.len;
	/* Unwinders know a signal's frame by these bytes. */
	if (n >= 9 && !memcmp(t->old, "\x48\xc7\xc0\x0f\0\0\0\x0f\x05", 9))
		return shunt_why(why, size, -EPERM, "%#lx is where signal handlers return to", p->addr);
	r = shunt_insn_move(&insn, t->old, p->addr, moved, &reason);
	if (r < 0)
		return shunt_why(why, size, r, "the instruction at %#lx cannot be displaced: %s", p->addr,
			reason);
	if (last.map && last.lo <= p->addr && p->addr < last.hi)
		shunt_code_room(last.map, p->addr, &room);
	if (!room.why && last.pads_unknown)
		room.why = "where exceptions are caught in the function is not known";
	t->why_not_many = room.why;
	t->many = room.why || room.len > sizeof t->old ? 0 : room.len;
	p->known = true;
	return 0;
}

/* --- what may not be probed ------------------------------------------------------------ */

static bool has_prefix(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static int find_mapping(uintptr_t addr, char *why, size_t size)
{
	struct shunt_maps maps;
	struct shunt_vma v;
	char name[64] = "";
	int r = shunt_maps_open(&maps);

	if (r)
		return shunt_why(why, size, r, "/proc/self/maps cannot be read: %s", strerror(-r));
	r = shunt_maps_find(&maps, addr, &v);
	if (r || v.start > addr)
		r = shunt_why(why, size, -EFAULT, "nothing is mapped at %#lx", addr);
	else if ((v.flags & (SHUNT_VMA_READ | SHUNT_VMA_EXEC)) != (SHUNT_VMA_READ | SHUNT_VMA_EXEC))
		r = shunt_why(why, size, -EFAULT, "%#lx is not in code", addr);
	if (!r)
		shunt_maps_name(&maps, addr, name, sizeof name);
	if (!r && (has_prefix(name, "[vdso") || has_prefix(name, "[vsyscall") ||
			  has_prefix(name, "[uprobes")))
		r = shunt_why(why, size, -EPERM, "%#lx is in %s, which is the kernel's", addr, name);
	shunt_maps_close(&maps);
	if (!r) {
		mapping.lo = v.start;
		mapping.hi = v.end;
	}
	return r;
}

static int check_mapping(uintptr_t addr, struct shunt_place *p, char *why, size_t size)
{
	int r = addr - mapping.lo < mapping.hi - mapping.lo ? 0 : find_mapping(addr, why, size);

	p->lo = mapping.lo;
	p->hi = mapping.hi;
	return r;
}

/* In a program that has the library linked into it, its functions are told by name. */
static bool is_ours(uintptr_t addr, const struct shunt_object *obj)
{
	const struct shunt_code_list *list = NULL;
	const struct shunt_code_func *f;
	char name[64];

	if (!obj || obj != shunt_object_of((uintptr_t)shunt_place_find))
		return false;
	if (strstr(obj->path, "libshunt"))
		return true;
	f = shunt_code_at(addr, &list);
	return f && has_prefix(shunt_code_name(list, f, name, sizeof name), "shunt_");
}

static int check_ours(uintptr_t addr, const struct shunt_object *obj, char *why, size_t size)
{
	if (is_ours(addr, obj))
		return shunt_why(why, size, -EPERM, "%#lx is in libshunt itself", addr);
	if (shunt_stub_contains(addr) || shunt_code_owns(addr, addr + 1) || shunt_window_owns(addr))
		return shunt_why(why, size, -EPERM, "%#lx is in code that libshunt made", addr);
	return 0;
}

static int check_boundary(uintptr_t addr, void **near, char *why, size_t size)
{
	uintptr_t prev = 0, next = 0;

	if (shunt_code_boundary(last.map, addr, &prev, &next))
		return 0;
	if (near)
		*near = (void *)prev;
	return shunt_why(why, size, -EINVAL,
		"%#lx is in the middle of an instruction: the one at %#lx (+%zu of the function); "
		"the next is at +%zu", addr, prev, (size_t)(prev - last.lo),
		(size_t)(next - last.lo));
}

/* The compiler's NOP for the function tracer: what is behind it is as good. */
static uintptr_t behind_site(uintptr_t addr)
{
	struct shunt_object *obj;
	const struct shunt_func *f = shunt_func_at(addr, &obj);

	if (f && addr >= f->site && addr < f->site + f->len)
		return f->site + f->len;
	if (f && addr == f->start && f->site - addr <= 4) /* endbr64 before it */
		return f->site + f->len;
	return addr;
}

bool shunt_place_others(uintptr_t lo, uintptr_t hi)
{
	const struct shunt_func *f;

	if (shunt_displaced_within(lo, hi))
		return true;
	for (uintptr_t addr = lo; addr < hi; addr++) {
		f = shunt_func_at(addr, NULL);
		if (f && f->site < hi && f->site + f->len > lo)
			return true;
	}
	return shunt_sites_within(lo, hi);
}

static int check(struct shunt_place *p, uintptr_t start, unsigned flags, void **near, char *why,
	size_t size)
{
	const struct shunt_code_list *list = NULL;
	const struct shunt_code_func *f;
	uintptr_t addr = p->addr;
	int r = check_mapping(addr, p, why, size);

	if (r)
		return r;
	p->object = shunt_object_of(addr);
	r = check_ours(addr, p->object, why, size);
	if (!r && shunt_displaced_within(addr, addr + 1))
		r = shunt_why(why, size, -EBUSY,
			"%#lx is within the first bytes of a function that is traced: they are the "
			"tracer's while it is on", addr);
	if (!r && shunt_place_others(addr, addr + 1))
		r = shunt_why(why, size, -EBUSY,
			"%#lx is an instruction that shunt changes itself, of a key, a value or a call",
			addr);
	if (r)
		return r;
	if (flags & SHUNT_PROBE_TRUSTED) {
		p->first = true;
		return look(p, why, size);
	}
	f = shunt_code_at(addr, &list);
	if (!f)
		return shunt_why(why, size, -ENOENT,
			"no function is known at %#lx, and so not where instructions begin "
			"(SHUNT_PROBE_TRUSTED says that one does)", addr);
	if (f->flags & SHUNT_CODE_LINKER)
		return shunt_why(why, size, -EPERM, "%#lx is in code that the linker made", addr);
	p->lo = f->start;
	p->hi = f->start + f->size;
	p->first = start == f->start && !(f->flags & SHUNT_CODE_NO_ENTRY);
	r = map_function(list, f, why, size);
	if (r == -EILSEQ && addr == f->start) {
		/* Where a function begins an instruction does, whatever follows. */
		forget_function();
		return look(p, why, size);
	}
	if (!r)
		r = check_boundary(addr, near, why, size);
	return r ? r : look(p, why, size);
}

/*
 * The text of an object that is loaded is not what it was: a program that patches
 * itself. Breakpoints come and go; they are not believed.
 */
static bool rewritten(const struct shunt_place *p)
{
	uint8_t now[sizeof p->text.old];

	shunt_place_read(p->addr, now, p->text.n);
	return now[0] != 0xcc && memcmp(now, p->text.old, p->text.n);
}

/* What a place knows is not so any more, or was taken on trust that is not given now. */
static bool stale(const struct shunt_place *p, unsigned flags)
{
	if (!p->known || shunt_place_gone(p))
		return true;
	if (p->held)
		return false;
	return !p->object || p->object != shunt_object_of(p->addr) || rewritten(p) ||
	       p->trusted != !!(flags & SHUNT_PROBE_TRUSTED);
}

/*
 * Unloaded, and loaded again at the same address before anybody looked: the same
 * object, as far as can be told, but for what was ours in it.
 */
static bool is_reloaded(const struct shunt_place *p)
{
	return !p->object->gone && !memcmp((const void *)p->addr, p->text.old, p->held);
}

struct shunt_place *shunt_place_lost(uintptr_t addr)
{
	struct shunt_place *p = shunt_place_find(behind_site(addr));

	if (!p || (!p->held && !p->users))
		return NULL;
	if (p->held && (p->object ? is_reloaded(p) : !shunt_place_there(p)))
		p->lost = true;
	if (!shunt_place_gone(p))
		return NULL;
	for (struct shunt_probe_user *u = p->users; u; u = u->next)
		u->on = u->was_on = false, u->lost = true;
	return p;
}

struct shunt_place *shunt_place_at(uintptr_t addr, unsigned flags, void **near, char *why,
	size_t size)
{
	uintptr_t at = behind_site(addr);
	struct shunt_place *p = shunt_place_find(at), fresh = {.addr = at};
	int r;

	if (p && !stale(p, flags))
		return p;
	r = check(&fresh, addr, flags, near, why, size);
	if (r) {
		errno = -r;
		return NULL;
	}
	if (!p)
		p = place_new(at);
	if (!p) {
		errno = ENOMEM;
		shunt_why(why, size, 0, "no memory, or more than %u places", SHUNT_PLACES_MAX);
		return NULL;
	}
	p->text = fresh.text;
	p->next = fresh.next;
	p->first = fresh.first;
	p->known = true;
	p->trusted = flags & SHUNT_PROBE_TRUSTED;
	p->lost = false;
	p->object = fresh.object;
	p->lo = fresh.lo;
	p->hi = fresh.hi;
	return p;
}
