/* SPDX-License-Identifier: MIT */
/*
 * rcu.h - what the flavours of RCU here share: the head of a callback.
 *
 * A grace period is the time until all readers that there were at its
 * beginning are gone. <shunt/srcu.h> has it for data that callbacks read,
 * <shunt/tasks.h> for code that threads run.
 */
#ifndef SHUNT_RCU_H
#define SHUNT_RCU_H

#include <shunt/shunt.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One thing that waits for a grace period; a member of what is to be freed.
 * The library's from the call that takes it until func is called with it;
 * func may free it, or hand it in again.
 */
struct shunt_rcu_head {
	struct shunt_rcu_head *next;
	void (*func)(struct shunt_rcu_head *head);
};

#ifdef __cplusplus
}
#endif
#endif
