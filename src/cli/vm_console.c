/* holon console: this terminal becomes a VM's, with what was missed. holon logs: what the console
 * said, of one that ended too. holon events. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/console_keys.h"
#include "cli/tty_mode.h"
#include "cli/vm.h"
#include "control/console_log.h"

#define PIECE 512u /* bytes of input that are sent at once */

static bool write_all(const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, bytes, len);

		if (n < 0 && errno != EINTR)
			return false;
		bytes += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static bool print_piece(void *ctx, const char *bytes, size_t len)
{
	return write_all(bytes, len);
}

/* --- console --- */

struct console {
	const char *name;
	struct api_client input; /* what is typed goes by a connection of its own */
	struct console_keys keys;
	bool detached, killed;
	struct tty_mode tty;
};

static void send_size(struct console *c)
{
	struct winsize size;
	struct size_args args;
	struct err err;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		return;
	args = (struct size_args){size.ws_col, size.ws_row};
	/* Only some consoles know a size. */
	if (api_call(&c->input, &control_methods[METHOD_SIZE], &args, NULL, &err) < 0)
		return;
}

static bool send_input(struct console *c, const uint8_t *bytes, size_t len)
{
	const struct timespec wait = {0, 20000000};
	char hex[2 * PIECE + 1];
	const struct input_args args = {.hex = hex};
	struct err err;
	int r;

	for (size_t i = 0; i < len; i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
	while (len) {
		r = api_call(&c->input, &control_methods[METHOD_INPUT], &args, NULL, &err);
		if (r == 0)
			return true;
		if (r != -EPROTO)
			return false;
		/* The guest is slow. A person at a terminal gives up first. */
		if (isatty(STDIN_FILENO))
			return true;
		nanosleep(&wait, NULL);
	}
	return true;
}

static bool input_ready(void *ctx)
{
	struct console *c = ctx;
	uint8_t bytes[PIECE];
	enum console_key key;
	ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
	struct err err;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n <= 0)
		return false;
	n = (ssize_t)console_keys_filter(&c->keys, bytes, (uint32_t)n, &key);
	if (n && !send_input(c, bytes, (size_t)n))
		return false;
	if (key == KEY_HELP)
		fputs("\nCtrl-A d       leave the console; the VM goes on\n"
		      "Ctrl-A x       end the VM at once\n"
		      "Ctrl-A h       this list\n"
		      "Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n",
		      stderr);
	if (key == KEY_QUIT) {
		c->killed = true;
		return api_call(&c->input, &control_methods[METHOD_KILL], NULL, NULL, &err) == 0;
	}
	c->detached = key == KEY_DETACH;
	return !c->detached;
}

static int attach(struct console *c, struct api_client *output, const struct console_args *args)
{
	const struct api_sink sink = {print_piece, STDIN_FILENO, input_ready, c};
	struct err err = {0};
	int r;

	tty_mode_guard();
	send_size(c);
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "Console of %s. Ctrl-A d leaves it, Ctrl-A h lists the keys.\n",
			c->name);
	tty_mode_raw(&c->tty, STDIN_FILENO);
	r = api_follow(output, &control_methods[METHOD_CONSOLE], args, &sink, &err);
	tty_mode_restore(&c->tty);
	if (r < 0 && !c->killed)
		return vm_trouble(c->name, &err);
	if (c->detached)
		fprintf(stderr, "\nLeft the console of %s; it goes on.\n", c->name);
	return EXIT_DONE;
}

int cmd_console(const void *opts, int words, char **word)
{
	struct console_args args = *(const struct console_args *)opts;
	struct console c = {.name = word[0], .input.fd = -1};
	struct api_client output = {.fd = -1};
	int status = EXIT_TROUBLE;
	struct err err = {0};
	struct vm_seen v;

	args.follow = true;
	if (vm_find(&v, word[0], &err) < 0)
		return vm_trouble(word[0], &err);
	if (vm_connect(&output, &v, &err) < 0 || vm_connect(&c.input, &v, &err) < 0)
		vm_trouble(word[0], &err);
	else
		status = attach(&c, &output, &args);
	api_disconnect(&output);
	api_disconnect(&c.input);
	vm_seen_done(&v);
	return status;
}

/* --- logs --- */

static int logs_of_ended(const struct vm_seen *v, const struct console_args *a, struct err *e)
{
	char path[VM_PATH_MAX + 32], bytes[4096];
	struct console_log l;
	uint64_t at = 0;
	uint32_t n;
	int r;

	vm_dir_file(&v->dir, "console.log", path);
	if ((r = console_log_open(&l, path, e)) < 0)
		return r;
	if (a->lines != CONSOLE_ALL_LINES)
		at = a->lines ? console_log_lines(&l, a->lines) : console_log_end(&l);
	while ((n = console_log_read(&l, &at, bytes, sizeof bytes)) > 0 && write_all(bytes, n))
		;
	console_log_done(&l);
	return 0;
}

static int stream_of(const struct vm_seen *v, enum control_method m, const void *args,
		     struct err *e)
{
	const struct api_sink sink = {.piece = print_piece, .wake = -1};
	struct api_client c;
	int r = vm_connect(&c, v, e);

	if (r < 0)
		return r;
	r = api_follow(&c, &control_methods[m], args, &sink, e);
	api_disconnect(&c);
	return r;
}

int cmd_logs(const void *opts, int words, char **word)
{
	const struct console_args *a = opts;
	struct err err = {0};
	struct vm_seen v;
	int r = vm_find(&v, word[0], &err);

	if (r == 0) {
		r = v.life == VM_RUNS ? stream_of(&v, METHOD_CONSOLE, a, &err)
				      : logs_of_ended(&v, a, &err);
		vm_seen_done(&v);
	}
	return r < 0 ? vm_trouble(word[0], &err) : EXIT_DONE;
}

/* --- events --- */

int cmd_events(const void *opts, int words, char **word)
{
	struct err err = {0};
	struct vm_seen v;
	int r = vm_find(&v, word[0], &err);

	if (r == 0) {
		r = stream_of(&v, METHOD_EVENTS, opts, &err);
		vm_seen_done(&v);
	}
	return r < 0 ? vm_trouble(word[0], &err) : EXIT_DONE;
}
