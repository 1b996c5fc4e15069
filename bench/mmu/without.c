/* SPDX-License-Identifier: MIT */
/*
 * without.c - the instructions of a program that has nothing of shunt's. (Of pthread_create() it has fewer: that
 * sets up the thread-local variables of each library that has such.)
 */
#include "mmu.h"

int main(void)
{
	measure_steps("without", NULL);
	return 0;
}
