/* SPDX-License-Identifier: MIT */
/*
 * breakpoint.pml - the breakpoint protocol of src/text/trap.c.
 *
 * A site has two parts, first byte and tail, each OLD or NEW; the first may be
 * TRAP. A core executes what it has fetched, which may be stale: it keeps its own
 * copy of each part, refreshed when the core pleases, part by part, or both by a
 * serializing instruction: a barrier of the writer, or a trap.
 *
 * A thread executes first and tail together: OLD with NEW is the crash that the
 * protocol prevents. A thread that trapped asks the handler, which looks at the
 * published table and the byte between two equal generations.
 *
 * Compile with one of these for a variant that must fail:
 *   NO_BARRIER1, NO_BARRIER2  a barrier left out
 *   NO_BARRIER3               ... the last: no mixture, but a core may still trap
 *                             after apply() returned, when its thread may already
 *                             have blocked SIGTRAP, which the kernel answers by
 *                             killing the program
 *   EARLY_TAIL                the tail is written before the breakpoint is serialized
 *   BYTE_ONCE                 the handler looks at the byte, then at the table, once
 *   REDO                      a handler that finds a pending modification completes
 *                             it, one that finds none lets the thread go on as if
 *                             nothing were there
 */
#define OLD 0
#define NEW 1
#define TRAP 2
#define CORES 2
#define BATCHES 2

byte first = OLD, tail = OLD;    /* memory */
byte cfirst[CORES], ctail[CORES]; /* what each core has fetched */
bool live = false;
byte gen = 0;
byte value = OLD;    /* what the site is when no batch is under way */
bool quiet = true;   /* no batch is under way */
bool pending = false; /* REDO */
byte to = NEW;

inline serialize(c) { cfirst[c] = first; ctail[c] = tail }

inline barrier() { atomic { serialize(0); serialize(1) } }

/* The handler: GO = emulated, AGAIN = run the site again. Else it is not ours. */
proctype core(byte c)
{
	byte g, b, f, t;
	bool found;

end:	do
	:: atomic { cfirst[c] = first }
	:: atomic { ctail[c] = tail }
	:: atomic {
		f = cfirst[c]; t = ctail[c];
		if
		:: f != TRAP ->
			assert(f == t);                    /* no mixture */
			assert(!quiet || f == value)       /* no old code after apply() */
		:: else ->
			assert(!quiet)                     /* no trap after apply() */
		fi
	   }
	   if
	   :: f == TRAP ->
		/* taking the trap serializes */
#ifdef REDO
		found = pending;
		if
		:: found -> first = TRAP; tail = to; first = to; pending = false
		:: else ->
			/* nothing pending: what it trapped on was completed */
			b = first;
			atomic { serialize(c); assert(b != TRAP) }
		fi
#else
#ifdef BYTE_ONCE
		b = first;
		found = live;
#else
		do
		:: g = gen; found = live; b = first;
		   if
		   :: found || g == gen -> break
		   :: else
		   fi
		od;
#endif
		assert(found || b != TRAP)  /* else: a stranger's, delivered to the program */
#endif
		atomic { serialize(c) }
	   :: else
	   fi
	od
}

proctype writer()
{
	byte n = 0;

	do
	:: n == BATCHES -> break
	:: else ->
		to = 1 - value;
		quiet = false;
#ifdef REDO
		pending = true;
#endif
		live = true;
		gen = gen + 1;
		first = TRAP;
#ifdef EARLY_TAIL
		tail = to;
#endif
#ifndef NO_BARRIER1
		barrier();
#endif
		tail = to;
#ifndef NO_BARRIER2
		barrier();
#endif
		first = to;
#ifndef NO_BARRIER3
		barrier();
#endif
#ifdef REDO
		pending = false;
#endif
		live = false;
		gen = gen + 1;
		atomic { value = to; quiet = true };
		n++
	od
}

init {
	atomic { run core(0); run core(1); run writer() }
}
