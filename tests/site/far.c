/* SPDX-License-Identifier: MIT */
/* far.c - another unit, or another library, that uses uses.c's variables. */
#include "uses.h"

/* The same names as uses.c has: each is its unit's own. */
SHUNT_DEFINE_STATIC_IMV(short, own, 3);
SHUNT_DEFINE_STATIC_KEY_TRUE(mine);

int far_int(void)
{
	return shunt_imv_read(shared_int);
}

int far_keys(void)
{
	return everywhere();
}

int far_row(void)
{
	return (shunt_key_unlikely_at(row, 0) ? 1 : 0) + (shunt_key_unlikely_at(row, 4) ? 2 : 0);
}

int far_own(int set)
{
	if (set)
		return shunt_imv_set(own, (short)set) || shunt_key_disable(mine);
	return shunt_imv_read(own) + (shunt_key_likely(mine) ? 100 : 0);
}

int far_change(int x)
{
	return shunt_call(change)(x);
}

static int far_function(int x)
{
	return x + 1000;
}

/* Its functions may be more than 2 GiB from the program's trampoline. */
int far_set(int how)
{
	return how ? shunt_call_set(change, far_function) : shunt_call_set(change, add_one);
}

int far_width(void)
{
	switch (shunt_choice(width)) {
	case 0:
		return 10;
	case 1:
		return 11;
	case 2:
		return 12;
	default:
		return 13;
	}
}

long far_op(long x)
{
	return op_of(x);
}

/* Whether it was free; it is taken and released then. */
bool far_lock(struct shunt_lock *l)
{
	if (!shunt_lock_trylock(l))
		return false;
	shunt_lock_unlock(l);
	shunt_lock_lock(l);
	shunt_lock_unlock(l);
	return true;
}

void far_hit(int n)
{
	static const unsigned short q[] = {1, 2};

	shunt_trace(uses, hit, n, GREEN, "far", q, 2);
	shunt_trace(uses, nothing);
}

#ifdef __cplusplus
int far_comdat(int x)
{
	return in_comdat(x) + in_template<10000>(x);
}
#endif
