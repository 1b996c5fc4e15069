/* SPDX-License-Identifier: MIT */
/*
 * object.c - the list of loaded objects, and keeping it true.
 *
 * A refresh goes in three steps, because files must not be read with the
 * loader's lock held, and code must not be read without it:
 *   1. see: under the loader's lock, note what is loaded; no memory is
 *      allocated there (an allocator may itself be waiting for that lock);
 *   2. read: without it, parse the files of what is new;
 *   3. commit: under the lock again, an object that is still the same one
 *      (address, program headers, name, build-id) has its sites looked up in
 *      memory. Whatever changed in between is left to the next round.
 * So no byte of an object is read while it could be unmapped, and a site is
 * only believed if memory holds what its file promises.
 *
 * A file is trusted if its build-id is the one in memory; without a build-id,
 * if it is the inode that is mapped, or has the same program headers.
 *
 * dl_iterate_phdr() counts loads and unloads, so that "nothing changed" costs
 * one callback. Objects, functions and names are never freed: ids stay
 * resolvable. So that a plugin that is loaded a million times does not cost a
 * million tables, an object that comes back with the same content at the same
 * address shares the tables of its predecessor (`twin`) and only gets new ids.
 */
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/log.h"
#include "elf_file.h"
#include "elf_image.h"
#include "object.h"
#include "object_internal.h"

#define MAX_CODE   16
#define ROUNDS	   8	/* of a refresh that others disturb */
#define MAX_ROUNDS 1000 /* of shunt_objects_while_loaded */

/* An object as the loader shows it. */
struct seen {
	uintptr_t base, text_lo, text_hi;
	uint64_t signature, headers;
	uint8_t build_id[SHUNT_BUILD_ID_MAX];
	unsigned build_id_len;
	unsigned ncode;
	struct shunt_code code[MAX_CODE];
	struct shunt_object *known;
	/* Filled in between the two looks, for a new one. */
	struct shunt_object *made, *twin;
	struct shunt_file file;
	struct shunt_elf elf;
	struct shunt_finding finding;
	bool committed;
};

static struct {
	pthread_mutex_t lock;
	unsigned depth; /* of the lock, */
	int cancel;	/* and whether its holder can be cancelled otherwise: files are read under it */
	struct shunt_object *first, **end;
	struct shunt_object **by_id; /* those with functions */
	size_t n_by_id, room_by_id;
	struct shunt_object **live;
	size_t nlive, room_live;
	struct shunt_object_listener *listeners;
	struct seen *seen;
	size_t nseen, room;
	unsigned long long adds, subs; /* as of the last complete look */
	bool looked, in_loader, busy;
	uint32_t next_object, next_func;
	uintptr_t vdso;
} all = {
	.lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
	.end = &all.first,
};

char *(*shunt_object_demangler)(const char *, char *, size_t *, int *);

/* --- the lock ------------------------------------------------------------ */

struct shunt_object *shunt_objects_lock(void)
{
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&all.lock);
	if (!all.depth++)
		all.cancel = cancel;
	return all.first;
}

void shunt_objects_unlock(void)
{
	bool last = !--all.depth;
	int cancel = all.cancel;

	pthread_mutex_unlock(&all.lock);
	if (last)
		pthread_setcancelstate(cancel, NULL);
}

struct shunt_object *shunt_objects_first(void)
{
	return __atomic_load_n(&all.first, __ATOMIC_ACQUIRE);
}

static void fork_prepare(void)
{
	shunt_objects_lock();
}

/* A recursive mutex knows its owner by a thread id that the child has not. */
static void fork_child(void)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&all.lock, &a);
	pthread_mutexattr_destroy(&a);
	all.depth = 0;
	pthread_setcancelstate(all.cancel, NULL);
}

/*
 * Held over fork, so that the child finds the list whole, and the loader's list
 * lock (which glibc does not reset in a child) is not held by a thread of ours.
 * Handlers run last-registered first: who has an outer lock calls this before
 * registering its own. A constructor is for those who have none.
 */
__attribute__((constructor)) void shunt_objects_at_fork(void)
{
	static bool done;

	if (!__atomic_exchange_n(&done, true, __ATOMIC_SEQ_CST))
		pthread_atfork(fork_prepare, shunt_objects_unlock, fork_child);
}

