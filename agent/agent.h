/* SPDX-License-Identifier: MIT */
/* agent.h - what the agent's files share. See agent.c. */
#ifndef SHUNT_AGENT_AGENT_H
#define SHUNT_AGENT_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "control/ctl.h"
#include "trace/record.h"

struct shunt_agent {
	struct shunt_ctl *ctl;	     /* NULL: this process is not recorded */
	struct shunt_ctl_proc *proc; /* NULL: cannot be controlled */
	struct shunt_ring *ring;
	uint32_t image;
	bool trace_children;
	bool want_control;
	char dir[64];  /* of the recording, in shared memory */
	char out[1024]; /* the trace directory */
};

extern struct shunt_agent shunt_agent;

/* agent.c: looks for new objects, writes their symbol files. Any thread. */
void shunt_agent_refresh(void);
/* Adds what a change did to the recording's totals. */
void shunt_agent_count(const struct shunt_record_change *res);
/* Symbol files of objects that have none yet. */
void shunt_agent_export(void);

/* serve.c: starts the control thread. */
void shunt_agent_serve(void);

/* probes.c: the lines of SHUNT_PROBES, before main. */
void shunt_agent_add_probes(const char *text);
/* Those that waited for an object, after one was loaded. */
void shunt_agent_retry_probes(void);
/* Requests about probes; false: it is about something else. On the control thread. */
struct shunt_ctl_request;
struct shunt_answer;
bool shunt_agent_probes(const struct shunt_ctl_request *req, struct shunt_answer *a);

/* loads.c: on the control thread, after a dlopen that was not waited for. */
void shunt_agent_pending_loads(void);

/* Symbols that take the place of libc's. */
#define SHUNT_INTERPOSE __attribute__((visibility("default")))

/* The next object's function of this name; NULL if there is none. */
typedef void shunt_agent_fn(void);
shunt_agent_fn *shunt_agent_next(const char *name);

#endif
