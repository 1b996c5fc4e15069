/* SPDX-License-Identifier: MIT */
/*
 * displace.c - which functions' first instructions can be executed elsewhere, and the
 * code that does (displace.h).
 *
 * A jump at a function's start is right if control gets to none of the bytes that it
 * takes but to the first, and there only where the return address is on top of the
 * stack and a call of the function has been made:
 *
 *  - no branch of the function itself leads there (insn.h says so, and that it knows all
 *    of them); nor does a landing pad, or a return from a call;
 *  - no branch from elsewhere in the object leads behind the first byte. Functions written
 *    by hand do such things: glibc's mempcpy enters memmove at its second instruction.
 *    Every byte of the object's code that looks like the opcode of a direct branch is
 *    taken for one, and if it leads there, the function around is decoded to see if it is;
 *  - a branch of the function itself leads to its first byte only in a loop: then each
 *    turn would be taken for a call, and it is left out as well.
 *
 * An indirect jump gets its target from somewhere: an address that lies in the object's
 * data (a table of addresses, or of a relocation), the distance from a table that the
 * function's code refers to, or an address in code that it refers to. If none of those is
 * behind the first byte, none of its jumps leads there. (Objects know no addresses of
 * places within another's functions.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/code.h"
#include "probe/insn.h"
#include "text/text_internal.h"
#include "displace.h"

#define JUMP 5
/* Most of what one function's copy can take: its address, instructions, the jump back. */
#define COPY_MAX (8 + JUMP * SHUNT_INSN_MOVED_MAX + JUMP + 16)
/* What it takes mostly: how much memory is asked for at a time. */
#define COPY_USUAL 40

static const char WHY_SHORT[] = "it has less than 5 bytes, and something is behind it";
static const char WHY_FILE[] = "its object's file cannot be read, or is not what is loaded";
static const char WHY_SITES[] = "its object has keys, values or calls of shunt in its code";
static const char WHY_UNKNOWN[] = "it has bytes that are no instruction known";
static const char WHY_NEXT[] = "another function begins within 5 bytes";
static const char WHY_PADS[] = "where it catches exceptions is not known";
static const char WHY_REFUSED[] = "an instruction cannot be executed elsewhere";
static const char WHY_FAR[] = "an operand is too far from where its copy would be";
static const char WHY_BRANCH[] = "a branch from elsewhere leads to within 5 bytes";
static const char WHY_LOOP[] = "a loop in it leads to its first byte";
static const char WHY_CALLER[] = "it asks for its return address, to know its caller";
static const char WHY_STACK[] = "it begins by taking another stack: it is not entered by a call";
static const char WHY_TABLE[] = "its object has an address that is within its first 5 bytes";
static const char WHY_ROOM[] = "no room for its copy near its object";

static size_t memory;

size_t shunt_displace_memory(void)
{
	return __atomic_load_n(&memory, __ATOMIC_RELAXED);
}

bool shunt_displace_may(const struct shunt_object *obj)
{
	static const char *const ours[] = {"libshunt.so", "libshunt-agent.so", "libZydis.so",
		"libZycore.so"};
	const char *slash = strrchr(obj->path, '/'), *file = slash ? slash + 1 : obj->path;

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		if (!strncmp(file, ours[i], strlen(ours[i])))
			return false;
	return (uintptr_t)shunt_displace_may - obj->text_lo >= obj->text_hi - obj->text_lo;
}

int shunt_displace_init(const char **why)
{
	return shunt_insn_init(why);
}

/* One call's work. */
struct work {
	const struct shunt_object *part;
	const struct shunt_code_list *list;
	struct shunt_displaced *all;
	const uint32_t *index;
	uint32_t n;
	struct shunt_code_text text;
	uint8_t *marks; /* a bit for each byte of text: a jump will be there */
	/* The function that was decoded last. */
	const struct shunt_code_func *func;
	struct shunt_code_map *map;
};

