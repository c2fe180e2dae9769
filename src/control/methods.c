/* The methods of a VM's control socket. This table is the only list of them: requests are checked by
 * it, 'holon pause' and its like are made from it, and so is the OpenAPI document. */
#include "control/methods.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "control/control_priv.h"

#define INPUT_MAX 1024u

const char *control_refuses(void *control, const struct api_method *m)
{
	struct control *c = control;

	AUTO_LOCK(&c->lock);
	if (!m->states || m->states & c->state)
		return NULL;
	switch (c->state) {
	case CONTROL_STARTING: return "the VM is still starting";
	case CONTROL_OVER: return "the VM has ended";
	case CONTROL_PAUSED: return "the VM is paused";
	case CONTROL_RUNNING: break;
	}
	return "the VM is running";
}

/* --- looking --- */

static int get_info(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	struct control *c = ctx;

	reply->json = control_info(c);
	if (reply->json && !control_refuses(c, &control_methods[METHOD_STATS]))
		control_add_parts(c, reply->json);
	return reply->json ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int figures(struct control *c, void *arg, struct err *e)
{
	control_get_figures(c, arg);
	return 0;
}

static int get_stats(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	struct control_figures f;
	int r = control_on_loop(ctx, figures, &f, e);

	if (r == 0)
		reply->json = control_figures_json(&f);
	return r;
}

static int metrics_text(struct control *c, void *arg, struct err *e)
{
	struct control_figures f;

	control_get_figures(c, &f);
	*(char **)arg = control_figures_prometheus(c, &f);
	return *(char **)arg ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int get_metrics(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	return control_on_loop(ctx, metrics_text, &reply->text, e);
}

static int streamed(struct api_reply *reply, struct api_stream *s, struct err *e)
{
	reply->stream = s;
	return s ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int get_events(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	const struct events_args *a = args;

	return streamed(reply, control_events_stream(ctx, a->since, a->follow), e);
}

static int get_wait(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	return streamed(reply, control_wait_stream(ctx), e);
}

static int get_console(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	const struct console_args *a = args;
	struct control *c = ctx;
	uint64_t from = 0;

	if (a->lines != CONSOLE_ALL_LINES)
		from = a->lines ? console_log_lines(&c->log, a->lines) : console_log_end(&c->log);
	return streamed(reply, control_console_stream(c, from, a->follow), e);
}

/* --- doing; on the loop thread --- */

static int do_pause(struct control *c, void *arg, struct err *e)
{
	machine_pause(c->machine, MACHINE_PAUSE_ASKED);
	return 0;
}

static int do_resume(struct control *c, void *arg, struct err *e)
{
	unsigned others = machine_paused(c->machine) & ~(unsigned)MACHINE_PAUSE_ASKED;

	machine_resume(c->machine, MACHINE_PAUSE_ASKED);
	if (others & MACHINE_PAUSE_NO_SPACE)
		return err_set(e, EBUSY,
			       "a disk waits for space on the host: make some, and the "
			       "VM goes on by itself");
	if (others)
		return err_set(e, EBUSY, "a debugger holds the VM");
	return 0;
}

static int do_stop(struct control *c, void *arg, struct err *e)
{
	const struct stop_args *a = arg;

	control_stopping(c, "stopped");
	c->host->stop(c->host, a->timeout);
	return 0;
}

static int do_kill(struct control *c, void *arg, struct err *e)
{
	control_stopping(c, "killed");
	c->host->kill(c->host);
	return 0;
}

static int do_reset(struct control *c, void *arg, struct err *e)
{
	machine_reset(c->machine);
	return 0;
}

/* Returns how many bytes; -1: it is no such text, or a long one. */
static long from_hex(const char *hex, uint8_t to[INPUT_MAX])
{
	long n = 0;

	for (; *hex; hex += 2) {
		char digits[3] = {hex[0], hex[1], 0}, *end;

		if (!isxdigit((unsigned char)hex[0]) || n == INPUT_MAX)
			return -1;
		to[n++] = (uint8_t)strtoul(digits, &end, 16);
		if (*end || !hex[1])
			return -1;
	}
	return n;
}

static int do_input(struct control *c, void *arg, struct err *e)
{
	const struct input_args *a = arg;
	const uint8_t *bytes = (const uint8_t *)a->text;
	uint8_t decoded[INPUT_MAX];
	long len = a->text ? (long)strlen(a->text) : 0;

	if (!a->text == !a->hex)
		return err_set(e, EINVAL, "either text or hex is expected");
	if (a->hex) {
		len = from_hex(a->hex, decoded);
		bytes = decoded;
	}
	if (len < 0 || len > INPUT_MAX)
		return err_set(e, EINVAL,
			       "hexadecimal digits, two a byte, and no more than %u bytes",
			       INPUT_MAX);
	if (!c->host->input(c->host, bytes, (uint32_t)len))
		return err_set(e, EBUSY, "the guest does not read what was typed before");
	return 0;
}

static int do_size(struct control *c, void *arg, struct err *e)
{
	const struct size_args *a = arg;

	machine_console_size(c->machine, a->columns, a->rows);
	return 0;
}

static int do_rename(struct control *c, void *arg, struct err *e)
{
	const struct rename_args *a = arg;

	return control_rename(c, a->name, e);
}

static int set_disk(struct control *c, const struct set_args *a, struct err *e)
{
	const struct block_limits l = {.bps = a->bps == SET_KEEP ? 0 : a->bps,
				       .iops = a->iops == SET_KEEP_COUNT ? 0 : a->iops};

	return machine_set_disk_limits(c->machine, a->disk, &l, e);
}

static int set_net(struct control *c, const struct set_args *a, struct err *e)
{
	const struct net_limits rx = {.bytes.rate = a->rx == SET_KEEP ? 0 : a->rx};
	const struct net_limits tx = {.bytes.rate = a->tx == SET_KEEP ? 0 : a->tx};

	return machine_set_net_limits(c->machine, a->net, &rx, &tx, e);
}

static int do_set(struct control *c, void *arg, struct err *e)
{
	const struct set_args *a = arg;
	bool net = a->net != SET_KEEP_COUNT;
	int r = 0;

	if (!a->disk && (a->bps != SET_KEEP || a->iops != SET_KEEP_COUNT))
		return err_set(e, EINVAL, "bps and iops go with disk: which one?");
	if (!net && (a->rx != SET_KEEP || a->tx != SET_KEEP))
		return err_set(e, EINVAL, "rx and tx go with net: which card?");
	if (!a->disk && !net && a->balloon == SET_KEEP && !control_sets_limits(a))
		return err_set(e, EINVAL,
			       "nothing to set: balloon, disk with bps and iops, net with rx and "
			       "tx, or limits");
	if (a->balloon != SET_KEEP)
		r = machine_set_balloon(c->machine, a->balloon, e);
	if (r == 0 && a->disk)
		r = set_disk(c, a, e);
	if (r == 0 && net)
		r = set_net(c, a, e);
	if (r == 0)
		r = control_set_limits(c, a, e);
	return r;
}

#define ON_LOOP(name)                                                                              \
	static int vm_##name(void *ctx, const void *args, struct api_reply *reply, struct err *e)  \
	{                                                                                          \
		return control_on_loop(ctx, do_##name, (void *)args, e);                           \
	}
ON_LOOP(pause)
ON_LOOP(resume)
ON_LOOP(stop)
ON_LOOP(kill)
ON_LOOP(reset)
ON_LOOP(input)
ON_LOOP(size)
ON_LOOP(rename)
ON_LOOP(set)

/* --- the table --- */

#define ARGS(table, def) .args = table, .defaults = &(def), .args_size = sizeof(def)

static const struct option stop_options[] = {
	{"timeout", OPT_NUMBER, offsetof(struct stop_args, timeout), "SECONDS",
	 "How long the guest may take to power itself off; after that it is ended. Default: 30.",
	 .max = 86400},
	{0}};
static const struct stop_args stop_defaults = {.timeout = 30};

static const struct option events_options[] = {
	{"follow", OPT_FLAG, offsetof(struct events_args, follow), NULL,
	 "Go on with those to come, until the VM has ended."},
	{"since", OPT_NUMBER, offsetof(struct events_args, since), "N",
	 "Only those with the number N and higher."},
	{0}};
static const struct events_args events_defaults = {0};

static const struct option console_options[] = {
	{"follow", OPT_FLAG, offsetof(struct console_args, follow), NULL,
	 "Go on with what is to come, until the VM has ended.", .letter = 'f'},
	{"lines", OPT_NUMBER, offsetof(struct console_args, lines), "N",
	 "Only the last N lines of what was said before. Default: all that is kept.",
	 .letter = 'n'},
	{0}};
static const struct console_args console_defaults = {.lines = CONSOLE_ALL_LINES};

static const struct option input_options[] = {
	{"text", OPT_TEXT, offsetof(struct input_args, text), "TEXT", "What is typed."},
	{"hex", OPT_TEXT, offsetof(struct input_args, hex), "DIGITS",
	 "The same, any bytes: two hexadecimal digits each, at most 1024 of them."},
	{0}};
static const struct input_args input_defaults = {0};

static const struct option size_options[] = {
	{"columns", OPT_COUNT, offsetof(struct size_args, columns), "N", "How wide it is.",
	 .max = 65535},
	{"rows", OPT_COUNT, offsetof(struct size_args, rows), "N", "How high it is.", .max = 65535},
	{0}};
static const struct size_args size_defaults = {.columns = 80, .rows = 24};

static const struct option rename_options[] = {
	{"name", OPT_TEXT, offsetof(struct rename_args, name), "NAME",
	 "The new one: letters, digits, '-', '_' and '.'.", .required = true},
	{0}};
static const struct rename_args rename_defaults = {0};

static const struct option detach_options[] = {
	{"id", OPT_TEXT, offsetof(struct detach_args, id), "ID",
	 "As 'inspect' names it: vdb, net4.", .required = true},
	{"force", OPT_FLAG, offsetof(struct detach_args, force), NULL,
	 "Do not ask: pull it out, whatever the guest does with it."},
	{0}};
static const struct detach_args detach_defaults = {0};

static const struct option set_options[] = {
	{"balloon", OPT_SIZE, offsetof(struct set_args, balloon), "SIZE",
	 "Ask the guest to get along with SIZE of its memory."},
	{"disk", OPT_TEXT, offsetof(struct set_args, disk), "vdX",
	 "The disk whose limits are set; those that are not named are lifted."},
	{"bps", OPT_SIZE, offsetof(struct set_args, bps), "RATE",
	 "At most so many bytes a second; 0: no limit."},
	{"iops", OPT_NUMBER, offsetof(struct set_args, iops), "N",
	 "At most so many requests a second; 0: no limit."},
	{"net", OPT_NUMBER, offsetof(struct set_args, net), "N",
	 "The network card whose rates are set; 0 is the first. Those that are not named are lifted."},
	{"rx", OPT_SIZE, offsetof(struct set_args, rx), "RATE",
	 "At most so many bytes a second to the guest; 0: no limit."},
	{"tx", OPT_SIZE, offsetof(struct set_args, tx), "RATE",
	 "The same of what the guest sends."},
	{"cpu-cap", OPT_TEXT, offsetof(struct set_args, cpu_cap), "PERCENT%|off",
	 "Processor time that the VM gets at most, of one core."},
	{"vcpu-cap", OPT_TEXT, offsetof(struct set_args, vcpu_cap), "PERCENT%|off",
	 "The same for each of its vCPUs."},
	{"cpu-weight", OPT_COUNT, offsetof(struct set_args, cpu_weight), "N",
	 "Its share of processors that are wanted by more, against others' 100.",
	 .max = WEIGHT_MAX},
	{"cpu-pin", OPT_TEXT, offsetof(struct set_args, cpu_pin), "[vcpuN=]LIST",
	 "The processors of the host that its threads, or one vCPU, may run on.", .repeats = true},
	{"memory-limit", OPT_SIZE, offsetof(struct set_args, memory_limit), "SIZE",
	 "Memory of the host that the VM may use in all; 0: no limit. It must have been started with "
	 "a limit."},
	{"swap-limit", OPT_TEXT, offsetof(struct set_args, swap_limit), "SIZE",
	 "With memory-limit: how much of it may be swapped out. Default: all."},
	{"io-weight", OPT_COUNT, offsetof(struct set_args, io_weight), "N",
	 "Its share of busy disks of the host, against others' 100.", .max = WEIGHT_MAX},
	{0}};
static const struct set_args set_defaults = {.balloon = SET_KEEP,
					     .bps = SET_KEEP,
					     .rx = SET_KEEP,
					     .tx = SET_KEEP,
					     .iops = SET_KEEP_COUNT,
					     .net = SET_KEEP_COUNT,
					     .memory_limit = SET_KEEP};

#define INTEGER "{\"type\":\"integer\"}"
#define STRING  "{\"type\":\"string\"}"
#define ENDED                                                                                      \
	"{\"type\":\"object\",\"required\":[\"how\",\"status\",\"text\",\"time\"],"                \
	"\"properties\":{\"how\":{\"enum\":[\"power-off\",\"stopped\",\"killed\",\"reset\","       \
	"\"triple-fault\",\"debug-exit\",\"failed\"]},\"status\":" INTEGER ",\"text\":" STRING     \
	",\"time\":" INTEGER "}}"

#define BOOLEAN "{\"type\":\"boolean\"}"
#define PART                                                                                       \
	"{\"type\":\"object\",\"required\":[\"id\",\"kind\",\"removable\",\"leaving\"],"           \
	"\"properties\":{\"id\":" STRING                                                           \
	",\"kind\":{\"enum\":[\"disk\",\"net\"]},\"removable\":" BOOLEAN ",\"leaving\":" BOOLEAN   \
	",\"pci\":" STRING ",\"file\":" STRING ",\"size_bytes\":" INTEGER                          \
	",\"read_only\":" BOOLEAN "}}"

static const char info_schema[] =
	"{\"type\":\"object\",\"required\":[\"name\",\"pid\",\"state\",\"started\",\"engine\","
	"\"cpus\",\"memory_bytes\",\"background\",\"restart\",\"confined\"],\"properties\":{\"name\":" STRING
	",\"pid\":" INTEGER ",\"state\":{\"enum\":[\"starting\",\"running\",\"paused\","
	"\"stopping\",\"ended\"]},\"started\":" INTEGER ",\"engine\":" STRING
	",\"engine_reason\":" STRING ",\"cpus\":" INTEGER ",\"memory_bytes\":" INTEGER
	",\"background\":{\"type\":\"boolean\"},\"restart\":{\"enum\":[\"no\",\"on-failure\","
	"\"always\"]},\"shares\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
	"\"properties\":{\"dir\":" STRING ",\"tag\":" STRING
	",\"read_only\":{\"type\":\"boolean\"}}}},\"confined\":{\"enum\":[\"yes\",\"partly\",\"no\"]}"
	",\"unconfined\":" STRING ",\"ended\":" ENDED
	",\"devices\":{\"type\":\"array\",\"items\":" PART "}}}";

static const char id_schema[] =
	"{\"type\":\"object\",\"required\":[\"id\"],\"properties\":{\"id\":" STRING "}}";

static const char stats_schema[] =
	"{\"type\":\"object\",\"required\":[\"guest_ns\",\"process_ns\",\"vcpu_ns\",\"cpus\","
	"\"memory_bytes\",\"memory_used_bytes\",\"resident_bytes\",\"disks\",\"nets\","
	"\"limits\",\"throttled_ns\"],"
	"\"properties\":{\"guest_ns\":" INTEGER ",\"process_ns\":" INTEGER ",\"vcpu_ns\":" INTEGER
	",\"cpus\":" INTEGER ",\"memory_bytes\":" INTEGER ",\"memory_used_bytes\":" INTEGER
	",\"resident_bytes\":" INTEGER ",\"balloon\":{\"type\":\"object\",\"properties\":{"
	"\"bytes\":" INTEGER ",\"target_bytes\":" INTEGER ",\"guest_free_bytes\":" INTEGER
	",\"guest_available_bytes\":" INTEGER "}},\"throttled_ns\":" INTEGER
	",\"major_faults\":" INTEGER
	",\"limits\":{\"type\":\"object\",\"properties\":{\"cpu_cap\":" STRING
	",\"vcpu_cap\":" STRING
	",\"cap_by\":{\"enum\":[\"cgroup\",\"holon\"]},\"cpu_weight\":" INTEGER
	",\"io_weight\":" INTEGER ",\"memory_bytes\":" INTEGER ",\"swap_bytes\":" INTEGER
	",\"memory_charged_bytes\":" INTEGER ",\"cgroups\":{\"type\":\"array\",\"items\":" STRING
	"}}},\"disks\":{\"type\":\"array\",\"items\":{"
	"\"type\":\"object\",\"properties\":{\"name\":" STRING ",\"reads\":" INTEGER
	",\"writes\":" INTEGER ",\"read_bytes\":" INTEGER ",\"write_bytes\":" INTEGER
	"}}},\"nets\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{"
	"\"rx_frames\":" INTEGER ",\"rx_bytes\":" INTEGER ",\"tx_frames\":" INTEGER
	",\"tx_bytes\":" INTEGER "}}}}}";

static const char event_schema[] =
	"{\"type\":\"object\",\"required\":[\"number\",\"time\",\"vm\",\"event\"],\"properties\":{"
	"\"number\":" INTEGER ",\"time\":{\"type\":\"number\"},\"vm\":" STRING ",\"event\":{"
	"\"enum\":[\"started\",\"paused\",\"resumed\",\"reset\",\"stopping\",\"renamed\",\"attached\",\"detached\","
	"\"ended\",\"balloon\",\"host-memory\",\"fault-storm\"]},\"why\":" STRING
	",\"bytes\":" INTEGER "}}";

const struct api_method control_methods[] = {
	[METHOD_INFO] = {.name = "inspect",
			 .verb = "GET",
			 .path = "/vm",
			 .summary = "Show what a VM is and how it does",
			 .type = API_TYPE_JSON,
			 .schema = info_schema,
			 .run = get_info},
	[METHOD_STATS] = {.name = "stats",
			  .verb = "GET",
			  .path = "/vm/stats",
			  .summary = "Show what a VM uses, in figures",
			  .states = CONTROL_ALIVE,
			  .type = API_TYPE_JSON,
			  .schema = stats_schema,
			  .run = get_stats},
	[METHOD_METRICS] = {.name = "metrics",
			    .verb = "GET",
			    .path = "/metrics",
			    .summary = "Show the same for Prometheus",
			    .states = CONTROL_ALIVE,
			    .type = "text/plain; version=0.0.4",
			    .run = get_metrics},
	[METHOD_EVENTS] = {.name = "events",
			   .verb = "GET",
			   .path = "/vm/events",
			   .summary = "Show what happened to VMs, a line of JSON each",
			   ARGS(events_options, events_defaults),
			   .type = API_TYPE_LINES,
			   .schema = event_schema,
			   .run = get_events},
	[METHOD_WAIT] = {.name = "wait",
			 .verb = "GET",
			 .path = "/vm/wait",
			 .summary = "Wait until a VM has ended, and tell how",
			 .type = API_TYPE_JSON,
			 .schema = ENDED,
			 .run = get_wait},
	[METHOD_CONSOLE] = {.name = "logs",
			    .verb = "GET",
			    .path = "/vm/console",
			    .summary = "Show what a VM's console said",
			    ARGS(console_options, console_defaults),
			    .type = API_TYPE_BYTES,
			    .run = get_console},
	[METHOD_INPUT] = {.name = "type",
			  .verb = "POST",
			  .path = "/vm/console",
			  .summary = "Type something on a VM's console",
			  .right = RIGHT_OPERATE,
			  .states = CONTROL_ALIVE,
			  ARGS(input_options, input_defaults),
			  .run = vm_input},
	[METHOD_SIZE] = {.name = "console-size",
			 .verb = "PUT",
			 .path = "/vm/console/size",
			 .summary = "Tell a VM how large the terminal of its console is",
			 .right = RIGHT_OPERATE,
			 .states = CONTROL_ALIVE,
			 ARGS(size_options, size_defaults),
			 .run = vm_size},
	[METHOD_PAUSE] = {.name = "pause",
			  .verb = "POST",
			  .path = "/vm/pause",
			  .summary = "Stop a VM's processors and its time",
			  .right = RIGHT_OPERATE,
			  .states = CONTROL_ALIVE,
			  .run = vm_pause},
	[METHOD_RESUME] = {.name = "resume",
			   .verb = "POST",
			   .path = "/vm/resume",
			   .summary = "Let a paused VM go on",
			   .right = RIGHT_OPERATE,
			   .states = CONTROL_ALIVE,
			   .run = vm_resume},
	[METHOD_STOP] =
		{.name = "stop",
		 .verb = "POST",
		 .path = "/vm/stop",
		 .summary = "Press a VM's power button, and end it if that does not help",
		 .text = "A paused VM is resumed for that. A guest that does not listen to the\n"
			 "button yet gets it again when it does. Of several, those end first that\n"
			 "were started after others ('after' of their definitions).\n",
		 .right = RIGHT_OPERATE,
		 .states = CONTROL_ALIVE,
		 ARGS(stop_options, stop_defaults),
		 .run = vm_stop},
	[METHOD_KILL] = {.name = "kill",
			 .verb = "POST",
			 .path = "/vm/kill",
			 .summary = "End a VM at once, as by pulling the plug",
			 .right = RIGHT_OPERATE,
			 .states = CONTROL_ALIVE | CONTROL_STARTING,
			 .run = vm_kill},
	[METHOD_RESET] = {.name = "reset",
			  .verb = "POST",
			  .path = "/vm/reset",
			  .summary = "Start a VM's guest anew, as by the reset button",
			  .right = RIGHT_OPERATE,
			  .states = CONTROL_ALIVE,
			  .run = vm_reset},
	[METHOD_RENAME] = {.name = "rename",
			   .verb = "PUT",
			   .path = "/vm/name",
			   .summary = "Give a VM another name",
			   .right = RIGHT_OPERATE,
			   .states = CONTROL_ALIVE,
			   ARGS(rename_options, rename_defaults),
			   .run = vm_rename},
	[METHOD_SET] = {.name = "set",
			.verb = "PATCH",
			.path = "/vm",
			.summary = "Change what can be changed of a VM while it runs",
			.right = RIGHT_OPERATE,
			.states = CONTROL_ALIVE,
			ARGS(set_options, set_defaults),
			.run = vm_set},
	[METHOD_ATTACH_DISK] =
		{.name = "attach-disk",
		 .verb = "POST",
		 .path = "/vm/disks",
		 .summary = "Plug a disk into a VM",
		 .text = "Descriptors of its files may come with the request (SCM_RIGHTS).\n",
		 .right = RIGHT_OPERATE,
		 .states = CONTROL_ALIVE,
		 ARGS(attach_disk_options, disk_defaults),
		 .type = API_TYPE_JSON,
		 .schema = id_schema,
		 .run_with = control_attach_disk},
	[METHOD_ATTACH_NET] =
		{.name = "attach-net",
		 .verb = "POST",
		 .path = "/vm/nets",
		 .summary = "Plug a network card into a VM",
		 .text = "The descriptor of a tap may come with the request (SCM_RIGHTS).\n",
		 .right = RIGHT_OPERATE,
		 .states = CONTROL_ALIVE,
		 ARGS(attach_net_options, net_defaults),
		 .type = API_TYPE_JSON,
		 .schema = id_schema,
		 .run_with = control_attach_net},
	[METHOD_DETACH] =
		{.name = "detach",
		 .verb = "DELETE",
		 .path = "/vm/devices",
		 .summary = "Take a disk or a network card out of a VM",
		 .text = "The guest is asked to let go of it; when it has, the device is not among those\n"
			 "of 'inspect' any more, and an event says so.\n",
		 .right = RIGHT_OPERATE,
		 .states = CONTROL_ALIVE,
		 ARGS(detach_options, detach_defaults),
		 .run = control_detach_part},
};
const unsigned control_methods_count = ARRAY_SIZE(control_methods);
