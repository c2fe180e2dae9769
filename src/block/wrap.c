#include "block/wrap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void wrap_refresh(struct wrap *w)
{
	w->proto.size = w->inner->size;
	w->proto.growable = w->inner->growable;
	w->proto.can_discard = w->inner->can_discard;
}

int wrap_open(struct wrap *w, const struct proto_ops *ops, struct block_ctx *c,
	      const struct block_opts *o, struct err *e)
{
	const char *text = strchr(o->file, ':') + 1, *file = strchr(text, ':');
	struct block_opts inner = *o;
	int r;

	if (!file)
		return err_set(e, EINVAL, "'%s': needs %s:TEXT:FILE", o->file, ops->name);
	w->text = strndup(text, file - text);
	if (!w->text)
		return err_sys(e, ENOMEM, "'%s'", o->file);
	inner.file = file + 1;
	r = proto_open(&w->inner, c, &inner, e);
	if (r < 0)
		return r;
	w->proto = *w->inner;
	w->proto.ops = ops;
	return 0;
}

void wrap_done(struct wrap *w)
{
	proto_close(w->inner);
	free(w->text);
}
