/* pit: an 8254 interval timer (Intel data sheet 231164) and the PC's port 0x61. Counters
 * do not count: they remember the clock tick on which counting began, and everything is
 * computed from there, so no period ever drifts. Ticks are those of one clock of PIT_HZ
 * that has been running since guest time 0.
 *
 * Channel 0's output goes to IRQ 0. In the repeating modes the line rises at each reload
 * and stays up until just before the next, so that a guest which is late to look finds
 * its tick; and it does not rise when a mode is set, only when a period ends. Periods
 * shorter than MIN_PERIOD ticks raise fewer interrupts than they should. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"

#define PIT_HZ        1193182
#define MIN_PERIOD    60 /* about 50 us */
#define REFRESH_TICKS 18

#define SPEAKER_GATE     0x01
#define SPEAKER_WRITABLE 0x0f
#define SPEAKER_REFRESH  0x10
#define SPEAKER_OUT      0x20

#define STATUS_OUT  0x80
#define STATUS_NULL 0x40

enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };

struct channel {
	uint8_t mode; /* 0..5 */
	uint8_t rw;   /* RW_LOW.. */
	bool bcd;
	bool gate;
	bool loaded;                /* a count was written since the mode */
	bool triggered;             /* modes 1 and 5: a rising gate has been seen */
	uint32_t count;             /* 1..0x10000 */
	uint64_t start;             /* tick on which count was (or will be) loaded */
	uint32_t next_count;        /* modes 2, 3: takes over when the period ends; 0: none */
	bool paused;                /* by a low gate: in modes 0, 2, 3, 4 */
	uint64_t elapsed;           /* while paused: ticks counted so far */
	bool write_high, read_high; /* RW_BOTH: the second byte comes next */
	uint8_t low;                /* the first byte written */
	bool latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

struct pit {
	struct device dev;
	struct bus_region region, speaker;
	struct bus *bus;
	struct clock *clock;
	struct irq_line *irq;
	struct timer tick;

