#include "base/fake_clock.h"

#include <assert.h>

static struct fake_clock *to_fake(struct clock *c)
{
	return container_of(c, struct fake_clock, clock);
}

static uint64_t fake_now(struct clock *c)
{
	return to_fake(c)->now_ns;
}

static void fake_cancel(struct clock *c, struct timer *t)
{
	if (!t->slot)
		return;
	to_fake(c)->armed[t->slot - 1] = NULL;
	t->slot = 0;
}

static void fake_arm(struct clock *c, struct timer *t, uint64_t deadline_ns)
{
	struct fake_clock *f = to_fake(c);
	uint32_t i = 0;

	fake_cancel(c, t);
	while (i < ARRAY_SIZE(f->armed) && f->armed[i])
		i++;
	assert(i < ARRAY_SIZE(f->armed));
	f->armed[i] = t;
	t->slot = i + 1;
	t->deadline_ns = deadline_ns;
}

static const struct clock_ops fake_ops = {fake_now, fake_arm, fake_cancel};

void fake_clock_init(struct fake_clock *f)
{
	*f = (struct fake_clock){.clock.ops = &fake_ops};
}

static struct timer *earliest(struct fake_clock *f)
{
	struct timer *best = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(f->armed); i++)
		if (f->armed[i] && (!best || f->armed[i]->deadline_ns < best->deadline_ns))
			best = f->armed[i];
	return best;
}

void fake_clock_advance(struct fake_clock *f, uint64_t by_ns)
{
	uint64_t end = f->now_ns + by_ns;
	struct timer *t;

	while ((t = earliest(f)) && t->deadline_ns <= end) {
		if (t->deadline_ns > f->now_ns)
			f->now_ns = t->deadline_ns;
		fake_cancel(&f->clock, t);
		t->fire(t);
	}
	f->now_ns = end;
}
