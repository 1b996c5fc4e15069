/* SPDX-License-Identifier: MIT */
/* throw.c - C++ exceptions through traced frames. */
#include <shunt/ftrace.h>

#include "tap.h"

extern int t_destroyed, t_catches(int n), t_nested(int n), t_rethrow(int n);

static long entries, exits;

static void on_entry(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	entries++;
}

static void on_exit_(uintptr_t ip, uintptr_t parent, struct shunt_ftrace_ops *ops)
{
	(void)ip;
	(void)parent;
	(void)ops;
	exits++;
}

static void all(const char *how)
{
	t_destroyed = 0;
	ok(t_catches(1000) == 1000, "%s: thrown and caught", how);
	ok(t_destroyed == 1000 + 4996, "%s: every destructor ran (%d)", how, t_destroyed);
	ok(t_rethrow(100) == 100, "%s: rethrown", how);
	ok(t_nested(100) == 200, "%s: thrown while handling", how);
}

int main(void)
{
	struct shunt_ftrace_ops ops = {.entry = on_entry, .exit = on_exit_};
	int r;

	all("untraced");
	shunt_ftrace_filter(&ops, "*victim*");
	shunt_ftrace_filter(&ops, "t_*");
	r = shunt_ftrace_register(&ops);
	ok(r == 0, "register (%d)", r);
	all("traced");
	ok(entries > 5000 && exits > 0 && exits < entries, "%ld entries, %ld exits", entries, exits);
	shunt_ftrace_unregister(&ops);
	ops = (struct shunt_ftrace_ops){.entry = on_entry};
	shunt_ftrace_filter(&ops, "victim::middle(*");
	r = shunt_ftrace_register(&ops);
	entries = 0;
	t_catches(10);
	ok(r == 0 && entries == 10, "a glob on the demangled name");
	shunt_ftrace_unregister(&ops);
	return done();
}
