/* address: MAC addresses and port forwards, as texts and as made up. */
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"

#define MAC_LOCAL 2u
#define MAC_MULTI 1u

/* --- forwards --- */

static bool port_parse(const char *text, size_t len, uint16_t *out)
{
	unsigned v = 0;

	if (!len || len > 5)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (unsigned)(text[i] - '0');
	}
	if (!v || v > 65535)
		return false;
	*out = (uint16_t)v;
	return true;
}

/* The length of text without its protocol, which is taken. 0: none that we know. */
static size_t take_protocol(const char *text, bool *udp)
{
	const char *slash = strchr(text, '/');

	*udp = slash && !strcmp(slash, "/udp");
	if (slash && !*udp && strcmp(slash, "/tcp"))
		return 0;
	return slash ? (size_t)(slash - text) : strlen(text);
}

/* Where the last ':' before end is, or NULL. */
static const char *colon_before(const char *text, const char *end)
{
	while (end > text)
		if (*--end == ':')
			return end;
	return NULL;
}

static bool host_parse(const char *text, size_t len, uint32_t *out)
{
	char name[INET_ADDRSTRLEN];
	struct in_addr a;

	if (len >= sizeof name)
		return false;
	memcpy(name, text, len);
	name[len] = 0;
	if (inet_pton(AF_INET, name, &a) != 1)
		return false;
	*out = ntohl(a.s_addr);
	return true;
}

int net_forward_parse(const char *text, struct net_forward *out, struct err *e)
{
	struct net_forward f = {.host_addr = INADDR_LOOPBACK};
	size_t len = take_protocol(text, &f.udp);
	const char *guest = colon_before(text, text + len), *host, *port;

	if (!guest)
		return err_set(e, EINVAL, "'%s' is not [ADDR:]HOST:GUEST[/udp]", text);
	host = colon_before(text, guest);
	port = host ? host + 1 : text;
	if (!port_parse(guest + 1, (size_t)(text + len - guest - 1), &f.guest_port) ||
	    !port_parse(port, (size_t)(guest - port), &f.host_port))
		return err_set(e, EINVAL, "'%s': ports are numbers from 1 to 65535", text);
	if (host && !host_parse(text, (size_t)(host - text), &f.host_addr))
		return err_set(e, EINVAL, "'%s': the host's address must be an IPv4 address", text);
	*out = f;
	return 0;
}

/* --- MAC addresses --- */

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	/* FNV-1a */
	for (; len; p++, len--)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t mix_file(uint64_t h, const char *name)
{
	char buf[64];
	AUTO_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof buf);

	return n > 0 ? mix(h, buf, (size_t)n) : h;
}

void net_mac(uint8_t mac[6], const char *vm, unsigned n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	uid_t user = getuid();

	h = mix_file(h, "/etc/machine-id");
	h = mix(h, &user, sizeof user);
	h = mix(h, &n, sizeof n);
	h = mix(h, vm, strlen(vm));
	/* FNV's high bits are the well-mixed ones. */
	h ^= h >> 29;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	h >>= 16;
	memcpy(mac, &h, 6);
	mac[0] = (uint8_t)((mac[0] & ~MAC_MULTI) | MAC_LOCAL);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int net_mac_parse(const char *text, uint8_t mac[6], struct err *e)
{
	static const uint8_t zero[6];
	uint8_t m[6];

	for (int i = 0; i < 6; i++) {
		const char *p = text + i * 3;
		int high = strlen(text) == 17 ? hex(p[0]) : -1, low = high < 0 ? -1 : hex(p[1]);

		if (low < 0 || (i < 5 && p[2] != ':'))
			return err_set(e, EINVAL, "'%s' is no MAC address like 52:54:00:12:34:56",
				       text);
		m[i] = (uint8_t)(high << 4 | low);
	}
	if (m[0] & MAC_MULTI || !memcmp(m, zero, 6))
		return err_set(e, EINVAL, "'%s' is no address that a card can have", text);
	memcpy(mac, m, 6);
	return 0;
}
