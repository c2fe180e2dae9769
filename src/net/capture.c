/* capture: what passes a card's wire, as a pcapng file (draft-ietf-opsawg-pcapng): one section,
 * one Ethernet interface with times in nanoseconds, and a packet block for each frame, never
 * cut off, with its direction as the guest sees it. A frame that is to be segmented or
 * checksummed later is written as it passes: larger than the MTU, its checksum undone.
 *
 * Blocks are gathered and written in one go: when the buffer is full, once a second, and at
 * the end. A write that fails ends the capture, not the VM; the file is cut back to the last
 * whole block. */
#include "net/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUFFER        KIB(256)
#define FLUSH_NS      UINT64_C(1000000000)
#define SECTION_BLOCK 0x0a0d0d0au
#define SECTION_MAGIC 0x1a2b3c4du
#define IF_BLOCK      1u
#define PACKET_BLOCK  6u
#define OPT_END       0u
#define OPT_IF_NAME   2u
#define OPT_TSRESOL   9u
#define OPT_FLAGS     2u
#define OPT_USERAPPL  4u
#define INBOUND       1u
#define OUTBOUND      2u
#define NANOSECONDS   9u

struct capture {
	struct net_filter filter;
	struct net_warn warn;
	struct clock *clock;
	struct timer timer;
	char *file;
	int fd;      /* -1: ended */
	off_t whole; /* where the last block that was written ends */
	size_t len;
	uint8_t buf[BUFFER];
};

/* --- the buffer --- */

static void put(struct capture *c, const void *bytes, size_t len)
{
	memcpy(c->buf + c->len, bytes, len);
	c->len += len;
}

static void put32(struct capture *c, uint32_t v)
{
	put(c, &v, 4);
}

static void pad(struct capture *c)
{
	static const uint8_t zero[4];

	put(c, zero, -c->len & 3);
}

static void put_option(struct capture *c, unsigned code, const void *value, size_t len)
{
	put32(c, code | (uint32_t)len << 16);
	put(c, value, len);
	pad(c);
}

static size_t begin(struct capture *c, uint32_t type)
{
	size_t at = c->len;

	put32(c, type);
	put32(c, 0); /* the length, set by end */
	return at;
}

static void end(struct capture *c, size_t at)
{
	uint32_t len = (uint32_t)(c->len + 4 - at);

	memcpy(c->buf + at + 4, &len, 4);
	put32(c, len);
}

static void write_out(struct capture *c)
{
	size_t done = 0;
	ssize_t n = 0;

	while (c->fd >= 0 && done < c->len) {
		n = write(c->fd, c->buf + done, c->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (c->fd >= 0 && done < c->len) {
		net_warn(&c->warn, "capture '%s' ends here: %s", c->file,
			 n < 0 ? strerror(errno) : "nothing was written");
		/* A pipe cannot be cut back. */
		if (ftruncate(c->fd, c->whole) < 0)
			errno = 0;
		close(c->fd);
		c->fd = -1;
	}
	c->whole += (off_t)c->len;
	c->len = 0;
}

static void on_timer(struct timer *t)
{
	write_out(container_of(t, struct capture, timer));
}

/* --- blocks --- */

static void put_heads(struct capture *c, const char *vm)
{
	static const uint8_t resolution = NANOSECONDS;
	const uint32_t version_1_0 = 1, unknown = UINT32_MAX, ethernet = 1, uncut = 0;
	size_t at = begin(c, SECTION_BLOCK);

	put32(c, SECTION_MAGIC);
	put32(c, version_1_0);
	put32(c, unknown);
	put32(c, unknown);
	put_option(c, OPT_USERAPPL, "Holon " HOLON_VERSION, strlen("Holon " HOLON_VERSION));
	put32(c, OPT_END);
	end(c, at);
	at = begin(c, IF_BLOCK);
	put32(c, ethernet);
	put32(c, uncut);
	put_option(c, OPT_IF_NAME, vm, strlen(vm));
	put_option(c, OPT_TSRESOL, &resolution, 1);
	put32(c, OPT_END);
	end(c, at);
}

static uint64_t wall_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void passed(struct net_filter *f, int from, const struct net_hdr *h, const struct iovec *iov,
		   unsigned n, size_t len)
{
	struct capture *c = container_of(f, struct capture, filter);
	const uint32_t flags = from == NET_WIRE_SIDE ? INBOUND : OUTBOUND;
	uint64_t now = wall_ns();
	size_t at;

	if (c->fd < 0 || len > NET_FRAME_MAX)
		return;
	if (c->len + len + 64 > sizeof c->buf)
		write_out(c);
	if (!c->len)
		timer_arm(c->clock, &c->timer, clock_now(c->clock) + FLUSH_NS);
	at = begin(c, PACKET_BLOCK);
	put32(c, 0); /* the interface */
	put32(c, (uint32_t)(now >> 32));
	put32(c, (uint32_t)now);
	put32(c, (uint32_t)len);
	put32(c, (uint32_t)len);
	for (unsigned i = 0; i < n; i++)
		put(c, iov[i].iov_base, iov[i].iov_len);
	pad(c);
	put_option(c, OPT_FLAGS, &flags, 4);
	put32(c, OPT_END);
	end(c, at);
}

static void capture_free(struct net_filter *f)
{
	struct capture *c = container_of(f, struct capture, filter);

	timer_cancel(c->clock, &c->timer);
	write_out(c);
	if (c->fd >= 0)
		close(c->fd);
	free(c->file);
	free(c);
}

static const struct net_filter_ops ops = {.passed = passed, .free = capture_free};

int capture_new(struct net_filter **out, const char *file, const char *vm, const struct net_warn *w,
		struct loop *l, struct err *e)
{
	struct capture *c = calloc(1, sizeof *c);
	char name[64];

	if (!c || !(c->file = strdup(file))) {
		free(c);
		return err_sys(e, ENOMEM, "capture '%s'", file);
	}
	net_filter_init(&c->filter, &ops);
	c->warn = *w;
	c->clock = loop_clock(l);
	c->timer.fire = on_timer;
	/* Only for its owner: it may hold passwords. */
	c->fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (c->fd < 0) {
		int r = err_sys(e, errno, "capture '%s'", file);

		capture_free(&c->filter);
		return r;
	}
	snprintf(name, sizeof name, "%s", vm ? vm : "net");
	put_heads(c, name);
	*out = &c->filter;
	return 0;
}
