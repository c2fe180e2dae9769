/* net_option: what --net, -p and --capture say, as the machine wants it. */
#pragma once

#include "cli/options.h"
#include "control/plug_args.h"

struct net_options {
	unsigned n;
	struct machine_net net[MACHINE_NETS_MAX];
	char *storage[MACHINE_NETS_MAX + MACHINE_NETS_MAX]; /* their texts */
	unsigned stored, forwards;
	struct net_forward forward[OPTION_LIST_MAX];
};

/* net: values of --net; none: one card of user-mode NAT. publish: values of -p. capture: a file,
 * or NULL. *out: zeroed; net_options_done frees what it holds, also after a failure. */
WARN_UNUSED int net_options_parse(struct net_options *out, const struct option_list *net,
				  const struct option_list *publish, const char *capture,
				  struct err *e);
void net_options_done(struct net_options *o);
