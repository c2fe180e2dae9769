/* switch_priv: what the files of the switch share.
 *
 *   switch.c        the port; who serves: joining, taking over
 *   switch_hub.c    serving: ways in and out, learning, forwarding
 *   switch_wire.c   messages between VMs
 *
 * A switch is a name. Its VMs connect to a Unix socket in the user's runtime folder; whoever
 * holds the lock beside it serves. When that process ends, however it ends, the kernel closes
 * the connections and frees the lock; the next to take it serves, and the others connect to it.
 *
 * Threads: the I/O thread of the card. */
#pragma once

#include <sys/un.h>

#include "net/backend.h"
#include "net/frame_queue.h"
#include "net/mac_table.h"
#include "net/offload.h"

#define SWITCH_PEERS_MAX 62u /* VMs that one serves; besides them its own card, and the uplink */
#define WAY_CARD         0
#define WAY_UPLINK       1
#define WAY_PEER         2
#define WAYS             (WAY_PEER + SWITCH_PEERS_MAX)
#define QUEUE_MAX        MIB(1) /* of frames that wait for one VM; more are lost */

/* --- switch_wire.c --- */

enum wire_type { WIRE_HELLO = 1, WIRE_FRAME = 2 };

#define WIRE_MAGIC   0x31777348u /* "Hsw1" */
#define WIRE_UPLINK  1u          /* hello: wants the switch to lead to the host's network */
#define WIRE_MSG_MAX (4 + sizeof(struct net_hdr) + NET_FRAME_MAX)

struct wire_hello {
	uint32_t magic, caps, flags;
};

/* A message as it came; frame points into the buffer that it was read to. */
struct wire_msg {
	enum wire_type type;
	struct wire_hello hello;
	struct net_hdr hdr;
	uint8_t *frame;
	size_t len;
};

/* 1: a message; 0: none now; -errno: the connection has ended, or the other end does not
 * keep to the protocol (-EPROTO). */
WARN_UNUSED int wire_read(int fd, uint8_t buf[WIRE_MSG_MAX], struct wire_msg *m);
/* Of bytes as they came from a socket. */
WARN_UNUSED int wire_parse(uint8_t *buf, size_t len, struct wire_msg *m);
/* 1: sent (or lost for good), 0: no room, -errno: the connection has ended. */
WARN_UNUSED int wire_send_frame(int fd, const struct net_hdr *h, const struct iovec *iov,
				unsigned n);
WARN_UNUSED int wire_send_hello(int fd, unsigned caps, bool uplink);

/* --- switch_hub.c --- */

struct hub;

struct peer { /* a VM that is connected to us */
	struct hub *hub;
	struct loop_fd fd;
	int way;
	bool greeted, waits; /* waits: for room in its socket */
	unsigned caps;
	struct frame_queue queue;
};

struct hub {
	struct loop *loop;
	struct net_port *card;  /* the switch's port to our own card */
	struct net_port uplink; /* to user-mode NAT */
	struct net_port *nat;   /* NULL: none */
	struct net_opts nat_opts;
	struct loop_fd listener;
	struct peer *peer[SWITCH_PEERS_MAX];
	struct mac_table macs;
	struct frame_queue card_queue, uplink_queue;
	uint8_t in[WIRE_MSG_MAX], copy[NET_FRAME_MAX];
};

/* listener: a listening socket, the hub's from now on. card: as above. */
WARN_UNUSED int hub_new(struct hub **out, int listener, struct net_port *card,
			const struct net_opts *o, struct loop *l, struct err *e);
void hub_free(struct hub *h); /* accepts NULL */
void hub_want_uplink(struct hub *h);
/* A frame from our own card. */
void hub_take(struct hub *h, const struct net_hdr *hdr, const struct iovec *iov, unsigned n);
void hub_flush(struct hub *h);
void hub_room(struct hub *h); /* our card has room again */