static void leave_out(struct shunt_displaced *d, const char *why)
{
	d->why = why;
	__atomic_store_n(&d->state, SHUNT_DISPLACED_LEFT_OUT, __ATOMIC_RELEASE);
}

static const uint8_t *bytes_at(const struct work *w, uintptr_t addr)
{
	return w->text.bytes + (addr - w->text.lo);
}

static const struct shunt_code_func *func_of(const struct work *w, uint32_t i)
{
	return &w->list->funcs[w->part->code_index[i]];
}

/* Its map, or NULL with errno. */
static const struct shunt_code_map *map_of(struct work *w, const struct shunt_code_func *f)
{
	struct shunt_code code = {.lo = f->start, .hi = f->start + f->size};

	if (w->func == f)
		return w->map;
	free(w->map);
	w->map = NULL;
	w->func = f;
	if (f->start < w->text.lo || f->size > w->text.hi - f->start) {
		errno = EILSEQ;
		return NULL;
	}
	code.bytes = bytes_at(w, f->start);
	code.nentries = shunt_code_pads(w->list, code.lo, code.hi, &code.entries);
	w->map = shunt_code_map(&code, NULL);
	return w->map;
}

/* --- a function by itself -------------------------------------------------------------- */

/* It begins at its own frames, and takes the function that it returns to for its caller. */
static bool is_unwinder(const struct shunt_object *part)
{
	const char *slash = strrchr(part->path, '/'), *file = slash ? slash + 1 : part->path;

	return !strncmp(file, "libgcc_s.so", 11) || !strncmp(file, "libunwind", 9);
}

/*
 * These find out on whose behalf they work by where they return to, which is a stub
 * while their exit is traced.
 */
static bool asks_caller(const struct work *w, uint32_t func)
{
	static const char *const names[] = {"dlopen", "dlmopen", "dlsym", "dlvsym", "mcount",
		"_mcount", "__fentry__", "uw_init_context_1", "_Unwind_RaiseException",
		"_Unwind_ForcedUnwind", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow",
		"_Unwind_Backtrace"};
	const struct shunt_code_list *l = w->list;
	uint32_t lo = 0, hi = l->nnames;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (l->names[mid].func < func)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (is_unwinder(w->part))
		return true;
	for (; lo < l->nnames && l->names[lo].func == func; lo++)
		for (size_t k = 0; k < sizeof names / sizeof *names; k++)
			if (!strcmp(l->strings + l->names[lo].name, names[k]))
				return true;
	return false;
}

/*
 * mov REG,%rsp or mov MEMORY,%rsp: what is on top of the stack before it is not the
 * return address of a call. As in glibc's __start_context, where coroutines end.
 */
static bool takes_stack(const uint8_t *b, uint8_t len)
{
	if (len < 3 || (b[0] & 0xf8) != 0x48)
		return false;
	if (b[1] == 0x89)
		return (b[2] & 0xc7) == 0xc4 && !(b[0] & 1);
	return b[1] == 0x8b && (b[2] & 0x38) == 0x20 && !(b[0] & 4);
}

static bool any_takes_stack(const struct shunt_displaced *d, uintptr_t start)
{
	struct shunt_insn insn;

	for (size_t off = 0; off < d->span; off += insn.len) {
		if (shunt_insn_decode(d->old + off, d->span - off, start + off, &insn))
			return true;
		if (takes_stack(d->old + off, insn.len))
			return true;
	}
	return false;
}

/* --- indirect jumps ----------------------------------------------------------------------- */

static bool is_text(const struct work *w, uintptr_t addr)
{
	return addr - w->part->text_lo < w->part->text_hi - w->part->text_lo;
}

/* Distances from `table` to places in code, of 4 or of 8 bytes, as many as there are. */
static bool table_leads(const struct work *w, uintptr_t table, unsigned size, uintptr_t lo,
	uintptr_t hi)
{
	for (uintptr_t at = table; at >= w->text.lo && at <= w->text.hi - size; at += size) {
		int64_t far = 0;
		int32_t near;

		memcpy(&near, bytes_at(w, at), sizeof near);
		if (size == 8)
			memcpy(&far, bytes_at(w, at), sizeof far);
		else
			far = near;
		if (!is_text(w, table + (uintptr_t)far))
			return false;
		if (table + (uintptr_t)far - lo < hi - lo)
			return true;
	}
	return false;
}

