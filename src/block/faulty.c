/* faulty: a test aid, not for disks that matter: faulty:RULES:FILE is FILE with errors and delays.
 *
 *   RULES    RULE[+RULE]...
 *   RULE     OP=ACTION[@N][xM]
 *   OP       read, write, flush, zero, discard, any
 *   ACTION   EIO, ENOSPC, or a delay in milliseconds: 20ms
 *   @N       from the Nth such operation on (the first is 1; so without it)
 *   xM       for M operations (without it: for ever)
 *
 * faulty:write=ENOSPC@100x3+flush=20ms:disk.qcow2: writes 100 to 102 fail, flushes are slow. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "block/wrap.h"

#define RULES_MAX 16

static const char *const op_names[] = {"read", "write", "flush", "zero", "discard", "any"};
enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_ZERO, OP_DISCARD, OP_ANY };

struct rule {
	enum op op;
	int error; /* negative errno; 0: a delay */
	uint64_t delay_ns;
	uint64_t first, count, seen;
};

struct faulty {
	struct wrap wrap;
	struct rule rules[RULES_MAX];
	unsigned rule_count;
};

static bool parse_op(struct rule *r, const char *text, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(op_names); i++) {
		if (strlen(op_names[i]) == len && !strncmp(op_names[i], text, len)) {
			r->op = i;
			return true;
		}
	}
	return false;
}

static bool parse_action(struct rule *r, const char **at)
{
	char *end;

	if (!strncmp(*at, "EIO", 3)) {
		r->error = -EIO;
		*at += 3;
		return true;
	}
	if (!strncmp(*at, "ENOSPC", 6)) {
		r->error = -ENOSPC;
		*at += 6;
		return true;
	}
	r->delay_ns = strtoull(*at, &end, 10) * 1000000;
	if (end == *at || strncmp(end, "ms", 2))
		return false;
	*at = end + 2;
	return true;
}

static bool parse_number(uint64_t *n, const char **at, char mark)
{
	char *end;

	if (**at != mark)
		return true;
	*n = strtoull(*at + 1, &end, 10);
	if (end == *at + 1 || *n == 0)
		return false;
	*at = end;
	return true;
}

static bool parse_rule(struct rule *r, const char *text)
{
	const char *equals = strchr(text, '='), *at = equals ? equals + 1 : text;

	*r = (struct rule){.first = 1, .count = UINT64_MAX};
	return equals && parse_op(r, text, equals - text) && parse_action(r, &at) &&
	       parse_number(&r->first, &at, '@') && parse_number(&r->count, &at, 'x') && !*at;
}

static int parse_rules(struct faulty *f, struct err *e)
{
	AUTO_FREE char *copy = strdup(f->wrap.text);
	char *rest = NULL;

	if (!copy)
		return err_sys(e, ENOMEM, "faulty");
	for (char *t = strtok_r(copy, "+", &rest); t; t = strtok_r(NULL, "+", &rest)) {
		if (f->rule_count == RULES_MAX)
			return err_set(e, EINVAL, "faulty: more than %d rules", RULES_MAX);
		if (!parse_rule(&f->rules[f->rule_count++], t))
			return err_set(e, EINVAL, "faulty: no rule '%s'", t);
	}
	return 0;
}

/* 0 or the error that an operation shall end with; waits if it shall. */
static int meddle(struct faulty *f, enum op op)
{
	int error = 0;
	uint64_t delay_ns = 0;

	for (unsigned i = 0; i < f->rule_count; i++) {
		struct rule *r = &f->rules[i];

		if (r->op != op && r->op != OP_ANY)
			continue;
		r->seen++;
		if (r->seen < r->first || r->seen - r->first >= r->count)
			continue;
		delay_ns += r->delay_ns;
		error = error ? error : r->error;
	}
	if (delay_ns)
		block_sleep(f->wrap.proto.ctx, delay_ns);
	return error;
}

static struct faulty *to_faulty(struct proto *p)
{
	return container_of(p, struct faulty, wrap.proto);
}

static int done(struct faulty *f, int r)
{
	wrap_refresh(&f->wrap);
	return r;
}

static int faulty_readv(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct faulty *f = to_faulty(p);
	struct proto *inner = f->wrap.inner;
	int r = meddle(f, OP_READ);

	return done(f, r ? r : inner->ops->readv(inner, offset, iov, n));
}

static int faulty_writev(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct faulty *f = to_faulty(p);
	struct proto *inner = f->wrap.inner;
	int r = meddle(f, OP_WRITE);

	return done(f, r ? r : inner->ops->writev(inner, offset, iov, n));
}

static int faulty_flush(struct proto *p)
{
	struct faulty *f = to_faulty(p);
	int r = meddle(f, OP_FLUSH);

	return done(f, r ? r : proto_flush(f->wrap.inner));
}

static int faulty_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	struct faulty *f = to_faulty(p);
	int r = meddle(f, OP_ZERO);

	return done(f, r ? r : proto_zero(f->wrap.inner, offset, len, unmap));
}

static int faulty_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	struct faulty *f = to_faulty(p);
	int r = meddle(f, OP_DISCARD);

	return done(f, r ? r : proto_discard(f->wrap.inner, offset, len));
}

static int faulty_truncate(struct proto *p, uint64_t size)
{
	struct faulty *f = to_faulty(p);
	struct proto *inner = f->wrap.inner;

	return done(f, inner->ops->truncate ? inner->ops->truncate(inner, size) : -ENOTSUP);
}

static void faulty_close(struct proto *p)
{
	struct faulty *f = to_faulty(p);

	wrap_done(&f->wrap);
	free(f);
}

static const struct proto_ops faulty_ops = {
	.name = "faulty",
	.readv = faulty_readv,
	.writev = faulty_writev,
	.flush = faulty_flush,
	.zero = faulty_zero,
	.discard = faulty_discard,
	.truncate = faulty_truncate,
	.close = faulty_close,
};

int faulty_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	struct faulty *f = calloc(1, sizeof *f);
	int r;

	if (!f)
		return err_sys(e, ENOMEM, "faulty");
	r = wrap_open(&f->wrap, &faulty_ops, c, o, e);
	if (r == 0)
		r = parse_rules(f, e);
	if (r < 0)
		faulty_close(&f->wrap.proto);
	else
		*out = &f->wrap.proto;
	return r;
}
