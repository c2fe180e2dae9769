/* template: translations that are copied instead of made again. A program that is started over and over
 * lies at another address each time, and when the code cache is full everything in it is dropped; but
 * the same guest bytes at the same place in a page, in the same mode, always become the same code, but for
 * constants that follow from the address, and displacements.
 *
 * So a block of 64-bit code that is translated for the second time is put away: its guest bytes (also those
 * that it only looked at), its host code, its edges and sites, and where in the code such places are
 * (marks, which emit.h notes down). From the third time on it is copied. A template says nothing
 * about guest memory: it is used where that holds the same bytes, which are compared, so it never needs to
 * be dropped, and outlives flushes of the cache. When the memory for them is full, all go.
 *
 * Not for single steps, blocks that go on on another page, and while a debugger has points in the VM.
 * What a template is used for beyond its own address must not show in the code otherwise: see `pinned`, and
 * MARK_LANE. Under the cache's lock, as translating is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct emit_marks;
struct jit_block;
struct jit_cache;
struct jit_cpu;
struct jit_page;

#define TEMPLATE_SLOTS (1u << 16)
#define TEMPLATE_SEEN  (1u << 20)
struct jit_templates {
	uint8_t *mem, *end, *at; /* NULL: there are none */
	uint32_t *head;          /* hash table: offset of a list's first, or 0 */
	uint32_t *seen;          /* hashes of what was translated once, each in its slot */
	uint64_t copied, dropped;
};

WARN_UNUSED int jit_templates_init(struct jit_cache *k, struct err *e); /* cache_slow.c */
void jit_templates_done(struct jit_cache *k);
void jit_templates_release(struct jit_cache *k); /* forgets all, and gives its memory back */

/* A number for the code at gva of this page; 0: there will be no template. */
uint32_t jit_template_hash(struct jit_cpu *c, const struct jit_page *page, uint64_t gva);
/* Was it translated before? It is now. */
bool jit_template_wanted(struct jit_cache *k, uint32_t hash);

/* A block that was just translated, whose edges are not linked. */
struct jit_template_source {
	uint32_t hash;
	const struct jit_block *b;
	const uint8_t *cold; /* its cold code, up to b's stub */
	const struct emit_marks *hot_marks, *cold_marks;
	const uint8_t *bytes;  /* from b's gva on */
	const uint8_t *peeked; /* all of the page, as far as b depends on it */
	bool pinned;           /* to its address, in ways that the marks do not tell */
};
void jit_template_keep(struct jit_cache *k, const struct jit_template_source *s);

/* The block at gva, a copy, published; NULL: it is to be translated. The page is watched, or the
 * world is stopped. */
struct jit_block *jit_template_copy(struct jit_cpu *c, struct jit_page *page, uint64_t gva);
