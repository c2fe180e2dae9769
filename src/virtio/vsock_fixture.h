/* vsock_fixture: for tests, the guest's side of a socket device, packet by packet, against real
 * sockets of the host. One device at a time: vsock_setup makes it, vsock_teardown ends it. */
#pragma once

#include "virtio/fake_driver.h"
#include "virtio/vsock_priv.h"

#define BUFFERS  8 /* receive buffers */
#define RX_AT(n) (0x40000 + (n)*0x2000u)
#define RX_LEN   (VSOCK_HEADER_LEN + 4096u)
#define TX_AT    0x80000
#define EVENT_AT 0xa0000
#define ROOM     0x10000u /* what the guest's sockets grant */

extern struct virtio_device *d;
extern struct fake_guest g;
extern char path[128], path9[160]; /* the device's socket, and the one of the host's port 9 */
extern bool no_buffers;            /* the guest gives back no receive buffer */

int vsock_setup(void **state);
int vsock_teardown(void **state);
struct virtio_device *new_device(void); /* another one, at path */
void boot_guest(void);                  /* its driver starts anew */
/* Lets the device do all that it can do now. */
void work(void);

/* --- the guest --- */
extern uint32_t guest_forwarded; /* what its packets say */
void header(uint8_t *h, uint32_t src, uint32_t dst, unsigned op, uint32_t len, uint32_t flags,
	    uint32_t alloc, uint32_t fwd);
void send_header(const uint8_t *h, const void *payload, uint32_t len);
void send_packet(uint32_t src, uint32_t dst, unsigned op, const void *payload, uint32_t len);
void send_shutdown(uint32_t src, uint32_t dst, uint32_t flags);

struct got {
	uint32_t src, dst, len, flags, alloc, fwd;
	unsigned op;
	uint64_t src_cid, dst_cid;
	char data[4097];
};

/* The next packet for the guest; op 0: there is none. */
struct got receive(void);
void expect(unsigned op, uint32_t src, uint32_t dst);

/* --- the host --- */
int client(const char *line);
void expect_text(int fd, const char *text);
bool at_end(int fd);
/* A connection from the host to the guest's port 52. */
int open_from_host(uint32_t *port);
extern struct unix_listener listener;
void host_listens(void);
/* One from the guest's port 1000 to the host's port 9. */
int open_from_guest(void);
