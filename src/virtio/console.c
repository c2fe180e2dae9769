/* console: the device's queues and control messages; see console.h.
 *
 * Port 0 has queues 0 (to the guest) and 1 (from it), port n queues 2n + 2 and 2n + 3; 2 and 3
 * are for control messages. What the driver is to be told is derived from flags of each port,
 * so a driver that takes no messages makes us keep nothing more.
 *
 * No chain is held across calls: one that its end takes only a part of goes back into the ring,
 * and the part is remembered (sent). So a pause, or a snapshot, needs no care. */
#include "virtio/console.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FEATURE_SIZE      BIT(0)
#define FEATURE_MULTIPORT BIT(1)

enum { CONTROL_RX = 2, CONTROL_TX = 3 };

enum console_event { /* 5.3.6.2 */
		     DEVICE_READY,
		     PORT_ADD,
		     PORT_REMOVE,
		     PORT_READY,
		     CONSOLE_PORT,
		     RESIZE,
		     PORT_OPEN,
		     PORT_NAME
};

#define MESSAGE_LEN 8
#define TURN        64 /* chains of a port before others of the loop have theirs */

/* The configuration space (5.3.4) */
#define CONFIG_COLS      0
#define CONFIG_MAX_PORTS 4
#define CONFIG_LEN       8

struct port {
	struct console_end *end; /* NULL: there is no such port */
	char name[CONSOLE_NAME_MAX + 1];
	bool connected; /* the host's side */
	bool flapped;   /* it was not, for a moment since the driver was told that it is */
	/* what the driver did, and was told */
	bool announced, ready, named, open, told_connected;
	uint64_t sent; /* bytes of the chain at the head of the queue that its end has */
};

struct virtio_console {
	struct virtio_device vd;
	bool driver_ready; /* it takes messages */
	struct loop_call turn;
	bool turn_posted;
	unsigned ports; /* with port 0 */
	struct port port[1 + CONSOLE_PORTS_MAX];
	struct iovec iov[VIRTQ_IOV_MAX], part[VIRTQ_IOV_MAX];
};

static struct virtio_console *to_console(struct virtio_device *d)
{
	return container_of(d, struct virtio_console, vd);
}

static bool active(const struct virtio_console *v)
{
	return v->vd.started && !v->vd.stopping;
}

static bool multiport(const struct virtio_console *v)
{
	return virtio_has(&v->vd, FEATURE_MULTIPORT);
}

static unsigned rx_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static struct virtq_chain chain(struct virtio_console *v)
{
	return (struct virtq_chain){.iov = v->iov, .iov_max = VIRTQ_IOV_MAX};
}

static void again(struct virtio_console *v)
{
	if (v->turn_posted)
		return;
	v->turn_posted = true;
	loop_post(v->vd.env.loop, &v->turn);
}

/* --- messages to the driver --- */

static unsigned message(uint8_t *to, unsigned port, unsigned event, unsigned value)
{
	store_le(to, port, 4);
	store_le(to + 4, event, 2);
	store_le(to + 6, value, 2);
	return MESSAGE_LEN;
}

/* What the driver does not know yet of port n; 0: nothing. */
static unsigned port_message(struct port *p, unsigned n, uint8_t *to)
{
	unsigned len;

	if (!p->announced) {
		p->announced = true;
		return message(to, n, PORT_ADD, 1);
	}
	if (!p->ready)
		return 0;
	if (!p->named) {
		p->named = true;
		len = message(to, n, PORT_NAME, 1);
		memcpy(to + len, p->name, strlen(p->name) + 1);
		return len + (unsigned)strlen(p->name) + 1;
	}
	if (p->told_connected && (!p->connected || p->flapped)) {
		p->told_connected = p->flapped = false;
		return message(to, n, PORT_OPEN, 0);
	}
	if (p->connected && !p->told_connected) {
		p->told_connected = true;
		return message(to, n, PORT_OPEN, 1);
	}
	return 0;
}

static unsigned next_message(struct virtio_console *v, uint8_t *to)
{
	unsigned len = 0;

	for (unsigned n = 1; n < v->ports && !len; n++)
		len = port_message(&v->port[n], n, to);
	return len;
}

