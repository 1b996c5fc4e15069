/* SPDX-License-Identifier: MIT */
/* ring_events.c - write events to a ring, and read them back. */
#include <stdio.h>
#include <unistd.h>

#include <shunt/ring.h>

struct sample {
	int id;
	double value;
};

int main(void)
{
	struct shunt_ring_options options = {.size = 1 << 20};
	struct shunt_ring_page_ref ref;
	struct shunt_ring_info info;
	struct shunt_ring *ring;
	char path[64];
	int n = 0, err;

	snprintf(path, sizeof path, "/dev/shm/shunt-example-%d", (int)getpid());
	err = shunt_ring_create(path, &options, &ring);
	if (err) {
		fprintf(stderr, "shunt_ring_create: %d\n", err);
		return 1;
	}
	for (int i = 0; i < 1000; i++) {
		struct sample s = {i, i * 0.5};

		shunt_ring_write(ring, 7, &s, sizeof s);
	}
	shunt_ring_reap(ring, 1); /* nobody writes any more */
	shunt_ring_info(ring, &info);
	while (!shunt_ring_page_next(ring, &ref)) {
		struct shunt_ring_cursor c;
		struct shunt_ring_event e;

		shunt_ring_events(ref.page, info.page_size, &c);
		while (shunt_ring_event_next(&c, &e) == 1)
			n += e.tag == 7 && ((const struct sample *)e.data)->id == n;
		shunt_ring_page_release(ring, &ref);
	}
	shunt_ring_close(ring);
	unlink(path);
	printf("%d events\n", n);
	return n != 1000;
}
