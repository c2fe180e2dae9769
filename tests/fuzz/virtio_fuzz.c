/* virtio_fuzz: every virtio device through the PCI transport, with a driver made from the input:
 * registers in any order, good chains with any bytes in them, bad descriptors, loops; a program of
 * the host at the backend's socket, where there is one; and, when the input asks for it, a second thread that writes into the rings all the while, as another
 * vCPU may. Nothing may crash, hang, or reach outside of the guest's memory. */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/fake_devices.h"
#include "virtio/fake_slot.h"

#define BUFFERS 0x200000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at;
	size_t left;
};

static uint32_t take(struct input *in, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->at++, in->left--)
		v |= (uint32_t)*in->at << (8 * i);
	return v;
}

static unsigned any_queue(struct fake_slot *s, struct input *in)
{
	return take(in, 1) % virtio_pci_virtio(s->v)->queues;
}

/* Mostly an address where buffers are. */
static gpa_t any_gpa(struct input *in)
{
	uint32_t v = take(in, 2);

	switch (v >> 14) {
	case 0: return FAKE_RINGS + v * 2;
	case 1: return FAKE_SLOT_RAM - (v & 0xff);
	default: return BUFFERS + (v & 0x3fff) * 8;
	}
}

static void negotiate(struct fake_slot *s, struct input *in)
{
	uint64_t take_away = take(in, 4) | (uint64_t)take(in, 1) << 32;

	fake_out(s, 0x14, 0, 1);
	fake_loop_settle(s->loop);
	if (fake_in(s, 0x14, 1))
		return; /* it has not stopped yet */
	if (fake_slot_agree(s,
			    (virtio_pci_virtio(s->v)->offered & ~take_away) | VIRTIO_F_VERSION_1)) {
		fake_slot_queues(s, 4u << take(in, 1) % 4);
		fake_out(s, 0x14, 0xf, 1);
	}
}

/* A chain that is as it should be, around bytes from the input. */
static void good_chain(struct fake_slot *s, struct input *in)
{
	struct fake_driver *q = &s->q[any_queue(s, in)];
	unsigned outs = take(in, 1) % 4, ins = take(in, 1) % 4;
	struct fake_buf buf[6];

	if (!q->size || !(outs + ins))
		return;
	for (unsigned i = 0; i < outs + ins; i++) {
		buf[i] = (struct fake_buf){any_gpa(in), take(in, 1), i >= outs};
		if (i >= outs) {
			buf[i].len *= 64;
			continue;
		}
		buf[i].len = buf[i].len % 64 + (buf[i].len & 0x40) * 16;
		for (unsigned k = 0; k < 48 && k < buf[i].len && in->left; k++)
			(void)!mem_write(s->mem, buf[i].gpa + k, &(uint8_t){take(in, 1)}, 1);
	}
	(void)fake_add_chain(q, buf, outs + ins);
}

static void bad_chain(struct fake_slot *s, struct input *in)
{
	struct fake_driver *q = &s->q[any_queue(s, in)];
	unsigned n = 1 + take(in, 1) % 4;

	if (!q->size)
		return;
	for (unsigned i = 0; i < n; i++)
		fake_desc(q, take(in, 1) % q->size, .addr = any_gpa(in), .len = take(in, 2),
			  .flags = take(in, 1), .next = take(in, 1), .id = take(in, 1));
	fake_show(q, take(in, 1) % q->size, n);
}

static void take_back(struct fake_slot *s, struct input *in)
{
	struct fake_driver *q = &s->q[any_queue(s, in)];

	/* Anew: what comes back need not be what went there. */
	if (q->size) {
		q->free = q->size;
		memset(q->busy, 0, sizeof q->busy);
		memset(q->len, 0, sizeof q->len);
	}
}

/* A program of the host at the device's backend: the line by which it asks for a connection, or
 * any bytes, in pieces. */
struct client {
	const struct fake_maker *maker;
	void *aux;
	int fd;
};

