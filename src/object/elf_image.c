/* SPDX-License-Identifier: MIT */
/*
 * elf_image.c - reading an ELF file that may be damaged.
 *
 * elf_view.h says why no byte is read that is not there. All counts come from
 * sizes that it agreed to, so that memory and time are linear in the size of the
 * image.
 *
 * Why not libelf: this is a fifth of it, makes no global state in somebody
 * else's process, needs no other library there, and can be fuzzed as a whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "elf_image.h"
#include "elf_view.h"

/* More is not a file that a linker made: it keeps the time linear. */
#define MAX_TABLES 64

struct range {
	uint64_t addr;
	size_t first, n; /* in elf->entries */
};

struct reader {
	struct shunt_elf_view v;
	struct shunt_elf *elf;
	struct range *ranges;
	size_t nranges, room_ranges, room_starts, room_entries, room_slots;
};

/* --- symbols ------------------------------------------------------------- */

static int add_start(struct reader *r, struct shunt_elf_start s)
{
	struct shunt_elf *e = r->elf;
	void *p;

	if (s.addr < e->text_lo || s.addr >= e->text_hi)
		return 0;
	p = shunt_elf_more(e->starts, e->nstarts, &r->room_starts, sizeof *e->starts);
	if (!p)
		return -ENOMEM;
	e->starts = p;
	e->starts[e->nstarts++] = s;
	return 0;
}

static void note_symbol(struct shunt_elf *e, const Elf64_Sym *sym, const char *name)
{
	if (name && !strcmp(name, "__fentry__"))
		e->fentry = sym->st_value;
	if (name && !strcmp(name, "__cxa_demangle"))
		e->demangle = sym->st_value;
}

static int add_symbol(struct reader *r, const Elf64_Sym *sym, const struct shunt_elf_table *str)
{
	unsigned type = ELF64_ST_TYPE(sym->st_info), bind = ELF64_ST_BIND(sym->st_info);
	const char *name = shunt_elf_string(str, sym->st_name);
	uint8_t rank = bind == STB_GLOBAL ? 0 : bind == STB_WEAK ? 1 : 2;

	/* What only a program linked with -pg asks for; in .symtab with a version. */
	if (sym->st_shndx == SHN_UNDEF && name && !strncmp(name, "__monstartup", 12))
		r->elf->profiled = true;
	if (sym->st_shndx == SHN_UNDEF || sym->st_shndx == SHN_ABS)
		return 0;
	if (type != STT_FUNC && type != STT_GNU_IFUNC)
		return 0;
	if (type == STT_FUNC)
		note_symbol(r->elf, sym, name);
	if (name && !*name)
		name = NULL;
	return add_start(r, (struct shunt_elf_start){sym->st_value, sym->st_size, name,
				    name ? rank : 3});
}

static int read_symbols(struct reader *r, const Elf64_Shdr *sh)
{
	struct shunt_elf_table t, str;
	int err = 0;

	if (!shunt_elf_table_of(&r->v, sh, sizeof(Elf64_Sym), &t)
		|| !shunt_elf_table_at(&r->v, t.link, 1, &str))
		return 0;
	for (size_t i = 0; i < t.n && !err; i++) {
		Elf64_Sym sym;

		memcpy(&sym, t.at + i * sizeof sym, sizeof sym);
		err = add_symbol(r, &sym, &str);
	}
	return err;
}

/* Orders by address, 8 bits at a time from the lowest: linear, and stable. */
static int sort_starts(struct shunt_elf *e)
{
	struct shunt_elf_start *from = e->starts, *to, *tmp;
	uint64_t span = e->text_hi - e->text_lo;

	tmp = to = malloc(e->nstarts * sizeof *to);
	if (!tmp)
		return -ENOMEM;
	for (unsigned shift = 0; shift < 64 && span >> shift; shift += 8) {
		size_t at[256] = {0}, sum = 0;
		struct shunt_elf_start *swap = from;

		for (size_t i = 0; i < e->nstarts; i++)
			at[(from[i].addr - e->text_lo) >> shift & 255]++;
		for (size_t i = 0; i < 256; i++) {
			size_t n = at[i];

			at[i] = sum;
			sum += n;
		}
		for (size_t i = 0; i < e->nstarts; i++)
			to[at[(from[i].addr - e->text_lo) >> shift & 255]++] = from[i];
		from = to;
		to = swap;
	}
	if (from == tmp)
		memcpy(e->starts, tmp, e->nstarts * sizeof *tmp);
	free(tmp);
	return 0;
}

