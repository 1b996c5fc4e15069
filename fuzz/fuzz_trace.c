/* SPDX-License-Identifier: MIT */
/*
 * fuzz_trace.c - the trace reader on anything at all. The input is split at
 * bytes of 0x00 0xff into info, threads, one list of functions, and data.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmd/trace/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* C++ names are another project's to fuzz. */
char *shunt_demangle(const char *name)
{
	(void)name;
	return NULL;
}

static char *part(const uint8_t **data, size_t *size)
{
	size_t n = 0, skip;
	char *text;

	while (n < *size && !((*data)[n] == 0 && n + 1 < *size && (*data)[n + 1] == 0xff))
		n++;
	text = malloc(n + 1);
	if (!text)
		abort();
	memcpy(text, *data, n);
	text[n] = 0;
	skip = n + 2 < *size ? n + 2 : *size;
	*data += skip;
	*size -= skip;
	return text;
}

static void on_enter(struct trace_calls *c, const struct trace_frame *f, size_t depth)
{
	char buf[128];

	if (depth < 8)
		trace_name(c->arg, 1, f->id, buf, sizeof buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trace t;
	char *text;

	trace_init(&t, NULL);
	text = part(&data, &size);
	trace_parse_info(&t, text);
	free(text);
	text = part(&data, &size);
	trace_parse_threads(&t, text);
	free(text);
	trace_parse_object(&t, part(&data, &size), "objects/1");
	t.memory = data;
	t.size = size;
	if (!trace_index(&t))
		for (size_t i = 0; i < t.nstreams; i++) {
			struct trace_calls c = {.enter = on_enter, .arg = &t};
			struct trace_reader in;
			struct trace_event e;

			if (trace_reader_init(&in, &t, &t.streams[i]))
				break;
			while (trace_reader_next(&in, &e) == 1)
				trace_calls_event(&c, &e);
			trace_calls_end(&c);
			trace_reader_end(&in);
		}
	trace_close(&t);
	return 0;
}
