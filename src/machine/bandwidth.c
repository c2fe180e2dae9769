#include "machine/bandwidth.h"

#include "base/bits.h"

#define LOOK_MIN_NS UINT64_C(2000000)

static uint64_t full(const struct bandwidth *b)
{
	return BANDWIDTH_PERIOD_NS / 1000 * b->cap;
}

void bandwidth_set(struct bandwidth *b, unsigned cap, uint64_t now_ns, uint64_t used_ns)
{
	b->cap = cap;
	b->account_ns = (int64_t)full(b);
	b->looked_ns = now_ns;
	b->used_ns = used_ns;
	b->waits = false;
}

uint64_t bandwidth_look(struct bandwidth *b, uint64_t now_ns, uint64_t used_ns, unsigned width)
{
	uint64_t passed = now_ns - b->looked_ns, goes_on = full(b) / 4, wait;
	uint64_t income = min_u64(passed, UINT64_C(1000000000000)) / 1000 * b->cap;

	if (b->waits)
		b->waited_ns += passed;
	b->account_ns += (int64_t)income - (int64_t)(used_ns - b->used_ns);
	if (b->account_ns > (int64_t)full(b))
		b->account_ns = (int64_t)full(b);
	b->looked_ns = now_ns;
	b->used_ns = used_ns;
	if (b->account_ns <= 0)
		b->waits = true;
	else if (b->account_ns >= (int64_t)goes_on)
		b->waits = false;
	if (b->waits)
		wait = (uint64_t)((int64_t)goes_on - b->account_ns) / b->cap * 1000 + 1000;
	else
		wait = (uint64_t)b->account_ns / width;
	return wait < LOOK_MIN_NS ? LOOK_MIN_NS : min_u64(wait, 10 * BANDWIDTH_PERIOD_NS);
}
