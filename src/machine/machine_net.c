/* The network cards, each with the backend that its wire leads to, and an I/O thread that both
 * live on. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "virtio/net.h"

/* What make_card is given. */
struct card {
	struct machine *m;
	const struct machine_net *config;
	unsigned n;
};

static void warn(void *ctx, const char *text)
{
	const struct machine *m = ctx;

	log_warn("%s: %s", m->name, text);
}

static int make_card(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		     struct err *e)
{
	const struct card *card = opts;
	struct virtio_net_opts o = {.pairs = card->config->queues, .mtu = card->config->net.mtu};
	struct net_opts net = card->config->net;
	struct virtio_device *d;
	int r;

	if (card->config->has_mac)
		memcpy(o.mac, card->config->mac, sizeof o.mac);
	else
		net_mac(o.mac, card->m->name, card->n);
	net.vm = card->m->name;
	net.warn = warn;
	net.warn_ctx = card->m;
	r = virtio_net_new(&d, env, &o, e);
	if (r < 0)
		return r;
	d->instance = card->n;
	r = net_backend_new(&card->m->wire[card->n], virtio_net_port(d), &net, env->loop, e);
	if (r < 0)
		d->type->free(d);
	else
		*out = d;
	return r;
}

int machine_make_nets(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r = 0;

	if (c->nets > MACHINE_NETS_MAX)
		return err_set(e, EINVAL, "at most %u network cards are possible",
			       MACHINE_NETS_MAX);
	for (unsigned i = 0; i < c->nets && r == 0; i++)
		r = machine_add_net(m, i, &c->net[i], e);
	return r;
}

int machine_add_net(struct machine *m, unsigned n, const struct machine_net *c, struct err *e)
{
	struct card card = {m, c, n};
	char thread[16];

	snprintf(thread, sizeof thread, "net%u", n);
	return machine_add_virtio(m, SLOT_NET + n, THREAD_NET, thread, make_card, &card, e);
}

struct new_limits {
	struct loop_call call;
	struct net_port *wire;
	struct net_limits rx, tx;
};

static void set_limits(struct loop_call *call)
{
	struct new_limits *n = container_of(call, struct new_limits, call);

	net_backend_set_limits(n->wire, &n->rx, &n->tx);
	free(n);
}

/* On the card's I/O thread, which nobody waits for: it may be busy. */
int machine_set_net_limits(struct machine *m, unsigned card, const struct net_limits *rx,
			   const struct net_limits *tx, struct err *e)
{
	struct new_limits *n;

	if (card >= MACHINE_NETS_MAX || !m->wire[card] || machine_plug_leaves(m, SLOT_NET + card))
		return err_set(e, ENOENT, "there is no network card %u; the first is 0", card);
	n = calloc(1, sizeof *n);
	if (!n)
		return err_set(e, ENOMEM, "out of memory");
	*n = (struct new_limits){{.run = set_limits}, m->wire[card], *rx, *tx};
	loop_post(virtio_pci_virtio(m->virtio[SLOT_NET + card])->env.loop, &n->call);
	return 0;
}

void machine_free_wires(struct machine *m)
{
	for (unsigned i = 0; i < MACHINE_NETS_MAX; i++)
		net_backend_free(m->wire[i]);
}
