/* bridge: a tap of our own in a bridge of the host's. The kernel takes it away when the
 * process ends, however it ends. */
#include <errno.h>
#include <net/if.h>

#include "net/tap.h"

int bridge_new(struct net_port **out, const struct net_opts *o, struct loop *l, struct err *e)
{
	unsigned bridge = o->name ? if_nametoindex(o->name) : 0;
	int r;

	if (!bridge)
		return err_set(e, ENODEV, "bridge '%s': there is no such interface",
			       o->name ? o->name : "");
	r = tap_open(out, "holon%d", (int)bridge, l, e);
	return r < 0 ? err_wrap(e, "bridge '%s'", o->name) : 0;
}
