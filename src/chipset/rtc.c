/* rtc: an MC146818 real-time clock with 128 bytes of CMOS (Motorola data sheet MC146818A).
 * Time is guest time plus an offset; the time registers exist only while SET holds them
 * still. Update, alarm and periodic flags are worked out for the time since the last look
 * when somebody looks, and by a timer when one of them may interrupt.
 *
 * The CMOS cells beyond the clock are what PC firmware keeps there, the memory size among
 * them; the guest may change them. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define NS_PER_S   1000000000ull
#define UPDATE_NS  244000 /* UIP rises this long before an update */
#define CRYSTAL_HZ 32768
#define CMOS_LEN   128
/* Times are kept before the year 2500, so that nanoseconds fit 64 bits. */
#define EPOCH_MAX_S 16725225599ull

enum {
	SECONDS,
	SECONDS_ALARM,
	MINUTES,
	MINUTES_ALARM,
	HOURS,
	HOURS_ALARM,
	WEEKDAY,
	DAY,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = 0x32,
};

#define A_UIP     0x80
#define A_DIVIDER 0x70 /* 2: runs; 6, 7: held in reset */
#define B_SET     0x80
#define B_PIE     0x40
#define B_AIE     0x20
#define B_UIE     0x10
#define B_BINARY  0x04
#define B_24H     0x02
#define C_IRQF    0x80
#define C_PF      0x40
#define C_AF      0x20
#define C_UF      0x10
#define D_VALID   0x80
#define HOUR_PM   0x80
#define ALARM_ANY 0xc0 /* both bits: matches always */

struct rtc {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct clock *clock;
	struct irq_line *irq;
	struct timer wake;
	uint64_t epoch_s, ram_bytes;

	pthread_mutex_t lock; /* guards all below */
	uint8_t index;
	uint8_t cmos[CMOS_LEN]; /* time cells: valid while SET is on */
	uint64_t offset_ns;     /* time of day, since 1970, is this plus guest time */
	uint64_t seen_ns;       /* guest time up to which register C is right */
};

struct civil {
	unsigned year, month, day, hour, minute, second;
};

