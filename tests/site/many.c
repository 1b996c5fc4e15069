/* SPDX-License-Identifier: MIT */
/* many.c - a library of 1,000 sites of the program's variables. */
#include "many.h"

#define ONE(n) \
	static int f##n(void) \
	{ \
		return (shunt_key_unlikely(flip) ? 1 : 0) | (shunt_key_likely(flop) ? 2 : 0) | \
		       (int)(shunt_imv_read(count) << 2); \
	}
#define TEN(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7) \
	ONE(n##8) ONE(n##9)
#define HUNDRED(n) TEN(n##0) TEN(n##1) TEN(n##2) TEN(n##3) TEN(n##4) TEN(n##5) TEN(n##6) \
	TEN(n##7) TEN(n##8) TEN(n##9)
HUNDRED(1) HUNDRED(2) HUNDRED(3)
TEN(40) TEN(41) TEN(42) ONE(430) ONE(431) ONE(432) ONE(433)

#define P1(n)	f##n,
#define P10(n)	P1(n##0) P1(n##1) P1(n##2) P1(n##3) P1(n##4) P1(n##5) P1(n##6) P1(n##7) P1(n##8) P1(n##9)
#define P100(n) P10(n##0) P10(n##1) P10(n##2) P10(n##3) P10(n##4) P10(n##5) P10(n##6) P10(n##7) P10(n##8) P10(n##9)
static int (*const all[])(void) = {P100(1) P100(2) P100(3)
	P10(40) P10(41) P10(42) P1(430) P1(431) P1(432) P1(433)};

/* A constructor of the library sees right values, too. */
static int first = -1;
__attribute__((constructor)) static void begin(void)
{
	first = many_sees(0);
}

int many_sees(unsigned i)
{
	return all[i % (sizeof all / sizeof *all)]();
}

int many_first(void)
{
	return first;
}
