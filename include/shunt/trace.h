/* SPDX-License-Identifier: MIT */
/*
 * trace.h - tracepoints: places in a program that say what happens there, when asked.
 *
 * What: a tracepoint has typed fields. While nobody asks it is one NOP (key.h) and its
 * arguments are not evaluated. Asked for, it writes an event into the ring, calls probes
 * of the program's own, or both. Switched by `shunt record -e`, `shunt enable`, or the
 * program itself; live.
 *
 * Why: to see what a program does in production without having paid for it before.
 *
 *   SHUNT_TRACEPOINT(provider, name, field, ...)   what it is; in a header, or a unit
 *     shunt_integer(type, name), shunt_real(type, name), shunt_string(name),
 *     shunt_array(type, name, count), shunt_sequence(type, name),
 *     shunt_enumeration(type, name, labels)        its fields, 12 at most
 *   shunt_trace(provider, name, value, ...)	  the place
 *   SHUNT_MARK(name), shunt_mark(name, "format", ...)  the same, printf's way
 *   shunt_trace_register(provider, name, function, data), shunt_trace_unregister(...)
 *   shunt_point_on(provider, name)		  does anybody ask, for costly arguments
 *   shunt_trace_enable(glob, filter, ring), shunt_trace_disable(glob)
 *
 * Example:
 *
 *	SHUNT_TRACEPOINT(net, packet, shunt_integer(unsigned, len), shunt_string(device));
 *
 *	static unsigned long bytes;
 *
 *	static void count(unsigned len, const char *device, void *data)
 *	{
 *		(void)device;
 *		*(unsigned long *)data += len;
 *	}
 *
 *	int main(void)
 *	{
 *		shunt_trace(net, packet, 1, "nobody listens");
 *		if (shunt_trace_register(net, packet, count, &bytes))
 *			return 1;
 *		shunt_trace(net, packet, 1500, "eth0");
 *		return shunt_trace_unregister(net, packet, count, &bytes) || bytes != 1500;
 *	}
 *
 * How it works: docs/tracepoints.md.
 *
 * Caveats:
 * - A string or a sequence is cut at 512 bytes; the fields of one tracepoint have at most
 *   4,000. At most 4,094 tracepoints of different kinds can be recorded in a process.
 * - In a header, a tracepoint is each object's own: `shunt list` shows one for each.
 * - A probe that comes by its own tracepoint is called again: it must not for ever.
 * - shunt_mark() formats with vsnprintf(3): in signal handlers only what that may do
 *   there (glibc: no floating point).
 */
#ifndef SHUNT_TRACE_H
#define SHUNT_TRACE_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <shunt/imv.h>
#include <shunt/key.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SHUNT_FIELD_MAX = 512 }; /* bytes of a string or a sequence */

enum shunt_field_shape {
	SHUNT_FIELD_SCALAR = 0,
	SHUNT_FIELD_ARRAY = 1,	  /* `count` elements */
	SHUNT_FIELD_SEQUENCE = 2, /* a uint32_t says how many */
	SHUNT_FIELD_STRING = 3,	  /* ends with a zero byte */
};

struct shunt_label {
	const char *name;
	int64_t value;
};

/* In an event, fields follow each other without gaps. */
struct shunt_field {
	const char *name;
	uint8_t shape; /* enum shunt_field_shape */
	uint8_t type;  /* enum shunt_type, of an element */
	uint16_t size; /* bytes of an element */
	uint32_t count;
	const struct shunt_label *labels; /* of an enumeration; ends with a NULL name */
};

struct shunt_point_probe {
	void (*fn)(void);
	void *data;
};

struct shunt_filter;
struct shunt_ring;

struct shunt_point {
	struct shunt_key *key;
	const char *provider, *name;
	const struct shunt_field *fields;
	uint32_t nfields;
	uint32_t id;	    /* of its events; 0: not known yet */
	uint32_t recording; /* 1: writes into the ring */
	uint32_t linked;
	const struct shunt_point_probe *probes; /* ends with a NULL function; NULL: none */
	const struct shunt_filter *filter;
	struct shunt_ring *ring;
	struct shunt_point *next;
	const char *object; /* file name */
};

