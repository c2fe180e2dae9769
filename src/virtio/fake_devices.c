#include "virtio/fake_devices.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "share/share.h"
#include "virtio/console.h"
#include "virtio/fs.h"
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

static int connect_vsock(void *aux)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof a.sun_path, "%s/s", (char *)aux);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void clean_vsock(void *aux)
{
	rmdir(aux);
	free(aux);
}

/* --- fs: a folder of its own in the temporary one --- */

static struct virtio_device *make_fs(const struct virtio_env *env, void **aux)
{
	struct share_opts o = {0};
	struct virtio_device *d;
	struct share *s;
	char *dir = strdup("/tmp/holon-fs.XXXXXX");

	need(mkdtemp(dir) ? 0 : -1);
	o.dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	need(share_new(&s, &o, NULL));
	need(virtio_fs_new(&d, env, s, "data", NULL));
	*aux = dir;
	return d;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static void clean_fs(void *aux)
{
	nftw(aux, remove_one, 64, FTW_DEPTH | FTW_PHYS);
	free(aux);
}

/* --- blk: a raw image in memory --- */

struct disk {
	int fd;
	struct block_ctx *ctx;
	struct block *block;
};

static struct virtio_device *make_blk(const struct virtio_env *env, void **aux)
{
	struct disk *k = calloc(1, sizeof *k);
	struct virtio_blk_opts opts = {.serial = "fake", .queues = 2, .discard = true};
	struct block_opts image = {.format = "raw", .cache = BLOCK_CACHE_UNSAFE, .no_lock = true};
	struct virtio_device *d;
	char path[64];

	k->fd = memfd_create("disk", MFD_CLOEXEC);
	need(ftruncate(k->fd, MIB(1)));
	snprintf(path, sizeof path, "/proc/self/fd/%d", k->fd);
	image.file = path;
	need(block_ctx_new(&k->ctx, env->loop, BLOCK_ENGINE_AUTO, NULL));
	need(block_open(&k->block, k->ctx, &image, NULL));
	opts.block = k->block;
	need(virtio_blk_new(&d, env, &opts, NULL));
	*aux = k;
	return d;
}

static void clean_blk(void *aux)
{
	struct disk *k = aux;

	need(block_close(k->block, NULL));
	block_ctx_free(k->ctx);
	close(k->fd);
	free(k);
}

/* --- console: one port is a console, or two that have names; what goes out comes in again --- */

struct echo_end {
	struct console_end end;
	uint8_t bytes[4096];
	uint64_t n;
};

static uint64_t echo_put(struct console_end *e, const struct iovec *iov, int n)
{
	struct echo_end *x = container_of(e, struct echo_end, end);
	uint64_t all = 0;

	for (int i = 0; i < n; i++) {
		uint64_t room = min_u64(iov[i].iov_len, sizeof x->bytes - x->n);

		memcpy(x->bytes + x->n, iov[i].iov_base, room);
		x->n += room;
		all += iov[i].iov_len; /* the rest is lost */
	}
	return all;
}

static uint64_t echo_get(struct console_end *e, const struct iovec *iov, int n)
{
	struct echo_end *x = container_of(e, struct echo_end, end);
	uint64_t all = 0;

	for (int i = 0; i < n; i++) {
		uint64_t len = min_u64(iov[i].iov_len, x->n);

		memcpy(iov[i].iov_base, x->bytes, len);
		memmove(x->bytes, x->bytes + len, x->n - len);
		x->n -= len;
		all += len;
	}
	return all;
}

static void echo_free(struct console_end *e)
{
	free(container_of(e, struct echo_end, end));
}

static const struct console_end_ops echo_ops = {echo_put, echo_get, echo_free};

static struct console_end *new_echo(void)
{
	struct echo_end *x = calloc(1, sizeof *x);

	x->end.ops = &echo_ops;
	return &x->end;
}

static struct virtio_device *make_console(const struct virtio_env *env, void **aux)
{
	const struct virtio_console_opts opts = {.console = new_echo()};
	struct virtio_device *d;

	need(virtio_console_new(&d, env, &opts, NULL));
	return d;
}

static struct virtio_device *make_ports(const struct virtio_env *env, void **aux)
{
	const struct console_port_opts port[] = {{"first", new_echo()}, {"second", new_echo()}};
	const struct virtio_console_opts opts = {.port = port, .ports = ARRAY_SIZE(port)};
	struct virtio_device *d;

	need(virtio_console_new(&d, env, &opts, NULL));
	return d;
}

static struct virtio_device *make_balloon(const struct virtio_env *env, void **aux)
{
	struct virtio_device *d;

	need(virtio_balloon_new(&d, env, KIB(64), NULL));
	return d;
}

const struct fake_maker fake_makers[] = {
	{"rng", make_rng},
	{"net", make_net, free},
	{"vsock", make_vsock, clean_vsock, connect_vsock, .tells = true},
	{"blk", make_blk, clean_blk},
	{"fs", make_fs, clean_fs},
	{"console", make_console, .echoes = true},
	{"ports", make_ports, .echoes = true},
	{"balloon", make_balloon},
	{0},
};
