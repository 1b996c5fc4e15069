/* SPDX-License-Identifier: MIT */
/*
 * mmu.c - what notifiers cost while there are none (mmu.steps: instructions, libc's with them; beside
 * those of bench-mmu-without), while there are, beside others who watch what is unmapped (compare.c),
 * and what registering takes.
 *
 *   bench-mmu [name..]		"name value unit"; all, or: steps, register, the listeners of these names
 *   bench-mmu-fabric [name..]	libfabric's
 */
#include "mmu.h"

static int nothing(void)
{
	return 0;
}

static void stop_nothing(void)
{
}

int main(int argc, char **argv)
{
	static const struct listener nobody = { .name = "nobody", .arm = nothing, .disarm = stop_nothing };
	static const struct listener *const all[] = {
		&nobody, &shunt_notifier, &shunt_interval_1, &shunt_interval_100, &shunt_interval_100000,
#ifdef WITH_UCM
		&ucm_bistro, &ucm_reloc,
#endif
		&uffd, NULL
	};

	if (wanted(argc, argv, "steps"))
		measure_steps("shunt", &shunt_notifier);
	if (wanted(argc, argv, "register"))
		measure_registering();
	compare(all, argc, argv);
	return 0;
}
