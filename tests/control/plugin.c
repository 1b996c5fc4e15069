/* SPDX-License-Identifier: MIT */
/* plugin.c - loaded by victim.c. */
int plugin_work(int n);
int plugin_leaf(int i);

static volatile int total;

__attribute__((noinline)) int plugin_leaf(int i)
{
	return total += i;
}

int plugin_work(int n)
{
	for (int i = 0; i < n; i++)
		plugin_leaf(i);
	return total;
}
