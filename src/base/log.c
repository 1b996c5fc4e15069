/* SPDX-License-Identifier: MIT */
/* log.c - the log callback, and the version. Silent until somebody listens. */
#include <stdarg.h>
#include <stdio.h>

#include "log.h"

static _Atomic shunt_log_fn log_fn;
static _Atomic int log_max = SHUNT_LOG_WARNING;

SHUNT_API void shunt_set_log(shunt_log_fn fn, enum shunt_log_level max)
{
	log_max = (int)max;
	log_fn = fn;
}

void shunt_log(enum shunt_log_level level, const char *fmt, ...)
{
	shunt_log_fn fn = log_fn;
	char line[512];
	va_list ap;

	if (!fn || (int)level > log_max)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	fn(level, line);
}

int shunt_why(char *why, size_t size, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return err;
}

#define STR_(x) #x
#define STR(x) STR_(x)

SHUNT_API const char *shunt_version(void)
{
	return STR(SHUNT_VERSION_MAJOR) "." STR(SHUNT_VERSION_MINOR) "." STR(
		SHUNT_VERSION_PATCH);
}
