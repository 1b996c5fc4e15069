/* SPDX-License-Identifier: MIT */
/* live.h - the victims' files, and which of them are loaded. */
#ifndef LIVE_H
#define LIVE_H

#include <stdio.h>
#include <string.h>

#include "object/object.h"

static const char *dir;

static const char *victim(const char *file)
{
	static char path[4096];

	snprintf(path, sizeof path, "%s/%s", dir, file);
	return path;
}

static struct shunt_object *live_named(const char *file)
{
	for (struct shunt_object *o = shunt_objects_first(); o; o = o->next) {
		const char *slash = strrchr(o->path, '/');

		if (!o->gone && !strcmp(slash ? slash + 1 : o->path, file))
			return o;
	}
	return NULL;
}

#endif
