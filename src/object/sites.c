/* SPDX-License-Identifier: MIT */
/*
 * sites.c - from what a file says to sites that may be patched.
 *
 * What makes a site safe to overwrite with a 5-byte jump: nobody jumps between
 * its bytes. One NOP instruction of 5 or more bytes is safe wherever it is;
 * several short NOPs are only when they begin where the function begins, since
 * callers enter there and compilers branch into no such run. Hence the rule:
 * where a function begins must be known (a symbol, or an entry of .eh_frame)
 * before a run of NOPs is taken, and otherwise only whole instructions are.
 *
 * Functions that the section does not list (g++ 12 loses those of duplicate
 * COMDAT groups, -mnop-mcount makes no section) are taken by their code: a call
 * of __fentry__ always; NOPs only of a shape (kind and length) that listed
 * functions of this object have; and with no list at all, exactly gcc's 5-byte
 * NOP, in a program linked with -pg or where at least half of the object's own
 * functions begin with it. (A mistake there would trace an entry that nobody
 * prepared, and do no harm: the NOP is one instruction at a function's entry.)
 */
#include <string.h>

#include "elf_image.h"

#define NO_START UINT32_MAX

struct finder {
	const struct shunt_elf *elf;
	const struct shunt_code *code;
	size_t ncode;
	struct shunt_finding *f;
	uint8_t shapes[5][32]; /* bits: [kind] has been seen with this length */
};

static const uint8_t *code_at(const struct finder *x, uint64_t addr, size_t *n)
{
	for (size_t i = 0; i < x->ncode; i++) {
		uint64_t off = addr - x->code[i].addr;

		if (off < x->code[i].size) {
			*n = x->code[i].size - off;
			return x->code[i].bytes + off;
		}
	}
	*n = 0;
	return NULL;
}