void shunt_object_listen(struct shunt_object_listener *l)
{
	shunt_objects_lock();
	l->next = all.listeners;
	all.listeners = l;
	shunt_objects_unlock();
}

/* --- step 1: what does the loader show? ---------------------------------- */

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

static uint64_t hash_headers(const void *headers, size_t n)
{
	return hash(0xcbf29ce484222325ull, headers, n * sizeof(Elf64_Phdr));
}

/* Notes that no readable segment holds are not in memory. */
static bool is_loaded(const struct dl_phdr_info *info, const ElfW(Phdr) *note)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uint64_t off = note->p_vaddr - ph->p_vaddr;

		if (ph->p_type == PT_LOAD && ph->p_flags & PF_R && off <= ph->p_filesz
			&& note->p_filesz <= ph->p_filesz - off)
			return true;
	}
	return false;
}

static void see_segment(struct seen *s, const struct dl_phdr_info *info, const ElfW(Phdr) *ph)
{
	const uint8_t *at = (const uint8_t *)s->base + ph->p_vaddr;
	uintptr_t lo = s->base + ph->p_vaddr, hi = lo + ph->p_memsz;

	if (ph->p_type == PT_NOTE && !s->build_id_len && is_loaded(info, ph))
		s->build_id_len = shunt_elf_build_id(at, ph->p_filesz, s->build_id);
	if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) || !ph->p_filesz)
		return;
	if (s->ncode < MAX_CODE)
		s->code[s->ncode++] = (struct shunt_code){at, ph->p_vaddr, ph->p_filesz};
	if (!s->text_hi || lo < s->text_lo)
		s->text_lo = lo;
	if (hi > s->text_hi)
		s->text_hi = hi;
}

static bool see_object(struct seen *s, const struct dl_phdr_info *info)
{
	memset(s, 0, sizeof *s);
	s->base = info->dlpi_addr;
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		see_segment(s, info, &info->dlpi_phdr[i]);
	s->headers = s->signature = hash_headers(info->dlpi_phdr, info->dlpi_phnum);
	if (info->dlpi_name)
		s->signature = hash(s->signature, info->dlpi_name, strlen(info->dlpi_name));
	return s->text_hi && !(all.vdso - s->text_lo < s->text_hi - s->text_lo);
}

static bool same(const struct shunt_object *o, const struct seen *s)
{
	return o->base == s->base && o->signature == s->signature
		&& o->text_lo == s->text_lo && o->build_id_len == s->build_id_len
		&& !memcmp(o->build_id, s->build_id, s->build_id_len);
}

static bool intact(const struct shunt_object *o)
{
	for (struct shunt_object_listener *l = all.listeners; l; l = l->next)
		if (l->intact && !l->intact(o, l->data))
			return false;
	return true;
}

struct look {
	unsigned long long adds, subs;
	size_t n;
	bool unloaded; /* since the last time */
	bool first;
};

static void find_known(struct look *k, struct seen *s)
{
	for (size_t i = 0; i < all.nlive; i++)
		if (same(all.live[i], s)) {
			if (!k->unloaded || intact(all.live[i]))
				s->known = all.live[i];
			return;
		}
}

static int look_one(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct look *k = arg;

	(void)size;
	if (k->first) {
		k->first = false;
		k->adds = info->dlpi_adds;
		k->subs = info->dlpi_subs;
		if (all.looked && k->adds == all.adds && k->subs == all.subs)
			return 1;
		k->unloaded = k->subs != all.subs;
	}
	if (k->n < all.room && see_object(&all.seen[k->n], info)) {
		find_known(k, &all.seen[k->n]);
		k->n++;
	} else if (k->n >= all.room) {
		k->n = all.room + 1;
		return 2;
	}
	return 0;
}

/* 1: nothing changed; 0: all.seen says what there is; -ENOMEM. */
static int look(struct look *k)
{
	for (;;) {
		size_t room = all.room ? all.room * 2 : 64;
		struct seen *p;
		int r;

		*k = (struct look){.first = true};
		r = dl_iterate_phdr(look_one, k);
		if (r < 2) {
			all.nseen = r ? 0 : k->n;
			return r;
		}
		p = realloc(all.seen, room * sizeof *p);
		if (!p)
			return -ENOMEM;
		all.seen = p;
		all.room = room;
	}
}

