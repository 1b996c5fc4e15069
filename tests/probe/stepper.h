/* SPDX-License-Identifier: MIT */
/*
 * stepper.h - a process that takes threads over at the gate (victims.S), brings
 * them to a certain instruction, and lets them go where they then are, with or
 * without a signal.
 */
#ifndef STEPPER_H
#define STEPPER_H

#include <stdbool.h>
#include <stdint.h>

#define STEPPER_MAX 16384

/* Where each step of a dry run stood. Shared by both. */
struct stepper_trace {
	uint32_t n;
	uintptr_t pc[STEPPER_MAX];
};

/* Before anything else: the process is a copy of this one. */
struct stepper_trace *stepper_start(void);
void stepper_end(void);

/* 0, or -errno. The thread must not have passed its gate. */
int stepper_take(int tid);
/* From the gate to where it is at pc for the nth time. 0, or -ENOENT: it is past the end. */
int stepper_step(int tid, uintptr_t pc, uint32_t nth);
/* From the gate to the end; the trace is filled in. */
int stepper_run(int tid);
/* The signal interrupts it where it is. */
int stepper_signal(int tid, int sig);
int stepper_let_go(int tid);

#endif
