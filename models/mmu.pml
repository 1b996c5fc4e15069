/* SPDX-License-Identifier: MIT */
/*
 * mmu.pml - notifiers of src/mmu: registering, a change's start and end, release, unregistering, exit.
 *
 * Threads change a page. A place that is not armed makes the call as ever; an armed one makes a
 * change of it: a section, in which those that are in the list have their `open` raised, are
 * looked at for `dead` and called; the call; end for just those. Owners of notifiers register, keep
 * translations of the page while it is not being changed, and unregister; or a callback
 * unregisters what it is called for, and the process may exit meanwhile.
 *
 * What is asked: when the page changes nobody keeps a translation of it; an end has had its start
 * and a start its end; release is called once; after unregister has returned no callback runs and
 * none has begun without an end; nothing that was freed is touched; all come to their ends.
 *
 * With grace periods what is waited for is known to be right from srcu.pml: here they look at the sections.
 *
 * SELF: the start that thread 0 calls of notifier 0 unregisters it. IN_END: its end does. CROSS: the
 * start of notifier 1 does, which the same change may have been told to before.
 *
 * Compile with one of these for a variant that must fail:
 *   NO_GRACE	     register does not wait for changes under way
 *   GRACE_EARLY     ... waits for them before the list has the notifier
 *   NO_NATIVE_WAIT  ... not for threads that are in the call that they made before
 *   HOLD_REGISTRY   (SELF) ... waits for changes while it holds the registry
 *   NO_STARTED      end is called of all that are in the list
 *   END_FIRST       end is called before the change is made
 *   CHECK_FIRST     a change looks at `dead` before it raises `open`: a fence that is missing
 *   NO_DEAD         it does not look at `dead`
 *   LOWER_EARLY     it lowers `open` before it calls end
 *   NO_OPEN_WAIT    unregister does not wait for `open`
 *   WAIT_OWN        (SELF) ... waits for its own change's, too
 *   KEEP_OWN        (SELF) ... does not take itself out of its own change
 *   CUT_TWICE       (IN_END) a change whose end unregistered the notifier lowers `open` all the same
 *   UNLINK_FIRST    ... takes it out of the list before it waits
 *   FREE_AT_ONCE    its memory is used again without a grace period
 *   ASK_RELEASED    whether release was called is asked, then noted
 *   DEAD_FIRST      who calls release marks it `dead` before, not behind it
 *   LOSER_DEAD      (EXIT) unregister marks it, though release is still running
 *   UNSECTIONED     a change that came by an armed place looks whether anybody is registered, and is no
 *                   section where nobody is
 *   NO_WAKE	     who lowers `open` wakes nobody
 *   WAKE_FIRST      ... looks whether it has to before it lowers it
 */
#ifndef OPS
#define OPS 2
#endif
#ifndef OWNERS
#define OWNERS 1
#endif

bool registry;
byte armed;	      /* how many want it to be */
#ifdef UNSECTIONED
bool anybody;
#endif
bool native[OPS];     /* inside of a call that was made unarmed */
byte section[OPS + 1]; /* odd: inside; the last is exit's */

/* The notifiers. */
bool user[OWNERS]; /* its owner's: registered */
bool listed[OWNERS], dead[OWNERS], released[OWNERS], freed[OWNERS];
byte count[OWNERS]; /* open */
bool asleep[OWNERS];
bool gone[OWNERS]; /* unregister has returned */
byte releases[OWNERS];

/* What the owner does. */
byte pairs[OWNERS];
bool kept[OWNERS];

byte running[OWNERS]; /* callbacks */

/* By change: who has had its start. */
bool started[OPS * OWNERS];
#define STARTED(i) started[me * OWNERS + i]

#define TOUCH(i) assert(!freed[i])

inline take()
{
	atomic { !registry -> registry = true }
}

/* --- waiting for open == own ----------------------------------------------------- */