/* --- step 2: what do the files say? --------------------------------------- */

bool shunt_object_is_file(const struct shunt_object *o, const struct shunt_file *file,
	const uint8_t *id, unsigned id_len)
{
	Elf64_Ehdr eh;

	if (o->build_id_len)
		return id_len == o->build_id_len && !memcmp(id, o->build_id, id_len);
	if (file->dev == o->dev && file->ino == o->ino)
		return true;
	/* Some file systems report other numbers: the headers are in the signature. */
	memcpy(&eh, file->image, sizeof eh);
	return !id_len && hash_headers(file->image + eh.e_phoff, eh.e_phnum) == o->headers;
}

static bool read_from(struct seen *s, const struct shunt_object *o, const char *path)
{
	if (shunt_file_read(path, &s->file))
		return false;
	if (!shunt_elf_parse(s->file.image, s->file.size, &s->elf)) {
		if (shunt_object_is_file(o, &s->file, s->elf.build_id, s->elf.build_id_len))
			return true;
		shunt_elf_free(&s->elf);
	}
	shunt_file_free(&s->file);
	return false;
}

/* The file by its name, or, where that is another one by now, by the mapping. */
static void read_object(struct seen *s, struct shunt_object *o, const struct shunt_map *m)
{
	char link[64];

	snprintf(link, sizeof link, "/proc/self/map_files/%lx-%lx", m->lo, m->hi);
	if (!read_from(s, o, o->path) && !read_from(s, o, link)) {
		o->why = "its file cannot be read, or is not what is loaded";
		shunt_log(SHUNT_LOG_INFO, "%s: %s", o->path, o->why);
		return;
	}
	s->finding.found = calloc(shunt_elf_room(&s->elf), sizeof *s->finding.found);
	if (!s->finding.found)
		o->why = "no memory";
}

static char *clean_path(const char *path)
{
	static const char deleted[] = " (deleted)";
	size_t n = strlen(path), tail = sizeof deleted - 1;

	if (n > tail && !strcmp(path + n - tail, deleted))
		n -= tail;
	return strndup(path, n);
}

static struct shunt_object *find_twin(const struct seen *s, const struct shunt_object *made)
{
	for (struct shunt_object *o = all.first; o; o = o->next)
		if (o->gone && !o->of && o->nfuncs && same(o, s) && o->dev == made->dev
			&& o->ino == made->ino && !strcmp(o->path, made->path))
			return o;
	return NULL;
}

static int prepare(struct seen *s, const struct shunt_maps *maps, bool twins)
{
	static const struct shunt_map none = {.path = ""};
	const struct shunt_map *m = shunt_maps_at(maps, s->text_lo);
	struct shunt_object *o = calloc(1, sizeof *o);

	m = m ? m : &none;
	if (!o || !(o->path = clean_path(m->path))) {
		free(o);
		return -ENOMEM;
	}
	o->base = s->base;
	o->text_lo = s->text_lo;
	o->text_hi = s->text_hi;
	o->dev = m->dev;
	o->ino = m->ino;
	o->signature = s->signature;
	o->headers = s->headers;
	o->build_id_len = s->build_id_len;
	memcpy(o->build_id, s->build_id, sizeof o->build_id);
	s->made = o;
	s->twin = twins ? find_twin(s, o) : NULL;
	if (s->twin)
		return 0;
	if (shunt_maps_readable(maps, s->text_lo, s->text_hi))
		read_object(s, o, m);
	else
		o->why = "its code cannot be read";
	return 0;
}

static int prepare_new(bool twins)
{
	struct shunt_maps maps = {0};
	size_t n = 0;
	int r;

	for (size_t i = 0; i < all.nseen; i++)
		n += !all.seen[i].known;
	if (!n)
		return 0;
	r = shunt_maps_read(&maps);
	/* What goes by: later they can be looked at. */
	if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return r;
	if (r)
		shunt_log(SHUNT_LOG_WARNING, "cannot read /proc/thread-self/maps: error %d", -r);
	r = 0;
	for (size_t i = 0; i < all.nseen && !r; i++)
		if (!all.seen[i].known)
			r = prepare(&all.seen[i], &maps, twins);
	shunt_maps_free(&maps);
	return r;
}

