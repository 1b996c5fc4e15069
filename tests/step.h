/* SPDX-License-Identifier: MIT */
/*
 * step.h - something happens at a given instruction: the processor's trap flag stops after
 * each one, and SIGTRAP's handler counts.
 *
 *   sigaction(SIGTRAP, .sa_sigaction = step_trap, SA_SIGINFO ..)
 *   step = 0; due = 17; at_due = fn; stepping = true; step_flag(); work(); stepping = false;
 */
#ifndef STEP_H
#define STEP_H

#include <signal.h>
#include <stdbool.h>
#include <ucontext.h>

static volatile long step, due;
static volatile bool stepping;
static void (*at_due)(void); /* may jump away */

static void step_trap(int sig, siginfo_t *info, void *uc)
{
	ucontext_t *u = uc;

	(void)sig;
	(void)info;
	u->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
	if (!stepping)
		return;
	if (++step == due)
		at_due();
	else
		u->uc_mcontext.gregs[REG_EFL] |= 0x100;
}

static void step_flag(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushf\n\torl $0x100, (%%rsp)\n\tpopf\n\t"
			 "lea 128(%%rsp), %%rsp"
			 :
			 :
			 : "cc", "memory");
}

#endif
