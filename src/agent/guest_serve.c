/* One connection, from its HELLO on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/guest.h"
#include "agent/tree.h"

static int take_path(struct wire *w, char *path, size_t len, struct err *e)
{
	struct guest_user u;
	const char *text;
	struct frame f;
	int r;

	for (;;) {
		r = wire_next(w, &f, e);
		if (r < 0 || (r = frame_text(&f, &text, e)) < 0)
			return r;
		if (f.type == WIRE_PATH && f.len < len)
			break;
		if (f.type != WIRE_USER)
			return frame_unexpected(&f, e);
		if ((r = guest_user_find(text, &u, e)) < 0 || (r = guest_user_become(&u, e)) < 0)
			return r;
		if (chdir(u.home) < 0) /* relative paths start there */
			return err_sys(e, errno, "'%s'", u.home);
	}
	memcpy(path, text, f.len + 1);
	return 0;
}

static int put(struct wire *w, struct err *e)
{
	char path[4096];
	int r = take_path(w, path, sizeof path, e);

	if (r == 0)
		r = tree_receive(w, path, NULL, e);
	if (r == 0)
		r = wire_send(w, WIRE_DONE, NULL, 0, e);
	return r < 0 ? r : wire_drain(w, e);
}

static int get(struct wire *w, struct err *e)
{
	char path[4096];
	int r = take_path(w, path, sizeof path, e);

	return r < 0 ? r : tree_send(w, path, NULL, e);
}

static int serve(struct wire *w, struct err *e)
{
	struct guest_user root;
	struct frame f;
	int r = wire_next(w, &f, e);

	if (r < 0)
		return r;
	if (f.type != WIRE_HELLO || f.len < 2)
		return frame_unexpected(&f, e);
	if (f.data[0] != WIRE_VERSION)
		return err_set(e, EPROTO, "this agent speaks version %d, holon speaks %u",
			       WIRE_VERSION, f.data[0]);
	if (f.data[1] == WIRE_EXEC)
		return guest_exec(w, e);
	if (guest_user_find(NULL, &root, e) < 0 || chdir(root.home) < 0)
		(void)!chdir("/");
	if (f.data[1] == WIRE_PUT)
		return put(w, e);
	return f.data[1] == WIRE_GET ? get(w, e) : frame_unexpected(&f, e);
}

/* The client may still be sending, and would then see a broken connection and no reason. */
static void say_failed(struct wire *w, const struct err *e)
{
	uint8_t buf[4 + sizeof e->text];
	struct frame f;
	size_t len = strlen(e->text);

	store_le(buf, (uint64_t)e->code, 4);
	memcpy(buf + 4, e->text, len);
	if (wire_send(w, WIRE_FAIL, buf, 4 + len, NULL) < 0 || wire_drain(w, NULL) < 0)
		return;
	shutdown(w->fd, SHUT_WR);
	while (wire_next(w, &f, NULL) == 0)
		;
}

void guest_serve(int fd)
{
	static struct wire w; /* large; this process has one */
	struct err e = {0};

	wire_init(&w, fd);
	if (serve(&w, &e) < 0)
		say_failed(&w, &e);
	wire_done(&w);
	/* A command that was left behind has nobody else who buries it. */
	while (wait(NULL) > 0)
		;
}