/* --- step 3: still the same? then look at the code ----------------------- */

/* Whether memory holds at each site what its predecessor held when new. */
static bool like_twin(const struct seen *s)
{
	const struct shunt_object *t = s->twin;

	for (uint32_t i = 0; i < t->nfuncs; i++) {
		const struct shunt_func *f = &t->funcs[i];
		const uint8_t *p = (const uint8_t *)f->site;
		struct shunt_entry_branch b;
		uint8_t len;

		if (f->kind == SHUNT_SITE_CALL_FENTRY
				? !shunt_entry_call(p, f->len, 0, &b) || b.len != f->len
				: shunt_entry_nops(p, s->text_hi - f->site, &len) != f->kind
					|| len != f->len)
			return false;
	}
	return true;
}

static void commit(struct seen *s)
{
	s->committed = true;
	if (s->twin && !like_twin(s))
		s->committed = false;
	if (s->finding.found)
		shunt_elf_find(&s->elf, s->code, s->ncode, &s->finding);
}

static int commit_one(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct seen now;

	(void)size;
	(void)arg;
	if (!see_object(&now, info))
		return 0;
	for (size_t i = 0; i < all.nseen; i++) {
		struct seen *s = &all.seen[i];

		if (s->made && !s->committed && same(s->made, &now)) {
			commit(s);
			return 0;
		}
	}
	return 0;
}

/* --- and into the list ---------------------------------------------------- */

static uint32_t intern(char *strings, size_t *at, const char *name)
{
	uint32_t off = (uint32_t)*at;
	size_t n;

	if (!name)
		return 0;
	n = strlen(name) + 1;
	memcpy(strings + *at, name, n);
	*at += n;
	return off;
}

static size_t names_size(const struct seen *s)
{
	size_t n = 1;

	for (size_t i = 0; i < s->finding.n; i++) {
		uint32_t k = s->finding.found[i].start;

		if (k != UINT32_MAX && s->elf.starts[k].name)
			n += strlen(s->elf.starts[k].name) + 1;
	}
	return n;
}

static void make_func(struct shunt_object *o, const struct seen *s, size_t i, size_t *at)
{
	const struct shunt_found *found = &s->finding.found[i];
	struct shunt_func *f = &o->funcs[i];
	const struct shunt_elf_start *st;

	f->site = f->start = o->base + found->site;
	f->kind = found->kind;
	f->len = found->len;
	if (found->start == UINT32_MAX)
		return;
	st = &s->elf.starts[found->start];
	f->start = o->base + st->addr;
	f->size = st->size > UINT32_MAX ? 0 : (uint32_t)st->size;
	f->name = intern(o->strings, at, st->name);
}

static int make_funcs(struct shunt_object *o, const struct seen *s)
{
	size_t names = names_size(s), at = 1;

	o->missed = s->finding.missed;
	o->refused = s->finding.refused;
	if (!s->finding.n || names > UINT32_MAX)
		return 0;
	o->funcs = calloc(s->finding.n, sizeof *o->funcs);
	o->strings = malloc(names);
	if (!o->funcs || !o->strings)
		return -ENOMEM;
	o->strings[0] = 0;
	for (size_t i = 0; i < s->finding.n; i++)
		make_func(o, s, i, &at);
	o->nfuncs = (uint32_t)s->finding.n;
	return 0;
}

/* Room for one more. */
static int push(struct shunt_object ***array, size_t *n, size_t *room, struct shunt_object *o)
{
	size_t want = *room ? *room * 2 : 64;
	struct shunt_object **p;

	if (*n == *room) {
		p = realloc(*array, want * sizeof *p);
		if (!p)
			return -ENOMEM;
		*array = p;
		*room = want;
	}
	(*array)[(*n)++] = o;
	return 0;
}

static int give_ids(struct shunt_object *o)
{
	int r;

	o->first_id = all.next_func;
	if (!o->nfuncs)
		return 0;
	if (o->nfuncs > SHUNT_FUNC_IDS - all.next_func) {
		o->why = "no function ids are left";
		o->nfuncs = 0;
		shunt_log(SHUNT_LOG_WARNING, "%s: %s", o->path, o->why);
		return 0;
	}
	r = push(&all.by_id, &all.n_by_id, &all.room_by_id, o);
	if (!r)
		all.next_func += o->nfuncs;
	return r;
}