static void client_says(struct client *c, struct input *in)
{
	static const char ask[] = "CONNECT 10\n";
	uint8_t said[256];
	unsigned how = take(in, 1), n = how & 7 ? how % sizeof ask : 0;

	if (c->fd < 0 && c->maker->connect)
		c->fd = c->maker->connect(c->aux);
	if (c->fd < 0)
		return;
	memcpy(said, ask, n);
	for (unsigned more = how & 8 ? take(in, 1) % 64 : 0; more && in->left; more--)
		said[n++] = (uint8_t)take(in, 1);
	(void)!send(c->fd, said, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)!recv(c->fd, said, sizeof said, MSG_DONTWAIT);
}

static void client_leaves(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void step(struct fake_slot *s, struct client *c, struct input *in)
{
	uint32_t at;

	switch (take(in, 1) % 18) {
	case 16: client_says(c, in); break;
	case 17: client_leaves(c); break;
	case 0: negotiate(s, in); break;
	case 1:
	case 2:
	case 3: good_chain(s, in); break;
	case 4: bad_chain(s, in); break;
	case 5:
	case 6: fake_slot_kick(s, any_queue(s, in)); break;
	case 7:
	case 8: fake_loop_settle(s->loop); break;
	case 9: take_back(s, in); break;
	case 10:
		at = take(in, 1) % 64;
		fake_out(s, at, take(in, 4), at % 4 ? at % 2 ? 1 : 2 : 4);
		break;
	case 11:
		fake_out(s, FAKE_CONFIG + take(in, 1) % 64, take(in, 4), 1u << take(in, 1) % 3);
		break;
	case 12: (void)fake_in(s, take(in, 2) % 0x4000, 1u << take(in, 1) % 3); break;
	case 13:
		at = 0x34 + take(in, 1) % 0xc0;
		fake_pci_out(s, at, take(in, 4), 1u << take(in, 1) % 3);
		(void)fake_pci_in(s, at, 4);
		break;
	case 14: board_advance(&s->board, (uint64_t)take(in, 2) * 100000); break;
	case 15:
		fake_slot_pause(s);
		virtio_pci_resume(s->v);
		break;
	}
}

/* Another vCPU, that writes whatever it likes into the rings. */
struct scribbler {
	struct fake_slot *s;
	pthread_t thread;
	atomic_bool stop;
	unsigned seed;
};

__attribute__((no_sanitize("thread"))) static void *scribble(void *arg)
{
	struct scribbler *x = arg;
	uint8_t *rings = mem_span(x->s->mem, FAKE_RINGS, 4 * FAKE_RINGS_LEN);

	while (!atomic_load_explicit(&x->stop, memory_order_relaxed)) {
		uint32_t r = (uint32_t)rand_r(&x->seed) << 8 ^ (uint32_t)rand_r(&x->seed);
		/* The first entries of one of the three areas of one ring. */
		static const uint32_t area[] = {0, 0x4000, 0x5000};
		uint32_t at =
			(r & 3) * FAKE_RINGS_LEN + area[(r >> 2 & 0xff) % 3] + (r >> 10 & 0x7f);

		*(volatile uint8_t *)(rings + at) = r >> 24;
	}
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake_slot s;
	struct input in = {data, size};
	struct scribbler x = {.s = &s, .seed = size};
	const struct fake_maker *maker = fake_makers;
	struct client client = {.fd = -1};
	struct virtio_env env;
	struct loop *loop;
	unsigned which, count = 0;
	void *aux = NULL;
	bool race;

	if (size > 4096)
		return -1;
	while (fake_makers[count].name)
		count++;
	log_set_level(LOG_ERROR);
	which = take(&in, 1);
	race = which & 0x80;
	maker = &fake_makers[(which & 0x7f) % count];
	if (loop_new(&loop, NULL) < 0)
		abort();
	fake_slot_init(&s, loop, &env);
	fake_slot_add(&s, maker->make(&env, &aux));
	client.maker = maker;
	client.aux = aux;
	negotiate(&s, &in);
	if (race && pthread_create(&x.thread, NULL, scribble, &x))
		abort();
	while (in.left)
		step(&s, &client, &in);
	client_leaves(&client);
	atomic_store(&x.stop, true);
	if (race)
		pthread_join(x.thread, NULL);
	fake_slot_done(&s);
	if (maker->clean)
		maker->clean(aux);
	loop_free(loop);
	return 0;
}
