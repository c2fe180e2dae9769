/* switch: a card's place in a switch of this user's VMs (switch_priv.h). Who finds the lock
 * free serves (switch_hub.c); everybody else is connected to the one who does. When the
 * connection ends, all who were connected try again at once, and then each RETRY_NS until there is
 * a new one; frames in between are lost, the guest's link stays up. */
#include "net/switch_priv.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/runtime_dir.h"
#include "net/user_priv.h"

#define NAME_MAX_LEN  32u
#define RETRY_NS      UINT64_C(5000000)
#define BACKLOG       16
#define FRAMES_A_TURN 64u

struct member {
	struct net_port port;
	struct loop *loop;
	struct net_opts opts; /* its texts are not ours: only what hub_new reads */
	char lock_path[sizeof((struct sockaddr_un *)0)->sun_path];
	struct sockaddr_un addr;
	int lock; /* -1: not ours */
	struct timer retry;

	struct slirp_lib lib; /* for an uplink; a confined process loads no more code */

	struct hub *hub;   /* we serve; else NULL */
	struct loop_fd fd; /* to the one who serves; -1: not connected */
	unsigned told;     /* what we can take, as the server knows it */
	bool tx_blocked;

	bool pending; /* the message in buf found no room at the card */
	struct wire_msg msg;
	uint8_t buf[WIRE_MSG_MAX], out[NET_FRAME_MAX];
};

static void join(struct member *m);

static void leave(struct member *m)
{
	if (m->fd.fd < 0)
		return;
	loop_del(m->loop, &m->fd);
	close(m->fd.fd);
	m->fd.fd = -1;
	m->pending = false;
}

static void lost(struct member *m)
{
	bool blocked = m->tx_blocked;

	leave(m);
	m->tx_blocked = false;
	join(m);
	if (blocked)
		net_room(&m->port);
}

/* --- connected --- */

static void set_events(struct member *m)
{
	loop_mod(m->loop, &m->fd,
		 (m->pending ? 0u : (uint32_t)EPOLLIN) | (m->tx_blocked ? (uint32_t)EPOLLOUT : 0u));
}

static bool pass_on(struct member *m)
{
	struct iovec iov = {m->msg.frame, m->msg.len};

	return m->msg.type != WIRE_FRAME || net_send(&m->port, &m->msg.hdr, &iov, 1);
}

static void receive(struct member *m)
{
	bool was = m->pending;
	int r = 1;

	if (m->pending)
		m->pending = !pass_on(m);
	for (unsigned left = FRAMES_A_TURN; left && !m->pending && r > 0; left--) {
		r = wire_read(m->fd.fd, m->buf, &m->msg);
		if (r > 0)
			m->pending = !pass_on(m);
	}
	net_flush(&m->port);
	if (r < 0)
		lost(m);
	else if (was != m->pending)
		set_events(m);
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
	struct member *m = container_of(f, struct member, fd);

	if (events & EPOLLOUT && m->tx_blocked) {
		m->tx_blocked = false;
		set_events(m);
		net_room(&m->port);
	}
	if (m->fd.fd < 0)
		return;
	if (events & EPOLLIN && !m->pending)
		receive(m);
	else if (events & (EPOLLHUP | EPOLLERR) && !(events & EPOLLIN))
		lost(m);
}

static int greet(struct member *m)
{
	m->told = net_peer_caps(&m->port);
	return wire_send_hello(m->fd.fd, m->told, m->opts.uplink);
}

static int connect_to_server(struct member *m)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	m->fd.fd = fd;
	if (connect(fd, (struct sockaddr *)&m->addr, sizeof m->addr) < 0 ||
	    loop_add(m->loop, &m->fd, EPOLLIN, NULL) < 0) {
		close(fd);
		m->fd.fd = -1;
		return -ECONNREFUSED;
	}
	if (greet(m) <= 0) {
		leave(m);
		return -ECONNREFUSED;
	}
	return 0;
}

/* --- serving --- */

/* The lock is freed by the kernel when its holder ends. */
static int take_lock(struct member *m)
{
	int fd = open(m->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), r;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	m->lock = fd;
	return 0;
}

static void free_lock(struct member *m)
{
	if (m->lock >= 0)
		close(m->lock);
	m->lock = -1;
}

/* Called with the lock held: a socket that is there is a dead server's. */
static int serve(struct member *m, struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return err_sys(e, errno, "switch");
	unlink(m->addr.sun_path);
	if (bind(fd, (struct sockaddr *)&m->addr, sizeof m->addr) < 0 || listen(fd, BACKLOG) < 0) {
		r = err_sys(e, errno, "switch: listen at '%s'", m->addr.sun_path);
		close(fd);
		return r;
	}
	r = hub_new(&m->hub, fd, &m->port, &m->opts, m->loop, e);
	if (r == 0 && m->opts.uplink)
		hub_want_uplink(m->hub);
	return r;
}

static int try_to_join(struct member *m, struct err *e)
{
	int r = take_lock(m);

	if (r == 0) {
		r = serve(m, e);
		if (r < 0)
			free_lock(m);
		return r;
	}
	if (r != -EWOULDBLOCK)
		return err_sys(e, -r, "switch: lock '%s'", m->lock_path);
	/* Refused: who has the lock is about to listen, or has too many. Try again. */
	if (connect_to_server(m) < 0) {
		struct clock *c = loop_clock(m->loop);

		timer_arm(c, &m->retry, clock_now(c) + RETRY_NS);
	}
	return 0;
}

