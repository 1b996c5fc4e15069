/* SPDX-License-Identifier: MIT */
/*
 * knobs.c [FILE] - eight threads whose decisions are changed from another shell:
 *
 *   ./knobs &
 *   shunt list $!
 *   shunt set $! limit=200 verbose=true filter=twice way=turbo
 *   kill $!
 *
 * It ends at SIGTERM or when its standard input does, and says what its threads saw.
 * In FILE, 8 bytes, somebody may write what `limit` was set to, and some other number
 * above it for each time, once the set has returned; 0 before the next. Then each
 * thread checks that it reads nothing else.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shunt/control.h>
#include <shunt/imv.h>
#include <shunt/key.h>
#include <shunt/ops.h>

static long same(long x)
{
	return x;
}

static long twice(long x)
{
	return 2 * x;
}

SHUNT_DEFINE_IMV(uint32_t, limit, 100);
SHUNT_DEFINE_STATIC_IMV(double, rate, 0.5);
SHUNT_DEFINE_STATIC_KEY_FALSE(verbose);
SHUNT_DEFINE_STATIC_KEY_TRUE(safe);
SHUNT_PRIVATE(safe);
SHUNT_DEFINE_CALL(filter, same);
SHUNT_CALL_OFFER(filter, same);
SHUNT_CALL_OFFER(filter, twice);
SHUNT_DEFINE_CHOICE(way, "plain", "fast", "turbo");

enum { THREADS = 8 };
static atomic_int stop;
static _Atomic uint64_t none, *settled = &none;

struct seen {
	unsigned long reads, illegal, late, verbose, twice, ways[3];
};

static void look(struct seen *s)
{
	uint64_t before = *settled;
	uint32_t n = shunt_imv_read(limit);

	if (before && before == *settled && n != (uint32_t)before)
		s->late++;
	s->reads++;
	s->illegal += n != 100 && n != 200;
	if (shunt_key_unlikely(verbose))
		s->verbose++;
	s->twice += shunt_call(filter)(1) == 2;
	s->ways[shunt_choice(way)]++;
	if (!shunt_key_likely(safe) || shunt_imv_read(rate) < 0)
		s->illegal++;
}

static void *worker(void *arg)
{
	while (!stop)
		look(arg);
	return NULL;
}

static void terminate(int sig)
{
	(void)sig;
	stop = 1;
}

static void map(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *at = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		perror(path);
	else
		settled = at;
	close(fd);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = terminate};
	struct seen seen[THREADS] = {{0}}, all = {0};
	pthread_t t[THREADS];
	int err = shunt_control_start();
	char c;

	if (err)
		fprintf(stderr, "cannot be controlled: %s\n", strerror(-err));
	if (argc > 1)
		map(argv[1]);
	sigaction(SIGTERM, &sa, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, worker, &seen[i]);
	printf("%d\n", getpid());
	fflush(stdout);
	while (!stop && read(0, &c, 1) > 0)
		;
	stop = 1;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		all.reads += seen[i].reads;
		all.illegal += seen[i].illegal;
		all.late += seen[i].late;
		all.verbose += seen[i].verbose;
		all.twice += seen[i].twice;
		for (int k = 0; k < 3; k++)
			all.ways[k] += seen[i].ways[k];
	}
	printf("reads %lu illegal %lu late %lu verbose %lu twice %lu plain %lu fast %lu turbo %lu\n",
		all.reads, all.illegal, all.late, all.verbose, all.twice, all.ways[0], all.ways[1],
		all.ways[2]);
	return all.illegal || all.late;
}
