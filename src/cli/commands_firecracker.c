/* The command that takes Firecracker's place: its options are that program's own. */
#include "cli/cli.h"

#include <errno.h>

#include "firecracker/firecracker.h"

#define O(name) offsetof(struct firecracker_opts, name)

static const struct option options[] = {
	{"api-sock", OPT_FILE, O(api_sock), "PATH",
	 "Where the API's socket is made. Default: /run/firecracker.socket."},
	{"config-file", OPT_FILE, O(config_file), "FILE",
	 "Configure the VM from a JSON file, and start it."},
	{"no-api", OPT_FLAG, O(no_api), NULL, "Make no API socket; with --config-file."},
	{"id", OPT_TEXT, O(id), "ID", "The VM's name. Default: anonymous-instance."},
	{"metadata", OPT_FILE, O(metadata), "FILE",
	 "What the metadata service has at first, in JSON."},
	{"mmds-size-limit", OPT_WHOLE, O(mmds_size_limit), "BYTES",
	 "How much the metadata service may hold. Default: as for the next."},
	{"http-api-max-payload-size", OPT_WHOLE, O(http_api_max_payload_size), "BYTES",
	 "The most that the body of a request may have. Default: 51200."},
	{"log-path", OPT_FILE, O(log_path), "FILE", "Where the log goes. Default: standard error."},
	{"level", OPT_TEXT, O(level), "LEVEL",
	 "How much is logged: Off, Error, Warning, Info, Debug or Trace."},
	{"show-level", OPT_FLAG, O(show_level), NULL,
	 "Taken; lines show their level at all times."},
	{"show-log-origin", OPT_FLAG, O(show_log_origin), NULL, "Taken; lines have none."},
	{"module", OPT_TEXT, O(module), "NAME", "Taken, and not looked at."},
	{"metrics-path", OPT_FILE, O(metrics_path), "FILE", "Where metrics go."},
	{"enable-pci", OPT_FLAG, O(enable_pci), NULL,
	 "Taken; Holon's devices are on PCI at all times."},
	{"boot-timer", OPT_FLAG, O(boot_timer), NULL, "Taken; there is no such device."},
	{"no-seccomp", OPT_FLAG, O(no_seccomp), NULL, "Taken; there are none here."},
	{"seccomp-filter", OPT_FILE, O(seccomp_filter), "FILE",
	 "Refused: filters for Firecracker's threads do not fit Holon's."},
	{"start-time-us", OPT_WHOLE, O(start_time_us), "US", "Taken, and not looked at."},
	{"start-time-cpu-us", OPT_WHOLE, O(start_time_cpu_us), "US", "The same."},
	{"parent-cpu-time-us", OPT_WHOLE, O(parent_cpu_time_us), "US", "The same."},
	{"describe-snapshot", OPT_FILE, O(describe_snapshot), "FILE",
	 "Refused: there are no snapshots yet."},
	{"snapshot-version", OPT_FLAG, O(snapshot_version), NULL, "The same."},
	{"version", OPT_FLAG, O(version), NULL, "Show which version of Firecracker's API this is."},
	{"engine", OPT_CHOICE, O(engine), "auto|jit|kvm", "As of 'holon run'."},
	{"force", OPT_FLAG, O(force), NULL, "Likewise."},
	{0}};
static const struct firecracker_opts defaults = {.id = FC_ID_DEFAULT,
						 .api_sock = "/run/firecracker.socket"};

static int check(const void *opts, int words, char **word, struct err *e)
{
	const struct firecracker_opts *o = opts;

	if (o->seccomp_filter)
		return err_set(
			e, ENOTSUP,
			"--seccomp-filter: filters for Firecracker's threads do not fit Holon's, "
			"which has its own; leave it out");
	if (o->describe_snapshot || o->snapshot_version)
		return err_set(e, ENOTSUP, "Holon has no snapshots yet");
	if (o->no_api && !o->config_file)
		return err_set(e, EINVAL,
			       "--no-api needs --config-file: nobody could start the VM");
	return 0;
}

const struct command firecracker_command = {
	.name = "firecracker",
	.summary = "Serve Firecracker's API for a VM, in its program's place",
	.text = "Waits on the API socket for a client that configures a VM and starts it, or takes both\n"
		"from --config-file. The VM's serial port is this terminal. It is listed by 'holon ls',\n"
		"and Holon's own commands work on it, too. docs/firecracker.md says what is served.\n",
	.option = options,
	.defaults = &defaults,
	.opts_size = sizeof defaults,
	.check = check,
	.run = cmd_firecracker,
};