/* While it runs: what fails now may work later. */
static void join(struct member *m)
{
	struct clock *c = loop_clock(m->loop);

	if (try_to_join(m, NULL) < 0)
		timer_arm(c, &m->retry, clock_now(c) + RETRY_NS * 100);
}

static void on_retry(struct timer *t)
{
	struct member *m = container_of(t, struct member, retry);

	if (!m->hub && m->fd.fd < 0)
		join(m);
}

/* --- the port --- */

static bool switch_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
			unsigned n)
{
	struct member *m = container_of(p, struct member, port);
	struct iovec one;
	int r;

	if (m->hub) {
		hub_take(m->hub, h, iov, n);
		return true;
	}
	if (m->fd.fd < 0)
		return true; /* lost */
	/* In one piece: a guest may cut a frame smaller than a message can be. */
	if (n > 16) {
		one.iov_base = m->out;
		one.iov_len = net_gather(m->out, sizeof m->out, iov, n);
		iov = &one;
		n = 1;
	}
	r = wire_send_frame(m->fd.fd, h, iov, n);
	if (r)
		return true; /* an ended connection is noticed when it is read */
	m->tx_blocked = true;
	set_events(m);
	return false;
}

static void switch_flush(struct net_port *p)
{
	struct member *m = container_of(p, struct member, port);

	if (m->hub)
		hub_flush(m->hub);
}

static void switch_room(struct net_port *p)
{
	struct member *m = container_of(p, struct member, port);

	if (m->hub)
		hub_room(m->hub);
	else if (m->pending)
		receive(m);
}

static void switch_caps(struct net_port *p)
{
	struct member *m = container_of(p, struct member, port);

	/* Filters that are put in between say so, too. */
	if (m->fd.fd >= 0 && net_peer_caps(p) != m->told && greet(m) <= 0)
		lost(m);
}

static void switch_free(struct net_port *p)
{
	struct member *m = container_of(p, struct member, port);

	timer_cancel(loop_clock(m->loop), &m->retry);
	leave(m);
	if (m->hub)
		unlink(m->addr.sun_path); /* while the lock is still ours */
	hub_free(m->hub);
	slirp_lib_close(&m->lib);
	free_lock(m);
	free(m);
}

static const struct net_port_ops switch_ops = {
	.take = switch_take,
	.flush = switch_flush,
	.room = switch_room,
	.caps_changed = switch_caps,
	.free = switch_free,
};

/* Names become file names. */
static bool is_name(const char *name)
{
	size_t len = name ? strlen(name) : 0;

	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_", name[i]) &&
		    !(name[i] == '.' && i))
			return false;
	return len && len <= NAME_MAX_LEN;
}

static int set_paths(struct member *m, const char *name, struct err *e)
{
	char dir[sizeof m->addr.sun_path];
	int r, n;

	if (!is_name(name))
		return err_set(e, EINVAL,
			       "switch '%s': a name has letters, digits, '-', '_' and '.'",
			       name ? name : "");
	r = runtime_dir(dir, sizeof dir, e);
	if (r < 0)
		return err_wrap(e, "switch '%s'", name);
	m->addr.sun_family = AF_UNIX;
	/* A directory of its own: a confined process sees that one and no other VM's files. */
	n = snprintf(m->addr.sun_path, sizeof m->addr.sun_path, "%s/switch-%s", dir, name);
	if (n < (int)sizeof m->addr.sun_path && mkdir(m->addr.sun_path, 0700) < 0 &&
	    errno != EEXIST)
		return err_sys(e, errno, "switch: make '%s'", m->addr.sun_path);
	n = snprintf(m->addr.sun_path, sizeof m->addr.sun_path, "%s/switch-%s/sock", dir, name);
	if (n >= (int)sizeof m->addr.sun_path)
		return err_set(e, ENAMETOOLONG, "switch '%s': '%s' is too long a path", name, dir);
	memcpy(m->lock_path, m->addr.sun_path, sizeof m->lock_path);
	memcpy(m->lock_path + n - 4, "lock", 4);
	return 0;
}

int switch_new(struct net_port **out, const struct net_opts *o, struct loop *l, struct err *e)
{
	struct member *m = calloc(1, sizeof *m);
	int r;

	if (!m)
		return err_sys(e, ENOMEM, "switch");
	m->port.ops = &switch_ops;
	m->port.caps = NET_CAP_ALL;
	m->loop = l;
	m->opts = (struct net_opts){
		.uplink = o->uplink, .mtu = o->mtu, .warn = o->warn, .warn_ctx = o->warn_ctx};
	m->lock = -1;
	m->fd = (struct loop_fd){-1, on_ready};
	m->retry.fire = on_retry;
	(void)!slirp_lib_open(&m->lib, NULL); /* one that is missing is told of when it is needed */
	r = set_paths(m, o->name, e);
	if (r == 0)
		r = try_to_join(m, e);
	if (r < 0)
		switch_free(&m->port);
	else
		*out = &m->port;
	return r;
}
