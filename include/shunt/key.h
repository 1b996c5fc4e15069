/* SPDX-License-Identifier: MIT */
/*
 * key.h - static keys: branches that are decided in the instructions.
 *
 * What: a branch on a key is a NOP or a jump. While the key is as the branch
 * expects (false where it says unlikely, true where it says likely), the branch
 * is a NOP: no load, no compare, no register, no branch predicted. Enabling or
 * disabling the key rewrites each of its branches, live.
 *
 * Why: for what is off nearly always, or nearly never changes: debugging,
 * statistics, a feature that the configuration turns on.
 *
 *   SHUNT_DEFINE_KEY_FALSE(name)	    a key that begins as false
 *   SHUNT_DEFINE_KEY_TRUE(name)	    ... as true
 *   SHUNT_DEFINE_STATIC_KEY_FALSE(name), _TRUE(name)   of this unit only
 *   SHUNT_DECLARE_KEY_FALSE(name), _TRUE(name)	  defined elsewhere
 *   SHUNT_DEFINE_KEY_ARRAY_FALSE(name, n), _TRUE(name, n), SHUNT_DECLARE_...
 *   shunt_key_unlikely(name)		    the branch: seldom true
 *   shunt_key_likely(name)		    the branch: mostly true
 *   shunt_key_unlikely_at(name, i), shunt_key_likely_at(name, i)
 *					    of an array's element, i a constant
 *   shunt_key_enable(name), shunt_key_disable(name)	plain
 *   shunt_key_inc(name), shunt_key_dec(name)		counted
 *   shunt_key_enabled(name)		    is it, as a value
 *   shunt_keys_set(keys, on, n)	    many keys in one batch
 *
 * Example:
 *
 *	SHUNT_DEFINE_STATIC_KEY_FALSE(verbose);
 *
 *	int work(int x)
 *	{
 *		if (shunt_key_unlikely(verbose))
 *			printf("working on %d\n", x);
 *		return x * 2;
 *	}
 *
 *	int main(void)
 *	{
 *		work(1);
 *		shunt_key_enable(verbose);
 *		return work(2) != 4;
 *	}
 *
 * How it works: each branch is a site (site.h) of two or five bytes. Compiled as
 * a jump, it is what the assembler makes of the distance. Compiled as a NOP it is
 * five bytes long: an assembler cannot make a NOP as long as a jump would be
 * whose label the compiler may have put into another section (.text.unlikely).
 *
 * Caveats:
 * - A key that changes often is a variable: each change costs some microseconds
 *   (bench/site).
 * - Before its object's constructors have run (in an IFUNC resolver), a branch
 *   goes by the key's first value.
 */
#ifndef SHUNT_KEY_H
#define SHUNT_KEY_H

#include <stdbool.h>

#include <shunt/site.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shunt_key {
	struct shunt_var var;
	uint64_t enabled; /* how often */
};

/*
 * Sets keys[i] to on[i], for all i in one batch: as shunt_key_set(). With an
 * error none has changed.
 */
SHUNT_API int shunt_keys_set(struct shunt_key *const *keys, const bool *on, size_t n);

/*
 * Sets a key, whatever its count was. Any thread at any time, in constructors and
 * before main too; not in signal handlers. Blocks, allocates. When it returns 0,
 * every branch that is reached later goes by the new value; until then by
 * either. Setting what is set writes nothing. Otherwise nothing has changed:
 * -EBUSY	a site does not hold what it should (another tool has changed it)
 * -ENOMEM, or what shunt_text_apply() says.
 */
SHUNT_API int shunt_key_set(struct shunt_key *key, bool on);

/*
 * Counted: the first shunt_key_inc() enables, the last shunt_key_dec() disables.
 * As shunt_key_set(); -EOVERFLOW: more often disabled than enabled.
 */
SHUNT_API int shunt_key_count(struct shunt_key *key, int by);

#ifdef __cplusplus
}
#endif

#define shunt_key_enable(name)	shunt_key_set(&(name).key, true)
#define shunt_key_disable(name) shunt_key_set(&(name).key, false)
#define shunt_key_inc(name)	shunt_key_count(&(name).key, 1)
#define shunt_key_dec(name)	shunt_key_count(&(name).key, -1)
/* A load: for where the value is wanted and not a branch. Any context. */
#define shunt_key_enabled(name) (__atomic_load_n(&(name).key.enabled, __ATOMIC_RELAXED) != 0)

/* --- definitions ------------------------------------------------------------ */

