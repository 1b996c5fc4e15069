/* SPDX-License-Identifier: MIT */
/* Its first function in the object file is an inline one of the header's. */
#include "victim.hh"
int (*volatile victim_first)(int) = victim::shared_first;
int victim::user_b(int x)
{
	box<int> b;

	b.set(shared_second(x) + victim_first(x));
	return b.get();
}