static void append(struct shunt_object *o)
{
	o->id = all.next_object++;
	/* Pairs with shunt_objects_first() and readers of next. */
	__atomic_store_n(all.end, o, __ATOMIC_RELEASE);
	all.end = &o->next;
	for (struct shunt_object_listener *l = all.listeners; l; l = l->next)
		if (l->added)
			l->added(o, l->data);
}

static int enter(struct seen *s)
{
	struct shunt_object *o = s->made;
	int r = 0;

	if (s->twin) {
		o->funcs = s->twin->funcs;
		o->strings = s->twin->strings;
		o->nfuncs = s->twin->nfuncs;
		o->missed = s->twin->missed;
		o->refused = s->twin->refused;
	} else if (s->finding.found) {
		r = make_funcs(o, s);
	}
	r = r ? r : push(&all.live, &all.nlive, &all.room_live, o);
	if (!r && (r = give_ids(o)))
		all.nlive--;
	if (r) {
		if (!s->twin) {
			free(o->funcs);
			free(o->strings);
		}
		return r; /* drop() has the rest */
	}
	if (s->elf.demangle)
		__atomic_store_n((uintptr_t *)&shunt_object_demangler,
			o->base + s->elf.demangle, __ATOMIC_RELEASE);
	append(o);
	s->made = NULL;
	return 0;
}

int shunt_objects_add_part(struct shunt_object *part)
{
	int r = give_ids(part);

	if (r || !part->nfuncs)
		return r ? r : -ENOENT;
	part->gone = part->of->gone;
	append(part);
	/* For who looks without the lock: what is in it comes first. */
	__atomic_store_n(&part->of->part, part, __ATOMIC_RELEASE);
	return 0;
}

static void drop(struct seen *s)
{
	if (s->made) {
		free(s->made->path);
		free(s->made);
	}
	free(s->finding.found);
	shunt_elf_free(&s->elf);
	shunt_file_free(&s->file);
	s->made = NULL;
	s->finding.found = NULL;
}

static void forget(struct shunt_object *o)
{
	__atomic_store_n(&o->gone, true, __ATOMIC_RELEASE);
	if (o->part)
		forget(o->part);
	for (struct shunt_object_listener *l = all.listeners; l; l = l->next)
		if (l->removed)
			l->removed(o, l->data);
}

static void forget_unseen(void)
{
	size_t n = 0;

	for (size_t i = 0; i < all.nlive; i++) {
		struct shunt_object *o = all.live[i];
		bool there = false;

		for (size_t k = 0; k < all.nseen && !there; k++)
			there = all.seen[k].known == o;
		if (there)
			all.live[n++] = o;
		else
			forget(o);
	}
	all.nlive = n;
}

/* One round. 1: what was found is settled; 0: another round; -ENOMEM. */
static int settle(const struct look *k, bool *twins)
{
	size_t left = 0;
	int r;

	forget_unseen();
	r = prepare_new(*twins);
	if (!r)
		dl_iterate_phdr(commit_one, NULL);
	for (size_t i = 0; i < all.nseen; i++) {
		struct seen *s = &all.seen[i];

		if (!r && s->committed)
			r = enter(s);
		else if (!s->known)
			left++;
		if (s->twin && s->made)
			*twins = false;
		drop(s);
	}
	all.nseen = 0;
	all.adds = k->adds;
	all.subs = k->subs;
	all.looked = !r && !left;
	return r ? r : !left;
}

static int refresh(void)
{
	bool twins = true;

	if (all.in_loader)
		return 0;
	if (all.busy) /* a listener */
		return -EDEADLK;
	if (!all.vdso)
		all.vdso = getauxval(AT_SYSINFO_EHDR);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct look k;
		int r = look(&k);

		if (r)
			return r < 0 ? r : 0;
		all.busy = true;
		r = settle(&k, &twins);
		all.busy = false;
		if (r < 0)
			return r;
	}
	return 0;
}

int shunt_objects_refresh(void)
{
	int e = errno, r;

	shunt_objects_lock();
	r = refresh();
	shunt_objects_unlock();
	errno = e;
	return r;
}

