/* The methods of Firecracker's API, as its OpenAPI description has them. The names are its
 * operationIds. */
#include "firecracker/fc_priv.h"

#include <errno.h>

/* --- what each takes --- */

#define BUCKET(field)                                                                              \
	{"size",                                                                                   \
	 OPT_WHOLE,                                                                                \
	 offsetof(struct fc_bucket, size),                                                         \
	 "N",                                                                                      \
	 "How many tokens it holds.",                                                              \
	 .required = true},                                                                        \
		{"refill_time",                                                                    \
		 OPT_WHOLE,                                                                        \
		 offsetof(struct fc_bucket, refill_time),                                          \
		 "MS",                                                                             \
		 "How long it takes to fill it.",                                                  \
		 .required = true},                                                                \
	{                                                                                          \
		"one_time_burst", OPT_WHOLE, offsetof(struct fc_bucket, one_time_burst), "N",      \
			"Tokens that are there at the beginning besides."                          \
	}

static const struct option bucket_options[] = {BUCKET(), {0}};

const struct option fc_limiter_options[] = {
	{"bandwidth", OPT_OBJECT, offsetof(struct fc_limiter, bandwidth), "", "A token is a byte.",
	 .parts = bucket_options},
	{"ops", OPT_OBJECT, offsetof(struct fc_limiter, ops), "",
	 "A token is a request, or a frame.", .parts = bucket_options},
	{0}};

#define LIMITER(type, member, help)                                                                \
	{                                                                                          \
#member, OPT_OBJECT, offsetof(type, member), "", help, .parts = fc_limiter_options \
	}
#define TEXT(type, member, help)                                                                   \
	{                                                                                          \
#member, OPT_TEXT, offsetof(type, member), "TEXT", help                            \
	}
#define NEED_TEXT(type, member, help)                                                              \
	{                                                                                          \
#member, OPT_TEXT, offsetof(type, member), "TEXT", help, .required = true          \
	}
#define FLAG(type, member, help)                                                                   \
	{                                                                                          \
#member, OPT_FLAG, offsetof(type, member), NULL, help                              \
	}
#define NEED_FLAG(type, member, help)                                                              \
	{                                                                                          \
#member, OPT_FLAG, offsetof(type, member), NULL, help, .required = true            \
	}
#define WHOLE(type, member, help)                                                                  \
	{                                                                                          \
#member, OPT_WHOLE, offsetof(type, member), "N", help                              \
	}
#define NEED_WHOLE(type, member, help)                                                             \
	{                                                                                          \
#member, OPT_WHOLE, offsetof(type, member), "N", help, .required = true            \
	}
#define CHOICE(type, member, list, help)                                                           \
	{                                                                                          \
#member, OPT_CHOICE, offsetof(type, member), list, help                            \
	}

const struct option fc_boot_options[] = {
	NEED_TEXT(struct fc_boot, kernel_image_path, "The kernel: an ELF file or a bzImage."),
	TEXT(struct fc_boot, initrd_path, "The initrd."),
	TEXT(struct fc_boot, boot_args, "The kernel's words."),
	{0}};
static const struct fc_boot boot_defaults = {0};

#define TEMPLATES "None|C3|T2|T2S|T2CL|T2A|V1N1"
#define PAGES     "None|Transparent|2M"
#define MACHINE_REST                                                                               \
	FLAG(struct fc_machine, smt, "Whether processors have two threads a core."),               \
		FLAG(struct fc_machine, track_dirty_pages, "For snapshots."),                      \
		CHOICE(struct fc_machine, cpu_template, TEMPLATES, "Which processor is shown."),   \
		CHOICE(struct fc_machine, huge_pages, PAGES, "What the memory consists of.")

const struct option fc_machine_options[] = {
	NEED_WHOLE(struct fc_machine, vcpu_count, "How many vCPUs."),
	NEED_WHOLE(struct fc_machine, mem_size_mib, "The memory, in MiB."),
	MACHINE_REST,
	{0}};