/* Whether what an instruction refers to may be, or lead to, a place in lo..hi. */
static bool operand_leads(const struct work *w, const struct shunt_insn *insn, uintptr_t lo,
	uintptr_t hi)
{
	const struct shunt_code_func *f;

	if (!insn->memory)
		return false;
	if (!is_text(w, insn->memory))
		return table_leads(w, insn->memory, 4, lo, hi) ||
		       table_leads(w, insn->memory, 8, lo, hi);
	/* Another function's start is one to call; anything else may be added to. */
	f = shunt_code_in(w->list, insn->memory);
	return !f || f->start != insn->memory || f->start == lo - 1;
}

/* An address as an immediate operand: of programs that are not moved. */
static bool has_address(const struct work *w, const struct shunt_code_func *f, uintptr_t lo,
	uintptr_t hi)
{
	for (uintptr_t at = f->start; !w->part->base && at + 4 <= f->start + f->size; at++) {
		uint32_t v;

		memcpy(&v, bytes_at(w, at), sizeof v);
		if (v - lo < hi - lo)
			return true;
	}
	return false;
}

/*
 * Whether an indirect jump of the function may lead to behind its first byte, as far as
 * it goes by the function's code. (What the object's data says is looked at for all.)
 */
static bool jumps_lead(const struct work *w, const struct shunt_code_func *f, uintptr_t hi)
{
	uintptr_t lo = f->start + 1, end = f->start + f->size;
	struct shunt_insn insn;

	for (uintptr_t at = f->start; at < end; at += insn.len)
		if (shunt_insn_decode(bytes_at(w, at), end - at, at, &insn) ||
			operand_leads(w, &insn, lo, hi))
			return true;
	return has_address(w, f, lo, hi);
}

/* Several instructions: why not, or NULL and d->span. */
static const char *look_several(struct work *w, const struct shunt_code_func *f,
	struct shunt_displaced *d)
{
	struct shunt_room room;

	if (f->flags & SHUNT_CODE_PADS_UNKNOWN)
		return WHY_PADS;
	if (!map_of(w, f))
		return WHY_UNKNOWN;
	if (shunt_code_unsure(w->map) && !jumps_lead(w, f, f->start + SHUNT_DISPLACED_MAX))
		shunt_code_sure(w->map);
	shunt_code_room(w->map, f->start, &room);
	if (!room.why)
		d->span = room.len;
	return room.why;
}

/* 0x90, 0x66 before it, 0F 1F: what assemblers and compilers fill up with. */
static bool is_padding(const uint8_t *b, const struct shunt_insn *insn)
{
	unsigned i = 0;

	while (i + 1 < insn->len && b[i] == 0x66)
		i++;
	if (b[i] == 0x90 || b[i] == 0xcc)
		return true;
	i += i + 2 < insn->len && b[i] == 0x2e;
	return i + 2 < insn->len && b[i] == 0x0f && b[i + 1] == 0x1f;
}

/*
 * A function of less than 5 bytes is displaced as a whole, and the jump takes some of the
 * padding behind it. Nothing goes on from it into that.
 */
static const char *look_short(const struct work *w, const struct shunt_code_func *f,
	struct shunt_displaced *d)
{
	uintptr_t at = f->start, end = f->start + f->size;
	struct shunt_insn insn = {0};

