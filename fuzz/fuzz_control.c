/* SPDX-License-Identifier: MIT */
/*
 * fuzz_control.c - the control channel's parsers with any bytes: a request as
 * the agent reads it, an answer as the command reads it.
 */
#include <stdlib.h>
#include <string.h>

#include "control/request.h"

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

static void answer(const char *text, size_t len)
{
	struct shunt_ctl_reply r = { text, text + len };
	struct shunt_ctl_function fn;
	struct shunt_ctl_line line;
	uint64_t sum = 0;

	while (shunt_ctl_next_line(&r, &line)) {
		sum += shunt_ctl_number(&line) + shunt_ctl_key_is(&line, "fn");
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
	answer(text, size);
	free(text);
	return 0;
}
