#include "block/chain.h"

#include <errno.h>

#include "block/jobs_priv.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int co_view(struct block *b, uint64_t offset, uint64_t len, struct block_view *out)
{
	struct block_view v = {.image = b};

	if (offset >= b->size || !len)
		return -EINVAL;
	len = least(len, b->size - offset);
	for (;; v.depth++, v.image = v.image->backing) {
		int r = v.image->driver->map(v.image, offset, len, &v.extent);

		if (r < 0)
			return r;
		if (!v.extent.len)
			return -EIO;
		len = v.extent.len = least(len, v.extent.len);
		if (v.extent.kind != BLOCK_ABSENT || !v.image->backing)
			break;
		if (offset >= v.image->backing->size) /* zeros behind its end */
			break;
		len = least(len, v.image->backing->size - offset);
	}
	*out = v;
	return 0;
}

struct view_call {
	struct block *b;
	uint64_t offset, len;
	struct block_view *out;
};

static int run_view(void *arg)
{
	struct view_call *c = arg;

	return co_view(c->b, c->offset, c->len, c->out);
}

int block_view(struct block *b, uint64_t offset, uint64_t len, struct block_view *out)
{
	struct view_call c = {b, offset, len, out};

	return block_run(b->ctx, run_view, &c);
}
