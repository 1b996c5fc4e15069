/* SPDX-License-Identifier: MIT */
/*
 * lock.pml - the lock of src/lock: whoever sleeps is woken, while the mode is switched.
 *
 * Threads take and release one lock, ROUNDS times each; one more process switches the
 * mode. Sleeps have no time limit: a wake that is missed is a state without a way out, which
 * spin reports, as it does two threads inside.
 *
 * An exchange of the word is one step that may find the word changed; so what was read
 * before it is kept where it matters. Spinning is waiting for what it looks for, or giving
 * up at any time. A plain release is written when its instruction runs (which it
 * is says the text at that moment: `patched`), and seen by others later: it
 * is in `buffer` until the processor pleases, or patching serializes it.
 *
 * Compile with one of these for a variant that must fail:
 *   NO_RECHECK    who enters does not look at `parking` again after it is counted
 *   CHECK_FIRST   ... looks before it is counted: what a missing fence comes to
 *   EARLY_PARKING `parking` is set before the releases are patched
 *   NO_DRAIN      patching does not serialize: plain releases are still in buffers
 *   EARLY_NATIVE  the releases are patched back without waiting for `parked`
 *   SPLIT_RELEASE a release asks for its mode, then releases
 *   NO_CALLED     a release that calls a ticket does not change the low half
 *   NO_WAKE_NEXT  the last ticket's release wakes nobody
 *   KEEP_WOKEN    who sleeps again leaves WOKEN
 *   TAKE_WOKEN    who is registered but has not slept yet leaves WOKEN to others
 *   SPIN_WOKEN    who spins sets WOKEN, and leaves it when it gives up
 *   SLEEP_FREE    who sleeps does not look whether the lock is held
 */
#ifndef THREADS
#define THREADS 3
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef SWITCHES
#define SWITCHES 2
#endif
#define NONE 255 /* sleeps without a ticket */

/* The word. */
byte next, owner, count, called;
bool woken;

bool patched, parking;
byte parked;
byte inside;
byte asleep[THREADS]; /* 0, or for whom it sleeps: NONE, or its ticket plus one */
bool buffer[THREADS];

#define FREE (next == owner)

inline drain(i)
{
	if
	:: buffer[i] -> buffer[i] = false; owner++
	:: else
	fi
}

/* FUTEX_WAIT: if the low half is what it was. */
inline futex_wait(whom)
{
	atomic {
		if
		:: count == vcount && woken == vwoken && called == vcalled -> asleep[me] = whom
		:: else
		fi
	}
	asleep[me] == 0
}

#define WAKE(i, whom) :: asleep[i] == whom -> asleep[i] = 0

inline wake_one()
{
	atomic {
		if
		:: asleep[0] == NONE -> asleep[0] = 0
		:: asleep[1] == NONE -> asleep[1] = 0
#if THREADS > 2
		:: asleep[2] == NONE -> asleep[2] = 0
#endif
		:: else
		fi
	}
}

inline wake_all(whom)
{
	d_step {
		i = 0;
		do
		:: i == THREADS -> break
		:: i < THREADS && asleep[i] == whom -> asleep[i] = 0; i++
		:: else -> i++
		od;
		i = 0
	}
}

/* shunt_lock_unlock_park(): `whom` to wake. */
inline release_park()
{
	whom = 0;
	atomic {
		owner++;
		if
		:: count > 0 && !FREE ->
#ifndef NO_CALLED
			called++;
#endif
			whom = owner + 1
		:: count > 0 && FREE && !woken ->
			woken = true;
#ifndef NO_WAKE_NEXT
			whom = NONE
#endif
		:: else
		fi;
		anybody = count > 0
	}
	if
	:: anybody && !parking ->
		if
		:: whom && whom != NONE -> wake_all(whom)
		:: else
		fi;
		wake_all(NONE)
	:: else ->
		if
		:: whom == NONE -> wake_one()
		:: whom && whom != NONE -> wake_all(whom)
		:: else
		fi
	fi;
	whom = 0;
	anybody = false
}

