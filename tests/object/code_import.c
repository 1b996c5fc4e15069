/* SPDX-License-Identifier: MIT */
/* code_import.c - a library that is linked against what code_a.c exports. */
int code_chosen(int x);
int code_import(int x);

int code_import(int x)
{
	return code_chosen(x) + 1;
}
