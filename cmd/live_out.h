/* SPDX-License-Identifier: MIT */
/* live_out.h - how the live commands print names. */
#ifndef SHUNT_CMD_LIVE_OUT_H
#define SHUNT_CMD_LIVE_OUT_H

#include <stddef.h>

/* As a JSON string, quotes included; bytes that are not UTF-8 as \u00XX. */
void shunt_live_string(const char *text, size_t len);

/* A symbol for people. */
void shunt_live_symbol(const char *symbol, size_t len);

#endif
