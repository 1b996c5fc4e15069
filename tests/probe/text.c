/* SPDX-License-Identifier: MIT */
/* text.c - the probe language: what is understood, what is refused and how, what is fetched. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <shunt/probe.h>

#include "probe/spec.h"
#include "tap.h"

enum { PAGE = 4096 };

static struct shunt_spec s;
static char why[512];

static int parse(const char *text)
{
	strcpy(why, "");
	return shunt_spec_parse(text, &s, why, sizeof why);
}

/* --- places --------------------------------------------------------------------------- */

static void places(void)
{
	static const struct {
		const char *text, *event, *object, *function;
		uint64_t offset;
		bool ret, named;
	} good[] = {
		{"malloc", "malloc", "", "malloc", 0, false, false},
		{"libc.so.6:malloc", "malloc", "libc.so.6", "malloc", 0, false, false},
		{"/a dir/x:y/lib-c++.so:f", "f", "/a dir/x:y/lib-c++.so", "f", 0, false, false},
		{"malloc%return", "malloc__return", "", "malloc", 0, true, false},
		{"malloc+0", "malloc", "", "malloc", 0, false, false},
		{"malloc+0%return", "malloc__return", "", "malloc", 0, true, false},
		{"libc.so.6:malloc+16", "malloc_0x10", "libc.so.6", "malloc", 16, false, false},
		{"malloc+0x1f()", "malloc_0x1f", "", "malloc", 31, false, false},
		{"got=malloc%return()", "got", "", "malloc", 0, true, true},
		{"got=libc.so.6:malloc ( )", "got", "libc.so.6", "malloc", 0, false, true},
		{"0x401000", "at_0x401000", "", "", 0x401000, false, false},
		{"/bin/bash:0x4245c0", "_bin_bash_0x4245c0", "/bin/bash", "", 0x4245c0, false, false},
		{"7zip:0x10%return", "_7zip_0x10__return", "7zip", "", 16, true, false},
		{" _ZN3fooC1Ev.cold$x@V_1 ", "_ZN3fooC1Ev_cold_x_V_1", "", "_ZN3fooC1Ev.cold$x@V_1", 0,
			false, false},
	};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		ok(!parse(good[i].text) && !strcmp(s.event, good[i].event) &&
				!strcmp(s.object, good[i].object) && !strcmp(s.function, good[i].function) &&
				s.offset == good[i].offset && s.ret == good[i].ret &&
				s.named == good[i].named && !s.fetch.nargs && !s.fetch.max,
			"'%s' is %s%s", good[i].text, s.event, why);
}

static void long_names(void)
{
	char text[700], name[500];

	memset(name, 'n', sizeof name);
	snprintf(text, sizeof text, "%.400s%%return", name);
	ok(!parse(text) && strlen(s.event) < SHUNT_SPEC_NAME && strstr(s.event, "nnn__return"),
		"a long function's event has a short name that still says %%return");
	snprintf(text, sizeof text, "%.63s=f", name);
	ok(!parse(text) && strlen(s.event) == 63, "a name of 63 characters");
	snprintf(text, sizeof text, "%.64s=f", name);
	ok(parse(text) && strstr(why, "63 characters"), "not of 64");
	snprintf(text, sizeof text, "f(%.63s=%%rax)", name);
	ok(parse(text) && strstr(why, "62 characters"), "an argument's neither");
	snprintf(text, sizeof text, "%.256s:f", name);
	ok(parse(text) && strstr(why, "255 characters"), "an object's has at most 255");
	memset(text, 'f', 512);
	text[512] = 0;
	ok(parse(text) && strstr(why, "511 characters"), "a function's at most 511");
}

/* --- refusals ---------------------------------------------------------------------------- */

