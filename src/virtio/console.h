/* console: the console device (virtio 1.2, 5.3): a console (hvc0 in Linux), or named ports
 * (/dev/virtio-ports/NAME), each with an end on the host.
 *
 * A console is the only port of its device, and needs no control messages; its size is in the
 * configuration space. Named ports are on a device with control messages (MULTIPORT), whose
 * port 0, which would be a console, is not there.
 *
 * Flow control both ways: what an end does not take stays in the guest's buffers, and what the
 * guest has no buffers for, or no program, is not asked of the end. */
#pragma once

#include <sys/uio.h>

#include "virtio/virtio.h"

#define CONSOLE_PORTS_MAX 30
#define CONSOLE_NAME_MAX  64

/* --- where a port leads on the host --- */

struct console_end;
struct console_end_ops { /* on the I/O thread */
	/* Takes bytes of the guest. When it took less than all, console_end_ready tells when to
	 * come again. */
	uint64_t (*put)(struct console_end *e, const struct iovec *iov, int n);
	/* Puts bytes for the guest there; 0: there are none until console_end_ready. */
	uint64_t (*get)(struct console_end *e, const struct iovec *iov, int n);
	void (*free)(struct console_end *e);
};

struct console_end {
	const struct console_end_ops *ops;
	/* the device's */
	struct virtio_console *console;
	unsigned port;
};

/* For ends, on the I/O thread: somebody is there, or has gone; put or get may do more now. */
void console_end_connect(struct console_end *e, bool connected);
void console_end_ready(struct console_end *e);

/* A Unix socket at path: one client at a time, the others wait (console_socket.c). */
WARN_UNUSED int console_socket_new(struct console_end **out, struct loop *loop, const char *path,
				   struct err *e);

/* A terminal, or what stands for one: bytes go to put, which may take its time, and come from
 * console_pipe_input (console_pipe.c). Always connected. */
struct console_pipe_opts {
	void (*put)(void *ctx, const uint8_t *bytes, uint32_t len);
	/* There is room again after console_pipe_input took less than all. Any thread. */
	void (*room)(void *ctx);
	void *ctx;
};
WARN_UNUSED int console_pipe_new(struct console_end **out, struct loop *loop,
				 const struct console_pipe_opts *o, struct err *e);
/* How many of the bytes were taken. Any one thread. */
uint32_t console_pipe_input(struct console_end *e, const uint8_t *bytes, uint32_t len);

/* --- the device --- */

struct console_port_opts {
	const char *name; /* of letters, digits, '.', '_' and '-' */
	struct console_end *end;
};

struct virtio_console_opts {
	struct console_end *console; /* or NULL: there are ports */
	const struct console_port_opts *port;
	unsigned ports;
};

/* The ends are the device's from now on, also when this fails. */
WARN_UNUSED int virtio_console_new(struct virtio_device **out, const struct virtio_env *env,
				   const struct virtio_console_opts *o, struct err *e);
/* Of the console. Any thread. */
void virtio_console_resize(struct virtio_device *d, unsigned columns, unsigned rows);
WARN_UNUSED int console_check_name(const char *name, struct err *e);

extern const struct virtio_type virtio_console_type;
