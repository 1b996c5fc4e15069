/* SPDX-License-Identifier: MIT */
/*
 * ops.h - choices among several: alternatives and pv ops.
 *
 * What: a *choice* has two to eight named states, and code says what each means at its
 * place: another branch, or another instruction. Switching it rewrites all of them,
 * in one batch, live. A choice whose places are instructions is what the kernel calls
 * a class of pv ops.
 *
 * Why: a key (key.h) is on or off. Which of three codecs, which width of vectors,
 * native or under a hypervisor, are decisions among several, and belong to the
 * processor or to the moment.
 *
 *   SHUNT_DEFINE_CHOICE(name, "state", ...)  a choice, in its first state
 *   SHUNT_DECLARE_CHOICE(name)		  defined elsewhere
 *   shunt_choice(name)			  the state's number: a jump, for a switch
 *   shunt_op(name, outputs, inputs, clobbers, "instruction", ...)
 *					  one instruction for each state
 *   SHUNT_OP_CALL(function), SHUNT_OP_CODE(label, "..."), SHUNT_OP_NOP
 *					  in the place of an instruction
 *   shunt_choice_set(name, number)	  switches
 *   shunt_choice_get(name)		  the state's number, a load
 *   SHUNT_CHOICE_PREFER(name, "feature", number)
 *					  at load, if the processor has the feature
 *   SHUNT_CALL_PREFER(name, "feature", function)
 *					  the same for a static call (call.h)
 *
 * Example:
 *
 *	enum { PLAIN, FAST, TURBO };
 *	SHUNT_DEFINE_CHOICE(codec, "plain", "fast", "turbo");
 *	SHUNT_CHOICE_PREFER(codec, "avx2", FAST);
 *
 *	int cost(int n)
 *	{
 *		switch (shunt_choice(codec)) {
 *		case PLAIN: return 4 * n;
 *		case FAST: return 2 * n;
 *		default: return n;
 *		}
 *	}
 *
 *	int main(void)
 *	{
 *		return shunt_choice_set(codec, TURBO) || cost(7) != 7;
 *	}
 *
 * How it works: shunt_choice() is a NOP or one jump (site.h). shunt_op() is one
 * instruction, as long as the longest of its alternatives, which lie in a section
 * of their own; shorter ones get prefixes that do nothing. What is longer than an
 * instruction runs out of line, behind a jump, and jumps back: so there is never a
 * thread in the middle of what changes.
 *
 * Caveats:
 * - Each text of shunt_op() is one instruction of at most 15 bytes. Nothing can
 *   check that here: a NOP beside it would do harm when another thread stands
 *   between the two.
 * - A choice has no static form.
 */
#ifndef SHUNT_OPS_H
#define SHUNT_OPS_H

#include <shunt/call.h>
#include <shunt/site.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHUNT_STATES_MAX 8

struct shunt_choice {
	struct shunt_var var;
	uint64_t state;
	const char *const *states; /* their names, `count` */
	uint64_t count;
};

/*
 * Switches: for shunt_choice_set(). Any thread at any time, in constructors and
 * before main too; not in signal handlers. Blocks, allocates. When it returns 0,
 * every place that is reached later is in the new state; until then in either.
 * Otherwise nothing has changed:
 * -ERANGE	there is no such state
 * -EBUSY	a site does not hold what it should (another tool has changed it)
 * -ENOMEM, or what shunt_text_apply() says.
 */
SHUNT_API int shunt_choice_set_state(struct shunt_choice *choice, uint64_t state);

/* What an instruction may be exchanged for. For shunt_op(). */
struct shunt_variant {
	int32_t at;   /* its bytes, from here; the same again behind them: what differs */
	uint32_t len; /* is relative to its address */
};

#ifdef __cplusplus
}
#endif

#define shunt_choice_set(name, number) shunt_choice_set_state(&(name), number)
#define shunt_choice_get(name)	       ((int)__atomic_load_n(&(name).state, __ATOMIC_RELAXED))

/* --- definitions ---------------------------------------------------------------- */