static bool is_better(const struct shunt_elf_start *a, const struct shunt_elf_start *b)
{
	if (a->rank != b->rank)
		return a->rank < b->rank;
	if (a->size != b->size)
		return a->size > b->size;
	return a->name && b->name && strcmp(a->name, b->name) < 0;
}

/* One start an address: the best name, and a size if any has one. */
static int merge_starts(struct shunt_elf *e)
{
	size_t n = 0;
	int err;

	if (!e->nstarts)
		return 0;
	err = sort_starts(e);
	for (size_t i = 0; i < e->nstarts && !err; i++) {
		struct shunt_elf_start *last = n ? &e->starts[n - 1] : NULL;
		struct shunt_elf_start s = e->starts[i];
		uint64_t size;

		if (!last || last->addr != s.addr) {
			e->starts[n++] = s;
			continue;
		}
		size = last->size ? last->size : s.size;
		if (is_better(&s, last))
			*last = s;
		if (!last->size)
			last->size = size;
	}
	e->nstarts = n;
	return err;
}

/* --- .eh_frame_hdr: where functions begin, also in a stripped file ------- */

static uint32_t fde_size(const struct shunt_elf_table *frames, uint64_t frames_addr,
	uint64_t fde, uint64_t start)
{
	uint32_t w[4]; /* length, CIE, pc_begin (relative to itself), pc_range */

	if (fde < frames_addr || fde - frames_addr > frames->n
		|| frames->n - (fde - frames_addr) < sizeof w)
		return 0;
	memcpy(w, frames->at + (fde - frames_addr), sizeof w);
	if (fde + 8 + (uint64_t)(int64_t)(int32_t)w[2] != start)
		return 0; /* another encoding */
	return w[3];
}

/* Both are in order: one walk tells which of these starts are new. */
static int read_frames(struct reader *r, const Elf64_Shdr *hdr, const Elf64_Shdr *frame)
{
	static const uint8_t usual[4] = {1, 0x1b, 0x03, 0x3b};
	struct shunt_elf *e = r->elf;
	struct shunt_elf_table t, frames = {0};
	size_t k = 0, known = e->nstarts;
	uint32_t n;
	int err = 0;

	if (!shunt_elf_table_of(&r->v, hdr, 1, &t) || t.n < 12 || memcmp(t.at, usual, 4))
		return 0;
	shunt_elf_table_of(&r->v, frame, 1, &frames);
	memcpy(&n, t.at + 8, 4);
	for (size_t i = 0; i < n && i < (t.n - 12) / 8 && !err; i++) {
		struct shunt_elf_start s = {.rank = 4};
		int32_t v[2];

		memcpy(v, t.at + 12 + i * 8, 8);
		s.addr = hdr->sh_addr + (uint64_t)(int64_t)v[0];
		while (k < known && e->starts[k].addr < s.addr)
			k++;
		if (k < known && e->starts[k].addr == s.addr && e->starts[k].size)
			continue;
		s.size = fde_size(&frames, frame->sh_addr,
			hdr->sh_addr + (uint64_t)(int64_t)v[1], s.addr);
		err = add_start(r, s);
	}
	return err || e->nstarts == known ? err : merge_starts(e);
}

/* --- entries, and what relocation will make of them ---------------------- */

