/* plug_args: disks and network cards as people and programs describe them: to 'holon run', and to a VM
 * that runs. One table for both. */
#pragma once

#include "api/option.h"
#include "machine/machine.h"

struct disk_args {
	const char *file;
	struct option_list opened; /* names of the files whose descriptors come with the request */
	int format, cache, aio, bus;
	bool ro, discard;
	const char *serial;
	uint64_t bps, bps_burst;
	unsigned iops, iops_burst, queues;
};
extern const struct option attach_disk_options[];
extern const struct disk_args disk_defaults;
#define disk_parts (attach_disk_options + 2) /* those behind FILE in --disk FILE,... */

/* Texts stay a's. */
WARN_UNUSED int disk_args_fill(struct machine_disk *d, const struct disk_args *a, struct err *e);

struct net_args {
	const char *net; /* "user", "tap=tap0" */
	const char *mac, *tftp, *bootfile;
	bool restricted, uplink;
	unsigned mtu, queues;
	uint64_t rx, tx;
};
extern const struct option attach_net_options[];
extern const struct net_args net_defaults;
#define net_parts (attach_net_options + 1)

WARN_UNUSED int net_args_fill(struct machine_net *n, const struct net_args *a, struct err *e);
