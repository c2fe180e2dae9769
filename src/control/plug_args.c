#include "control/plug_args.h"

#include <errno.h>
#include <string.h>

#define MTU_MIN    68u
#define MTU_MAX    65521u
#define QUEUES_MAX 16u

/* In the order of enum block_cache and enum block_engine (block/block.h), and enum disk_bus
 * (machine/machine.h). */
#define CACHES  "none|writeback|writethrough|unsafe"
#define ENGINES "auto|io_uring|threads"
#define FORMATS "raw|qcow2"
#define BUSES   "virtio|ata"

#define AT(field) offsetof(struct disk_args, field)

const struct option attach_disk_options[] = {
	{"file", OPT_TEXT, AT(file), "FILE", "An image file, a block device or an NBD URI.",
	 .required = true},
	{"opened", OPT_TEXT, AT(opened), "FILE",
	 "The name, as file or a backing file has it, of a file whose descriptor comes with the request "
	 "(SCM_RIGHTS), in their order. Others are opened by the VM, which it may not be able to.",
	 .repeats = true},
	{"format", OPT_CHOICE, AT(format), FORMATS, "Default: by what FILE begins with."},
	{"bus", OPT_CHOICE, AT(bus), BUSES,
	 "What the guest needs a driver for: virtio, or ata (SATA, up to 4 disks, /dev/sda and so on), "
	 "which every system has. Default: virtio, which is quicker."},
	{"ro", OPT_FLAG, AT(ro), NULL, "The guest can only read."},
	{"cache", OPT_CHOICE, AT(cache), CACHES,
	 "none: past the host's page cache. writeback: through it. With both, what the guest "
	 "flushed is safe. writethrough: every write is, before the guest hears that it is done. "
	 "unsafe: flushes are ignored; a crash of the host can ruin the disk. Default: none."},
	{"serial", OPT_TEXT, AT(serial), "TEXT",
	 "The disk's serial number, at most 20 bytes: /dev/disk/by-id/virtio-TEXT or "
	 "ata-Holon_disk_TEXT."},
	{"bps", OPT_SIZE, AT(bps), "SIZE", "At most so many bytes a second, reads and writes."},
	{"bps-burst", OPT_SIZE, AT(bps_burst), "SIZE",
	 "What may be saved up for a burst. Default: a tenth of a second's."},
	{"iops", OPT_COUNT, AT(iops), "N", "At most so many requests a second."},
	{"iops-burst", OPT_COUNT, AT(iops_burst), "N", "Likewise for requests."},
	{"discard", OPT_FLAG, AT(discard), "on|off",
	 "Whether what the guest discards is given back to the host. Default: on."},
	{"aio", OPT_CHOICE, AT(aio), ENGINES,
	 "How the host does it. Default: auto, io_uring where it is allowed, else threads."},
	{"queues", OPT_COUNT, AT(queues), "N",
	 "How many request queues, up to 16. Default: one for each vCPU, but at most 4."},
	{0}};

const struct disk_args disk_defaults = {.format = -1, .discard = true};

static void fill(struct machine_disk *d, const struct disk_args *p)
{
	static const char *const formats[] = {"raw", "qcow2"};

	*d = (struct machine_disk){
		.image = {.file = p->file,
			  .format = p->format < 0 ? NULL : formats[p->format],
			  .read_only = p->ro,
			  .cache = (enum block_cache)p->cache,
			  .discard = p->discard,
			  .limits = {.bps = p->bps,
				     .iops = p->iops,
				     .bps_burst = p->bps_burst,
				     .iops_burst = p->iops_burst}},
		.serial = p->serial,
		.aio = (enum block_engine)p->aio,
		.bus = (enum disk_bus)p->bus,
		.queues = p->queues,
	};
}

static int check(const struct disk_args *p, struct err *e)
{
	if (p->bus != DISK_ATA)
		return 0;
	if (p->ro)
		return err_set(e, EINVAL, "ro: ATA has no read-only disks; leave out bus=ata");
	if (p->queues)
		return err_set(e, EINVAL, "queues: an ATA disk has one; leave it out");
	if (p->serial && strlen(p->serial) > 20)
		return err_set(e, EINVAL, "serial: at most 20 bytes");
	return 0;
}

int disk_args_fill(struct machine_disk *d, const struct disk_args *a, struct err *e)
{
	fill(d, a);
	return check(a, e);
}

