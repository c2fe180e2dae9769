/* fc_priv: what the files of Firecracker's API share.
 *
 *   fc.c          its life; files that stand for requests
 *   fc_methods.c  the table of methods
 *   fc_configure.c  what is asked before the start: checks, and the documents
 *   fc_machine.c  from the documents to a machine's config
 *   fc_live.c     what is asked of a VM that runs
 *   fc_metrics.c  the file of metrics
 *   mmds.c        the metadata service: what it has, and its answers to the guest */
#pragma once

#include <stdatomic.h>

#include "firecracker/firecracker.h"
#include "firecracker/mmds.h"

/* When a method can be asked. */
enum { FC_BEFORE = 1, FC_AFTER = 2 };

/* What is configured, as documents; [0..FC_SINGLE) have a path without a name. */
enum fc_doc {
	FC_MACHINE,
	FC_BOOT,
	FC_BALLOON,
	FC_VSOCK,
	FC_ENTROPY,
	FC_SERIAL,
	FC_LOGGER,
	FC_METRICS,
	FC_MMDS,
	FC_SINGLE,
	FC_DRIVES = FC_SINGLE, /* arrays */
	FC_NETS,
	FC_DOCS
};

#define FC_ADDRESS_LEN 16

struct fc_serial {
	struct byte_sink sink;
	int fd;
};

struct fc_metrics {
	int fd; /* -1: there is no file */
	bool emit_id;
	json_t *properties; /* or NULL */
	struct machine_stats before;
	struct mmds_counts mmds_before;
	struct loop_fd tick; /* a timerfd */
	struct machine *machine;
};

struct fc {
	char id[65];
	struct api_table table;
	struct fc_host *host;
	_Atomic(struct control *) control; /* NULL: it does not run */
	atomic_bool starting;
	json_t *doc[FC_DOCS];     /* NULL: not given */
	pthread_mutex_t doc_lock; /* once it runs, the loop thread looks at the lists, too */
	struct mmds *mmds;
	struct fc_serial serial;
	struct fc_metrics metrics;

	/* What a machine's config points to. */
	char *append;
	struct machine_disk disk[MACHINE_DISKS_MAX];
	struct machine_net net[MACHINE_NETS_MAX];
	struct net_service service;
};

extern const struct api_method fc_methods[];
extern const unsigned fc_methods_count;

/* --- arguments, and the documents, in C --- */

struct fc_bucket {
	uint64_t size, one_time_burst, refill_time; /* refill_time: milliseconds */
};
struct fc_limiter {
	struct fc_bucket bandwidth, ops;
};
struct fc_boot {
	const char *kernel_image_path, *initrd_path, *boot_args;
};
#define FC_KEEP UINT64_MAX /* not given */
struct fc_machine {
	uint64_t vcpu_count, mem_size_mib;
	bool smt, track_dirty_pages;
	int cpu_template, huge_pages;
};
struct fc_drive {
	const char *drive_id, *path_on_host, *partuuid, *socket;
	bool is_root_device, is_read_only;
	int cache_type, io_engine;
	struct fc_limiter rate_limiter;
};
struct fc_net {
	const char *iface_id, *host_dev_name, *guest_mac;
	uint64_t mtu;
	struct fc_limiter rx_rate_limiter, tx_rate_limiter;
};
struct fc_vsock {
	const char *uds_path, *vsock_id;
	uint64_t guest_cid;
};
struct fc_balloon {
	uint64_t amount_mib, stats_polling_interval_s;
	bool deflate_on_oom, free_page_hinting, free_page_reporting;
};
struct fc_device { /* entropy, serial */
	const char *serial_out_path;
	struct fc_limiter rate_limiter;
	struct fc_bucket bucket;
};
struct fc_output { /* logger, metrics */
	const char *path, *level, *module;
	bool show_level, show_log_origin, emit_id;
	json_t *properties;
};
struct fc_mmds {
	struct option_list network_interfaces;
	int version;
	const char *ipv4_address;
	bool imds_compat;
};
struct fc_word { /* of an action or a state */
	int word;
};

extern const struct option fc_limiter_options[], fc_boot_options[], fc_machine_options[],
	fc_drive_options[], fc_net_options[], fc_vsock_options[], fc_balloon_options[],
	fc_mmds_options[];
extern const struct fc_machine fc_machine_defaults;

/* The document number n as the struct that table describes, over what is in *to. */
WARN_UNUSED int fc_read(const json_t *doc, const struct option *table, void *to, struct err *e);
/* Of an array of documents, the one whose member id has that value; NULL: none. *at: its place. */
json_t *fc_find(const json_t *array, const char *member, const char *id, size_t *at);
void fc_set(struct fc *f, enum fc_doc n, json_t *doc); /* takes doc over */

typedef int fc_method_fn(void *ctx, const struct api_call *call, const void *args,
			 struct api_reply *reply, struct err *e);
/* fc_configure.c */
fc_method_fn fc_put_boot, fc_put_machine, fc_patch_machine, fc_put_drive, fc_put_net, fc_put_vsock,
	fc_put_balloon, fc_put_entropy, fc_put_serial, fc_put_logger, fc_put_metrics,
	fc_put_mmds_config;
/* fc_live.c */
fc_method_fn fc_action, fc_patch_vm, fc_patch_drive, fc_patch_net, fc_patch_balloon,
	fc_patch_balloon_stats, fc_get_balloon_stats;

/* fc_machine.c */
/* The place of a drive among the machine's disks: the root device is the first. -1: none. */
int fc_disk_number(const struct fc *f, const char *drive_id);
void fc_block_limits(const struct fc_limiter *from, struct block_limits *to);
void fc_net_limits(const struct fc_limiter *from, struct net_limits *to);

/* fc_metrics.c */
WARN_UNUSED int fc_metrics_write(struct fc *f, struct machine *m, struct err *e); /* loop thread */
WARN_UNUSED int fc_open_output(const char *path, struct err *e);
WARN_UNUSED int fc_metrics_tick(struct fc *f, struct machine *m, struct err *e);
void fc_metrics_stop(struct fc *f); /* the loop is gone */
void fc_metrics_done(struct fc *f);
/* An element of a list, while the machine runs; takes doc over. */
void fc_replace(struct fc *f, enum fc_doc list, size_t at, json_t *doc);
