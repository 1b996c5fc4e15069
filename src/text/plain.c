/* SPDX-License-Identifier: MIT */
/*
 * plain.c - the strategy for a process with a single thread.
 *
 * Nobody else can be executing a site, and the caller executes this. The write
 * itself, or the return from it, serializes the one core that matters; should
 * the thread move to another core, the kernel's switch does.
 */
#include <errno.h>
#include <string.h>

#include "text/write.h"

int shunt_plain(struct shunt_batch *b)
{
	struct shunt_batch back = *b;
	struct shunt_writer w;
	int err;

	if (b->status.threads != 1)
		return shunt_batch_fail(b, -ENOTSUP, NULL, "the process has more than one thread");
	err = shunt_writer_open(&w, b);
	if (err)
		return err;
	err = shunt_writer_write(&w, b, SHUNT_WRITE_WHOLE);
	back.undo = true;
	if (err && shunt_writer_write(&w, &back, SHUNT_WRITE_WHOLE))
		err = shunt_batch_fail(b, -EIO, b->e[0].addr, "the text could not be written back");
	else if (err)
		shunt_batch_fail(b, err, NULL, "the text cannot be written: %s", strerror(-err));
	shunt_writer_close(&w);
	return err;
}
