/* SPDX-License-Identifier: MIT */
/*
 * plain.c - a program with nothing to trace; linked dynamically and statically. Its main() is
 * long enough for a jump whoever compiles it.
 */
static volatile int value;

int main(void)
{
	value = 0x12345678;
	return 0;
}
