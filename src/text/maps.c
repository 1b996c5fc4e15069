/* SPDX-License-Identifier: MIT */
/*
 * maps.c - what is mapped where.
 *
 * Nothing is remembered between batches: others map and unmap as they like, and
 * asking costs little. Linux 6.11 and later answer for one address
 * (PROCMAP_QUERY, under 1 us); before that the whole of /proc/thread-self/maps is
 * parsed once a batch into a table.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/text_sys.h"
#include "base/procmap.h"
#include "text/maps.h"

bool shunt_maps_never_query;

static int query(struct shunt_maps *m, uintptr_t addr, uint64_t flags, struct shunt_vma *out,
	char *name, size_t name_size)
{
	struct shunt_procmap q = {.size = sizeof q, .query_flags = flags, .query_addr = addr};
	long r;

	if (name) {
		q.vma_name_addr = (uintptr_t)name;
		q.vma_name_size = (uint32_t)name_size;
		name[0] = 0;
	}
	r = shunt_sys(SYS_ioctl, m->fd, SHUNT_PROCMAP_QUERY, &q);
	if (r < 0)
		return (int)r;
	if (out) {
		out->start = q.vma_start;
		out->end = q.vma_end;
		out->offset = q.vma_offset;
		out->inode = q.inode;
		out->major = q.dev_major;
		out->minor = q.dev_minor;
		out->flags = q.vma_flags & 15;
		out->page_size = (uint32_t)q.vma_page_size;
	}
	return 0;
}

/* --- the text form --------------------------------------------------------- */

static uint64_t hex(const char **p)
{
	uint64_t v = 0;

	for (;; (*p)++) {
		char c = **p;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return v;
	}
}

static uint64_t dec(const char **p)
{
	uint64_t v = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++)
		v = v * 10 + (uint64_t)(**p - '0');
	return v;
}

/* "start-end perms offset major:minor inode   name" */
static const char *parse_line(const char *p, struct shunt_vma *v)
{
	*v = (struct shunt_vma){.start = hex(&p)};
	p++;
	v->end = hex(&p);
	p++;
	v->flags = (p[0] == 'r' ? SHUNT_VMA_READ : 0u) | (p[1] == 'w' ? SHUNT_VMA_WRITE : 0u) |
		   (p[2] == 'x' ? SHUNT_VMA_EXEC : 0u) | (p[3] == 's' ? SHUNT_VMA_SHARED : 0u);
	p += 5;
	v->offset = hex(&p);
	p++;
	v->major = (uint32_t)hex(&p);
	p++;
	v->minor = (uint32_t)hex(&p);
	p++;
	v->inode = dec(&p);
	while (*p == ' ')
		p++;
	return p;
}

