/* What is asked of a VM that runs, and its start. */
#include "firecracker/fc_priv.h"

#include <errno.h>
#include <string.h>

#include "virtio/balloon.h"

#define PAGE_BYTES 4096u

static int on_machine(struct fc *f, int (*fn)(struct machine *m, void *arg, struct err *e),
		      void *arg, struct err *e)
{
	struct control *c = atomic_load(&f->control);

	return c ? control_call(c, fn, arg, e) : err_set(e, ESHUTDOWN, "The microVM has ended.");
}

/* --- actions --- */

static int flush_metrics(struct machine *m, void *arg, struct err *e)
{
	return fc_metrics_write(arg, m, e);
}

static int ctrl_alt_del(struct machine *m, void *arg, struct err *e)
{
	/* Scan codes of set 2: Ctrl, Alt, Del go down, and up again. */
	static const uint8_t codes[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0,
					0x71, 0xf0, 0x11, 0xf0, 0x14};

	return machine_key(m, codes, sizeof codes)
		       ? 0
		       : err_set(e, EBUSY, "The guest does not read its keyboard.");
}

static int start(struct fc *f, struct err *e)
{
	if (atomic_load(&f->control))
		return err_set(
			e, EINVAL,
			"The requested operation is not supported after starting the microVM.");
	return f->host->start(f->host, e);
}

int fc_action(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
	      struct err *e)
{
	const struct fc_word *a = args;
	struct fc *f = ctx;

	if (a->word == 0)
		return start(f, e);
	if (!atomic_load(&f->control))
		return err_set(
			e, EINVAL,
			"The requested operation is not supported before starting the microVM.");
	return on_machine(f, a->word == 1 ? flush_metrics : ctrl_alt_del, f, e);
}

static int do_pause(struct machine *m, void *arg, struct err *e)
{
	machine_pause(m, MACHINE_PAUSE_ASKED);
	return 0;
}

static int do_resume(struct machine *m, void *arg, struct err *e)
{
	machine_resume(m, MACHINE_PAUSE_ASKED);
	return machine_paused(m)
		       ? err_set(e, EBUSY,
				 "Something else holds the microVM: a debugger, or a disk "
				 "that waits for space on the host.")
		       : 0;
}

int fc_patch_vm(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		struct err *e)
{
	const struct fc_word *a = args;

	return on_machine(ctx, a->word ? do_resume : do_pause, NULL, e);
}

/* --- drives and network interfaces --- */

/* What is given of a limiter takes the place of that part. */
static void merge_limiter(json_t *doc, const json_t *body, const char *member)
{
	json_t *given = json_object_get(body, member), *limiter = json_object_get(doc, member);

	if (!given)
		return;
	if (limiter)
		json_object_update(limiter, given);
	else
		json_object_set(doc, member, given);
}

struct drive_change {
	char disk[8]; /* as machine_set_disk_... names it */
	const char *path;
	const struct block_limits *limits;
};

static int change_drive(struct machine *m, void *arg, struct err *e)
{
	const struct drive_change *c = arg;
	int r = c->path ? machine_set_disk_image(m, c->disk, c->path, e) : 0;

	return r == 0 && c->limits ? machine_set_disk_limits(m, c->disk, c->limits, e) : r;
}

int fc_patch_drive(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	const struct fc_drive *a = args;
	struct drive_change c = {.path = a->path_on_host};
	struct fc_drive now = {0};
	struct block_limits limits;
	struct fc *f = ctx;
	json_t *doc, *changed;
	size_t at;
	int r;

	if (strcmp(call->id, a->drive_id) != 0)
		return err_set(e, EINVAL,
			       "The id from the path [%.64s] does not match the id from the body "
			       "[%.64s]!",
			       call->id, a->drive_id);
	doc = fc_find(f->doc[FC_DRIVES], "drive_id", call->id, &at);
	if (!doc)
		return err_set(e, EINVAL, "Invalid block device ID - %.64s not found!", call->id);
	changed = json_deep_copy(doc);
	merge_limiter(changed, call->body, "rate_limiter");
	if (a->path_on_host)
		json_object_set_new(changed, "path_on_host", json_string(a->path_on_host));
	r = fc_read(changed, fc_drive_options, &now, e);
	fc_block_limits(&now.rate_limiter, &limits);
	snprintf(c.disk, sizeof c.disk, "vd%c", 'a' + fc_disk_number(f, call->id));
	if (json_object_get(call->body, "rate_limiter"))
		c.limits = &limits;
	if (r == 0)
		r = on_machine(f, change_drive, &c, e);
	if (r < 0)
		json_decref(changed);
	else
		fc_replace(f, FC_DRIVES, at, changed);
	return r;
}

struct net_change {
	unsigned card;
	struct net_limits rx, tx;
};

static int change_net(struct machine *m, void *arg, struct err *e)
{
	const struct net_change *c = arg;

	return machine_set_net_limits(m, c->card, &c->rx, &c->tx, e);
}

