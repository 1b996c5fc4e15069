/* SPDX-License-Identifier: MIT */
/* fuzz_lib.c - a library that fuzz_program.c loads and unloads: pages of its own data */
char fuzz_lib_data[16 * 4096] __attribute__((aligned(4096), visibility("default")));
