/* From the documents to a machine's config. */
#include "firecracker/fc_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define SIZE_BITS_MAX 50 /* more tokens are as good as no limit */

/* What Firecracker gives a kernel that is told nothing, without what stops PCI and modules. */
#define BOOT_ARGS_DEFAULT "reboot=k panic=1 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd"

/* --- rates --- */

static uint64_t rate_of(const struct fc_bucket *b)
{
	uint64_t size = min_u64(b->size, BIT(SIZE_BITS_MAX));

	return size && b->refill_time ? max_u64(size * 1000 / b->refill_time, 1) : 0;
}

static uint64_t once_of(const struct fc_bucket *b)
{
	return min_u64(b->one_time_burst, BIT(SIZE_BITS_MAX));
}

void fc_block_limits(const struct fc_limiter *from, struct block_limits *to)
{
	*to = (struct block_limits){
		.bps = rate_of(&from->bandwidth),
		.bps_burst = min_u64(from->bandwidth.size, BIT(SIZE_BITS_MAX)),
		.bps_once = once_of(&from->bandwidth),
		.iops = rate_of(&from->ops),
		.iops_burst = min_u64(from->ops.size, BIT(SIZE_BITS_MAX)),
		.iops_once = once_of(&from->ops),
	};
}

static struct net_rate net_rate_of(const struct fc_bucket *b)
{
	return (struct net_rate){rate_of(b), min_u64(b->size, BIT(SIZE_BITS_MAX)), once_of(b)};
}

void fc_net_limits(const struct fc_limiter *from, struct net_limits *to)
{
	to->bytes = net_rate_of(&from->bandwidth);
	to->frames = net_rate_of(&from->ops);
}

/* --- the kernel --- */

/* Appends text without the word pci=off, by which programs tell kernels that Firecracker's devices
 * are elsewhere than on PCI; ours are there. */
static void add_args(char *to, size_t max, const char *text)
{
	size_t len = strlen(to);

	while (*text) {
		size_t n = strcspn(text, " ");

		if (n == 7 && !memcmp(text, "pci=off", 7))
			log_info(
				"pci=off is left out of the kernel's words: Holon's devices are on "
				"PCI");
		else if (n && len + n + 2 < max)
			len += (size_t)snprintf(to + len, max - len, "%s%.*s", len ? " " : "",
						(int)n, text);
		text += n + (text[n] == ' ');
	}
}

static int boot_args(struct fc *f, const struct fc_boot *b, const struct fc_drive *root,
		     struct err *e)
{
	const char *args = b->boot_args ? b->boot_args : BOOT_ARGS_DEFAULT;
	size_t max = strlen(args) + 200;

	free(f->append);
	f->append = calloc(1, max);
	if (!f->append)
		return err_set(e, ENOMEM, "out of memory");
	add_args(f->append, max, args);
	if (root && root->partuuid && strlen(root->partuuid) < 100) {
		size_t len = strlen(f->append);

		snprintf(f->append + len, max - len, "%sroot=PARTUUID=%s", len ? " " : "",
			 root->partuuid);
	} else if (root) {
		add_args(f->append, max, "root=/dev/vda");
	}
	if (root)
		add_args(f->append, max, root->is_read_only ? "ro" : "rw");
	return 0;
}

static int config_boot(struct fc *f, struct machine_config *c, const struct fc_drive *root,
		       struct err *e)
{
	struct fc_boot b = {0};
	int r = fc_read(f->doc[FC_BOOT], fc_boot_options, &b, e);

	if (r == 0 && !b.kernel_image_path)
		r = err_set(e, EINVAL,
			    "Cannot start microvm without kernel configuration: boot-source is not "
			    "set.");
	if (r == 0)
		r = boot_args(f, &b, root, e);
	c->kernel = b.kernel_image_path;
	c->initrd = b.initrd_path;
	c->append = f->append;
	return r;
}

static int config_machine(struct fc *f, struct machine_config *c, struct err *e)
{
	struct fc_machine a = fc_machine_defaults;
	int r = fc_read(f->doc[FC_MACHINE], fc_machine_options, &a, e);

	c->cpus = (unsigned)a.vcpu_count;
	c->memory_bytes = MIB(a.mem_size_mib);
	return r;
}

/* --- disks: the root device comes first --- */

int fc_disk_number(const struct fc *f, const char *drive_id)
{
	json_t *one;
	size_t i, at;
	int root = -1;

	json_array_foreach(f->doc[FC_DRIVES], i,
			   one) if (json_is_true(json_object_get(one, "is_root_device"))) root =
		(int)i;
	if (!fc_find(f->doc[FC_DRIVES], "drive_id", drive_id, &at))
		return -1;
	if ((int)at == root)
		return 0;
	return (int)at + (root > (int)at);
}

