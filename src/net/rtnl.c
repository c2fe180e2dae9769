#include "net/rtnl.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"

#define ANSWER_MAX KIB(16)

struct set_link {
	struct nlmsghdr head;
	struct ifinfomsg info;
	struct rtattr attr;
	uint32_t master;
};

static int open_socket(uint32_t groups)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = groups};
	int type = SOCK_RAW | SOCK_CLOEXEC | (groups ? SOCK_NONBLOCK : 0);
	int fd = socket(AF_NETLINK, type, NETLINK_ROUTE), r;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* The kernel answers a request with NLM_F_ACK by an error message, 0 for success. */
static int ask(int fd, const struct set_link *m)
{
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		uint8_t rest[256];
	} answer;
	ssize_t n;

	if (send(fd, m, m->head.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, &answer, sizeof answer, 0);
	if (n < 0)
		return -errno;
	if (n < (ssize_t)(sizeof answer.head + sizeof answer.error) ||
	    answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

int rtnl_enslave(int index, int bridge, struct err *e)
{
	struct set_link m = {
		.head = {sizeof m, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
		.info = {.ifi_family = AF_UNSPEC,
			 .ifi_index = index,
			 .ifi_flags = IFF_UP,
			 .ifi_change = IFF_UP},
		.attr = {sizeof m.attr + sizeof m.master, IFLA_MASTER},
		.master = (uint32_t)bridge,
	};
	AUTO_CLOSE int fd = open_socket(0);
	int r;

	if (fd < 0)
		return err_sys(e, -fd, "rtnetlink");
	if (!bridge)
		m.head.nlmsg_len = offsetof(struct set_link, attr);
	r = ask(fd, &m);
	return r < 0 ? err_sys(e, -r, "set up network interface %d", index) : 0;
}

int rtnl_watch(void)
{
	return open_socket(RTMGRP_LINK);
}

static void look(const struct nlmsghdr *h, int index, bool *up)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof *info) || info->ifi_index != index)
		return;
	if (h->nlmsg_type == RTM_NEWLINK)
		*up = info->ifi_flags & IFF_UP;
	else if (h->nlmsg_type == RTM_DELLINK)
		*up = false;
}

void rtnl_watch_read(int fd, int index, bool *up)
{
	_Alignas(struct nlmsghdr) uint8_t buf[ANSWER_MAX];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof buf, 0)) > 0) {
		const struct nlmsghdr *h = (const void *)buf;
		unsigned left = (unsigned)n;

		for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left))
			look(h, index, up);
	}
}
