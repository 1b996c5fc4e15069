/* SPDX-License-Identifier: MIT */
/* plain.c - a program with nothing to trace; linked dynamically and statically. */
int main(void)
{
	return 0;
}
