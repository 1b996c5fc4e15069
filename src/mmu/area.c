/* SPDX-License-Identifier: MIT */
/* area.c - see area.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "arch/x86_64/text_sys.h"
#include "base/procmap.h"
#include "mmu/area.h"

#define SYSV_LENGTH 5 /* of "/SYSV" */

static atomic_bool as_text;

void shunt_mmu_areas_as_text(bool text)
{
	atomic_store_explicit(&as_text, text, memory_order_relaxed);
}

int shunt_mmu_areas_open(struct shunt_mmu_areas *a)
{
	long fd = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/maps", O_RDONLY | O_CLOEXEC, 0);

	if (shunt_sys_failed(fd))
		return (int)fd;
	a->fd = (int)fd;
	a->text = atomic_load_explicit(&as_text, memory_order_relaxed);
	a->any = a->over = false;
	a->at = a->have = 0;
	a->last.start = a->last.end = 0;
	return 0;
}

void shunt_mmu_areas_close(struct shunt_mmu_areas *a)
{
	shunt_sys(SYS_close, a->fd);
}

/* --- the text ------------------------------------------------------------------------------ */

/* The next character, or -1. */
static int character(struct shunt_mmu_areas *a)
{
	long n;

	if (a->at == a->have) {
		do
			n = shunt_sys(SYS_read, a->fd, a->buffer, sizeof(a->buffer));
		while (n == -EINTR);
		if (n <= 0 || shunt_sys_failed(n))
			return -1;
		a->at = 0;
		a->have = (uint32_t)n;
	}
	return (unsigned char)a->buffer[a->at++];
}

/* A number, and the character behind it. */
static uint64_t number(struct shunt_mmu_areas *a, unsigned base, int *c)
{
	uint64_t v = 0;
	unsigned digit;

	for (;;) {
		*c = character(a);
		if (*c >= '0' && *c <= '9')
			digit = (unsigned)(*c - '0');
		else if (base == 16 && *c >= 'a' && *c <= 'f')
			digit = (unsigned)(*c - 'a' + 10);
		else
			return v;
		v = v * base + digit;
	}
}

/* What is left of the line: the name, or nothing of it. */
static bool rest_is_sysv(struct shunt_mmu_areas *a, int c)
{
	const char *want = "/SYSV";
	unsigned same = 0;

	while (c == ' ')
		c = character(a);
	for (; c != -1 && c != '\n'; c = character(a))
		if (same < SYSV_LENGTH)
			same = c == want[same] ? same + 1 : SYSV_LENGTH + 1;
	return same == SYSV_LENGTH;
}

/* "start-end rwxp offset major:minor inode   name" */
static bool line(struct shunt_mmu_areas *a, struct shunt_mmu_area *l)
{
	int c, i;

	l->start = number(a, 16, &c);
	if (c != '-')
		return false;
	l->end = number(a, 16, &c);
	if (c != ' ')
		return false;
	for (i = 0; i < 5; i++)
		c = character(a);
	l->offset = number(a, 16, &c);
	l->major = (uint32_t)number(a, 16, &c);
	l->minor = (uint32_t)number(a, 16, &c);
	l->inode = number(a, 10, &c);
	l->page = 0;
	l->sysv = rest_is_sysv(a, c);
	a->any = true;
	return true;
}

static int next_line(struct shunt_mmu_areas *a, uintptr_t from, bool files,
	struct shunt_mmu_area *found)
{
	while (a->last.end <= from || (files && !a->last.inode)) {
		if (!a->over && !line(a, &a->last))
			a->over = true;
		if (a->over)
			return a->any ? 0 : -EIO;
	}
	*found = a->last;
	return 1;
}

/* --- the question -------------------------------------------------------------------------- */

static long ask(int fd, uintptr_t from, bool files, struct shunt_procmap *q, char *name, uint32_t size)
{
	q->size = sizeof(*q);
	q->query_flags = SHUNT_PROCMAP_OR_NEXT | (files ? SHUNT_PROCMAP_FILES : 0);
	q->query_addr = from;
	q->vma_name_size = size;
	q->vma_name_addr = (uintptr_t)name;
	q->build_id_size = 0;
	q->build_id_addr = 0;
	return shunt_sys(SYS_ioctl, fd, SHUNT_PROCMAP_QUERY, q);
}

int shunt_mmu_areas_next(struct shunt_mmu_areas *a, uintptr_t from, bool files,
	struct shunt_mmu_area *found)
{
	struct shunt_procmap q;
	long r;

	if (a->text)
		return next_line(a, from, files, found);
	r = ask(a->fd, from, files, &q, NULL, 0);
	if (r == -ENOENT)
		return 0;
	if (r == -ENOTTY) {
		a->text = true;
		return next_line(a, from, files, found);
	}
	if (r)
		return r < 0 ? (int)r : -EIO;
	found->start = q.vma_start;
	found->end = q.vma_end;
	found->offset = q.vma_offset;
	found->inode = q.inode;
	found->major = q.dev_major;
	found->minor = q.dev_minor;
	found->page = q.vma_page_size;
	found->sysv = false;
	return 1;
}

void shunt_mmu_areas_name(struct shunt_mmu_areas *a, struct shunt_mmu_area *found)
{
	struct shunt_procmap q;
	char name[32]; /* a longer name is refused, and is none of these */
	const char *want = "/SYSV";
	unsigned i = 0;

	if (a->text)
		return; /* its line said so already */
	if (ask(a->fd, found->start, true, &q, name, sizeof(name)) ||
	    q.vma_start != found->start || q.vma_name_size <= SYSV_LENGTH)
		return;
	while (i < SYSV_LENGTH && name[i] == want[i])
		i++;
	found->sysv = i == SYSV_LENGTH;
}

int shunt_mmu_area_find(uintptr_t addr, struct shunt_mmu_area *found)
{
	struct shunt_mmu_areas a;
	int r = shunt_mmu_areas_open(&a);

	if (r)
		return r;
	r = shunt_mmu_areas_next(&a, addr, false, found);
	shunt_mmu_areas_close(&a);
	return r;
}

/* --- what was found ------------------------------------------------------------------------ */

static void widen(struct shunt_mmu_range *r, uintptr_t start, uintptr_t end)
{
	r->start = start < r->start ? start : r->start;
	r->end = end > r->end ? end : r->end;
}

void shunt_mmu_found_add(struct shunt_mmu_found *f, uint32_t kind, uintptr_t start, uintptr_t end)
{
	struct shunt_mmu_range *r;
	unsigned i;

	if (start >= end || !f->room)
		return;
	for (i = 0; i < f->n; i++) {
		r = &f->r[i];
		if (f->one || (r->kind == kind && start <= r->end && end >= r->start)) {
			widen(r, start, end);
			return;
		}
	}
	if (f->n == f->room) {
		for (i = 1; i < f->n; i++)
			widen(f->r, f->r[i].start, f->r[i].end);
		widen(f->r, start, end);
		f->n = 1;
		f->one = true;
		return;
	}
	r = &f->r[f->n++];
	r->start = start;
	r->end = end;
	r->new_start = 0;
	r->kind = kind;
}