	pthread_mutex_t lock; /* guards all below */
	struct channel ch[3];
	uint8_t port61;
	uint64_t next_irq; /* tick on which channel 0's output rises; 0: never */
	bool irq_level;
};

static struct pit *to_pit(struct device *d)
{
	return container_of(d, struct pit, dev);
}

static uint64_t pit_now(struct pit *p)
{
	return mul_div(clock_now(p->clock), PIT_HZ, 1000000000);
}

/* The first guest time at which pit_now() is tick. */
static uint64_t tick_to_ns(uint64_t tick)
{
	uint64_t ns = mul_div(tick, 1000000000, PIT_HZ);

	return mul_div(ns, PIT_HZ, 1000000000) < tick ? ns + 1 : ns;
}

static bool repeats(const struct channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static bool needs_trigger(const struct channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Ticks counted since the count was loaded. */
static uint64_t elapsed(const struct channel *c, uint64_t now)
{
	if (c->paused)
		return c->elapsed;
	return now > c->start ? now - c->start : 0;
}

/* A new count of a repeating mode takes over at the end of a period. */
static void take_next_count(struct channel *c, uint64_t now)
{
	if (!c->next_count || c->paused || elapsed(c, now) < c->count)
		return;
	c->start += c->count;
	c->count = c->next_count;
	c->next_count = 0;
}

static bool counting(const struct channel *c)
{
	return c->loaded && (!needs_trigger(c) || c->triggered);
}

/* The level of OUT. */
static bool channel_out(struct channel *c, uint64_t now)
{
	uint64_t e;

	take_next_count(c, now);
	if (!counting(c))
		return c->mode != 0;
	e = elapsed(c, now);
	switch (c->mode) {
	case 0: return e >= c->count;
	case 1: return e >= c->count;
	case 2: return c->paused || e % c->count != c->count - 1;
	case 3: return c->paused || e % c->count < (c->count + 1) / 2;
	default: return e != c->count; /* a strobe of one tick */
	}
}

/* The counting element's value, as a guest reads it. */
static uint16_t channel_value(struct channel *c, uint64_t now)
{
	uint32_t modulus = c->bcd ? 10000 : 0x10000, v;
	uint64_t e;

	take_next_count(c, now);
	e = counting(c) ? elapsed(c, now) : 0;
	switch (c->mode) {
	case 2: v = c->count - e % c->count; break;
	case 3: /* counts by two, twice per period; an odd count begins one lower */
		e %= c->count;
		if (e >= (c->count + 1) / 2)
			e -= (c->count + 1) / 2;
		v = (c->count & ~1u) - 2 * e;
		break;
	default: v = (c->count + modulus - e % modulus); break;
	}
	v %= modulus;
	if (c->bcd)
		v = v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12;
	return v;
}

/* Sets IRQ 0 and the timer for its next rise. Called when channel 0 changed or fired. */
static void pit_set_irq(struct pit *p, bool level)
{
	p->irq_level = level;
	irq_set(p->irq, level);
}

/* The next tick on which channel 0's output rises, or 0. */
static uint64_t next_rise(struct pit *p, uint64_t now)
{
	struct channel *c = &p->ch[0];
	uint64_t at;

	take_next_count(c, now);
	if (!counting(c) || c->paused)
		return 0;
	if (!repeats(c)) {
		at = c->start + c->count + (c->mode >= 4);
		return at > now ? at : 0;
	}
	at = c->start + (elapsed(c, now) / c->count + 1) * c->count;
	if (c->count < MIN_PERIOD)
		at += (MIN_PERIOD / c->count) * c->count;
	return at;
}

static void pit_schedule(struct pit *p, uint64_t now)
{
	p->next_irq = next_rise(p, now);
	if (p->next_irq)
		timer_arm(p->clock, &p->tick, tick_to_ns(p->next_irq));
	else
		timer_cancel(p->clock, &p->tick);
}

static void pit_tick(struct timer *t)
{
	struct pit *p = container_of(t, struct pit, tick);
	uint64_t now;
	AUTO_LOCK(&p->lock);

	now = pit_now(p);
	if (!p->next_irq || now < p->next_irq)
		return;
	if (p->irq_level)
		pit_set_irq(p, false);
	pit_set_irq(p, true);
	pit_schedule(p, now);
}

static void load_count(struct pit *p, unsigned n, uint16_t v)
{
	struct channel *c = &p->ch[n];
	uint64_t now = pit_now(p);
	uint32_t count = v;

	if (c->bcd)
		count = (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12) * 1000;
	if (!count)
		count = c->bcd ? 10000 : 0x10000;
	take_next_count(c, now);
	if (repeats(c) && c->loaded && !c->paused) {
		c->start += elapsed(c, now) / c->count * c->count; /* of this period */
		c->next_count = count;
	} else {
		c->count = count;
		c->start = now + 1; /* loaded by the next clock pulse */
		c->elapsed = 0;
		c->next_count = 0;
	}
	c->loaded = true;
	c->paused = !c->gate && !needs_trigger(c);
	if (n == 0) {
		if (c->mode == 0)
			pit_set_irq(p, false);
		pit_schedule(p, now);
	}
}

static void write_count(struct pit *p, unsigned n, uint8_t v)
{
	struct channel *c = &p->ch[n];

	switch (c->rw) {
	case RW_LOW: load_count(p, n, v); return;
	case RW_HIGH: load_count(p, n, v << 8); return;
	}
	c->write_high = !c->write_high;
	if (!c->write_high) {
		load_count(p, n, c->low | v << 8);
		return;
	}
	c->low = v;
	if (c->mode == 0) { /* the first byte stops the count and clears OUT */
		c->loaded = false;
		if (n == 0) {
			pit_set_irq(p, false);
			pit_schedule(p, pit_now(p));
		}
	}
}

static void latch_count(struct pit *p, struct channel *c)
{
	if (c->latched)
		return;
	c->latched = true;
	c->latch = channel_value(c, pit_now(p));
}

static void latch_status(struct pit *p, struct channel *c)
{
	uint64_t now = pit_now(p);
	bool out = channel_out(c, now);
	bool null = !c->loaded || now < c->start || c->next_count;

	if (c->status_latched)
		return;
	c->status_latched = true;
	c->status = (out ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->rw << 4 | c->mode << 1 |
		    c->bcd;
}

static void read_back(struct pit *p, uint8_t v)
{
	for (unsigned n = 0; n < 3; n++) {
		if (!(v & BIT(n + 1)))
			continue;
		if (!(v & 0x20))
			latch_count(p, &p->ch[n]);
		if (!(v & 0x10))
			latch_status(p, &p->ch[n]);
	}
}

static void write_control(struct pit *p, uint8_t v)
{
	unsigned n = v >> 6, mode = v >> 1 & 7;
	struct channel *c;

	if (n == 3) {
		read_back(p, v);
		return;
	}
	c = &p->ch[n];
	if ((v >> 4 & 3) == RW_LATCH) {
		latch_count(p, c);
		return;
	}
	*c = (struct channel){
		.mode = mode > 5 ? mode - 4 : mode, /* 6 and 7 are 2 and 3 */
		.rw = v >> 4 & 3,
		.bcd = v & 1,
		.gate = c->gate,
		.count = c->count,
	};
	if (n == 0) {
		pit_set_irq(p, false);
		pit_schedule(p, pit_now(p));
	}
}

static uint8_t read_count(struct pit *p, struct channel *c)
{
	uint16_t v;
	bool high;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	v = c->latched ? c->latch : channel_value(c, pit_now(p));
	high = c->rw == RW_HIGH || (c->rw == RW_BOTH && c->read_high);
	if (c->rw == RW_BOTH)
		c->read_high = !c->read_high;
	if (c->rw != RW_BOTH || high)
		c->latched = false;
	return high ? v >> 8 : v & 0xff;
}

/* Only channel 2's gate can move. */
static void set_gate(struct pit *p, struct channel *c, bool gate)
{
	uint64_t now = pit_now(p);
	bool rose = gate && !c->gate;

	if (gate == c->gate)
		return;
	take_next_count(c, now);
	if (needs_trigger(c)) {
		if (rose) {
			c->triggered = true;
			c->start = now + 1;
		}
	} else if (!gate) {
		c->elapsed = elapsed(c, now);
		c->paused = true;
	} else {
		/* Modes 2 and 3 begin anew, 0 and 4 go on. */
		if (repeats(c)) {
			c->elapsed = 0;
			if (c->next_count)
				c->count = c->next_count;
			c->next_count = 0;
		}
		c->start = now - c->elapsed;
		c->paused = false;
	}
	c->gate = gate;
}

static uint64_t pit_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pit *p = container_of(r, struct pit, region);
	AUTO_LOCK(&p->lock);

	return offset < 3 ? read_count(p, &p->ch[offset]) : 0xff;
}

static void pit_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = container_of(r, struct pit, region);
	AUTO_LOCK(&p->lock);

	if (offset < 3)
		write_count(p, offset, value);
	else
		write_control(p, value);
}

static uint64_t speaker_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pit *p = container_of(r, struct pit, speaker);
	uint64_t now;
	AUTO_LOCK(&p->lock);

	now = pit_now(p);
	return p->port61 | (now / REFRESH_TICKS % 2 ? SPEAKER_REFRESH : 0) |
	       (channel_out(&p->ch[2], now) ? SPEAKER_OUT : 0);
}

static void speaker_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = container_of(r, struct pit, speaker);
	AUTO_LOCK(&p->lock);