inline lower(i)
{
#ifdef WAKE_FIRST
	w = dead[i];
	atomic { TOUCH(i); assert(count[i] > 0); count[i]-- };
#else
	atomic { TOUCH(i); assert(count[i] > 0); count[i]-- };
	atomic { TOUCH(i); w = dead[i] };
#endif
#ifndef NO_WAKE
	if
	:: w -> asleep[i] = false
	:: else
	fi;
#endif
	w = false
}

inline wait_open(i, own)
{
	do
	:: count[i] == own -> break
	:: else ->
		/* FUTEX_WAIT: if it still is what it was */
		atomic {
			if
			:: count[i] != own -> asleep[i] = true
			:: else
			fi
		};
		!asleep[i]
	od
}

/* --- grace periods of the changes --------------------------------------------------- */

inline wait_section(k)
{
	s = section[k];
	if
	:: s % 2 -> section[k] != s
	:: else
	fi;
	s = 0
}

inline grace_period()
{
	wait_section(0);
#if OPS > 1
	wait_section(1);
#endif
	wait_section(OPS)
}

/* --- release and unregister ----------------------------------------------------------- */

inline call_release(i)
{
#ifdef DEAD_FIRST
	dead[i] = true;
#endif
#ifdef ASK_RELEASED
	won = !released[i];
	released[i] = true;
#else
	atomic { TOUCH(i); won = !released[i]; released[i] = true };
#endif
	if
	:: won ->
		atomic { assert(!gone[i]); releases[i]++; kept[i] = false; won = false; running[i]++ };
		atomic { assert(!gone[i]); running[i]-- };
		/* Nothing is kept: now changes need not be told to it. */
		dead[i] = true
	:: else
	fi
}

/* `cuts`: called on a thread whose change may have told it. */
inline unregister(i, cuts)
{
	take();
	won = user[i];
	user[i] = false;
	registry = false;
	if
	:: won ->
		won = false;
		call_release(i);
#ifdef LOSER_DEAD
		dead[i] = true;
#else
		dead[i]; /* whoever calls release has come to its end */
#endif
#ifdef UNLINK_FIRST
		listed[i] = false;
#endif
#if !defined KEEP_OWN && !defined WAIT_OWN
		if
		:: cuts && STARTED(i) -> atomic { STARTED(i) = false; pairs[i]-- }; lower(i)
		:: else
		fi;
#endif
#ifndef NO_OPEN_WAIT
#ifdef KEEP_OWN
		if
		:: cuts && STARTED(i) -> wait_open(i, 1)
		:: else -> wait_open(i, 0)
		fi;
#else
		wait_open(i, 0);
#endif
#endif
		take();
		listed[i] = false;
		armed--;
		registry = false;
		atomic {
			/* Its own callback may be what this is called from. */
			assert(running[i] == 0 || (cuts && running[i] == 1));
			assert(pairs[i] == 0);
			assert(releases[i] == 1);
			gone[i] = true
		};
#ifdef FREE_AT_ONCE
		freed[i] = true
#endif
	:: else -> won = false
	fi
}

/* --- a change ------------------------------------------------------------------------ */

inline change()
{
	/* Who has no translation now gets none before the end. */
	d_step {
		assert(!kept[0]);
#if OWNERS > 1
		assert(!kept[1]);
#endif
	}
}

inline start(i)
{
	atomic { assert(!gone[i]); running[i]++; pairs[i]++; kept[i] = false };
#if defined SELF && !defined IN_END && !defined CROSS
	if
	:: me == 0 && i == 0 -> unregister(0, true)
	:: else
	fi;
#endif
#ifdef CROSS
	if
	:: me == 0 && i == 1 -> unregister(0, true)
	:: else
	fi;
#endif
	atomic {
		assert(!gone[i] || (me == 0 && i == 0));
		running[i]--
	}
}

