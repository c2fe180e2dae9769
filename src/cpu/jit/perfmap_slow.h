/* perfmap: tells a profiler what translated code was made from. Where the environment variable
 * HOLON_PERF_MAP names a file, it gets a line for each piece of code, in the format of perf's
 * maps of code made at run time: address, length and name, the first two in hexadecimal. Code
 * that was flushed is not taken out: the later line is the right one.
 *
 * Under whatever keeps two threads from translating at once. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/err.h"

struct jit_block;
struct jit_cache;

/* *out is NULL where no map is wanted. */
WARN_UNUSED int jit_perfmap_open(FILE **out, struct err *e);
/* After the thunks were made. */
void jit_perfmap_thunks(const struct jit_cache *k);
/* b's hot code, and its cold code [cold, cold_end), writable mapping. Nothing without a map. */
void jit_perfmap_block(const struct jit_cache *k, const struct jit_block *b, const uint8_t *cold,
		       const uint8_t *cold_end);
