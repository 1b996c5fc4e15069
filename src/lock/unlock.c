/* SPDX-License-Identifier: MIT */
/*
 * unlock.c - the release of a lock in park mode. It runs in the place of one instruction:
 * it saves every register that it changes, uses no vector registers, and no errno.
 *
 * Release and question are one exchange of the whole word; after it the lock's memory
 * may be gone. The futex call uses the address as a number only: for a private futex the
 * kernel does not look at what is there, and a wake that reaches a stranger is one
 * that its loop has to expect.
 */
#include <unistd.h>

#include "lock.h"
#include "word.h"

static void wake(struct shunt_lock *l, int n, uint32_t bits)
{
#ifdef __x86_64__
	register long timeout __asm__("r10") = 0, unused __asm__("r8") = 0, bitset __asm__("r9") = bits;
	long result = SYS_futex;

	__asm__ volatile("syscall"
			 : "+a"(result)
			 : "D"(l), "S"((long)(FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG)), "d"((long)n),
			 "r"(timeout), "r"(unused), "r"(bitset)
			 : "rcx", "r11", "memory");
#else
	syscall(SYS_futex, l, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, n, NULL, NULL, bits);
#endif
}

/* Same attribute as what it is called by: that saves no more registers than it uses itself. */
#ifdef __x86_64__
#define KEEPS_REGISTERS __attribute__((no_caller_saved_registers))
#else
#define KEEPS_REGISTERS
#endif

/*
 * Who has a ticket is called: CALLED makes a sleep that is about to begin fail. All
 * with the bit, for a ticket 31 later has the same. Who has none is only woken if
 * no other is awake: WOKEN says so, and makes such a sleep fail, too. While the mode
 * is on its way to native, all are woken, lest those without a ticket wait for a time limit:
 * then there may always be others with tickets.
 */
KEEPS_REGISTERS __attribute__((noinline)) static void release_and_wake(struct shunt_lock *l)
{
	uint64_t was = __atomic_load_n(&l->word, __ATOMIC_RELAXED), now;
	uint32_t bits;

	do {
		now = was + SERVED;
		bits = 0;
		if (was & PARKERS) {
			if (!is_free(now)) {
				now = (now & ~UINT64_C(0xffffffff)) | (uint32_t)(now + CALLED);
				bits = bit_of(owner_of(now));
			} else if (!(was & WOKEN)) {
				now |= WOKEN;
				bits = BIT_NONE;
			}
		}
	} while (!__atomic_compare_exchange_n(&l->word, &was, now, false, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED));
	if ((was & PARKERS) && !__atomic_load_n(&shunt_lock_parking, __ATOMIC_RELAXED))
		wake(l, INT_MAX, bits | BIT_NONE);
	else if (bits)
		wake(l, bits == BIT_NONE ? 1 : INT_MAX, bits);
}

/* Most often there is nobody to wake: with few registers. */
SHUNT_API void shunt_lock_unlock_park(struct shunt_lock *l)
{
	uint64_t was = __atomic_load_n(&l->word, __ATOMIC_RELAXED);

	while (!(was & PARKERS))
		if (__atomic_compare_exchange_n(&l->word, &was, was + SERVED, false, __ATOMIC_SEQ_CST,
			    __ATOMIC_RELAXED))
			return;
	release_and_wake(l);
}
