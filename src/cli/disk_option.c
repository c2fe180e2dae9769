#include "cli/disk_option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suboptions.h"

/* In the order of enum block_cache and enum block_engine (block/block.h), and enum disk_bus
 * (machine/machine.h). */
#define CACHES  "none|writeback|writethrough|unsafe"
#define ENGINES "auto|io_uring|threads"
#define FORMATS "raw|qcow2"
#define BUSES   "virtio|ata"

struct parts {
	int format, cache, aio, bus;
	bool ro, discard;
	const char *serial;
	uint64_t bps, bps_burst;
	unsigned iops, iops_burst, queues;
};

#define AT(field) offsetof(struct parts, field)

const struct option disk_parts[] = {
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

static void fill(struct machine_disk *d, const struct parts *p, const char *file)
{
	static const char *const formats[] = {"raw", "qcow2"};

	*d = (struct machine_disk){
		.image = {.file = file,
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

static int check(const struct parts *p, struct err *e)
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

int disk_options_parse(struct disk_options *out, const struct option_list *list, struct err *e)
{
	for (unsigned i = 0; i < list->n; i++) {
		struct parts p = {.format = -1, .discard = true};
		const char *file;
		int r;

		if (i == MACHINE_DISKS_MAX)
			return err_set(e, EINVAL, "--disk: %u disks are the most", i);
		r = suboptions_parse(disk_parts, list->value[i], &file, &p, &out->storage[i], e);
		if (r < 0)
			return err_wrap(e, "--disk %.80s", list->value[i]);
		fill(&out->disk[i], &p, file);
		out->n = i + 1;
		if (check(&p, e) < 0)
			return err_wrap(e, "--disk %.80s", list->value[i]);
	}
	return 0;
}

void disk_options_done(struct disk_options *d)
{
	for (unsigned i = 0; i < d->n; i++)
		free(d->storage[i]);
}
