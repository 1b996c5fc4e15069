/* SPDX-License-Identifier: MIT */
/* live_out.c - how the live commands print names. See live_out.h. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "live_out.h"

/* trace/demangle.cpp; malloced, NULL when it is no C++ name */
char *shunt_demangle(const char *name);

/* Bytes of the UTF-8 character at s, 0 if there is none. */
static size_t utf8(const unsigned char *s, size_t len)
{
	size_t n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : (*s & 0xf0) == 0xe0 ? 3 :
		   *s >= 0xf0 && *s < 0xf5 ? 4 : 0;

	if (!n || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] >= 0xa0) ||
		(*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] >= 0x90))
		return 0; /* overlong, a surrogate, or too large */
	return n;
}

void shunt_live_string(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;

	putchar('"');
	while (len) {
		size_t n = utf8(s, len);

		if (!n || *s < ' ')
			printf("\\u%04x", *s);
		else if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else
			fwrite(s, 1, n, stdout);
		s += n ? n : 1;
		len -= n ? n : 1;
	}
	putchar('"');
}

void shunt_live_symbol(const char *symbol, size_t len)
{
	char *raw = strndup(symbol, len), *name = raw ? shunt_demangle(raw) : NULL;

	if (name)
		fputs(name, stdout);
	else
		fwrite(symbol, 1, len, stdout);
	free(name);
	free(raw);
}
