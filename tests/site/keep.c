/* SPDX-License-Identifier: MIT */
/*
 * keep.c OWNER USER - a library that defines a key, a value and a call is closed while
 * another one, which was not linked with it, uses them. The dynamic linker keeps it.
 */
#include <shunt/call.h>
#include <shunt/imv.h>
#include <shunt/key.h>

int plus_one(int x);

#if defined(OWNER)

int plus_one(int x)
{
	return x + 1;
}

SHUNT_DEFINE_KEY_FALSE(kept_key);
SHUNT_DEFINE_IMV(int, kept_value, 40);
SHUNT_DEFINE_CALL(kept_call, plus_one);

#elif defined(USER)

SHUNT_DECLARE_KEY_FALSE(kept_key);
SHUNT_DECLARE_IMV(int, kept_value);
SHUNT_DECLARE_CALL(kept_call, plus_one);

int sees(void);
int sets(bool on, int value);

int sees(void)
{
	int n = shunt_call(kept_call)(shunt_imv_read(kept_value));

	return shunt_key_unlikely(kept_key) ? -n : n;
}

int sets(bool on, int value)
{
	return shunt_key_set(&kept_key.key, on) | shunt_imv_set(kept_value, value) |
	       (on ? shunt_call_return_0(kept_call) : shunt_call_set(kept_call, plus_one));
}

#else

#include <dlfcn.h>

#include "tap.h"

int main(int argc, char **argv)
{
	void *owner, *user;
	int (*sees)(void), (*sets)(bool, int);

	if (argc < 3)
		return 2;
	for (int round = 0; round < 2; round++) {
		owner = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
		user = dlopen(argv[2], RTLD_NOW);
		if (!owner || !user) {
			diag("%s", dlerror());
			return 1;
		}
		*(void **)&sees = dlsym(user, "sees");
		*(void **)&sets = dlsym(user, "sets");
		ok(sees() == 41, "another library's key, value and call");
		ok(!dlclose(owner) && sees() == 41, "which is closed, and kept");
		ok(!sets(true, 7) && sees() == 0 && !sets(false, 7) && sees() == 8, "they can be set");
		dlclose(user);
		ok(!dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD), "and goes with its last user");
	}
	return done();
}

#endif