static void refusals(void)
{
	/* Text, the character, a word that the sentence must have: the way out. */
	static const struct {
		const char *text;
		unsigned at;
		const char *says;
	} bad[] = {
		{"", 1, "name is missing"}, {"  ", 3, "name is missing"}, {"(%rdi)", 1, "name is missing"},
		{"libc:", 6, "name is missing"}, {":malloc", 1, "before the :"},
		{"=malloc", 1, "NAME=FUNCTION"}, {"1a=malloc", 1, "digit"}, {"4711", 1, "0x401000"},
		{"a=b=c", 4, "too much"}, {"0x", 1, "no number"}, {"0xzz", 1, "no number"},
		{"0x11112222333344445", 1, "too large"}, {"f+", 3, "no number"}, {"f+-4", 3, "no number"},
		{"f+4x", 3, "no number"}, {"f+18446744073709551616", 3, "too large"},
		{"f%ret", 2, "%return"}, {"f%returned", 2, "%return"}, {"f%return%return", 9, "too much"},
		{"f+4%return", 4, "leave out"}, {"f g", 3, "too much"}, {"f()x", 4, "too much"},
		{"f(", 3, "( at character 2"}, {"f(%rdi", 7, "( at character 2"},
		{"f(%rdi,", 8, "behind the comma"}, {"f(%rdi,)", 8, "behind the comma"},
		{"f(%rdi,,%rsi)", 8, "behind the comma"}, {"f(,)", 3, "argument is"},
		{"f(%rdi;%rsi)", 7, "commas"}, {"f(%rdi)(%rsi)", 8, "too much"},
		{"libc.so.6:malloc(size=%rdx1)", 23, "%rax"}, {"f(%)", 3, "%rax"}, {"f(%edi)", 3, "%rdi:u8"},
		{"f(x)", 3, "%REGISTER"}, {"f(a=)", 5, "%REGISTER"}, {"f(a=b=%rdi)", 5, "%REGISTER"},
		{"f($retval)", 3, "%return"}, {"f%return($arg1)", 10, "without %return"},
		{"f($arg0)", 3, "$arg6"}, {"f($arg7)", 3, "$stack1"}, {"f($arg)", 3, "$arg6"},
		{"f($stack4097)", 3, "$stack4096"}, {"f($stackx)", 9, "no number"}, {"f($foo)", 3, "$comm"},
		{"f($comma)", 3, "$comm"}, {"f($)", 3, "$comm"},
		{"f(@)", 4, "no number"}, {"f(@main)", 4, "no number"}, {"f(@+)", 5, "no number"},
		{"f(\\)", 4, "no number"}, {"f(\\x)", 4, "no number"},
		{"f(+8)", 5, "( is missing"}, {"f(+(%rdi))", 4, "no number"}, {"f(+8(%rdi)", 11, "( at character 2"},
		{"f(+8(%rdi,4))", 10, ") is missing"}, {"f(+8())", 6, "%REGISTER"},
		{"f(+2147483648(%rdi))", 3, "too large"}, {"f(+8($comm))", 3, "not an address"},
		{"f(+0(+0(+0(+0(+0(+0(+0(+0(%rdi)))))))))", 24, "7 steps"},
		{"f(%rdi:)", 8, "types are"}, {"f(%rdi:u7)", 8, "types are"}, {"f(%rdi:u128)", 8, "types are"},
		{"f(%rdi:int)", 8, "types are"}, {"f(%rdi:symbol)", 8, "types are"}, {"f(%rdi:u8x)", 8, "types are"},
		{"f(%rdi:u99999999999999999999)", 8, "types are"},
		{"f(%rdi:string)", 8, "+0(%rdi):string"}, {"f(+0(%rdi):string[3])", 12, "arrays of strings"},
		{"f(+0(%rdi):strings)", 12, "types are"}, {"f($comm:u8)", 9, "nothing else"},
		{"f(%rdi:u8[4])", 8, "+0(%rdi):u32[4]"}, {"f(+0(%rdi):u8[0])", 12, "1 to 64"},
		{"f(+0(%rdi):u8[65])", 12, "1 to 64"}, {"f(+0(%rdi):u8[])", 12, "1 to 64"},
		{"f(+0(%rdi):u8[4)", 12, "1 to 64"}, {"f(+0(%rdi):b1@0/8[2])", 12, "bit fields"},
		{"f(%rdi:b4)", 8, "b4@8/32"}, {"f(%rdi:b4@)", 8, "b4@8/32"}, {"f(%rdi:b4@1)", 8, "b4@8/32"},
		{"f(%rdi:b0@0/8)", 8, "does not fit"}, {"f(%rdi:b4@5/8)", 8, "does not fit"},
		{"f(%rdi:b4@0/24)", 8, "does not fit"}, {"f(%rdi:b9@0/8)", 8, "does not fit"},
		{"f(%rdi:b1@18446744073709551615/8)", 8, "does not fit"},
		{"f(a=%rdi,a=%rsi)", 10, "two arguments"}, {"f(arg2=%rdi,%rsi)", 13, "two arguments"},
		{"f(fault=%rdi)", 3, "another name"},
		{"f(%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi,%rdi)", 63, "12 arguments"},
		{"f(+0(%rax):string,+1(%rax):string,+2(%rax):string,+3(%rax):string,+4(%rax):string,"
		 "+5(%rax):string,+6(%rax):string,+7(%rax):string)", 115, "2046 bytes"},
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char at[32];

		snprintf(at, sizeof at, "at character %u: ", bad[i].at);
		if (!ok(parse(bad[i].text) == -22 && !strncmp(why, at, strlen(at)) && strstr(why, bad[i].says),
			    "refused: '%.40s' %s", bad[i].text, at))
			diag("%s", *why ? why : "accepted");
	}
}

