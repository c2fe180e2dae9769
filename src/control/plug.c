/* What is plugged in and out of a VM that runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "control/control_priv.h"
#include "control/methods.h"

static int answer_id(struct api_reply *reply, const char *id, struct err *e)
{
	reply->json = json_pack("{s:s}", "id", id);
	return reply->json ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* --- disks --- */

/* The server's thread waits for it. */
struct attaching {
	struct machine_attached attached;
	struct control *c;
	const struct machine_disk *config;
	bool done;
	int r;
	char id[MACHINE_ID_LEN];
	struct err err;
};

static void attached(struct machine_attached *a, int r, const char *id, const struct err *e)
{
	struct attaching *w = container_of(a, struct attaching, attached);
	AUTO_LOCK(&w->c->lock);

	w->r = r;
	w->err = *e;
	snprintf(w->id, sizeof w->id, "%s", id);
	w->done = true;
	pthread_cond_broadcast(&w->c->changed);
}

static int begin_disk(struct control *c, void *arg, struct err *e)
{
	struct attaching *w = arg;

	return machine_attach_disk(c->machine, w->config, &w->attached, e);
}

/* done comes in any case, when the machine is freed at the latest. */
static int wait_attached(struct attaching *w, struct err *e)
{
	AUTO_LOCK(&w->c->lock);
	while (!w->done)
		pthread_cond_wait(&w->c->changed, &w->c->lock);
	if (w->r < 0 && e)
		*e = w->err;
	return w->r;
}

int control_attach_disk(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
			struct err *e)
{
	const struct disk_args *a = args;
	const struct block_given given = {min_u64(fds->n, a->opened.n), a->opened.value, fds->fd};
	struct machine_disk d;
	struct attaching w = {.attached.done = attached, .c = ctx, .config = &d};
	int r = disk_args_fill(&d, a, e);

	if (r < 0)
		return r;
	if (d.bus != DISK_VIRTIO)
		return err_set(e, EINVAL, "bus: only virtio disks can be plugged in");
	if (fds->n != a->opened.n)
		return err_set(e, EINVAL, "opened names %u files, and %u descriptors came",
			       a->opened.n, fds->n);
	d.image.given = &given;
	r = control_on_loop(ctx, begin_disk, &w, e);
	if (r == 0)
		r = wait_attached(&w, e);
	return r < 0 ? r : answer_id(reply, w.id, e);
}

/* --- network cards --- */

struct new_net {
	struct machine_net config;
	char id[MACHINE_ID_LEN];
};

/* What a confined process cannot reach any more. */
static int is_in_reach(const struct control *c, const struct net_opts *o, struct err *e)
{
	if (!c->confined || !strcmp(c->confined, "no"))
		return 0;
	if (o->kind == NET_USER && !c->host_network)
		return err_set(
			e, EPERM,
			"the VM was started without a card that uses the host's network, and is "
			"confined from it; start it with --net user, or with --confine off");
	if (o->kind == NET_SWITCH)
		return err_set(e, EPERM,
			       "a confined VM cannot join a switch any more; start it with --net "
			       "switch=NAME, or with --confine off");
	return 0;
}

static int begin_net(struct control *c, void *arg, struct err *e)
{
	struct new_net *n = arg;

	return machine_attach_net(c->machine, &n->config, n->id, e);
}

int control_attach_net(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
		       struct err *e)
{
	struct new_net n = {0};
	int r = net_args_fill(&n.config, args, e);

	if (r < 0 || (r = is_in_reach(ctx, &n.config.net, e)) < 0)
		return r;
	if (fds->n > 1 ||
	    (fds->n && n.config.net.kind != NET_TAP && n.config.net.kind != NET_BRIDGE))
		return err_set(e, EINVAL, "one descriptor, of a tap, can come with tap or bridge");
	n.config.net.has_tap_fd = fds->n;
	n.config.net.tap_fd = fds->n ? fds->fd[0] : -1;
	r = control_on_loop(ctx, begin_net, &n, e);
	return r < 0 ? r : answer_id(reply, n.id, e);
}

/* --- out --- */

static int do_detach(struct control *c, void *arg, struct err *e)
{
	const struct detach_args *a = arg;

	return machine_detach(c->machine, a->id, a->force, e);
}

int control_detach_part(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	return control_on_loop(ctx, do_detach, (void *)args, e);
}

/* --- which there are --- */

static json_t *part_json(const struct machine_part *p)
{
	json_t *j = json_pack("{s:s, s:s, s:b, s:b}", "id", p->id, "kind",
			      p->kind == MACHINE_DISK ? "disk" : "net", "removable", !p->fixed,
			      "leaving", p->asked);
	char pci[16];

	if (j && p->slot) {
		snprintf(pci, sizeof pci, "00:%02x.0", p->slot);
		json_object_set_new(j, "pci", json_string(pci));
	}
	if (j && p->kind == MACHINE_DISK) {
		json_object_set_new(j, "file", json_string(p->file));
		json_object_set_new(j, "size_bytes", json_integer((json_int_t)p->size));
		json_object_set_new(j, "read_only", json_boolean(p->read_only));
	}
	return j;
}

static int get_parts(struct control *c, void *arg, struct err *e)
{
	struct machine_part part[MACHINE_PARTS_MAX];
	unsigned n = machine_parts(c->machine, part);

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(arg, part_json(&part[i]));
	return 0;
}

void control_add_parts(struct control *c, json_t *info)
{
	json_t *list = json_array();
	struct err none;

	if (control_on_loop(c, get_parts, list, &none) == 0)
		json_object_set(info, "devices", list);
	json_decref(list);
}

void control_part_news(struct machine_watcher *w, const char *id, bool there)
{
	struct control *c = container_of(w, struct control, watcher);

	events_add(&c->events, c->dir.name, there ? "attached" : "detached",
		   json_pack("{s:s}", "id", id));
	if (c->server)
		api_server_wake(c->server);
}
