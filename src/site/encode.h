/* SPDX-License-Identifier: MIT */
/* encode.h - what a site's instruction is, for a value of its variable. Pure functions. */
#ifndef SHUNT_SITE_ENCODE_H
#define SHUNT_SITE_ENCODE_H

#include <stdbool.h>

#include <shunt/site.h>

/* What a call's sites hold at first: they load the target. */
#define SHUNT_CALL_UNPATCHED UINT64_MAX

/* What the record says: the instruction, where a key jumps or a choice has its table, the kind. */
uint8_t *shunt_site_at(const struct shunt_site *s);
uint8_t *shunt_site_target(const struct shunt_site *s);
enum shunt_kind shunt_site_kind(const struct shunt_site *s);

/* Of a choice's site, or an op's: what there is for a state; where its branch goes. */
size_t shunt_site_variant(const struct shunt_site *s, uint64_t state);
uint8_t *shunt_site_choice_target(const struct shunt_site *s, uint64_t state);

/* The value that it was compiled for. */
uint64_t shunt_site_compiled(const struct shunt_site *s);

/* Whether two values make the same instruction of it. */
bool shunt_site_same(const struct shunt_site *s, uint64_t a, uint64_t b);

/* The s->len bytes of the instruction that holds `bits`; an imv's register is in the text. */
void shunt_site_encode(const struct shunt_site *s, const struct shunt_var *v, uint64_t bits, uint8_t *to);

#endif
