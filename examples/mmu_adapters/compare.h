/* SPDX-License-Identifier: MIT */
/* compare.h - a registration cache is checked with its library's own means, and with an adapter. */
#ifndef MMU_ADAPTERS_COMPARE_H
#define MMU_ADAPTERS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

/* How the library hears of changes. */
struct mode {
	const char *name;
	const char *variable, *value; /* of the environment, which libraries read before main() */
	bool adapter;
	bool partial;	   /* with the library's own hooks on */
	const char *files; /* why shared mappings of files are left out; or NULL */
};

struct subject {
	const char *program;
	const struct mode *modes; /* the last has no name */
	/* Makes the cache, with the adapter if the mode says so. */
	void (*open)(const struct mode *m);
	/* How many registrations are left when the cache is gone. */
	unsigned (*close)(const struct mode *m);
	/* What a card would send of the page: the first word of the page that the cache has registered. */
	uint32_t (*send)(char *page);
	/* How many registrations have been made since the beginning. */
	unsigned (*made)(void);
	/* Not NULL: between the two nobody can drop anything in the cache; who asks it gets an answer. */
	void (*lock)(void);
	void (*unlock)(void);
};

/*
 * main(): each mode in a process of its own. Returns 0 if no answer was stale with the adapter, and some
 * was in each mode without it; 1 if not, 2 if something else went wrong.
 */
int compare(const struct subject *s, int argc, char **argv);

#endif
