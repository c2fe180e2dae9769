#include "cli/net_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suboptions.h"

#define MTU_MIN    68u
#define MTU_MAX    65521u
#define QUEUES_MAX 16u

struct parts {
	const char *mac, *tftp, *bootfile;
	bool restricted, uplink;
	unsigned mtu, queues;
	uint64_t rx, tx;
};

#define PART(member) offsetof(struct parts, member)

const struct option net_parts[] = {{"mac", OPT_TEXT, PART(mac), "ADDRESS"},
				   {"mtu", OPT_COUNT, PART(mtu), "N"},
				   {"queues", OPT_COUNT, PART(queues), "N"},
				   {"rx", OPT_SIZE, PART(rx), "RATE"},
				   {"tx", OPT_SIZE, PART(tx), "RATE"},
				   {"restrict", OPT_FLAG, PART(restricted)},
				   {"uplink", OPT_FLAG, PART(uplink)},
				   {"tftp", OPT_TEXT, PART(tftp), "DIR"},
				   {"bootfile", OPT_TEXT, PART(bootfile), "FILE"},
				   {0}};

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

static int set_parts(struct machine_net *n, const struct parts *p, struct err *e)
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
	n->net.rx_bps = p->rx;
	n->net.tx_bps = p->tx;
	n->queues = (uint16_t)p->queues;
	n->has_mac = p->mac;
	return p->mac ? net_mac_parse(p->mac, n->mac, e) : 0;
}

static int add_net(struct net_options *out, const char *text, struct err *e)
{
	struct machine_net *n = &out->net[out->n];
	struct parts parts = {0};
	const char *first;
	int r;

	if (out->n == MACHINE_NETS_MAX)
		return err_set(e, EINVAL, "at most %u cards", MACHINE_NETS_MAX);
	r = suboptions_parse(net_parts, text, &first, &parts, &out->storage[out->stored], e);
	if (r < 0)
		return r;
	out->stored++;
	r = set_kind(&n->net, first, e);
	if (r == 0)
		r = set_parts(n, &parts, e);
	if (r == 0)
		out->n++;
	return r;
}

/* The first card of user-mode NAT gets the forwards. */
static int add_forwards(struct net_options *out, const struct option_list *list, struct err *e)
{
	unsigned i = 0;

	if (!list->n)
		return 0;
	while (i < out->n && out->net[i].net.kind != NET_USER)
		i++;
	if (i == out->n)
		return err_set(e, EINVAL, "-p wants a card with --net user");
	for (out->forwards = 0; out->forwards < list->n; out->forwards++) {
		int r = net_forward_parse(list->value[out->forwards], &out->forward[out->forwards],
					  e);

		if (r < 0)
			return err_wrap(e, "-p");
	}
	out->net[i].net.forward = out->forward;
	out->net[i].net.forwards = out->forwards;
	return 0;
}

/* The first card's frames go to file, the next one's to file.1, and so on. */
static int add_captures(struct net_options *out, const char *file, struct err *e)
{
	for (unsigned i = 0; file && i < out->n; i++) {
		char *name = NULL;

		if ((i ? asprintf(&name, "%s.%u", file, i) : asprintf(&name, "%s", file)) < 0)
			return err_sys(e, ENOMEM, "--capture");
		out->net[i].net.capture = out->storage[out->stored++] = name;
	}
	return 0;
}

int net_options_parse(struct net_options *out, const struct option_list *net,
		      const struct option_list *publish, const char *capture, struct err *e)
{
	int r;

	for (unsigned i = 0; i < net->n; i++) {
		if (!strcmp(net->value[i], "none"))
			continue;
		r = add_net(out, net->value[i], e);
		if (r < 0)
			return err_wrap(e, "--net %s", net->value[i]);
	}
	if (!net->n && (r = add_net(out, "user", e)) < 0)
		return r;
	r = add_forwards(out, publish, e);
	return r < 0 ? r : add_captures(out, capture, e);
}

void net_options_done(struct net_options *o)
{
	for (unsigned i = 0; i < o->stored; i++)
		free(o->storage[i]);
}
