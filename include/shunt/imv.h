/* SPDX-License-Identifier: MIT */
/*
 * imv.h - immediate values: variables that live in the instructions.
 *
 * What: a scalar of 1, 2, 4 or 8 bytes that is read by one `mov $value,
 * register`: no load, no cache line, nothing to evict. To set it rewrites the
 * operand of every such instruction, live.
 *
 * Why: for values that are read all the time and set now and then: a batch size, a
 * limit, a time-out, a table's mask.
 *
 *   SHUNT_DEFINE_IMV(type, name, value)         an immediate value
 *   SHUNT_DEFINE_STATIC_IMV(type, name, value)  one of this unit only
 *   SHUNT_DECLARE_IMV(type, name)               one that is defined elsewhere
 *   shunt_imv_read(name)                        its value
 *   shunt_imv_set(name, value)                  sets it
 *
 * Example:
 *
 *	SHUNT_DEFINE_STATIC_IMV(unsigned, batch, 64);
 *
 *	unsigned fill(void)
 *	{
 *		unsigned n = 0;
 *
 *		while (n < shunt_imv_read(batch))
 *			n++;
 *		return n;
 *	}
 *
 *	int main(void)
 *	{
 *		return shunt_imv_set(batch, 128) || fill() != 128;
 *	}
 *
 * How it works: each read is a site (site.h) whose operand is aligned, so that
 * it is written by one store. Setting finds the sites in all objects and has
 * shunt/text.h change them in one batch.
 *
 * Caveats:
 * - A decision is better made by a key (key.h): a test of an immediate value
 *   costs more than a load of a flag that is in the cache.
 * - A read is volatile: it is not moved out of a loop, and two reads are two.
 * - Before its object's constructors have run (in an IFUNC resolver), a read says
 *   0, whatever the initial value.
 */
#ifndef SHUNT_IMV_H
#define SHUNT_IMV_H

#include <string.h>

#include <shunt/site.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shunt_imv {
	struct shunt_var var;
};

/*
 * Sets an immediate value by its bits. For shunt_imv_set(). Any thread at any
 * time, in constructors and before main too; not in signal handlers. Blocks,
 * allocates. When it returns 0, every read that begins later says the new value;
 * until then either. A value that is the present one writes nothing. Otherwise
 * nothing has changed:
 * -EBUSY	a site does not hold what it should (another tool has changed it)
 * -ENOMEM, or what shunt_text_apply() says.
 */
SHUNT_API int shunt_imv_set_bits(struct shunt_imv *imv, uint64_t bits);

#ifdef __cplusplus
}
#endif

/* --- definitions ------------------------------------------------------------ */

#ifdef __cplusplus
template <typename T, bool IsEnum> struct shunt_type_of_ {
	static const int value = T(-1) < T(1) ? SHUNT_TYPE_SIGNED : SHUNT_TYPE_UNSIGNED;
};
template <typename T> struct shunt_type_of_<T, true> {
	static const int value = shunt_type_of_<__underlying_type(T), false>::value;
};
template <> struct shunt_type_of_<bool, false> {
	static const int value = SHUNT_TYPE_BOOL;
};
template <> struct shunt_type_of_<float, false> {
	static const int value = SHUNT_TYPE_FLOAT;
};
template <> struct shunt_type_of_<double, false> {
	static const int value = SHUNT_TYPE_FLOAT;
};
template <typename T> struct shunt_type_of_<T *, false> {
	static const int value = SHUNT_TYPE_POINTER;
};
#define SHUNT_TYPE_(t) shunt_type_of_<t, __is_enum(t)>::value
#else
#define SHUNT_TYPE_(t) \
	_Generic((t)0, _Bool: SHUNT_TYPE_BOOL, float: SHUNT_TYPE_FLOAT, double: SHUNT_TYPE_FLOAT, \
		char: (char)-1 < 0 ? SHUNT_TYPE_SIGNED : SHUNT_TYPE_UNSIGNED, \
		signed char: SHUNT_TYPE_SIGNED, short: SHUNT_TYPE_SIGNED, \
		int: SHUNT_TYPE_SIGNED, long: SHUNT_TYPE_SIGNED, long long: SHUNT_TYPE_SIGNED, \
		unsigned char: SHUNT_TYPE_UNSIGNED, unsigned short: SHUNT_TYPE_UNSIGNED, \
		unsigned: SHUNT_TYPE_UNSIGNED, unsigned long: SHUNT_TYPE_UNSIGNED, \
		unsigned long long: SHUNT_TYPE_UNSIGNED, default: SHUNT_TYPE_POINTER)
#endif

