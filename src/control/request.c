/* SPDX-License-Identifier: MIT */
/*
 * request.c - reading and writing what goes through a mailbox. See request.h.
 *
 * A request is copied into the structure first and cut there: afterwards its
 * globs are ordinary strings that nobody else can change. An answer is read in
 * place by pointer and length, because it is only looked at once.
 */
#include <errno.h>
#include <string.h>

#include "request.h"

static const struct {
	const char *word;
	enum shunt_ctl_verb verb;
} verbs[] = {
	{ "enable", SHUNT_CTL_ENABLE },
	{ "disable", SHUNT_CTL_DISABLE },
	{ "list", SHUNT_CTL_LIST },
	{ "stat", SHUNT_CTL_STAT },
	{ "stop", SHUNT_CTL_STOP },
	{ "values", SHUNT_CTL_VALUES },
	{ "set", SHUNT_CTL_SET },
	{ "changes", SHUNT_CTL_CHANGES },
	{ "points", SHUNT_CTL_POINTS },
	{ "probe", SHUNT_CTL_PROBE },
	{ "unprobe", SHUNT_CTL_UNPROBE },
	{ "probe-on", SHUNT_CTL_PROBE_ON },
	{ "probe-off", SHUNT_CTL_PROBE_OFF },
	{ "probes", SHUNT_CTL_PROBES },
};

/* Cuts the verb off a line; *rest is what follows its space, "" if nothing. */
static enum shunt_ctl_verb cut_verb(char *line, char **rest)
{
	size_t n = strcspn(line, " ");

	*rest = line + n + (line[n] == ' ');
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (strlen(verbs[i].word) == n && !memcmp(line, verbs[i].word, n))
			return verbs[i].verb;
	return 0;
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static int parse_first(char *arg, struct shunt_ctl_request *req, const char **why)
{
	uint64_t n = 0;

	*why = "a number is missing";
	if (!digit(*arg))
		return -EINVAL;
	for (; digit(*arg); arg++) {
		n = n * 10 + (uint64_t)(*arg - '0');
		if (n > UINT32_MAX)
			return -EINVAL;
	}
	req->first = (uint32_t)n;
	if (*arg == ' ' && arg[1])
		req->globs[req->nglobs++] = arg + 1;
	else if (*arg)
		return -EINVAL;
	return 0;
}

static int parse_glob(char *arg, struct shunt_ctl_request *req, const char **why)
{
	*why = "a pattern is missing";
	if (!*arg)
		return -EINVAL;
	*why = "too many patterns in one request";
	if (req->nglobs == SHUNT_CTL_GLOBS)
		return -EINVAL;
	req->globs[req->nglobs++] = arg;
	return 0;
}

/* Whether a request may have several lines of it. */
static bool of_lines(enum shunt_ctl_verb verb)
{
	return verb <= SHUNT_CTL_DISABLE || (verb >= SHUNT_CTL_PROBE && verb <= SHUNT_CTL_PROBE_OFF);
}

static int parse_line(char *line, struct shunt_ctl_request *req, const char **why)
{
	char *rest;
	enum shunt_ctl_verb verb = cut_verb(line, &rest);

	*why = "unknown request";
	if (!verb)
		return -EINVAL;
	*why = "one kind of request at a time";
	if (req->verb && (req->verb != verb || !of_lines(verb)))
		return -EINVAL;
	req->verb = verb;
	if (verb == SHUNT_CTL_LIST || verb == SHUNT_CTL_VALUES || verb == SHUNT_CTL_CHANGES ||
		verb == SHUNT_CTL_POINTS || verb == SHUNT_CTL_PROBES)
		return parse_first(rest, req, why);
	if (verb == SHUNT_CTL_SET || of_lines(verb))
		return parse_glob(rest, req, why);
	*why = "this request takes no argument";
	return *rest ? -EINVAL : 0;
}

int shunt_ctl_parse_request(const char *text, size_t len, struct shunt_ctl_request *req,
	const char **why)
{
	char *line, *end;
	int err;

	req->verb = 0;
	req->first = 0;
	req->nglobs = 0;
	*why = "the request is too long or holds a zero byte";
	if (len > SHUNT_CTL_REQUEST || memchr(text, 0, len))
		return -EINVAL;
	memcpy(req->text, text, len);
	req->text[len] = 0;
	for (line = req->text; *line; line = end) {
		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = 0;
		err = parse_line(line, req, why);
		if (err)
			return err;
	}
	*why = "empty request";
	return req->verb ? 0 : -EINVAL;
}

ssize_t shunt_ctl_write_lines(char out[SHUNT_CTL_REQUEST], const char *verb, const char *const *words,
	size_t n)
{
	size_t at = 0, vlen = strlen(verb);

	if (n > SHUNT_CTL_GLOBS)
		return -E2BIG;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(words[i]);

		if (!len || strchr(words[i], '\n'))
			return -EINVAL;
		if (at + vlen + len + 2 > SHUNT_CTL_REQUEST)
			return -E2BIG;
		memcpy(out + at, verb, vlen);
		out[at + vlen] = ' ';
		memcpy(out + at + vlen + 1, words[i], len);
		at += vlen + len + 1;
		out[at++] = '\n';
	}
	return (ssize_t)at;
}

