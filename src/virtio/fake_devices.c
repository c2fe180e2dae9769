#include "virtio/fake_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

static void need(int r)
{
	if (r < 0)
		abort();
}

static struct virtio_device *make_rng(const struct virtio_env *env, void **aux)
{
	struct virtio_device *d;

	need(virtio_rng_new(&d, env, NULL));
	return d;
}

/* --- net: a wire that leads back --- */

static bool send_back(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
		      unsigned n)
{
	p->peer->ops->take(p->peer, h, iov, n);
	return true;
}

static void ignore(struct net_port *p)
{
}

static const struct net_port_ops mirror_ops = {.take = send_back, .room = ignore};

static struct virtio_device *make_net(const struct virtio_env *env, void **aux)
{
	static const struct virtio_net_opts opts = {
		.mac = {2, 0, 0, 0, 0, 1}, .pairs = 2, .mtu = 1400};
	struct net_port *mirror = calloc(1, sizeof *mirror);
	struct virtio_device *d;

	mirror->ops = &mirror_ops;
	mirror->caps = NET_CAP_CSUM;
	need(virtio_net_new(&d, env, &opts, NULL));
	net_connect(virtio_net_port(d), mirror);
	*aux = mirror;
	return d;
}

/* --- vsock: a socket of its own in the temporary folder --- */

static struct virtio_device *make_vsock(const struct virtio_env *env, void **aux)
{
	struct virtio_device *d;
	char *dir = strdup("/tmp/holon-vsock.XXXXXX");
	char path[64];

	need(mkdtemp(dir) ? 0 : -1);
	snprintf(path, sizeof path, "%s/s", dir);
	need(virtio_vsock_new(&d, env, path, VSOCK_CID_DEFAULT, NULL));
	*aux = dir;
	return d;
}

static void clean_vsock(void *aux)
{
	rmdir(aux);
	free(aux);
}

const struct fake_maker fake_makers[] = {
	{"rng", make_rng},
	{"net", make_net, free},
	{"vsock", make_vsock, clean_vsock, .tells = true},
	{0},
};
