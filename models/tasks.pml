/* SPDX-License-Identifier: MIT */
/*
 * tasks.pml - tasks RCU: a zone is freed when nobody is in it.
 *
 * A thread goes through a permanent door (it reads the table, is on its way, jumps) into the zone,
 * may leave it for a callback and come back, and may sleep at any point. Its stack holds a
 * return address while it is in the callback, which code in the zone then writes over.
 * The patcher closes the door, serializes, and looks: from outside, if the thread is
 * off the processor, at its place, then its stack, then whether it has been put on since; else
 * by a signal, whose handler waits until the stack is read, or gives up.
 *
 * Compile with one of these for a variant that must fail:
 *   OPEN_DOOR      the door is not closed before the look
 *   NO_DOORWAY     being on the way through the door counts as being outside
 *   NO_RECHECK     it is not asked whether the thread has run since
 *   RECHECK_EARLY  ... but before its stack is read
 *   NO_PC          only the stack is read
 *   NO_STACK       only the place is looked at
 *   NO_WAIT        the handler does not wait for the stack to be read
 *   LATE_COUNTS    what was read of a thread that gave up waiting counts
 *   UNSEEN_CLEAR   a thread that does not answer counts as outside
 */
#define OUT  0 /* outside */
#define WAY  1 /* has read the table and is about to jump */
#define IN   2 /* in the zone, before the call */
#define CALL 3 /* in the callback */
#define TAIL 4 /* back in the zone: the return address has been written over */

bool open = true;
byte pc = OUT;
bool onstack;
bool freed;
bool running = true; /* on a processor */
byte turns;	     /* how often it has been put on one */
bool blocked;	     /* the signal is held back */

/* The question. */
#define NONE  0
#define SENT  1
#define READY 2
#define DONE  3
#define LEFT  4
byte asked = NONE;
byte told_pc;

/* What the patcher knows. */
byte rounds;

/* A step of the thread: it runs, and is not in the handler of the signal. */
#define RUN (running && asked != READY)

proctype thread()
{
	byte i = 0;

	do
	:: i == 2 -> break
	:: atomic { i < 2 && RUN && pc == OUT && open -> pc = WAY }
	:: atomic { i < 2 && RUN && pc == OUT && !open -> break }
	:: atomic { RUN && pc == WAY -> assert(!freed); pc = IN }
	:: atomic { RUN && pc == IN -> assert(!freed); onstack = true; pc = CALL }
	:: atomic { RUN && pc == CALL -> assert(!freed); onstack = false; pc = TAIL }
	:: atomic { RUN && pc == TAIL -> assert(!freed); pc = OUT; i++ }
	/* The handler: takes down where it was, and waits. */
	:: atomic { RUN && asked == SENT && !blocked ->
		told_pc = pc;
#ifdef NO_WAIT
		asked = DONE
#else
		asked = READY
#endif
	   }
	/* It has waited too long. */
	:: atomic { running && asked == READY -> asked = LEFT }
	od
}

/* Off and on the processor, and holding the signal back, at any time. */
proctype scheduler()
{
	byte n = 0;

	do
	:: n >= 3 -> break
	:: atomic { n < 3 && running && asked != READY -> running = false }
	:: atomic { !running -> running = true; turns++; n++ }
	:: atomic { n < 3 && !blocked -> blocked = true; n++ }
	:: atomic { blocked -> blocked = false }
	od;
	blocked = false;
	atomic {
		if
		:: !running -> running = true; turns++
		:: else
		fi
	}
}

#ifdef NO_DOORWAY
#define ENTERED(p) (p == IN || p == TAIL)
#else
#define ENTERED(p) (p == WAY || p == IN || p == TAIL)
#endif

proctype patcher()
{
	bool hit, seen;
	byte before, where;

#ifndef OPEN_DOOR
	open = false;
#endif
	do
	:: rounds == 4 -> break
	:: else ->
		rounds++;
		seen = false;
		hit = false;
		before = turns;
		if
		:: atomic { !running -> where = pc };
#ifdef RECHECK_EARLY
			seen = (before == turns);
#endif
#ifndef NO_PC
			hit = ENTERED(where);
#endif
#ifndef NO_STACK
			hit = hit || onstack;
#endif
#ifndef RECHECK_EARLY
#ifdef NO_RECHECK
			seen = true
#else
			seen = (before == turns)
#endif
#endif
		:: running ->
			atomic {
				if
				:: asked == NONE || asked == DONE || asked == LEFT -> asked = SENT
				:: asked == SENT || asked == READY /* not answered yet */
				fi
			};
			/* It answers, or not in time. */
			if
			:: asked >= READY ->
				where = told_pc;
#ifndef NO_PC
				hit = ENTERED(where);
#endif
#ifndef NO_STACK
				hit = hit || onstack;
#endif
				atomic {
					if
					:: asked == READY -> asked = DONE; seen = true
#ifdef NO_WAIT
					:: asked == DONE -> seen = true
#endif
					:: else ->
#ifdef LATE_COUNTS
						seen = true
#else
						skip
#endif
					fi
				}
			:: true ->
#ifdef UNSEEN_CLEAR
				seen = true
#else
				skip
#endif
			fi
		fi;
		if
		:: seen && !hit -> freed = true; break
		:: else
		fi
	od
}

init {
	atomic { run thread(); run scheduler(); run patcher() }
}
