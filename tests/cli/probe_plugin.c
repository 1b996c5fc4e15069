/* SPDX-License-Identifier: MIT */
/* probe_plugin.c - comes late. */
int late(int i);

int late(int i)
{
	return i * 2;
}
