/* SPDX-License-Identifier: MIT */
/*
 * record_finish.c - the end of a recording: the rest of the events, the
 * account, and nothing left behind.
 *
 * Order matters: children that still run are switched off before the last
 * pages are taken; the trace is complete on disk before the shared memory is
 * removed; `complete yes` is written last of all files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/request.h"
#include "record.h"

/* ---- children that are still alive ---- */

/* Switches one off; whether it did within a second. */
static bool stop_process(struct shunt_recording *r, int fd, unsigned entry)
{
	char reply[SHUNT_CTL_REPLY + 1];
	pid_t holder;

	return r->ctl->procs[entry].control &&
	       shunt_mail_send(r->ctl, fd, entry, "stop", 4, reply, 1000, &holder) > 0;
}

/* A program that ends right after a fork: its child is still coming up. */
static void await_children(const struct shunt_ctl *ctl)
{
	struct timespec pause = { 0, 1000000 };

	for (int i = 0; i < 100 && atomic_load(&ctl->forking); i++)
		nanosleep(&pause, NULL);
}

static unsigned stop_survivors(struct shunt_recording *r)
{
	struct shunt_ctl *mapped;
	char path[sizeof r->shm + 8];
	unsigned n = 0;
	int fd;

	await_children(r->ctl);
	atomic_store(&r->ctl->ended, 1);
	snprintf(path, sizeof path, "%s/ctl", r->shm);
	if (shunt_ctl_map(path, &mapped, &fd))
		return 0;
	for (unsigned i = 0; i < SHUNT_CTL_PROCS; i++) {
		struct shunt_ctl_proc *p = &r->ctl->procs[i];

		if (p->state != SHUNT_CTL_LIVE || !shunt_ctl_alive(p))
			continue;
		n++;
		stop_process(r, fd, i);
	}
	close(fd);
	shunt_ctl_unmap(mapped);
	return n;
}

/* ---- the account ---- */

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

/* 1234567 as 1,234,567. */
const char *shunt_grouped(uint64_t n, char buf[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			buf[at++] = ',';
		buf[at++] = digits[i];
	}
	buf[at] = 0;
	return buf;
}

static void say_events(const struct shunt_recording *r, const struct shunt_record_totals *t)
{
	char n[32];

	shunt_say("%s event%s of %u thread%s in %s (%.1f MiB)", shunt_grouped(t->read, n),
		plural(t->read), t->threads, plural(t->threads), r->dir,
		(double)r->bytes / (1 << 20));
}

static void say_losses(const struct shunt_recording *r, const struct shunt_record_totals *t)
{
	char n[32];

	if (t->discarded)
		shunt_say("lost %s event%s: the buffer was full. Record fewer functions (-F, -N), "
			  "or give it more memory (-b)",
			shunt_grouped(t->discarded, n), plural(t->discarded));
	if (t->overwritten)
		shunt_say("overwritten %s older event%s, as asked for by --mode overwrite",
			shunt_grouped(t->overwritten, n), plural(t->overwritten));
	if (r->unwritten)
		shunt_say("lost %s event%s: they could not be written (%s)",
			shunt_grouped(r->unwritten, n), plural(r->unwritten), strerror(r->write_error));
	if (t->torn)
		shunt_say("%s event%s begun by threads that were killed before its end",
			shunt_grouped(t->torn, n), plural(t->torn));
	if (!t->discarded && !t->overwritten && !r->unwritten)
		shunt_say("lost nothing");
}

static void say_patches(const struct shunt_ctl *ctl)
{
	char a[32], b[32];
	uint64_t programs = atomic_load(&ctl->with_sites);

	shunt_say("%s function%s in %llu program%s; %s switched, in %.2f ms",
		shunt_grouped(ctl->functions, a), plural(ctl->functions), (unsigned long long)programs,
		plural(programs), shunt_grouped(ctl->toggled, b), (double)ctl->patch_ns / 1e6);
}

static void say_no_sites(void)
{
	shunt_say("the program has no patchable functions: compile it with "
		  "-fpatchable-function-entry=5, or with -pg -mfentry -mnop-mcount");
}

