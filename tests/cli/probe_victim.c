/* SPDX-License-Identifier: MIT */
/*
 * probe_victim.c [PLUGIN] - to be probed: says "ready", then for each number N that it reads
 * calls work() N times, and late() of PLUGIN, and says what the sum of the results is.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct thing {
	short kind, other;
	unsigned flags;
	const char *name;
	unsigned char bytes[4];
};

int work(int i, const struct thing *t, const char *nowhere);
int seven(int a, int b, int c, int d, int e, int f, int g);

int work(int i, const struct thing *t, const char *nowhere)
{
	return nowhere ? i + t->kind : -i;
}

int seven(int a, int b, int c, int d, int e, int f, int g)
{
	return a + b + c + d + e + f + g;
}

/* No compiler knows whom it calls. */
static int (*volatile work_fn)(int, const struct thing *, const char *) = work;
static int (*volatile seven_fn)(int, int, int, int, int, int, int) = seven;

static long round_of(long n, int (*late)(int))
{
	static const struct thing t = {-7, 1, 0xabcd, "a thing", {1, 2, 3, 255}};
	long sum = 0;

	for (int i = 0; i < n; i++)
		sum += work_fn(i, &t, (const char *)8) + seven_fn(1, 2, 3, 4, 5, 6, i) + (late ? late(i) : 0);
	return sum;
}

int main(int argc, char **argv)
{
	int (*late)(int) = NULL;
	char line[64];
	void *plugin;

	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		plugin = argc > 1 && !late ? dlopen(argv[1], RTLD_NOW) : NULL;
		if (plugin)
			*(void **)&late = dlsym(plugin, "late");
		if (line[0] == 'f' && !fork()) {
			printf("child %ld\n", round_of(atol(line + 1), late));
			exit(0);
		}
		if (line[0] == 'f')
			wait(NULL);
		printf("sum %ld\n", round_of(atol(line + (line[0] == 'f')), late));
		fflush(stdout);
	}
	return 0;
}
