/* console_pipe: a console's end that is the terminal of the program we are part of. Input waits
 * in a ring until the guest has buffers for it; output is handed on as it comes, and may block:
 * the console has an I/O thread of its own. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "virtio/console.h"

#define INPUT_BYTES 4096u

struct pipe_end {
	struct console_end end;
	struct console_pipe_opts opts;
	struct loop *loop;
	struct loop_call call; /* input came */
	pthread_mutex_t lock;  /* guards what follows */
	bool call_posted, refused;
	uint32_t at, len;
	uint8_t ring[INPUT_BYTES];
};

static struct pipe_end *to_pipe(struct console_end *e)
{
	return container_of(e, struct pipe_end, end);
}

static void input_came(struct loop_call *c)
{
	struct pipe_end *p = container_of(c, struct pipe_end, call);

	pthread_mutex_lock(&p->lock);
	p->call_posted = false;
	pthread_mutex_unlock(&p->lock);
	console_end_ready(&p->end);
}

uint32_t console_pipe_input(struct console_end *e, const uint8_t *bytes, uint32_t len)
{
	struct pipe_end *p = to_pipe(e);
	uint32_t done = 0;
	AUTO_LOCK(&p->lock);

	for (; done < len && p->len < INPUT_BYTES; done++, p->len++)
		p->ring[(p->at + p->len) % INPUT_BYTES] = bytes[done];
	p->refused = done < len;
	if (done && !p->call_posted) {
		p->call_posted = true;
		loop_post(p->loop, &p->call);
	}
	return done;
}

static uint64_t put(struct console_end *e, const struct iovec *iov, int n)
{
	struct pipe_end *p = to_pipe(e);
	uint64_t done = 0;

	for (int i = 0; i < n; i++) {
		uint32_t len = (uint32_t)min_u64(iov[i].iov_len, KIB(64));

		p->opts.put(p->opts.ctx, iov[i].iov_base, len);
		done += len;
		if (len < iov[i].iov_len) {
			console_end_ready(e);
			break;
		}
	}
	return done;
}

static uint64_t take(struct pipe_end *p, const struct iovec *iov, int n, bool *room)
{
	uint64_t done = 0;
	AUTO_LOCK(&p->lock);

	for (int i = 0; i < n && p->len; i++)
		for (uint64_t k = 0; k < iov[i].iov_len && p->len; k++, p->len--, done++) {
			((uint8_t *)iov[i].iov_base)[k] = p->ring[p->at];
			p->at = (p->at + 1) % INPUT_BYTES;
		}
	*room = done && p->refused;
	if (*room)
		p->refused = false;
	return done;
}

static uint64_t get(struct console_end *e, const struct iovec *iov, int n)
{
	struct pipe_end *p = to_pipe(e);
	bool room;
	uint64_t done = take(p, iov, n, &room);

	if (room)
		p->opts.room(p->opts.ctx);
	return done;
}

static void pipe_free(struct console_end *e)
{
	struct pipe_end *p = to_pipe(e);

	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct console_end_ops ops = {.put = put, .get = get, .free = pipe_free};

int console_pipe_new(struct console_end **out, struct loop *loop, const struct console_pipe_opts *o,
		     struct err *e)
{
	struct pipe_end *p = calloc(1, sizeof *p);

	if (!p)
		return err_set(e, ENOMEM, "console");
	p->end.ops = &ops;
	p->opts = *o;
	p->loop = loop;
	p->call.run = input_came;
	pthread_mutex_init(&p->lock, NULL);
	*out = &p->end;
	return 0;
}
