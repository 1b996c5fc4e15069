/* SPDX-License-Identifier: MIT */
/* around.h - what the documents' examples take for granted. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <shunt/control.h>
#include <shunt/ftrace.h>
#include <shunt/ring.h>
#include <shunt/imv.h>
#include <shunt/mmu.h>
#include <shunt/ops.h>
#include <shunt/shunt.h>
#include <shunt/text.h>
#include <shunt/trace.h>

#include "../../examples/mmu_adapters/fabric.h"

extern void *site, *to;
extern uint64_t sample;
void work(void);
