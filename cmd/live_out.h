/* SPDX-License-Identifier: MIT */
/* live_out.h - how the live commands print names. */
#ifndef SHUNT_CMD_LIVE_OUT_H
#define SHUNT_CMD_LIVE_OUT_H

#include <stddef.h>

/* A symbol for people. */
void shunt_live_symbol(const char *symbol, size_t len);

#endif
