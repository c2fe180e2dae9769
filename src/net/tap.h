/* tap: see tap.c. */
#pragma once

#include "net/backend.h"
#include "net/offload.h"

/* name: NULL: any. bridge: index of the bridge to put it into; 0: none. */
WARN_UNUSED int tap_open(struct net_port **out, const char *name, int bridge, struct loop *l,
			 struct err *e);
