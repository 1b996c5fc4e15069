/* SPDX-License-Identifier: MIT */
#include "victim.hh"
int victim::user_a(int x)
{
	box<int> b;

	b.set(shared_second(x));
	return b.get();
}