/* --- what is fetched ------------------------------------------------------------------------ */

static uint8_t record[SHUNT_FETCH_MAX];
static size_t len;
static struct shunt_regs regs;

/* The record of f(ARGS); 0 bytes behind it were touched, none is missing in ->max. */
static bool fetch(const char *args)
{
	char text[1024];
	uint8_t *room;

	snprintf(text, sizeof text, "f%s", args);
	if (parse(text)) {
		diag("%s: %s", text, why);
		return false;
	}
	room = malloc(s.fetch.max + 64);
	memset(room, 0xa5, s.fetch.max + 64);
	len = shunt_fetch_run(&s.fetch, &regs, room);
	for (int i = 0; i < 64; i++)
		if (room[s.fetch.max + (unsigned)i] != 0xa5)
			len = SIZE_MAX;
	if (len > s.fetch.max) {
		diag("%s: a record of %zu bytes, %u at most", text, len, s.fetch.max);
		free(room);
		return false;
	}
	memcpy(record, room, len);
	free(room);
	return true;
}

/* The record is these bytes. */
static bool is(const void *bytes, size_t n)
{
	bool same = len == n && !memcmp(record, bytes, n);

	for (size_t i = 0; !same && i < len && i < 32; i++)
		diag("byte %zu of %zu (%zu wanted): %02x", i, len, n, record[i]);
	return same;
}

static bool u64_is(uint64_t x)
{
	return is(&x, 8);
}

static void registers(void)
{
	static const char *const names[] = {"r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi",
		"rsi", "rbp", "rbx", "rdx", "rcx", "rax", "rflags", "rip", "rsp"};
	static const char *const kernels[] = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "di", "si", "bp",
		"bx", "dx", "cx", "ax", "flags", "ip", "sp"};
	uint64_t *words = (void *)&regs;
	bool good = true;
	char text[32];

	for (unsigned i = 0; i < 18; i++)
		words[i] = 0x1122334455667700 + i;
	for (unsigned i = 0; i < 18; i++) {
		snprintf(text, sizeof text, "(%%%s)", names[i]);
		good &= fetch(text) && u64_is(words[i]);
		snprintf(text, sizeof text, "(%%%s)", kernels[i] ? kernels[i] : names[i]);
		good &= fetch(text) && u64_is(words[i]);
	}
	ok(good, "each register, by its own and the kernel's name");
	regs.rdi = 0xfedcba9876543280;
	ok(fetch("(%rdi:u8 %rdi:s16, %rdi:x32 ,%rdi:s64)") && is("\x80\x80\x32\x80\x32\x54\x76"
		"\x80\x32\x54\x76\x98\xba\xdc\xfe", 15), "the lower bits, without gaps");
	ok(fetch("(%rdi:b4@4/8,%rdi:b12@20/32,%rdi:b64@0/64,%rdi:b1@63/64)") &&
			is("\x08\x65\x07\0\0\x80\x32\x54\x76\x98\xba\xdc\xfe\x01\0\0\0\0\0\0\0", 21),
		"bit fields");
	ok(fetch("(\\-2,\\0x10:u8,$stack,$arg1,$arg6)") &&
			len == 33 && !memcmp(record, "\xfe\xff\xff\xff\xff\xff\xff\xff\x10", 9) &&
			!memcmp(record + 9, &regs.rsp, 8) && !memcmp(record + 17, &regs.rdi, 8) &&
			!memcmp(record + 25, &regs.r9, 8),
		"constants, the stack pointer, arguments by number");
	regs.rax = 99;
	ok(fetch("%return($retval:u16)") && is("\x63\0", 2), "a return value");
	ok(fetch("(%rdi:char)") && s.fetch.max == 2 && is("\x80", 2), "a character is a text");
	ok(fetch("") && len == 0, "no argument, no byte");
}

