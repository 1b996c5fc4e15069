/* SPDX-License-Identifier: MIT */
/*
 * elf_code.c - collecting what a file says about its functions.
 *
 * Nothing is decided here: symbols, frames and relocations are gathered as they
 * come, and code_list.c makes one list of them. Time and memory are linear in the
 * size of the image; elf_view.h says why no byte is read that is not there.
 */
#include <stdlib.h>

#include "elf_code.h"
#include "elf_image.h"
#include "elf_view.h"

#define MAX_TABLES 64 /* more is not a file that a linker made: it keeps the time linear */

static int push(uint64_t **array, size_t *n, size_t *have, uint64_t value)
{
	uint64_t *p = shunt_elf_more(*array, *n, have, sizeof **array);

	if (!p)
		return -ENOMEM;
	*array = p;
	p[(*n)++] = value;
	return 0;
}

const struct shunt_elf_part *shunt_elf_part_of(const struct shunt_elf_code *c, uint64_t addr)
{
	for (unsigned i = 0; i < c->nparts; i++)
		if (addr - c->parts[i].lo < c->parts[i].hi - c->parts[i].lo)
			return &c->parts[i];
	return NULL;
}

int shunt_elf_code_say(struct shunt_elf_code *c, struct shunt_elf_said s)
{
	const struct shunt_elf_part *part = shunt_elf_part_of(c, s.addr);
	struct shunt_elf_said *p;

	if (!part)
		return 0;
	p = shunt_elf_more(c->said, c->nsaid, &c->room_said, sizeof *c->said);
	if (!p)
		return -ENOMEM;
	if (part->linker)
		s.flags |= SHUNT_CODE_LINKER;
	c->said = p;
	p[c->nsaid++] = s;
	return 0;
}

int shunt_elf_code_pad(struct shunt_elf_code *c, uint64_t addr)
{
	return push(&c->pads, &c->npads, &c->room_pads, addr);
}

/* --- symbols ------------------------------------------------------------- */

/* .cold, .cold.1: jumped to; .part.0: called. */
static uint16_t by_name(const char *name, size_t len)
{
	const char *p = memchr(name, '.', len);
	uint16_t flags = 0;

	for (; p; p = memchr(p + 1, '.', len - (size_t)(p + 1 - name))) {
		size_t left = len - (size_t)(p - name);

		if (left >= 5 && !memcmp(p, ".cold", 5) && (left == 5 || p[5] == '.'))
			flags |= SHUNT_CODE_COLD;
		if (left > 6 && !memcmp(p, ".part.", 6))
			flags |= SHUNT_CODE_PART;
	}
	return flags;
}

/*
 * In .symtab versions are part of the name: f@@V is what one links against, f@V an old
 * one. In .dynsym they are in a table beside it, whose bit 15 says "old".
 */
static void name_symbol(struct shunt_elf_said *s, bool old)
{
	const char *at = s->len ? memchr(s->name + 1, '@', s->len - 1) : NULL;

	if (at) {
		old |= at[1] != '@';
		s->len = (uint32_t)(at - s->name);
	}
	if (old)
		s->rank = SHUNT_CODE_OLD;
	s->flags |= by_name(s->name, s->len);
}

static int say_symbol(struct shunt_elf_code *c, const Elf64_Sym *sym, const char *name, bool old,
	uint16_t from)
{
	unsigned type = ELF64_ST_TYPE(sym->st_info), bind = ELF64_ST_BIND(sym->st_info);
	struct shunt_elf_said s = {.addr = sym->st_value, .size = sym->st_size, .flags = from,
		.rank = SHUNT_CODE_NAMELESS};

	if (sym->st_shndx == SHN_UNDEF || sym->st_shndx == SHN_ABS
		|| (type != STT_FUNC && type != STT_GNU_IFUNC))
		return 0;
	if (type == STT_GNU_IFUNC)
		s.flags |= SHUNT_CODE_IFUNC;
	if (name && *name) {
		s.name = name;
		s.len = (uint32_t)strlen(name);
		s.rank = bind == STB_LOCAL ? SHUNT_CODE_LOCAL
			: bind == STB_WEAK ? SHUNT_CODE_WEAK : SHUNT_CODE_GLOBAL;
		name_symbol(&s, old);
	}
	return shunt_elf_code_say(c, s);
}