static struct rtc *to_rtc(struct device *d)
{
	return container_of(d, struct rtc, dev);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar, which repeats every 400 years. */
static int64_t days_of(unsigned year, unsigned month, unsigned day)
{
	int64_t y = (int64_t)year - (month <= 2), era = (y + 400) / 400 - 1;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static struct civil civil_of(uint64_t s)
{
	uint64_t z = s / 86400 + 719468, era = z / 146097, of_era = z % 146097;
	uint64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint64_t of_year = of_era - (365 * y + y / 4 - y / 100);
	unsigned m = (5 * of_year + 2) / 153;
	struct civil c = {
		.day = of_year - (153 * m + 2) / 5 + 1,
		.month = m < 10 ? m + 3 : m - 9,
		.hour = s / 3600 % 24,
		.minute = s / 60 % 60,
		.second = s % 60,
	};

	c.year = y + era * 400 + (c.month <= 2);
	return c;
}

static uint8_t encode(const struct rtc *c, unsigned v)
{
	return c->cmos[REG_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10;
}

static unsigned decode(const struct rtc *c, uint8_t v)
{
	return c->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *c, unsigned hour)
{
	if (c->cmos[REG_B] & B_24H)
		return encode(c, hour);
	return encode(c, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *c, uint8_t v)
{
	if (c->cmos[REG_B] & B_24H)
		return decode(c, v) % 24;
	return decode(c, v & ~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

static uint64_t day_ns(const struct rtc *c)
{
	return clock_now(c->clock) + c->offset_ns;
}

/* Whether time moves: neither SET nor the divider's reset holds it. */
static bool running(const struct rtc *c)
{
	return !(c->cmos[REG_B] & B_SET) && (c->cmos[REG_A] & A_DIVIDER) < 0x60;
}

/* The time of day into the cells. */
static void store_time(struct rtc *c, uint64_t s)
{
	struct civil t = civil_of(s);

	c->cmos[SECONDS] = encode(c, t.second);
	c->cmos[MINUTES] = encode(c, t.minute);
	c->cmos[HOURS] = encode_hour(c, t.hour);
	c->cmos[WEEKDAY] = (s / 86400 + 4) % 7 + 1; /* 1970 began on a Thursday; Sunday is 1 */
	c->cmos[DAY] = encode(c, t.day);
	c->cmos[MONTH] = encode(c, t.month);
	c->cmos[YEAR] = encode(c, t.year % 100);
	c->cmos[CENTURY] = t.year / 100 / 10 % 10 << 4 | t.year / 100 % 10;
}

/* The cells as a time; nonsense in them gives some time, never an overflow. */
static uint64_t read_time(const struct rtc *c)
{
	unsigned century = (c->cmos[CENTURY] >> 4) * 10 + (c->cmos[CENTURY] & 15);
	unsigned year = century * 100 + decode(c, c->cmos[YEAR]);
	unsigned month = (decode(c, c->cmos[MONTH]) + 11) % 12 + 1;
	int64_t s = days_of(year, month, decode(c, c->cmos[DAY])) * 86400 +
		    decode_hour(c, c->cmos[HOURS]) * 3600 + decode(c, c->cmos[MINUTES]) * 60 +
		    decode(c, c->cmos[SECONDS]);

	return s < 0 ? 0 : min_u64(s, EPOCH_MAX_S);
}

/* Makes the time of day be s seconds and, past them, sub_ns. */
static void set_time(struct rtc *c, uint64_t s, uint64_t sub_ns)
{
	c->offset_ns = s * NS_PER_S + sub_ns - clock_now(c->clock);
}

static bool alarm_field(const struct rtc *c, unsigned cell, unsigned now)
{
	uint8_t v = c->cmos[cell];

	if ((v & ALARM_ANY) == ALARM_ANY)
		return true;
	return (cell == HOURS_ALARM ? decode_hour(c, v) : decode(c, v)) == now;
}

/* The first second after s at which the alarm goes off; 0: none. */
static uint64_t next_alarm(const struct rtc *c, uint64_t s)
{
	uint64_t end = s + 2 * 86400;

	for (s++; s < end;) {
		if (!alarm_field(c, HOURS_ALARM, s / 3600 % 24))
			s += 3600 - s % 3600;
		else if (!alarm_field(c, MINUTES_ALARM, s / 60 % 60))
			s += 60 - s % 60;
		else if (!alarm_field(c, SECONDS_ALARM, s % 60))
			s++;
		else
			return s;
	}
	return 0;
}

/* Periodic interrupt: its length in crystal ticks; 0: off. */
static unsigned period_ticks(const struct rtc *c)
{
	unsigned rate = c->cmos[REG_A] & 15;

	if (!rate || (c->cmos[REG_A] & A_DIVIDER) >= 0x60)
		return 0;
	return rate <= 2 ? 1u << (rate + 6) : 1u << (rate - 1);
}

static uint64_t period_index(const struct rtc *c, uint64_t ns)
{
	return mul_div(ns, CRYSTAL_HZ, NS_PER_S) / period_ticks(c);
}

/* Guest time at which a time of day comes; in the past or far off: UINT64_MAX. */
static uint64_t guest_ns(const struct rtc *c, uint64_t day_s)
{
	uint64_t day = day_s * NS_PER_S;

	return day - c->offset_ns;
}

/* Arms the timer for the first event that may interrupt. */
static void rtc_schedule(struct rtc *c, uint64_t now)
{
	uint8_t b = c->cmos[REG_B];
	uint64_t at = UINT64_MAX, s = (now + c->offset_ns) / NS_PER_S, alarm;

	if (!(c->cmos[REG_C] & C_IRQF)) {
		if ((b & B_PIE) && period_ticks(c))
			at = mul_div((period_index(c, now) + 1) * period_ticks(c), NS_PER_S,
				     CRYSTAL_HZ) +
			     1;
		if ((b & B_UIE) && running(c))
			at = min_u64(at, guest_ns(c, s + 1));
		if ((b & B_AIE) && running(c) && (alarm = next_alarm(c, s)))
			at = min_u64(at, guest_ns(c, alarm));
	}
	if (at == UINT64_MAX)
		timer_cancel(c->clock, &c->wake);
	else
		timer_arm(c->clock, &c->wake, at);
}

/* Brings register C, the line and the timer up to date. Called with lock held. */
static void rtc_update(struct rtc *c)
{
	uint64_t now = clock_now(c->clock), alarm;
	uint64_t from_s = (c->seen_ns + c->offset_ns) / NS_PER_S;
	uint64_t to_s = (now + c->offset_ns) / NS_PER_S;
	uint8_t *flags = &c->cmos[REG_C];

	if (period_ticks(c) && period_index(c, now) != period_index(c, c->seen_ns))
		*flags |= C_PF;
	if (running(c) && to_s > from_s) {
		*flags |= C_UF;
		alarm = next_alarm(c, from_s);
		if (alarm && alarm <= to_s)
			*flags |= C_AF;
	}
	c->seen_ns = now;
	*flags &= ~C_IRQF;
	if (*flags & c->cmos[REG_B] & (C_PF | C_AF | C_UF))
		*flags |= C_IRQF;
	irq_set(c->irq, *flags & C_IRQF);
	rtc_schedule(c, now);
}

static void rtc_wake(struct timer *t)
{
	struct rtc *c = container_of(t, struct rtc, wake);
	AUTO_LOCK(&c->lock);

	rtc_update(c);
}

static bool is_time_cell(unsigned i)
{
	return i == SECONDS || i == MINUTES || i == HOURS || (i >= WEEKDAY && i <= YEAR) ||
	       i == CENTURY;
}

static uint8_t read_cell(struct rtc *c, unsigned i)
{
	uint64_t t = day_ns(c);
	uint8_t v;

	switch (i) {
	case REG_A:
		if (running(c) && t % NS_PER_S >= NS_PER_S - UPDATE_NS)
			return c->cmos[REG_A] | A_UIP;
		return c->cmos[REG_A];
	case REG_C:
		rtc_update(c);
		v = c->cmos[REG_C];
		c->cmos[REG_C] = 0;
		rtc_update(c);
		return v;
	case REG_D: return D_VALID;
	}
	if (is_time_cell(i) && running(c))
		store_time(c, t / NS_PER_S);
	return c->cmos[i];
}

/* Registers A and B may stop the clock or set it going. */
static void write_control(struct rtc *c, unsigned i, uint8_t v)
{
	bool ran = running(c);

	if (ran)
		store_time(c, day_ns(c) / NS_PER_S);
	if (i == REG_A)
		c->cmos[REG_A] = v & ~A_UIP;
	else /* SET clears UIE */
		c->cmos[REG_B] = v & B_SET ? v & ~B_UIE : v;
	if (!ran && running(c)) /* the first update comes half a second after a stop */
		set_time(c, read_time(c), i == REG_A ? NS_PER_S / 2 : 0);
	else if (ran && running(c) && i == REG_B)
		store_time(c, day_ns(c) / NS_PER_S);
}

static void write_cell(struct rtc *c, unsigned i, uint8_t v)
{
	uint64_t t = day_ns(c);

	rtc_update(c);
	if (i == REG_A || i == REG_B) {
		write_control(c, i, v);
	} else if (i == REG_C || i == REG_D) {
		return; /* read-only */
	} else if (is_time_cell(i) && running(c)) {
		store_time(c, t / NS_PER_S);
		c->cmos[i] = v;
		set_time(c, read_time(c), t % NS_PER_S);
	} else {
		c->cmos[i] = v;
	}
	rtc_update(c);
}

static uint64_t rtc_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct rtc *c = container_of(r, struct rtc, region);
	AUTO_LOCK(&c->lock);

	return offset == 0 ? 0xff : read_cell(c, c->index & 0x7f);
}

static void rtc_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *c = container_of(r, struct rtc, region);
	AUTO_LOCK(&c->lock);

	if (offset == 0)
		c->index = value; /* bit 7, the NMI mask, masks nothing that we have */
	else
		write_cell(c, c->index & 0x7f, value);
}

/* Memory sizes as PC firmware reads them: base, 1-16 MiB, 16 MiB-4 GiB and above. */
static void memory_cells(struct rtc *c)
{
	uint64_t low = min_u64(c->ram_bytes, MEM_LOW_MAX), high = c->ram_bytes - low;
	uint64_t base_k = min_u64(low, KIB(640)) / KIB(1);
	uint64_t ext_k = low > MIB(1) ? min_u64((low - MIB(1)) / KIB(1), 0xffff) : 0;
	uint64_t ext_64k = low > MIB(16) ? min_u64((low - MIB(16)) / KIB(64), 0xffff) : 0;

	store_le(&c->cmos[0x15], base_k, 2);
	store_le(&c->cmos[0x17], ext_k, 2);
	store_le(&c->cmos[0x30], ext_k, 2);
	store_le(&c->cmos[0x34], ext_64k, 2); /* 0x34, 0x35 */
	store_le(&c->cmos[0x5b], min_u64(high / KIB(64), 0xffffff), 3);
}

/* The battery keeps CMOS and the time over a reset; only interrupts go (data sheet, RESET). */
static void rtc_reset(struct device *d)
{
	struct rtc *c = to_rtc(d);
	AUTO_LOCK(&c->lock);

	c->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE);
	c->cmos[REG_C] = 0;
	c->seen_ns = clock_now(c->clock);
	rtc_update(c);
}

static void rtc_state(struct device *d, struct state *s)
{
	struct rtc *c = to_rtc(d);
	AUTO_LOCK(&c->lock);

	if (!state_loading(s)) {
		rtc_update(c);
		if (running(c))
			store_time(c, day_ns(c) / NS_PER_S);
	}
	state_u8(s, "index", &c->index);
	state_bytes(s, "cmos", c->cmos, sizeof c->cmos);
	state_u64(s, "offset_ns", &c->offset_ns);
	state_u64(s, "seen_ns", &c->seen_ns);
	if (!state_loading(s) || state_failed(s))
		return;
	c->cmos[REG_A] &= ~A_UIP;
	c->cmos[REG_C] &= C_IRQF | C_PF | C_AF | C_UF;
	rtc_update(c);
}

static void rtc_free(struct device *d)
{
	struct rtc *c;

	if (!d)
		return;
	c = to_rtc(d);
	bus_unmap(c->bus, &c->region);
	timer_cancel(c->clock, &c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static int rtc_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct rtc *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_set(e, ENOMEM, "rtc");
	c->dev.type = &rtc_type;
	c->bus = env->bus;
	c->clock = env->clock;
	c->irq = env->irq[IRQ_RTC];
	c->ram_bytes = env->ram_bytes;
	c->wake.fire = rtc_wake;
	pthread_mutex_init(&c->lock, NULL);
	c->offset_ns = min_u64(env->rtc_epoch_s, EPOCH_MAX_S) * NS_PER_S;
	c->cmos[REG_A] = 0x26; /* runs, 1024 Hz */
	c->cmos[REG_B] = B_24H;
	memory_cells(c);
	rtc_reset(&c->dev);
	c->region = (struct bus_region){"rtc", 1, 1, rtc_read, rtc_write};
	r = bus_map(env->bus, BUS_PIO, PORT_RTC, 2, &c->region, e);
	if (r < 0)
		rtc_free(&c->dev);
	else
		*out = &c->dev;
	return r;
}

const struct device_type rtc_type = {
	.name = "rtc",
	.new = rtc_new,
	.reset = rtc_reset,
	.state = rtc_state,
	.free = rtc_free,
};
