/* SPDX-License-Identifier: MIT */
/*
 * load_torture.c - libraries come and go on several threads while others read
 * the code of every site and refresh the list, and the main thread forks.
 *
 * While an fn of shunt_objects_while_loaded runs, every site of every object
 * that is not gone is mapped and holds what was found there. (A read of a page
 * that was unmapped meanwhile would end the test by SIGSEGV.)
 *
 * usage: load_torture SECONDS LIBRARY...
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../tap.h"
#include "object/object.h"

static char **libs;
static unsigned nlibs, seed;
int main(int argc, char **argv);

static _Atomic bool stop;
static _Atomic unsigned long loads, walks, sites, wrong, failed, again;

static void *loader(void *arg)
{
	unsigned r = seed + (unsigned)(uintptr_t)arg;

	while (!stop) {
		void *lib = dlopen(libs[(unsigned)rand_r(&r) % nlibs], RTLD_NOW | RTLD_LOCAL);

		if (!lib) {
			failed++;
			continue;
		}
		for (unsigned n = (unsigned)rand_r(&r) % 2000; n; n--)
			__asm__ volatile("pause");
		dlclose(lib);
		loads++;
	}
	return NULL;
}

static int walk(void *arg)
{
	(void)arg;
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next) {
		for (uint32_t i = 0; i < o->nfuncs && !o->gone; i++) {
			const volatile unsigned char *p = (void *)o->funcs[i].site;

			wrong += *p != (o->funcs[i].kind == SHUNT_SITE_NOP1x5 ? 0x90 : 0x0f);
			sites++;
		}
	}
	return 0;
}

static void *walker(void *arg)
{
	(void)arg;
	while (!stop) {
		int r = shunt_objects_while_loaded(walk, NULL);

		if (r == -EAGAIN)
			again++;
		else if (r)
			failed++;
		else
			walks++;
	}
	return NULL;
}

static void *refresher(void *arg)
{
	(void)arg;
	while (!stop)
		failed += shunt_objects_refresh() != 0;
	return NULL;
}

/*
 * The child asks the list, but not the loader: glibc does not reset the lock of
 * the loader's list in a child (one of our loading threads may have held it).
 */
static bool fork_once(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		alarm(20);
		_exit(!shunt_objects_lock() || shunt_object_of((uintptr_t)&main) == NULL);
	}
	waitpid(pid, &status, 0);
	return status == 0;
}

int main(int argc, char **argv)
{
	void *(*const jobs[])(void *) = {loader, loader, loader, walker, refresher};
	pthread_t t[5];
	const char *env = getenv("SHUNT_SEED");
	bool forks = true;
	time_t end;

	if (argc < 3)
		return 2;
	libs = argv + 2;
	nlibs = (unsigned)argc - 2;
	seed = env ? (unsigned)atoi(env) : (unsigned)time(NULL);
	diag("seed %u", seed);
	shunt_objects_refresh();
	end = time(NULL) + atoi(argv[1]);
	for (uintptr_t i = 0; i < 5; i++)
		pthread_create(&t[i], NULL, jobs[i], (void *)i);
	while (time(NULL) < end)
		forks &= fork_once();
	stop = true;
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	diag("%lu loads, %lu walks over %lu sites, %lu given up", loads, walks, sites, again);
	ok(loads && walks && sites, "everything took place");
	ok(!wrong, "every site of a loaded object held what was found");
	ok(!failed, "nothing failed");
	ok(forks, "fork children found the list whole and unlocked");
	return done();
}
