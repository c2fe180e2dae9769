#include "cli/console_view.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/console_out.h"
#include "cli/keyboard.h"
#include "cli/tty_mode.h"
#include "machine/machine.h"

#define LOOK_NS      50000000u  /* while it changes */
#define IDLE_LOOK_NS 200000000u /* when it has not for IDLE_LOOKS */
#define IDLE_LOOKS   20u
#define PATIENCE_MS  1000

static void look_again(struct console_view *v, uint32_t ns)
{
	const struct itimerspec soon = {.it_value.tv_nsec = ns};

	timerfd_settime(v->timer.fd, 0, &soon, NULL);
}

/* --- serial --- */

/* Called with the lock held. */
static void leave_screen(struct console_view *v)
{
	static const char leave[] = SCREEN_LEAVE;

	atomic_store(&v->has_screen, false);
	if (v->screen.entered)
		v->out->sink.put(&v->out->sink, (const uint8_t *)leave, sizeof leave - 1);
	screen_left(&v->screen);
	tty_mode_leave_with(v->fd, NULL);
}

static void put(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct console_view *v = container_of(s, struct console_view, sink);
	AUTO_LOCK(&v->lock);

	if (v->has_screen && !v->chosen)
		leave_screen(v);
	if (!v->has_screen)
		v->out->sink.put(&v->out->sink, bytes, len);
}

/* --- the screen --- */

static bool offer(void *ctx, const char *text, uint32_t len)
{
	struct console_view *v = ctx;

	return console_out_offer(v->out, text, len);
}

static void look(struct console_view *v)
{
	const struct screen_out out = {offer, v};
	bool entered = v->screen.entered;

	if (!machine_screen(v->machine, &v->text))
		return;
	if (screen_draw(&v->screen, &v->text, &out))
		v->idle = 0;
	else if (v->idle < IDLE_LOOKS)
		v->idle++;
	if (!entered && v->screen.entered)
		tty_mode_leave_with(v->fd, SCREEN_LEAVE);
}

/* Called with the lock held. */
static void do_switch(struct console_view *v)
{
	v->switching = false;
	v->chosen = true;
	if (v->has_screen)
		leave_screen(v);
	else
		atomic_store(&v->has_screen, true);
}

static void time_to_look(struct loop_fd *f, uint32_t events)
{
	struct console_view *v = container_of(f, struct console_view, timer);
	uint64_t count;
	bool again = true;

	if (read(f->fd, &count, sizeof count) < 0)
		return;
	if (pthread_mutex_trylock(&v->lock) == 0) {
		if (v->switching)
			do_switch(v);
		if (v->has_screen && !v->resting)
			look(v);
		again = v->has_screen;
		pthread_mutex_unlock(&v->lock);
	}
	if (again)
		look_again(v, v->idle < IDLE_LOOKS ? LOOK_NS : IDLE_LOOK_NS);
}

void console_view_switch(struct console_view *v)
{
	if (v->timer.fd < 0)
		return;
	v->switching = true;
	v->resting = false;
	if (pthread_mutex_trylock(&v->lock) == 0) {
		do_switch(v);
		pthread_mutex_unlock(&v->lock);
	}
	look_again(v, LOOK_NS);
}

void console_view_resize(struct console_view *v, unsigned columns, unsigned rows)
{
	AUTO_LOCK(&v->lock);

	screen_resize(&v->screen, columns, rows);
}

static void write_now(int fd, const char *text, size_t len)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	while (len && poll(&p, 1, PATIENCE_MS) > 0) {
		ssize_t n = write(fd, text, len);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

/* Past the buffer, whose rows are nothing for the screen that comes back. */
void console_view_leave(struct console_view *v)
{
	static const char leave[] = SCREEN_LEAVE;

	if (pthread_mutex_trylock(&v->lock))
		return;
	if (v->screen.entered) {
		console_out_discard(v->out);
		write_now(v->fd, leave, sizeof leave - 1);
		tty_mode_leave_with(v->fd, NULL);
	}
	screen_left(&v->screen);
	pthread_mutex_unlock(&v->lock);
}

bool console_view_rest(struct console_view *v)
{
	v->resting = v->has_screen && v->screen.terminal;
	if (v->resting)
		console_view_leave(v);
	return v->resting;
}

/* What the guest said last stays readable. */
static void print_last(struct console_view *v)
{
	char line[SCREEN_LINE_MAX];

	for (unsigned y = 0; y < v->text.rows; y++)
		write_now(v->fd, line, screen_line(&v->text, y, line));
}

/* --- input --- */

static uint32_t type(struct console_view *v, const uint8_t *bytes, uint32_t len)
{
	uint32_t taken = 0;

	while (taken < len) {
		struct keyboard_codes codes;
		uint32_t n = keyboard_key(bytes + taken, len - taken, &codes);

		if (codes.len && !machine_key(v->machine, codes.code, codes.len))
			break;
		taken += n;
	}
	v->idle = 0;
	look_again(v, LOOK_NS);
	return taken;
}

uint32_t console_view_input(struct console_view *v, const uint8_t *bytes, uint32_t len)
{
	if (v->resting) {
		v->resting = false;
		return len;
	}
	return v->has_screen ? type(v, bytes, len) : machine_serial_input(v->machine, bytes, len);
}

/* --- --- */

int console_view_init(struct console_view *v, struct console_out *out, int fd, bool vga,
		      struct err *e)
{
	*v = (struct console_view){.sink.put = put, .out = out, .fd = fd};
	v->timer = (struct loop_fd){.fd = -1, .ready = time_to_look};
	v->has_screen = vga;
	screen_init(&v->screen, isatty(fd));
	if (vga && (v->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0)
		return err_sys(e, errno, "timerfd");
	pthread_mutex_init(&v->lock, NULL);
	return 0;
}

void console_view_done(struct console_view *v)
{
	if (v->timer.fd >= 0)
		close(v->timer.fd);
	pthread_mutex_destroy(&v->lock);
}

int console_view_start(struct console_view *v, struct machine *m, struct err *e)
{
	int r;

	v->machine = m;
	if (v->timer.fd < 0)
		return 0;
	r = loop_add(machine_loop(m), &v->timer, EPOLLIN, e);
	if (r == 0)
		look_again(v, LOOK_NS);
	return r;
}

void console_view_stop(struct console_view *v)
{
	bool entered = v->screen.entered;

	if (v->timer.fd < 0)
		return;
	loop_del(machine_loop(v->machine), &v->timer);
	for (unsigned i = 0; i < 2 && v->has_screen; i++) /* twice: then it rests */
		look(v);
	console_view_leave(v);
	if (entered)
		print_last(v);
}
