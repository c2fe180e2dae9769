#include "image/convert.h"

#include <errno.h>

static int to_new(struct block_ctx *ctx, struct block *src, const struct image_conversion *c,
		  struct block_progress *p, struct err *e)
{
	const struct block_create_opts create = {
		.file = c->to, .format = c->to_format, .size = block_size(src)};
	const struct block_opts open = {
		.file = c->to, .format = c->to_format, .cache = BLOCK_CACHE_UNSAFE};
	const struct block_convert_opts how = {
		.sparse_bytes = KIB(4), .target_is_zero = true, .compress = c->compress};
	struct block *dst;
	int r = block_create(ctx, &create, e), closed;

	if (r < 0 || (r = block_open(&dst, ctx, &open, e)) < 0)
		return r;
	r = block_convert(&src, 1, dst, &how, p, e);
	closed = block_close(dst, r < 0 ? NULL : e);
	return r < 0 ? r : closed;
}

static int check_backing(const struct block *b, struct err *e)
{
	const char *backing = block_backing_file(b);

	return backing ? err_set(e, EINVAL,
				 "the image is but a layer over another file, '%s', which does not "
				 "come with it",
				 backing)
		       : 0;
}

int image_convert(const struct image_conversion *c, struct block_progress *p, struct err *e)
{
	const struct block_opts o = {.file = c->from,
				     .format = c->from_format,
				     .read_only = true,
				     .no_backing = c->no_backing,
				     .no_lock = c->no_lock};
	struct block_ctx *ctx;
	struct block *src;
	int r = block_ctx_new(&ctx, NULL, BLOCK_ENGINE_AUTO, e);

	if (r < 0)
		return r;
	if ((r = block_open(&src, ctx, &o, e)) == 0) {
		r = c->no_backing ? check_backing(src, e) : 0;
		if (r == 0)
			r = to_new(ctx, src, c, p, e);
		block_close(src, NULL);
	}
	block_ctx_free(ctx);
	return r;
}

int image_check_alone(const char *file, const char *format, uint64_t *size, struct err *e)
{
	const struct block_opts o = {
		.file = file, .format = format, .read_only = true, .no_backing = true};
	struct block_ctx *ctx;
	struct block *b;
	int r = block_ctx_new(&ctx, NULL, BLOCK_ENGINE_AUTO, e);

	if (r < 0)
		return r;
	if ((r = block_open(&b, ctx, &o, e)) == 0) {
		r = check_backing(b, e);
		if (r == 0)
			*size = block_size(b);
		block_close(b, NULL);
	}
	block_ctx_free(ctx);
	return r;
}
