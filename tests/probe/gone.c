/* SPDX-License-Identifier: MIT */
/*
 * gone.c - code that goes away while it is probed, and what comes to its address then.
 * Arguments: the objects, of whose function fn() the n-th returns n.
 */
#include <shunt/probe.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "../tap.h"

typedef int (*function)(void);

static struct shunt_probe_result res;
static unsigned hits, others;

static void count(struct shunt_probe *p, struct shunt_regs *r)
{
	(void)r;
	++*(unsigned *)p->data;
}

static struct shunt_probe probe_at(void *addr, unsigned *counter, unsigned flags)
{
	return (struct shunt_probe){.addr = addr, .pre = count, .data = counter,
		.flags = SHUNT_PROBE_GENERAL_REGS | flags};
}

static function load(const char *path, void **handle)
{
	function fn;

	*handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!*handle)
		return NULL;
	*(void **)&fn = dlsym(*handle, "fn");
	return fn;
}

/* --- objects ------------------------------------------------------------------------------- */

enum when { NEVER, BEFORE, AFTER }; /* the new one is loaded */

static const char *const names[] = {"never", "before", "after"};

static void test_reload(char **path, int from, int to, enum when unregister)
{
	void *handle;
	function fn = load(path[from - 1], &handle), again;
	struct shunt_probe old, new_;
	int value;

	if (!fn) {
		ok(false, "%s is loaded: %s", path[from - 1], dlerror());
		return;
	}
	old = probe_at((void *)(uintptr_t)fn, &others, 0);
	ok(!shunt_probe_register(&old, &res) && fn() == from, "object %d, %s", from, res.reason);
	dlclose(handle);
	if (unregister == BEFORE)
		ok(!shunt_probe_unregister(&old), "its probe is let go when it is unloaded");
	again = load(path[to - 1], &handle);
	if (again != fn) {
		skip("another address");
		dlclose(handle);
		shunt_probe_unregister(&old);
		return;
	}
	if (unregister == AFTER)
		ok(!shunt_probe_unregister(&old) && fn() == to, "or when another has come");
	hits = others = 0;
	new_ = probe_at((void *)(uintptr_t)fn, &hits, 0);
	ok(!shunt_probe_register(&new_, &res), "object %d after %d, %s unregistered: %s", to, from,
		names[unregister], res.reason);
	value = fn();
	ok(value == to && hits == 1 && !others, "its own code and probe (%d, %u, %u)", value, hits,
		others);
	if (unregister == NEVER) {
		ok(shunt_probe_form(&old) == SHUNT_PROBE_OFF &&
				shunt_probe_enable(&old) == -ENOENT,
			"that of the old one is not taken for one of the new");
		ok(!shunt_probe_unregister(&old) && fn() == to && hits == 2, "nor when it goes");
	}
	ok(!shunt_probe_unregister(&new_), "the new one's goes");
	hits = 0;
	ok(fn() == to && !hits, "and is gone");
	dlclose(handle);
}

/* Two neighbours: if one goes, the other's jump is made anew, from text that is not there. */
static void test_neighbours(char **path)
{
	void *handle;
	function fn = load(path[2], &handle);
	char *at = (char *)(uintptr_t)fn;
	struct shunt_probe p = probe_at(at, &hits, 0), q = probe_at(at + 1, &hits, 0);

	ok(!shunt_probe_register(&p, &res) && !shunt_probe_register(&q, &res), "neighbours %s",
		res.reason);
	dlclose(handle);
	ok(!shunt_probe_disable(&q) && !shunt_probe_enable(&q), "one goes and comes");
	ok(!shunt_probe_unregister(&q) && !shunt_probe_unregister(&p), "both go");
}

/* --- memory ---------------------------------------------------------------------------------- */

static const uint8_t seven[] = {0x48, 0xb8, 7, 0, 0, 0, 0, 0, 0, 0, 0xc3}; /* movabs, ret */
static const uint8_t high[] = {0x48, 0xb8, 7, 0, 0, 0, 1, 0, 0, 0, 0xc3};
static const uint8_t eight[] = {0x31, 0xc0, 0xb0, 8, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};

static void *jit(void *at, const uint8_t code[11])
{
	void *m = mmap(at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	memcpy(m, code, 11);
	return m;
}

static void test_rewritten(const uint8_t code[11], unsigned long value)
{
	void *at = jit(NULL, seven);
	unsigned long (*fn)(void) = (unsigned long (*)(void))(uintptr_t)at;
	struct shunt_probe p = probe_at(at, &hits, SHUNT_PROBE_TRUSTED);

	hits = 0;
	ok(!shunt_probe_register(&p, &res) && fn() == 7 && hits == 1, "made code %s", res.reason);
	shunt_probe_unregister(&p);
	memcpy(at, code, 11);
	ok(!shunt_probe_register(&p, &res) && fn() == value && hits == 2,
		"other code in its place is looked at anew: %#lx %s", fn(), res.reason);
	shunt_probe_unregister(&p);
	p.flags = SHUNT_PROBE_GENERAL_REGS;
	ok(shunt_probe_register(&p, &res) == -ENOENT, "and is not trusted for good: %s", res.reason);
	munmap(at, 4096);
}

static void test_unmapped(void)
{
	void *at = jit(NULL, seven);
	unsigned long (*fn)(void) = (unsigned long (*)(void))(uintptr_t)at;
	struct shunt_probe p = probe_at(at, &others, SHUNT_PROBE_TRUSTED);
	struct shunt_probe q = probe_at(at, &hits, SHUNT_PROBE_TRUSTED);

	shunt_probe_register(&p, &res);
	munmap(at, 4096);
	ok(!shunt_probe_unregister(&p), "memory was unmapped before its probe");
	jit(at, seven);
	shunt_probe_register(&p, &res);
	munmap(at, 4096);
	jit(at, eight);
	hits = others = 0;
	ok(!shunt_probe_register(&q, &res) && fn() == 8 && hits == 1 && !others,
		"other code came there, with a probe of its own %s", res.reason);
	ok(!shunt_probe_unregister(&p) && fn() == 8 && hits == 2, "the old one goes");
	ok(!shunt_probe_unregister(&q) && fn() == 8 && hits == 2, "and the new one");
	munmap(at, 4096);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	for (int from = 1; from <= 3; from++)
		for (int to = 1; to <= 3; to++)
			for (int when = NEVER; when <= AFTER; when++)
				test_reload(argv + 1, from, to, (enum when)when);
	test_neighbours(argv + 1);
	test_rewritten(high, 0x100000007);
	test_rewritten(eight, 8);
	test_unmapped();
	return done();
}
