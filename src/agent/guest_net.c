/* An address by DHCP (RFC 2131) for each Ethernet card, asked for over a plain UDP socket that is
 * bound to the card; the process that asked stays and asks again before the lease ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/guest.h"
#include "base/auto.h"

#define ANSWER_MS   300 /* that a server gets before it is asked again; then twice as long */
#define ATTEMPTS    4
#define CARDS_MAX   8
#define LEASE_LEAST 60 /* seconds, after half of which it is asked again */
#define COOKIE      0x63825363u

enum message { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK };
enum dhcp_option {
	OPT_MASK = 1,
	OPT_ROUTER = 3,
	OPT_DNS = 6,
	OPT_DOMAIN = 15,
	OPT_ADDRESS = 50,
	OPT_LEASE = 51,
	OPT_MESSAGE = 53,
	OPT_SERVER = 54,
	OPT_WANTED = 55,
	OPT_END = 255
};

struct packet {
	uint8_t op, htype, hlen, hops;
	uint32_t xid;
	uint16_t secs, flags;
	uint32_t ciaddr, yiaddr, siaddr, giaddr;
	uint8_t chaddr[16], sname[64], file[128];
	uint32_t cookie;
	uint8_t options[312];
} __attribute__((packed));

struct lease {
	uint32_t address, mask, router, server; /* as on the wire; 0: none */
	uint32_t dns[3];
	unsigned dnses;
	uint32_t seconds;
	char domain[128];
	uint8_t message;
};

struct card {
	char name[IFNAMSIZ];
	uint8_t mac[6];
	int fd;
	uint32_t xid;
};

/* --- packets --- */

static size_t put(uint8_t *to, size_t at, uint8_t code, const void *value, uint8_t len)
{
	to[at++] = code;
	to[at++] = len;
	memcpy(to + at, value, len);
	return at + len;
}

static int send_message(const struct card *c, uint8_t type, const struct lease *l)
{
	static const uint8_t wanted[] = {OPT_MASK, OPT_ROUTER, OPT_DNS, OPT_DOMAIN, OPT_LEASE};
	const struct sockaddr_in all = {
		.sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = INADDR_BROADCAST};
	struct packet p = {.op = 1,
			   .htype = ARPHRD_ETHER,
			   .hlen = 6,
			   .xid = c->xid,
			   .flags = htons(0x8000), /* we have no address to be answered at */
			   .cookie = htonl(COOKIE)};
	size_t n = put(p.options, 0, OPT_MESSAGE, &type, 1);

	memcpy(p.chaddr, c->mac, 6);
	n = put(p.options, n, OPT_WANTED, wanted, sizeof wanted);
	if (type == REQUEST) {
		n = put(p.options, n, OPT_ADDRESS, &l->address, 4);
		if (l->server)
			n = put(p.options, n, OPT_SERVER, &l->server, 4);
	}
	p.options[n] = OPT_END;
	return sendto(c->fd, &p, sizeof p, 0, (const void *)&all, sizeof all) < 0 ? -errno : 0;
}

static void take_option(struct lease *l, uint8_t code, const uint8_t *value, uint8_t len)
{
	switch (code) {
	case OPT_MASK:
		if (len >= 4)
			memcpy(&l->mask, value, 4);
		break;
	case OPT_ROUTER:
		if (len >= 4)
			memcpy(&l->router, value, 4);
		break;
	case OPT_SERVER:
		if (len >= 4)
			memcpy(&l->server, value, 4);
		break;
	case OPT_LEASE:
		if (len >= 4) {
			memcpy(&l->seconds, value, 4);
			l->seconds = ntohl(l->seconds);
		}
		break;
	case OPT_DNS:
		for (unsigned i = 0; i + 4 <= len && l->dnses < 3; i += 4)
			memcpy(&l->dns[l->dnses++], value + i, 4);
		break;
	case OPT_DOMAIN:
		if (len < sizeof l->domain) {
			memcpy(l->domain, value, len);
			l->domain[len] = 0;
		}
		break;
	case OPT_MESSAGE:
		if (len)
			l->message = *value;
		break;
	default: break;
	}
}

static bool understand(const struct card *c, const struct packet *p, size_t len, struct lease *l)
{
	size_t at = 0, end;

	if (len <= offsetof(struct packet, options) || p->op != 2 || p->xid != c->xid ||
	    p->cookie != htonl(COOKIE) || memcmp(p->chaddr, c->mac, 6) != 0)
		return false;
	end = len - offsetof(struct packet, options);
	*l = (struct lease){.address = p->yiaddr};
	while (at < end && p->options[at] != OPT_END) {
		uint8_t code = p->options[at++], n;

		if (!code)
			continue;
		if (at == end || (n = p->options[at]) > end - at - 1)
			return false;
		take_option(l, code, p->options + at + 1, n);
		at += 1u + n;
	}
	return l->address != 0;
}