static int read_symbols(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	const struct shunt_elf_table *versions, struct shunt_elf_code *c, uint16_t from)
{
	struct shunt_elf_table t, str;
	int err = 0;

	if (!shunt_elf_table_of(v, sh, sizeof(Elf64_Sym), &t)
		|| !shunt_elf_table_at(v, t.link, 1, &str))
		return 0;
	c->strings += str.n;
	for (size_t i = 0; i < t.n && !err; i++) {
		Elf64_Half version = 0;
		Elf64_Sym sym;

		memcpy(&sym, t.at + i * sizeof sym, sizeof sym);
		if (versions && i < versions->n)
			memcpy(&version, versions->at + i * sizeof version, sizeof version);
		err = say_symbol(c, &sym, shunt_elf_string(&str, sym.st_name), version >> 15,
			from);
	}
	return err;
}

/* --- segments and sections ------------------------------------------------- */

static int read_segments(const struct shunt_elf_view *v, struct shunt_elf_code *c)
{
	c->text_lo = UINT64_MAX;
	if (v->eh.e_phentsize != sizeof(Elf64_Phdr) || v->eh.e_phoff > v->size)
		return -EBADMSG;
	for (unsigned i = 0; i < v->eh.e_phnum; i++) {
		const uint8_t *p = shunt_elf_span(v, v->eh.e_phoff, (i + 1ull) * sizeof(Elf64_Phdr));
		Elf64_Phdr ph;

		if (!p)
			return -EBADMSG;
		memcpy(&ph, p + i * sizeof ph, sizeof ph);
		if (ph.p_type == PT_LOAD && ph.p_flags & PF_X
			&& ph.p_vaddr + ph.p_memsz > ph.p_vaddr) {
			if (ph.p_vaddr < c->text_lo)
				c->text_lo = ph.p_vaddr;
			if (ph.p_vaddr + ph.p_memsz > c->text_hi)
				c->text_hi = ph.p_vaddr + ph.p_memsz;
		}
		if (ph.p_type == PT_NOTE && !c->build_id_len
			&& (p = shunt_elf_span(v, ph.p_offset, ph.p_filesz)))
			c->build_id_len = shunt_elf_build_id(p, ph.p_filesz, c->build_id);
	}
	return c->text_hi ? 0 : -ENOEXEC;
}

static void add_part(struct shunt_elf_code *c, uint64_t lo, uint64_t hi, bool linker)
{
	lo = lo < c->text_lo ? c->text_lo : lo;
	hi = hi > c->text_hi ? c->text_hi : hi;
	if (lo < hi && c->nparts < SHUNT_ELF_PARTS)
		c->parts[c->nparts++] = (struct shunt_elf_part){lo, hi, linker};
}

static void read_parts(const struct shunt_elf_view *v, struct shunt_elf_code *c)
{
	static const char *const made[] = {".plt", ".plt.got", ".plt.sec", ".plt.bnd", ".iplt",
		".init", ".fini"};
	Elf64_Shdr sh;

	for (uint32_t i = 0; shunt_elf_section(v, i, &sh); i++) {
		bool linker = false;

		if ((sh.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) != (SHF_ALLOC | SHF_EXECINSTR)
			|| sh.sh_addr + sh.sh_size < sh.sh_addr)
			continue;
		for (size_t k = 0; k < sizeof made / sizeof *made; k++)
			linker |= shunt_elf_named(v, &sh, made[k]);
		add_part(c, sh.sh_addr, sh.sh_addr + sh.sh_size, linker);
	}
	if (!c->nparts) /* a file without sections */
		add_part(c, c->text_lo, c->text_hi, false);
}