static const struct option machine_patch_options[] = {
	WHOLE(struct fc_machine, vcpu_count, "How many vCPUs."),
	WHOLE(struct fc_machine, mem_size_mib, "The memory, in MiB."),
	MACHINE_REST,
	{0}};
const struct fc_machine fc_machine_defaults = {.vcpu_count = 1, .mem_size_mib = 128};

const struct option fc_drive_options[] = {
	NEED_TEXT(struct fc_drive, drive_id, "Its name."),
	NEED_FLAG(struct fc_drive, is_root_device, "Whether the kernel finds its root there."),
	TEXT(struct fc_drive, path_on_host, "The file: a raw image."),
	FLAG(struct fc_drive, is_read_only, "Whether the guest cannot write to it."),
	TEXT(struct fc_drive, partuuid, "The partition of the root device that is the root."),
	CHOICE(struct fc_drive, cache_type, "Unsafe|Writeback",
	       "Whether a flush of the guest's reaches the host's disk."),
	CHOICE(struct fc_drive, io_engine, "Sync|Async", "Holon chooses it; both are taken."),
	LIMITER(struct fc_drive, rate_limiter, "Its limits."),
	TEXT(struct fc_drive, socket, "Of a vhost-user backend; not there."),
	{0}};
static const struct fc_drive drive_defaults = {0};
static const struct option drive_patch_options[] = {
	NEED_TEXT(struct fc_drive, drive_id, "Its name."),
	TEXT(struct fc_drive, path_on_host, "Another file, or the same when its size has changed."),
	LIMITER(struct fc_drive, rate_limiter, "Other limits."),
	{0}};

const struct option fc_net_options[] = {
	NEED_TEXT(struct fc_net, iface_id, "Its name."),
	NEED_TEXT(struct fc_net, host_dev_name,
		  "A tap interface; or user:, bridge:NAME or switch:NAME."),
	TEXT(struct fc_net, guest_mac, "The card's address."),
	WHOLE(struct fc_net, mtu, "Told to the guest."),
	LIMITER(struct fc_net, rx_rate_limiter, "To the guest."),
	LIMITER(struct fc_net, tx_rate_limiter, "From the guest."),
	{0}};
static const struct fc_net net_defaults = {0};
static const struct option net_patch_options[] = {
	NEED_TEXT(struct fc_net, iface_id, "Its name."),
	LIMITER(struct fc_net, rx_rate_limiter, "To the guest."),
	LIMITER(struct fc_net, tx_rate_limiter, "From the guest."),
	{0}};

const struct option fc_vsock_options[] = {
	NEED_WHOLE(struct fc_vsock, guest_cid, "The guest's address."),
	NEED_TEXT(struct fc_vsock, uds_path, "The Unix socket of the host's side."),
	TEXT(struct fc_vsock, vsock_id, "Not used."),
	{0}};
static const struct fc_vsock vsock_defaults = {0};

const struct option fc_balloon_options[] = {
	NEED_WHOLE(struct fc_balloon, amount_mib, "What the guest is to do without, in MiB."),
	NEED_FLAG(struct fc_balloon, deflate_on_oom, "Offered to the guest at all times."),
	WHOLE(struct fc_balloon, stats_polling_interval_s, "0: no statistics."),
	FLAG(struct fc_balloon, free_page_hinting, "Not there."),
	FLAG(struct fc_balloon, free_page_reporting, "On at all times."),
	{0}};
static const struct fc_balloon balloon_defaults = {0};
static const struct option balloon_patch_options[] = {
	NEED_WHOLE(struct fc_balloon, amount_mib, "What the guest is to do without, in MiB."), {0}};
static const struct option balloon_stats_options[] = {
	NEED_WHOLE(struct fc_balloon, stats_polling_interval_s, "In seconds."), {0}};

static const struct option entropy_options[] = {
	LIMITER(struct fc_device, rate_limiter, "Not there."), {0}};
static const struct option serial_options[] = {
	TEXT(struct fc_device, serial_out_path, "A file or a named pipe."),
	{"rate_limiter", OPT_OBJECT, offsetof(struct fc_device, bucket), "", "Not there.",
	 .parts = bucket_options},
	{0}};
