/* SPDX-License-Identifier: MIT */
/* out.h - names as they are printed: they come from programs, and may hold anything. */
#ifndef SHUNT_CMD_OUT_H
#define SHUNT_CMD_OUT_H

#include <stddef.h>
#include <stdio.h>

/* As a JSON string, quotes included; what is not UTF-8 becomes U+FFFD. */
void shunt_out_json(FILE *f, const char *text, size_t len);

/* For a terminal: control characters and what is not UTF-8 as \xNN. */
void shunt_out_plain(FILE *f, const char *text, size_t len);

/* The same for the first character; how many bytes that are (0: not written). */
size_t shunt_out_character(FILE *f, const char *text, size_t len);

#endif