/* Each process that one was refused in has said so; what no process has may have a name only. */
static void say_probes(const struct shunt_ctl *ctl, const char *line)
{
	uint64_t set = atomic_load(&ctl->probes);

	for (unsigned i = 0; *line && i < 64; i++, line += *line == '\n') {
		int n = (int)strcspn(line, "\n");

		if (!(set >> i & 1))
			shunt_say("the probe '%.*s' found no place in any process", n, line);
		line += n;
	}
}

static void say_unmodified(const struct shunt_ctl *ctl)
{
	if (atomic_load(&ctl->unmodified))
		shunt_say("not compiled for tracing: its own functions were traced as they are; -F "
			  "'libc.so.6:malloc*' or --unmodified OBJECT take in those of libraries");
}

static void say_notes(const struct shunt_ctl *ctl, bool sites, bool events, const char *probes)
{
	for (unsigned i = 0; i < SHUNT_CTL_NOTES; i++) {
		const struct shunt_ctl_note *n = &ctl->notes[i];
		uint32_t kind = atomic_load_explicit(&n->kind, memory_order_acquire);

		if (kind == SHUNT_NOTE_NONE || kind == SHUNT_NOTE_NOSITES)
			continue;
		shunt_say("process %u (%.16s)%s: %.*s", n->pid, n->comm,
			kind == SHUNT_NOTE_ERROR ? " is not recorded" : "", SHUNT_CTL_NOTE_TEXT,
			n->text);
	}
	if (events && atomic_load(&ctl->processes) && !atomic_load(&ctl->points))
		shunt_say("no tracepoint matched: 'shunt list --points PID' shows a program's");
	if (probes && atomic_load(&ctl->processes))
		say_probes(ctl, probes);
	if (sites || events || (probes && atomic_load(&ctl->processes)) || atomic_load(&ctl->points))
		return;
	if (atomic_load(&ctl->processes))
		say_no_sites();
	else if (!atomic_load(&ctl->next_image))
		shunt_say("the agent was not loaded: the program is a script of a static "
			  "interpreter, or its loader ignores LD_PRELOAD");
}

void shunt_record_sum(const struct shunt_recording *r, struct shunt_record_totals *sum)
{
	struct shunt_ring_thread t;

	shunt_ring_account(r->ring, &t, NULL, NULL);
	*sum = (struct shunt_record_totals){ t.written, t.discarded, t.overwritten, t.read,
		t.torn, 0 };
}

/* ---- the end ---- */

void shunt_remove_shared(const struct shunt_recording *r)
{
	static const char *const files[] = { "pool", "ctl", "libshunt-agent.so" };
	char path[sizeof r->shm + 24];

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "%s/%s", r->shm, files[i]);
		unlink(path);
	}
	rmdir(r->shm);
}

static int write_down(struct shunt_recording *r, struct shunt_record_totals *sum)
{
	int err;

	shunt_dir_images(r);
	if (r->write_error)
		r->unwritten = shunt_ring_held(r->ring);
	err = shunt_dir_threads(r, sum);
	if (!err)
		err = shunt_dir_info(r, true);
	close(r->data);
	if (err)
		shunt_say("cannot complete %s: %s", r->dir, strerror(-err));
	return err ? 1 : r->write_error ? 1 : 0;
}

int shunt_record_finish(struct shunt_recording *r, bool recovering)
{
	struct shunt_record_totals sum = { 0 };
	unsigned survivors = stop_survivors(r);
	int code;

	shunt_drain_rest(r);
	code = write_down(r, &sum);
	say_notes(r->ctl, atomic_load(&r->ctl->functions) > 0, r->events, r->probes);
	if (atomic_load(&r->ctl->functions))
		say_patches(r->ctl);
	say_unmodified(r->ctl);
	shunt_left_out_say(r);
	say_events(r, &sum);
	say_losses(r, &sum);
	if (survivors)
		shunt_say("%u process%s still run%s and %s not recorded any more", survivors,
			survivors == 1 ? "" : "es", survivors == 1 ? "s" : "",
			survivors == 1 ? "is" : "are");
	if (recovering)
		shunt_say("%s is complete", r->dir);
	shunt_remove_shared(r);
	return code;
}