static const struct fc_device device_defaults = {0};

static const struct option logger_options[] = {
	{"log_path", OPT_TEXT, offsetof(struct fc_output, path), "FILE", "A file or a named pipe."},
	TEXT(struct fc_output, level, "Off, Error, Warning, Info, Debug or Trace."),
	FLAG(struct fc_output, show_level, "Lines show it at all times."),
	FLAG(struct fc_output, show_log_origin, "Lines have none."),
	TEXT(struct fc_output, module, "Taken, and not looked at."),
	{0}};
static const struct option metrics_options[] = {
	{"metrics_path", OPT_TEXT, offsetof(struct fc_output, path), "FILE",
	 "A file or a named pipe.", .required = true},
	FLAG(struct fc_output, emit_id, "Whether lines have the VM's id."),
	{"properties", OPT_JSON, offsetof(struct fc_output, properties), "",
	 "An object of texts that lines have."},
	{0}};
static const struct fc_output output_defaults = {0};

const struct option fc_mmds_options[] = {
	{"network_interfaces", OPT_TEXT, offsetof(struct fc_mmds, network_interfaces), "TEXT",
	 "The cards whose guests can ask.", .repeats = true},
	CHOICE(struct fc_mmds, version, "V1|V2", "V2 wants tokens."),
	TEXT(struct fc_mmds, ipv4_address, "Default: 169.254.169.254."),
	FLAG(struct fc_mmds, imds_compat, "Answers are plain text whatever the guest accepts."),
	{0}};
static const struct fc_mmds mmds_defaults = {0};

static const struct option action_options[] = {
	{"action_type", OPT_CHOICE, offsetof(struct fc_word, word),
	 "InstanceStart|FlushMetrics|SendCtrlAltDel", "What is to be done.", .required = true},
	{0}};
static const struct option vm_options[] = {{"state", OPT_CHOICE, offsetof(struct fc_word, word),
					    "Paused|Resumed", "How it shall be.", .required = true},
					   {0}};
static const struct fc_word word_defaults = {0};

/* --- looking --- */

