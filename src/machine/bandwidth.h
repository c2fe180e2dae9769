/* bandwidth: holds a consumer of processor time to a share of it, as the kernel does for a control
 * group: time comes into an account at the rate of the share, up to what BANDWIDTH_PERIOD brings, and
 * is taken out as it is used; who is in debt waits. So the share holds in the long run, however
 * late somebody looks. Only arithmetic: whoever has it looks when told to, and makes it wait. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BANDWIDTH_PERIOD_NS UINT64_C(100000000)

struct bandwidth {
	unsigned cap; /* thousandths of a core; 0: no limit */
	int64_t account_ns;
	uint64_t looked_ns, used_ns; /* time and use at the last look */
	bool waits;
	uint64_t waited_ns; /* in all */
};

/* From now on, with a full account. cap 0: waits no more. */
void bandwidth_set(struct bandwidth *b, unsigned cap, uint64_t now_ns, uint64_t used_ns);
/* used_ns: ever. width: of how many threads it can use at a time. Returns after how long to look
 * again, by which b->waits may have to change. */
uint64_t bandwidth_look(struct bandwidth *b, uint64_t now_ns, uint64_t used_ns, unsigned width);
