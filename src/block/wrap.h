/* wrap: protocols that lay themselves around another one, for tests: faulty.c and crashlog.c.
 * Their names have the form SCHEME:TEXT:FILE; TEXT has no colon. */
#pragma once

#include "block/block_priv.h"

struct wrap {
	struct proto proto;
	struct proto *inner;
	char *text; /* between the colons */
};

/* Opens FILE and sets up w, whose memory stays the caller's. w->text is malloc'ed. */
WARN_UNUSED int wrap_open(struct wrap *w, const struct proto_ops *ops, struct block_ctx *c,
			  const struct block_opts *o, struct err *e);
void wrap_done(struct wrap *w); /* also of one that did not open */
/* Takes over what an operation may have changed. */
void wrap_refresh(struct wrap *w);

int faulty_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e);
int crashlog_open(struct proto **out, struct block_ctx *c, const struct block_opts *o,
		  struct err *e);
