/* SPDX-License-Identifier: MIT */
/*
 * call.h - static calls: a function pointer that lives in an instruction.
 *
 * What: a call whose target can be changed, live, and that is a direct one: no
 * pointer is loaded, and no indirect branch predicted. A target of NULL makes it
 * return at once; another form returns 0.
 *
 * Why: for what is decided once, or seldom: an allocator, a checksum, the
 * operations of the one engine that is in use, a hook that is nearly never there.
 *
 *   SHUNT_DEFINE_CALL(name, function)   a call, its first target
 *   SHUNT_DEFINE_NULL_CALL(name, function)  one that does nothing at first;
 *				 `function` gives the type
 *   SHUNT_DECLARE_CALL(name, function)  defined elsewhere; the type likewise
 *   shunt_call(name)(arguments)	 the call
 *   shunt_call_set(name, function)	 changes the target; NULL: no call
 *   shunt_call_return_0(name)		 no call, and 0 as the value
 *   shunt_call_target(name)		 the present target
 *   SHUNT_CALL_OFFER(name, function)	 `shunt set` may make it the target
 *
 * Example:
 *
 *	static int plain(int x) { return x; }
 *	static int twice(int x) { return 2 * x; }
 *	SHUNT_DEFINE_CALL(filter, plain);
 *
 *	int main(void)
 *	{
 *		if (shunt_call(filter)(21) != 21 || shunt_call_set(filter, twice))
 *			return 1;
 *		return shunt_call(filter)(21) != 42;
 *	}
 *
 * How it works: each object has one small trampoline for each call that it uses. A
 * call goes there directly, and the trampoline's jump is the site (site.h): `jmp
 * function`, or, where that is more than 2 GiB away, `movabs $function, %r11; jmp
 * *%r11`, of which only the first instruction ever changes. So calls have any
 * type, tail calls remain, and the compiler does what it always does with
 * arguments.
 *
 * Caveats:
 * - The name is a symbol of the object, as a global function's: it must be one of
 *   its kind there. There is no static form.
 * - A NULL call leaves garbage as its value (what %rax holds): for functions that
 *   return void. Otherwise use shunt_call_return_0(), for integers and pointers.
 * - A pointer to the old target may still be running when shunt_call_set()
 *   returns: wait for those before unloading it.
 */
#ifndef SHUNT_CALL_H
#define SHUNT_CALL_H

#include <shunt/site.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shunt_call {
	struct shunt_var var;
	void (*target)(void);
};

/*
 * Changes the target: for shunt_call_set(). Any thread at any time, in
 * constructors and before main too; not in signal handlers. Blocks, allocates.
 * When it returns 0, every call that begins later goes to the new target; until
 * then to either. Otherwise nothing has changed:
 * -EBUSY	a site does not hold what it should (another tool has changed it)
 * -ENOMEM, or what shunt_text_apply() says.
 */
SHUNT_API int shunt_call_set_target(struct shunt_call *call, void (*target)(void));

/* Returns 0: the target of calls that shall do so. Any context. */
SHUNT_API void shunt_return_0(void);

#ifdef __cplusplus
}
#endif

/* --- definitions ------------------------------------------------------------ */

#if defined(__CET__) && (__CET__ & 1)
#define SHUNT_CALL_ENDBR_ "endbr64\n"
#else
#define SHUNT_CALL_ENDBR_ ""
#endif

/*
 * Ten bytes that change, one instruction and what nobody reaches; then a jump that
 * is always there, for who stands before it. At first a jump behind that, to code
 * that loads the target: right before the object's constructors have run, too, and
 * where nothing can be patched. Weak: units of an object that use the same call share
 * the first one's; the others' change with it.
 */
#ifdef __cplusplus
#define SHUNT_CALL_LOAD_(name) "movq %c[ref](%%rip), %%r11\n\t"
#else
#define SHUNT_CALL_LOAD_(name) "movq " #name "@GOTPCREL(%%rip), %%r11\n\t"
#endif
#define SHUNT_CALL_TRAMPOLINE_(name) \
	".ifndef shunt_call_" #name "\n\t" \
	".pushsection .text.shunt_call, \"ax\", @progbits\n\t" \
	".p2align 4\n\t" \
	".weak shunt_call_" #name "\n\t" \
	".hidden shunt_call_" #name "\n\t" \
	".type shunt_call_" #name ", @function\n" \
	"shunt_call_" #name ":\n\t" SHUNT_CALL_ENDBR_ \
	".Lshunt%=:\n" \
	".Lshuntn%=:\n\t" \
	".byte 0xe9, 8, 0, 0, 0\n\t" \
	".skip 5, 0xcc\n" \
	".Lshunte%=:\n\t" \
	"jmp *%%r11\n\t" \
	SHUNT_CALL_LOAD_(name) \
	"movq %c[offset](%%r11), %%r11\n\t" \
	"testq %%r11, %%r11\n\t" \
	"jz 1f\n\t" \
	"jmp *%%r11\n" \
	"1:\tret\n\t" \
	".size shunt_call_" #name ", . - shunt_call_" #name "\n\t" \
	SHUNT_SITE_RECORD_(".", "%c[ref]", "%c[kind]", "0") "\n\t" \
	".popsection\n\t" \
	".endif"

