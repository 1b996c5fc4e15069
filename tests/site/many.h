/* SPDX-License-Identifier: MIT */
#ifndef MANY_H
#define MANY_H

#include <shunt/imv.h>
#include <shunt/key.h>

SHUNT_DECLARE_KEY_FALSE(flip);
SHUNT_DECLARE_KEY_TRUE(flop);
SHUNT_DECLARE_IMV(unsigned, count);

/* What the i-th function sees of the three, and what the first saw when loaded. */
int many_sees(unsigned i);
int many_first(void);

#define MANY_FUNCTIONS 334
#endif
