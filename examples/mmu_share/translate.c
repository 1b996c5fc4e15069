/* SPDX-License-Identifier: MIT */
/* translate.c - what is at an address: which part of the memfd, with which rights. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "translate.h"

struct mapping {
	uintptr_t start, end;
	uint64_t offset;
	bool ours; /* the file, mapped shared */
	int prot;
};

static bool parse(const char *line, const struct stat *st, struct mapping *m)
{
	char mode[5];
	unsigned major_, minor_;
	uint64_t ino;

	if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64, &m->start, &m->end,
		   mode, &m->offset, &major_, &minor_, &ino) != 7)
		return false;
	m->ours = mode[3] == 's' && ino == st->st_ino && makedev(major_, minor_) == st->st_dev;
	m->prot = (mode[0] == 'r' ? PROT_READ : 0) | (mode[1] == 'w' ? PROT_WRITE : 0);
	return true;
}

/* The mappings of [start, end) one after the other: all of the file, without a gap in either. */
static int follow(FILE *f, const struct stat *st, uintptr_t start, uintptr_t end, struct translation *t)
{
	char *line = NULL;
	size_t room = 0;
	uintptr_t at = start;

	*t = (struct translation){.prot = PROT_READ | PROT_WRITE};
	while (at < end && getline(&line, &room, f) > 0) {
		struct mapping m;

		if (!parse(line, st, &m) || m.end <= at)
			continue;
		if (m.start > at || !m.ours)
			break;
		if (at == start)
			t->offset = m.offset + (at - m.start);
		else if (m.offset != t->offset + (at - start))
			break;
		t->prot &= m.prot;
		at = m.end;
	}
	free(line);
	return at < end ? -EFAULT : 0;
}

int translate(int fd, uintptr_t start, size_t length, struct translation *t)
{
	struct stat st;
	FILE *f;
	int err;

	if (fstat(fd, &st))
		return -errno;
	f = fopen("/proc/self/maps", "re");
	if (!f)
		return -errno;
	err = follow(f, &st, start, start + length, t);
	fclose(f);
	return err;
}
