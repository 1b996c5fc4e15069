/* SPDX-License-Identifier: MIT */
/*
 * srcu.pml - grace periods of src/rcu/srcu.c: what a section has found is not freed while it goes on.
 *
 * Readers enter and leave ROUNDS sections each. Who waits replaces the thing, waits for a grace period
 * and frees it, GRACES times. Readers' stores go through store buffers, first in, first out, and
 * are seen by others when the processor pleases, or when a membarrier interrupts it; their loads are
 * done at once. Sums are added up one thread after the other.
 *
 * MOVED: a section is entered by reader 0, told reader 1 by a store, and left by that.
 *
 * Compile with one of these for a variant that must fail:
 *   NO_MEMBARRIER  nothing makes the readers' stores seen
 *   LATE_REPLACE   the thing is replaced behind the membarrier
 *   LOCKS_FIRST    sections entered are added up before those left
 *   KEEP_LOCKS     when looking again, sections entered are not added up again
 *   ONE_PHASE      only the phase in use is waited for
 *   NEXT_PHASE     only the other one, that will be
 *   EARLY_LOAD     a section finds the thing before it is counted, also by its instructions
 *   TOLD_EARLY     (MOVED) the other reader is told before the section is counted
 */
#ifndef READERS
#define READERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef GRACES
#define GRACES 2
#endif

bit phase;
byte current; /* version of the thing */
bool freed[GRACES + 2];
byte sums[READERS * 4]; /* of each reader: entered in phase 0, 1, left in 0, 1 */
#define ENTERED 0
#define LEFT	2

/* Store buffers: entries 1 + phase: entered, 3 + phase: left, 5 and more: passes a version on. */
chan buffer0 = [5] of { byte };
chan buffer1 = [5] of { byte };
byte passed;    /* version + 1 */
bit passed_phase;

inline commit(i, e)
{
	if
	:: e <= 4 -> sums[i * 4 + e - 1]++
	:: e >= 5 -> passed = (e - 5) / 2 + 1; passed_phase = (e - 5) % 2
	fi;
	e = 0
}

/* The processor writes its stores when it likes. */
proctype processor(byte i; chan buffer)
{
	byte e;

end:	do
	:: atomic { buffer?e -> commit(i, e) }
	od
}

#define CHECK assert(!freed[found])

proctype reader(byte i; chan buffer)
{
	byte n, found;
	bit p;

	do
	:: n == ROUNDS -> break
	:: else ->
		p = phase;
#ifdef EARLY_LOAD
		found = current;
#endif
		buffer!(1 + p);
#ifndef EARLY_LOAD
		found = current;
#endif
		CHECK;
		buffer!(3 + p);
		n++
	od
}

#ifdef MOVED
proctype gives(chan buffer)
{
	byte found;
	bit p;

	p = phase;
#ifdef TOLD_EARLY
	found = current;
	buffer!(5 + 2 * found + p);
	buffer!(1 + p)
#else
	buffer!(1 + p);
	found = current;
	CHECK;
	buffer!(5 + 2 * found + p)
#endif
}

proctype takes(chan buffer)
{
	byte found;
	bit p;

	passed > 0;
	found = passed - 1;
	p = passed_phase;
	CHECK;
	buffer!(3 + p)
}
#endif

inline add_up(what, sum, ph)
{
	sum = 0;
	k = 0;
	do
	:: k == READERS -> break
	:: else -> atomic { sum = sum + sums[k * 4 + what + ph]; k++ }
	od;
	k = 0
}

/* Each processor is interrupted when its turn comes, and has written all then. */
inline membarrier()
{
#ifndef NO_MEMBARRIER
	empty(buffer0);
	empty(buffer1)
#else
	skip
#endif
}

inline look_again(ph)
{
	do
	:: add_up(LEFT, u, ph);
#ifndef KEEP_LOCKS
	   add_up(ENTERED, l[ph], ph);
#endif
	   if
	   :: u == l[ph] -> break
	   :: else
	   fi
	od
}

proctype waits()
{
	byte n, k, u, v[2], l[2], old;

	do
	:: n == GRACES -> break
	:: else ->
		old = current;
#ifndef LATE_REPLACE
		current = old + 1;
#endif
#ifdef LOCKS_FIRST
		add_up(ENTERED, l[0], 0);
		add_up(ENTERED, l[1], 1);
		membarrier();
		add_up(LEFT, v[0], 0);
		add_up(LEFT, v[1], 1);
#else
		add_up(LEFT, v[0], 0);
		add_up(LEFT, v[1], 1);
		membarrier();
		add_up(ENTERED, l[0], 0);
		add_up(ENTERED, l[1], 1);
#endif
#ifdef LATE_REPLACE
		current = old + 1;
#endif
		if
#ifdef ONE_PHASE
		:: v[phase] == l[phase]
		:: else ->
			phase = !phase;
			look_again(!phase)
#else
#ifdef NEXT_PHASE
		:: v[!phase] == l[!phase]
		:: else ->
			look_again(!phase);
			phase = !phase
#else
		:: v[0] == l[0] && v[1] == l[1]
		:: else ->
			look_again(!phase);
			phase = !phase;
			look_again(!phase)
#endif
#endif
		fi;
		freed[old] = true;
		n++
	od
}

init {
	atomic {
		run processor(0, buffer0);
		run processor(1, buffer1);
#ifdef MOVED
		run gives(buffer0);
		run takes(buffer1);
#else
		run reader(0, buffer0);
		run reader(1, buffer1);
#endif
		run waits()
	}
}