/* For shunt_trace() only. Any context. */
SHUNT_API void shunt_point_write(const struct shunt_point *point, const void *data, size_t len);
SHUNT_API const struct shunt_point_probe *shunt_point_enter(const struct shunt_point *point);
SHUNT_API void shunt_point_leave(void);
SHUNT_API void shunt_mark_write(const struct shunt_point *point, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * For shunt_trace_register() and its counterpart. A probe is called on each thread that
 * comes by, in signal handlers too, with the fields and its data; several are called in
 * the order of their registration. Any thread at any time, in a probe too (but see
 * below); not in signal handlers. Blocks, allocates. 0; -EEXIST: the same function and
 * data are registered; -ENOMEM; or what shunt_key_set() says, and nothing has changed.
 *
 * Unregister: when it returns 0, the probe runs on no thread any more. -ENOENT: there is
 * none such; -EDEADLK: called by a probe, nothing has changed.
 */
SHUNT_API int shunt_point_register(struct shunt_point *point, void (*fn)(void), void *data);
SHUNT_API int shunt_point_unregister(struct shunt_point *point, void (*fn)(void), void *data);

/*
 * Has the tracepoints whose "provider:name" matches `glob` write into the ring, those of
 * objects that are loaded later too; `filter` (may be NULL) says which events:
 * comparisons of fields with constants (== != < <= > >= &), &&, ||, !, and parentheses;
 * strings in quotes, with *, ? and [..] as in a glob. The last call that matches a
 * tracepoint decides. Under `shunt record` the ring is the recording's: NULL. Any
 * thread; not in signal handlers, not in probes. Blocks, allocates. The number of tracepoints that
 * match, or -ENOENT: none now, -EINVAL: a glob or a filter that cannot be read or does not
 * fit a tracepoint's fields (shunt_trace_error() says why), -ENXIO: no ring, -ENOSPC:
 * 4,094 different ones, or what shunt_keys_set() says: then nothing has changed.
 */
SHUNT_API int shunt_trace_enable(const char *glob, const char *filter, struct shunt_ring *ring);
SHUNT_API int shunt_trace_disable(const char *glob);

/* Why the calling thread's last shunt_trace_enable() failed: a sentence, or "". */
SHUNT_API const char *shunt_trace_error(void);

/*
 * What a tracepoint's events are in a ring of the program's own: their type, and their
 * fields, a line as docs/formats.md has it. Any thread. 0, or -ENOENT: it was never
 * enabled; -ENOSPC: `size` is too small.
 */
SHUNT_API int shunt_trace_describe(const char *provider, const char *name, uint32_t *type, char *text,
	size_t size);

#ifdef __cplusplus
}
#endif

/* --- the words for fields ------------------------------------------------------------ */

/* Parameters, arguments, descriptions, bytes (most), checks, and storing, of each sort. */
#define SHUNT_PARAM_shunt_integer(type, name)		   type name,
#define SHUNT_PARAM_shunt_real(type, name)		   type name,
#define SHUNT_PARAM_shunt_string(name)			   const char *name,
#define SHUNT_PARAM_shunt_array(type, name, n)		   __typeof__(type) const *name,
#define SHUNT_PARAM_shunt_sequence(type, name)		   __typeof__(type) const *name, size_t shunt_n_##name,
#define SHUNT_PARAM_shunt_enumeration(type, name, labels)  type name,

#define SHUNT_ARG_shunt_integer(type, name)		   name,
#define SHUNT_ARG_shunt_real(type, name)		   name,
#define SHUNT_ARG_shunt_string(name)			   name,
#define SHUNT_ARG_shunt_array(type, name, n)		   name,
#define SHUNT_ARG_shunt_sequence(type, name)		   name, shunt_n_##name,
#define SHUNT_ARG_shunt_enumeration(type, name, labels)	   name,

