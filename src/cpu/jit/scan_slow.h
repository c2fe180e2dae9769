/* scan: reads a block's host code back, and tells whether it holds to what translated code may
 * do. For tests and fuzz targets: nothing of the engine calls it.
 *
 * The code that can be reached from the block's entries and stubs, and every other byte of its
 * hot part, is decoded as host code. None of it may
 * - enter the kernel, be privileged, or stop or trap by design;
 * - name a segment, control or debug register, read or write FS or GS base, PKRU, or RFLAGS
 *   beyond the six arithmetic bits, or name RSP (a call of a thunk pushes);
 * - address memory but by GS, within struct jit_cpu and without writing to the parts of it that
 *   are not translated code's; or by R14 after a check has made that a host address; or through the
 *   window, after a comparison of the lane (scan_facts.h);
 * - lead anywhere but to itself, to a thunk, to another block's entry, or through the jump table. */
#pragma once

#include "cpu/jit/cache.h"

struct scan {
	uint32_t insns;      /* decoded */
	uint32_t cold_bytes; /* of cold code that were reached */
};

/* 0, or -EBADMSG, and e says what stands where. fresh: b was just translated, nothing is linked
 * to it or from it yet: then it must not lead to other blocks. */
WARN_UNUSED int jit_scan_block(const struct jit_cache *k, const struct jit_block *b, bool fresh,
			       struct scan *s, struct err *e);

/* The block of guest-physical address gpa, translated at other virtual addresses and copied from one to
 * the other (template.h), is what the translator makes there, and holds to the same. -EBADMSG likewise; 0
 * also where there is no copy. */
WARN_UNUSED int jit_scan_copies(struct jit_cpu *c, gpa_t gpa, struct err *e);

/* Translates the block at gva, as the vCPU's state has it now, where gva is also the guest-physical
 * address; scans it, and sees whether it kept to the room that its instructions may take. -EFAULT:
 * there is no block: fetching raises, or the cache is full (then the caller flushes). */
WARN_UNUSED int jit_scan_at(struct jit_cpu *c, uint64_t gva, bool step, struct scan *s,
			    struct err *e);
