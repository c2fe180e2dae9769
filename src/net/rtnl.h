/* rtnl: what is asked of the kernel about network interfaces, by rtnetlink. Interfaces are
 * named by index. */
#pragma once

#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

/* Puts an interface into a bridge (0: leaves it where it is) and brings it up. */
WARN_UNUSED int rtnl_enslave(int index, int bridge, struct err *e);

/* A socket that becomes readable when something about any interface changes, or -errno. */
WARN_UNUSED int rtnl_watch(void);
/* Reads what came there. *up changes when the interface's state was in it. */
void rtnl_watch_read(int fd, int index, bool *up);