ssize_t shunt_ctl_write_rules(char out[SHUNT_CTL_REQUEST], const char *const *globs, size_t n,
	bool on)
{
	return shunt_ctl_write_lines(out, on ? "enable" : "disable", globs, n);
}

bool shunt_ctl_next_line(struct shunt_ctl_reply *reply, struct shunt_ctl_line *line)
{
	const char *end, *space;

	if (reply->at >= reply->end)
		return false;
	end = memchr(reply->at, '\n', (size_t)(reply->end - reply->at));
	if (!end)
		end = reply->end;
	space = memchr(reply->at, ' ', (size_t)(end - reply->at));
	line->key = reply->at;
	line->key_len = (size_t)((space ? space : end) - reply->at);
	line->value = space ? space + 1 : end;
	line->value_len = (size_t)(end - line->value);
	reply->at = end < reply->end ? end + 1 : end;
	return true;
}

bool shunt_ctl_key_is(const struct shunt_ctl_line *line, const char *key)
{
	return strlen(key) == line->key_len && !memcmp(key, line->key, line->key_len);
}

bool shunt_ctl_field(const struct shunt_ctl_line *line, unsigned n, const char **text, size_t *len)
{
	const char *at = line->value, *end = at + line->value_len, *tab;

	for (;; at = tab + 1, n--) {
		tab = memchr(at, '\t', (size_t)(end - at));
		if (!n) {
			*text = at;
			*len = (size_t)((tab ? tab : end) - at);
			return true;
		}
		if (!tab)
			return false;
	}
}

/* A cursor over one value. */
struct span {
	const char *at, *end;
};

static unsigned digit_value(char c)
{
	if (digit(c))
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	return 99;
}

static bool take_number(struct span *s, unsigned base, uint64_t *out)
{
	const char *from = s->at;
	uint64_t n = 0;

	for (; s->at < s->end; s->at++) {
		unsigned d = digit_value(*s->at);

		if (d >= base)
			break;
		if (n > (UINT64_MAX - d) / base)
			return false;
		n = n * base + d;
	}
	*out = n;
	return s->at > from;
}

static bool take_char(struct span *s, char c)
{
	if (s->at >= s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static bool take_word(struct span *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n))
		return false;
	s->at += n;
	return true;
}

uint64_t shunt_ctl_number(const struct shunt_ctl_line *line)
{
	struct span s = { line->value, line->value + line->value_len };
	uint64_t n;

	return take_number(&s, 10, &n) && s.at == s.end ? n : 0;
}

bool shunt_ctl_parse_function(const struct shunt_ctl_line *line, struct shunt_ctl_function *fn)
{
	struct span s = { line->value, line->value + line->value_len };
	const char *tab;
	uint64_t id;

	if (!take_number(&s, 10, &id) || id > UINT32_MAX || !take_char(&s, ' '))
		return false;
	fn->id = (uint32_t)id;
	fn->on = take_word(&s, "on ");
	if (!fn->on && !take_word(&s, "off "))
		return false;
	if (!take_number(&s, 16, &fn->address) || !take_char(&s, ' ') ||
		!take_number(&s, 10, &fn->size) || !take_char(&s, '\t'))
		return false;
	tab = memchr(s.at, '\t', (size_t)(s.end - s.at));
	if (!tab)
		return false;
	fn->object = s.at;
	fn->object_len = (size_t)(tab - s.at);
	fn->symbol = tab + 1;
	fn->symbol_len = (size_t)(s.end - fn->symbol);
	return true;
}