	p->port61 = value & SPEAKER_WRITABLE;
	set_gate(p, &p->ch[2], value & SPEAKER_GATE);
}

static void pit_reset(struct device *d)
{
	struct pit *p = to_pit(d);
	AUTO_LOCK(&p->lock);

	for (unsigned n = 0; n < 3; n++)
		p->ch[n] = (struct channel){.rw = RW_BOTH, .count = 0x10000, .gate = n < 2};
	p->port61 = 0;
	pit_set_irq(p, false);
	pit_schedule(p, pit_now(p));
}

static void channel_state(struct channel *c, struct state *s, unsigned n)
{
	struct {
		const char *name;
		bool *v;
	} flags[] = {
		{"bcd", &c->bcd},
		{"gate", &c->gate},
		{"loaded", &c->loaded},
		{"triggered", &c->triggered},
		{"paused", &c->paused},
		{"write_high", &c->write_high},
		{"read_high", &c->read_high},
		{"latched", &c->latched},
		{"status_latched", &c->status_latched},
	};
	char name[32];

#define NAME(field) (snprintf(name, sizeof name, "ch%u." field, n), name)
	state_u8(s, NAME("mode"), &c->mode);
	state_u8(s, NAME("rw"), &c->rw);
	state_u32(s, NAME("count"), &c->count);
	state_u32(s, NAME("next_count"), &c->next_count);
	state_u64(s, NAME("start"), &c->start);
	state_u64(s, NAME("elapsed"), &c->elapsed);
	state_u8(s, NAME("low"), &c->low);
	state_u16(s, NAME("latch"), &c->latch);
	state_u8(s, NAME("status"), &c->status);
#undef NAME
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		snprintf(name, sizeof name, "ch%u.%s", n, flags[i].name);
		state_bool(s, name, flags[i].v);
	}
	if (!state_loading(s) || state_failed(s))
		return;
	if (c->mode > 5 || c->rw == RW_LATCH || c->rw > RW_BOTH || !c->count ||
	    c->count > 0x10000 || c->next_count > 0x10000 || c->start > INT64_MAX ||
	    c->elapsed > INT64_MAX)
		state_fail(s, "channel %u: no 8254 is in such a state", n);
}