static int read_entries(struct reader *r, const Elf64_Shdr *sh)
{
	struct shunt_elf *e = r->elf;
	struct shunt_elf_table t;
	void *p;

	if (!(sh->sh_flags & SHF_ALLOC) || !shunt_elf_table_of(&r->v, sh, 8, &t) || !t.n
		|| r->nranges == MAX_TABLES)
		return 0;
	e->has_section = true;
	p = shunt_elf_more(r->ranges, r->nranges, &r->room_ranges, sizeof *r->ranges);
	if (!p)
		return -ENOMEM;
	r->ranges = p;
	r->ranges[r->nranges++] = (struct range){sh->sh_addr, e->nentries, t.n};
	/* Damaged files may say the same bytes again and again. */
	if (e->nentries + t.n > r->v.size / 8)
		return -EBADMSG;
	p = realloc(e->entries, (e->nentries + t.n + 1) * 8);
	if (!p)
		return -ENOMEM;
	e->entries = p;
	memcpy(e->entries + e->nentries, t.at, t.n * 8);
	e->nentries += t.n;
	return 0;
}

static bool symbol(const struct reader *r, const struct shunt_elf_table *rela, uint64_t i,
	Elf64_Sym *sym, const char **name)
{
	struct shunt_elf_table syms, str;

	if (!shunt_elf_table_at(&r->v, rela->link, sizeof *sym, &syms) || i >= syms.n
		|| !shunt_elf_table_at(&r->v, syms.link, 1, &str))
		return false;
	memcpy(sym, syms.at + i * sizeof *sym, sizeof *sym);
	*name = shunt_elf_string(&str, sym->st_name);
	return true;
}

static uint64_t *entry_at(struct reader *r, uint64_t addr)
{
	for (size_t i = 0; i < r->nranges; i++) {
		uint64_t off = addr - r->ranges[i].addr;

		if (off % 8 == 0 && off / 8 < r->ranges[i].n)
			return &r->elf->entries[r->ranges[i].first + off / 8];
	}
	return NULL;
}

static int add_slot(struct reader *r, uint64_t slot)
{
	struct shunt_elf *e = r->elf;
	void *p = shunt_elf_more(e->slots, e->nslots, &r->room_slots, 8);

	if (!p)
		return -ENOMEM;
	e->slots = p;
	e->slots[e->nslots++] = slot;
	return 0;
}

static int apply(struct reader *r, const struct shunt_elf_table *t, const Elf64_Rela *rel)
{
	unsigned type = (unsigned)ELF64_R_TYPE(rel->r_info);
	uint64_t *entry = NULL;
	const char *name;
	Elf64_Sym sym;

	switch (type) {
	case R_X86_64_RELATIVE:
		entry = entry_at(r, rel->r_offset);
		if (entry)
			*entry = (uint64_t)rel->r_addend;
		return 0;
	case R_X86_64_64:
		entry = entry_at(r, rel->r_offset);
		if (entry && symbol(r, t, ELF64_R_SYM(rel->r_info), &sym, &name))
			*entry = sym.st_value + (uint64_t)rel->r_addend;
		return 0;
	case R_X86_64_GLOB_DAT:
	case R_X86_64_JUMP_SLOT:
		if (symbol(r, t, ELF64_R_SYM(rel->r_info), &sym, &name) && name
			&& !strcmp(name, "__fentry__"))
			return add_slot(r, rel->r_offset);
	}
	return 0;
}

static int read_relocations(struct reader *r, const Elf64_Shdr *sh)
{
	struct shunt_elf_table t;
	int err = 0;

	if (!(sh->sh_flags & SHF_ALLOC) || !shunt_elf_table_of(&r->v, sh, sizeof(Elf64_Rela), &t))
		return 0;
	for (size_t i = 0; i < t.n && !err; i++) {
		Elf64_Rela rel;

		memcpy(&rel, t.at + i * sizeof rel, sizeof rel);
		err = apply(r, &t, &rel);
	}
	return err;
}

/* --- notes --------------------------------------------------------------- */

unsigned shunt_elf_build_id(const uint8_t *p, size_t n, uint8_t *id)
{
	while (n >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr h;
		uint64_t name, desc;

		memcpy(&h, p, sizeof h);
		name = ((uint64_t)h.n_namesz + 3) & ~3ull;
		desc = ((uint64_t)h.n_descsz + 3) & ~3ull;
		if (name + desc > n - sizeof h)
			return 0;
		if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4
			&& !memcmp(p + sizeof h, "GNU", 4) && h.n_descsz
			&& h.n_descsz <= SHUNT_BUILD_ID_MAX) {
			memcpy(id, p + sizeof h + name, h.n_descsz);
			return h.n_descsz;
		}
		p += sizeof h + name + desc;
		n -= sizeof h + name + desc;
	}
	return 0;
}