/* Three pages of which the one in the middle is there; where 32 bits are an address. */
static char *one_page(void)
{
	char *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
		-1, 0);

	munmap(p, PAGE);
	munmap(p + 2 * PAGE, PAGE);
	return p + PAGE;
}

static void memory(char *page)
{
	uint64_t *w = (void *)page;
	char text[64];

	regs.rdi = (uint64_t)w;
	w[0] = (uint64_t)&w[8];
	w[1] = 0x0807060504030201;
	w[7] = 0x77;
	w[8] = (uint64_t)&w[1];
	ok(fetch("(+8(%rdi))") && is("\1\2\3\4\5\6\7\x08\0", 9), "a word, and nothing is missing");
	ok(fetch("(+9(%rdi):u32,+0x8(%rdi):s16)") && is("\2\3\4\5\1\2\0", 7), "a part of it");
	ok(fetch("(+0(+0(+0(%rdi))):u8,-8(+0(%rdi)):u8)") && is("\1\x77\0", 3), "through pointers");
	ok(fetch("(+u8(%rdi):b4@8/16)") && is("\x02\0\0", 3), "a bit field of it; the kernel's u is nothing");
	ok(fetch("(+8(%rdi):u16[3],+15(%rdi):u8[1])") && is("\1\2\3\4\5\6\x08\0", 8), "arrays");
	ok(fetch("(+9(%rdi):u8,+10(%rdi):u16,+15(%rdi):u8,+8(%rdi):u8,+64(%rdi):u64,+64(%rdi):u8)") &&
			len == 15 && !memcmp(record, "\2\3\4\x08\1", 5) && !memcmp(record + 5, &w[8], 8) &&
			record[13] == (uint8_t)w[8] && !record[14],
		"members, in a row and with gaps, and behind each other");
	snprintf(text, sizeof text, "(@0x%llx:u8,@%llu:u16)", (unsigned long long)&w[7],
		(unsigned long long)&w[1]);
	ok(fetch(text) && is("\x77\1\2\0", 4), "at an address, hexadecimal or decimal");
	ok(!parse("f(@+0x20:u8)") && s.fetch.arg[0].base == SHUNT_FETCH_FILE && s.fetch.arg[0].word == 32,
		"an offset in the file waits until it is placed");
	ok(fetch("(%rdi:u8,%rdi:u8,%rdi:u8,%rdi:u8,%rdi:u8,%rdi:u8,%rdi:u8,%rdi:u8,+8(%rdi):u8)") &&
			len == 11 && !memcmp(record + 8, "\1\0\0", 3),
		"with nine arguments there are two bytes of faults");
}

