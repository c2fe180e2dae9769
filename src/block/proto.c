/* proto: which protocol the name of an image means, and what all protocols share. */
#include <errno.h>
#include <string.h>

#include "block/wrap.h"

static const struct proto_type types[] = {
	{"nbd://", nbd_open, false},      {"nbds://", nbd_open, false},
	{"nbd+unix://", nbd_open, false}, {"nbds+unix://", nbd_open, false},
	{"faulty:", faulty_open, true},   {"crashlog:", crashlog_open, true},
	{"", file_open, false},
};

const struct proto_type *proto_type_of(const char *file)
{
	const struct proto_type *t = types;

	while (strncmp(file, t->scheme, strlen(t->scheme)))
		t++; /* ends at "", at the latest */
	return t;
}

const char *block_path(const char *file)
{
	return strncmp(file, "file:", 5) ? file : file + 5;
}

int proto_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	return proto_type_of(o->file)->open(out, c, o, e);
}

int proto_create(struct proto **out, struct block_ctx *c, const char *file, struct err *e)
{
	const struct block_opts o = {.file = file, .cache = BLOCK_CACHE_WRITEBACK};
	const struct proto_type *t = proto_type_of(file);

	return t->scheme[0] ? t->open(out, c, &o, e) : file_create(out, c, &o, e);
}

void proto_close(struct proto *p)
{
	if (p)
		p->ops->close(p);
}

int proto_read(struct proto *p, uint64_t offset, void *to, uint64_t len)
{
	struct iovec iov = {to, len};

	return p->ops->readv(p, offset, &iov, 1);
}

int proto_write(struct proto *p, uint64_t offset, const void *from, uint64_t len)
{
	struct iovec iov = {(void *)from, len};

	return p->ops->writev(p, offset, &iov, 1);
}

int proto_flush(struct proto *p)
{
	return p->ops->flush(p);
}

int proto_write_zeros(struct proto *p, uint64_t offset, uint64_t len)
{
	const void *zeros = block_zeros(p->ctx);
	int r = 0;

	while (len && r == 0) {
		uint64_t piece = min_u64(len, BLOCK_ZEROS_BYTES - offset % BLOCK_ZEROS_BYTES);

		r = proto_write(p, offset, zeros, piece);
		offset += piece;
		len -= piece;
	}
	return r;
}

int proto_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	int r = -ENOTSUP;

	if (len == 0)
		return 0;
	if (p->ops->zero)
		r = p->ops->zero(p, offset, len, unmap);
	return r == -ENOTSUP ? proto_write_zeros(p, offset, len) : r;
}

int proto_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	int r = -ENOTSUP;

	if (len && p->ops->discard)
		r = p->ops->discard(p, offset, len);
	return r == -ENOTSUP ? 0 : r;
}