inline end_of(i)
{
	atomic { assert(!gone[i]); assert(pairs[i] > 0); running[i]++ };
#if defined SELF && defined IN_END
	if
	:: me == 0 && i == 0 -> unregister(0, true)
	:: else
	fi;
#endif
	atomic {
		assert(!gone[i] || (me == 0 && i == 0));
		running[i]--;
		if
		:: !gone[i] -> pairs[i]--
		:: else
		fi
	}
}

inline tell_start(i)
{
	if
	:: listed[i] ->
		TOUCH(i);
#ifdef CHECK_FIRST
		if
		:: dead[i]
		:: else -> count[i]++; STARTED(i) = true
		fi;
#else
		atomic { TOUCH(i); count[i]++ };
		if
#ifndef NO_DEAD
		:: dead[i] -> lower(i)
#endif
		:: else -> STARTED(i) = true
		fi;
#endif
		if
		:: STARTED(i) -> start(i)
		:: else
		fi
	:: else
	fi
}

inline tell_end(i)
{
	if
	:: listed[i] ->
		TOUCH(i);
		if
#ifndef NO_STARTED
		:: STARTED(i) ->
#else
		:: true ->
#endif
#ifdef LOWER_EARLY
			STARTED(i) = false;
			lower(i);
			end_of(i)
#else
			end_of(i);
			if
#ifdef CUT_TWICE
			:: true ->
#else
			:: STARTED(i) ->
#endif
				STARTED(i) = false;
				lower(i)
			:: else
			fi
#endif
#ifndef NO_STARTED
		:: else
#endif
		fi
	:: else
	fi
}

proctype op(byte me)
{
	byte s;
	bool w, won;

	if
	:: atomic { !armed -> native[me] = true };
		change();
		native[me] = false
	:: atomic { armed -> skip };
#ifdef UNSECTIONED
		if
		:: !anybody -> change(); goto made
		:: else
		fi;
#endif
		section[me]++;
		tell_start(0);
#if OWNERS > 1
		tell_start(1);
#endif
#ifndef END_FIRST
		change();
#endif
		tell_end(0);
#if OWNERS > 1
		tell_end(1);
#endif
#ifdef END_FIRST
		change();
#endif
		section[me]++
	fi;
#ifdef UNSECTIONED
made:	skip
#endif
}

/* --- owners --------------------------------------------------------------------------- */

inline register(i)
{
#ifdef GRACE_EARLY
	grace_period();
#endif
	take();
	user[i] = true;
	listed[i] = true;
	armed++;
#ifndef NO_NATIVE_WAIT
	!native[0];
#if OPS > 1
	!native[1];
#endif
#endif
#ifdef UNSECTIONED
	anybody = true;
#endif
#ifdef HOLD_REGISTRY
	grace_period();
#endif
	registry = false;
#if !defined NO_GRACE && !defined GRACE_EARLY && !defined HOLD_REGISTRY
	grace_period()
#endif
}

proctype owner(byte me)
{
	byte s;
	bool w, won;

	register(me);
	/* Keeps a translation, if nothing is being changed, nor all is over. */
	atomic {
		if
		:: pairs[me] == 0 && releases[me] == 0 -> kept[me] = true
		:: else
		fi
	};
	unregister(me, false);
	/* What had taken it off before may not have returned yet. */
	gone[me];
	grace_period();
	freed[me] = true
}

/* exit(): once, while the others go on. */
proctype exits()
{
	byte s;
	bool w, won;

	section[OPS]++;
	if
	:: listed[0] -> call_release(0)
	:: else
	fi;
#if OWNERS > 1
	if
	:: listed[1] -> call_release(1)
	:: else
	fi;
#endif
	section[OPS]++
}

init {
	byte i;

	atomic {
		do
		:: i == OPS -> break
		:: else -> run op(i); i++
		od;
		i = 0;
		do
		:: i == OWNERS -> break
		:: else -> run owner(i); i++
		od;
		i = 0;
#ifdef EXIT
		run exits()
#endif
	}
}
