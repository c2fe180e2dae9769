#include "cli/net_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suboptions.h"

static int add_net(struct net_options *out, const char *text, struct err *e)
{
	struct machine_net *n = &out->net[out->n];
	struct net_args args = net_defaults;
	int r;

	if (out->n == MACHINE_NETS_MAX)
		return err_set(e, EINVAL, "at most %u cards", MACHINE_NETS_MAX);
	r = suboptions_parse(net_parts, text, &args.net, &args, &out->storage[out->stored], e);
	if (r < 0)
		return r;
	out->stored++;
	r = net_args_fill(n, &args, e);
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