static void put_message(struct virtio_console *v, const struct virtq_chain *c, const uint8_t *from,
			unsigned len)
{
	unsigned done = 0;

	for (unsigned i = c->out; i < c->out + c->in && done < len; i++) {
		unsigned part = (unsigned)min_u64(c->iov[i].iov_len, len - done);

		memcpy(c->iov[i].iov_base, from + done, part);
		done += part;
	}
	virtq_push(v->vd.queue[CONTROL_RX], c, done);
}

static void tell_driver(struct virtio_console *v)
{
	struct virtq *q = v->vd.queue[CONTROL_RX];
	struct virtq_chain c = chain(v);
	uint8_t m[MESSAGE_LEN + CONSOLE_NAME_MAX + 1];
	unsigned len;
	int r = 0;

	if (!active(v) || !multiport(v) || !v->driver_ready)
		return;
	do {
		while ((r = virtq_pop(q, &c)) > 0) {
			if (c.out || c.in_len < sizeof m) {
				r = -1;
				break;
			}
			len = next_message(v, m);
			if (!len) {
				virtq_unpop(q, &c);
				break;
			}
			put_message(v, &c, m, len);
		}
	} while (r == 0 && virtq_kicks_on(q));
	virtq_publish(q);
	if (r < 0)
		virtio_broken(&v->vd, "a bad buffer for control messages");
}

/* --- data --- */

/* What is left of a chain's pieces behind the first done bytes. */
static int rest(struct virtio_console *v, const struct iovec *iov, unsigned n, uint64_t done)
{
	int m = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t skip = min_u64(done, iov[i].iov_len);

		done -= skip;
		if (skip < iov[i].iov_len)
			v->part[m++] = (struct iovec){(uint8_t *)iov[i].iov_base + skip,
						      iov[i].iov_len - skip};
	}
	return m;
}

/* One chain to the port's end; false: the end takes no more now. */
static bool put_chain(struct virtio_console *v, struct port *p, const struct virtq_chain *c)
{
	int n = rest(v, c->iov, c->out, p->sent);

	if (n)
		p->sent += p->end->ops->put(p->end, v->part, n);
	if (p->sent < c->out_len)
		return false;
	p->sent = 0;
	return true;
}

static void from_guest(struct virtio_console *v, unsigned n)
{
	struct virtq *q = v->vd.queue[rx_queue(n) + 1];
	struct port *p = &v->port[n];
	struct virtq_chain c = chain(v);
	unsigned done = 0;
	int r = 0;

	if (!p->end || !p->connected)
		return; /* who writes waits for a reader */
	do {
		while (done < TURN && p->connected && (r = virtq_pop(q, &c)) > 0) {
			if (c.in) {
				r = -1;
				break;
			}
			if (!put_chain(v, p, &c)) {
				virtq_unpop(q, &c);
				break;
			}
			virtq_push(q, &c, 0);
			done++;
		}
	} while (r == 0 && done < TURN && virtq_kicks_on(q));
	virtq_publish(q);
	if (r < 0)
		virtio_broken(&v->vd, "a bad chain to port %u", n);
	else if (done == TURN)
		again(v);
}

static void to_guest(struct virtio_console *v, unsigned n)
{
	struct virtq *q = v->vd.queue[rx_queue(n)];
	struct port *p = &v->port[n];
	struct virtq_chain c = chain(v);
	unsigned done = 0;
	int r = 0;

	if (!p->end || !p->connected || (multiport(v) && !p->open))
		return;
	do {
		while (done < TURN && p->connected && (r = virtq_pop(q, &c)) > 0) {
			uint64_t got = 0;

			if (c.out) {
				r = -1;
				break;
			}
			if (c.in)
				got = p->end->ops->get(p->end, c.iov, (int)c.in);
			if (!got) {
				virtq_unpop(q, &c);
				break;
			}
			virtq_push(q, &c, (uint32_t)got);
			done++;
		}
	} while (r == 0 && done < TURN && virtq_kicks_on(q));
	virtq_publish(q);
	if (r < 0)
		virtio_broken(&v->vd, "a bad chain from port %u", n);
	else if (done == TURN)
		again(v);
}

static void serve(struct virtio_console *v, unsigned n)
{
	if (active(v))
		from_guest(v, n);
	if (active(v))
		to_guest(v, n);
}