	if (f->start < w->text.lo || f->start > w->text.hi - 32)
		return WHY_SHORT;
	for (; at < end; at += insn.len)
		if (shunt_insn_decode(bytes_at(w, at), end - at, at, &insn) || insn.refused ||
			insn.target - f->start - 1 < JUMP - 1)
			return WHY_SHORT;
	if (shunt_insn_goes_on(&insn) || insn.kind == SHUNT_INSN_JMP_IND)
		return WHY_SHORT;
	for (; at < f->start + JUMP; at += insn.len)
		if (shunt_insn_decode(bytes_at(w, at), 16, at, &insn) ||
			!is_padding(bytes_at(w, at), &insn))
			return WHY_SHORT;
	d->first = 1;
	d->span = (uint8_t)f->size;
	return NULL;
}

static const char *look_long(struct work *w, const struct shunt_code_func *f,
	struct shunt_displaced *d)
{
	struct shunt_insn insn;

	if (f->start < w->text.lo || f->size > w->text.hi - f->start)
		return WHY_UNKNOWN;
	if (shunt_insn_decode(bytes_at(w, f->start), f->size, f->start, &insn))
		return WHY_UNKNOWN;
	if (insn.refused)
		return WHY_REFUSED;
	d->first = d->span = insn.len;
	return insn.len < JUMP ? look_several(w, f, d) : NULL;
}

static const char *look(struct work *w, uint32_t i)
{
	const struct shunt_code_func *f = func_of(w, i);
	struct shunt_displaced *d = &w->all[i];
	const char *why = f->size < JUMP ? look_short(w, f, d) : look_long(w, f, d);

	d->held = d->span > JUMP ? d->span : JUMP;
	if (!why && d->span > sizeof d->old)
		why = WHY_REFUSED;
	if (!why && f + 1 < w->list->funcs + w->list->nfuncs && f[1].start < f->start + d->held)
		why = f->size < JUMP ? WHY_SHORT : WHY_NEXT;
	if (why)
		return why;
	memcpy(d->old, bytes_at(w, f->start), d->held);
	if (any_takes_stack(d, f->start))
		return WHY_STACK;
	return asks_caller(w, w->part->code_index[i]) ? WHY_CALLER : NULL;
}

/* --- branches from elsewhere -------------------------------------------------------------- */

static void mark(struct work *w, uint32_t i)
{
	uintptr_t at = func_of(w, i)->start - w->text.lo;

	for (uintptr_t b = at; b < at + w->all[i].held; b++)
		w->marks[b >> 3] |= (uint8_t)(1u << (b & 7));
}