#define SHUNT_DESC_shunt_integer(type, name) \
	{#name, SHUNT_FIELD_SCALAR, SHUNT_TYPE_(type), sizeof(type), 1, NULL},
#define SHUNT_DESC_shunt_real(type, name) \
	{#name, SHUNT_FIELD_SCALAR, SHUNT_TYPE_FLOAT, sizeof(type), 1, NULL},
#define SHUNT_DESC_shunt_string(name) {#name, SHUNT_FIELD_STRING, SHUNT_TYPE_UNSIGNED, 1, 1, NULL},
#define SHUNT_DESC_shunt_array(type, name, n) \
	{#name, SHUNT_FIELD_ARRAY, SHUNT_TYPE_(type), sizeof(type), n, NULL},
#define SHUNT_DESC_shunt_sequence(type, name) \
	{#name, SHUNT_FIELD_SEQUENCE, SHUNT_TYPE_(type), sizeof(type), 1, NULL},
#define SHUNT_DESC_shunt_enumeration(type, name, labels) \
	{#name, SHUNT_FIELD_SCALAR, SHUNT_TYPE_(type), sizeof(type), 1, labels},

#define SHUNT_SIZE_shunt_integer(type, name)		  +sizeof(type)
#define SHUNT_SIZE_shunt_real(type, name)		  +sizeof(type)
#define SHUNT_SIZE_shunt_string(name)			  +SHUNT_FIELD_MAX
#define SHUNT_SIZE_shunt_array(type, name, n)		  +sizeof(type) * (n)
#define SHUNT_SIZE_shunt_sequence(type, name)		  +4 + SHUNT_FIELD_MAX
#define SHUNT_SIZE_shunt_enumeration(type, name, labels)  +sizeof(type)

#define SHUNT_SIMPLE_(type) &&(sizeof(type) == 1 || sizeof(type) == 2 || sizeof(type) == 4 || sizeof(type) == 8)
#define SHUNT_PLAIN_shunt_integer(type, name)		  SHUNT_SIMPLE_(type)
#define SHUNT_PLAIN_shunt_real(type, name)		  &&(sizeof(type) == 4 || sizeof(type) == 8)
#define SHUNT_PLAIN_shunt_string(name)
#define SHUNT_PLAIN_shunt_array(type, name, n)		  SHUNT_SIMPLE_(type)
#define SHUNT_PLAIN_shunt_sequence(type, name)		  SHUNT_SIMPLE_(type)
#define SHUNT_PLAIN_shunt_enumeration(type, name, labels) SHUNT_SIMPLE_(type)

#define SHUNT_STORE_shunt_integer(type, name)	  shunt_at_ = shunt_store_(shunt_at_, &name, sizeof name);
#define SHUNT_STORE_shunt_real(type, name)	  SHUNT_STORE_shunt_integer(type, name)
#define SHUNT_STORE_shunt_string(name)		  shunt_at_ = shunt_store_string_(shunt_at_, name);
#define SHUNT_STORE_shunt_array(type, name, n)	  shunt_at_ = shunt_store_(shunt_at_, name, sizeof(type) * (n));
#define SHUNT_STORE_shunt_sequence(type, name) \
	shunt_at_ = shunt_store_sequence_(shunt_at_, name, shunt_n_##name, sizeof(type));
#define SHUNT_STORE_shunt_enumeration(type, name, labels) SHUNT_STORE_shunt_integer(type, name)

__attribute__((unused)) static inline unsigned char *shunt_store_(unsigned char *at, const void *from, size_t n)
{
	memcpy(at, from, n);
	return at + n;
}

__attribute__((unused)) static inline unsigned char *shunt_store_string_(unsigned char *at, const char *s)
{
	size_t n = 0;

	for (s = s ? s : "(null)"; n < SHUNT_FIELD_MAX - 1 && s[n]; n++)
		at[n] = (unsigned char)s[n];
	at[n] = 0;
	return at + n + 1;
}

__attribute__((unused)) static inline unsigned char *shunt_store_sequence_(unsigned char *at, const void *from, size_t n,
	size_t size)
{
	uint32_t count = (uint32_t)(n < SHUNT_FIELD_MAX / size ? n : SHUNT_FIELD_MAX / size);

	at = shunt_store_(at, &count, sizeof count);
	return count ? shunt_store_(at, from, count * size) : at;
}

#define SHUNT_PASTE__(a, b) a##b
#define SHUNT_PASTE_(a, b)  SHUNT_PASTE__(a, b)
/* SHUNT_EACH_n(op, field...): the op of each. The last argument is none. */
#define SHUNT_EACH_0(op, none)
#define SHUNT_EACH_1(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_0(op, __VA_ARGS__)
#define SHUNT_EACH_2(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_1(op, __VA_ARGS__)
#define SHUNT_EACH_3(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_2(op, __VA_ARGS__)
#define SHUNT_EACH_4(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_3(op, __VA_ARGS__)
#define SHUNT_EACH_5(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_4(op, __VA_ARGS__)
#define SHUNT_EACH_6(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_5(op, __VA_ARGS__)
#define SHUNT_EACH_7(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_6(op, __VA_ARGS__)
#define SHUNT_EACH_8(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_7(op, __VA_ARGS__)
#define SHUNT_EACH_9(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_8(op, __VA_ARGS__)
#define SHUNT_EACH_10(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_9(op, __VA_ARGS__)
#define SHUNT_EACH_11(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_10(op, __VA_ARGS__)
#define SHUNT_EACH_12(op, f, ...) SHUNT_PASTE__(op, f) SHUNT_EACH_11(op, __VA_ARGS__)
#define SHUNT_NTH_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, n, ...) n
/* How many fields: of provider, name, field..., none */
#define SHUNT_FIELDS_(...) SHUNT_NTH_(__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0)

/* --- definition ----------------------------------------------------------------------- */

/*
 * SHUNT_TRACEPOINT(provider, name, field, ...), at file scope, in a header or a unit, as
 * often as one likes: the linker keeps one in each object.
 */
#define SHUNT_TRACEPOINT(...) SHUNT_TRACEPOINT_(SHUNT_FIELDS_(__VA_ARGS__, ~), __VA_ARGS__, ~)
#define SHUNT_TRACEPOINT_(n, provider, name, ...) \
	SHUNT_TRACEPOINT__(SHUNT_PASTE_(SHUNT_EACH_, n), n, provider, name, __VA_ARGS__)

#define SHUNT_WEAK_ __attribute__((weak, visibility("hidden")))
#ifdef __cplusplus
#define SHUNT_POINT_KEY_(id) \
	extern SHUNT_WEAK_ struct shunt_key_false shunt_point_key_##id; \
	SHUNT_WEAK_ struct shunt_key_false shunt_point_key_##id(#id);
#define SHUNT_POINT_CAST_(id, fn) static_cast<shunt_point_fn_##id *>(fn)
#else
#define SHUNT_POINT_KEY_(id) \
	SHUNT_WEAK_ struct shunt_key_false shunt_point_key_##id = SHUNT_KEY_VALUE_(id, 0); \
	static struct shunt_key *const volatile shunt_ref_shunt_point_key_##id __attribute__((unused)) = \
		&shunt_point_key_##id.key;
#define SHUNT_POINT_CAST_(id, fn) _Generic((fn), shunt_point_fn_##id *: (fn))
#endif

#define SHUNT_TRACEPOINT__(each, n, provider, name, ...) \
	SHUNT_POINT_(provider##_##name, #provider, #name, n, each(SHUNT_DESC_, __VA_ARGS__)) \
	typedef void shunt_point_fn_##provider##_##name(each(SHUNT_PARAM_, __VA_ARGS__) void *shunt_data_); \
	SHUNT_STATIC_ASSERT_((1 each(SHUNT_PLAIN_, __VA_ARGS__)), \
		"shunt: a field's type is a scalar of 1, 2, 4 or 8 bytes; a real one of 4 or 8"); \
	SHUNT_STATIC_ASSERT_((0 each(SHUNT_SIZE_, __VA_ARGS__)) <= 4000, \
		"shunt: a tracepoint's fields have at most 4,000 bytes, strings and sequences 512 each"); \
	__attribute__((noinline, cold, unused)) static void shunt_point_hit_##provider##_##name( \
		each(SHUNT_PARAM_, __VA_ARGS__) int shunt_end_) \
	{ \
		struct shunt_point *shunt_p_ = &shunt_point_##provider##_##name; \
		const struct shunt_point_probe *shunt_q_; \
		(void)shunt_end_; \
		if (__atomic_load_n(&shunt_p_->recording, __ATOMIC_RELAXED)) { \
			unsigned char shunt_data_[1 each(SHUNT_SIZE_, __VA_ARGS__)], *shunt_at_ = shunt_data_; \
			shunt_data_[0] = 0; \
			each(SHUNT_STORE_, __VA_ARGS__) \
			shunt_point_write(shunt_p_, shunt_data_, (size_t)(shunt_at_ - shunt_data_)); \
		} \
		if (!__atomic_load_n(&shunt_p_->probes, __ATOMIC_RELAXED)) \
			return; \
		for (shunt_q_ = shunt_point_enter(shunt_p_); shunt_q_ && shunt_q_->fn; shunt_q_++) \
			((shunt_point_fn_##provider##_##name *)shunt_q_->fn)( \
				each(SHUNT_ARG_, __VA_ARGS__) shunt_q_->data); \
		shunt_point_leave(); \
	} \
	__attribute__((unused)) static inline int shunt_point_probe_##provider##_##name( \
		shunt_point_fn_##provider##_##name *fn, void *data, int on) \
	{ \
		return on ? shunt_point_register(&shunt_point_##provider##_##name, (void (*)(void))fn, data) \
			  : shunt_point_unregister(&shunt_point_##provider##_##name, (void (*)(void))fn, \
				    data); \
	} \
	struct shunt_site

#define SHUNT_POINT_(id, provider, name, n, ...) \
	SHUNT_POINT_KEY_(id) \
	static const struct shunt_field shunt_point_fields_##id[] = {__VA_ARGS__{ \
		NULL, 0, 0, 0, 0, NULL}}; \
	extern SHUNT_WEAK_ struct shunt_point shunt_point_##id; \
	SHUNT_WEAK_ struct shunt_point shunt_point_##id = {&shunt_point_key_##id.key, provider, name, \
		shunt_point_fields_##id, n, 0, 0, 0, NULL, NULL, NULL, NULL, NULL}; \
	SHUNT_DEF_(shunt_point_##id, 1) = {&shunt_point_key_##id.key.var, NULL, #id, 1, &shunt_point_##id};

/* --- use ---------------------------------------------------------------------------------- */

/* shunt_trace(provider, name, value, ...): a statement. A sequence takes two values, the
 * elements and how many. Any context. */
#define shunt_trace(provider, ...) SHUNT_TRACE_(provider, __VA_ARGS__, 0)
#define SHUNT_TRACE_(provider, name, ...) \
	do { \
		if (shunt_key_unlikely(shunt_point_key_##provider##_##name)) \
			shunt_point_hit_##provider##_##name(__VA_ARGS__); \
	} while (0)

/* Whether anybody asks: a branch, as shunt_trace()'s own. Any context. */
#define shunt_point_on(provider, name) shunt_key_unlikely(shunt_point_key_##provider##_##name)

/* As shunt_point_register(). A function with other parameters does not compile. */
#define shunt_trace_register(provider, name, fn, data) \
	shunt_point_probe_##provider##_##name(SHUNT_POINT_CAST_(provider##_##name, fn), data, 1)
#define shunt_trace_unregister(provider, name, fn, data) \
	shunt_point_probe_##provider##_##name(SHUNT_POINT_CAST_(provider##_##name, fn), data, 0)

/*
 * SHUNT_MARK(name), at file scope: a tracepoint mark:NAME with one string, for
 * shunt_mark(name, "format", ...), whose arguments the compiler checks as printf's.
 */
#define SHUNT_MARK(name) \
	SHUNT_POINT_(mark_##name, "mark", #name, 1, SHUNT_DESC_shunt_string(message)) \
	struct shunt_site
#define shunt_mark(name, ...) \
	do { \
		if (shunt_key_unlikely(shunt_point_key_mark_##name)) \
			shunt_mark_write(&shunt_point_mark_##name, __VA_ARGS__); \
	} while (0)

#endif
