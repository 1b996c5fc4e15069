/* SPDX-License-Identifier: MIT */
/*
 * tap.h - the little that our tests need to speak TAP.
 *
 *   ok(cond, "name of the property", ...)   one numbered line
 *   skip("why", ...)                        a test that cannot run here
 *   diag("text", ...)                       a remark
 *   return done();                          prints the plan, 0 if all passed
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdio.h>

static int tap_count, tap_failed;

__attribute__((unused, format(printf, 2, 3))) static int tap_ok(int pass, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", pass ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	tap_failed += !pass;
	return pass;
}

__attribute__((unused, format(printf, 1, 2))) static void diag(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

#define ok(cond, ...) tap_ok(!!(cond), __VA_ARGS__)
#define skip(...) \
	do { \
		printf("ok %d # SKIP ", ++tap_count); \
		printf(__VA_ARGS__); \
		putchar('\n'); \
	} while (0)

__attribute__((unused)) static int done(void)
{
	printf("1..%d\n", tap_count);
	fflush(stdout);
	return tap_failed != 0;
}

#endif
