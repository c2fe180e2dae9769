/* user_priv: what the files of the user-mode NAT share.
 *
 *   user.c       the port: frames in and out, addresses, forwards
 *   user_lib.c   libslirp, loaded where there is one
 *   user_poll.c  its sockets and timers on the I/O thread's loop
 *   user_mss.c   large TCP segments: what the guest announced, and what libslirp is told
 *
 * Threads: the I/O thread. */
#pragma once

#include <slirp/libslirp.h>

#include "net/offload.h"

/* --- user_lib.c --- */

struct slirp_lib {
	void *handle;
	Slirp *(*new)(const SlirpConfig *cfg, const SlirpCb *callbacks, void *opaque);
	void (*cleanup)(Slirp *slirp);
	void (*fill)(Slirp *slirp, uint32_t *timeout, SlirpAddPollCb add_poll, void *opaque);
	void (*poll)(Slirp *slirp, int select_error, SlirpGetREventsCb get_revents, void *opaque);
	void (*input)(Slirp *slirp, const uint8_t *pkt, int pkt_len);
	int (*add_hostfwd)(Slirp *slirp, int is_udp, struct in_addr host_addr, int host_port,
			   struct in_addr guest_addr, int guest_port);
};

WARN_UNUSED int slirp_lib_open(struct slirp_lib *l, struct err *e);
void slirp_lib_close(struct slirp_lib *l); /* accepts one that was never opened */

/* --- user_mss.c --- */

#define MSS_SLOTS 1024u

/* The segment size that the guest announced, per connection. One that was pushed out by
 * another, or is not known, gets the size that every host must take. */
struct mss_table {
	struct mss_slot {
		uint32_t guest, remote; /* the last four bytes of the addresses */
		uint16_t guest_port, remote_port, mss;
	} slot[MSS_SLOTS];
};

/* A frame from the guest: if it is a SYN, notes the segment size that it announces, and puts
 * there the largest. frame's checksum stays as right or wrong as it was; undone: it is not
 * made yet (NET_HDR_NEEDS_CSUM). */
void mss_raise(struct mss_table *t, uint8_t *frame, const struct net_layout *l, bool undone);
/* For a TCP frame to the guest. */
uint16_t mss_of(const struct mss_table *t, const uint8_t *frame, const struct net_layout *l);

/* --- user_poll.c --- */

struct user_watch {    /* of one descriptor of libslirp's */
	uint32_t on;   /* events that epoll has; 0: it is not there */
	uint32_t want; /* events of the last fill */
	uint32_t got;
	uint32_t round; /* of the last fill that named it */
	bool listed;    /* in active[] */
};

struct user_poll {
	struct loop *loop;
	struct slirp_lib *lib;
	Slirp *slirp;
	void (*polled)(struct user_poll *p); /* sockets and timers had their turn */

	/* Its sockets have an epoll set of their own in the loop's, so that all that are ready
	 * are handed over in one call. */
	struct loop_fd ready;
	struct timer timer;
	bool in_loop, stopped;
	struct user_watch *watch; /* by descriptor */
	unsigned watches;
	int *active; /* descriptors that are in the epoll set, or shall be */
	unsigned actives, active_room;
	uint32_t round;
};

WARN_UNUSED int user_poll_init(struct user_poll *p, struct loop *l, struct err *e);
WARN_UNUSED int user_poll_start(struct user_poll *p, struct slirp_lib *lib, Slirp *slirp,
				struct err *e);
void user_poll_done(struct user_poll *p);
void user_poll_refresh(struct user_poll *p);         /* after input from the guest */
void user_poll_stop(struct user_poll *p, bool stop); /* read no sockets for now */
void user_poll_forget(struct user_poll *p, int fd);  /* closed, or new */
