/* SPDX-License-Identifier: MIT */
/*
 * mmu_interval.pml - intervals of src/mmu: who passed read_retry has what is mapped now.
 *
 * Threads make changes of one page, whose content is a version. One that finds the interval in the
 * tree counts itself as active, which makes the global sequence odd, gives that number to the interval,
 * calls it, makes its change, and the last one out makes the sequence even. Others, elsewhere,
 * only count. The user of the interval inserts it while changes are under way, looks up the version and
 * keeps it if nothing collided. A change that comes from inside of libc hands its
 * callback to a worker and waits for it, but not for ever.
 *
 * What is asked: under the user's lock, when read_retry says that nothing collided, what was looked up
 * and what is kept are the present version; a change that did not give up waiting finds nothing
 * kept; no callback runs once the removal has returned; nothing that was freed is touched.
 *
 * Compile with one of these for a variant that must fail:
 *   GLOBAL_FIRST  read_begin looks at the global sequence before the interval's
 *   SEQ_LATE      the interval gets its sequence behind its callback
 *   EVEN_EACH     every change that ends makes the sequence even
 *   UNCOUNTED     the sequence is read before the change is counted
 *   NO_WAIT       read_begin does not wait
 *   NO_STATE      insertion does not look at the changes under way
 *   STATE_FIRST   ... looks at them before it can be found
 *   NO_WAKE       the last one out wakes nobody
 *   WAKE_FIRST    ... looks who sleeps before it makes the sequence even
 *   WORKER_SEQ    (HANDED) the worker gives the interval its sequence
 *   EARLY_EVEN    (HANDED) who makes the change counts itself out, whatever the worker does
 *   FOR_EVER      (HANDED) who makes the change waits for the worker without a limit
 *   AT_ONCE       (HANDED) nothing is handed over
 *   NO_REMOVE_WAIT removal does not wait for callbacks
 *   CHECK_FIRST   a change asks whether the interval was removed before it counts in it
 *   FREE_AT_ONCE  removal frees the interval without a grace period
 */
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef LOOKUPS
#define LOOKUPS 2
#endif
#define NONE 255

byte version;
byte under_way;
byte seq = 2;
bool waiters, asleep;
byte section[CHANGES + 2]; /* odd: inside; the one before the last is the worker's */

/* The interval. */
bool listed, dead, freed, removed;
byte own_seq, running;
byte snapshot[CHANGES + 2]; /* the state that insertion remembers */

/* Its user. */
bool lock;
byte kept = NONE;

bool libc_lock;
/* The worker's one task. */
bool queued, called;
byte parts; /* who of the two is not through */

#define TOUCH assert(!freed)

inline take(l)
{
	atomic { !l -> l = true }
}

inline uncount()
{
	atomic {
		under_way--;
#ifdef EVEN_EACH
		if
		:: seq % 2 -> seq++
		:: else
		fi;
#else
#ifdef WAKE_FIRST
		w = waiters;
	}
	atomic {
#endif
		if
		:: under_way == 0 && seq % 2 -> seq++
		:: else
		fi
#endif
	}
#ifndef NO_WAKE
#ifndef WAKE_FIRST
	w = waiters;
#endif
	if
	:: w -> asleep = false
	:: else
	fi;
#endif
	w = false
}

inline count()
{
	atomic {
		under_way++;
		if
		:: seq % 2 == 0 -> seq++
		:: else
		fi
	}
}

inline callback()
{
	assert(!removed);
	take(lock);
	kept = NONE;
	lock = false;
	assert(!removed)
}

/* Says the interval its sequence, and calls it. */
inline call_interval()
{
#ifdef CHECK_FIRST
	if
	:: dead -> found = false
	:: else -> running++
	fi;
#else
	atomic { TOUCH; running++ };
	if
	:: dead -> running--; found = false
	:: else
	fi;
#endif
	if
	:: found ->
#ifdef SEQ_LATE
		callback();
		own_seq = seq;
#else
#ifdef UNCOUNTED
		own_seq = s;
#else
		atomic { TOUCH; own_seq = seq };
#endif
		callback();
#endif
		atomic { TOUCH; running-- }
	:: else
	fi
}

