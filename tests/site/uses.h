/* SPDX-License-Identifier: MIT */
/* uses.h - what the two units of uses.c share; C and C++. */
#ifndef USES_H
#define USES_H

#include <shunt/call.h>
#include <shunt/imv.h>
#include <shunt/key.h>

enum color { RED, GREEN = 7 };

struct pair {
	long a, b, c;
};

#ifdef __cplusplus
extern "C" {
#endif
int add_one(int x);
#ifdef __cplusplus
}
#endif

SHUNT_DECLARE_CALL(change, add_one);
SHUNT_DECLARE_IMV(int, shared_int);
SHUNT_DECLARE_KEY_FALSE(shared_off);
SHUNT_DECLARE_KEY_TRUE(shared_on);
SHUNT_DECLARE_KEY_ARRAY_FALSE(row, 5);

#ifdef __cplusplus
extern "C" {
#endif
int far_int(void);
int far_keys(void);
int far_row(void);
int far_own(int set);
int far_change(int x);
int far_set(int how);
#ifdef __cplusplus
}
#endif

/* In many units: a site in each. */
static inline __attribute__((always_inline)) int everywhere(void)
{
	return (shunt_key_unlikely(shared_off) ? 1 : 0) + (shunt_key_likely(shared_off) ? 2 : 0) +
	       (shunt_key_unlikely(shared_on) ? 4 : 0) + (shunt_key_likely(shared_on) ? 8 : 0);
}

#endif