#define SHUNT_CALL_SYMBOL_(name, function) \
	extern __typeof__(function) shunt_call_##name __asm__("shunt_call_" #name) \
		__attribute__((visibility("hidden")))

#define SHUNT_CALL_INIT_(name, function) \
	{{NULL, #name, NULL, SHUNT_KIND_CALL, 8, SHUNT_TYPE_POINTER, 0, 0}, (void (*)(void))(function)}

/* What may become the target from outside. */
#define SHUNT_OFFER_(name, record, function) \
	static const struct shunt_offer record \
		__attribute__((section("shunt_offers"), used, SHUNT_RETAIN_ aligned(8))) = { \
			&(name).var, (void (*)(void))(function), #function}

/* All at file scope. */
#define SHUNT_DEFINE_CALL(name, function) \
	SHUNT_CALL_SYMBOL_(name, function); \
	__attribute__((used)) struct shunt_call name = SHUNT_CALL_INIT_(name, function); \
	SHUNT_OFFER_(name, shunt_offer_##name, function); \
	SHUNT_DEFINED_(struct shunt_call, name, &name, 1)
#define SHUNT_DEFINE_NULL_CALL(name, function) \
	SHUNT_CALL_SYMBOL_(name, function); \
	__attribute__((used)) struct shunt_call name = SHUNT_CALL_INIT_(name, 0); \
	SHUNT_DEFINED_(struct shunt_call, name, &name, 1)
#define SHUNT_DECLARE_CALL(name, function) \
	extern struct shunt_call name; \
	SHUNT_DECLARED_(struct shunt_call, name, &name) \
	SHUNT_CALL_SYMBOL_(name, function)

/* --- calling and setting -------------------------------------------------------- */

/*
 * The call is to the trampoline, which the first call of a unit emits beside itself:
 * none of this is executed here. Any context.
 */
#if !SHUNT_SITES
#define shunt_call(name) \
	__extension__({ \
		__typeof__(&shunt_call_##name) shunt_f_ = (__typeof__(&shunt_call_##name))(void *) \
			__atomic_load_n(&(name).target, __ATOMIC_ACQUIRE); \
		shunt_f_ ? shunt_f_ : (__typeof__(&shunt_call_##name))shunt_return_0; \
	})
#elif defined(__cplusplus)
#define shunt_call(name) \
	__extension__({ \
		__asm__ volatile(SHUNT_CALL_TRAMPOLINE_(name) \
				 : \
				 : [ref] "i"((&shunt_ref_<struct shunt_call, name>::ref)), \
				 [kind] "i"(SHUNT_KIND_CALL), \
				 [offset] "i"(sizeof(struct shunt_var))); \
		&shunt_call_##name; \
	})
#else
#define shunt_call(name) \
	__extension__({ \
		__asm__ volatile(SHUNT_CALL_TRAMPOLINE_(name) \
				 : \
				 : [ref] "i"(&shunt_ref_##name), [kind] "i"(SHUNT_KIND_CALL), \
				 [offset] "i"(sizeof(struct shunt_var))); \
		&shunt_call_##name; \
	})
#endif

/* As shunt_call_set_target(). A function of another type does not compile. */
#ifdef __cplusplus
template <typename T> static inline int shunt_call_set_(struct shunt_call *call, T target)
{
	return shunt_call_set_target(call, (void (*)(void))target);
}
#define shunt_call_set(name, function) \
	shunt_call_set_<__typeof__(&shunt_call_##name)>(&(name), (function))
#define shunt_call_target(name) \
	((__typeof__(&shunt_call_##name))__atomic_load_n(&(name).target, __ATOMIC_RELAXED))
#else
#define shunt_call_set(name, function) \
	shunt_call_set_target(&(name), \
		_Generic((function), __typeof__(&shunt_call_##name): (void (*)(void))(function), \
			void *: (void (*)(void))(function)))
#define shunt_call_target(name) \
	((__typeof__(&shunt_call_##name))__atomic_load_n(&(name).target, __ATOMIC_RELAXED))
#endif
/*
 * At file scope: what may become the target from outside (`shunt set PID
 * name=function`), besides the first one. A function of another type does not compile.
 */
#define SHUNT_CALL_OFFER(name, function) \
	static __typeof__(&shunt_call_##name) const shunt_offer_type_##name##_##function \
		__attribute__((unused)) = function; \
	SHUNT_OFFER_(name, shunt_offer_##name##_##function, function)
#define shunt_call_return_0(name) shunt_call_set_target(&(name), shunt_return_0)

#endif