static void read_dynamic(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	struct shunt_elf_code *c)
{
	struct shunt_elf_table t, str;
	const char *name;

	if (!shunt_elf_table_of(v, sh, sizeof(Elf64_Dyn), &t)
		|| !shunt_elf_table_at(v, t.link, 1, &str))
		return;
	for (size_t i = 0; i < t.n; i++) {
		Elf64_Dyn d;

		memcpy(&d, t.at + i * sizeof d, sizeof d);
		if (d.d_tag == DT_SONAME && (name = shunt_elf_string(&str, d.d_un.d_val))
			&& strlen(name) < sizeof c->soname)
			strcpy(c->soname, name);
	}
}

static void read_debuglink(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	struct shunt_elf_code *c)
{
	struct shunt_elf_table t;
	const char *name;
	size_t n;

	if (!shunt_elf_table_of(v, sh, 1, &t) || !(name = shunt_elf_string(&t, 0)))
		return;
	n = (strlen(name) + 4) & ~3ul;
	if (n + 4 > t.n || n > sizeof c->debuglink)
		return;
	strcpy(c->debuglink, name);
	memcpy(&c->debuglink_crc, t.at + n, 4);
}

/* What an IFUNC's resolver chose is put into a slot, also in a static program. */
static int read_choices(const struct shunt_elf_view *v, const Elf64_Shdr *sh,
	struct shunt_elf_code *c)
{
	struct shunt_elf_table t;
	int err = 0;

	if (!(sh->sh_flags & SHF_ALLOC) || !shunt_elf_table_of(v, sh, sizeof(Elf64_Rela), &t))
		return 0;
	for (size_t i = 0; i < t.n && !err; i++) {
		Elf64_Rela rel;

		memcpy(&rel, t.at + i * sizeof rel, sizeof rel);
		if (ELF64_R_TYPE(rel.r_info) != R_X86_64_IRELATIVE)
			continue;
		err = push(&c->slots, &c->nslots, &c->room_slots, (uint64_t)rel.r_addend);
		err = err ? err : push(&c->slots, &c->nslots, &c->room_slots, rel.r_offset);
	}
	return err;
}

static struct shunt_elf_bytes bytes_of(const struct shunt_elf_view *v, const char *name)
{
	struct shunt_elf_table t;
	Elf64_Shdr sh;

	for (uint32_t i = 0; shunt_elf_section(v, i, &sh); i++)
		if (shunt_elf_named(v, &sh, name) && shunt_elf_table_of(v, &sh, 1, &t))
			return (struct shunt_elf_bytes){t.at, sh.sh_addr, t.n};
	return (struct shunt_elf_bytes){0};
}

/* The table of versions beside .dynsym. */
static bool versions_of(const struct shunt_elf_view *v, struct shunt_elf_table *t)
{
	Elf64_Shdr sh;

	for (uint32_t i = 0; shunt_elf_section(v, i, &sh); i++)
		if (sh.sh_type == SHT_GNU_versym)
			return shunt_elf_table_of(v, &sh, sizeof(Elf64_Half), t);
	return false;
}

static int read_sections(const struct shunt_elf_view *v, struct shunt_elf_code *c)
{
	struct shunt_elf_table versions;
	bool versioned = versions_of(v, &versions), symtab = false, dynsym = false;
	unsigned relocations = 0;
	Elf64_Shdr sh;
	int err = 0;

	for (uint32_t i = 0; shunt_elf_section(v, i, &sh) && !err; i++) {
		if (sh.sh_type == SHT_SYMTAB && !symtab) {
			err = read_symbols(v, &sh, NULL, c, SHUNT_CODE_SYMTAB);
			symtab = true;
		} else if (sh.sh_type == SHT_DYNSYM && !dynsym) {
			err = read_symbols(v, &sh, versioned ? &versions : NULL, c,
				SHUNT_CODE_DYNSYM);
			dynsym = true;
		} else if (sh.sh_type == SHT_RELA && relocations++ < MAX_TABLES) {
			err = read_choices(v, &sh, c);
		} else if (sh.sh_type == SHT_DYNAMIC && !c->soname[0]) {
			read_dynamic(v, &sh, c);
		} else if (!c->debuglink[0] && shunt_elf_named(v, &sh, ".gnu_debuglink")) {
			read_debuglink(v, &sh, c);
		}
	}
	return err;
}