static int table_add(struct shunt_maps *m, const struct shunt_vma *v)
{
	if (m->n == m->room) {
		size_t room = m->room ? m->room * 2 : 512;
		long p = m->room ? shunt_sys(SYS_mremap, m->table, m->room * sizeof *v,
					   room * sizeof *v, MREMAP_MAYMOVE)
				 : shunt_sys(SYS_mmap, 0, room * sizeof *v, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (shunt_sys_failed(p))
			return (int)p;
		m->table = (struct shunt_vma *)p;
		m->room = room;
	}
	m->table[m->n++] = *v;
	return 0;
}

/* Calls fn for each line; stops when it returns non-zero, and returns that. */
static int each_line(int fd, int (*fn)(const char *line, size_t n, void *arg), void *arg)
{
	char buf[8192];
	size_t have = 0;
	long r = shunt_sys(SYS_lseek, fd, 0, 0);

	if (r < 0)
		return (int)r;
	while ((r = shunt_sys(SYS_read, fd, buf + have, sizeof buf - 1 - have)) > 0) {
		char *p = buf, *end = buf + have + r, *nl;

		while ((nl = memchr(p, '\n', (size_t)(end - p)))) {
			int stop;

			*nl = 0;
			stop = fn(p, (size_t)(nl - p), arg);
			if (stop)
				return stop;
			p = nl + 1;
		}
		have = (size_t)(end - p);
		memmove(buf, p, have);
	}
	return (int)r;
}

static int line_to_table(const char *line, size_t n, void *arg)
{
	struct shunt_vma v;

	(void)n;
	parse_line(line, &v);
	return table_add(arg, &v);
}

struct name_wish {
	uintptr_t addr;
	char *buf;
	size_t size;
};

static int line_to_name(const char *line, size_t n, void *arg)
{
	struct name_wish *w = arg;
	struct shunt_vma v;
	const char *name = parse_line(line, &v);
	size_t len = n - (size_t)(name - line);

	if (w->addr < v.start || w->addr >= v.end)
		return 0;
	if (len >= w->size)
		return -ENAMETOOLONG;
	memcpy(w->buf, name, len + 1);
	return 1;
}

/* --- either ----------------------------------------------------------------- */

int shunt_maps_open(struct shunt_maps *m)
{
	struct shunt_vma v;
	/* not self: that is the main thread, which may have ended */
	long fd = shunt_sys(SYS_openat, AT_FDCWD, "/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	int r;

	*m = (struct shunt_maps){.fd = (int)fd};
	if (fd < 0)
		return (int)fd;
	if (!shunt_maps_never_query) {
		m->query = !query(m, (uintptr_t)&query, 0, &v, NULL, 0);
		if (m->query)
			return 0;
	}
	r = each_line(m->fd, line_to_table, m);
	if (r)
		shunt_maps_close(m);
	return r;
}

void shunt_maps_close(struct shunt_maps *m)
{
	if (m->fd >= 0)
		shunt_sys(SYS_close, m->fd);
	if (m->room)
		shunt_sys(SYS_munmap, m->table, m->room * sizeof *m->table);
	*m = (struct shunt_maps){.fd = -1};
}

int shunt_maps_find(struct shunt_maps *m, uintptr_t addr, struct shunt_vma *out)
{
	size_t lo = 0, hi = m->n;

	if (m->query)
		return query(m, addr, SHUNT_PROCMAP_OR_NEXT, out, NULL, 0);
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->table[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == m->n)
		return -ENOENT;
	*out = m->table[lo];
	return 0;
}

static bool continues(const struct shunt_vma *a, const struct shunt_vma *b)
{
	return a->end == b->start && a->flags == b->flags && a->inode == b->inode &&
	       a->major == b->major && a->minor == b->minor &&
	       (!a->inode || a->offset + (a->end - a->start) == b->offset);
}

void shunt_maps_chain(struct shunt_maps *m, const struct shunt_vma *v, unsigned max,
	struct shunt_chain *out)
{
	struct shunt_vma next;

	out->whole = *v;
	out->count = 1;
	/* Anonymous mappings have no offsets to tell what belongs together. */
	if (!v->inode)
		return;
	while (out->count < max && !shunt_maps_find(m, out->whole.start - 1, &next) &&
		continues(&next, &out->whole)) {
		out->whole.start = next.start;
		out->whole.offset = next.offset;
		out->count++;
	}
	while (out->count < max && !shunt_maps_find(m, out->whole.end, &next) &&
		continues(&out->whole, &next)) {
		out->whole.end = next.end;
		out->count++;
	}
}

int shunt_maps_name(struct shunt_maps *m, uintptr_t addr, char *buf, size_t size)
{
	struct name_wish w = {addr, buf, size};
	int r;

	buf[0] = 0;
	if (m->query)
		return query(m, addr, 0, NULL, buf, size > 4096 ? 4096 : size);
	r = each_line(m->fd, line_to_name, &w);
	return r > 0 ? 0 : r ? r : -ENOENT;
}

/* --- the process ------------------------------------------------------------- */

long shunt_proc_read(const char *path, char *buf, size_t size)
{
	return shunt_proc_read_at(AT_FDCWD, path, buf, size);
}

long shunt_proc_read_at(int dir, const char *path, char *buf, size_t size)
{
	long fd = shunt_sys(SYS_openat, dir, path, O_RDONLY | O_CLOEXEC);
	long r;

	if (fd < 0)
		return fd;
	r = shunt_sys(SYS_read, fd, buf, size - 1);
	shunt_sys(SYS_close, fd);
	if (r >= 0)
		buf[r] = 0;
	return r;
}

static uint64_t field(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	if (!p)
		return 0;
	p += strlen(key);
	while (*p == ' ' || *p == '\t')
		p++;
	return dec(&p);
}

int shunt_status_read(struct shunt_status *s)
{
	char buf[4096];
	long r = shunt_proc_read("/proc/self/status", buf, sizeof buf);

	*s = (struct shunt_status){0};
	if (r < 0)
		return (int)r;
	s->tracer = (int)field(buf, "\nTracerPid:");
	s->threads = (unsigned)field(buf, "\nThreads:");
	s->locked_kb = field(buf, "\nVmLck:");
	return 0;
}
