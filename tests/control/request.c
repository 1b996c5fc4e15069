/* SPDX-License-Identifier: MIT */
/* request.c - the language of the control channel, both directions. */
#include <stdlib.h>
#include <string.h>

#include "control/request.h"
#include "tap.h"

static struct shunt_ctl_request req;
static const char *why;

static int parse(const char *text)
{
	return shunt_ctl_parse_request(text, strlen(text), &req, &why);
}

static void requests(void)
{
	ok(!parse("enable foo*\nenable a b(int, char)\n") && req.verb == SHUNT_CTL_ENABLE &&
			req.nglobs == 2 && !strcmp(req.globs[0], "foo*") &&
			!strcmp(req.globs[1], "a b(int, char)"),
		"enable takes a glob a line, spaces and all");
	ok(!parse("disable *") && req.verb == SHUNT_CTL_DISABLE && req.nglobs == 1,
		"the last line needs no line break");
	ok(!parse("list 17 x") && req.first == 17 && req.nglobs == 1 &&
			!strcmp(req.globs[0], "x"),
		"list takes a number and a glob");
	ok(!parse("list 0") && !req.nglobs, "list takes a number alone");
	ok(!parse("stat") && req.verb == SHUNT_CTL_STAT, "stat stands alone");
	ok(!parse("values 3 a*") && req.verb == SHUNT_CTL_VALUES && req.first == 3 &&
			!strcmp(req.globs[0], "a*"),
		"values, as list");
	ok(!parse("set a b=c d") && req.verb == SHUNT_CTL_SET && !strcmp(req.globs[0], "a b=c d"),
		"set takes the rest of the line");
	ok(!parse("changes 7") && req.verb == SHUNT_CTL_CHANGES && req.first == 7, "changes takes a number");
	ok(!parse("probe a b(%rdi, x)\nprobe c") && req.verb == SHUNT_CTL_PROBE && req.nglobs == 2 &&
			!strcmp(req.globs[0], "a b(%rdi, x)") && !strcmp(req.globs[1], "c"),
		"probe takes a text a line");
	ok(!parse("unprobe a*\nunprobe b") && req.verb == SHUNT_CTL_UNPROBE && req.nglobs == 2 &&
			!parse("probe-on a\nprobe-on b") && req.verb == SHUNT_CTL_PROBE_ON && req.nglobs == 2 &&
			!parse("probe-off a\nprobe-off b") && req.verb == SHUNT_CTL_PROBE_OFF && req.nglobs == 2,
		"what is done with probes, a glob a line");
	ok(!parse("probes 4 x*") && req.verb == SHUNT_CTL_PROBES && req.first == 4 &&
			!strcmp(req.globs[0], "x*"),
		"probes, as list");
	ok(!parse("stop") && req.verb == SHUNT_CTL_STOP, "stop stands alone");
}

static void bad_requests(void)
{
	static const char *const bad[] = { "", "\n", "enable", "enable ", "enablefoo x", "ENABLE x",
		"list", "list x", "list 99999999999", "list 4294967296", "list 1x", "stat 1",
		"stat\nstat", "enable a\ndisable b", "enable a\nstat", "stat\nenable a",
		"list 1\nlist 2", "set", "set a=1\nset b=2", "values", "changes x", "enable a\n\nenable b", " stat",
		"probe", "probe a\nunprobe b", "probe-on a\nprobe-off a", "probe a\nstat", "probes", "probes x",
		"probes 1\nprobes 2", "points 0\npoints 1" };
	char big[SHUNT_CTL_REQUEST + 2];
	unsigned refused = 0, n = sizeof bad / sizeof *bad;

	for (unsigned i = 0; i < n; i++) {
		int err = parse(bad[i]);

		if (err && why && *why)
			refused++;
		else
			diag("accepted: '%s'", bad[i]);
	}
	ok(refused == n, "malformed requests are refused with a sentence");
	memset(big, 'x', sizeof big);
	ok(shunt_ctl_parse_request(big, sizeof big, &req, &why) < 0, "too long is refused");
	ok(shunt_ctl_parse_request("stat\0x", 6, &req, &why) < 0, "a zero byte is refused");
	big[0] = 0;
	for (int i = 0; i <= SHUNT_CTL_GLOBS; i++)
		strcat(big, "enable x\n");
	ok(parse(big) < 0, "too many globs are refused");
}

static void rules(void)
{
	static const char *const globs[] = { "a*", "std::foo(int)" };
	static const char *const broken[] = { "a\nstat" }, *const empty[] = { "" };
	char out[SHUNT_CTL_REQUEST], *huge = malloc(SHUNT_CTL_REQUEST + 1);
	const char *const hugev[] = { huge };
	ssize_t n = shunt_ctl_write_rules(out, globs, 2, true);

	ok(n > 0 && !shunt_ctl_parse_request(out, (size_t)n, &req, &why) && req.nglobs == 2 &&
			!strcmp(req.globs[1], globs[1]),
		"what is written is read back");
	ok(shunt_ctl_write_rules(out, broken, 1, true) < 0, "a glob cannot smuggle a line");
	ok(shunt_ctl_write_rules(out, empty, 1, true) < 0, "an empty glob is refused");
	memset(huge, 'g', SHUNT_CTL_REQUEST);
	huge[SHUNT_CTL_REQUEST] = 0;
	ok(shunt_ctl_write_rules(out, hugev, 1, true) < 0, "a glob that does not fit is refused");
	free(huge);
}

static bool function(const char *text, struct shunt_ctl_function *fn)
{
	struct shunt_ctl_reply r = { text, text + strlen(text) };
	struct shunt_ctl_line line;

	return shunt_ctl_next_line(&r, &line) && shunt_ctl_key_is(&line, "fn") &&
	       shunt_ctl_parse_function(&line, fn);
}

static void answers(void)
{
	static const char text[] = "ok\nfunctions 12\non x\nreason a b\n";
	struct shunt_ctl_reply r = { text, text + sizeof text - 1 };
	struct shunt_ctl_line l[4];
	struct shunt_ctl_function fn;
	unsigned n = 0, refused = 0;
	static const char *const bad[] = { "fn", "fn ", "fn 1", "fn 1 on", "fn 1 maybe 1 1\ta\tb",
		"fn 1 on xyz 1\ta\tb", "fn 1 on 1 1\ta", "fn 1 on 1 1 a\tb",
		"fn 99999999999 on 1 1\ta\tb", "fn 1 on ffffffffffffffff0 1\ta\tb",
		"fn 1 on @ 1\ta\tb" };

	while (n < 4 && shunt_ctl_next_line(&r, &l[n]))
		n++;
	ok(n == 4 && shunt_ctl_key_is(&l[0], "ok") && shunt_ctl_number(&l[1]) == 12 &&
			shunt_ctl_number(&l[2]) == 0 && l[3].value_len == 3,
		"an answer is keys and values");
	ok(function("fn 7 on 401a2f 33\tlib x.so\t_Z1fv", &fn) && fn.id == 7 && fn.on &&
			fn.address == 0x401a2f && fn.size == 33 && fn.object_len == 8 &&
			fn.symbol_len == 5 && !memcmp(fn.symbol, "_Z1fv", 5),
		"a function line is read");
	ok(function("fn 7 off 0 0\t\t\n", &fn) && !fn.on && !fn.symbol_len,
		"empty names are names");
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		refused += !function(bad[i], &fn);
		if (refused != i + 1)
			diag("not refused: %s", bad[i]);
	}
	ok(refused == sizeof bad / sizeof *bad, "malformed function lines are refused");
}

int main(void)
{
	requests();
	bad_requests();
	rules();
	answers();
	return done();
}
