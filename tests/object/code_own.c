/* SPDX-License-Identifier: MIT */
/* code_own.c - a program that asks for its own functions: any way it is linked. */
#include <string.h>
#include <strings.h>

#include "../tap.h"
#include "object/code.h"

static __attribute__((noinline, used)) int own_static(int x)
{
	return x * 3 + tap_count;
}

__attribute__((noinline)) size_t own_global(const char *s);
size_t own_global(const char *s)
{
	return strlen(s) + (size_t)own_static(1);
}

static void finds(const char *name, uintptr_t addr)
{
	const struct shunt_code_list *list = NULL;
	const struct shunt_code_func *f;
	struct shunt_code_place p;
	char why[256];
	int r = shunt_code_resolve(name, 1, &p, why, sizeof why);

	ok(!r && p.addr == addr + 1 && p.func->start == addr, "%s is where it is%s%s", name,
		r ? ": " : "", why);
	f = shunt_code_at(addr + 1, &list);
	ok(f && f->start == addr && list == p.list && f->size > 1
			&& !strcmp(list->strings + f->name, name),
		"and its address leads to it");
}

int main(void)
{
	struct shunt_code_place p;
	char why[256];
	int r;

	finds("own_static", (uintptr_t)own_static);
	finds("own_global", (uintptr_t)own_global);
	finds("main", (uintptr_t)main);
	r = shunt_code_resolve("_start", 0, &p, why, sizeof why);
	ok(!r && p.func->flags & SHUNT_CODE_NOT_CALLED, "nobody calls _start");
#ifdef __SANITIZE_ADDRESS__
	skip("a sanitizer has a strlen of its own");
	return done();
#endif
	/* An IFUNC in every libc, bound as own_global uses it, also in a static program. */
	r = shunt_code_resolve("strlen", 0, &p, why, sizeof why);
	ok(own_global("12") == 2 + (size_t)own_static(1) && !r
			&& !(p.func->flags & SHUNT_CODE_IFUNC)
			&& ((size_t(*)(const char *))p.addr)("12345") == 5,
		"strlen is the function that was chosen for it: %s", r ? why : "called, it counts");
	return done();
}