#define SHUNT_IMV_(storage, type, name, initial) \
	SHUNT_STATIC_ASSERT_(sizeof(type) == 1 || sizeof(type) == 2 || sizeof(type) == 4 || \
				     sizeof(type) == 8, \
		"shunt: an immediate value is a scalar of 1, 2, 4 or 8 bytes"); \
	storage __typeof__(type) shunt_value_##name = initial; \
	storage struct shunt_imv name = {{&shunt_value_##name, #name, NULL, \
		SHUNT_KIND_IMV, sizeof(type), SHUNT_TYPE_(type), 0, 0}}; \
	SHUNT_DEFINED_(struct shunt_imv, name, &name, 1)

/* At file scope. `initial` is a constant expression. */
#define SHUNT_DEFINE_IMV(type, name, initial) SHUNT_IMV_(, type, name, initial)
#define SHUNT_DEFINE_STATIC_IMV(type, name, initial) SHUNT_IMV_(static, type, name, initial)
#define SHUNT_DECLARE_IMV(type, name) \
	extern struct shunt_imv name; \
	SHUNT_DECLARED_(struct shunt_imv, name, &name) \
	extern __typeof__(type) shunt_value_##name

/* --- reading and setting ------------------------------------------------------ */

/*
 * `mov $operand, register` whose operand is the last of it and aligned. Of four
 * bytes: prefixes that do nothing here (DS) fill up; sign-extended, which nobody
 * sees. Of eight: there may be no more than 15 bytes, so NOPs before it.
 */
#define SHUNT_IMV_READ_ \
	".if %c[size] == 8\n\t" \
	".p2align 3\n\t" \
	".byte 0x66, 0x0f, 0x1f, 0x44, 0, 0\n" \
	".Lshunt%=:\n" \
	".Lshuntn%=:\n\t" \
	"movabsq $0, %[out]\n\t" \
	".else\n" \
	".Lshunt%=:\n\t" \
	".p2align 2, 0x3e\n" \
	".Lshuntn%=:\n\t" \
	".byte 0x3e\n\t" \
	"movq $0, %[out]\n\t" \
	".endif\n" \
	".Lshunte%=:\n\t" \
	SHUNT_SITE_RECORD_(".", "%c[ref]", "%c[kind]", "0")

/* shunt_imv_read(name): its value, of its type. Any context. */
#if !SHUNT_SITES && defined(__cplusplus)
template <typename T> static inline T shunt_load_(T *at)
{
	T value;

	__atomic_load(at, &value, __ATOMIC_RELAXED);
	return value;
}
#define shunt_imv_read(name) shunt_load_(&shunt_value_##name)
#elif !SHUNT_SITES
#define shunt_imv_read(name) \
	__extension__({ \
		__typeof__(shunt_value_##name) shunt_v_; \
		__atomic_load(&shunt_value_##name, &shunt_v_, __ATOMIC_RELAXED); \
		shunt_v_; \
	})
#elif defined(__cplusplus)
template <typename T, struct shunt_imv &Imv>
static inline __attribute__((always_inline)) T shunt_imv_read_()
{
	uint64_t bits;
	T value;

	__asm__ volatile(SHUNT_IMV_READ_
			 : [out] "=r"(bits)
			 : [ref] "i"(&shunt_ref_<struct shunt_imv, Imv>::ref), [size] "i"(sizeof(T)),
			 [kind] "i"(SHUNT_KIND_IMV | (sizeof(T) == 8 ? SHUNT_SITE_WIDE : 0)));
	memcpy(&value, &bits, sizeof value);
	return value;
}
#define shunt_imv_read(name) shunt_imv_read_<__typeof__(shunt_value_##name), name>()
#else
#define shunt_imv_read(name) \
	__extension__({ \
		union { \
			uint64_t bits; \
			__typeof__(shunt_value_##name) value; \
		} shunt_u_; \
		__asm__ volatile(SHUNT_IMV_READ_ \
				 : [out] "=r"(shunt_u_.bits) \
				 : [ref] "i"(&shunt_ref_##name), \
				 [size] "i"(sizeof(shunt_value_##name)), \
				 [kind] "i"(SHUNT_KIND_IMV | \
					 (sizeof(shunt_value_##name) == 8 ? SHUNT_SITE_WIDE : 0))); \
		shunt_u_.value; \
	})
#endif

/* shunt_imv_set(name, value): as shunt_imv_set_bits(). */
#ifdef __cplusplus
template <typename T> static inline int shunt_imv_set_(struct shunt_imv *imv, T value)
{
	uint64_t bits = 0;

	memcpy(&bits, &value, sizeof value);
	return shunt_imv_set_bits(imv, bits);
}
#define shunt_imv_set(name, value) \
	shunt_imv_set_<__typeof__(shunt_value_##name)>(&(name), (value))
#else
#define shunt_imv_set(name, v) \
	__extension__({ \
		__typeof__(shunt_value_##name) shunt_v_ = (v); \
		uint64_t shunt_bits_ = 0; \
		memcpy(&shunt_bits_, &shunt_v_, sizeof shunt_v_); \
		shunt_imv_set_bits(&(name), shunt_bits_); \
	})
#endif

#endif
