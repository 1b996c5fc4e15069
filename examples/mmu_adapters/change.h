/* SPDX-License-Identifier: MIT */
/*
 * change.h - for the checks of the adapters: the ways in which a page of memory becomes another one, and
 * a registration of a page as a card makes one.
 */
#ifndef MMU_ADAPTERS_CHANGE_H
#define MMU_ADAPTERS_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE 4096ul

/*
 * A registration: the kernel keeps the page that is there now, and what is read of it later is read
 * of that page, whatever is mapped at the address by then. As a card that has looked up where the page is; here
 * it is a pipe (vmsplice), which takes no special hardware.
 */
struct held {
	int pipe[2];
};

/* 0 or -errno. */
int held_take(struct held *h, uintptr_t page);
/* What the page's first word is. */
uint32_t held_read(const struct held *h);
void held_drop(struct held *h);

/* Afterwards another page is mapped at `p`, which was the only one of a mapping. */
struct way {
	const char *name;
	bool file; /* of a shared mapping of `change_fd`, at its offset 0 */
	bool raw;  /* no function of libc's makes the call */
	void (*make)(char *p);
};

#define WAYS 12
extern const struct way ways[WAYS + 1]; /* the last but one forks, the last has no name */
extern _Thread_local int change_fd;

/* A page at an address where none was before, and whose neighbours cannot be used; for this way. */
char *change_page(const struct way *w);
/* The page will be used no more. */
void change_done(char *p);

/* Says what went wrong, and ends the program. */
void check(bool ok, const char *what);

#endif