/* --- asking --- */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool await(const struct card *c, uint8_t message, int ms, struct lease *out)
{
	uint64_t until = now_ms() + (uint64_t)ms;
	struct pollfd p = {c->fd, POLLIN, 0};
	union {
		struct packet packet;
		uint8_t bytes[1500];
	} in;

	for (;;) {
		uint64_t now = now_ms();
		struct lease l;
		ssize_t n;

		if (now >= until || poll(&p, 1, (int)(until - now)) == 0)
			return false;
		n = recv(c->fd, &in, sizeof in, MSG_DONTWAIT);
		if (n > (ssize_t)sizeof in.packet) /* options beyond ours do not count */
			n = sizeof in.packet;
		if (n > 0 && understand(c, &in.packet, (size_t)n, &l) && l.message == message) {
			*out = l;
			return true;
		}
	}
}

static bool ask(struct card *c, struct lease *l)
{
	int ms = ANSWER_MS;

	for (unsigned i = 0; i < ATTEMPTS; i++, ms *= 2) {
		struct lease offer;

		(void)!getrandom(&c->xid, sizeof c->xid, 0);
		if (send_message(c, DISCOVER, NULL) == 0 && await(c, OFFER, ms, &offer) &&
		    send_message(c, REQUEST, &offer) == 0 && await(c, ACK, ms, l))
			return true;
	}
	return false;
}

/* --- the card --- */

static void set_address(struct ifreq *q, uint32_t address)
{
	*(struct sockaddr_in *)&q->ifr_addr =
		(struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = address};
}

static bool up(int fd, const char *name)
{
	struct ifreq q = {0};

	snprintf(q.ifr_name, sizeof q.ifr_name, "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &q) < 0)
		return false;
	q.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &q) == 0;
}

static void apply(const struct card *c, const struct lease *l)
{
	struct ifreq q = {0};
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
	uint32_t mask = l->mask ? l->mask : htonl(0xffffff00);

	snprintf(q.ifr_name, sizeof q.ifr_name, "%s", c->name);
	set_address(&q, l->address);
	ioctl(c->fd, SIOCSIFADDR, &q);
	set_address(&q, mask);
	ioctl(c->fd, SIOCSIFNETMASK, &q);
	if (!l->router)
		return;
	*(struct sockaddr_in *)&route.rt_gateway =
		(struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = l->router};
	((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
	((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
	ioctl(c->fd, SIOCADDRT, &route);
}

static void write_resolver(const struct lease *l)
{
	FILE *f;

	if (!l->dnses)
		return;
	unlink("/etc/resolv.conf"); /* a link into what no service here fills */
	f = fopen("/etc/resolv.conf", "we");
	if (!f)
		return;
	if (*l->domain && !strpbrk(l->domain, "\r\n"))
		fprintf(f, "search %s\n", l->domain);
	for (unsigned i = 0; i < l->dnses; i++) {
		struct in_addr a = {l->dns[i]};

		fprintf(f, "nameserver %s\n", inet_ntoa(a));
	}
	fclose(f);
}

static bool open_card(struct card *c)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(68)};
	struct ifreq q = {0};
	int on = 1;

	c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return false;
	snprintf(q.ifr_name, sizeof q.ifr_name, "%s", c->name);
	if (ioctl(c->fd, SIOCGIFHWADDR, &q) < 0 || q.ifr_hwaddr.sa_family != ARPHRD_ETHER)
		return false;
	memcpy(c->mac, q.ifr_hwaddr.sa_data, 6);
	return setsockopt(c->fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0 &&
	       setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
	       setsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, c->name,
			  (socklen_t)strlen(c->name)) == 0 &&
	       bind(c->fd, (const void *)&any, sizeof any) == 0 && up(c->fd, c->name);
}

static void keep(struct card *c, struct lease l)
{
	for (;;) {
		unsigned half = (l.seconds < LEASE_LEAST ? LEASE_LEAST : l.seconds) / 2;

		if (l.seconds == UINT32_MAX)
			return; /* for ever */
		sleep(half);
		if (ask(c, &l))
			apply(c, &l);
	}
}

/* In a process of its own; said: closed when there is an address, or none is to be had. */
static void serve_card(struct card *c, int said)
{
	struct lease l;

	if (!open_card(c))
		return;
	if (!ask(c, &l)) {
		fprintf(stderr, "holon: %s: nobody gives an address by DHCP\n", c->name);
		return;
	}
	apply(c, &l);
	write_resolver(&l);
	close(said);
	keep(c, l);
}

void guest_net_up(void)
{
	struct if_nameindex *list = if_nameindex();
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int said[2];
	char none;
	unsigned cards = 0;

	up(fd, "lo");
	if (!list || pipe2(said, O_CLOEXEC) < 0)
		return;
	for (struct if_nameindex *i = list; i->if_index && cards < CARDS_MAX; i++) {
		struct card c = {.fd = -1};

		if (!strcmp(i->if_name, "lo"))
			continue;
		cards++;
		snprintf(c.name, sizeof c.name, "%s", i->if_name);
		if (fork() == 0) {
			close(said[0]);
			serve_card(&c, said[1]);
			_exit(0);
		}
	}
	close(said[1]);
	(void)!read(said[0], &none, 1); /* until all have closed it */
	close(said[0]);
	if_freenameindex(list);
}