int fc_patch_net(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		 struct err *e)
{
	const struct fc_net *a = args;
	struct net_change c;
	struct fc_net now = {0};
	struct fc *f = ctx;
	json_t *doc, *changed;
	size_t at;
	int r;

	if (strcmp(call->id, a->iface_id) != 0)
		return err_set(e, EINVAL,
			       "The id from the path [%.64s] does not match the id from the body "
			       "[%.64s]!",
			       call->id, a->iface_id);
	doc = fc_find(f->doc[FC_NETS], "iface_id", call->id, &at);
	if (!doc)
		return err_set(e, EINVAL, "Invalid interface ID - %.64s not found!", call->id);
	changed = json_deep_copy(doc);
	merge_limiter(changed, call->body, "rx_rate_limiter");
	merge_limiter(changed, call->body, "tx_rate_limiter");
	r = fc_read(changed, fc_net_options, &now, e);
	c.card = (unsigned)at;
	fc_net_limits(&now.rx_rate_limiter, &c.rx);
	fc_net_limits(&now.tx_rate_limiter, &c.tx);
	if (r == 0)
		r = on_machine(f, change_net, &c, e);
	if (r < 0)
		json_decref(changed);
	else
		fc_replace(f, FC_NETS, at, changed);
	return r;
}

/* --- the balloon --- */

static int set_balloon(struct machine *m, void *arg, struct err *e)
{
	struct machine_stats s;
	uint64_t bytes = *(const uint64_t *)arg;

	machine_get_stats(m, &s);
	if (bytes > s.memory_bytes)
		return err_set(e, EINVAL, "The balloon would be larger than the memory.");
	return machine_set_balloon(m, s.memory_bytes - bytes, e);
}

static int need_balloon(const struct fc *f, struct err *e)
{
	return f->doc[FC_BALLOON] ? 0 : err_set(e, EINVAL, "Device not found: no balloon device.");
}

int fc_patch_balloon(void *ctx, const struct api_call *call, const void *args,
		     struct api_reply *reply, struct err *e)
{
	const struct fc_balloon *a = args;
	struct fc *f = ctx;
	uint64_t bytes = MIB(min_u64(a->amount_mib, UINT64_C(1) << 40));
	int r = need_balloon(f, e);

	if (r == 0)
		r = on_machine(f, set_balloon, &bytes, e);
	if (r == 0)
		json_object_set_new(f->doc[FC_BALLOON], "amount_mib",
				    json_integer((json_int_t)a->amount_mib));
	return r;
}

static int has_stats(const struct fc *f, struct fc_balloon *b, struct err *e)
{
	int r = need_balloon(f, e);

	if (r == 0)
		r = fc_read(f->doc[FC_BALLOON], fc_balloon_options, b, e);
	if (r == 0 && !b->stats_polling_interval_s)
		r = err_set(e, EINVAL, "Statistics for the balloon device are not enabled.");
	return r;
}

/* Holon's balloon asks at an interval of its own; the client's is kept. */
int fc_patch_balloon_stats(void *ctx, const struct api_call *call, const void *args,
			   struct api_reply *reply, struct err *e)
{
	const struct fc_balloon *a = args;
	struct fc_balloon b = {0};
	struct fc *f = ctx;
	int r = has_stats(f, &b, e);

	if (r == 0 && !a->stats_polling_interval_s)
		r = err_set(e, EINVAL, "Statistics cannot be enabled/disabled after boot.");
	if (r == 0)
		json_object_set_new(f->doc[FC_BALLOON], "stats_polling_interval_s",
				    json_integer((json_int_t)a->stats_polling_interval_s));
	return r;
}

static int get_report(struct machine *m, void *arg, struct err *e)
{
	return machine_get_balloon(m, arg, e);
}

int fc_get_balloon_stats(void *ctx, const struct api_call *call, const void *args,
			 struct api_reply *reply, struct err *e)
{
	static const char *const names[BALLOON_STATS] = {
		[BALLOON_SWAP_IN] = "swap_in",
		[BALLOON_SWAP_OUT] = "swap_out",
		[BALLOON_MAJOR_FAULTS] = "major_faults",
		[BALLOON_MINOR_FAULTS] = "minor_faults",
		[BALLOON_FREE] = "free_memory",
		[BALLOON_TOTAL] = "total_memory",
		[BALLOON_AVAILABLE] = "available_memory",
		[BALLOON_CACHES] = "disk_caches",
	};
	struct balloon_report b;
	struct fc_balloon doc = {0};
	int r = has_stats(ctx, &doc, e);

	if (r == 0)
		r = on_machine(ctx, get_report, &b, e);
	if (r < 0)
		return r;
	reply->json = json_pack(
		"{s:I, s:I, s:I, s:I}", "target_pages", (json_int_t)(b.target / PAGE_BYTES),
		"actual_pages", (json_int_t)(b.actual / PAGE_BYTES), "target_mib",
		(json_int_t)(b.target >> 20), "actual_mib", (json_int_t)(b.actual >> 20));
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		if (b.have[i])
			json_object_set_new(reply->json, names[i],
					    json_integer((json_int_t)b.stat[i]));
	return reply->json ? 0 : err_set(e, ENOMEM, "out of memory");
}