proctype thread(byte me)
{
	byte ticket, whom, vcount, vcalled, vowner, n, i;
	bool vwoken, vfree, awake, anybody;

again:	/* fast path and slow one alike begin by this exchange */
	if
	:: atomic { FREE -> next++ }; goto got
	:: parking -> goto spin
	:: !parking -> goto take_ticket
	fi;

	/* --- spin_for(), not registered */
spin:	if
	:: atomic { FREE -> next++; if :: awake -> woken = false :: else fi; awake = false }; goto got
	:: atomic { !FREE && count > 0 && !woken -> woken = true; awake = true }; goto spin
	:: true
	fi;
	/* enter() */
#ifdef CHECK_FIRST
	if
	:: parking -> parked++
	:: else -> goto take_ticket
	fi;
#else
	parked++;
#ifndef NO_RECHECK
	if
	:: parking
	:: else -> parked--; goto take_ticket
	fi;
#endif
#endif
	/* register_or_take() */
	atomic {
#ifndef SPIN_WOKEN
		if
		:: awake -> woken = false
		:: else
		fi;
#endif
		if
		:: FREE -> next++; awake = false; goto taken
		:: else -> count++
		fi;
#ifdef TAKE_WOKEN
		awake = false
#else
		awake = true
#endif
	}
sleep:	/* sleep_once() */
	atomic { vfree = FREE; vowner = owner; vcount = count; vwoken = woken; vcalled = called }
	if
#ifndef SLEEP_FREE
	:: vfree
	:: else ->
#else
	:: true ->
#endif
		if
#ifndef KEEP_WOKEN
#ifdef TAKE_WOKEN
		:: vwoken && awake ->
#else
		:: vwoken ->
#endif
			atomic {
				if
#ifndef SLEEP_FREE
				:: owner == vowner && count == vcount && woken == vwoken &&
						called == vcalled && !FREE ->
#else
				:: true ->
#endif
					woken = false
				:: else -> goto look
				fi;
				vwoken = false
			}
#endif
		:: else
		fi;
		futex_wait(NONE);
		awake = true
	fi;
look:	/* spin_for(), registered; or it is time for a ticket */
	if
	:: atomic { FREE -> next++; count--; if :: awake -> woken = false :: else fi; awake = false }; goto taken
	:: parking -> goto sleep
	:: atomic {
		ticket = next; next++; count--;
		if :: awake -> woken = false :: else fi;
		awake = false
	   };
	   parked--;
	   goto wait
	fi;
taken:	parked--;
	goto got;

	/* --- with a ticket */
take_ticket:
	atomic {
		ticket = next; next++;
		if :: awake -> woken = false :: else fi;
		awake = false
	}
wait:	if
	:: owner == ticket -> goto got
	:: parking
	fi;
	/* sleep_with() */
#ifdef CHECK_FIRST
	if
	:: parking -> parked++
	:: else -> goto wait
	fi;
#else
	parked++;
#ifndef NO_RECHECK
	if
	:: parking
	:: else -> parked--; goto wait
	fi;
#endif
#endif
	atomic {
		if
		:: owner == ticket -> goto taken
		:: else -> count++
		fi;
		vowner = owner; vcount = count; vwoken = woken; vcalled = called
	}
	do
	:: vowner != ticket && parking ->
		futex_wait(ticket + 1);
		d_step { vowner = owner; vcount = count; vwoken = woken; vcalled = called }
	:: vowner == ticket || !parking -> break
	od;
	count--;
	parked--;
	goto wait;

got:	atomic {
		ticket = 0; vcount = 0; vcalled = 0; vowner = 0; vwoken = false; vfree = false;
		assert(inside == 0);
		inside++
	}
	inside--;
#ifdef SPLIT_RELEASE
	if
	:: !patched -> owner++
	:: else -> release_park()
	fi;
#else
	if
	:: atomic { !patched -> buffer[me] = true }; atomic { drain(me) }
	:: atomic { patched -> skip }; release_park()
	fi;
#endif
	n++;
	if
	:: n < ROUNDS -> goto again
	:: else
	fi
}

proctype switcher()
{
	byte n, i;

	do
	:: n == SWITCHES -> break
	:: else ->
#ifdef EARLY_PARKING
		parking = true;
#endif
		d_step {
			patched = true;
#ifndef NO_DRAIN
			i = 0;
			do
			:: i == THREADS -> break
			:: else -> drain(i); i++
			od;
			i = 0
#endif
		}
		parking = true;
		n++;
		if
		:: n == SWITCHES -> break
		:: else
		fi;
		parking = false;
#ifndef EARLY_NATIVE
		parked == 0;
#endif
		patched = false;
		n++
	od
}

init {
	byte i;

	atomic {
		do
		:: i == THREADS -> break
		:: else -> run thread(i); i++
		od;
		run switcher()
	}
}
