/* SPDX-License-Identifier: MIT */
/* out.c - names as they are printed. See out.h. */
#include "out.h"

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

void shunt_out_json(FILE *f, const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;

	putc('"', f);
	while (len) {
		size_t n = utf8(s, len);

		if (!n)
			fputs("\xef\xbf\xbd", f);
		else if (*s < ' ' || *s == 0x7f)
			fprintf(f, "\\u%04x", *s);
		else if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else
			fwrite(s, 1, n, f);
		s += n ? n : 1;
		len -= n ? n : 1;
	}
	putc('"', f);
}

size_t shunt_out_character(FILE *f, const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t n = utf8(s, len);
	/* C1 controls, too: terminals obey them. */
	int control = *s < ' ' || *s == 0x7f || (n == 2 && *s == 0xc2 && s[1] < 0xa0);

	if (n && !control)
		return fwrite(s, 1, n, f);
	n = n ? n : 1;
	for (size_t i = 0; i < n; i++)
		fprintf(f, "\\x%02x", s[i]);
	return n;
}

void shunt_out_plain(FILE *f, const char *text, size_t len)
{
	for (size_t n; len; text += n, len -= n) {
		n = shunt_out_character(f, text, len);
		if (!n)
			return; /* the file says why */
	}
}
