/* tap: a tap interface of the kernel's, with virtio-net's headers (IFF_VNET_HDR), so that the
 * kernel does and takes checksums and segmentation. An interface that exists is used as it
 * is; one that does not is made, and goes away with the VM. A bridge of the host's is a tap of our own
 * in it.
 *
 * All queues of a card share one queue of the interface, as they share one I/O thread.
 *
 * The card's link is up while the interface is (ip link set IF up|down). */
#include "net/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/offload.h"
#include "net/rtnl.h"

#define FRAMES_A_TURN 64u
#define IOV_AT_ONCE   64u

struct tap {
	struct net_port port;
	struct loop *loop;
	struct loop_fd fd, watch;
	char name[IFNAMSIZ];
	int index;
	bool started, up;
	bool rx_stopped, tx_blocked; /* the card has no room; the interface has none */

	bool pending; /* the frame below was read and found no room */
	struct net_hdr hdr;
	size_t len;
	uint8_t frame[NET_FRAME_MAX], scratch[NET_FRAME_MAX];
};

static struct tap *to_tap(struct net_port *p)
{
	return container_of(p, struct tap, port);
}

static void set_events(struct tap *t)
{
	loop_mod(t->loop, &t->fd,
		 (t->rx_stopped ? 0u : (uint32_t)EPOLLIN) |
			 (t->tx_blocked ? (uint32_t)EPOLLOUT : 0u));
}

/* --- to the guest --- */

static bool read_frame(struct tap *t)
{
	struct iovec iov[] = {{&t->hdr, sizeof t->hdr}, {t->frame, sizeof t->frame}};
	ssize_t n = readv(t->fd.fd, iov, 2);

	if (n < (ssize_t)sizeof t->hdr)
		return false;
	t->len = (size_t)n - sizeof t->hdr;
	return true;
}

static bool pass_on(struct tap *t)
{
	struct iovec iov = {t->frame, t->len};

	t->pending = !net_send(&t->port, &t->hdr, &iov, 1);
	return !t->pending;
}

static void receive(struct tap *t)
{
	unsigned left = FRAMES_A_TURN;
	bool stop = false;

	if (t->pending)
		stop = !pass_on(t);
	while (!stop && left-- && read_frame(t))
		stop = !pass_on(t);
	net_flush(&t->port);
	if (stop != t->rx_stopped) {
		t->rx_stopped = stop;
		set_events(t);
	}
}

static void tap_room(struct net_port *p)
{
	if (to_tap(p)->rx_stopped)
		receive(to_tap(p));
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
	struct tap *t = container_of(f, struct tap, fd);

	if (events & EPOLLOUT && t->tx_blocked) {
		t->tx_blocked = false;
		set_events(t);
		net_room(&t->port);
	}
	if (events & (EPOLLIN | EPOLLERR) && !t->rx_stopped)
		receive(t);
}

/* --- from the guest --- */

static bool tap_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n)
{
	struct tap *t = to_tap(p);
	struct net_hdr hdr = *h;
	struct iovec all[IOV_AT_ONCE] = {{&hdr, sizeof hdr}};

	if (n < IOV_AT_ONCE) {
		memcpy(all + 1, iov, n * sizeof *iov);
	} else {
		all[1] = (struct iovec){t->scratch,
					net_gather(t->scratch, sizeof t->scratch, iov, n)};
		n = 1;
	}
	if (writev(t->fd.fd, all, (int)n + 1) >= 0 || errno != EAGAIN)
		return true; /* an interface that is down, or a frame that is wrong: lost */
	t->tx_blocked = true;
	set_events(t);
	return false;
}

/* What the guest takes undone, the kernel leaves undone. */
static void tap_caps(struct net_port *p)
{
	unsigned caps = net_peer_caps(p), offload = 0;

	if (caps & NET_CAP_CSUM) {
		offload |= TUN_F_CSUM;
		offload |= caps & NET_CAP_TSO4 ? TUN_F_TSO4 : 0;
		offload |= caps & NET_CAP_TSO6 ? TUN_F_TSO6 : 0;
		offload |= offload & (TUN_F_TSO4 | TUN_F_TSO6) && caps & NET_CAP_ECN ? TUN_F_TSO_ECN
										     : 0;
	}
	/* Where the kernel knows less, it does the work itself. */
	(void)ioctl(to_tap(p)->fd.fd, TUNSETOFFLOAD, offload);
}

/* --- the link --- */

static void on_link(struct loop_fd *f, uint32_t events)
{
	struct tap *t = container_of(f, struct tap, watch);
	bool up = t->up;

	rtnl_watch_read(f->fd, t->index, &up);
	if (up == t->up)
		return;
	t->up = up;
	net_link(&t->port, up);
}

static void tap_start(struct net_port *p)
{
	struct tap *t = to_tap(p);

	if (t->started)
		return;
	/* Frames that came before the guest could take them are of no use to it. */
	while (read_frame(t))
		;
	t->started = true;
	t->rx_stopped = false;
	set_events(t);
}

static void tap_free(struct net_port *p)
{
	struct tap *t = to_tap(p);

	if (t->fd.fd >= 0) {
		loop_del(t->loop, &t->fd);
		close(t->fd.fd);
	}
	if (t->watch.fd >= 0) {
		loop_del(t->loop, &t->watch);
		close(t->watch.fd);
	}
	free(t);
}

