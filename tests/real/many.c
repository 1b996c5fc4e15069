/* SPDX-License-Identifier: MIT */
/* Calls each of the generated functions a few times. */
#include <stdio.h>

extern long (*const many[])(long);
extern const int n_many;

int main(void)
{
	long x = 1;

	for (int r = 0; r < 5; r++)
		for (int i = 0; i < n_many; i++)
			x ^= many[i](x & 0xffff);
	printf("%d %ld\n", n_many, x);
	return 0;
}