/* --- network cards --- */

#undef AT
#define AT(field) offsetof(struct net_args, field)
const struct option attach_net_options[] = {
	{"net", OPT_TEXT, AT(net), "user|tap[=NAME]|bridge=NAME|switch=NAME",
	 "Where its wire leads. A tap's descriptor may come with the request.", .required = true},
	{"mac", OPT_TEXT, AT(mac), "ADDRESS", "Its address. Default: made from the VM's name."},
	{"mtu", OPT_COUNT, AT(mtu), "N", "The largest frame that it takes."},
	{"queues", OPT_COUNT, AT(queues), "N", "Pairs of queues. Default: 1."},
	{"rx", OPT_SIZE, AT(rx), "RATE", "At most so many bytes a second to the guest."},
	{"tx", OPT_SIZE, AT(tx), "RATE", "At most so many bytes a second from the guest."},
	{"restrict", OPT_FLAG, AT(restricted), NULL,
	 "user: the guest gets nowhere but to what is published."},
	{"uplink", OPT_FLAG, AT(uplink), NULL, "switch: it also leads to user-mode NAT."},
	{"tftp", OPT_TEXT, AT(tftp), "DIR",
	 "user: a directory whose files the guest gets by TFTP."},
	{"bootfile", OPT_TEXT, AT(bootfile), "FILE", "user: which of them DHCP names."},
	{0}};

const struct net_args net_defaults = {0};

static const struct {
	const char *name;
	enum net_kind kind;
	bool may_have_name, must_have_name;
} kinds[] = {
	{"user", NET_USER, false, false},
	{"tap", NET_TAP, true, false},
	{"bridge", NET_BRIDGE, true, true},
	{"switch", NET_SWITCH, true, true},
};

/* "user", "tap=tap0" */
static int set_kind(struct net_opts *o, const char *first, struct err *e)
{
	size_t len = strcspn(first, "=");

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strlen(kinds[i].name) != len || strncmp(kinds[i].name, first, len))
			continue;
		o->kind = kinds[i].kind;
		o->name = first[len] && first[len + 1] ? first + len + 1 : NULL;
		if (o->name && !kinds[i].may_have_name)
			return err_set(e, EINVAL, "'%s' takes no name", kinds[i].name);
		if (!o->name && kinds[i].must_have_name)
			return err_set(e, EINVAL, "'%s' wants a name: %s=NAME", kinds[i].name,
				       kinds[i].name);
		return 0;
	}
	return err_set(e, EINVAL, "'%.*s' is no kind of network: user, tap, bridge, switch or none",
		       (int)len, first);
}

static int set_parts(struct machine_net *n, const struct net_args *p, struct err *e)
{
	if (p->restricted && n->net.kind != NET_USER)
		return err_set(e, EINVAL, "restrict is for 'user'");
	if ((p->tftp || p->bootfile) && n->net.kind != NET_USER)
		return err_set(e, EINVAL, "tftp and bootfile are for 'user'");
	if (p->bootfile && !p->tftp)
		return err_set(e, EINVAL, "bootfile: say with tftp=DIR where it is");
	if (p->uplink && n->net.kind != NET_SWITCH)
		return err_set(e, EINVAL, "uplink is for 'switch'");
	if (p->mtu && (p->mtu < MTU_MIN || p->mtu > MTU_MAX))
		return err_set(e, EINVAL, "mtu: from %u to %u", MTU_MIN, MTU_MAX);
	if (p->queues > QUEUES_MAX)
		return err_set(e, EINVAL, "queues: at most %u", QUEUES_MAX);
	n->net.restricted = p->restricted;
	n->net.uplink = p->uplink;
	n->net.tftp = p->tftp;
	n->net.bootfile = p->bootfile;
	n->net.mtu = (uint16_t)p->mtu;
	n->net.rx.bytes.rate = p->rx;
	n->net.tx.bytes.rate = p->tx;
	n->queues = (uint16_t)p->queues;
	n->has_mac = p->mac;
	return p->mac ? net_mac_parse(p->mac, n->mac, e) : 0;
}

int net_args_fill(struct machine_net *n, const struct net_args *a, struct err *e)
{
	int r = set_kind(&n->net, a->net, e);

	return r < 0 ? r : set_parts(n, a, e);
}
