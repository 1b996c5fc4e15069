/* SPDX-License-Identifier: MIT */
/* serve.h - the control thread: takes requests from a mailbox and has them answered. */
#ifndef SHUNT_CONTROL_SERVE_H
#define SHUNT_CONTROL_SERVE_H

#include <stdbool.h>

#include "request.h"

struct shunt_answer {
	size_t len;
	char text[SHUNT_CTL_REPLY];
};

/* Adds a line unless it does not fit as a whole. */
bool shunt_answer_say(struct shunt_answer *a, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Copies a name; tabs and line breaks, which would spoil the line, become '?'. */
void shunt_answer_printable(char *to, size_t size, const char *from);

struct shunt_server {
	struct shunt_ctl_proc *proc;
	void (*carry_out)(const struct shunt_ctl_request *req, struct shunt_answer *a);
	void (*idle)(void); /* after each request and wake-up; may be NULL */
	bool poll; /* looks each second whether the main thread is gone */
	bool quiet; /* the thread's own calls are not recorded */
};

/* Starts the thread, one in a process. 0 or -errno. */
int shunt_serve_start(const struct shunt_server *server);
/* Ends it, and waits until it is gone. */
void shunt_serve_stop(void);
/* In a fork child, which has no such thread. */
void shunt_serve_forget(void);
bool shunt_serving(void);

/* values.c: values, set, changes; else it says that it does not know. */
void shunt_values_carry_out(const struct shunt_ctl_request *req, struct shunt_answer *a);

#endif