static const struct net_port_ops tap_ops = {
	.take = tap_take,
	.room = tap_room,
	.caps_changed = tap_caps,
	.start = tap_start,
	.free = tap_free,
};

/* --- making it --- */

static int no_tap(const struct tap *t, int code, struct err *e)
{
	const char *name = *t->name ? t->name : "NAME";

	if (code == EPERM)
		return err_set(e, code,
			       "tap '%s': not allowed; as root, make one that you may use: "
			       "ip tuntap add %s mode tap user %u && ip link set %s up",
			       name, name, getuid(), name);
	if (code == EBUSY)
		return err_set(e, code, "tap '%s' is in use by another program", name);
	return err_sys(e, code, "tap '%s'", name);
}

static int attach(struct tap *t, struct err *e)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

	memcpy(r.ifr_name, t->name, IFNAMSIZ);
	t->fd.fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->fd.fd < 0)
		return err_sys(e, errno, "tap: open '/dev/net/tun'");
	if (ioctl(t->fd.fd, TUNSETIFF, &r) < 0) {
		if (errno != EINVAL)
			return no_tap(t, errno, e);
		/* It was made for several queues, and wants to hear that. */
		r.ifr_flags |= IFF_MULTI_QUEUE;
		if (ioctl(t->fd.fd, TUNSETIFF, &r) < 0)
			return no_tap(t, errno, e);
	}
	return 0;
}

/* Of one that is attached to its interface, by us or somebody else. */
static int look(struct tap *t, struct err *e)
{
	struct ifreq r = {0};
	int hdr = sizeof(struct net_hdr);

	if (ioctl(t->fd.fd, TUNGETIFF, &r) < 0)
		return err_set(e, EINVAL, "the descriptor is no tap's");
	if ((r.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) !=
	    (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
		return err_set(e, EINVAL, "the tap is not IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
	memcpy(t->name, r.ifr_name, IFNAMSIZ);
	if (ioctl(t->fd.fd, TUNSETVNETHDRSZ, &hdr) < 0)
		return no_tap(t, errno, e);
	t->index = (int)if_nametoindex(t->name);
	return t->index ? 0 : no_tap(t, errno, e);
}

static int watch_link(struct tap *t, struct err *e)
{
	int fd = rtnl_watch();

	if (fd < 0)
		return err_sys(e, -fd, "rtnetlink");
	t->watch.fd = fd;
	return loop_add(t->loop, &t->watch, EPOLLIN, e);
}

/* The interface: attached, and up if it is ours alone. */
static int set_up(struct tap *t, const char *name, int bridge, struct err *e)
{
	bool ours = !name || bridge || !if_nametoindex(name);
	int r;

	if (name && strlen(name) >= sizeof t->name)
		return err_set(e, EINVAL, "tap '%s': the name is too long", name);
	if (name)
		memcpy(t->name, name, strlen(name));
	r = attach(t, e);
	if (r == 0)
		r = look(t, e);
	if (r == 0 && ours)
		r = rtnl_enslave(t->index, bridge, e);
	return r;
}

static int bridge_index(const struct net_opts *o, int *bridge, struct err *e)
{
	*bridge = 0;
	if (o->kind != NET_BRIDGE)
		return 0;
	*bridge = o->name ? (int)if_nametoindex(o->name) : 0;
	return *bridge ? 0
		       : err_set(e, ENODEV, "bridge '%s': there is no such interface",
				 o->name ? o->name : "");
}

int net_tap_fd(const struct net_opts *o, struct err *e)
{
	struct tap t = {.fd.fd = -1};
	int bridge, r = bridge_index(o, &bridge, e);

	if (r == 0)
		r = set_up(&t, bridge ? "holon%d" : o->name, bridge, e);
	if (r == 0)
		return t.fd.fd;
	if (t.fd.fd >= 0)
		close(t.fd.fd);
	return o->kind == NET_BRIDGE ? err_wrap(e, "bridge '%s'", o->name ? o->name : "") : r;
}

static int use(struct tap *t, int fd, struct err *e)
{
	int flags, r;

	t->fd.fd = fd;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(e, errno, "tap");
	r = look(t, e);
	if (r == 0 && (r = loop_add(t->loop, &t->fd, 0, e)) < 0)
		return r;
	return r < 0 ? r : watch_link(t, e);
}

int tap_new(struct net_port **out, const struct net_opts *o, struct loop *l, struct err *e)
{
	int fd = o->has_tap_fd ? fcntl(o->tap_fd, F_DUPFD_CLOEXEC, 0) : net_tap_fd(o, e), r;
	struct tap *t = fd < 0 ? NULL : calloc(1, sizeof *t);

	if (fd < 0)
		return o->has_tap_fd ? err_sys(e, errno, "tap") : fd;
	if (!t) {
		close(fd);
		return err_set(e, ENOMEM, "tap");
	}
	t->port.ops = &tap_ops;
	t->port.caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN;
	t->loop = l;
	t->up = true;
	t->rx_stopped = true; /* until the guest's driver is there */
	t->fd = (struct loop_fd){-1, on_ready};
	t->watch = (struct loop_fd){-1, on_link};
	r = use(t, fd, e);
	if (r < 0)
		tap_free(&t->port);
	else
		*out = &t->port;
	return r;
}