/* --- the whole ----------------------------------------------------------- */

static int read_segments(struct reader *r)
{
	struct shunt_elf *e = r->elf;

	e->text_lo = UINT64_MAX;
	if (r->v.eh.e_phentsize != sizeof(Elf64_Phdr))
		return -EBADMSG;
	for (unsigned i = 0; i < r->v.eh.e_phnum; i++) {
		Elf64_Phdr ph;
		const uint8_t *p = shunt_elf_span(&r->v, r->v.eh.e_phoff, (i + 1ull) * sizeof ph);

		if (!p)
			return -EBADMSG;
		memcpy(&ph, p + i * sizeof ph, sizeof ph);
		if (ph.p_type == PT_LOAD && ph.p_flags & PF_X
			&& ph.p_vaddr + ph.p_memsz > ph.p_vaddr) {
			if (ph.p_vaddr < e->text_lo)
				e->text_lo = ph.p_vaddr;
			if (ph.p_vaddr + ph.p_memsz > e->text_hi)
				e->text_hi = ph.p_vaddr + ph.p_memsz;
		}
		if (ph.p_type == PT_NOTE && !e->build_id_len
			&& (p = shunt_elf_span(&r->v, ph.p_offset, ph.p_filesz)))
			e->build_id_len = shunt_elf_build_id(p, ph.p_filesz, e->build_id);
	}
	return e->text_hi ? 0 : -ENOEXEC;
}

static bool is_entry_section(const struct reader *r, const Elf64_Shdr *sh)
{
	return shunt_elf_named(&r->v, sh, "__patchable_function_entries")
		|| shunt_elf_named(&r->v, sh, "__mcount_loc");
}

/* Entries before relocations; .symtab, or else .dynsym. */
static int read_sections(struct reader *r)
{
	Elf64_Shdr sh, frame = {0}, hdr = {0};
	bool symtab = false, symbols = false;
	unsigned relocations = 0;
	int err = 0;

	for (uint32_t i = 0; shunt_elf_section(&r->v, i, &sh) && !err; i++) {
		symtab |= sh.sh_type == SHT_SYMTAB;
		if (is_entry_section(r, &sh))
			err = read_entries(r, &sh);
		if (shunt_elf_named(&r->v, &sh, ".eh_frame"))
			frame = sh;
		else if (shunt_elf_named(&r->v, &sh, ".eh_frame_hdr"))
			hdr = sh;
	}
	for (uint32_t i = 0; shunt_elf_section(&r->v, i, &sh) && !err; i++) {
		if (sh.sh_type == SHT_RELA && relocations < MAX_TABLES) {
			err = read_relocations(r, &sh);
			relocations += !!(sh.sh_flags & SHF_ALLOC);
		} else if (sh.sh_type == (symtab ? SHT_SYMTAB : SHT_DYNSYM) && !symbols) {
			err = read_symbols(r, &sh);
			symbols = true;
		}
	}
	err = err ? err : merge_starts(r->elf);
	/* Without a sign of entries nothing asks where nameless functions begin. */
	if (err || !(r->elf->has_section || r->elf->nslots || r->elf->fentry))
		return err;
	return read_frames(r, &hdr, &frame);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int shunt_elf_parse(const void *image, size_t size, struct shunt_elf *elf)
{
	struct reader r = {.elf = elf};
	int err;

	memset(elf, 0, sizeof *elf);
	err = shunt_elf_open(&r.v, image, size);
	err = err ? err : read_segments(&r);
	err = err ? err : read_sections(&r);
	free(r.ranges);
	if (err) {
		shunt_elf_free(elf);
		return err;
	}
	if (elf->nentries)
		qsort(elf->entries, elf->nentries, 8, by_value);
	if (elf->nslots)
		qsort(elf->slots, elf->nslots, 8, by_value);
	return 0;
}

void shunt_elf_free(struct shunt_elf *elf)
{
	free(elf->starts);
	free(elf->entries);
	free(elf->slots);
	memset(elf, 0, sizeof *elf);
}
