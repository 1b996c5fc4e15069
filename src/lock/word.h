/* SPDX-License-Identifier: MIT */
/* word.h - the parts of a lock's word (lock.h), and the futex calls on it. */
#ifndef SHUNT_LOCK_WORD_H
#define SHUNT_LOCK_WORD_H

#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#include <shunt/lock.h>

_Static_assert(sizeof(struct shunt_lock) == 8, "ABI");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a futex is the word's low half");

#define PARKERS	  UINT64_C(0xffff)    /* how many */
#define PARKER	  UINT64_C(1)
#define WOKEN	  (UINT64_C(1) << 16) /* a registered sleeper, or one that spins, is awake */
#define CALLED	  (UINT64_C(1) << 17) /* counts calls of tickets */
#define SERVED	  (UINT64_C(1) << 48)
#define NEXT_MASK (UINT64_C(0xffff) << 32)

/* Whom a wake is for: who has a ticket, by its number, or who has none. */
#define BIT_NONE (1u << 31)

static inline uint32_t bit_of(uint16_t ticket)
{
	return 1u << ticket % 31;
}

static inline uint16_t next_of(uint64_t w)
{
	return (uint16_t)(w >> 32);
}

static inline uint16_t owner_of(uint64_t w)
{
	return (uint16_t)(w >> 48);
}

static inline bool is_free(uint64_t w)
{
	return next_of(w) == owner_of(w);
}

/* With one ticket more given away. */
static inline uint64_t ticketed(uint64_t w)
{
	return (w & ~NEXT_MASK) | (uint64_t)(uint16_t)(next_of(w) + 1) << 32;
}

static inline uint64_t look(const struct shunt_lock *l)
{
	return __atomic_load_n(&l->word, __ATOMIC_ACQUIRE);
}

static inline bool exchange(struct shunt_lock *l, uint64_t was, uint64_t now)
{
	return __atomic_compare_exchange_n(&l->word, &was, now, false, __ATOMIC_SEQ_CST,
		__ATOMIC_RELAXED);
}

#endif
