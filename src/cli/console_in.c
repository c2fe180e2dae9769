#include "cli/console_in.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cli/tty_mode.h"
#include "machine/machine.h"

/* Out of the loop while nothing is wanted: epoll would go on telling of a closed pipe. */
static void want_input(struct console_in *in, bool wanted)
{
	struct loop *l = machine_loop(in->machine);

	if (!in->polled || in->ended || in->watched == wanted)
		return;
	if (wanted && loop_add(l, &in->watch, EPOLLIN, NULL) < 0)
		return;
	if (!wanted)
		loop_del(l, &in->watch);
	in->watched = wanted;
}

static void end_input(struct console_in *in)
{
	want_input(in, false);
	in->ended = true;
}

/* Gives the guest what it takes now; true when that was all there is. */
static bool feed_guest(struct console_in *in)
{
	while (in->len) {
		uint32_t n = in->input(in->ctx, in->buf, in->len);

		if (!n)
			return false;
		in->len -= n;
		memmove(in->buf, in->buf + n, in->len);
	}
	return true;
}

/* One read; false when there is nothing more to read now, or ever. */
static bool read_some(struct console_in *in)
{
	uint8_t bytes[1024];
	enum console_key key;
	ssize_t n = read(in->watch.fd, bytes, sizeof bytes);
	uint32_t kept;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) {
		end_input(in);
		return false;
	}
	kept = console_keys_filter(&in->keys, bytes, (uint32_t)n, &key);
	kept = (uint32_t)min_u64(kept, sizeof in->buf - in->len);
	memcpy(in->buf + in->len, bytes, kept);
	in->len += kept;
	if (key != KEY_NONE)
		in->key(in->ctx, key);
	return true;
}

static void pump(struct console_in *in)
{
	bool all = feed_guest(in);

	while (all && !in->polled && !in->ended && read_some(in))
		all = feed_guest(in);
	want_input(in, all || in->is_terminal);
}

static void input_ready(struct loop_fd *f, uint32_t events)
{
	struct console_in *in = container_of(f, struct console_in, watch);

	if (in->is_terminal && tty_in_background(f->fd)) {
		want_input(in, false);
		return;
	}
	read_some(in);
	pump(in);
}

static void guest_has_room(void *ctx)
{
	pump(ctx);
}

void console_in_start(struct console_in *in, int fd, struct machine *m,
		      uint32_t (*input)(void *ctx, const uint8_t *bytes, uint32_t len),
		      void (*key)(void *ctx, enum console_key key), void *ctx)
{
	*in = (struct console_in){
		.machine = m,
		.watch = {.fd = fd, .ready = input_ready},
		.is_terminal = isatty(fd),
		.input = input,
		.key = key,
		.ctx = ctx,
	};
	/* What epoll refuses, files and some devices, always has input or its end. */
	in->ended = fd < 0;
	in->polled = in->watched =
		fd >= 0 && loop_add(machine_loop(m), &in->watch, EPOLLIN, NULL) == 0;
	machine_on_serial_room(m, guest_has_room, in);
	if (!in->polled)
		pump(in);
}

bool console_in_feed(struct console_in *in, const uint8_t *bytes, uint32_t len)
{
	if (len > sizeof in->buf - in->len)
		return false;
	memcpy(in->buf + in->len, bytes, len);
	in->len += len;
	pump(in);
	return true;
}

void console_in_continue(struct console_in *in)
{
	pump(in);
}

void console_in_stop(struct console_in *in)
{
	end_input(in);
}