/* Which of those looked at has a mark at addr; NULL: none any more. */
static struct shunt_displaced *marked(const struct work *w, uintptr_t addr, uint32_t *i)
{
	uint32_t lo = 0, hi = w->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (func_of(w, w->index[mid])->start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	*i = w->index[lo - 1];
	if (w->all[*i].why || addr - func_of(w, *i)->start >= w->all[*i].held)
		return NULL;
	return &w->all[*i];
}

/* Whether the byte at `at` is in a direct branch to `to`, of what kind. Unknown code has one. */
static bool is_branch(struct work *w, uintptr_t at, uintptr_t to, uint8_t *kind,
	const struct shunt_code_func **from)
{
	const struct shunt_code_func *f = shunt_code_in(w->list, at);
	const struct shunt_code_map *map = f ? map_of(w, f) : NULL;
	struct shunt_insn insn;
	uintptr_t prev;

	*kind = SHUNT_INSN_JMP;
	*from = f;
	if (!map)
		return true;
	if (!shunt_code_boundary(map, at, &prev, NULL))
		at = prev;
	if (shunt_insn_decode(bytes_at(w, at), f->start + f->size - at, at, &insn))
		return true;
	*kind = insn.kind;
	return insn.target == to;
}

/* A byte that looks like a branch's leads to where a jump will be. */
static void consider(struct work *w, uintptr_t at, uintptr_t to)
{
	const struct shunt_code_func *from, *f;
	struct shunt_displaced *d;
	uint8_t kind;
	uint32_t i;

	d = marked(w, to, &i);
	if (!d)
		return;
	f = func_of(w, i);
	/* To the start: calls and tail calls of others, which is what it is for. */
	if (to == f->start && at - f->start >= f->size)
		return;
	if (!is_branch(w, at, to, &kind, &from))
		return;
	if (to != f->start)
		leave_out(d, WHY_BRANCH);
	else if (kind != SHUNT_INSN_CALL)
		leave_out(d, WHY_LOOP);
}

static inline bool is_marked(const struct work *w, uintptr_t at)
{
	return at < w->text.hi - w->text.lo && w->marks[at >> 3] >> (at & 7) & 1;
}

#define LOOK_ON 3 /* at the next byte of the opcode */

/* Bytes of a direct branch's displacement, by the first byte of its opcode. */
static void make_sizes(uint8_t size[256])
{
	memset(size, 0, 256);
	memset(size + 0x70, 1, 16);
	memset(size + 0xe0, 1, 4);
	size[0xeb] = 1;
	size[0xe8] = size[0xe9] = 4;
	size[0x0f] = size[0xc7] = LOOK_ON;
}

static void find_branches(struct work *w)
{
	const uint8_t *b = w->text.bytes;
	uint8_t sizes[256];
	size_t size = (w->part->text_hi < w->text.hi ? w->part->text_hi : w->text.hi) - w->text.lo;

	make_sizes(sizes);
	for (size_t i = w->part->text_lo - w->text.lo; i + 6 < size; i++) {
		uint8_t n = sizes[b[i]];
		size_t end = i + 1;
		int32_t rel;

		if (!n)
			continue;
		if (n == LOOK_ON) {
			if (b[i] == 0x0f ? (b[i + 1] & 0xf0) != 0x80 : b[i + 1] != 0xf8)
				continue;
			end++;
			n = 4;
		}
		if (n == 1)
			rel = (int8_t)b[end];
		else
			memcpy(&rel, b + end, 4);
		end += n + (size_t)(intptr_t)rel;
		if (is_marked(w, end))
			consider(w, w->text.lo + i, w->text.lo + end);
	}
}

/* Addresses in the object's data, and of its relocations, behind where a jump begins. */
static void find_addresses(struct work *w)
{
	size_t size = w->text.hi - w->text.lo, step = w->part->base ? 8 : 4;
	struct shunt_displaced *d;
	uint32_t i;

	for (size_t at = -w->text.lo & 7; at + 8 <= size; at += step) {
		uint64_t v = 0;

		memcpy(&v, w->text.bytes + at, step);
		v += w->part->base - w->text.lo;
		if (!is_marked(w, v) || is_text(w, w->text.lo + at))
			continue;
		d = marked(w, w->text.lo + v, &i);
		if (d && func_of(w, i)->start != w->text.lo + v)
			leave_out(d, WHY_TABLE);
	}
}

/* --- copies ---------------------------------------------------------------------------------- */

/* Memory near the object that is being filled. */
struct copies {
	uintptr_t at; /* where `bytes` will be */
	size_t used, size;
	uint8_t *bytes;
	uint32_t *made; /* whose they are */
	uint32_t nmade;
};

static int copies_begin(struct copies *c, const struct work *w, uint32_t left)
{
	size_t size = ((size_t)left * COPY_USUAL + COPY_MAX + 4095) & ~(size_t)4095;
	void *at;
	int r = shunt_text_alloc_near(w->part->text_lo, w->part->text_hi, size, &at);

	if (r)
		return r;
	c->bytes = malloc(size);
	if (!c->bytes)
		return -ENOMEM;
	memset(c->bytes, 0xcc, size);
	c->at = (uintptr_t)at;
	c->size = size;
	c->used = 0;
	c->nmade = 0;
	__atomic_fetch_add(&memory, size, __ATOMIC_RELAXED);
	return 0;
}

/* What has been made becomes what can be used. */
static int copies_end(struct copies *c, struct shunt_displaced *all)
{
	int r = c->bytes ? shunt_text_write_private((void *)c->at, c->bytes, c->used) : 0;

	for (uint32_t k = 0; k < c->nmade && !r; k++)
		__atomic_store_n(&all[c->made[k]].state, SHUNT_DISPLACED_READY, __ATOMIC_RELEASE);
	free(c->bytes);
	c->bytes = NULL;
	c->nmade = 0;
	return r;
}

static void put(struct copies *c, const void *bytes, size_t n)
{
	memcpy(c->bytes + c->used, bytes, n);
	c->used += n;
}

/* The copy of one function; NULL, or why not, and nothing has been written. */
static const char *copy(struct copies *c, const struct work *w, uint32_t i)
{
	uintptr_t start = func_of(w, i)->start;
	struct shunt_displaced *d = &w->all[i];
	size_t from = c->used, off = 0;
	struct shunt_insn insn = {0};

	put(c, &start, sizeof start);
	while (off < d->span) {
		uint8_t moved[SHUNT_INSN_MOVED_MAX];
		const char *why;
		int n = -1;

		if (!shunt_insn_decode(d->old + off, d->span - off, start + off, &insn))
			n = shunt_insn_move(&insn, d->old + off, c->at + c->used, moved, &why);
		if (n < 0) {
			c->used = from;
			return n == -ERANGE ? WHY_FAR : WHY_REFUSED;
		}
		put(c, moved, (size_t)n);
		off += insn.len;
	}
	if (shunt_insn_goes_on(&insn)) {
		int32_t rel = (int32_t)(start + d->span - (c->at + c->used + JUMP));

		put(c, "\xe9", 1);
		put(c, &rel, sizeof rel);
	}
	d->body = c->at + from + 8;
	c->used = (c->used + 15) & ~(size_t)15; /* the next one's code begins at 8 of 16 */
	return NULL;
}

static int copy_all(struct work *w)
{
	struct copies c = {.made = malloc(w->n * sizeof *c.made)};
	int r = c.made ? 0 : -ENOMEM;

	for (uint32_t k = 0; k < w->n && !r; k++) {
		struct shunt_displaced *d = &w->all[w->index[k]];
		const char *why;

		if (d->why)
			continue;
		if (!c.bytes || c.size - c.used < COPY_MAX) {
			r = copies_end(&c, w->all);
			if (!r && copies_begin(&c, w, w->n - k)) {
				leave_out(d, WHY_ROOM);
				continue;
			}
		}
		why = r ? NULL : copy(&c, w, w->index[k]);
		if (why)
			leave_out(d, why);
		else if (!r)
			c.made[c.nmade++] = w->index[k];
	}
	if (!r)
		r = copies_end(&c, w->all);
	free(c.bytes);
	free(c.made);
	return r;
}

/* --- all of it ---------------------------------------------------------------------------- */

static void leave_out_all(struct work *w, const char *why)
{
	for (uint32_t k = 0; k < w->n; k++)
		leave_out(&w->all[w->index[k]], why);
}

static int displace(struct work *w)
{
	w->marks = calloc((w->text.hi - w->text.lo) / 8 + 1, 1);
	if (!w->marks)
		return -ENOMEM;
	for (uint32_t k = 0; k < w->n; k++) {
		const char *why = look(w, w->index[k]);

		if (why)
			leave_out(&w->all[w->index[k]], why);
		else
			mark(w, w->index[k]);
	}
	find_branches(w);
	find_addresses(w);
	return copy_all(w);
}

int shunt_displace(const struct shunt_object *part, struct shunt_displaced *all,
	const uint32_t *index, uint32_t n)
{
	struct work w = {.part = part, .list = part->of->code, .all = all, .index = index, .n = n};
	int r = shunt_code_text_read(part->of, &w.text);

	if (r == -ENOMEM)
		return r;
	if (r || w.text.has_sites) {
		leave_out_all(&w, r ? WHY_FILE : WHY_SITES);
		r = 0;
	} else {
		r = displace(&w);
	}
	free(w.map);
	free(w.marks);
	shunt_code_text_free(&w.text);
	return r;
}