/* --- while nothing can be unloaded ---------------------------------------- */

struct pinned {
	int (*fn)(void *);
	void *arg;
	int result;
};

static int run_pinned(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct pinned *p = arg;

	(void)size;
	if (!all.looked || info->dlpi_adds != all.adds || info->dlpi_subs != all.subs)
		return 2;
	all.in_loader = true;
	p->result = p->fn(p->arg);
	all.in_loader = false;
	return 1;
}

int shunt_objects_while_loaded(int (*fn)(void *arg), void *arg)
{
	struct pinned p = {.fn = fn, .arg = arg};
	int r = 0;

	shunt_objects_lock();
	if (all.in_loader) { /* called from such an fn: it still holds */
		r = fn(arg);
		shunt_objects_unlock();
		return r;
	}
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		r = shunt_objects_refresh();
		if (r || dl_iterate_phdr(run_pinned, &p) == 1)
			break;
		r = -EAGAIN;
	}
	shunt_objects_unlock();
	return r ? r : p.result;
}

/* --- looking up ------------------------------------------------------------ */

struct shunt_object *shunt_object_of(uintptr_t addr)
{
	struct shunt_object *found = NULL;

	shunt_objects_lock();
	for (size_t i = 0; i < all.nlive && !found; i++)
		if (addr - all.live[i]->text_lo < all.live[i]->text_hi - all.live[i]->text_lo)
			found = all.live[i];
	shunt_objects_unlock();
	return found;
}

static struct shunt_func *func_in(const struct shunt_object *o, uintptr_t addr)
{
	uint32_t lo = 0, hi = o->nfuncs;
	struct shunt_func *f;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (o->funcs[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	f = &o->funcs[lo - 1];
	if (addr - f->start < f->size || addr - f->site < f->len || addr == f->start)
		return f;
	return NULL;
}

struct shunt_func *shunt_func_at(uintptr_t addr, struct shunt_object **obj)
{
	struct shunt_object *o = shunt_object_of(addr);
	struct shunt_object *part = o ? __atomic_load_n(&o->part, __ATOMIC_ACQUIRE) : NULL;
	struct shunt_func *f = o ? func_in(o, addr) : NULL;

	if (!f && part) {
		f = func_in(part, addr);
		o = f ? part : o;
	}
	if (obj)
		*obj = o;
	return f;
}

struct shunt_func *shunt_func_of_id(uint32_t id, struct shunt_object **obj)
{
	struct shunt_object *o = NULL;
	size_t lo = 0, hi;

	shunt_objects_lock();
	hi = all.n_by_id;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (all.by_id[mid]->first_id <= id)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo && id - all.by_id[lo - 1]->first_id < all.by_id[lo - 1]->nfuncs)
		o = all.by_id[lo - 1];
	shunt_objects_unlock();
	if (obj)
		*obj = o;
	return o ? &o->funcs[id - o->first_id] : NULL;
}

/* --- names for any address ------------------------------------------------- */

static const struct shunt_elf_start *nearest(const struct shunt_elf *e, uint64_t addr)
{
	const struct shunt_elf_start *best = NULL;

	for (size_t i = 0; i < e->nstarts && e->starts[i].addr <= addr; i++)
		if (e->starts[i].name)
			best = &e->starts[i];
	return best && (!best->size || addr - best->addr < best->size) ? best : NULL;
}

const char *shunt_object_symbolize(uintptr_t addr, char *buf, size_t size)
{
	struct shunt_object *o = shunt_object_of(addr);
	const struct shunt_elf_start *st = NULL;
	const char *file;
	struct seen s = {0};
	char name[256];

	if (!o) {
		snprintf(buf, size, "%#lx", addr);
		return buf;
	}
	file = strrchr(o->path, '/') ? strrchr(o->path, '/') + 1 : o->path;
	if (read_from(&s, o, o->path))
		st = nearest(&s.elf, addr - o->base);
	if (st)
		snprintf(buf, size, "%s+%#lx (%s)",
			shunt_object_demangle(st->name, name, sizeof name),
			addr - o->base - st->addr, file);
	else
		snprintf(buf, size, "%s+%#lx", file, addr - o->base);
	drop(&s);
	return buf;
}
