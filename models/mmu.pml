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
 * start of notifier 1 does. BOTH: thread 1 unregisters notifier 1 in its start, as thread 0 does with 0.
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
 *   WAIT_OPEN       (SELF) ... inside of a change waits for `open`, too
 *   UNCUT           (SELF) ... does not mark it cut there
 *   NO_CALLS_WAIT   (SELF) ... does not wait for callbacks there
 *   CUT_FIRST       (SELF) a callback looks at `cut` before it counts
 *   NO_CUT          (SELF) ... does not look at it
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
byte mine[OWNERS]; /* the thread, plus one, whose callback called it */
byte releases[OWNERS];

/* What the owner does. */
byte pairs[OWNERS];
bool kept[OWNERS];

byte running[OWNERS]; /* callbacks */
bool cut[OWNERS];
byte calls[OWNERS]; /* what the change counts of them */
bool asleep_calls[OWNERS];

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

#define WAIT(word, own, sleeps) \
	do \
	:: word == own -> break \
	:: else -> \
		/* FUTEX_WAIT: if it still is what it was */ \
		atomic { \
			if \
			:: word != own -> sleeps = true \
			:: else \
			fi \
		}; \
		!sleeps \
	od

inline wait_open(i)
{
	WAIT(count[i], 0, asleep[i])
}

inline wait_calls(i, own)
{
	WAIT(calls[i], own, asleep_calls[i])
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

/*
 * Inside of a change, by a callback of notifier 0 or, IS_OF, what it is to unregister itself: only callbacks
 * that run on others are waited for.
 */
#ifdef CROSS
#define IS_OF(i) false
#else
#define IS_OF(i) true
#endif
inline unregister(i, inside)
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
		if
#ifdef WAIT_OPEN
		:: false
#else
		:: inside ->
#ifndef UNCUT
			cut[i] = true;
#endif
			mine[i] = me + 1;
#ifndef NO_CALLS_WAIT
			wait_calls(i, (IS_OF(i) -> 1 : 0))
#endif
#endif
		:: else ->
#ifndef NO_OPEN_WAIT
			wait_open(i)
#endif
		fi;
		take();
		listed[i] = false;
		armed--;
		registry = false;
		atomic {
			/* Its own callback may be what this is called from. */
			assert(running[i] == (inside && IS_OF(i) -> 1 : 0));
			assert(inside || pairs[i] == 0);
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

/* Unless it was unregistered inside of a change. */
inline may_begin(i)
{
#ifdef CUT_FIRST
	atomic { TOUCH(i); begins = !cut[i] };
	if
	:: begins -> calls[i]++
	:: else
	fi
#else
	atomic { TOUCH(i); calls[i]++ };
	begins = !cut[i];
#ifdef NO_CUT
	begins = true;
#endif
	if
	:: begins
	:: else -> ended(i)
	fi
#endif
}

inline ended(i)
{
	atomic { TOUCH(i); calls[i]-- };
	if
	:: cut[i] -> asleep_calls[i] = false
	:: else
	fi
}

/* Whether the callback of thread `me` unregisters a notifier, and which. */
#define STARTS 0
#define ENDS   1
inline leaves(i, which)
{
	if
#ifdef SELF
#ifdef IN_END
	:: me == 0 && i == 0 && which == ENDS -> unregister(0, true)
#else
	:: me == 0 && i == 0 && which == STARTS -> unregister(0, true)
#endif
#ifdef BOTH
	:: me == 1 && i == 1 && which == STARTS -> unregister(1, true)
#endif
#endif
#ifdef CROSS
	:: me == 0 && i == 1 && which == STARTS -> unregister(0, true)
#endif
	:: else
	fi
}

inline start(i)
{
	may_begin(i);
	if
	:: begins ->
		atomic { assert(!gone[i]); running[i]++; pairs[i]++; kept[i] = false; begins = false };
		leaves(i, STARTS);
		atomic { assert(!gone[i] || mine[i] == me + 1); running[i]-- };
		ended(i)
	:: else
	fi
}

inline end_of(i)
{
	may_begin(i);
	if
	:: begins ->
		atomic { assert(!gone[i]); assert(pairs[i] > 0); running[i]++; begins = false };
		leaves(i, ENDS);
		atomic {
			assert(!gone[i] || mine[i] == me + 1);
			running[i]--;
			if
			:: !cut[i] -> pairs[i]--
			:: else
			fi
		};
		ended(i)
	:: else
	fi
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
			STARTED(i) = false;
			lower(i)
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
	bool w, won, begins;

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
	take();
	armed++;
#ifndef NO_NATIVE_WAIT
	!native[0];
#if OPS > 1
	!native[1];
#endif
#endif
	registry = false;
#ifdef GRACE_EARLY
	grace_period();
#endif
	take();
	user[i] = true;
	listed[i] = true;
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
