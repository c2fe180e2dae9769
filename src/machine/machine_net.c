/* The network cards, each with the backend that its wire leads to, and an I/O thread that both
 * live on. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
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

void machine_free_wires(struct machine *m)
{
	for (unsigned i = 0; i < MACHINE_NETS_MAX; i++)
		net_backend_free(m->wire[i]);
}