proctype change(byte me)
{
	byte s;
	bool found, w;

	section[me]++;
	found = listed;
#ifdef UNCOUNTED
	s = seq | 1;
#endif
	if
	:: found ->
		count();
		call_interval();
		atomic {
			assert(kept == NONE);
			version++;
			found = false
		};
		uncount()
	:: !found -> atomic { assert(kept == NONE); version++ }
	fi;
	section[me]++
}

/* One that does not overlap. */
proctype elsewhere()
{
	bool w;

	count();
	uncount()
}

#ifdef HANDED
/* From inside of libc. */
proctype change_in_libc(byte me)
{
	byte s;
	bool found, w;

	take(libc_lock);
	section[me]++;
	found = listed;
	if
	:: found ->
		count();
#ifdef AT_ONCE
		atomic { TOUCH; running++ };
		own_seq = seq;
		take(libc_lock);
		callback();
		libc_lock = false;
		running--;
		version++;
		uncount();
		called = true;
		queued = true
#else
		/* The task counts in the interval while it is queued. */
		atomic { TOUCH; running++ };
		if
		:: dead -> running--; found = false
		:: else
#ifndef WORKER_SEQ
			-> own_seq = seq
#endif
		fi;
		if
		:: found ->
			parts = 2;
			queued = true;
			if
			:: called
#ifndef FOR_EVER
			:: true /* it has been long enough */
#endif
			fi;
			version++;
#ifdef EARLY_EVEN
			uncount();
#endif
			atomic { parts--; s = parts };
#ifndef EARLY_EVEN
			if
			:: s == 0 -> uncount()
			:: else
			fi
#endif
		:: else -> version++; uncount(); called = true; queued = true
		fi
#endif
	:: else -> version++; called = true; queued = true
	fi;
	section[me]++;
	libc_lock = false
}

proctype worker()
{
	byte s;
	bool w;

	queued;
	if
	:: !called ->
#ifdef WORKER_SEQ
		own_seq = seq;
#endif
		/* The callback allocates. */
		take(libc_lock);
		libc_lock = false;
		callback();
		atomic { TOUCH; running-- };
		called = true;
		atomic { parts--; s = parts };
#ifndef EARLY_EVEN
		if
		:: s == 0 -> uncount()
		:: else
		fi
#endif
	:: else
	fi
}
#endif

inline remember()
{
	d_step {
		k = 0;
		do
		:: k == CHANGES + 2 -> break
		:: else -> snapshot[k] = section[k]; k++
		od;
		k = 0
	}
}

/* All that were inside have been left. */
#define LEFT(k) (snapshot[k] % 2 == 0 || section[k] != snapshot[k])

inline grace_period()
{
	do
	:: k == CHANGES + 2 -> break
	:: else -> atomic { LEFT(k) -> k++ }
	od;
	k = 0
}

inline read_begin()
{
#ifndef NO_STATE
	grace_period();
#endif
#ifdef NO_WAIT
	s = own_seq;
#else
#ifdef GLOBAL_FIRST
	g = seq;
	s = own_seq;
#else
	s = own_seq;
	g = seq;
#endif
	do
	:: s != g -> break
	:: else ->
		waiters = true;
		atomic {
			if
			:: seq == s -> asleep = true
			:: else
			fi
		};
		!asleep;
		g = seq
	od;
	waiters = false;
	g = 0
#endif
}

proctype user()
{
	byte s, g, k, n, v;

#ifdef STATE_FIRST
	remember();
	listed = true;
#else
	listed = true;
	remember();
#endif
	do
	:: n == LOOKUPS -> break
	:: else ->
		read_begin();
		v = version;
		take(lock);
		atomic {
			if
			:: own_seq == s ->
				assert(v == version);
				assert(kept == NONE || kept == version);
				kept = v
			:: else
			fi;
			v = 0;
			s = 0
		};
		lock = false;
		n++
	od;
	n = 0;
	/* remove */
	kept = NONE;
	listed = false;
	dead = true;
#ifndef NO_REMOVE_WAIT
	running == 0;
#endif
	removed = true;
#ifndef FREE_AT_ONCE
	remember();
	grace_period();
#endif
	freed = true
}

init {
	byte i;

	atomic {
		do
		:: i == CHANGES -> break
		:: else -> run change(i); i++
		od;
		i = 0;
#ifdef HANDED
		run change_in_libc(CHANGES);
		run worker();
#else
		run elsewhere();
#endif
		run user()
	}
}