/* --- messages of the driver --- */

static void port_said(struct virtio_console *v, unsigned n, unsigned event, unsigned value)
{
	struct port *p;

	if (n == 0 || n >= v->ports || !v->port[n].announced)
		return;
	p = &v->port[n];
	if (event == PORT_READY)
		p->ready = value;
	else if (event == PORT_OPEN)
		p->open = value;
	again(v);
}

static void driver_said(struct virtio_console *v, const struct virtq_chain *c)
{
	uint8_t m[MESSAGE_LEN];
	unsigned done = 0;

	for (unsigned i = 0; i < c->out && done < sizeof m; i++) {
		unsigned part = (unsigned)min_u64(c->iov[i].iov_len, sizeof m - done);

		memcpy(m + done, c->iov[i].iov_base, part);
		done += part;
	}
	if (done < sizeof m)
		return;
	if (load_le(m + 4, 2) == DEVICE_READY)
		v->driver_ready = load_le(m + 6, 2);
	else
		port_said(v, (unsigned)load_le(m, 4), (unsigned)load_le(m + 4, 2),
			  (unsigned)load_le(m + 6, 2));
}

static void hear_driver(struct virtio_console *v)
{
	struct virtq *q = v->vd.queue[CONTROL_TX];
	struct virtq_chain c = chain(v);
	unsigned done = 0;
	int r = 0;

	if (!multiport(v))
		return;
	do {
		while (done < TURN && (r = virtq_pop(q, &c)) > 0) {
			driver_said(v, &c);
			virtq_push(q, &c, 0);
			done++;
		}
	} while (r == 0 && done < TURN && virtq_kicks_on(q));
	virtq_publish(q);
	if (r < 0)
		virtio_broken(&v->vd, "a bad control message");
	else if (done == TURN)
		again(v);
	tell_driver(v);
}

/* --- events --- */

static void kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_console *v = to_console(d);

	if (v->ports > 1 && queue == CONTROL_RX)
		tell_driver(v);
	else if (v->ports > 1 && queue == CONTROL_TX)
		hear_driver(v);
	else if (queue < 2)
		serve(v, 0);
	else
		serve(v, (queue - 2) / 2);
}

static void next_turn(struct loop_call *call)
{
	struct virtio_console *v = container_of(call, struct virtio_console, turn);

	v->turn_posted = false;
	for (unsigned n = 0; n < v->vd.queues; n++)
		virtio_kick(&v->vd, n);
}

/* The turn does the work: an end calls from within put and get too. */
void console_end_ready(struct console_end *e)
{
	if (e->console)
		again(e->console);
}

void console_end_connect(struct console_end *e, bool connected)
{
	struct port *p;

	if (!e->console)
		return;
	p = &e->console->port[e->port];
	if (connected && !p->connected && p->told_connected)
		p->flapped = true;
	/* Half a message is of no use to the next one. */
	if (!connected && p->sent)
		p->sent = UINT64_MAX;
	p->connected = connected;
	again(e->console);
}

void virtio_console_resize(struct virtio_device *d, unsigned columns, unsigned rows)
{
	uint8_t size[4];

	store_le(size, columns, 2);
	store_le(size + 2, rows, 2);
	virtio_config_set(d, CONFIG_COLS, size, sizeof size);
}

static void reset(struct virtio_device *d)
{
	struct virtio_console *v = to_console(d);

	v->driver_ready = false;
	for (unsigned n = 0; n < v->ports; n++) {
		struct port *p = &v->port[n];

		p->announced = p->ready = p->named = p->open = p->told_connected = false;
		p->flapped = false;
		p->sent = 0;
	}
}