/* --- the whole ----------------------------------------------------------- */

int shunt_elf_code_read(const void *image, size_t size, struct shunt_elf_code *c)
{
	struct shunt_elf_bytes frames, lsda;
	struct shunt_elf_view v;
	int err;

	memset(c, 0, sizeof *c);
	err = shunt_elf_open(&v, image, size);
	err = err ? err : read_segments(&v, c);
	if (!err) {
		read_parts(&v, c);
		err = read_sections(&v, c);
	}
	if (!err) {
		frames = bytes_of(&v, ".eh_frame");
		lsda = bytes_of(&v, ".gcc_except_table");
		err = shunt_elf_frames(c, &frames, &lsda);
	}
	if (err)
		shunt_elf_code_free(c);
	return err;
}

unsigned shunt_elf_code_build_id(const void *image, size_t size, uint8_t *id)
{
	struct shunt_elf_code c = {0};
	struct shunt_elf_view v;

	if (shunt_elf_open(&v, image, size) || read_segments(&v, &c))
		return 0;
	memcpy(id, c.build_id, sizeof c.build_id);
	return c.build_id_len;
}

int shunt_elf_code_add_debug(const void *image, size_t size, struct shunt_elf_code *c)
{
	struct shunt_elf_view v;
	Elf64_Shdr sh;
	int err = shunt_elf_open(&v, image, size);

	for (uint32_t i = 0; !err && shunt_elf_section(&v, i, &sh); i++)
		if (sh.sh_type == SHT_SYMTAB)
			return read_symbols(&v, &sh, NULL, c, SHUNT_CODE_DEBUG);
	return err;
}

void shunt_elf_code_free(struct shunt_elf_code *c)
{
	free(c->said);
	free(c->pads);
	free(c->slots);
	memset(c, 0, sizeof *c);
}

/* --- who imports a symbol --------------------------------------------------- */

static bool binds(const struct shunt_elf_view *v, const struct shunt_elf_table *rela,
	const Elf64_Rela *rel, const char *name)
{
	unsigned type = (unsigned)ELF64_R_TYPE(rel->r_info);
	struct shunt_elf_table syms, str;
	uint64_t i = ELF64_R_SYM(rel->r_info);
	const char *s;
	Elf64_Sym sym;

	if (type != R_X86_64_GLOB_DAT && type != R_X86_64_JUMP_SLOT
		&& (type != R_X86_64_64 || rel->r_addend))
		return false;
	if (!shunt_elf_table_at(v, rela->link, sizeof sym, &syms) || i >= syms.n
		|| !shunt_elf_table_at(v, syms.link, 1, &str))
		return false;
	memcpy(&sym, syms.at + i * sizeof sym, sizeof sym);
	s = shunt_elf_string(&str, sym.st_name);
	return s && !strcmp(s, name);
}

size_t shunt_elf_code_imports(const void *image, size_t size, const char *name,
	uint64_t *slot, size_t max)
{
	unsigned relocations = 0;
	struct shunt_elf_table t;
	struct shunt_elf_view v;
	Elf64_Shdr sh;
	size_t n = 0;

	if (shunt_elf_open(&v, image, size))
		return 0;
	for (uint32_t i = 0; shunt_elf_section(&v, i, &sh); i++) {
		if (sh.sh_type != SHT_RELA || !(sh.sh_flags & SHF_ALLOC)
			|| ++relocations > MAX_TABLES
			|| !shunt_elf_table_of(&v, &sh, sizeof(Elf64_Rela), &t))
			continue;
		for (size_t k = 0; k < t.n && n < max; k++) {
			Elf64_Rela rel;

			memcpy(&rel, t.at + k * sizeof rel, sizeof rel);
			if (binds(&v, &t, &rel, name))
				slot[n++] = rel.r_offset;
		}
	}
	return n;
}