/* All at file scope. */
#define SHUNT_DEFINE_CHOICE(name, ...) \
	static const char *const shunt_states_##name[] = {__VA_ARGS__}; \
	SHUNT_STATIC_ASSERT_(sizeof shunt_states_##name / sizeof(char *) <= SHUNT_STATES_MAX, \
		"shunt: a choice has at most 8 states"); \
	struct shunt_choice name = {{NULL, #name, NULL, SHUNT_KIND_CHOICE, 8, SHUNT_TYPE_UNSIGNED, 0, 0}, \
		0, shunt_states_##name, sizeof shunt_states_##name / sizeof(char *)}; \
	SHUNT_DEFINED_(struct shunt_choice, name, &name, 1)
#define SHUNT_DECLARE_CHOICE(name) \
	extern struct shunt_choice name; \
	SHUNT_DECLARED_(struct shunt_choice, name, &name) \
	extern struct shunt_choice name

/*
 * By a feature's name, as __builtin_cpu_supports() has it. Constructors of priority 102:
 * before those of the program, after the sites know their values; the last one of a
 * unit that applies wins. What else was set before stays if none applies.
 */
#define SHUNT_JOIN__(a, b) a##b
#define SHUNT_JOIN_(a, b)  SHUNT_JOIN__(a, b)
#define SHUNT_PREFER_(feature, set) \
	__attribute__((constructor(102), used)) static void SHUNT_JOIN_(shunt_prefer_, __COUNTER__)(void) \
	{ \
		__builtin_cpu_init(); \
		if (__builtin_cpu_supports(feature)) \
			(void)(set); \
	} \
	struct shunt_site
#define SHUNT_CHOICE_PREFER(name, feature, number) \
	SHUNT_PREFER_(feature, shunt_choice_set(name, number))
#define SHUNT_CALL_PREFER(name, feature, function) SHUNT_PREFER_(feature, shunt_call_set(name, function))

/* --- branches ------------------------------------------------------------------- */

#define SHUNT_CHOICE_SITE_(l1, l2, l3, l4, l5, l6, l7) \
	".Lshunt%=:\n" \
	".Lshuntn%=:\n\t" \
	".byte 0x0f, 0x1f, 0x44, 0, 0\n" \
	".Lshunte%=:\n\t" \
	".pushsection shunt_targets, \"ao?\", @progbits, .Lshunt%=\n\t" \
	".p2align 2\n" \
	".Lshuntt%=:\n\t" \
	".long .Lshunte%= - ., " l1 " - ., " l2 " - ., " l3 " - .\n\t" \
	".long " l4 " - ., " l5 " - ., " l6 " - ., " l7 " - .\n\t" \
	".popsection\n\t" \
	SHUNT_SITE_RECORD_(".Lshuntt%=", "%c[ref]", "%c[kind]", "8")

/* shunt_choice(name): the state's number, 0 to 7. Any context. */
#if !SHUNT_SITES
#define shunt_choice(name) shunt_choice_get(name)
#elif defined(__cplusplus)
template <struct shunt_choice &Choice>
static inline __attribute__((always_inline)) int shunt_choice_()
{
	__asm__ goto(SHUNT_CHOICE_SITE_("%l[s1]", "%l[s2]", "%l[s3]", "%l[s4]", "%l[s5]", "%l[s6]", "%l[s7]")
		     :
		     : [ref] "i"((&shunt_ref_<struct shunt_choice, Choice>::ref)), [kind] "i"(SHUNT_KIND_CHOICE)
		     :
		     : s1, s2, s3, s4, s5, s6, s7);
	return 0;
s1:
	return 1;
s2:
	return 2;
s3:
	return 3;
s4:
	return 4;
s5:
	return 5;
s6:
	return 6;
s7:
	return 7;
}
#define shunt_choice(name) shunt_choice_<name>()
#define SHUNT_CHOICE_REF_(name) (&shunt_ref_<struct shunt_choice, name>::ref)
#else
#define SHUNT_STATE_(n) \
	shunt_state_##n##_: \
	shunt_s_ = n; \
	goto shunt_chosen_;
#define shunt_choice(name) \
	__extension__({ \
		__label__ shunt_state_1_, shunt_state_2_, shunt_state_3_, shunt_state_4_, \
			shunt_state_5_, shunt_state_6_, shunt_state_7_, shunt_chosen_; \
		int shunt_s_ = 0; \
		__asm__ goto(SHUNT_CHOICE_SITE_("%l[shunt_state_1_]", "%l[shunt_state_2_]", \
				     "%l[shunt_state_3_]", "%l[shunt_state_4_]", "%l[shunt_state_5_]", \
				     "%l[shunt_state_6_]", "%l[shunt_state_7_]") \
			     : \
			     : [ref] "i"(&shunt_ref_##name), [kind] "i"(SHUNT_KIND_CHOICE) \
			     : \
			     : shunt_state_1_, shunt_state_2_, shunt_state_3_, shunt_state_4_, \
			     shunt_state_5_, shunt_state_6_, shunt_state_7_); \
		goto shunt_chosen_; \
		SHUNT_STATE_(1) \
		SHUNT_STATE_(2) \
		SHUNT_STATE_(3) \
		SHUNT_STATE_(4) \
		SHUNT_STATE_(5) \
		SHUNT_STATE_(6) \
		SHUNT_STATE_(7) \
	shunt_chosen_: \
		shunt_s_; \
	})
#define SHUNT_CHOICE_REF_(name) (&shunt_ref_##name)
#endif

/* --- instructions ------------------------------------------------------------------ */

/*
 * The variants of an instruction, in the order of the states; fewer than states: the
 * last one serves the rest. They are assembled twice in a row, aside.
 */
#define SHUNT_VARIANT_(n, text) \
	".Lshuntv%=_" #n ":\n\t" text "\n.Lshuntw%=_" #n ":\n\t" text "\n\t"
#define SHUNT_LEN_(n)	 "(.Lshuntw%=_" #n " - .Lshuntv%=_" #n ")"
/* The larger: assemblers differ in whether true is 1 or -1. */
#define SHUNT_MAX_(a, b) "(" a " + (" b " - " a ") * (" b " > " a ") * (" b " > " a "))"
#define SHUNT_ENTRY_(n) ".long .Lshuntv%=_" #n " - ., .Lshuntw%=_" #n " - .Lshuntv%=_" #n "\n\t"

/* As long as the longest: the first variant, behind prefixes. */
#define SHUNT_OP_FIRST_(text, length) \
	".Lshunt%=:\n" \
	".Lshuntn%=:\n\t" \
	".fill " length " - " SHUNT_LEN_(0) ", 1, 0x3e\n\t" text "\n" \
	".Lshunte%=:\n\t"

#define SHUNT_OP_TEXT_(first, variants, length, entries, count) \
	".pushsection .text.shunt_variants, \"ax?\", @progbits\n" \
	variants \
	".popsection\n\t" \
	SHUNT_OP_FIRST_(first, length) \
	".pushsection shunt_targets, \"ao?\", @progbits, .Lshunt%=\n\t" \
	".p2align 2\n" \
	".Lshuntt%=:\n\t" \
	entries \
	".popsection\n\t" \
	SHUNT_SITE_RECORD_(".Lshuntt%=", "%c[shunt_ref]", "%c[shunt_kind]", #count)

#define SHUNT_OP_2_(a, b) \
	SHUNT_OP_TEXT_(a, SHUNT_VARIANT_(0, a) SHUNT_VARIANT_(1, b), \
		SHUNT_MAX_(SHUNT_LEN_(0), SHUNT_LEN_(1)), SHUNT_ENTRY_(0) SHUNT_ENTRY_(1), 2)
#define SHUNT_OP_3_(a, b, c) \
	SHUNT_OP_TEXT_(a, SHUNT_VARIANT_(0, a) SHUNT_VARIANT_(1, b) SHUNT_VARIANT_(2, c), \
		SHUNT_MAX_(SHUNT_MAX_(SHUNT_LEN_(0), SHUNT_LEN_(1)), SHUNT_LEN_(2)), \
		SHUNT_ENTRY_(0) SHUNT_ENTRY_(1) SHUNT_ENTRY_(2), 3)
#define SHUNT_OP_4_(a, b, c, d) \
	SHUNT_OP_TEXT_(a, \
		SHUNT_VARIANT_(0, a) SHUNT_VARIANT_(1, b) SHUNT_VARIANT_(2, c) SHUNT_VARIANT_(3, d), \
		SHUNT_MAX_(SHUNT_MAX_(SHUNT_LEN_(0), SHUNT_LEN_(1)), \
			SHUNT_MAX_(SHUNT_LEN_(2), SHUNT_LEN_(3))), \
		SHUNT_ENTRY_(0) SHUNT_ENTRY_(1) SHUNT_ENTRY_(2) SHUNT_ENTRY_(3), 4)
#define SHUNT_OP_PICK_(a, b, c, d, pick, ...) pick
#define SHUNT_UNWRAP_(...)		      __VA_ARGS__

/*
 * shunt_op(name, outputs, inputs, clobbers, "state 0", "state 1", ...): in each of the two
 * to four states another instruction, the operands as an asm statement's, each list in
 * parentheses. At least one input: ("i"(0)) where there is none. A choice of
 * another object: declare it. Any context.
 *
 *	shunt_op(locking, (), ("D"(l)), ("memory", "cc"),
 *		"addw $1, (%%rdi)", SHUNT_OP_CALL(release_slowly));
 */
#if SHUNT_SITES
#define shunt_op(name, outputs, inputs, clobbers, ...) \
	__asm__ volatile(SHUNT_OP_PICK_(__VA_ARGS__, SHUNT_OP_4_, SHUNT_OP_3_, SHUNT_OP_2_, \
			 none)(__VA_ARGS__) \
			 : SHUNT_UNWRAP_ outputs \
			 : SHUNT_UNWRAP_ inputs, [shunt_ref] "i"(SHUNT_CHOICE_REF_(name)), \
			 [shunt_kind] "i"(SHUNT_KIND_OP) \
			 : SHUNT_UNWRAP_ clobbers)
#else
#define SHUNT_OP_ASM_(text, outputs, inputs, clobbers) \
	__asm__ volatile(text "\n.Lshunte%=:" \
			 : SHUNT_UNWRAP_ outputs \
			 : SHUNT_UNWRAP_ inputs \
			 : SHUNT_UNWRAP_ clobbers)
#define SHUNT_OP_IF_4_(s, o, i, c, v0, v1, v2, v3) \
	if (s == 0) \
		SHUNT_OP_ASM_(v0, o, i, c); \
	else if (s == 1) \
		SHUNT_OP_ASM_(v1, o, i, c); \
	else if (s == 2) \
		SHUNT_OP_ASM_(v2, o, i, c); \
	else \
		SHUNT_OP_ASM_(v3, o, i, c)
#define SHUNT_OP_IF_3_(s, o, i, c, v0, v1, v2) SHUNT_OP_IF_4_(s, o, i, c, v0, v1, v2, v2)
#define SHUNT_OP_IF_2_(s, o, i, c, v0, v1)     SHUNT_OP_IF_4_(s, o, i, c, v0, v1, v1, v1)
#define shunt_op(name, outputs, inputs, clobbers, ...) \
	do { \
		int shunt_s_ = shunt_choice_get(name); \
		SHUNT_OP_PICK_(__VA_ARGS__, SHUNT_OP_IF_4_, SHUNT_OP_IF_3_, SHUNT_OP_IF_2_, none) \
		(shunt_s_, outputs, inputs, clobbers, __VA_ARGS__); \
	} while (0)
#endif

/* Five bytes. */
#define SHUNT_OP_NOP ".byte 0x0f, 0x1f, 0x44, 0, 0"

/* Several instructions, out of line. `label`: a word, another one for each in a shunt_op(). */
#define SHUNT_OP_CODE(label, text) \
	".ifndef .Lshuntc%=_" #label "\n\t" \
	".pushsection .text.shunt_variants.code, \"ax?\", @progbits\n" \
	".Lshuntc%=_" #label ":\n\t" \
	text "\n\t" \
	".byte 0xe9\n\t" \
	".long .Lshunte%= - . - 4\n\t" \
	".popsection\n\t" \
	".endif\n\t" \
	".byte 0xe9\n\t" \
	".long .Lshuntc%=_" #label " - . - 4"

/*
 * A call, with an aligned stack and past the red zone. By the name of a function
 * that the assembler knows (extern "C"; __attribute__((used)), for the compiler does
 * not), of this object or another. What it changes of the registers must be among the clobbers: all that
 * a function may, or none if it is __attribute__((no_caller_saved_registers)). It
 * has no arguments but what the inputs put there, and no exception passes it.
 */
#define SHUNT_OP_CALL(function) \
	SHUNT_OP_CODE(function, \
		"leaq -128(%%rsp), %%rsp\n\t" \
		"pushq %%rbp\n\t" \
		"movq %%rsp, %%rbp\n\t" \
		"andq $-16, %%rsp\n\t" \
		"call *" #function "@GOTPCREL(%%rip)\n\t" \
		"movq %%rbp, %%rsp\n\t" \
		"popq %%rbp\n\t" \
		"leaq 128(%%rsp), %%rsp")

#endif