/* Two types, so that a branch knows what its key was at first. */
#ifdef __cplusplus
struct shunt_key_false {
	struct shunt_key key;
	static const int first = 0;
	constexpr explicit shunt_key_false(const char *name = NULL)
		: key{{NULL, name, NULL, SHUNT_KIND_KEY, 8, SHUNT_TYPE_BOOL, 0, 0}, 0}
	{
	}
};
struct shunt_key_true {
	struct shunt_key key;
	static const int first = 1;
	constexpr explicit shunt_key_true(const char *name = NULL)
		: key{{NULL, name, NULL, SHUNT_KIND_KEY, 8, SHUNT_TYPE_BOOL, 0, 0}, 1}
	{
	}
};
#define SHUNT_KEY_INIT_(name, on)  (#name)
#define SHUNT_KEYS_INIT_(name, n, on)
#else
struct shunt_key_false {
	struct shunt_key key;
};
struct shunt_key_true {
	struct shunt_key key;
};
#define SHUNT_KEY_VALUE_(name, on) \
	{{{NULL, #name, NULL, SHUNT_KIND_KEY, 8, SHUNT_TYPE_BOOL, 0, 0}, on}}
#define SHUNT_KEY_INIT_(name, on)     = SHUNT_KEY_VALUE_(name, on)
#define SHUNT_KEYS_INIT_(name, n, on) = {[0 ...(n) - 1] = SHUNT_KEY_VALUE_(name, on)}
#endif

/* All at file scope. */
#define SHUNT_DEFINE_KEY_FALSE(name) \
	struct shunt_key_false name SHUNT_KEY_INIT_(name, 0); \
	SHUNT_DEFINED_(struct shunt_key, name, &name.key, 1)
#define SHUNT_DEFINE_KEY_TRUE(name) \
	struct shunt_key_true name SHUNT_KEY_INIT_(name, 1); \
	SHUNT_DEFINED_(struct shunt_key, name, &name.key, 1)
#define SHUNT_DEFINE_STATIC_KEY_FALSE(name) \
	static struct shunt_key_false name SHUNT_KEY_INIT_(name, 0); \
	SHUNT_DEFINED_(struct shunt_key, name, &name.key, 1)
#define SHUNT_DEFINE_STATIC_KEY_TRUE(name) \
	static struct shunt_key_true name SHUNT_KEY_INIT_(name, 1); \
	SHUNT_DEFINED_(struct shunt_key, name, &name.key, 1)
#define SHUNT_DECLARE_KEY_FALSE(name) \
	extern struct shunt_key_false name; \
	SHUNT_DECLARED_(struct shunt_key, name, &name.key) \
	extern struct shunt_key_false name
#define SHUNT_DECLARE_KEY_TRUE(name) \
	extern struct shunt_key_true name; \
	SHUNT_DECLARED_(struct shunt_key, name, &name.key) \
	extern struct shunt_key_true name
#define SHUNT_DEFINE_KEY_ARRAY_FALSE(name, n) \
	__extension__ struct shunt_key_false name[n] SHUNT_KEYS_INIT_(name, n, 0); \
	SHUNT_DEFINED_(struct shunt_key, name, &name[0].key, n)
#define SHUNT_DEFINE_KEY_ARRAY_TRUE(name, n) \
	__extension__ struct shunt_key_true name[n] SHUNT_KEYS_INIT_(name, n, 1); \
	SHUNT_DEFINED_(struct shunt_key, name, &name[0].key, n)
#define SHUNT_DECLARE_KEY_ARRAY_FALSE(name, n) \
	extern struct shunt_key_false name[n]; \
	SHUNT_DECLARED_(struct shunt_key, name, &name[0].key) \
	extern struct shunt_key_false name[n]
#define SHUNT_DECLARE_KEY_ARRAY_TRUE(name, n) \
	extern struct shunt_key_true name[n]; \
	SHUNT_DECLARED_(struct shunt_key, name, &name[0].key) \
	extern struct shunt_key_true name[n]

/* --- branches ------------------------------------------------------------------ */

#define SHUNT_KEY_SITE_(label) \
	".Lshunt%=:\n" \
	".Lshuntn%=:\n\t" \
	".if %c[jumps]\n\t" \
	"jmp " label "\n\t" \
	".else\n\t" \
	".byte 0x0f, 0x1f, 0x44, 0, 0\n\t" \
	".endif\n" \
	".Lshunte%=:\n\t" \
	SHUNT_SITE_RECORD_(label, "%c[ref]", "%c[kind]", "%c[index]")

/* Jumps to the label while the key is `on`; the key was `first` at first. */
#define SHUNT_KEY_KIND_(on, first) \
	(SHUNT_KIND_KEY | ((on) ? SHUNT_SITE_JUMP_ON : 0) | \
		((on) == (first) ? SHUNT_SITE_JUMPS : 0))

#if !SHUNT_SITES
#define shunt_key_unlikely(name)       __builtin_expect(shunt_key_enabled(name), 0)
#define shunt_key_likely(name)	       __builtin_expect(shunt_key_enabled(name), 1)
#define shunt_key_unlikely_at(name, i) shunt_key_unlikely(name[i])
#define shunt_key_likely_at(name, i)   shunt_key_likely(name[i])
#elif defined(__cplusplus)
/* What a key's or an array's unit needs to know of it. */
template <typename T, T &Key> struct __attribute__((visibility("hidden"))) shunt_key_ref_ {
	static struct shunt_key *const ref;
	static const int first = T::first;
};
template <typename T, T &Key>
struct shunt_key *const shunt_key_ref_<T, Key>::ref = &Key.key;
template <typename T, size_t N, T (&Keys)[N]>
struct __attribute__((visibility("hidden"))) shunt_key_ref_<T[N], Keys> {
	static struct shunt_key *const ref;
	static const int first = T::first;
};
template <typename T, size_t N, T (&Keys)[N]>
struct shunt_key *const shunt_key_ref_<T[N], Keys>::ref = &Keys[0].key;

template <typename R, unsigned Index, int On>
static inline __attribute__((always_inline)) bool shunt_key_branch_()
{
	__asm__ goto(SHUNT_KEY_SITE_("%l[jumped]")
		     :
		     : [ref] "i"(&R::ref), [jumps] "i"(On == R::first),
		     [kind] "i"(SHUNT_KEY_KIND_(On, R::first)), [index] "i"(Index)
		     :
		     : jumped);
	return !On;
jumped:
	return On;
}
#define SHUNT_KEY_BRANCH_(name, i, on) \
	__builtin_expect(shunt_key_branch_<shunt_key_ref_<__typeof__(name), name>, i, on>(), !(on))
#define shunt_key_unlikely(name)       SHUNT_KEY_BRANCH_(name, 0, 1)
#define shunt_key_likely(name)	       SHUNT_KEY_BRANCH_(name, 0, 0)
#define shunt_key_unlikely_at(name, i) SHUNT_KEY_BRANCH_(name, SHUNT_INDEX_(name, i), 1)
#define shunt_key_likely_at(name, i)   SHUNT_KEY_BRANCH_(name, SHUNT_INDEX_(name, i), 0)
template <size_t N, size_t Size> struct shunt_index_ {
	static_assert(N < Size && N < 65536, "shunt: an array of keys has no such element");
	static const unsigned value = N;
};
#define SHUNT_INDEX_(name, i) (shunt_index_<i, sizeof(name) / sizeof((name)[0])>::value)
#else
#define SHUNT_FIRST_(name) \
	(__builtin_types_compatible_p(__typeof__(name), struct shunt_key_true) || \
		__builtin_types_compatible_p(__typeof__(name), struct shunt_key_true[]))
#define SHUNT_KEY_BRANCH_(name, i, on) \
	__extension__({ \
		__label__ shunt_jumped_; \
		bool shunt_on_ = on; \
		__asm__ goto(SHUNT_KEY_SITE_("%l[shunt_jumped_]") \
			     : \
			     : [ref] "i"(&shunt_ref_##name), [jumps] "i"((on) == SHUNT_FIRST_(name)), \
			     [kind] "i"(SHUNT_KEY_KIND_(on, SHUNT_FIRST_(name))), [index] "i"(i) \
			     : \
			     : shunt_jumped_); \
		shunt_on_ = !(on); \
	shunt_jumped_: \
		__builtin_expect(shunt_on_, !(on)); \
	})
#define shunt_key_unlikely(name)       SHUNT_KEY_BRANCH_(name, 0, 1)
#define shunt_key_likely(name)	       SHUNT_KEY_BRANCH_(name, 0, 0)
#define SHUNT_INDEX_(name, i) \
	__extension__({ \
		_Static_assert((i) < sizeof(name) / sizeof((name)[0]) && (i) < 65536, \
			"shunt: an array of keys has no such element"); \
	})
#define shunt_key_unlikely_at(name, i) \
	__extension__({ \
		SHUNT_INDEX_(name, i); \
		SHUNT_KEY_BRANCH_(name, i, 1); \
	})
#define shunt_key_likely_at(name, i) \
	__extension__({ \
		SHUNT_INDEX_(name, i); \
		SHUNT_KEY_BRANCH_(name, i, 0); \
	})
#endif

#endif