/* The last start that is not above addr; NO_START: none. */
static uint32_t start_before(const struct shunt_elf *e, uint64_t addr)
{
	size_t lo = 0, hi = e->nstarts;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->starts[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && lo < NO_START ? (uint32_t)lo - 1 : NO_START;
}

/* --- is it a call of __fentry__? ----------------------------------------- */

static bool is_slot(const struct shunt_elf *e, uint64_t addr)
{
	size_t lo = 0, hi = e->nslots;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->slots[mid] == addr)
			return true;
		if (e->slots[mid] < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static uint8_t call_len(const struct finder *x, const uint8_t *p, size_t n, uint64_t addr)
{
	struct shunt_entry_branch b;
	const uint8_t *plt;
	uint64_t slot;
	size_t left;

	if ((!x->elf->nslots && !x->elf->fentry) || !shunt_entry_call(p, n, addr, &b))
		return 0;
	if (b.indirect)
		return is_slot(x->elf, b.to) ? b.len : 0;
	if (x->elf->fentry && b.to == x->elf->fentry)
		return b.len;
	plt = code_at(x, b.to, &left);
	if (plt && shunt_entry_plt(plt, left, b.to, &slot) && is_slot(x->elf, slot))
		return b.len;
	return 0;
}

/* What is at addr, an endbr64 skipped. */
static uint8_t look(const struct finder *x, uint64_t addr, struct shunt_found *out)
{
	size_t n;
	const uint8_t *p = code_at(x, addr, &n);

	if (!p)
		return SHUNT_SITE_NONE;
	if (shunt_entry_endbr(p, n)) {
		p += 4;
		n -= 4;
		addr += 4;
	}
	out->site = addr;
	out->kind = SHUNT_SITE_CALL_FENTRY;
	out->len = call_len(x, p, n, addr);
	if (!out->len)
		out->kind = shunt_entry_nops(p, n, &out->len);
	return out->kind;
}

/* --- where does the function of a section's entry begin? ----------------- */

/* Whether nothing but NOPs lies between. */
static bool only_nops(const struct finder *x, uint64_t from, uint64_t to)
{
	size_t n;
	const uint8_t *p = code_at(x, from, &n);

	if (!p || to - from > n)
		return false;
	for (n = to - from; n;) {
		unsigned len = shunt_entry_nop(p, n);

		if (!len)
			return false;
		p += len;
		n -= len;
	}
	return true;
}

/*
 * Entries point at the function, behind its endbr64, or, with
 * -fpatchable-function-entry=N,M, M bytes before it.
 */
static uint32_t start_of_entry(const struct finder *x, uint64_t entry)
{
	const struct shunt_elf *e = x->elf;
	uint32_t i = start_before(e, entry), next = i == NO_START ? 0 : i + 1;
	const uint8_t *p;
	size_t n;

	if (i != NO_START && e->starts[i].addr == entry)
		return i;
	if (i != NO_START && entry - e->starts[i].addr == 4) {
		p = code_at(x, e->starts[i].addr, &n);
		if (p && shunt_entry_endbr(p, n))
			return i;
	}
	if (next < e->nstarts && e->starts[next].addr - entry <= UINT16_MAX
		&& only_nops(x, entry, e->starts[next].addr))
		return next;
	return NO_START;
}

static bool entry_site(struct finder *x, uint64_t entry, struct shunt_found *out)
{
	out->start = start_of_entry(x, entry);
	if (out->start != NO_START)
		return look(x, x->elf->starts[out->start].addr, out) != SHUNT_SITE_NONE;
	/* Where it begins is not known: several NOPs are not to be trusted. */
	return look(x, entry, out) != SHUNT_SITE_NONE && out->kind != SHUNT_SITE_NOP1x5;
}

/* --- both passes --------------------------------------------------------- */

static void take(struct finder *x, const struct shunt_found *found)
{
	x->shapes[found->kind][found->len / 8] |= (uint8_t)(1 << found->len % 8);
	x->f->found[x->f->n++] = *found;
}

static void by_section(struct finder *x)
{
	const struct shunt_elf *e = x->elf;

	for (size_t i = 0; i < e->nentries; i++) {
		struct shunt_found found = {0};

		if (i && e->entries[i] == e->entries[i - 1])
			continue;
		if (entry_site(x, e->entries[i], &found))
			take(x, &found);
		else
			x->f->refused++;
	}
}

static bool plain_nop5(const struct finder *x, const struct shunt_found *found)
{
	size_t n;
	const uint8_t *p = code_at(x, found->site, &n);

	return found->kind == SHUNT_SITE_NOP5 && p && !memcmp(p, "\x0f\x1f\x44\0\0", 5);
}

/* What the C runtime brings, which nobody compiles with anything. */
static bool is_runtime(const char *name)
{
	static const char *const names[] = {"_start", "_init", "_fini", "frame_dummy",
		"deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux",
		"_dl_relocate_static_pie", "__libc_csu_init", "__libc_csu_fini"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* Without any list: do at least half of the named functions begin so? */
static bool mostly_nop5(const struct finder *x)
{
	size_t all = 0, with = 0;

	for (size_t i = 0; i < x->elf->nstarts; i++) {
		const struct shunt_elf_start *s = &x->elf->starts[i];
		struct shunt_found found = {0};

		if (!s->name || !s->size || is_runtime(s->name))
			continue;
		all++;
		with += look(x, s->addr, &found) && plain_nop5(x, &found);
	}
	return with && (x->elf->profiled || with * 2 >= all);
}

static bool believable(const struct finder *x, const struct shunt_found *found, bool nop5)
{
	if (found->kind == SHUNT_SITE_CALL_FENTRY)
		return true;
	if (x->shapes[found->kind][found->len / 8] & 1 << found->len % 8)
		return true;
	return nop5 && plain_nop5(x, found);
}

static int by_site(const void *a, const void *b)
{
	const struct shunt_found *x = a, *y = b;

	if (x->site != y->site)
		return x->site < y->site ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* Shell's sort: no memory, and quick on what is nearly in order. */
static void sort(struct shunt_found *a, size_t n)
{
	for (size_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
		for (size_t i = gap; i < n; i++) {
			struct shunt_found v = a[i];
			size_t k = i;

			for (; k >= gap && by_site(&a[k - gap], &v) > 0; k -= gap)
				a[k] = a[k - gap];
			a[k] = v;
		}
}

static size_t unique(struct shunt_found *a, size_t n)
{
	size_t m = 0;

	sort(a, n);
	for (size_t i = 0; i < n; i++)
		if (!m || a[i].site - a[m - 1].site >= a[m - 1].len)
			a[m++] = a[i];
	return m;
}

static void by_code(struct finder *x)
{
	struct shunt_finding *f = x->f;
	size_t listed = f->n, k = 0;
	bool nop5 = !x->elf->has_section && mostly_nop5(x);

	for (size_t i = 0; i < x->elf->nstarts; i++) {
		struct shunt_found found = {.start = (uint32_t)i};

		if (!look(x, x->elf->starts[i].addr, &found))
			continue;
		while (k < listed && f->found[k].site < found.site)
			k++;
		if (k < listed && f->found[k].site == found.site)
			continue;
		if (!believable(x, &found, nop5))
			continue;
		f->missed += x->elf->has_section;
		f->found[f->n++] = found;
	}
}

void shunt_elf_find(const struct shunt_elf *elf, const struct shunt_code *code, size_t ncode,
	struct shunt_finding *f)
{
	struct finder x = {.elf = elf, .code = code, .ncode = ncode, .f = f};

	f->n = 0;
	f->missed = f->refused = 0;
	if (elf->nstarts >= NO_START)
		return;
	by_section(&x);
	f->n = unique(f->found, f->n);
	by_code(&x);
	f->n = unique(f->found, f->n);
}
