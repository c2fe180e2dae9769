/* sweep: goes over a disk with several coroutines (jobs_priv.h).
 *
 * Workers take pieces under s->lock, from what look said last, and do them side by side. The
 * first failure ends the taking; what is in flight then is waited for. */
#include "block/jobs_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_ALIGN 4096u

bool is_zero(const uint8_t *bytes, uint64_t len)
{
	static const uint8_t zeros[16];

	if (len <= sizeof zeros)
		return !memcmp(bytes, zeros, len);
	return !memcmp(bytes, zeros, sizeof zeros) &&
	       !memcmp(bytes, bytes + sizeof zeros, len - sizeof zeros);
}

int co_request(struct block *b, enum block_op op, unsigned flags, uint64_t offset, void *data,
	       uint64_t len)
{
	struct iovec iov = {data, len};

	return block_request_in_coro(b, (struct block_req){.op = op,
							   .flags = flags,
							   .offset = offset,
							   .len = len,
							   .iov = data ? &iov : NULL,
							   .iov_count = data ? 1 : 0});
}

/* --- the workers --- */

int sweep_failed(struct sweep *s, int r, const char *doing, const struct block *b, uint64_t offset)
{
	s->ended = true;
	if (s->error)
		return r;
	s->error = r;
	return err_sys(s->e, -r, "%s '%s' at offset %llu", doing, block_file(b),
		       (unsigned long long)offset);
}

void sweep_round(struct sweep_piece *p, uint64_t most, uint64_t granule)
{
	if (p->len == most || p->len % granule == 0)
		return;
	if (p->len > granule) {
		p->len -= p->len % granule;
		return;
	}
	p->len = granule < most ? granule : most;
	p->kind = SWEEP_DATA;
}

static void advance(struct sweep *s, uint64_t len)
{
	s->done += len;
	if (s->ended || !s->progress || s->progress->step(s->progress, s->done, s->size))
		return;
	s->ended = true;
	if (!s->error)
		s->error = err_set(s->e, ECANCELED, "interrupted");
}

/* Fills s->run, unless it is the end. Called with s->lock held. */
static int look_ahead(struct sweep *s)
{
	while (!s->run.len && !s->ended && s->next < s->size) {
		int r;

		s->run = (struct sweep_piece){.offset = s->next, .len = s->size - s->next};
		r = s->look(s, &s->run);
		if (r < 0) {
			s->run.len = 0;
			s->error = s->error ? s->error : r;
			s->ended = true;
			return r;
		}
		s->next += s->run.len;
		if (s->run.kind == SWEEP_SKIP) {
			advance(s, s->run.len);
			s->run.len = 0;
		}
	}
	return 0;
}

/* Cuts a piece off s->run. */
static void cut(struct sweep *s, struct sweep_piece *p)
{
	uint64_t most = max_u64(SWEEP_USUAL_BYTES, s->boundary);

	*p = s->run;
	if (p->kind == SWEEP_DATA && p->len > most) {
		p->len = most;
		if (s->boundary)
			p->len -= (p->offset + p->len) & (s->boundary - 1);
	}
	s->run.offset += p->len;
	s->run.len -= p->len;
}

static bool take(struct sweep *s, struct sweep_piece *p)
{
	struct coros *coros = block_coros(s->ctx);
	bool got;

	coro_lock(coros, &s->lock);
	got = !s->ended && look_ahead(s) == 0 && !s->ended && s->run.len;
	if (got)
		cut(s, p);
	coro_unlock(coros, &s->lock);
	return got;
}

static void do_pieces(struct sweep *s, uint8_t *buffer)
{
	struct sweep_piece p;

	while (take(s, &p)) {
		int r = s->work(s, &p, buffer);

		if (r < 0) {
			s->error = s->error ? s->error : r;
			s->ended = true;
			return;
		}
		advance(s, p.len);
	}
}

static void worker(void *arg)
{
	struct sweep *s = arg;
	void *buffer = NULL;

	if (posix_memalign(&buffer, BUFFER_ALIGN, s->buffers * SWEEP_PIECE_BYTES) == 0)
		do_pieces(s, buffer);
	else if (!s->error)
		s->error = err_sys(s->e, ENOMEM, "buffers");
	free(buffer);
	if (!--s->running && s->waiter)
		coro_wake(s->waiter);
}

static int run_sweep(void *arg)
{
	struct sweep *s = arg;
	struct coros *coros = block_coros(s->ctx);

	for (unsigned i = 0; i < s->depth; i++) {
		int r;

		s->running++;
		r = coro_start(coros, worker, s);
		if (r < 0) {
			s->running--;
			if (!i)
				return err_sys(s->e, -r, "coroutines");
			break;
		}
	}
	s->waiter = coro_self(coros);
	if (s->running)
		coro_wait(coros);
	return s->error;
}

int sweep_disk(struct sweep *s)
{
	return block_run(s->ctx, run_sweep, s);
}
