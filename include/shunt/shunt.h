/* SPDX-License-Identifier: MIT */
/*
 * shunt.h - what every part of libshunt shares: visibility, version, log.
 *
 *   shunt_version()       the library's version, "MAJOR.MINOR.PATCH"
 *   shunt_set_log()       where the library's messages go (default: nowhere)
 *
 * The library never prints, exits or aborts over a failure that a caller can
 * handle: functions return 0 or a negative errno, and what there is to say
 * beyond that goes through the log callback.
 */
#ifndef SHUNT_SHUNT_H
#define SHUNT_SHUNT_H

#ifdef __cplusplus
extern "C" {
#endif

#define SHUNT_API __attribute__((visibility("default")))

#define SHUNT_VERSION_MAJOR 0
#define SHUNT_VERSION_MINOR 1
#define SHUNT_VERSION_PATCH 0

enum shunt_log_level {
	SHUNT_LOG_ERROR = 0,
	SHUNT_LOG_WARNING = 1,
	SHUNT_LOG_INFO = 2,
	SHUNT_LOG_DEBUG = 3,
};

/*
 * A message callback. Called with one complete line without a newline, from
 * any thread, never from a signal handler. It may allocate and block; it must
 * not call back into libshunt.
 */
typedef void (*shunt_log_fn)(enum shunt_log_level level, const char *message);

/*
 * Sets the callback that receives the library's messages of `max` and more
 * severe levels. NULL (the default) drops them. Any thread, not in a signal
 * handler; does not block or allocate.
 */
SHUNT_API void shunt_set_log(shunt_log_fn fn, enum shunt_log_level max);

/* The version of the library that is running. Any context. */
SHUNT_API const char *shunt_version(void);

#ifdef __cplusplus
}
#endif
#endif