static int config_disks(struct fc *f, struct machine_config *c, struct fc_drive *root,
			bool *has_root, struct err *e)
{
	json_t *one;
	size_t i;
	int r;

	json_array_foreach(f->doc[FC_DRIVES], i, one)
	{
		struct fc_drive d = {0};
		struct machine_disk *disk;

		if ((r = fc_read(one, fc_drive_options, &d, e)) < 0)
			return r;
		disk = &f->disk[fc_disk_number(f, d.drive_id)];
		*disk = (struct machine_disk){
			.image = {.file = d.path_on_host,
				  .format = "raw",
				  .read_only = d.is_read_only,
				  .cache = d.cache_type ? BLOCK_CACHE_WRITEBACK
							: BLOCK_CACHE_UNSAFE},
			.serial = strlen(d.drive_id) <= 20 ? d.drive_id : NULL,
		};
		fc_block_limits(&d.rate_limiter, &disk->image.limits);
		if (d.is_root_device) {
			*has_root = true;
			*root = d;
		}
	}
	c->disk = f->disk;
	c->disks = (unsigned)json_array_size(f->doc[FC_DRIVES]);
	return 0;
}

/* --- network cards --- */

static const char *after(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

/* A tap interface, or another of our networks: no interface's name has a colon. */
static void choose_wire(const char *dev, struct net_opts *net)
{
	const char *name;

	net->kind = NET_TAP;
	net->name = dev;
	if (!strcmp(dev, "user:")) {
		net->kind = NET_USER;
		net->name = NULL;
	} else if ((name = after(dev, "bridge:")) != NULL) {
		net->kind = NET_BRIDGE;
		net->name = name;
	} else if ((name = after(dev, "switch:")) != NULL) {
		net->kind = NET_SWITCH;
		net->name = name;
	}
}

static int config_mmds(struct fc *f, struct fc_mmds *m, struct err *e)
{
	struct in_addr in = {0};
	int r = fc_read(f->doc[FC_MMDS], fc_mmds_options, m, e);

	if (r < 0)
		return r;
	inet_pton(AF_INET, m->ipv4_address ? m->ipv4_address : "169.254.169.254", &in);
	mmds_service(f->mmds, &f->service);
	f->service.address = ntohl(in.s_addr);
	return 0;
}

static bool is_listed(const struct option_list *l, const char *name)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!strcmp(l->value[i], name))
			return true;
	return false;
}

static int config_nets(struct fc *f, struct machine_config *c, struct err *e)
{
	struct fc_mmds mmds = {0};
	json_t *one;
	size_t i;
	int r = config_mmds(f, &mmds, e);

	json_array_foreach(f->doc[FC_NETS], i, one)
	{
		struct fc_net a = {0};
		struct machine_net *n = &f->net[i];

		*n = (struct machine_net){0};
		if (r < 0 || (r = fc_read(one, fc_net_options, &a, e)) < 0)
			return r;
		choose_wire(a.host_dev_name, &n->net);
		n->net.mtu = (uint16_t)a.mtu;
		fc_net_limits(&a.rx_rate_limiter, &n->net.rx);
		fc_net_limits(&a.tx_rate_limiter, &n->net.tx);
		if (is_listed(&mmds.network_interfaces, a.iface_id))
			n->net.service = &f->service;
		n->has_mac = a.guest_mac;
		if (a.guest_mac && (r = net_mac_parse(a.guest_mac, n->mac, e)) < 0)
			return r;
	}
	c->net = f->net;
	c->nets = (unsigned)json_array_size(f->doc[FC_NETS]);
	return r;
}

/* --- the rest --- */

static int config_small(struct fc *f, struct machine_config *c, struct err *e)
{
	struct fc_balloon b = {0};
	struct fc_vsock v = {0};
	int r = fc_read(f->doc[FC_BALLOON], fc_balloon_options, &b, e);

	c->no_balloon = !f->doc[FC_BALLOON];
	c->balloon_bytes = MIB(b.amount_mib);
	if (r == 0)
		r = fc_read(f->doc[FC_VSOCK], fc_vsock_options, &v, e);
	c->vsock = v.uds_path;
	c->vsock_cid = v.guest_cid;
	return r;
}

int fc_config(struct fc *f, struct machine_config *c, struct err *e)
{
	struct fc_drive root = {0};
	bool has_root = false;
	int r = config_machine(f, c, e);

	if (r == 0)
		r = config_disks(f, c, &root, &has_root, e);
	if (r == 0)
		r = config_boot(f, c, has_root ? &root : NULL, e);
	if (r == 0)
		r = config_nets(f, c, e);
	if (r == 0)
		r = config_small(f, c, e);
	c->keyboard = true; /* for SendCtrlAltDel */
	c->no_reboot = true;
	if (f->serial.fd >= 0)
		c->serial_out = &f->serial.sink;
	return r;
}