static void pit_state(struct device *d, struct state *s)
{
	struct pit *p = to_pit(d);
	AUTO_LOCK(&p->lock);

	for (unsigned n = 0; n < 3; n++)
		channel_state(&p->ch[n], s, n);
	state_u8(s, "port61", &p->port61);
	state_bool(s, "irq_level", &p->irq_level);
	state_u64(s, "next_irq", &p->next_irq);
	if (!state_loading(s) || state_failed(s))
		return;
	p->port61 &= SPEAKER_WRITABLE;
	irq_set(p->irq, p->irq_level);
	if (p->next_irq)
		timer_arm(p->clock, &p->tick, tick_to_ns(p->next_irq));
	else
		timer_cancel(p->clock, &p->tick);
}

static void pit_free(struct device *d)
{
	struct pit *p;

	if (!d)
		return;
	p = to_pit(d);
	bus_unmap(p->bus, &p->region);
	bus_unmap(p->bus, &p->speaker);
	timer_cancel(p->clock, &p->tick);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int pit_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct pit *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_set(e, ENOMEM, "pit");
	p->dev.type = &pit_type;
	p->bus = env->bus;
	p->clock = env->clock;
	p->irq = env->irq[IRQ_PIT];
	p->tick.fire = pit_tick;
	pthread_mutex_init(&p->lock, NULL);
	p->region = (struct bus_region){"pit", 1, 1, pit_read, pit_write};
	p->speaker = (struct bus_region){"port61", 1, 1, speaker_read, speaker_write};
	pit_reset(&p->dev);
	r = bus_map(env->bus, BUS_PIO, PORT_PIT, 4, &p->region, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_PIO, PORT_SPEAKER, 1, &p->speaker, e);
	if (r < 0)
		pit_free(&p->dev);
	else
		*out = &p->dev;
	return r;
}

const struct device_type pit_type = {
	.name = "pit",
	.new = pit_new,
	.reset = pit_reset,
	.state = pit_state,
	.free = pit_free,
};
