/* SPDX-License-Identifier: MIT */
/*
 * inquire.h - asking a thread that runs where it stands, by a signal. All of it with
 * the look's lock held.
 *
 * A slot is one question. Its state says whose turn it is, with a number that tells
 * this question from those before:
 *
 *   SENT     the signal is on its way
 *   CLAIMED  the thread's handler writes its registers
 *   READY    they are there, and the thread waits: what is on its stack stays
 *   DONE     by the one who asked: the thread may go on
 *   LEFT     by the thread: it waited too long, what was read of it does not count
 *
 * READY goes to DONE or LEFT by an exchange, so that both agree. A handler that comes
 * late finds another number, and returns.
 */
#ifndef SHUNT_RCU_INQUIRE_H
#define SHUNT_RCU_INQUIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHUNT_INQUIRE_SLOTS 256
/* As in ucontext: r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip. */
#define SHUNT_INQUIRE_REGS 17
enum { SHUNT_INQUIRE_RSP = 15, SHUNT_INQUIRE_RIP = 16 };

struct shunt_inquiry {
	uint32_t state;
	int32_t tid; /* 0: free */
	uint64_t sent_ns;
	uint64_t reg[SHUNT_INQUIRE_REGS];
};

/* Our handler is in place. 0, -EBUSY: no signal is free, -errno. */
int shunt_inquire_prepare(void);

/* From now on this one; 0: a free one is looked for. */
void shunt_inquire_use(int sig);

/*
 * The thread has a question, or has had one that it has not answered yet. The
 * slot's number, -EAGAIN: no slot or no room for signals now, -ESRCH.
 */
int shunt_inquire_send(int tid);

/* A slot that is READY, from `from` on; -1 if there is none. */
int shunt_inquire_next(unsigned from);
struct shunt_inquiry *shunt_inquire_slot(int slot);
/* Lets the thread go on. Whether it has waited until now. */
bool shunt_inquire_done(int slot);

/* A count of answers, and waiting until it is another one, or for some time. */
uint32_t shunt_inquire_answers(void);
void shunt_inquire_wait(uint32_t seen, uint64_t ns);

/* The slots of threads that are gone: those for which alive() says no. */
void shunt_inquire_reap(bool (*alive)(int tid, void *arg), void *arg);

/* Nobody's: in a fork child. */
void shunt_inquire_forget(void);

extern int shunt_inquire_signal;    /* 0: not chosen yet */
extern uint64_t shunt_inquire_sent; /* signals, in all */

#endif