static void unmapped(char *page)
{
	uint64_t *w = (void *)page;
	char text[64];

	regs.rdi = (uint64_t)w;
	regs.rsi = 0;
	regs.rdx = (uint64_t)(page + PAGE - 4);
	regs.rcx = UINT64_MAX - 3;
	w[1] = 5;
	memset(page + PAGE - 8, 0xee, 8);
	ok(fetch("(+0(%rsi):u32)") && is("\0\0\0\0\1", 5), "NULL cannot be read, and the event says so");
	ok(fetch("(+8(%rdi):u8,+0(%rsi):u8,+8(%rdi):u8)") && is("\5\0\5\2", 4),
		"what is around it is there");
	ok(fetch("(+0(%rsi):u8,+8(%rdi):u8,+0(%rsi):u8)") && is("\0\5\0\5", 4), "so between two");
	ok(fetch("(+0(%rdx):u64,+0(%rdx):u32,+4(%rdx):u8)") && len == 14 && record[13] == 5 &&
			!memcmp(record, "\0\0\0\0\0\0\0", 8),
		"half of a word is none");
	ok(fetch("(+0(%rdx):u8,+2(%rdx):u8,+4(%rdx):u8,+6(%rdx):u8,+8(%rdi):u8)") && is("\xee\xee\0\0\5\x0c", 6),
		"members on either side of the page's end");
	ok(fetch("(+3(%rdx):u8,+3(%rdx):u16,+4(%rdx):string,+5(%rdx):u8,+8(%rdi):u8)") &&
			is("\xee\0\0\0\0\5\x0e", 7),
		"and across it");
	ok(fetch("(+0(+0(%rsi)):u8,+0(+8(%rsi)):string,+8(%rdi):u8)") && is("\0\0\5\3", 4),
		"a pointer that cannot be read leads nowhere");
	snprintf(text, sizeof text, "(+%llu(+0(%%rsi)):u8)", (unsigned long long)&w[1]);
	ok(fetch(text) && is("\0\1", 2), "and with an offset to something nowhere either");
	ok(fetch("(+0(+8(%rdi)):u8)") && is("\0\1", 2), "what it points to cannot be read");
	ok(fetch("(+0(%rcx):u64,+2(%rcx):string,+0(%rsi):u32[4])") && len == 8 + 1 + 16 + 1 && record[25] == 7,
		"at the end of all addresses, and an array");
	w[0] = 0x8000000000000000; /* not canonical */
	ok(fetch("(+0(+0(%rdi)):u8)") && is("\0\1", 2), "at no address at all");
}

static void strings(char *page)
{
	char *end = page + PAGE;
	size_t n;

	strcpy(page, "hello");
	regs.rdi = (uint64_t)page;
	ok(fetch("(+0(%rdi):string,+1(%rdi):string,%rdi:u8)") && len == 6 + 5 + 1 + 1 &&
			!memcmp(record, "hello\0ello\0", 11) && !record[12],
		"strings, each as long as it is");
	memcpy(end - 4, "end", 4);
	regs.rdi = (uint64_t)(end - 4);
	ok(fetch("(+0(%rdi):string)") && is("end\0", 5), "one that ends with its page is whole");
	memcpy(end - 4, "ends", 4);
	ok(fetch("(+0(%rdi):string,%rdi:u8)") && len == 7 && !memcmp(record, "ends", 5) && record[6] == 1,
		"one that does not is cut there, and the event says so");
	regs.rdi = (uint64_t)end;
	ok(fetch("(+0(%rdi):string)") && is("\0\1", 2), "one that begins behind it is not there");
	regs.rdi = (uint64_t)(page - 1);
	ok(fetch("(+0(%rdi):string)") && is("\0\1", 2), "one that begins before it neither");
	memset(page, 'x', PAGE);
	regs.rdi = (uint64_t)page;
	ok(fetch("(+0(%rdi):string)") && len == 257 && !record[255] && !record[256] && record[254] == 'x',
		"one of a page is cut at 255 characters");
	ok(fetch("(+0(%rdi):u8,+16(%rdi):string,+900(%rdi):u64)") && len == 1 + 256 + 8 + 1 && !record[256] &&
			record[255] == 'x' && record[257] == 'x' && !record[265],
		"so is one with something before it and something far behind");
	memcpy(page + 254, "y", 2);
	ok(fetch("(+0(%rdi):string)") && len == 257 && record[254] == 'y', "255 characters are whole");
	memcpy(page + 16, "ab\0d", 4);
	ok(fetch("(+16(%rdi):char[2],+16(%rdi):char[4],+16(%rdi):char)") && is("ab\0ab\0a\0\0", 9),
		"characters end at a zero byte, or all are there");
	prctl(PR_SET_NAME, "a-name-of-fifteen");
	n = strlen("a-name-of-fifte");
	ok(fetch("($comm,%rdi:u8)") && len == n + 2 && !memcmp(record, "a-name-of-fifte", n + 1),
		"the thread's name");
	prctl(PR_SET_NAME, "");
	ok(fetch("($comm)") && is("", 1), "an empty one");
}