static int answer(struct api_reply *reply, json_t *j, struct err *e)
{
	reply->json = j;
	return j ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int get_instance(void *ctx, const struct api_call *call, const void *args,
			struct api_reply *reply, struct err *e)
{
	struct fc *f = ctx;
	struct control *c = atomic_load(&f->control);
	const char *state = !c ? "Not started" : control_paused(c) ? "Paused" : "Running";

	return answer(reply,
		      json_pack("{s:s, s:s, s:s, s:s}", "app_name", "Firecracker", "id", f->id,
				"state", state, "vmm_version", FC_API_VERSION),
		      e);
}

static int get_version(void *ctx, const struct api_call *call, const void *args,
		       struct api_reply *reply, struct err *e)
{
	return answer(reply, json_pack("{s:s}", "firecracker_version", FC_API_VERSION), e);
}

/* With what was not given. */
static json_t *machine_doc(const struct fc *f)
{
	json_t *doc = json_pack("{s:i, s:i, s:b, s:b, s:s}", "vcpu_count", 1, "mem_size_mib", 128,
				"smt", 0, "track_dirty_pages", 0, "huge_pages", "None");

	if (f->doc[FC_MACHINE])
		json_object_update(doc, f->doc[FC_MACHINE]);
	return doc;
}

static int get_machine(void *ctx, const struct api_call *call, const void *args,
		       struct api_reply *reply, struct err *e)
{
	return answer(reply, machine_doc(ctx), e);
}

static int get_config(void *ctx, const struct api_call *call, const void *args,
		      struct api_reply *reply, struct err *e)
{
	static const char *const names[] = {
		[FC_MACHINE] = NULL,    [FC_BOOT] = "boot-source",        [FC_BALLOON] = "balloon",
		[FC_VSOCK] = "vsock",   [FC_ENTROPY] = "entropy",         [FC_SERIAL] = "serial",
		[FC_LOGGER] = "logger", [FC_METRICS] = "metrics",         [FC_MMDS] = "mmds-config",
		[FC_DRIVES] = "drives", [FC_NETS] = "network-interfaces",
	};
	const struct fc *f = ctx;
	json_t *all = json_object();

	json_object_set_new(all, "machine-config", machine_doc(f));
	for (unsigned i = 0; i < FC_DOCS; i++)
		if (names[i] && f->doc[i])
			json_object_set_new(all, names[i], json_deep_copy(f->doc[i]));
	return answer(reply, all, e);
}

static int get_balloon(void *ctx, const struct api_call *call, const void *args,
		       struct api_reply *reply, struct err *e)
{
	const struct fc *f = ctx;

	if (!f->doc[FC_BALLOON])
		return err_set(e, EINVAL, "Device not found: no balloon device.");
	return answer(reply, json_deep_copy(f->doc[FC_BALLOON]), e);
}

/* --- the metadata service --- */

static int need_body(const struct api_call *call, struct err *e)
{
	return call->body ? 0 : err_set(e, EINVAL, "The body of the request is missing.");
}

static int put_mmds(void *ctx, const struct api_call *call, const void *args,
		    struct api_reply *reply, struct err *e)
{
	struct fc *f = ctx;
	int r = need_body(call, e);

	return r < 0 ? r : mmds_put(f->mmds, call->body, e);
}

static int patch_mmds(void *ctx, const struct api_call *call, const void *args,
		      struct api_reply *reply, struct err *e)
{
	struct fc *f = ctx;
	int r = need_body(call, e);

	return r < 0 ? r : mmds_patch(f->mmds, call->body, e);
}

static int get_mmds(void *ctx, const struct api_call *call, const void *args,
		    struct api_reply *reply, struct err *e)
{
	struct fc *f = ctx;

	return answer(reply, mmds_get(f->mmds), e);
}

/* --- what is not there --- */

static int no_snapshots(void *ctx, const struct api_call *call, const void *args,
			struct api_reply *reply, struct err *e)
{
	return err_set(e, ENOTSUP, "Holon has no snapshots yet.");
}

static int no_cpu_config(void *ctx, const struct api_call *call, const void *args,
			 struct api_reply *reply, struct err *e)
{
	return json_object_size(call->body)
		       ? err_set(e, ENOTSUP,
				 "Holon does not change single bits of CPUID and MSRs; 'holon run --cpu' "
				 "has models.")
		       : 0;
}

static int no_pmem(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	return err_set(e, ENOTSUP, "Holon has no pmem devices; a drive does.");
}

static int no_memory_hotplug(void *ctx, const struct api_call *call, const void *args,
			     struct api_reply *reply, struct err *e)
{
	return err_set(e, ENOTSUP,
		       "Holon does not serve hotplug of memory by this API; a balloon does.");
}

static int no_hinting(void *ctx, const struct api_call *call, const void *args,
		      struct api_reply *reply, struct err *e)
{
	return err_set(e, ENOTSUP,
		       "Holon has no hinting of free pages; they are reported at all times.");
}

/* --- the table --- */

#define ARGS(table, def) .args = table, .defaults = &(def), .args_size = sizeof(def)
#define LOOK             .right = RIGHT_VIEW, .type = API_TYPE_JSON, .schema = "{\"type\":\"object\"}"
#define DO               .right = RIGHT_OPERATE
#define NOT_THERE        .right = RIGHT_OPERATE, .any_body = true

const struct api_method fc_methods[] = {
	{.name = "describeInstance",
	 .verb = "GET",
	 .path = "/",
	 .summary = "Show what the VM is and how it does",
	 LOOK,
	 .run_call = get_instance},
	{.name = "getFirecrackerVersion",
	 .verb = "GET",
	 .path = "/version",
	 .summary = "Show which version of the API this is",
	 LOOK,
	 .run_call = get_version},
	{.name = "getExportVmConfig",
	 .verb = "GET",
	 .path = "/vm/config",
	 .summary = "Show all that is configured",
	 LOOK,
	 .run_call = get_config},
	{.name = "getMachineConfiguration",
	 .verb = "GET",
	 .path = "/machine-config",
	 .summary = "Show how large the VM is",
	 LOOK,
	 .run_call = get_machine},
	{.name = "putMachineConfiguration",
	 .verb = "PUT",
	 .path = "/machine-config",
	 .summary = "Say how large the VM is",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_machine_options, fc_machine_defaults),
	 .run_call = fc_put_machine},
	{.name = "patchMachineConfiguration",
	 .verb = "PATCH",
	 .path = "/machine-config",
	 .summary = "Change a part of that",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(machine_patch_options, fc_machine_defaults),
	 .run_call = fc_patch_machine},
	{.name = "putCpuConfiguration",
	 .verb = "PUT",
	 .path = "/cpu-config",
	 .summary = "Change the processor that is shown (not there)",
	 NOT_THERE,
	 .states = FC_BEFORE,
	 .run_call = no_cpu_config},
	{.name = "putGuestBootSource",
	 .verb = "PUT",
	 .path = "/boot-source",
	 .summary = "Say what is started",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_boot_options, boot_defaults),
	 .run_call = fc_put_boot},
	{.name = "putGuestDriveByID",
	 .verb = "PUT",
	 .path = "/drives/{drive_id}",
	 .summary = "Add a drive, or describe one anew",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_drive_options, drive_defaults),
	 .run_call = fc_put_drive},
	{.name = "patchGuestDriveByID",
	 .verb = "PATCH",
	 .path = "/drives/{drive_id}",
	 .summary = "Give a drive another file, or other limits",
	 DO,
	 .states = FC_AFTER,
	 ARGS(drive_patch_options, drive_defaults),
	 .run_call = fc_patch_drive},
	{.name = "putGuestNetworkInterfaceByID",
	 .verb = "PUT",
	 .path = "/network-interfaces/{iface_id}",
	 .summary = "Add a network card, or describe one anew",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_net_options, net_defaults),
	 .run_call = fc_put_net},
	{.name = "patchGuestNetworkInterfaceByID",
	 .verb = "PATCH",
	 .path = "/network-interfaces/{iface_id}",
	 .summary = "Give a network card other limits",
	 DO,
	 .states = FC_AFTER,
	 ARGS(net_patch_options, net_defaults),
	 .run_call = fc_patch_net},
	{.name = "putGuestVsock",
	 .verb = "PUT",
	 .path = "/vsock",
	 .summary = "Give the VM a vsock device",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_vsock_options, vsock_defaults),
	 .run_call = fc_put_vsock},
	{.name = "describeBalloonConfig",
	 .verb = "GET",
	 .path = "/balloon",
	 .summary = "Show how the balloon is configured",
	 LOOK,
	 .run_call = get_balloon},
	{.name = "putBalloon",
	 .verb = "PUT",
	 .path = "/balloon",
	 .summary = "Give the VM a balloon",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_balloon_options, balloon_defaults),
	 .run_call = fc_put_balloon},
	{.name = "patchBalloon",
	 .verb = "PATCH",
	 .path = "/balloon",
	 .summary = "Ask the guest for memory, or give it back",
	 DO,
	 .states = FC_AFTER,
	 ARGS(balloon_patch_options, balloon_defaults),
	 .run_call = fc_patch_balloon},
	{.name = "describeBalloonStats",
	 .verb = "GET",
	 .path = "/balloon/statistics",
	 .summary = "Show how the guest stands with its memory",
	 LOOK,
	 .states = FC_AFTER,
	 .run_call = fc_get_balloon_stats},
	{.name = "patchBalloonStatsInterval",
	 .verb = "PATCH",
	 .path = "/balloon/statistics",
	 .summary = "Say how often the guest is asked",
	 DO,
	 .states = FC_AFTER,
	 ARGS(balloon_stats_options, balloon_defaults),
	 .run_call = fc_patch_balloon_stats},
	{.name = "startBalloonHinting",
	 .verb = "PATCH",
	 .path = "/balloon/hinting/start",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_hinting},
	{.name = "describeBalloonHinting",
	 .verb = "GET",
	 .path = "/balloon/hinting/status",
	 .summary = "Not there",
	 LOOK,
	 .run_call = no_hinting},
	{.name = "stopBalloonHinting",
	 .verb = "PATCH",
	 .path = "/balloon/hinting/stop",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_hinting},
	{.name = "createSyncAction",
	 .verb = "PUT",
	 .path = "/actions",
	 .summary = "Start the VM, write its metrics, or press Ctrl-Alt-Del",
	 DO,
	 ARGS(action_options, word_defaults),
	 .run_call = fc_action},
	{.name = "patchVm",
	 .verb = "PATCH",
	 .path = "/vm",
	 .summary = "Pause the VM, or let it go on",
	 DO,
	 .states = FC_AFTER,
	 ARGS(vm_options, word_defaults),
	 .run_call = fc_patch_vm},
	{.name = "putLogger",
	 .verb = "PUT",
	 .path = "/logger",
	 .summary = "Say where the log goes, and how much",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(logger_options, output_defaults),
	 .run_call = fc_put_logger},
	{.name = "putMetrics",
	 .verb = "PUT",
	 .path = "/metrics",
	 .summary = "Say where metrics go",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(metrics_options, output_defaults),
	 .run_call = fc_put_metrics},
	{.name = "putMmdsConfig",
	 .verb = "PUT",
	 .path = "/mmds/config",
	 .summary = "Say who can reach the metadata service, and how",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(fc_mmds_options, mmds_defaults),
	 .run_call = fc_put_mmds_config},
	{.name = "getMmds",
	 .verb = "GET",
	 .path = "/mmds",
	 .summary = "Show the metadata",
	 LOOK,
	 .run_call = get_mmds},
	{.name = "putMmds",
	 .verb = "PUT",
	 .path = "/mmds",
	 .summary = "Set the metadata",
	 DO,
	 .any_body = true,
	 .run_call = put_mmds},
	{.name = "patchMmds",
	 .verb = "PATCH",
	 .path = "/mmds",
	 .summary = "Change a part of the metadata",
	 DO,
	 .any_body = true,
	 .run_call = patch_mmds},
	{.name = "putEntropyDevice",
	 .verb = "PUT",
	 .path = "/entropy",
	 .summary = "Give the VM random numbers; it has them at all times",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(entropy_options, device_defaults),
	 .run_call = fc_put_entropy},
	{.name = "putSerialDevice",
	 .verb = "PUT",
	 .path = "/serial",
	 .summary = "Say where the serial port's output goes",
	 DO,
	 .states = FC_BEFORE,
	 ARGS(serial_options, device_defaults),
	 .run_call = fc_put_serial},
	{.name = "createSnapshot",
	 .verb = "PUT",
	 .path = "/snapshot/create",
	 .summary = "Not there yet",
	 NOT_THERE,
	 .states = FC_AFTER,
	 .run_call = no_snapshots},
	{.name = "loadSnapshot",
	 .verb = "PUT",
	 .path = "/snapshot/load",
	 .summary = "Not there yet",
	 NOT_THERE,
	 .states = FC_BEFORE,
	 .run_call = no_snapshots},
	{.name = "putGuestPmemByID",
	 .verb = "PUT",
	 .path = "/pmem/{id}",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_pmem},
	{.name = "patchGuestPmemByID",
	 .verb = "PATCH",
	 .path = "/pmem/{id}",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_pmem},
	{.name = "putMemoryHotplug",
	 .verb = "PUT",
	 .path = "/hotplug/memory",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_memory_hotplug},
	{.name = "patchMemoryHotplug",
	 .verb = "PATCH",
	 .path = "/hotplug/memory",
	 .summary = "Not there",
	 NOT_THERE,
	 .run_call = no_memory_hotplug},
	{.name = "getMemoryHotplug",
	 .verb = "GET",
	 .path = "/hotplug/memory",
	 .summary = "Not there",
	 LOOK,
	 .run_call = no_memory_hotplug},
};
const unsigned fc_methods_count = ARRAY_SIZE(fc_methods);
