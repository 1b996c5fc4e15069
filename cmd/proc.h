/* SPDX-License-Identifier: MIT */
/* proc.h - finding and talking to recorded processes, by number. */
#ifndef SHUNT_CMD_PROC_H
#define SHUNT_CMD_PROC_H

#include <stdbool.h>
#include <sys/types.h>

#include "control/ctl.h"

struct shunt_target {
	struct shunt_ctl *ctl;
	int fd;		/* of the control file, for locks */
	char dir[256];	/* of the recording in shared memory */
	pid_t pid;	/* that was asked for */
	bool recorder;	/* it is the recorder: all of its processes are meant */
	uint32_t ns_pid; /* its number in its own namespace */
};

/* "123" as a process number. Prints what is wrong. 0 or 2. */
int shunt_target_number(const char *command, const char *word, pid_t *pid);

/* Finds the recording that a process belongs to. Prints why not. 0 or 1. */
int shunt_target_find(pid_t pid, struct shunt_target *t);
void shunt_target_close(struct shunt_target *t);

/* Both, for "123". 0, 1 or 2. */
int shunt_target_open(const char *command, const char *word, struct shunt_target *t);

/* The next entry from *at on that is meant and alive; NULL at the end. */
struct shunt_ctl_proc *shunt_target_next(const struct shunt_target *t, unsigned *at);

/*
 * Sends a request to one entry. 0, or 1 after printing why there is no answer,
 * or that the answer is a refusal.
 */
int shunt_target_ask(const struct shunt_target *t, unsigned entry, const char *text, size_t len,
	char reply[SHUNT_CTL_REPLY + 1], size_t *reply_len);

/*
 * Asks for a listing, answer by answer: "VERB FROM GLOB". `show` prints one and returns the number
 * to go on from, 0 at the end. What is wrong has been said, of `command`: 1, or 2 for a
 * glob that is too long; 0.
 */
int shunt_target_list(const struct shunt_target *t, unsigned entry, const char *command,
	const char *verb, const char *glob,
	uint32_t (*show)(void *arg, unsigned pid, const char *reply, size_t len), void *arg);

#endif