static void state(struct virtio_device *d, struct state *s)
{
	struct virtio_console *v = to_console(d);
	uint8_t flags[1 + CONSOLE_PORTS_MAX] = {0};
	uint8_t sent[8 * (1 + CONSOLE_PORTS_MAX)] = {0};

	for (unsigned n = 0; n < v->ports; n++) {
		const struct port *p = &v->port[n];

		flags[n] = (uint8_t)(p->announced | p->ready << 1 | p->named << 2 | p->open << 3 |
				     p->told_connected << 4);
		store_le(sent + 8 * n, p->sent, 8);
	}
	state_bool(s, "driver_ready", &v->driver_ready);
	state_bytes(s, "flags", flags, v->ports);
	state_bytes(s, "sent", sent, 8 * v->ports);
	for (unsigned n = 0; state_loading(s) && n < v->ports; n++) {
		struct port *p = &v->port[n];

		p->announced = flags[n] & 1;
		p->ready = flags[n] & 2;
		p->named = flags[n] & 4;
		p->open = flags[n] & 8;
		p->told_connected = flags[n] & 16;
		p->sent = load_le(sent + 8 * n, 8);
	}
}

static void end_free(struct console_end *e)
{
	if (e)
		e->ops->free(e);
}

static void console_free(struct virtio_device *d)
{
	struct virtio_console *v;

	if (!d)
		return;
	v = to_console(d);
	for (unsigned n = 0; n < v->ports; n++)
		end_free(v->port[n].end);
	virtio_done(d);
	free(v);
}

const struct virtio_type virtio_console_type = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* communication, other */
	.kick = kick,
	.reset = reset,
	.state = state,
	.free = console_free,
};

/* --- making --- */

int console_check_name(const char *name, struct err *e)
{
	size_t len = strlen(name);

	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return err_set(e, EINVAL,
				       "port '%s': a name has letters, digits, '.', '_' and '-'",
				       name);
	if (len == 0 || len > CONSOLE_NAME_MAX)
		return err_set(e, EINVAL, "port '%s': a name has 1 to %d bytes", name,
			       CONSOLE_NAME_MAX);
	return 0;
}

/* An end may be connected already, and says so now. */
static void attach(struct virtio_console *v, unsigned n, struct console_end *end)
{
	v->port[n].end = end;
	end->console = v;
	end->port = n;
}

static int check_ports(const struct virtio_console_opts *o, struct err *e)
{
	int r = 0;

	if (o->ports > CONSOLE_PORTS_MAX)
		return err_set(e, EINVAL, "%u ports: at most %d are possible", o->ports,
			       CONSOLE_PORTS_MAX);
	for (unsigned i = 0; i < o->ports && r == 0; i++) {
		r = console_check_name(o->port[i].name, e);
		for (unsigned k = 0; k < i && r == 0; k++)
			if (!strcmp(o->port[i].name, o->port[k].name))
				r = err_set(e, EINVAL, "two ports named '%s'", o->port[i].name);
	}
	return r;
}

static int init(struct virtio_console *v, const struct virtio_env *env,
		const struct virtio_console_opts *o, struct err *e)
{
	uint16_t size[VIRTIO_QUEUES_MAX];
	unsigned queues = o->ports ? 2 * o->ports + 4 : 2;

	for (unsigned i = 0; i < queues; i++)
		size[i] = 64;
	return virtio_init(&v->vd, &virtio_console_type, env,
			   o->ports ? FEATURE_MULTIPORT : FEATURE_SIZE, queues, size, e);
}

static void free_ends(const struct virtio_console_opts *o)
{
	end_free(o->console);
	for (unsigned i = 0; i < o->ports; i++)
		end_free(o->port[i].end);
}

int virtio_console_new(struct virtio_device **out, const struct virtio_env *env,
		       const struct virtio_console_opts *o, struct err *e)
{
	struct virtio_console *v = calloc(1, sizeof *v);
	int r = v ? check_ports(o, e) : err_set(e, ENOMEM, "console");

	if (r == 0)
		r = init(v, env, o, e);
	if (r < 0) {
		free_ends(o);
		if (v)
			virtio_done(&v->vd);
		free(v);
		return r;
	}
	v->turn.run = next_turn;
	v->ports = 1 + o->ports;
	v->vd.config_len = CONFIG_LEN;
	store_le(v->vd.config + CONFIG_MAX_PORTS, v->ports, 4);
	if (o->console) {
		attach(v, 0, o->console);
		v->port[0].connected = true;
	}
	for (unsigned i = 0; i < o->ports; i++) {
		strcpy(v->port[i + 1].name, o->port[i].name);
		attach(v, i + 1, o->port[i].end);
	}
	*out = &v->vd;
	return 0;
}
