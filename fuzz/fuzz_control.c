/* SPDX-License-Identifier: MIT */
/*
 * fuzz_control.c - the control channel's parsers with any bytes: a request as
 * the agent reads it, an answer as the command reads it.
 */
#include <stdlib.h>
#include <string.h>

#include "control/request.h"
#include "control/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(const char *text, size_t len)
{
	struct shunt_ctl_request *req = malloc(sizeof *req);
	char out[SHUNT_CTL_REQUEST];
	const char *why = NULL;
	size_t total = 0;

	if (!req)
		abort();
	if (shunt_ctl_parse_request(text, len, req, &why)) {
		if (!why || !*why)
			abort(); /* a refusal has its sentence */
	} else {
		for (size_t i = 0; i < req->nglobs; i++)
			total += strlen(req->globs[i]);
		if (total > SHUNT_CTL_REQUEST || req->nglobs > SHUNT_CTL_GLOBS)
			abort();
		/* rules that were read can be written */
		if (req->verb <= SHUNT_CTL_DISABLE &&
			shunt_ctl_write_rules(out, req->globs, req->nglobs,
				req->verb == SHUNT_CTL_ENABLE) < 0)
			abort();
	}
	free(req);
}

/* What is read as a value is written as one that reads as the same. */
static void value(const char *text, size_t len)
{
	static const char *const states[] = {"a", "b c"};
	struct shunt_var v = {.kind = SHUNT_KIND_IMV};
	char line[128], again[128];
	const char *why = NULL;
	uint64_t bits, same;

	if (len < 3 || len >= sizeof line || memchr(text, 0, len))
		return;
	v.size = (uint8_t)(1u << (text[0] & 3));
	v.type = (uint8_t)(text[1] & 7);
	v.kind = text[0] & 4 ? SHUNT_KIND_KEY : text[0] & 8 ? SHUNT_KIND_CHOICE : SHUNT_KIND_IMV;
	if (v.type == SHUNT_TYPE_FLOAT && v.size < 4)
		v.size = 8;
	memcpy(line, text + 2, len - 2);
	line[len - 2] = 0;
	if (shunt_value_parse(&v, line, states, 2, &bits, &why)) {
		if (!why || !*why)
			abort();
		return;
	}
	if (v.kind == SHUNT_KIND_CHOICE) {
		if (bits > 1)
			abort();
		return;
	}
	shunt_value_format(&v, bits, again, sizeof again);
	if (shunt_value_parse(&v, again, states, 2, &same, &why) ||
		(same != bits && !strstr(again, "nan")))
		abort();
}

static void answer(const char *text, size_t len)
{
	struct shunt_ctl_reply r = { text, text + len };
	struct shunt_ctl_function fn;
	struct shunt_ctl_line line;
	uint64_t sum = 0;

	while (shunt_ctl_next_line(&r, &line)) {
		const char *field;
		size_t flen;

		sum += shunt_ctl_number(&line) + shunt_ctl_key_is(&line, "fn");
		for (unsigned i = 0; i < 4; i++)
			if (shunt_ctl_field(&line, i, &field, &flen))
				for (size_t k = 0; k < flen; k++)
					sum += (unsigned char)field[k];
		if (shunt_ctl_parse_function(&line, &fn)) {
			for (size_t i = 0; i < fn.object_len; i++)
				sum += (unsigned char)fn.object[i];
			for (size_t i = 0; i < fn.symbol_len; i++)
				sum += (unsigned char)fn.symbol[i];
		}
	}
	__asm__ volatile("" : : "r"(sum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size ? size : 1); /* so that reading beyond is seen */

	if (!text)
		abort();
	if (size)
		memcpy(text, data, size);
	request(text, size);
	value(text, size);
	answer(text, size);
	free(text);
	return 0;
}