static void stack(char *page)
{
	uint64_t *top = (void *)(page + PAGE);

	top[-1] = 0x1111;
	top[-2] = 0x2222;
	regs.rsp = (uint64_t)(top - 2);
	ok(fetch("($stack0:u16,$stack1:u16,+8(%rsp):u16)") && is("\x22\x22\x11\x11\x11\x11\0", 7),
		"words of another stack");
	ok(fetch("($stack0:u8,$stack2:u8)") && is("\x22\0\2", 3), "behind its end there is nothing");
	regs.rsp = (uint64_t)top;
	ok(fetch("($stack0)") && len == 9 && record[8] == 1, "nor when it is empty");
	regs.rsp = 0x1238;
	ok(fetch("($stack0)") && len == 9 && record[8] == 1, "a stack pointer to nowhere");
}

static ucontext_t here, there;
static char *theirs; /* the page at the end of their stack */

/* On a stack of their own, the end of which is the end of what is mapped. */
static void on_their_stack(void)
{
	uint64_t *top = (void *)(theirs + PAGE);
	char text[128];

	top[-1] = 0x1111;
	top[-2] = 0x2222;
	regs.rsp = (uint64_t)(top - 2);
	ok(fetch("($stack0:u16,$stack1:u16,+8(%rsp):u16)") && is("\x22\x22\x11\x11\x11\x11\0", 7),
		"words of the stack in use");
	ok(fetch("($stack0:u8,$stack2:u8)") && is("\x22\0\2", 3), "behind its end there is nothing");
	memcpy(&top[-1], "bottom", 7);
	ok(fetch("(+8(%rsp):string,+8(%rsp):char[7],+12(%rsp):u32,+13(%rsp):u32)") && len == 7 + 7 + 4 + 4 + 1 &&
			!memcmp(record, "bottom\0bottom\0om\0", 17) && record[22] == 8,
		"texts of it, and what does not end on it");
	snprintf(text, sizeof text, "(@%llu:u8)", (unsigned long long)(uintptr_t)(top + 1));
	ok(fetch(text) && is("\0\1", 2), "nothing behind it is taken for it");
	regs.rsp = (uint64_t)top;
	ok(fetch("($stack0)") && len == 9 && record[8] == 1, "with nothing on it there is nothing to be read");
	regs.rsp = (uint64_t)theirs + 40 * PAGE + 8;
	ok(fetch("($stack0)") && len == 9 && record[8] == 1, "far away is not the stack in use");
}

static void their_stack(void)
{
	size_t size = 16 * PAGE;
	char *p = mmap(NULL, size + 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p, size, PROT_READ | PROT_WRITE);
	theirs = p + size - PAGE;
	getcontext(&there);
	/* Their first frames are below what is looked at. */
	there.uc_stack = (stack_t){.ss_sp = p, .ss_size = size - 256};
	there.uc_link = &here;
	makecontext(&there, on_their_stack, 0);
	swapcontext(&here, &there);
}

/* Memory is read from the process that comes by, whichever has come by before. */
static void children(void)
{
	static volatile int word = 1;
	static uint8_t got[8];
	int status = 1;
	pid_t pid;

	regs.rdi = (uint64_t)&word;
	ok(fetch("(+0(%rdi):u32)") && is("\1\0\0\0\0", 5), "a word of ours");
	pid = fork();
	if (!pid) {
		word = 2;
		_exit(!(fetch("(+0(%rdi):u32)") && is("\2\0\0\0\0", 5)));
	}
	ok(waitpid(pid, &status, 0) == pid && !status, "a child's own, not its parent's");
	pid = vfork();
	if (!pid) {
		shunt_fetch_run(&s.fetch, &regs, got);
		_exit(0);
	}
	ok(waitpid(pid, &status, 0) == pid && !memcmp(got, "\1\0\0\0\0", 5), "a vfork child's is its parent's");
}

int main(void)
{
	char *page = one_page();

	places();
	long_names();
	refusals();
	registers();
	memory(page);
	unmapped(page);
	strings(page);
	stack(page);
	their_stack();
	children();
	return done();
}
