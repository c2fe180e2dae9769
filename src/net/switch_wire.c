/* switch_wire: messages of the switch, one per packet of a SOCK_SEQPACKET socket: a 32-bit type,
 * then a hello, or a frame with its virtio-net header. Both ends are processes of one user
 * on one host, so integers are in its byte order. Whatever comes is checked all the same. */
#include "net/switch_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define IOV_AT_ONCE 64u

int wire_parse(uint8_t *buf, size_t len, struct wire_msg *m)
{
	uint32_t type;

	if (len < 4)
		return -EPROTO;
	memcpy(&type, buf, 4);
	buf += 4;
	len -= 4;
	*m = (struct wire_msg){.type = (enum wire_type)type};
	if (type == WIRE_HELLO && len == sizeof m->hello) {
		memcpy(&m->hello, buf, sizeof m->hello);
		return m->hello.magic == WIRE_MAGIC ? 1 : -EPROTO;
	}
	if (type != WIRE_FRAME || len < sizeof m->hdr + ETH_HEADER)
		return -EPROTO;
	memcpy(&m->hdr, buf, sizeof m->hdr);
	m->hdr.flags &= NET_HDR_NEEDS_CSUM | NET_HDR_DATA_VALID;
	m->frame = buf + sizeof m->hdr;
	m->len = len - sizeof m->hdr;
	return net_hdr_valid(&m->hdr, m->frame, m->len) ? 1 : -EPROTO;
}

int wire_read(int fd, uint8_t buf[WIRE_MSG_MAX], struct wire_msg *m)
{
	ssize_t n = recv(fd, buf, WIRE_MSG_MAX, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	return n > (ssize_t)WIRE_MSG_MAX ? -EPROTO : wire_parse(buf, (size_t)n, m);
}

static int wire_send(int fd, struct iovec *iov, unsigned n)
{
	const struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};

	if (sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 1;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	/* What the kernel cannot send whole is lost; the connection is not. */
	return errno == EMSGSIZE || errno == ENOBUFS ? 1 : -errno;
}

int wire_send_frame(int fd, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	uint32_t type = WIRE_FRAME;
	struct iovec all[IOV_AT_ONCE + 2] = {{&type, 4}, {(void *)h, sizeof *h}};

	if (n > IOV_AT_ONCE)
		return 1; /* no driver cuts a frame so small */
	memcpy(all + 2, iov, n * sizeof *iov);
	return wire_send(fd, all, n + 2);
}

int wire_send_hello(int fd, unsigned caps, bool uplink)
{
	uint32_t type = WIRE_HELLO;
	struct wire_hello h = {WIRE_MAGIC, caps, uplink ? WIRE_UPLINK : 0};
	struct iovec iov[] = {{&type, 4}, {&h, sizeof h}};

	return wire_send(fd, iov, 2);
}
