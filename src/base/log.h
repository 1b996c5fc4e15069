/* SPDX-License-Identifier: MIT */
/* log.h - the library's one way to say something to a person. */
#ifndef SHUNT_BASE_LOG_H
#define SHUNT_BASE_LOG_H

#include <stddef.h>

#include <shunt/shunt.h>

/* Formats at most 512 bytes and hands them to the callback. Not in signals. */
void shunt_log(enum shunt_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Says why something cannot be, in a caller's buffer of `size` bytes. Returns err, so
 * that a refusal is one line. Not in signals.
 */
int shunt_why(char *why, size_t size, int err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
