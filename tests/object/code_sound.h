/* SPDX-License-Identifier: MIT */
/* code_sound.h - what holds of every list of functions, whatever it was read from. */
#ifndef CODE_SOUND_H
#define CODE_SOUND_H

#include <string.h>

#include "object/code.h"

/* NULL, or what is wrong. `lo`..`hi` is where the object's code is. */
static inline const char *code_unsound(const struct shunt_code_list *l, uintptr_t lo, uintptr_t hi)
{
	if (!l->soname || !l->hash || *l->strings)
		return "something is missing";
	for (uint32_t i = 0; i < l->nfuncs; i++) {
		const struct shunt_code_func *f = &l->funcs[i];

		if (i && f->start <= f[-1].start)
			return "starts do not ascend";
		if (!f->size || f->start < lo || f->start >= hi || f->size > hi - f->start)
			return "a function is not in the code";
		if (f->outer != SHUNT_CODE_NONE
			&& (f->outer >= i || l->funcs[f->outer].start + l->funcs[f->outer].size
					<= f->start))
			return "an outer function is none";
		if (!f->name != (f->rank == SHUNT_CODE_NAMELESS))
			return "a name without a rank";
		if (shunt_code_in(l, f->start) != f)
			return "a start does not lead to its function";
	}
	for (uint32_t i = 0; i < l->nnames; i++) {
		const struct shunt_code_name *n = &l->names[i];
		const struct shunt_code_name *hit = NULL;

		if (n->func >= l->nfuncs || (i && n->func < n[-1].func))
			return "names are not by function";
		if (strlen(l->strings + n->name) > 65536)
			return "a name does not end";
		/* Few have many of one name; a damaged file may. */
		for (unsigned k = 0; k < 64 && (hit = shunt_code_named(l, l->strings + n->name,
							 hit)) != n && hit; k++)
			;
		if (!hit)
			return "a name cannot be found";
	}
	for (uint32_t i = 0; i < l->npads; i++)
		if (l->pads[i] < lo || l->pads[i] >= hi || (i && l->pads[i] <= l->pads[i - 1]))
			return "a landing pad is not in the code";
	return NULL;
}

#endif
