/* SPDX-License-Identifier: MIT */
/* log.h - the library's one way to say something to a person. */
#ifndef SHUNT_BASE_LOG_H
#define SHUNT_BASE_LOG_H

#include <shunt/shunt.h>

/* Formats at most 512 bytes and hands them to the callback. Not in signals. */
void shunt_log(enum shunt_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
